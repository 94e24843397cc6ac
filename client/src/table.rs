//! What one does with sessions.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::message::{
    Acknowledged, Change, Explanation, Lifetimes, List, Message, Operation, RouteNode, Sentence,
    Session, SessionReply, SessionRequest,
};
use annulus_proto::{Attributes, Key, NodeId, Slot, Value, Version};

use crate::client::Handle;
use crate::error::Error;
#[cfg(doc)]
use crate::lane::Lane;
use crate::lane::{LaneTable, NotHandedOver};
use crate::local::{AskReason, LocalPage, LocalTable, Looked};
use crate::node::{NodeHandle, unexpected};
use crate::owned::{self, OwnedSessions};
use crate::recent::Progress;
use crate::request::Whom;
use crate::rotate::{self, Rotated};
use crate::suspects::{self, SuspectList, SuspectWatch};

/// One table of sessions. Cheap to clone.
///
/// Every change of a session can carry the `birth` that the caller saw: it then never falls on
/// another session that was started under the same key meanwhile, and is answered with
/// [`Error::Ended`] instead. `None` means whichever session lives under the key.
///
/// A client reads what it wrote: writes go through the node whose shared memory is attached, and a
/// write that another node had to take is remembered (a minute long, and the last 4,096 per table)
/// until shared memory has it. Across a change from one node's memory to another's, only the table's `stale_max` holds.
///
/// # Errors
/// All operations: [`Error::Key`] for an impossible key, [`Error::TimedOut`], [`Error::NoNode`],
/// [`Error::Disconnected`], [`Error::Rejected`], [`Error::Protocol`] as they say,
/// [`Error::Refused`] for a table that the nodes don't have, and [`Error::SlowDown`] where the session or the
/// table is used too much: sessions can be ended all the same.
pub struct Table<N: Net = TokioNet, C: Clock = SystemClock> {
    handle: Arc<Handle<N, C>>,
    name: Arc<str>,
    local: Arc<LocalTable>,
    only: Option<SocketAddr>,
}

/// How a session starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// How long it lives unused; zero = for ever, `None` = as the table says.
    pub idle: Option<Duration>,
    /// How long it lives however much it is used; zero = for ever, `None` = as the table says. The
    /// table's `lifetime_max` caps it.
    pub lifetime: Option<Duration>,
    /// Whose session it is, at most 255 bytes; empty = nobody's.
    pub owner: Vec<u8>,
    /// How many nodes hold it, at most 7; 0 = as many as the table says. Fewer than that are refused:
    /// sessions with fewer copies need a table of their own. It is acknowledged when a majority of so many hold
    /// it, and as many of the table's homes as the table asks for.
    pub replicas: u8,
}

/// A session, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The session.
    pub session: Session,
    /// Where it was read.
    pub source: Source,
}

/// Where a session was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In the host's shared memory.
    SharedMemory,
    /// At this node, which may have asked others.
    Node(NodeId),
}

/// Where a key belongs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Location {
    /// Its slot.
    pub slot: Slot,
    /// The digest of the view that says so.
    pub view: u64,
    /// The slot's homes, primary first.
    pub homes: Vec<RouteNode>,
    /// Whether this host's shared memory answers a read of it now.
    pub in_shared_memory: bool,
}

impl StartOptions {
    /// The lifetimes as they travel.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes { idle_ms: self.idle.map(whole_ms), lifetime_ms: self.lifetime.map(whole_ms) }
    }

    pub(crate) fn attributes(self) -> Attributes {
        Attributes { replicas: self.replicas, owner: self.owner }
    }
}

impl<N: Net, C: Clock> Table<N, C> {
    pub(crate) fn new(handle: Arc<Handle<N, C>>, name: &str) -> Self {
        let local = handle.inner.local(name);
        Self { handle, name: name.into(), local, only: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same table through the node at this address and no other, and never out of shared
    /// memory: for operators and tests. That node forwards what it is no home of.
    #[must_use]
    pub fn at(&self, addr: SocketAddr) -> Self {
        Self { only: Some(addr), ..self.clone() }
    }

    /// Begins a session and ends the one that was under its key, if any. Returns when as many homes
    /// hold it as the table asks for: one round trip to the coordinator and one to the homes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TableFull`], [`Error::Unavailable`] and as all operations.
    pub async fn start(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: Value,
        options: StartOptions,
    ) -> Result<Acknowledged, Error> {
        let lifetimes = options.lifetimes();
        let attributes = options.attributes();
        let operation = Operation::Start { value, lifetimes, attributes };
        self.write(Key::new(key)?, operation).await
    }

    /// Reads a session. Out of shared memory it makes no system call, takes no lock and does not
    /// wait; what shared memory cannot tell, the host's node or a home is asked.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Ended`], [`Error::Expired`], [`Error::Unavailable`] and as all
    /// operations.
    pub async fn get(&self, key: impl AsRef<[u8]> + Send) -> Result<Read, Error> {
        if self.only.is_none() {
            match self.look(key.as_ref()) {
                Looked::Live(session) => {
                    return Ok(Read { session, source: Source::SharedMemory });
                }
                Looked::Ended => return Err(Error::Ended),
                Looked::SlowDown(retry_after) => return Err(Error::SlowDown { retry_after }),
                Looked::Ask(_) => {}
            }
        }
        self.fetch(key).await
    }

    /// Reads a session from the nodes, whatever shared memory says.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub async fn fetch(&self, key: impl AsRef<[u8]> + Send) -> Result<Read, Error> {
        match self.ask(Key::new(key)?, Operation::Get).await? {
            (SessionReply::Session(session), node) => {
                self.handle.inner.saw(session.version);
                Ok(Read { session, source: Source::Node(node) })
            }
            (other, node) => Err(unexpected(&Message::SessionReply(other), node, "a session")),
        }
    }

    /// Changes a session's value, some of its fields, or its deadlines; never creates one.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Ended`], [`Error::Expired`], [`Error::TooLarge`],
    /// [`Error::TableFull`], [`Error::Unavailable`] and as all operations.
    pub async fn update(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
        change: Change,
    ) -> Result<Acknowledged, Error> {
        self.write(Key::new(key)?, Operation::Update { birth, change }).await
    }

    /// Notes a use of a session, which puts off its idle deadline; never creates one.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Ended`], [`Error::Expired`], [`Error::Unavailable`] and as all
    /// operations.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.write(Key::new(key)?, Operation::Touch { birth }).await
    }

    /// Notes a use of a session, soon: hands it to the host's node through shared memory and returns
    /// at once. Where there is no lane, or it is full, a task of the runtime around does it over the
    /// socket. A loop of these is faster on [`Lane::table`].
    ///
    /// # Errors
    /// [`NotHandedOver`]; nothing was done.
    pub fn touch_soon(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
    ) -> Result<(), NotHandedOver> {
        let key = key.as_ref();
        self.soon(|lane| lane.touch_soon(key, birth), || Operation::Touch { birth }, key)
    }

    /// Replaces a session's value by a string of bytes, soon, as [`Table::touch_soon`]. What becomes
    /// of it is not told, and a read right after may not show it yet.
    ///
    /// # Errors
    /// [`NotHandedOver`]; nothing was done.
    pub fn update_soon(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
        value: &[u8],
    ) -> Result<(), NotHandedOver> {
        let key = key.as_ref();
        let operation = || {
            let change = Change::Value(Value::Bytes(value.to_vec()));
            Operation::Update { birth, change }
        };
        self.soon(|lane| lane.update_soon(key, birth, value), operation, key)
    }

    /// Ends a session for good: once this has returned, nothing brings it back.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Ended`] and [`Error::Expired`]: there is nothing left to end.
    /// [`Error::Unavailable`] and [`Error::TimedOut`]: it may live on or not; repeat it. Otherwise
    /// as all operations.
    pub async fn end(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.write(Key::new(key)?, Operation::End { birth }).await
    }

    /// Replaces a session's value if `version` is its last write, and says with [`Error::Conflict`] which
    /// one is if it is not. Of all that are done on one version exactly one succeeds.
    ///
    /// It is decided by a majority of the session's homes, in two round trips from the first of them. A
    /// plain write may still come after it; what a majority acknowledged before it is never overwritten
    /// unseen, but for single fields that a plain [`Table::update`] set under the same version.
    ///
    /// ```no_run
    /// # use annulus_client::{Error, Table, Value};
    /// # async fn add(table: Table) -> Result<(), Error> {
    /// loop {
    ///     let read = table.fetch("counter").await?.session;
    ///     let Value::Bytes(bytes) = &read.value else { return Ok(()) };
    ///     let count: u64 = String::from_utf8_lossy(bytes).parse().unwrap_or(0);
    ///     let next = Value::Bytes((count + 1).to_string().into_bytes());
    ///     match table.compare_and_set("counter", read.version, next).await {
    ///         Err(Error::Conflict { .. }) => continue,
    ///         done => return done.map(|_| ()),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Absent`], [`Error::Ended`], [`Error::Expired`],
    /// [`Error::TooLarge`]: nothing was done. [`Error::Unavailable`]: nothing was done, since too few
    /// homes could be asked. [`Error::TimedOut`]: whether it was done is not known, and it was not tried
    /// again; read to find out. Otherwise as all operations.
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]> + Send,
        version: Version,
        value: Value,
    ) -> Result<Acknowledged, Error> {
        self.update_if(key, version, Change::Value(value)).await
    }

    /// Changes a session's value, some of its fields, or its deadlines, if `version` is its last write:
    /// as [`Table::compare_and_set`].
    ///
    /// # Errors
    /// As there.
    pub async fn update_if(
        &self,
        key: impl AsRef<[u8]> + Send,
        version: Version,
        change: Change,
    ) -> Result<Acknowledged, Error> {
        self.write(Key::new(key)?, Operation::UpdateIf { version, change }).await
    }

    /// Begins a session if none lives under its key: one that ended or expired is none. Decided as
    /// [`Table::compare_and_set`]: of all that try at the same time exactly one succeeds.
    ///
    /// ```no_run
    /// # use annulus_client::{Error, StartOptions, Table, Value};
    /// # async fn lead(table: Table) -> Result<bool, Error> {
    /// let me = Value::Bytes(b"host 7".to_vec());
    /// match table.start_if_absent("leader", me, StartOptions::default()).await {
    ///     Ok(_) => Ok(true),
    ///     Err(Error::Conflict { .. }) => Ok(false),
    ///     Err(error) => Err(error),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`] with the version of the session that lives there; otherwise as
    /// [`Table::compare_and_set`].
    pub async fn start_if_absent(
        &self,
        key: impl AsRef<[u8]> + Send,
        value: Value,
        options: StartOptions,
    ) -> Result<Acknowledged, Error> {
        let lifetimes = options.lifetimes();
        let attributes = options.attributes();
        let operation = Operation::StartIfAbsent { value, lifetimes, attributes };
        self.write(Key::new(key)?, operation).await
    }

    /// Ends a session for good if `version` is its last write. Decided as [`Table::compare_and_set`].
    ///
    /// # Errors
    /// As [`Table::compare_and_set`].
    pub async fn end_if(
        &self,
        key: impl AsRef<[u8]> + Send,
        version: Version,
    ) -> Result<Acknowledged, Error> {
        self.write(Key::new(key)?, Operation::EndIf { version }).await
    }

    /// Pins a session to a node: it is to hold a copy beside the session's homes, and is asked first by clients
    /// that have read the session. Returns when the homes know; the copy is under way then. It lasts as long
    /// as the session, unless it is undone or another node is named. While that node is not there the homes
    /// serve the session as ever.
    ///
    /// Clients find the node if it is a home of anything, as all are whose weight is not 0.
    ///
    /// # Errors
    /// [`Error::Refused`] if no such member takes part; otherwise as [`Table::update`].
    pub async fn migrate(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
        to: NodeId,
    ) -> Result<Acknowledged, Error> {
        self.update(key, birth, Change::Pin(Some(to))).await
    }

    /// Pins a session to no node any more. What was pinned to none stays so.
    ///
    /// # Errors
    /// As [`Table::update`].
    pub async fn undo_migration(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.update(key, birth, Change::Pin(None)).await
    }

    /// Where a key belongs. Asks a node only while the client knows no routes.
    ///
    /// # Errors
    /// As all operations.
    pub async fn locate(&self, key: impl AsRef<[u8]> + Send) -> Result<Location, Error> {
        let key = Key::new(key)?;
        let inner = &self.handle.inner;
        let known = inner.routes.load_full();
        let routes = match (self.only, known) {
            (None, Some(routes)) => routes,
            (only, _) => inner.fetch_routes(only.map_or(Whom::Any, Whom::Only)).await?,
        };
        let slot = key.slot();
        let in_shared_memory = !matches!(self.look(key.as_bytes()), Looked::Ask(_));
        let homes = routes.homes(slot).cloned().collect();
        Ok(Location { slot, view: routes.view(), homes, in_shared_memory })
    }

    /// What a node knows of a key, and with `ask_homes` what each home holds of it.
    ///
    /// # Errors
    /// As all operations.
    pub async fn explain(
        &self,
        key: impl AsRef<[u8]> + Send,
        ask_homes: bool,
    ) -> Result<Explanation, Error> {
        let key = Key::new(key)?;
        self.some_node().explain(&self.name, &key, ask_homes).await
    }

    /// A page of the live sessions in this host's shared memory, in no particular order: about
    /// `limit` of them from `cursor` on (0 = from the beginning). One that moves meanwhile may come
    /// twice or not at all. Makes no system call.
    ///
    /// # Errors
    /// [`Error::NotAttached`].
    pub fn list_local(&self, cursor: u64, limit: usize) -> Result<LocalPage, Error> {
        let now_ms = self.handle.inner.settings.clock.monotonic_coarse_ms();
        self.local.scan(cursor, limit, now_ms).ok_or(Error::NotAttached)
    }

    /// A page of the live sessions that a node holds; see [`NodeHandle::list`]. Cursors are the
    /// node's own: go on at the same one ([`Table::at`]).
    ///
    /// # Errors
    /// As all operations.
    pub async fn list(&self, cursor: u64, limit: u16) -> Result<List, Error> {
        self.some_node().list(&self.name, cursor, limit).await
    }

    /// Gives a session another key: begins one under `new` with the same value, owner and lifetimes, and ends the old one.
    /// Against session fixation, do so whenever a user logs in or gets more rights. As an authority; draw `new` at
    /// random.
    ///
    /// The new session begins first, with a note of the old one. Whatever is written to the old one until it ends is
    /// taken over. Should this client die meanwhile, the nodes end the old one. From when this returns only the new key is
    /// to be used, whether or not the old session [has ended](Rotated::has_ended) yet. A pin is not taken along.
    ///
    /// # Errors
    /// [`Error::Ended`] also if the session ended meanwhile: its user has logged out, and the new one has ended, too.
    /// [`Error::Absent`] and [`Error::Expired`]: there is nothing to rotate. [`Error::Unavailable`] and [`Error::TimedOut`]:
    /// the new one may have begun or not; repeat it with the same keys, or the nodes may end the old one all the same.
    /// Otherwise as all operations.
    pub async fn rotate(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
        new: impl AsRef<[u8]> + Send,
    ) -> Result<Rotated, Error> {
        self.rotate_as(key.as_ref(), birth, new.as_ref(), None).await
    }

    /// As [`Table::rotate`], and the session is this owner's from then on (up to 255 bytes; empty = nobody's): for a user
    /// who logs in, and whose session was nobody's before.
    ///
    /// # Errors
    /// As there.
    pub async fn rotate_for(
        &self,
        key: impl AsRef<[u8]> + Send,
        birth: Option<Version>,
        new: impl AsRef<[u8]> + Send,
        owner: impl AsRef<[u8]> + Send,
    ) -> Result<Rotated, Error> {
        self.rotate_as(key.as_ref(), birth, new.as_ref(), Some(owner.as_ref().to_vec())).await
    }

    async fn rotate_as(
        &self,
        key: &[u8],
        birth: Option<Version>,
        new: &[u8],
        owner: Option<Vec<u8>>,
    ) -> Result<Rotated, Error> {
        let (key, new) = (Key::new(key)?, Key::new(new)?);
        if key == new {
            return Err(Error::Refused("the new key is the old one".to_owned()));
        }
        rotate::rotate(self, (key, birth), new, owner).await
    }

    /// The live sessions that were started with this owner ([`StartOptions::owner`]), on all rings, with when they were used last.
    /// As an authority or a worker. Asks all active members at the same time, which takes a request for each of a
    /// member's cores and rings and for every 512 sessions.
    ///
    /// One that ends while this asks may be listed, and so may one whose end some home has not heard of yet.
    ///
    /// # Errors
    /// As all operations, if no member answered; those that did not are named. [`Error::Rejected`] for a table that the
    /// nodes don't have, an owner of no or more than 255 bytes, and without the role.
    pub async fn sessions_of(
        &self,
        owner: impl AsRef<[u8]> + Send,
    ) -> Result<OwnedSessions, Error> {
        owned::list(&self.handle, &self.name, self.only, owner.as_ref()).await
    }

    /// Ends all sessions of an owner for good, but for the one under `except`: all that were acknowledged when this began.
    /// Returns how many it ended. As an authority.
    ///
    /// # Errors
    /// As [`Table::sessions_of`] and [`Table::end`], after all was tried; [`Error::Unavailable`] also if so many members
    /// did not answer that a session may have been missed. Some may live on: repeat it.
    pub async fn end_sessions_of(
        &self,
        owner: impl AsRef<[u8]> + Send,
        except: Option<&[u8]>,
    ) -> Result<usize, Error> {
        let except = except.map(Key::new).transpose()?;
        owned::end(self, owner.as_ref(), except).await
    }

    /// Ends the sessions of an owner that were used longest ago, if there are more than `most`. Returns how many it ended. As
    /// an authority. Who limits how many sessions a user has calls this after each start, with the birth of what was `begun`:
    /// neither that one nor a later one is ended then, though they count; so of several that begin at the same time each
    /// is there when this returns, and there may be more than `most` until the next one begins. With `None` all may be ended.
    ///
    /// A session that ended a moment ago may still count, as in [`Table::sessions_of`].
    ///
    /// # Errors
    /// As [`Table::end_sessions_of`]. What was begun lives on whatever this returns.
    pub async fn limit_sessions_of(
        &self,
        owner: impl AsRef<[u8]> + Send,
        most: usize,
        begun: Option<Version>,
    ) -> Result<usize, Error> {
        owned::limit(self, owner.as_ref(), most, begun).await
    }

    /// All sessions of the table that are kept away from their users at the moment, since they are used too much.
    /// As a monitor. Asks all active members at the same time, which takes a request for each of a member's cores
    /// and for every 512 suspects; of a table [`Table::at`] a node it asks that node alone.
    ///
    /// # Errors
    /// As all operations, if no member answered; those that did not are named in the list. [`Error::Rejected`] for
    /// a table that the nodes don't have, and without the role.
    pub async fn suspects(&self) -> Result<SuspectList, Error> {
        suspects::list(&self.handle, &self.name, self.only).await
    }

    /// Tells of each change of [`Table::suspects`], which is asked for once in a `period`: 200 ms
    /// ([`SUSPECTS_PERIOD`](crate::SUSPECTS_PERIOD)) is how often nodes judge.
    pub fn watch_suspects(&self, period: Duration) -> SuspectWatch<N, C> {
        SuspectWatch::new(self.clone(), period)
    }

    /// Releases a suspect: it is none for so long, however much it is used. Nodes cap that at 365 days. As a
    /// monitor; `word` and `birth` are what [`Table::suspects`] says. May be repeated.
    ///
    /// # Errors
    /// [`Error::Absent`]: none of its homes that answered knows of such a suspect. [`Error::Unavailable`] and
    /// [`Error::TimedOut`]: it may be released or not; repeat it. [`Error::Rejected`] without the role. Otherwise
    /// as all operations.
    pub async fn release(
        &self,
        word: u64,
        birth: Version,
        for_how_long: Duration,
    ) -> Result<(), Error> {
        let sentence = Sentence::Release { for_ms: whole_ms(for_how_long) };
        suspects::judge(&self.handle, &self.name, self.only, (word, birth), sentence).await
    }

    /// Ends a suspect for good. As a monitor; `word` and `birth` are what [`Table::suspects`] says. May be repeated.
    ///
    /// # Errors
    /// As [`Table::release`].
    pub async fn end_suspect(&self, word: u64, birth: Version) -> Result<(), Error> {
        let (table, only) = (&self.name, self.only);
        suspects::judge(&self.handle, table, only, (word, birth), Sentence::End).await
    }

    pub(crate) fn handle(&self) -> &Arc<Handle<N, C>> {
        &self.handle
    }

    fn some_node(&self) -> NodeHandle<N, C> {
        NodeHandle::new(self.handle.clone(), self.only)
    }

    fn look(&self, key: &[u8]) -> Looked<Session> {
        let inner = &self.handle.inner;
        let now_ms = inner.settings.clock.monotonic_coarse_ms();
        let looked = RECORD
            .with_borrow_mut(|record| self.local.get(key, now_ms, record, |found| found.session()));
        let counter = match &looked {
            Looked::Live(_) | Looked::Ended | Looked::SlowDown(_) => &inner.tally.local_hits,
            Looked::Ask(reason) => match reason {
                AskReason::Miss | AskReason::Expired => &inner.tally.local_misses,
                AskReason::Stale | AskReason::BehindOwnWrite => &inner.tally.local_stale,
                AskReason::Contended | AskReason::Damaged => &inner.tally.local_unreadable,
                AskReason::NotAttached => return looked,
            },
        };
        counter.add_one();
        looked
    }

    fn soon(
        &self,
        hand_over: impl FnOnce(&LaneTable) -> Result<(), NotHandedOver>,
        operation: impl FnOnce() -> Operation,
        key: &[u8],
    ) -> Result<(), NotHandedOver> {
        let inner = &self.handle.inner;
        let lane = inner.lane.load();
        let lane = lane.as_ref().filter(|_| self.only.is_none());
        let mut refused = NotHandedOver::Closed;
        if let Some(table) = lane.and_then(|lane| lane.table(&self.name)) {
            match hand_over(&table) {
                Err(NotHandedOver::Key(error)) => return Err(error.into()),
                Err(why) => refused = why,
                Ok(()) => {
                    inner.tally.submitted.add_one();
                    return Ok(());
                }
            }
        }
        let key = Key::new(key)?;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Err(refused) };
        let Ok(place) = inner.soon.clone().try_acquire_owned() else {
            return Err(NotHandedOver::Full);
        };
        let (table, operation) = (self.clone(), operation());
        runtime.spawn(async move {
            // Nobody is told what becomes of it, through a lane or not.
            let _ = table.write(key, operation).await;
            drop(place);
        });
        Ok(())
    }

    pub(crate) async fn write(
        &self,
        key: Key,
        operation: Operation,
    ) -> Result<Acknowledged, Error> {
        let ended = operation.is_end();
        let touches = matches!(operation, Operation::Touch { .. });
        let remembered = key.clone();
        let (reply, node) = self.ask(key, operation).await?;
        let SessionReply::Acknowledged(acknowledged) = reply else {
            let reply = Message::SessionReply(reply);
            return Err(unexpected(&reply, node, "an acknowledgement"));
        };
        let Acknowledged { birth, version, .. } = acknowledged;
        self.handle.inner.saw(version);
        if !touches && self.local.node().is_some_and(|host| host != node) {
            let now_ms = self.handle.inner.settings.clock.monotonic_coarse_ms();
            self.local.recent.remember(&remembered, Progress { birth, ended, version }, now_ms);
        }
        Ok(acknowledged)
    }

    async fn ask(&self, key: Key, operation: Operation) -> Result<(SessionReply, NodeId), Error> {
        let inner = &self.handle.inner;
        let whom = match self.only {
            Some(addr) => Whom::Only(addr),
            None => {
                // The rest the homes do in any case.
                let pin = self.local.pins.of(&key).filter(|_| operation.suits_extra_home());
                let host = self.local.node();
                Whom::Slot { slot: key.slot(), host, pin }
            }
        };
        let is_read = operation == Operation::Get;
        let name = key.clone();
        let request = SessionRequest {
            table: self.name.to_string(),
            key,
            request: inner.next_request(),
            hops: 0,
            patience_ms: 0,
            operation,
        };
        match inner.ask(whom, Message::SessionRequest(request)).await? {
            (Message::SessionReply(reply), node) => {
                if let SessionReply::Session(session) = &reply
                    && is_read
                {
                    self.local.pins.note(&name, session.pin);
                }
                Ok((reply, node))
            }
            (other, node) => Err(unexpected(&other, node, "SessionReply")),
        }
    }
}

thread_local! {
    /// Records are copied here before they are taken apart.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// In milliseconds, rounded up: what is not zero stays so.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl<N: Net, C: Clock> Clone for Table<N, C> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            name: self.name.clone(),
            local: self.local.clone(),
            only: self.only,
        }
    }
}

impl<N: Net, C: Clock> fmt::Debug for Table<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.name).field("only", &self.only).finish()
    }
}
