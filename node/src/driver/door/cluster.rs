//! The node as one of a cluster, for clients of Redis that know clusters: which nodes have which slots, and being sent there.
//!
//! Any node answers for any key, so nothing depends on this: it saves a hop. What is told follows from the homes of slots as the
//! node sees them, without members that were found dead, whether or not their slots have moved, and without those that have told
//! nobody where such clients find them. A slot that nobody is left of is told as the node's own.
//!
//! MOVED is said for a slot that the node is no home of, if there is such a home elsewhere; once for each slot on a connection,
//! until what is known of the cluster changes. Whoever asks here again has its reasons, and is answered. ASK is never said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annulus_gossip::Ring;
use annulus_net::Clock;
use annulus_proto::{Member, NodeId, SLOT_COUNT, Slot};
use annulus_resp::table::Spec;
use annulus_resp::{Arguments, Command, CommandError, Protocol, Writer, integer, texts};
use tokio::sync::watch;

use super::super::settings::RedisSettings;
use super::connection::Connection;
use super::store::{Outcome, Trouble};
use crate::core::Standing;

/// Up to so many nodes, CLUSTER SLOTS tells of more homes than the first.
const NODES_WITH_SECONDARIES_MAX: usize = 12;
/// The largest answer to CLUSTER SLOTS. Some clients ask for it with each request of theirs.
const SLOTS_BYTES_MAX: usize = 150 << 10;

/// What all connections know of the cluster.
pub(in crate::driver) struct Cluster {
    /// Where clients find this node.
    own: SocketAddr,
    standing: watch::Receiver<Arc<Standing>>,
    missing: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    map: Mutex<Option<Arc<Map>>>,
}

/// The cluster as it was seen at one time.
struct Map {
    /// Which one it is.
    number: u64,
    standing: Arc<Standing>,
    missing: Arc<BTreeSet<NodeId>>,
    /// Where clients find each node that is in contact.
    doors: BTreeMap<NodeId, SocketAddr>,
    /// What was asked before.
    answers: Mutex<Answers>,
}

/// Answers as they are sent, by the question, the number of homes and the protocol.
type Answers = BTreeMap<(Question, usize, i64), Arc<[u8]>>;

/// What is asked about the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Slots,
    Shards,
    Nodes,
    Info,
}

/// Slots that follow each other, and who is told to have them, the first one first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first: u16,
    last: u16,
    homes: Vec<NodeId>,
}

/// The slots for which a connection was sent elsewhere, while the map was this one.
#[derive(Default)]
pub(super) struct Sent {
    map: u64,
    /// A bit for each slot; nothing before the first.
    slots: Vec<u64>,
}

/// Where clients of clusters find a node that listens here: first what it tells them, then what it tells the other nodes. What
/// is on loopback is something else on other hosts.
pub(in crate::driver) fn announced(
    settings: &RedisSettings,
    listens: &[SocketAddr],
    advertised: SocketAddr,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let here = |addr: &SocketAddr| match addr.ip().is_unspecified() {
        true => SocketAddr::new(advertised.ip(), addr.port()),
        false => *addr,
    };
    let own = listens.first().map(|addr| settings.announce.unwrap_or_else(|| here(addr)));
    let own = own.filter(|_| settings.cluster);
    let told = own.filter(|own| !own.ip().is_loopback() || advertised.ip().is_loopback());
    (own, told)
}

impl Cluster {
    pub(in crate::driver) fn new(
        own: SocketAddr,
        standing: watch::Receiver<Arc<Standing>>,
        missing: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    ) -> Self {
        Self { own, standing, missing, map: Mutex::new(None) }
    }

    /// The cluster as it is now. Costs something after a change only.
    fn map(&self) -> Arc<Map> {
        let standing = self.standing.borrow().clone();
        let missing = self.missing.borrow().clone();
        let mut last = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match &*last {
            Some(map)
                if Arc::ptr_eq(&map.standing, &standing) && Arc::ptr_eq(&map.missing, &missing) =>
            {
                return map.clone();
            }
            before => before.as_ref().map_or(0, |map| map.number) + 1,
        };
        let map = Arc::new(Map::new(number, self.own, standing, missing));
        *last = Some(map.clone());
        map
    }
}

impl Map {
    fn new(
        number: u64,
        own: SocketAddr,
        standing: Arc<Standing>,
        missing: Arc<BTreeSet<NodeId>>,
    ) -> Self {
        let me = standing.me();
        let in_contact = standing
            .members()
            .filter(|member| member.status.is_active() && !missing.contains(&member.id));
        let mut doors: BTreeMap<NodeId, SocketAddr> =
            in_contact.filter_map(|member| Some((member.id, member.door?))).collect();
        doors.insert(me, own);
        Self { number, standing, missing, doors, answers: Mutex::default() }
    }

    /// The answer to a question, of tables with so many homes.
    fn answer(&self, question: Question, replicas: usize, protocol: Protocol) -> Arc<[u8]> {
        let at = (question, replicas, protocol.number());
        if let Some(answer) = self.answers().get(&at) {
            return answer.clone();
        }
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes, protocol);
        match question {
            Question::Slots => return self.keep(at, self.slots(replicas, protocol)),
            Question::Shards => self.shards(replicas, &mut out),
            Question::Nodes => out.verbatim(self.nodes(replicas).as_bytes()),
            Question::Info => out.verbatim(self.info(replicas).as_bytes()),
        }
        self.keep(at, bytes)
    }

    fn keep(&self, at: (Question, usize, i64), bytes: Vec<u8>) -> Arc<[u8]> {
        // Of two who were at it the first counts.
        self.answers().entry(at).or_insert_with(|| bytes.into()).clone()
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The homes of a slot, of tables with so many.
    fn homes(&self, slot: Slot, replicas: usize) -> &[NodeId] {
        let homes = self.standing.ring().homes(slot);
        &homes[..homes.len().min(replicas)]
    }

    /// Where a client should rather ask for what is in a slot.
    fn elsewhere(&self, slot: Slot, replicas: usize) -> Option<SocketAddr> {
        let homes = self.homes(slot, replicas);
        if homes.contains(&self.standing.me()) {
            return None;
        }
        homes.iter().find_map(|home| self.doors.get(home)).copied()
    }

    /// As many homes of each slot as there is room for.
    fn slots(&self, replicas: usize, protocol: Protocol) -> Vec<u8> {
        let most = match self.doors.len() {
            ..=NODES_WITH_SECONDARIES_MAX => replicas.max(1),
            _ => 1,
        };
        (1..=most)
            .rev()
            .map(|count| {
                let mut bytes = Vec::new();
                self.slots_with(count, replicas, &mut Writer::new(&mut bytes, protocol));
                bytes
            })
            .find(|bytes| bytes.len() <= SLOTS_BYTES_MAX)
            .unwrap_or_else(|| b"*0\r\n".to_vec())
    }

    fn slots_with(&self, count: usize, replicas: usize, out: &mut Writer<'_>) {
        let runs = self.runs(count, replicas);
        out.array(runs.len());
        for run in runs {
            out.array(2 + run.homes.len());
            out.integer(run.first.into());
            out.integer(run.last.into());
            for home in run.homes {
                let door = self.door(home);
                out.array(4);
                out.bulk(door.ip().to_string().as_bytes());
                out.integer(door.port().into());
                out.bulk(name_of(home).as_bytes());
                out.map(0);
            }
        }
    }

    /// Each node that has slots as a shard of its own: none is another's replica, for each has slots for which it comes first.
    fn shards(&self, replicas: usize, out: &mut Writer<'_>) {
        let shards = self.primaries(replicas);
        out.array(shards.len());
        for (node, slots) in shards {
            let door = self.door(node);
            let ip = door.ip().to_string();
            out.map(2);
            out.bulk(b"slots");
            out.array(2 * slots.len());
            for (first, last) in slots {
                out.integer(first.into());
                out.integer(last.into());
            }
            out.bulk(b"nodes");
            out.array(1);
            out.map(7);
            out.bulk(b"id");
            out.bulk(name_of(node).as_bytes());
            out.bulk(b"port");
            out.integer(door.port().into());
            for (field, text) in [("ip", ip.as_str()), ("endpoint", &ip), ("role", "master")] {
                out.bulk(field.as_bytes());
                out.bulk(text.as_bytes());
            }
            out.bulk(b"replication-offset");
            out.integer(0);
            out.bulk(b"health");
            out.bulk(b"online");
        }
    }

    /// A line for each node that clients find.
    fn nodes(&self, replicas: usize) -> String {
        let mut primaries = self.primaries(replicas);
        let mut text = String::new();
        let own = self.standing.me();
        for (&node, door) in &self.doors {
            let member = self.standing.member(node);
            // Where nodes reach it, as Redis has a port for that.
            let bus = member.map_or(0, |member| member.addr.port());
            let flags = if node == own { "myself,master" } else { "master" };
            let incarnation = incarnation(member);
            let (name, ip, port) = (name_of(node), door.ip(), door.port());
            let _ = write!(text, "{name} {ip}:{port}@{bus} {flags} - 0 0 {incarnation} connected");
            for (first, last) in primaries.remove(&node).unwrap_or_default() {
                let _ = match first == last {
                    true => write!(text, " {first}"),
                    false => write!(text, " {first}-{last}"),
                };
            }
            text.push('\n');
        }
        text
    }

    fn info(&self, replicas: usize) -> String {
        let ring = self.standing.ring();
        let assigned = if ring.nodes().is_empty() { 0 } else { SLOT_COUNT };
        let is_missing =
            |slot: &Slot| ring.homes(*slot).first().is_some_and(|it| self.missing.contains(it));
        let missing = Slot::all().filter(is_missing).count();
        let current = self.standing.members().map(|member| member.incarnation).max();
        let own = incarnation(self.standing.member(self.standing.me()));
        let lines = [
            ("cluster_slots_assigned", assigned.into()),
            ("cluster_slots_ok", u64::from(assigned) - missing as u64),
            ("cluster_slots_pfail", missing as u64),
            ("cluster_slots_fail", 0),
            ("cluster_known_nodes", self.standing.members().count() as u64),
            ("cluster_size", self.primaries(replicas).len() as u64),
            ("cluster_current_epoch", current.unwrap_or_default()),
            ("cluster_my_epoch", own),
            ("cluster_stats_messages_sent", 0),
            ("cluster_stats_messages_received", 0),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        // Slots of a node that is missing are answered for by others.
        let state = if assigned > 0 { "ok" } else { "fail" };
        let mut text = format!("cluster_state:{state}\r\n");
        for (name, value) in lines {
            let _ = write!(text, "{name}:{value}\r\n");
        }
        text
    }

    /// The slots for which each node is told to come first, as ranges.
    fn primaries(&self, replicas: usize) -> BTreeMap<NodeId, Vec<(u16, u16)>> {
        let mut primaries: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
        for run in self.runs(1, replicas) {
            if let Some(node) = run.homes.first() {
                primaries.entry(*node).or_default().push((run.first, run.last));
            }
        }
        primaries
    }

    /// All slots, with so many homes each of those that clients find. Neighbours are put together while they have the first
    /// one and enough of the others in common, whatever their order.
    fn runs(&self, count: usize, replicas: usize) -> Vec<Run> {
        let ring: &Ring = self.standing.ring();
        let mut runs: Vec<Run> = Vec::new();
        for range in ring.ranges(ring.homes_per_slot().min(replicas)) {
            let mut homes: Vec<NodeId> =
                range.homes.iter().copied().filter(|home| self.doors.contains_key(home)).collect();
            if homes.is_empty() {
                homes.push(self.standing.me());
            }
            let (first, last) = range.slots.into_inner();
            if let Some(run) = runs.last_mut()
                && run.homes[0] == homes[0]
            {
                let common = run.homes.iter().copied().filter(|home| homes.contains(home));
                let common: Vec<NodeId> = common.collect();
                let is_same = common.len() == run.homes.len() && common.len() == homes.len();
                if is_same || common.len() >= count {
                    (run.homes, run.last) = (common, last);
                    continue;
                }
            }
            runs.push(Run { first, last, homes });
        }
        runs.iter_mut().for_each(|run| run.homes.truncate(count));
        runs
    }

    /// Where clients find a node of a run.
    fn door(&self, node: NodeId) -> SocketAddr {
        *self.doors.get(&node).expect("runs are of nodes with doors")
    }
}

impl Sent {
    /// Notes that a connection is sent elsewhere for a slot, by the map of this number. Returns whether that is new.
    fn note(&mut self, map: u64, slot: Slot) -> bool {
        if self.map != map {
            (self.map, self.slots) = (map, Vec::new());
        }
        self.slots.resize(usize::from(SLOT_COUNT) / WORD_BITS, 0);
        let (word, bit) =
            (usize::from(slot.index()) / WORD_BITS, usize::from(slot.index()) % WORD_BITS);
        let before = self.slots[word];
        self.slots[word] |= 1 << bit;
        self.slots[word] != before
    }
}

const WORD_BITS: usize = u64::BITS as usize;

/// A node's name to clients of clusters, which want 40 digits: 28 zeros, and its id.
fn name_of(node: NodeId) -> String {
    format!("{:0>40}", node.to_string())
}

fn incarnation(member: Option<&Member>) -> u64 {
    member.map_or(0, |member| member.incarnation)
}

impl<C: Clock> Connection<C> {
    /// Whether a request with keys is for one slot, and for this node rather than for another. Without cluster mode any is.
    pub(super) fn keep_to_a_slot<'a>(
        &mut self,
        spec: &'static Spec,
        arguments: Arguments<'a>,
    ) -> Outcome<'a, ()> {
        let Some(cluster) = &self.door.cluster else { return Ok(()) };
        let mut slots = spec.keys_of(arguments).map(|key| Slot::of(&key));
        let Some(slot) = slots.next() else { return Ok(()) };
        if slots.any(|other| other != slot) {
            return Err(Trouble::text("CROSSSLOT", texts::CROSS_SLOT));
        }
        let map = cluster.map();
        match map.elsewhere(slot, self.door.tables[self.table].replicas) {
            Some(door) if self.sent.get_or_insert_default().note(map.number, slot) => {
                self.door.reception.tally.add("redis_moved");
                let text = format!("{} {}:{}", slot.index(), door.ip(), door.port());
                Err(Trouble::Error("MOVED", text.into()))
            }
            _ => Ok(()),
        }
    }

    /// Does a command about the cluster.
    pub(super) fn cluster<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let no_cluster = || Trouble::text("ERR", texts::NO_CLUSTER);
        let cluster = self.door.cluster.as_ref().ok_or_else(no_cluster)?;
        let map = cluster.map();
        let replicas = self.door.tables[self.table].replicas;
        let question = match command {
            Command::ClusterSlots => Question::Slots,
            Command::ClusterShards => Question::Shards,
            Command::ClusterNodes => Question::Nodes,
            Command::ClusterInfo => Question::Info,
            Command::ClusterMyId => {
                out.bulk(name_of(map.standing.me()).as_bytes());
                return Ok(());
            }
            Command::ClusterKeySlot { key } => {
                out.integer(Slot::of(&key).index().into());
                return Ok(());
            }
            Command::ClusterCountKeysInSlot { slot } => {
                let slot = integer(&slot).ok_or(CommandError::NotInteger)?;
                let slot = u16::try_from(slot).ok().and_then(Slot::new);
                slot.ok_or_else(|| Trouble::text("ERR", texts::INVALID_SLOT))?;
                // Of which node's share is a question that has no answer here.
                out.integer(0);
                return Ok(());
            }
            // It says that an answer is wanted here: any is given.
            _ => {
                out.ok();
                return Ok(());
            }
        };
        out.raw(&map.answer(question, replicas, out.protocol()));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
