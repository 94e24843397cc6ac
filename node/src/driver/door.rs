//! The door for clients of Redis: their connections, requests and answers. What these ask becomes requests about sessions,
//! as those of any other client; the cores know nothing of it.
//!
//! A task per connection does one command after the other, but for SETs that go ahead ([`ahead`]) and GETs that are answered
//! together ([`near`]), and writes the answers when no whole request is left. Nothing is
//! remembered of a connection but what it said of itself, and which keys it knows to have no session ([`told`]).

mod ahead;
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

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use annulus_net::{Clock, Listener, LocalEnd, Net, Peer};
use annulus_proto::limits::VALUE_BYTES_MAX;
use annulus_proto::message::Published;
use annulus_resp::{Limits, Parsed, Parser, Writer};
use bytes::{Buf, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::JoinSet;

use super::WRITE_TIMEOUT;
use super::accept::{ACCEPT_PAUSE, Reception};
use super::error::RunError;
use super::inboxes::Stopping;
use super::settings::{NodeSettings, OnLateSave, RedisSettings};
use super::shared::Shared;
pub(super) use channels::Channels;
pub(super) use cluster::{Cluster, announced};
use connection::{AtOnce, Client, Connection, Progress};
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
    /// The number of the connection that sent many commands at a time last.
    served_last: AtomicU64,
    /// The bytes that SETs have which went ahead of others.
    ahead_bytes: Arc<AtomicUsize>,
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
/// How much is read at a time, at most.
const READ_BYTES: usize = 16 << 10;
/// Room is made at once for as many answers as there were the last time, but for no more than this.
const ANSWERS_EXPECTED_MAX: usize = 16 << 10;
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
            tasks.spawn(accept(listener, addr.to_string().into(), door.clone()));
        }
        if let Some((listener, path)) = self.local {
            tasks.spawn(accept(listener, path.display().to_string().into(), door));
        }
    }
}

/// Accepts connections for ever; they end with it.
async fn accept<L, C>(mut listener: L, at: Arc<str>, door: Arc<Door<C>>)
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
                    connections.spawn(door.clone().receive(stream, peer, end, at.clone()));
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
            served_last: AtomicU64::new(0),
            ahead_bytes: Arc::default(),
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

    /// Takes in a connection, to its end. What stays of that while its client is silent is all that a connection costs.
    fn receive<S>(
        self: Arc<Self>,
        mut stream: S,
        peer: Peer,
        end: io::Result<Option<LocalEnd>>,
        at: Arc<str>,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut admitted = self.admit(peer, end, at);
        async move {
            let connection = match &mut admitted {
                Ok(connection) => connection,
                Err(refusal) => {
                    let refusal = stream.write_all(refusal.as_bytes());
                    let _ = Box::pin(tokio::time::timeout(WRITE_TIMEOUT, refusal)).await;
                    return;
                }
            };
            let ended = serve(connection, &mut stream).await;
            drop(admitted);
            if ended.is_ok() {
                let _ = Box::pin(tokio::time::timeout(WRITE_TIMEOUT, stream.shutdown())).await;
            }
        }
    }

    /// Lets a client in.
    ///
    /// # Errors
    /// If it is not let in: what it is told.
    fn admit(
        self: Arc<Self>,
        peer: Peer,
        end: io::Result<Option<LocalEnd>>,
        at: Arc<str>,
    ) -> Result<Connection<C>, &'static str> {
        let tally = &self.reception.tally;
        let may = end.and_then(|end| self.reception.role_at(end)).map_err(|error| {
            tracing::error!(%error, "the user behind a local stream is unknown; it is closed");
            tally.add("local_users_unknown");
            ""
        })?;
        let number = self.reception.next.fetch_add(1, Ordering::Relaxed);
        let client = {
            let mut clients = self.clients();
            if clients.len() >= self.connections_max as usize {
                tally.add("redis_connections_refused");
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                return Err("-ERR max number of clients reached\r\n");
            }
            let client = Arc::new(Client::new(number, peer, at, self.clock.monotonic()));
            clients.insert(number, client.clone());
            client
        };
        tally.add("redis_connections");
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        // Without keys everybody on loopback may do everything, by whatever door; over the socket what its user may.
        let is_open = self.reception.keys.is_none() || peer == Peer::Local;
        let open = if is_open { User::DEVELOPMENT } else { User::AUTHORITY };
        let (name, seed) = {
            let mut random = self.random();
            (random.random(), random.random())
        };
        let inside = (self.reception.clone(), self.cores.clone());
        let store = Store::new(inside, self.clock.clone(), number, name);
        Ok(Connection::new(self, client, store, (open, may), seed))
    }

    fn channels(&self) -> &Arc<Channels> {
        &self.reception.channels
    }

    fn count(&self, commands: u64, done_at_once: AtOnce) {
        if commands > 0 {
            self.reception.tally.add_many("redis_commands", commands);
            self.counts.commands.fetch_add(commands, Ordering::Relaxed);
        }
        let AtOnce { reads, writes, ahead } = done_at_once;
        for (counter, count) in [
            ("redis_reads_near", reads),
            ("redis_writes_alone", writes),
            ("redis_writes_ahead", ahead),
        ] {
            if count > 0 {
                self.reception.tally.add_many(counter, count.into());
            }
        }
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a connection until either side ends it.
///
/// # Errors
/// If it cannot be written to.
async fn serve<C: Clock, S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<C>,
    stream: &mut S,
) -> io::Result<()> {
    let mut parser = Parser::new(LIMITS);
    parser.set_authenticated(connection.is_authenticated());
    let (mut input, mut answers, mut answered) = (BytesMut::new(), Vec::new(), 0);
    let stranger_goes = connection.door.clock.monotonic() + PASSWORD_TIMEOUT;
    loop {
        answers.reserve(answered);
        // What was published before a command was sent is heard before its answer.
        connection.hear(&mut answers, ANSWERS_BYTES_MAX);
        let (mut commands, mut is_over, mut error) = (0, false, None);
        while !is_over {
            if answers.len() > ANSWERS_BYTES_MAX {
                send(connection, stream, &mut answers).await?;
            }
            let (bytes, count) = connection.get_together(&parser, &input, &mut answers);
            if count > 0 {
                input.advance(bytes);
                commands += count;
                is_over = connection.is_over();
                // Many commands wait for nobody.
                tokio::task::consume_budget().await;
                continue;
            }
            match parser.parse(&mut input) {
                Ok(Parsed::Request { bytes }) => {
                    let arguments = parser.arguments(&input);
                    let done = match connection.run(arguments, &mut answers) {
                        Progress::Over(done) => done,
                        Progress::Waits(done) => done.await,
                    };
                    input.advance(bytes);
                    commands += 1;
                    is_over = done.is_err() || connection.is_over();
                    parser.set_authenticated(connection.is_authenticated());
                    tokio::task::consume_budget().await;
                }
                Ok(Parsed::Nothing { bytes }) => input.advance(bytes),
                Ok(Parsed::Partial { .. }) => break,
                Err(wrong) => {
                    connection.door.reception.tally.add("redis_protocol_errors");
                    error = Some(wrong);
                    break;
                }
            }
        }
        if connection.is_ahead() {
            is_over |= Box::pin(connection.settle(&mut answers)).await.is_err();
        }
        if let Some(error) = error {
            if !is_over && !connection.is_muted() {
                Writer::new(&mut answers, connection.protocol()).refuse_bytes(error);
            }
            is_over = true;
        }
        connection.door.count(commands, std::mem::take(&mut connection.done_at_once));
        connection.tell_uses();
        // What is sent wakes its client, which costs the sender as much as several commands: if others have sent many, too,
        // they are all read first, and whoever takes all answers is awake after the first. Of single commands it brings
        // nothing.
        let number = connection.client().number;
        if commands > 1 && connection.door.served_last.swap(number, Ordering::Relaxed) != number {
            tokio::task::yield_now().await;
        }
        answered = answers.len().min(ANSWERS_EXPECTED_MAX);
        send(connection, stream, &mut answers).await?;
        if is_over {
            return Ok(());
        }
        // Whoever is silent keeps no room but for what is there of a request.
        let is_roomy = input.len() <= READ_BYTES && input.capacity() > 2 * READ_BYTES;
        if input.is_empty() || is_roomy {
            input = BytesMut::from(&input[..]);
        }
        answers = Vec::new();
        let left = (!connection.is_authenticated())
            .then(|| stranger_goes.saturating_sub(connection.door.clock.monotonic()));
        match in_time(left, next_event(connection, stream, &mut input)).await {
            Some(Event::News | Event::Read(Ok(1..))) => {}
            Some(Event::Killed | Event::Read(_)) => return Ok(()),
            None => {
                connection.door.reception.tally.add("redis_connections_without_password");
                return Ok(());
            }
        }
    }
}

/// What ends the silence of a connection.
enum Event {
    Killed,
    /// So many bytes were read; 0 = there will be no more.
    Read(io::Result<usize>),
    /// Messages wait, or it was given up.
    News,
}

/// Waits for what comes next. What is read goes to the end of `input`.
fn next_event<C: Clock, S: AsyncRead + Unpin>(
    connection: &Connection<C>,
    stream: &mut S,
    input: &mut BytesMut,
) -> impl Future<Output = Event> {
    poll_fn(|task| {
        connection.client().hear_bell(task);
        if connection.client().is_killed() {
            return Poll::Ready(Event::Killed);
        }
        match poll_read(stream, input, task) {
            Poll::Ready(read) => Poll::Ready(Event::Read(read)),
            Poll::Pending if connection.has_news() => Poll::Ready(Event::News),
            Poll::Pending => Poll::Pending,
        }
    })
}

/// How long a client may take to say the password, where there is one.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(10);

/// What is heard of somebody who has so much time left, if it is not to stay without a password; `None`: it has to go.
async fn in_time<T>(left: Option<Duration>, heard: impl Future<Output = T>) -> Option<T> {
    match left {
        None => Some(heard.await),
        // Whoever keeps talking would be heard before any timer.
        Some(Duration::ZERO) => None,
        // There are few of them, and a timer is large.
        Some(left) => Box::pin(tokio::time::timeout(left, heard)).await.ok(),
    }
}

/// Reads what has come to the end of `input`: how many bytes; 0 = there will be no more. No room is taken before something
/// comes, and then it is room for that, not for what is announced.
fn poll_read<R: AsyncRead + Unpin>(
    from: &mut R,
    input: &mut BytesMut,
    task: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    ROOM.with_borrow_mut(|room| {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(from).poll_read(task, &mut room))?;
        input.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    })
}

thread_local! {
    /// Where what connections say is read to.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Writes answers and messages to a client, and forgets them.
///
/// # Errors
/// If it cannot be written to, takes nothing for [`WRITE_TIMEOUT`], or was given up because more messages wait for it than may.
async fn send<C: Clock, W: AsyncWrite + Unpin>(
    connection: &Connection<C>,
    stream: &mut W,
    answers: &mut Vec<u8>,
) -> io::Result<()> {
    if answers.is_empty() && !connection.is_given_up() {
        return Ok(());
    }
    let mut left = &answers[..];
    let at_once = poll_fn(|task| Poll::Ready(poll_send(connection, stream, &mut left, task)));
    match at_once.await {
        Poll::Ready(sent) => sent?,
        Poll::Pending => Box::pin(send_slowly(connection, stream, left)).await?,
    }
    answers.clear();
    Ok(())
}

/// Writes what the client takes after a while. Few have to wait for that, and a timer is large.
async fn send_slowly<C: Clock, W: AsyncWrite + Unpin>(
    connection: &Connection<C>,
    stream: &mut W,
    mut bytes: &[u8],
) -> io::Result<()> {
    loop {
        let before = bytes.len();
        let some = poll_fn(|task| match poll_send(connection, stream, &mut bytes, task) {
            Poll::Pending if bytes.len() < before => Poll::Ready(Ok(false)),
            polled => polled.map_ok(|()| true),
        });
        if tokio::time::timeout(WRITE_TIMEOUT, some).await?? {
            return Ok(());
        }
    }
}

/// Writes as much of `bytes` as goes, and takes it off; it is done when all of it is on its way.
fn poll_send<C: Clock, W: AsyncWrite + Unpin>(
    connection: &Connection<C>,
    stream: &mut W,
    bytes: &mut &[u8],
    task: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    connection.client().hear_bell(task);
    if connection.is_given_up() {
        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
    }
    while !bytes.is_empty() {
        match ready!(Pin::new(&mut *stream).poll_write(task, bytes))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => *bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Pin::new(stream).poll_flush(task)
}

/// The node is stopping, and the connection ends.
type Done = Result<(), Stopping>;

#[cfg(test)]
mod tests {
    use std::future;

    use annulus_net::TokioNet;

    use super::*;

    #[tokio::test]
    async fn who_has_no_time_left_goes_whether_it_talks_or_not() {
        let (talks, is_silent) = (|| future::ready(1), future::pending);
        let (long, short) = (Duration::from_hours(1), Duration::from_millis(1));
        assert_eq!(in_time(None, talks()).await, Some(1));
        assert_eq!(in_time(Some(long), talks()).await, Some(1));
        assert_eq!(in_time(Some(Duration::ZERO), talks()).await, None);
        assert_eq!(in_time(Some(short), is_silent()).await, None::<i32>);
    }

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
