//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use annulus_client::{Affinity, KeyId, KeyKind, Slot, SuspectName, Version};
use annulus_node::config::{Flags, Setting, parse_duration, parse_size, show_duration};
use clap::builder::{ArgAction, NonEmptyStringValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    Arg, ArgGroup, ArgMatches, Args, Command as ClapCommand, CommandFactory, FromArgMatches,
};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit;

/// Masterless session store: run a node, use and inspect a cluster
#[derive(Debug, Parser)]
#[command(name = "annulus", version, max_term_width = 100, after_help = exit::HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration file [env: ANNULUS_CONFIG] [default: /etc/annulus/annulus.toml if there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A node to talk to, host:port; may be repeated. Without: this host's, as configured
    #[arg(long, global = true, value_name = "ADDR", env = "ANNULUS_NODES", hide_env_values = true)]
    #[arg(value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: Vec<String>,
    /// The Unix socket of this host's node
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// The cluster's name
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// The file of the key to talk to nodes of other hosts with; none but its user may read it
    #[arg(long, global = true, value_name = "FILE", env = "ANNULUS_KEY_FILE")]
    #[arg(hide_env_values = true)]
    pub(crate) key_file: Option<PathBuf>,
    /// The table
    #[arg(long, global = true, value_name = "NAME", default_value = "sessions")]
    #[arg(env = "ANNULUS_TABLE", hide_env_values = true)]
    pub(crate) table: String,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = time)]
    #[arg(env = "ANNULUS_TIMEOUT", hide_env_values = true)]
    pub(crate) timeout: Duration,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until SIGTERM or SIGINT
    Node(NodeArgs),
    /// Write a configuration file that explains every setting
    Init(InitArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// How a node is, or every node
    Status(StatusArgs),
    /// The members of the cluster, as a node knows them
    Members,
    /// The cluster at a glance, again and again: members, fill, rates, hottest sessions, suspects
    Top(TopArgs),
    /// A node's counters and gauges, as Prometheus reads them
    Metrics,
    /// How far the members are from a node, or each from each: round trips, as nodes measure them
    Rtt(RttArgs),
    /// How the slots lie on the nodes
    Ring,
    /// Whether a node may be stopped now without harm: exit code 0, or 7 and what speaks against it
    SafeToStop(SafeToStopArgs),
    /// Have a node give its slots away, so that it can be stopped for good
    Drain(DrainArgs),
    /// Count a member out for good that is dead, or was not met again
    Remove(RemoveArgs),
    /// Pin a session to a node, which holds it and is asked first, or undo that
    Migrate(MigrateArgs),
    /// Move all sessions that are pinned to a node to others, or undo their pins
    Evacuate(EvacuateArgs),
    /// Show what would move if members had other weights or zones, or were away; or give them weights
    Rebalance(RebalanceArgs),
    /// Compare what nodes hold
    #[command(subcommand)]
    Sync(SyncCommand),
    /// What happened on a node lately: members, slots, orders; a JSON object a line
    Events(EventsArgs),
    /// The keys by which nodes and clients of other hosts are known
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The slot and the homes of a key
    Locate(KeyArgs),
    /// The homes of a key or a slot, or the slots of a node, as often as they change if wanted
    Route(RouteArgs),
    /// Where a session lives, what each home holds of it, and from where it is read
    Explain(KeyArgs),
    /// Begin a session; whatever was under the key before is replaced
    Start(StartArgs),
    /// Print a session's value
    Get(GetArgs),
    /// Change a session's value, some of its fields, or its lifetimes
    Set(SetArgs),
    /// Note a use of a session, so that it does not expire
    Touch(KeyArgs),
    /// Give a session another key, and end it under the old one
    Rotate(RotateArgs),
    /// End a session for good, or all those of a user
    End(EndArgs),
    /// List live sessions
    Sessions(SessionsArgs),
    /// The sessions that are used too much and kept away from their users for a while
    #[command(subcommand)]
    Suspects(SuspectsCommand),
    /// Sessions that expired or were evicted, in the files that nodes write them to
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Begin sessions of what a Redis holds: none whose key has a session, or one that ended
    Import(ImportArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
    /// How log lines look: text for people, or a JSON object per line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    #[arg(env = "ANNULUS_LOG_FORMAT", hide_env_values = true)]
    pub(crate) log_format: LogFormat,
    /// Once ready, print a line of JSON: {"node","incarnation","addr","socket"}
    #[arg(long)]
    pub(crate) print_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write it; `-` prints it [default: as --config, else /etc/annulus/annulus.toml]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration, and print each value and where it came from
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Ask every active member
    #[arg(long)]
    pub(crate) all: bool,
    /// Print the node's counters too
    #[arg(long)]
    pub(crate) counters: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Keys: q, Esc or Ctrl-C quits; up and down scroll the members.")]
pub(crate) struct TopArgs {
    /// How often the members are asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = period)]
    pub(crate) interval: Duration,
    /// Print one picture as text, for which it asks twice, and stop
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SafeToStopArgs {
    /// Wait so long for it to become safe
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Have it take slots again
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) cancel: bool,
    /// Be content with fewer copies than `replicas` where there are not enough other nodes
    #[arg(long, conflicts_with_all = ["cancel", "no_wait"])]
    pub(crate) accept_fewer: bool,
    /// Don't wait until everything is given away
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The member's name or id, as `annulus members` shows it, or `safe-to-stop` if the node did not meet it
    #[arg(value_name = "NODE")]
    pub(crate) member: String,
    /// Though most of the other members are out of reach: what they alone hold is given up for lost
    #[arg(long)]
    pub(crate) accept_loss: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) to: DestinationArgs,
    /// Pin it to no node any more
    #[arg(long, conflicts_with_all = ["to", "affinity"])]
    pub(crate) undo: bool,
}

/// Where a session is to go.
#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// The node, by its name or id
    #[arg(long, value_name = "NODE", conflicts_with = "affinity")]
    pub(crate) to: Option<String>,
    /// The node whose host has most of this to spare: cpu, memory, io or network
    #[arg(long, value_name = "WHAT", value_parser = affinity)]
    pub(crate) affinity: Option<Affinity>,
}

#[derive(Debug, Args)]
pub(crate) struct EvacuateArgs {
    /// The node, by its name or id
    #[arg(value_name = "NODE")]
    pub(crate) member: String,
    /// Pin them to other nodes, those whose hosts have most of this to spare: cpu, memory, io or network.
    /// Without: pin them to none, so that their homes alone serve them
    #[arg(long, value_name = "WHAT", value_parser = affinity)]
    pub(crate) affinity: Option<Affinity>,
    /// How many sessions to move at a time, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) concurrency: u16,
    /// How many bytes of sessions to move per second, such as 8MiB
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = rate)]
    pub(crate) rate: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// Show what would move, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A weight for a node, 0 to 65535, or `default` for the one in its configuration; may be repeated
    #[arg(long = "weight", value_name = "NODE=W", required_unless_present = "dry_run")]
    pub(crate) weights: Vec<String>,
    /// As if this node were away; may be repeated
    #[arg(long, value_name = "NODE", requires = "dry_run")]
    pub(crate) without: Vec<String>,
    /// As if this node stood in this zone; may be repeated
    #[arg(long = "zone", value_name = "NODE=ZONE", requires = "dry_run")]
    pub(crate) zones: Vec<String>,
}

/// What to do about differences between nodes.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum SyncCommand {
    /// Have a node compare all its slots with their other homes at once
    Now,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only events after the one with this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RttArgs {
    /// Ask every active member
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The session's key, 1 to 255 bytes
    #[arg(value_name = "KEY")]
    pub(crate) key: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// A session's key
    #[arg(value_name = "KEY", conflicts_with_all = ["slot", "of"])]
    pub(crate) key: Option<OsString>,
    /// A slot, 0 to 16383
    #[arg(long, value_name = "N", conflicts_with = "of", value_parser = slot)]
    pub(crate) slot: Option<Slot>,
    /// The slots that a node is a home of, by its name or id
    #[arg(long, value_name = "NODE")]
    pub(crate) of: Option<String>,
    /// Print it again whenever the members change, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// A value on the command line.
#[derive(Debug, Args)]
pub(crate) struct ValueArgs {
    /// The value; `-` reads it from standard input
    #[arg(value_name = "VALUE", conflicts_with = "file")]
    pub(crate) value: Option<OsString>,
    /// Read the value from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A field of a value that is a map; may be repeated
    #[arg(long = "field", value_name = "NAME=VALUE", conflicts_with_all = ["value", "file"])]
    pub(crate) fields: Vec<OsString>,
}

/// Lifetimes on the command line.
#[derive(Debug, Args)]
pub(crate) struct LifetimeArgs {
    /// How long it lives unused, such as 30m, or never [default: as the table says]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) idle: Option<Duration>,
    /// How long it lives from now on at most, or never [default: as the table says]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) lifetime: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) value: ValueArgs,
    #[command(flatten)]
    pub(crate) lifetimes: LifetimeArgs,
    /// Whose session it is
    #[arg(long, value_name = "USER")]
    pub(crate) owner: Option<OsString>,
    /// Only if no session lives under the key
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// How many nodes are to hold it, no fewer than its table says and at most 7
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) replicas: Option<u8>,
    /// Pin it to this node, by its name or id
    #[arg(long, value_name = "NODE", conflicts_with = "affinity")]
    pub(crate) pin: Option<String>,
    /// Pin it to the node whose host has most of this to spare: cpu, memory, io or network
    #[arg(long, value_name = "WHAT", value_parser = affinity)]
    pub(crate) affinity: Option<Affinity>,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The new key, 1 to 255 bytes
    #[arg(value_name = "NEW")]
    pub(crate) new: OsString,
}

#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The session's key, 1 to 255 bytes
    #[arg(value_name = "KEY", required_unless_present = "owner", conflicts_with = "owner")]
    pub(crate) key: Option<OsString>,
    /// All sessions that this user owns
    #[arg(long, value_name = "USER", conflicts_with = "if_version")]
    pub(crate) owner: Option<OsString>,
    /// But for the one with this key
    #[arg(long, value_name = "KEY", requires = "owner", conflicts_with = "key")]
    pub(crate) except: Option<OsString>,
    /// But for so many, the last used ones
    #[arg(long, value_name = "N", requires = "owner", conflicts_with_all = ["key", "except"])]
    pub(crate) keep: Option<usize>,
    #[command(flatten)]
    pub(crate) condition: ConditionArgs,
}

/// On which condition something is done.
#[derive(Debug, Args)]
pub(crate) struct ConditionArgs {
    /// Only if this is the session's last write, as `annulus get --json` shows it
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub(crate) if_version: Option<Version>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Print this field only
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Option<OsString>,
    /// Read from this host's shared memory or fail
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) value: ValueArgs,
    /// Delete a field; may be repeated
    #[arg(long = "delete", value_name = "NAME", conflicts_with_all = ["value", "file"])]
    pub(crate) delete: Vec<OsString>,
    #[command(flatten)]
    pub(crate) lifetimes: LifetimeArgs,
    #[command(flatten)]
    pub(crate) condition: ConditionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// List what this host's shared memory holds, without asking the node
    #[arg(long, conflicts_with = "all")]
    pub(crate) local: bool,
    /// List every session of the cluster once
    #[arg(long)]
    pub(crate) all: bool,
    /// List the sessions of the cluster that this user owns, the last used first
    #[arg(long, value_name = "USER", conflicts_with_all = ["local", "all", "cursor"])]
    pub(crate) owner: Option<OsString>,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
    /// The most sessions on a page, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Show keys; they are secrets. Without: short tags that tell keys apart
    #[arg(long)]
    pub(crate) keys: bool,
}

/// What to do about sessions that are used too much. Takes the role monitor.
#[derive(Debug, Subcommand)]
pub(crate) enum SuspectsCommand {
    /// Those of the cluster: what they are called instead of by their keys, and how hot they are
    List,
    /// Print a line whenever one comes, is kept away for longer, or is gone, until interrupted
    Watch(WatchArgs),
    /// Let one be used as much as it is, for a while
    Release(ReleaseArgs),
    /// End one for good
    End(SuspectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Stop after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) suspect: SuspectArgs,
    /// How long it is left alone, up to 365d
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = release)]
    pub(crate) time: Duration,
}

/// Which suspect is meant.
#[derive(Debug, Args)]
#[group(required = true)]
pub(crate) struct SuspectArgs {
    /// Its name, as `annulus suspects list` shows it
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<SuspectName>,
    /// The session's key
    #[arg(long, value_name = "KEY", conflicts_with = "name")]
    pub(crate) key: Option<OsString>,
}

/// What to do with files of `data_dir/archive`, or copies of them, which tables with `overflow = "archive"` have.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// What they hold: no keys and no values. Asks no node
    List(ArchiveListArgs),
    /// Start sessions again, with the lifetimes of the table: none whose key has a session, or one that ended
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveListArgs {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
pub(crate) struct RestoreArgs {
    /// The files; of each session the latest that is in any of them
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The one with this key
    #[arg(long, value_name = "KEY", group = "which")]
    pub(crate) key: Option<OsString>,
    /// All of the table's (see --table)
    #[arg(long, group = "which")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The Redis: redis://:PASSWORD@HOST:PORT/DB, or redis+unix:///PATH. Others see command lines: a password
    /// is better off in the environment
    #[arg(long, value_name = "URL", env = "ANNULUS_IMPORT_FROM", hide_env_values = true)]
    pub(crate) from: String,
    /// Only keys that match this, as SCAN takes it
    #[arg(long = "match", value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    /// Where to note how far it is, and to go on from if it is there; removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

/// What to do with the keys of a cluster. All but `generate` go to this host's node over its Unix
/// socket, which does it at every member it knows.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print a new key, which nobody knows yet
    Generate(GenerateArgs),
    /// Have all nodes accept a key
    Install(InstallArgs),
    /// Have all nodes seal with a key from now on
    Use(KeyIdArgs),
    /// Have all nodes accept a key no more
    Remove(KeyIdArgs),
    /// Which node accepts which keys, and which one is in use
    List,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// For clients with this role: authority, worker, monitor, operator [default: for nodes]
    #[arg(long, value_name = "ROLE", value_parser = key_kind)]
    pub(crate) role: Option<KeyKind>,
    /// Write it to a new file that none but this user may read
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The file that holds the key; `-` reads it from standard input. The key itself is not taken:
    /// others on this host can see command lines
    #[arg(value_name = "FILE")]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeyIdArgs {
    /// The key's id, as `annulus keys list` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: KeyId,
    /// Though a member does not answer, or lacks the key
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// A flag for each setting of a node. `--cluster` and `--socket` are among the global ones.
#[derive(Debug, Default)]
pub(crate) struct SettingFlags {
    pub(crate) given: Vec<(Setting, String)>,
}

impl SettingFlags {
    /// As the configuration takes them.
    pub(crate) fn with_global(&self, global: &Global) -> Flags {
        let mut flags = Flags::default();
        let named = [(Setting::Cluster, &global.cluster), (Setting::Socket, &global.socket)];
        for (setting, value) in named {
            if let Some(value) = value {
                flags.set(setting, value);
            }
        }
        for (setting, value) in &self.given {
            flags.set(*setting, value);
        }
        flags
    }

    fn settings() -> impl Iterator<Item = Setting> {
        let global = [Setting::Cluster, Setting::Socket];
        Setting::ALL.iter().copied().filter(move |setting| !global.contains(setting))
    }
}

impl Args for SettingFlags {
    fn augment_args(command: ClapCommand) -> ClapCommand {
        let arg = |setting: Setting| {
            let arg = Arg::new(setting.key())
                .long(setting.flag())
                .value_name(setting.value_name())
                .help(setting.help())
                .help_heading("Settings");
            match setting {
                Setting::Seeds => arg.action(ArgAction::Append).alias("seed"),
                Setting::Rings => arg.action(ArgAction::Append).alias("ring"),
                Setting::LocalRoles => arg.action(ArgAction::Append).alias("local-role"),
                _ => arg,
            }
        };
        command.args(Self::settings().map(arg))
    }

    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Self::settings().filter_map(|setting| {
            let values = matches.get_many::<String>(setting.key())?;
            let values: Vec<&str> = values.map(String::as_str).collect();
            Some((setting, values.join(",")))
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads the command line.
pub(crate) fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    check(&cli, &matches).map_err(|why| {
        let name = matches.subcommand_name().expect("a command is required");
        let command = command.find_subcommand_mut(name).expect("it was matched");
        command.error(ErrorKind::ArgumentConflict, why)
    })?;
    Ok(cli)
}

/// The command line as clap knows it, for help, completions and the manual.
pub(crate) fn command() -> ClapCommand {
    let settings = "Each setting is also a key of the configuration file, and an environment variable: \
                    --data-dir, data_dir, ANNULUS_DATA_DIR. Flags win over the environment, which wins \
                    over the file.";
    Cli::command().mut_subcommand("node", |node| node.after_help(settings))
}

/// What clap cannot express.
fn check(cli: &Cli, matches: &ArgMatches) -> Result<(), &'static str> {
    let (_, matches) = matches.subcommand().expect("a command is required");
    let said = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    match &cli.command {
        Command::Node(_) if said("node") => {
            Err("--node names a node for a command to talk to; a node joins others through --seeds")
        }
        Command::Start(start) => {
            let ValueArgs { value, file, fields } = &start.value;
            let none = value.is_none() && file.is_none() && fields.is_empty();
            if none {
                Err("give a VALUE, --file, --field, or - for standard input")
            } else {
                Ok(())
            }
        }
        Command::Route(RouteArgs { key: None, slot: None, of: None, .. }) => {
            Err("give a KEY, --slot or --of")
        }
        Command::Migrate(migrate) => {
            let DestinationArgs { to, affinity } = &migrate.to;
            match to.is_some() || affinity.is_some() || migrate.undo {
                true => Ok(()),
                false => Err("give --to NODE, --affinity WHAT or --undo"),
            }
        }
        Command::Rebalance(rebalance) => {
            let RebalanceArgs { weights, without, zones, .. } = rebalance;
            match weights.is_empty() && without.is_empty() && zones.is_empty() {
                true => Err("give --weight, --without or --zone"),
                false => Ok(()),
            }
        }
        Command::Set(set) => {
            let ValueArgs { value, file, fields } = &set.value;
            let value = value.is_some() || file.is_some();
            let fields = !fields.is_empty() || !set.delete.is_empty();
            let lifetimes = set.lifetimes.idle.is_some() || set.lifetimes.lifetime.is_some();
            match (value || fields, lifetimes) {
                (false, false) => Err(
                    "give a VALUE, --file, --field, --delete, - for standard input, or lifetimes",
                ),
                (true, true) => Err("change the value and the lifetimes one after the other"),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn key_kind(text: &str) -> Result<KeyKind, String> {
    let kind = KeyKind::of_name(text).filter(|kind| *kind != KeyKind::Node);
    kind.ok_or_else(|| "must be authority, worker, monitor or operator".to_owned())
}

fn affinity(text: &str) -> Result<Affinity, String> {
    Affinity::of_name(text).ok_or_else(|| "must be cpu, memory, io or network".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("must be more than nothing".to_owned()),
        size => Ok(size),
    }
}

fn slot(text: &str) -> Result<Slot, String> {
    let slot = text.parse().ok().and_then(Slot::new);
    slot.ok_or_else(|| "must be from 0 to 16383".to_owned())
}

fn version(text: &str) -> Result<Version, String> {
    let example = "must be as `annulus get --json` shows it, such as 1790000000000.0@0000000000a1";
    Version::parse(text).ok_or_else(|| example.to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    time_up_to(text, Duration::from_secs(3_600))
}

/// How often nodes may be asked.
fn period(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    match time < PERIOD_MIN {
        true => Err(format!("must be at least {}", show_duration(PERIOD_MIN))),
        false => Ok(time),
    }
}

/// How often nodes are asked at most.
const PERIOD_MIN: Duration = Duration::from_millis(100);

/// For how long a suspect may be released.
fn release(text: &str) -> Result<Duration, String> {
    time_up_to(text, Duration::from_secs(365 * 86_400))
}

fn time_up_to(text: &str, most: Duration) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let bounds = Duration::from_millis(1)..=most;
    if bounds.contains(&time) {
        return Ok(time);
    }
    Err(format!(
        "must be from {} to {}",
        show_duration(*bounds.start()),
        show_duration(*bounds.end())
    ))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    if text == "never" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

#[cfg(test)]
mod tests;
