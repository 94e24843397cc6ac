//! What the door tells of itself and its clients.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_net::{Clock, Peer};
use annulus_resp::{
    Arguments, Case, ClientAttribute, ClientList, ClientType, Command, KillFilter, Writer, matches,
    texts,
};

use super::Door;
use super::connection::{Client, Connection, label};
use super::events;
use super::store::{Outcome, Trouble};

/// As which Redis the door behaves, for clients that look at it.
const REDIS_VERSION: &str = "7.2.4";
/// The parameter that says which events of keys are told.
const EVENTS: &str = "notify-keyspace-events";

impl<C: Clock> Connection<C> {
    /// The answer to HELLO.
    pub(super) fn hello(&self, out: &mut Writer<'_>) {
        out.map(7);
        for (name, text) in [("server", "redis"), ("version", REDIS_VERSION)] {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        }
        out.bulk(b"proto");
        out.integer(self.protocol().number());
        out.bulk(b"id");
        out.integer(id(self.client()));
        for (name, text) in [("mode", self.door.mode()), ("role", "master")] {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        }
        out.bulk(b"modules");
        out.array(0);
    }

    /// Does a command about the server or its clients.
    pub(super) fn tell<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let now = self.door.clock.monotonic();
        match command {
            Command::ClientSetInfo { attribute, value } => {
                let value = label(value)?;
                let mut facts = self.client().facts();
                match attribute {
                    ClientAttribute::LibraryName => facts.library = value,
                    ClientAttribute::LibraryVersion => facts.library_version = value,
                }
                out.ok();
            }
            Command::ClientId => out.integer(id(self.client())),
            Command::ClientGetName => match &self.client().facts().name[..] {
                [] => out.null(),
                name => out.bulk(name),
            },
            Command::ClientSetName { name } => {
                self.client().facts().name = label(name)?;
                out.ok();
            }
            Command::ClientInfo => out.verbatim(&line(self.client(), now)),
            Command::ClientList(list) => {
                let numbers: BTreeSet<i64> = list.numbers().collect();
                let is_listed = |client: &&Arc<Client>| match list {
                    ClientList::Type(kind) => kind == kind_of(client),
                    ClientList::Ids(_) => numbers.contains(&id(client)),
                    ClientList::All => true,
                };
                let clients: Vec<_> =
                    self.door.clients().values().filter(is_listed).cloned().collect();
                let lines = clients.iter().map(|client| line(client, now));
                out.verbatim(&lines.collect::<Vec<_>>().concat());
            }
            Command::ClientKill(filter) => self.kill(filter, out)?,
            Command::Info { sections } => out.verbatim(self.door.info(sections, now).as_bytes()),
            Command::Time => {
                let ms = self.door.clock.wall_ms();
                out.array(2);
                out.bulk((ms / 1_000).to_string().as_bytes());
                out.bulk((ms % 1_000 * 1_000).to_string().as_bytes());
            }
            Command::ConfigGet { patterns } => {
                let parameters = self.door.parameters();
                let is_asked = |name: &str| {
                    let is_it =
                        |pattern: &[u8]| matches(pattern, name.as_bytes(), Case::Insensitive);
                    patterns.iter().any(|pattern| is_it(&pattern))
                };
                let asked = || parameters.iter().filter(|(name, _)| is_asked(name));
                out.map(asked().count());
                for (name, value) in asked() {
                    out.bulk(name.as_bytes());
                    out.bulk(value.as_bytes());
                }
            }
            Command::ConfigSet { pairs } => self.check_parameters(pairs, out)?,
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// CONFIG SET: what is to be set must be so already. The node is configured elsewhere, and all nodes alike.
    fn check_parameters<'a>(&self, pairs: Arguments<'a>, out: &mut Writer<'_>) -> Outcome<'a, ()> {
        let parameters = self.door.parameters();
        for (name, value) in pairs.pairs() {
            let known = parameters.iter().find(|(known, _)| name.is(known));
            let Some((known, now)) = known else {
                let name = String::from_utf8_lossy(&name).into_owned();
                let text =
                    format!("Unknown option or number of arguments for CONFIG SET - '{name}'");
                return Err(Trouble::Error("ERR", text.into()));
            };
            let are_events = *known == EVENTS;
            let is_so = *value == *now.as_bytes()
                || are_events && self.door.tells_events && events::are_told(&value);
            if !is_so {
                let why = match are_events {
                    true if self.door.tells_events => {
                        "keyspace_events = \"on\" under [redis] on each node tells gxeE, and no others".to_owned()
                    }
                    true => "set keyspace_events = \"on\" under [redis] on each node, for gxeE".to_owned(),
                    false => "it follows from the configuration of the node".to_owned(),
                };
                let text =
                    format!("CONFIG SET failed (possibly related to argument '{known}') - {why}");
                return Err(Trouble::Error("ERR", text.into()));
            }
        }
        out.ok();
        Ok(())
    }

    fn kill<'a>(&mut self, filter: KillFilter<'a>, out: &mut Writer<'_>) -> Outcome<'a, ()> {
        if let Some(user) = filter.user
            && !self.door.users.knows(&user)
        {
            let text = format!("No such user '{}'", String::from_utf8_lossy(&user));
            return Err(Trouble::Error("ERR", text.into()));
        }
        let own = self.client().number;
        let is_killed = |client: &&Arc<Client>| {
            filter.id.is_none_or(|asked| asked == id(client))
                && filter.user.is_none_or(|asked| &*asked == client.facts().user.as_bytes())
                && filter.client_type.is_none_or(|kind| kind == kind_of(client))
                && filter.address.is_none_or(|asked| *asked == *client.address().as_bytes())
                && filter.local_address.is_none_or(|asked| *asked == *client.at.as_bytes())
                && !(filter.skip_me && client.number == own)
        };
        let killed: Vec<_> = self.door.clients().values().filter(is_killed).cloned().collect();
        for client in &killed {
            if client.number == own {
                self.end();
            } else {
                client.kill();
            }
        }
        match (filter.one, killed.len()) {
            (true, 0) => return Err(Trouble::text("ERR", texts::NO_SUCH_CLIENT)),
            (true, _) => out.ok(),
            (false, count) => out.integer(count as i64),
        }
        Ok(())
    }
}

impl<C: Clock> Door<C> {
    fn mode(&self) -> &'static str {
        if self.cluster.is_some() { "cluster" } else { "standalone" }
    }

    fn info(&self, asked: Arguments<'_>, now: Duration) -> String {
        let counts = &self.counts;
        let unknown = self.unknown.list().into_iter();
        let unknown = unknown.map(|(name, count)| format!("{name}={count}"));
        let unknown = unknown.collect::<Vec<_>>().join(",");
        let port = self.addrs.first().map_or(0, |addr| addr.port());
        let clients = self.clients().len();
        let [channels, patterns, sharded] = self.channels().counts();
        let text = |text: &str| text.to_owned();
        let sections = [
            (
                "Server",
                vec![
                    ("redis_version", text(REDIS_VERSION)),
                    ("redis_mode", text(self.mode())),
                    ("annulus_version", text(env!("CARGO_PKG_VERSION"))),
                    ("annulus_node", self.reception.welcome.node.to_string()),
                    ("os", text(std::env::consts::OS)),
                    ("arch_bits", usize::BITS.to_string()),
                    ("process_id", std::process::id().to_string()),
                    ("tcp_port", port.to_string()),
                    ("uptime_in_seconds", now.saturating_sub(self.since).as_secs().to_string()),
                ],
            ),
            (
                "Clients",
                vec![
                    ("connected_clients", clients.to_string()),
                    ("maxclients", self.connections_max.to_string()),
                ],
            ),
            ("Persistence", vec![("loading", text("0"))]),
            (
                "Stats",
                vec![
                    ("total_connections_received", read(&counts.accepted)),
                    ("total_commands_processed", read(&counts.commands)),
                    ("rejected_connections", read(&counts.refused)),
                    ("pubsub_channels", channels.to_string()),
                    ("pubsub_patterns", patterns.to_string()),
                    ("pubsubshard_channels", sharded.to_string()),
                    ("unknown_commands", unknown),
                ],
            ),
            ("Replication", vec![("role", text("master")), ("connected_slaves", text("0"))]),
            ("Cluster", vec![("cluster_enabled", u8::from(self.cluster.is_some()).to_string())]),
            ("Keyspace", Vec::new()),
        ];
        let is_asked = |name: &str| {
            let is_it = |word: annulus_resp::Argument<'_>| {
                let is_all = word.is("all") || word.is("everything") || word.is("default");
                is_all || word.is(&name.to_ascii_lowercase())
            };
            asked.is_empty() || asked.iter().any(is_it)
        };
        let mut info = String::new();
        for (name, lines) in sections.iter().filter(|(name, _)| is_asked(name)) {
            let blank = if info.is_empty() { "" } else { "\r\n" };
            let _ = write!(info, "{blank}# {name}\r\n");
            for (key, value) in lines {
                let _ = write!(info, "{key}:{value}\r\n");
            }
        }
        info
    }

    /// What CONFIG GET knows: what clients and their frameworks look at.
    fn parameters(&self) -> [(&'static str, String); 9] {
        let text = |text: &str| text.to_owned();
        [
            ("appendonly", text("no")),
            ("databases", self.tables.len().to_string()),
            ("maxclients", self.connections_max.to_string()),
            ("maxmemory", text("0")),
            ("maxmemory-policy", text("noeviction")),
            (EVENTS, text(if self.tells_events { events::TOLD } else { "" })),
            ("proto-max-bulk-len", super::LIMITS.bulk_bytes_max.to_string()),
            ("save", text("")),
            ("timeout", text("0")),
        ]
    }
}

fn read(count: &std::sync::atomic::AtomicU64) -> String {
    count.load(Ordering::Relaxed).to_string()
}

fn id(client: &Client) -> i64 {
    i64::try_from(client.number).unwrap_or(i64::MAX)
}

fn kind_of(client: &Client) -> ClientType {
    match client.facts().subscriptions {
        [0, 0, 0] => ClientType::Normal,
        _ => ClientType::PubSub,
    }
}

/// A client's line in CLIENT LIST. What Redis has there and we have not is as of somebody idle.
fn line(client: &Client, now: Duration) -> Vec<u8> {
    let facts = client.facts().clone();
    let flags = match (kind_of(client), client.peer == Peer::Local) {
        (ClientType::PubSub, true) => "PU",
        (ClientType::PubSub, false) => "P",
        (_, true) => "U",
        (_, false) => "N",
    };
    let [channels, patterns, sharded] = facts.subscriptions;
    let seconds = |since: Duration| now.saturating_sub(since).as_secs();
    let text = String::from_utf8_lossy;
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db={} sub={channels} psub={patterns} ssub={sharded} multi=-1 qbuf=0 \
         qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user={} \
         redir=-1 resp={} lib-name={} lib-ver={}\n",
        client.number,
        client.address(),
        client.at,
        text(&facts.name),
        seconds(client.since),
        seconds(facts.used),
        facts.table,
        facts.command,
        facts.user,
        facts.protocol.number(),
        text(&facts.library),
        text(&facts.library_version),
    )
    .into_bytes()
}
