//! One function per command.

mod archive;
mod configuration;
mod import;
pub(crate) mod keys;
mod manual;
mod members;
mod metrics;
mod migrate;
mod node;
mod operate;
mod placement;
mod rebalance;
mod rtt;
mod session;
mod sessions;
mod status;
mod suspects;
mod top;

use crate::args::{ArchiveCommand, Cli, Command, ConfigCommand, Global, SyncCommand};
use crate::cluster::Cluster;

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { mut global, command } = cli;
    match command {
        Command::Node(args) => node::run(&global, &args),
        Command::Init(args) => configuration::init(&global, &args),
        Command::Config(ConfigCommand::Check(args)) => configuration::check(&global, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Status(args) => {
            connected(&global, async |cluster| status::run(cluster, &args).await)
        }
        Command::Keys(command) => {
            global.timeout = global.timeout.max(keys::TIMEOUT);
            match keys::Asked::of(command)? {
                None => Ok(()),
                Some(asked) => connected(&global, async |cluster| keys::run(cluster, asked).await),
            }
        }
        Command::Members => connected(&global, members::run),
        Command::Top(args) => {
            top::check(&global, &args)?;
            connected(&global, async |cluster| top::run(cluster, &global, &args).await)
        }
        Command::Metrics => connected(&global, metrics::run),
        Command::Rtt(args) => connected(&global, async |cluster| rtt::run(cluster, &args).await),
        Command::SafeToStop(args) => {
            connected(&global, async |cluster| operate::safe_to_stop(cluster, &args).await)
        }
        Command::Drain(args) => {
            connected(&global, async |cluster| operate::drain(cluster, &args).await)
        }
        Command::Remove(args) => {
            connected(&global, async |cluster| operate::remove(cluster, &args).await)
        }
        Command::Migrate(args) => {
            connected(&global, async |cluster| migrate::migrate(cluster, &args).await)
        }
        Command::Evacuate(args) => {
            connected(&global, async |cluster| migrate::evacuate(cluster, &args).await)
        }
        Command::Rebalance(args) => {
            connected(&global, async |cluster| rebalance::run(cluster, &args).await)
        }
        Command::Sync(SyncCommand::Now) => connected(&global, operate::sync_now),
        Command::Events(args) => {
            connected(&global, async |cluster| operate::events(cluster, &args).await)
        }
        Command::Ring => connected(&global, placement::ring),
        Command::Locate(args) => {
            connected(&global, async |cluster| placement::locate(cluster, &args).await)
        }
        Command::Route(args) => {
            connected(&global, async |cluster| placement::route(cluster, &args).await)
        }
        Command::Explain(args) => {
            connected(&global, async |cluster| placement::explain(cluster, &args).await)
        }
        Command::Start(args) => {
            connected(&global, async |cluster| session::start(cluster, &args).await)
        }
        Command::Get(args) => {
            connected(&global, async |cluster| session::get(cluster, &args).await)
        }
        Command::Set(args) => {
            connected(&global, async |cluster| session::set(cluster, &args).await)
        }
        Command::Touch(args) => {
            connected(&global, async |cluster| session::touch(cluster, &args).await)
        }
        Command::Rotate(args) => {
            connected(&global, async |cluster| session::rotate(cluster, &args).await)
        }
        Command::End(args) => {
            connected(&global, async |cluster| session::end(cluster, &args).await)
        }
        Command::Sessions(args) => {
            connected(&global, async |cluster| sessions::run(cluster, &args).await)
        }
        Command::Archive(ArchiveCommand::List(args)) => archive::list(&global, &args),
        Command::Archive(ArchiveCommand::Restore(args)) => {
            connected(&global, async |cluster| archive::restore(cluster, &args).await)
        }
        Command::Import(args) => {
            connected(&global, async |cluster| import::import(cluster, &args).await)
        }
        Command::Suspects(command) => {
            connected(&global, async |cluster| suspects::run(cluster, &command).await)
        }
    }
}

/// Runs a command that talks to a cluster.
fn connected(
    global: &Global,
    command: impl AsyncFnOnce(&Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::connect(global).await?;
        command(&cluster).await
    })
}
