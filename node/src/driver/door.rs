//! The door for clients of Redis: their connections, requests and answers. What these ask becomes requests about sessions,
//! as those of any other client; the cores know nothing of it.
//!
//! A task per connection does one command after the other and writes the answers when no whole request is left. Nothing is
//! remembered of a connection but what it said of itself, and which keys it knows to have no session ([`told`]).

mod channels;
mod cluster;
mod connection;
mod dump;
mod events;
mod fields;
mod flush;
mod hashes;
mod keyspace;
mod listening;
mod near;
mod rename;
mod scripts;
mod server;
mod sets;
mod sorted_sets;
mod store;
mod strings;
mod told;
mod transaction;
mod unknown;
mod users;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_net::{Clock, Listener, LocalEnd, Net, Peer};
use annulus_proto::limits::VALUE_BYTES_MAX;
use annulus_proto::message::Published;
use annulus_resp::{Limits, Parsed, Parser, Writer};
use bytes::{Buf, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use super::WRITE_TIMEOUT;
use super::accept::{ACCEPT_PAUSE, Place, Reception};
use super::error::RunError;
use super::inboxes::Stopping;
use super::settings::{NodeSettings, OnLateSave, RedisSettings};
use super::shared::Shared;
pub(super) use channels::Channels;
pub(super) use cluster::{Cluster, announced};
use connection::{Client, Connection};
pub(super) use events::Events;
pub(super) use near::NearTables;
use scripts::Scripts;
use store::Store;
pub(super) use unknown::UnknownCommands;
use users::User;
pub(super) use users::Users;

/// What all connections share.
pub(super) struct Door<C> {
    clock: C,
    reception: Arc<Reception>,
    cores: Arc<[Arc<Shared>]>,
    near: NearTables,
    /// By their numbers in SELECT.
    tables: Vec<Table>,
    users: Users,
    on_late_save: OnLateSave,
    /// Whether nodes tell each other what became of keys, for those who listen.
    tells_events: bool,
    scripts: Scripts,
    connections_max: u32,
    connections: AtomicU32,
    /// The number of the connection that sent many commands at a time last.
    served_last: AtomicU64,
    /// The addresses, for INFO.
    addrs: Vec<SocketAddr>,
    /// What clients of clusters are told; `None` = they find none.
    cluster: Option<Cluster>,
    /// Tells the other members of a message to a channel.
    abroad: Abroad,
    /// When it was opened, by the monotonic clock.
    since: Duration,
    counts: Counts,
    /// What CLIENT LIST lists, by their numbers.
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    unknown: Arc<UnknownCommands>,
    random: Mutex<StdRng>,
}

/// Sends a message to the other members, for their subscribers. It waits for nothing.
pub(super) type Abroad = Box<dyn Fn(Published) + Send + Sync>;

/// A table, as SELECT chooses it.
struct Table {
    name: String,
    /// Its place in the settings.
    place: usize,
    value_bytes_max: usize,
    /// How long what is written lives at most, in milliseconds; 0 = for ever.
    lifetime_max_ms: u64,
    /// How many homes its sessions have, at most.
    replicas: usize,
}

/// What INFO counts.
#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    commands: AtomicU64,
}

/// What a request may be. A value that is too large for every table gets an answer, and does not end the connection.
const LIMITS: Limits = Limits {
    arguments_max: 128 << 10,
    bulk_bytes_max: 2 * VALUE_BYTES_MAX as u32,
    request_bytes_max: 8 << 20,
};
/// How much is read at a time, at most: twice what came the last time, so that who says little keeps little room for it.
const READ_BYTES: usize = 4 << 10;
/// And at least.
const READ_BYTES_MIN: usize = 512;
/// Buffers that grew beyond this are given back when they are empty.
const BUFFER_KEPT_BYTES: usize = 16 << 10;
/// More answers than this are written before the next command is done.
const ANSWERS_BYTES_MAX: usize = 1 << 20;

/// Where the node listens for clients of Redis.
pub(super) struct Doors<L> {
    tcp: Vec<L>,
    local: Option<(L, PathBuf)>,
    /// The addresses of the former.
    pub(super) addrs: Vec<SocketAddr>,
}

/// Begins to listen where the settings say, and where that gives way, if that is possible.
///
/// # Errors
/// [`RunError::RedisListen`], [`RunError::RedisSocket`].
pub(super) async fn listen<N: Net>(
    net: &N,
    settings: &RedisSettings,
) -> Result<Doors<N::Listener>, RunError> {
    let (mut tcp, mut addrs) = (Vec::new(), Vec::new());
    for &addr in &settings.listen {
        let fail = |source| RunError::RedisListen { addr, source };
        let listener = match net.listen(addr).await {
            Err(error) if settings.gives_way => {
                tracing::info!(
                    %addr, %error,
                    "no door for clients of Redis, since its address cannot be had; `redis.listen` names another one, or none"
                );
                continue;
            }
            listening => listening.map_err(fail)?,
        };
        addrs.push(listener.local_addr().map_err(fail)?);
        tcp.push(listener);
    }
    let local = match &settings.socket {
        None => None,
        Some(path) => {
            let fail = |source| RunError::RedisSocket { path: path.clone(), source };
            Some((net.listen_local(path).await.map_err(fail)?, path.clone()))
        }
    };
    Ok(Doors { tcp, local, addrs })
}

impl<L: Listener> Doors<L>
where
    L::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Lets clients in, for ever.
    pub(super) fn open<C: Clock>(self, door: Arc<Door<C>>, tasks: &mut JoinSet<()>) {
        for (listener, addr) in self.tcp.into_iter().zip(self.addrs) {
            tasks.spawn(accept(listener, addr.to_string(), door.clone()));
        }
        if let Some((listener, path)) = self.local {
            tasks.spawn(accept(listener, path.display().to_string(), door));
        }
    }
}

/// Accepts connections for ever; they end with it.
async fn accept<L, C>(mut listener: L, at: String, door: Arc<Door<C>>)
where
    L: Listener,
    L::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Clock,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let end = L::local_end(&stream);
                    let (at, door) = (at.clone(), door.clone());
                    connections.spawn(async move { door.receive(stream, peer, end, at).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of Redis; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of a client of Redis ended by itself");
                }
            }
        }
    }
}

impl<C: Clock> Door<C> {
    /// The door of a node with these settings; `seed` is random.
    pub(super) fn new(
        settings: &NodeSettings,
        users: Users,
        addrs: Vec<SocketAddr>,
        (cluster, abroad, unknown): (Option<Cluster>, Abroad, Arc<UnknownCommands>),
        (reception, cores, near): (Arc<Reception>, &[Arc<Shared>], NearTables),
        clock: &C,
        seed: u64,
    ) -> Self {
        let tables = settings.tables.iter().map(|table| &table.policy).enumerate();
        let table = |(place, policy): (usize, &crate::core::TablePolicy)| Table {
            name: policy.name.clone(),
            place,
            value_bytes_max: policy.max_value as usize,
            lifetime_max_ms: u64::try_from(policy.lifetime_max.as_millis()).unwrap_or(u64::MAX),
            replicas: policy.replicas.get().into(),
        };
        Self {
            clock: clock.clone(),
            reception,
            cores: cores.into(),
            near,
            tables: tables.filter(|(_, policy)| policy.ring == 0).map(table).collect(),
            users,
            on_late_save: settings.redis.on_late_save,
            tells_events: settings.core.tells_gone,
            scripts: Scripts::default(),
            connections_max: settings.redis.connections_max,
            connections: AtomicU32::new(0),
            served_last: AtomicU64::new(0),
            addrs,
            cluster,
            abroad,
            since: clock.monotonic(),
            counts: Counts::default(),
            clients: Mutex::default(),
            unknown,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    async fn receive<S>(
        self: Arc<Self>,
        stream: S,
        peer: Peer,
        end: io::Result<Option<LocalEnd>>,
        at: String,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tally = &self.reception.tally;
        let (read_half, mut write_half) = tokio::io::split(stream);
        let Some(_place) = Place::take(&self.connections, self.connections_max) else {
            tally.add("redis_connections_refused");
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            let _ = write(&mut write_half, b"-ERR max number of clients reached\r\n").await;
            return;
        };
        let may = match end.and_then(|end| self.reception.role_at(end)) {
            Ok(may) => may,
            Err(error) => {
                tracing::error!(%error, "the user behind a local stream is unknown; it is closed");
                return tally.add("local_users_unknown");
            }
        };
        tally.add("redis_connections");
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let number = self.reception.next.fetch_add(1, Ordering::Relaxed);
        let (client, seed) = {
            let mut random = self.random();
            (random.random(), random.random())
        };
        // Without keys everybody on loopback may do everything, by whatever door; over the socket what its user may.
        let is_open = self.reception.keys.is_none() || peer == Peer::Local;
        let open = if is_open { User::DEVELOPMENT } else { User::AUTHORITY };
        let inside = (self.reception.clone(), self.cores.clone());
        let store = Store::new(inside, self.clock.clone(), number, client);
        let client = Arc::new(Client::new(number, peer, at, self.clock.monotonic()));
        self.clients().insert(number, client.clone());
        let connection = Connection::new(self.clone(), client, store, (open, may), seed);
        let ended = self.serve(connection, read_half, &mut write_half).await;
        self.clients().remove(&number);
        if ended.is_ok() {
            let _ = tokio::time::timeout(WRITE_TIMEOUT, write_half.shutdown()).await;
        }
    }

    /// Serves a connection until either side ends it.
    ///
    /// # Errors
    /// If it cannot be written to.
    async fn serve<R, W>(
        &self,
        mut connection: Connection<C>,
        mut read_half: R,
        write_half: &mut W,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut parser = Parser::new(LIMITS);
        parser.set_authenticated(connection.is_authenticated());
        let (mut input, mut answers, mut expected) = (BytesMut::new(), Vec::new(), READ_BYTES_MIN);
        let mut stranger_goes = std::pin::pin!(tokio::time::sleep(PASSWORD_TIMEOUT));
        loop {
            // What was published before a command was sent is heard before its answer.
            connection.hear(&mut answers, ANSWERS_BYTES_MAX);
            let (mut from, mut commands, mut is_over) = (0, 0, false);
            while !is_over {
                match parser.parse(&mut input[from..]) {
                    Ok(Parsed::Request { bytes }) => {
                        let arguments = parser.arguments(&input[from..]);
                        let done = connection.run(arguments, &mut answers).await;
                        (from, commands) = (from + bytes, commands + 1);
                        is_over = done.is_err() || connection.is_over();
                        parser.set_authenticated(connection.is_authenticated());
                        // Many commands wait for nobody.
                        tokio::task::consume_budget().await;
                    }
                    Ok(Parsed::Nothing { bytes }) => from += bytes,
                    Ok(Parsed::Partial { .. }) => break,
                    Err(error) => {
                        self.reception.tally.add("redis_protocol_errors");
                        if !connection.is_muted() {
                            Writer::new(&mut answers, connection.protocol()).refuse_bytes(error);
                        }
                        is_over = true;
                    }
                }
                if answers.len() > ANSWERS_BYTES_MAX {
                    send(&connection, write_half, &mut answers).await?;
                }
            }
            self.count(commands, std::mem::take(&mut connection.reads_near));
            connection.tell_uses();
            // What is sent wakes its client, which costs the sender as much as several commands: if others have sent many, too,
            // they are all read first, and whoever takes all answers is awake after the first. Of single commands it brings
            // nothing.
            let number = connection.client().number;
            if commands > 1 && self.served_last.swap(number, Ordering::Relaxed) != number {
                tokio::task::yield_now().await;
            }
            send(&connection, write_half, &mut answers).await?;
            if is_over {
                return Ok(());
            }
            input.advance(from);
            // Whoever is silent keeps no more than this, beside what is there of a request.
            if input.len() <= BUFFER_KEPT_BYTES && input.capacity() > BUFFER_KEPT_BYTES {
                input = BytesMut::from(&input[..]);
            }
            answers.shrink_to(if expected < READ_BYTES {
                READ_BYTES_MIN
            } else {
                BUFFER_KEPT_BYTES
            });
            // Room grows with what has arrived, and not by what is announced.
            input.reserve(expected.max(input.len() / 2));
            let read = tokio::select! {
                biased;
                () = connection.client().killed() => return Ok(()),
                () = &mut stranger_goes, if !connection.is_authenticated() => {
                    self.reception.tally.add("redis_connections_without_password");
                    return Ok(());
                }
                read = read_half.read_buf(&mut input) => read,
                () = connection.news(), if connection.is_listening() => continue,
            };
            match read {
                Ok(bytes @ 1..) => expected = (2 * bytes).clamp(READ_BYTES_MIN, READ_BYTES),
                _ => return Ok(()),
            }
        }
    }

    fn channels(&self) -> &Arc<Channels> {
        &self.reception.channels
    }

    fn count(&self, commands: u64, reads_near: u64) {
        if commands > 0 {
            self.reception.tally.add_many("redis_commands", commands);
            self.counts.commands.fetch_add(commands, Ordering::Relaxed);
        }
        if reads_near > 0 {
            self.reception.tally.add_many("redis_reads_near", reads_near);
        }
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a client may take to say the password, where there is one.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes answers and messages to a client, and forgets them.
///
/// # Errors
/// If it cannot be written to, or was given up because more messages wait for it than may.
async fn send<C: Clock, W: AsyncWrite + Unpin>(
    connection: &Connection<C>,
    write_half: &mut W,
    answers: &mut Vec<u8>,
) -> io::Result<()> {
    if connection.is_given_up() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if answers.is_empty() {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = connection.given_up(), if connection.is_listening() => {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        written = write(write_half, answers) => written?,
    }
    answers.clear();
    Ok(())
}

/// Writes to a client. Who takes nothing for so long is given up.
async fn write<W: AsyncWrite + Unpin>(stream: &mut W, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match tokio::time::timeout(WRITE_TIMEOUT, stream.write(bytes)).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    tokio::time::timeout(WRITE_TIMEOUT, stream.flush()).await?
}

/// The node is stopping, and the connection ends.
type Done = Result<(), Stopping>;

#[cfg(test)]
mod tests {
    use annulus_net::TokioNet;

    use super::*;

    /// A development node begins without a port that a Redis has, or another program; one that was told to listen there
    /// says so and ends.
    #[tokio::test]
    async fn what_nobody_asked_for_gives_way_to_who_listens_there() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = taken.local_addr().expect("its address");
        let asked = RedisSettings { listen: vec![addr], ..RedisSettings::default() };
        let by_default = RedisSettings { gives_way: true, ..asked.clone() };
        let net = TokioNet::new();
        let refused = listen(&net, &asked).await.err().expect("somebody listens there");
        assert!(refused.to_string().contains("choose another `redis.listen`"), "{refused}");
        let doors = listen(&net, &by_default).await.expect("it goes on");
        assert_eq!((doors.tcp.len(), doors.addrs), (0, Vec::new()));
        drop(taken);
        let doors = listen(&net, &by_default).await.expect("it is free");
        assert_eq!((doors.tcp.len(), doors.addrs), (1, vec![addr]));
    }
}
