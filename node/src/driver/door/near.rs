//! Reads out of this host's shared memory, as its processes do them: no core takes part.
//!
//! What is found there, alive, of a slot that the node vouches for, and no suspect, is answered. Whatever else there is to say
//! is a core's to say: that there is nothing, that it was ended or has expired, that its users are to slow down. What
//! this node acknowledged is there before the acknowledgement, or a copy that is older is not.

use std::cell::RefCell;
use std::sync::Arc;

use annulus_net::Clock;
use annulus_proto::message::Session;
use annulus_proto::record::{Standing, View};
use annulus_proto::{Key, Slot};
use annulus_resp::{Parser, Writer};
use annulus_shm::lane::{SAMPLE, is_sampled};
use annulus_shm::{Hit, Lookup, Region, Shards, Used};

use super::super::present;
use super::super::settings::{NodeSettings, TableSettings};
use super::ANSWERS_BYTES_MAX;
use super::connection::Connection;
use super::keyspace::is_over;
use super::store::Outcome;
use crate::core::{Asker, MemoryUse, Partition, ReadFrom};

/// The innermost tables in this host's shared memory, in their order; `None` where every read is a core's.
pub(in super::super) struct NearTables(Vec<Option<NearTable>>);

struct NearTable {
    shards: Shards,
    /// Its place in the settings.
    place: usize,
}

/// A living session where it was found.
pub(super) struct Live<'a> {
    view: View<'a>,
    mark: u64,
    deadline: u64,
    now_ms: u64,
}

/// GETs that are answered together, at most. Where some have to be answered by a core, fewer are looked up, so that few are in
/// vain.
pub(super) const TOGETHER: usize = 16;
/// The command, as CLIENT LIST tells of it.
const GET: &str = "get";
/// Uses that are noted before a core is told.
const USES_MAX: usize = 64;

impl Live<'_> {
    pub(super) fn session(&self) -> Option<Session> {
        self.view.session(self.mark, self.deadline, self.now_ms)
    }
}

impl NearTables {
    /// Of a node with these settings, whose tables lie there.
    pub(in super::super) fn new(settings: &NodeSettings, regions: &[Arc<dyn Region>]) -> Self {
        let tables = settings.tables.iter().zip(regions).enumerate();
        let tables = tables.filter(|(_, (table, _))| table.policy.ring == 0);
        let attach = |(place, (table, region)): (usize, (&TableSettings, &Arc<dyn Region>))| {
            let shards = attach(table, region)?;
            Some(NearTable { shards, place })
        };
        Self(tables.map(attach).collect())
    }

    fn get(&self, table: usize) -> Option<&NearTable> {
        self.0.get(table)?.as_ref()
    }
}

/// A reader of a table, if readers may answer by it as a core would.
fn attach(table: &TableSettings, region: &Arc<dyn Region>) -> Option<Shards> {
    let policy = &table.policy;
    // Requests count against these rates, and reads out of shared memory do not.
    let is_metered =
        policy.suspects.as_ref().is_some_and(|it| it.session_rate.or(it.table_rate).is_some());
    // Without a majority in touch nothing is read of a table that refuses to go on.
    if policy.read != ReadFrom::Near || policy.partition != Partition::Serve || is_metered {
        return None;
    }
    let attached = Shards::attach(region.clone(), |key| Slot::of(key).index());
    let complain = |error: &_| {
        tracing::warn!(table = policy.name, %error, "clients of Redis do not read it out of shared memory");
    };
    attached.inspect_err(complain).ok()
}

impl<C: Clock> Connection<C> {
    /// Answers GET, if shared memory shows the session and it is a string. Under what is no key there is none.
    pub(super) fn get_near(&mut self, key: &[u8], out: &mut Writer<'_>) -> bool {
        self.find_near(key, |live| live.view.bytes().map(|bytes| out.bulk(bytes))).is_some()
    }

    /// Answers the GETs that follow each other at the beginning of `input`, up to the first one that shared memory does not
    /// answer: they wait for memory together, and so cost less each. Returns how many bytes they have, and how many they are.
    pub(super) fn get_together(
        &mut self,
        parser: &Parser,
        input: &[u8],
        answers: &mut Vec<u8>,
    ) -> (usize, u64) {
        let Some(mut next) = parser.find_get(input).filter(|_| self.may_get_together()) else {
            return (0, 0);
        };
        // The keys, and how many bytes there are up to the end of each request.
        let (mut keys, mut ends, mut count) = ([&[][..]; TOGETHER], [0; TOGETHER], 0);
        for (key, end) in keys.iter_mut().zip(&mut ends).take(self.together.into()) {
            (*key, *end) = (next.0, input.len() - next.1.len());
            count += 1;
            let Some(after) = parser.find_get(next.1) else { break };
            next = after;
        }
        let Some(NearTable { shards, place }) = self.door.near.get(self.table) else {
            return (0, 0);
        };
        self.note(GET);
        let monotonic_ms = self.door.clock.monotonic_coarse_ms();
        let (by, mut answered, mut bytes_left) = (self.store.asker(), 0, ANSWERS_BYTES_MAX);
        let (mut out, uses) = (Writer::new(answers, self.protocol()), &mut self.uses);
        RECORD.with_borrow_mut(|record| {
            let keys = &keys[..count];
            shards.get_many(keys, monotonic_ms, record, &mut |at, lookup, record| {
                // What follows one that a core has to answer is answered after it.
                if at == answered
                    && bytes_left > 0
                    && let Lookup::Hit(hit) = lookup
                    && let Some(live) = live(shards, &hit, record, monotonic_ms)
                    && let Some(bytes) = live.view.bytes()
                {
                    out.bulk(bytes);
                    bytes_left = bytes_left.saturating_sub(bytes.len());
                    answered += 1;
                    note_use(uses, by, *place, hit.used);
                }
            });
        });
        for key in keys.iter().take(answered) {
            self.told.forget(self.table, key);
        }
        self.done_at_once.reads += answered as u32;
        self.together = match answered {
            0 => 1,
            _ if answered < count => answered as u8,
            _ => self.together.saturating_mul(2).min(TOGETHER as u8),
        };
        if self.uses.len() >= USES_MAX {
            self.tell_uses();
        }
        (ends.into_iter().take(answered).next_back().unwrap_or(0), answered as u64)
    }

    /// Whether a GET is answered as it comes: without a transaction, for somebody who may ask for it, and wants the answer.
    fn may_get_together(&self) -> bool {
        let is_free = self.queue.is_none() && !self.is_ahead() && self.door.cluster.is_none();
        let is_let_in = self.is_authenticated() && self.reads_near();
        is_free && is_let_in && self.wants_next() && !self.only_listens()
    }

    /// The session under a key, as the client is going to be told, for commands that change nothing by it: another node's
    /// change may show a little later.
    pub(super) async fn read<'a>(&mut self, key: &Key) -> Outcome<'a, Option<Session>> {
        if !self.reads_near() {
            return self.get(key).await;
        }
        if let Some(session) = self.find_near(key.as_bytes(), |live| live.session()) {
            return Ok(Some(session).filter(|session| !is_over(session)));
        }
        let reply = self.store.get_for_host(&self.door.tables[self.table].name, key).await?;
        let found = self.found(key, reply)?;
        Ok(self.say(key, found))
    }

    /// Tells the cores what was read.
    pub(super) fn tell_uses(&mut self) {
        if self.uses.is_empty() {
            return;
        }
        let now = present(&self.door.clock);
        let mut uses = std::mem::take(&mut self.uses);
        uses.sort_by_key(|it| it.used.shard());
        for of_core in uses.chunk_by(|a, b| a.used.shard() == b.used.shard()) {
            let number = of_core.first().map_or(0, |it| usize::from(it.used.shard()));
            if let Some(core) = self.door.cores.get(number) {
                core.look().core.note_uses(now, of_core);
            }
        }
    }

    /// Whether the client may read in shared memory, and commands are not done to drafts. Who watches keys reads what the homes
    /// say: what is computed from it is written if they say the same then.
    fn reads_near(&self) -> bool {
        let is_near = self.door.near.get(self.table).is_some();
        let is_plain = self.staged.is_none() && self.watched.is_empty();
        is_near && is_plain && self.store.may_read()
    }

    /// Hands `read` the session under a key, if it lives and shared memory shows it.
    pub(super) fn find_near<T>(
        &mut self,
        key: &[u8],
        read: impl FnOnce(Live<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.reads_near() {
            return None;
        }
        let NearTable { shards, place } = self.door.near.get(self.table)?;
        let monotonic_ms = self.door.clock.monotonic_coarse_ms();
        let (read, used) = RECORD.with_borrow_mut(|record| {
            let lookup = shards.get(key, monotonic_ms, record);
            let Lookup::Hit(hit) = lookup else { return None };
            Some((read(live(shards, &hit, record, monotonic_ms)?)?, hit.used))
        })?;
        note_use(&mut self.uses, self.store.asker(), *place, used);
        self.told.forget(self.table, key);
        self.done_at_once.reads += 1;
        if self.uses.len() >= USES_MAX {
            self.tell_uses();
        }
        Some(read)
    }
}

/// What was found, if it lives.
fn live<'a>(shards: &Shards, hit: &Hit, record: &'a [u8], monotonic_ms: u64) -> Option<Live<'a>> {
    let view = View::parse(record).ok()?;
    let clock_offset = shards.shard(hit.used.shard()).clock_offset();
    let now_ms = monotonic_ms.wrapping_add(clock_offset);
    let is_live = view.standing(now_ms) == Standing::Live;
    is_live.then_some(Live { view, mark: hit.mark, deadline: hit.deadline, now_ms })
}

/// Notes that a session was used, now and then.
fn note_use(uses: &mut Vec<MemoryUse>, by: Asker, table: usize, used: Used) {
    if is_sampled() {
        uses.push(MemoryUse { by, table, used, count: SAMPLE });
    }
}

thread_local! {
    /// Records are copied here before they are taken apart.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
