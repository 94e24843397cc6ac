//! What goes to other nodes about single sessions, and no request waits for: it goes together.
//!
//! A session that moves to another ring is asked about at each home, sent to each home further out, and told of at each
//! home that gives it up. Thousands do so in a second, most of them at the same nodes. What is to be sent while one event
//! is handled is gathered by receiver and goes at the end of it, so many in one message; an answer to so many lets as many
//! go on at once, so that what began together stays together. A message costs more than the little in it. Repairs and
//! hints go at once, each by itself: requests may wait for what they mend.
//!
//! What is sent to one core of another node must be of its slots. How many cores a node has it says with each answer to
//! such messages; until then each copy goes by itself.

use std::collections::BTreeMap;

use annulus_proto::message::{Copies, CopiesTaken, Fresh, HeatRequest, Message, Replicated};
use annulus_proto::{Entry, Key, NodeId, Slot};

use super::Core;
use super::calls::Purpose;
use super::cooling::size;
use super::io::Now;
use super::replica::reject_table;
use super::sync::{BATCH_BYTES, size_of};

/// What is gathered for other nodes, by table and node.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    copies: BTreeMap<(usize, NodeId), Vec<Gathered>>,
    heats: BTreeMap<(usize, NodeId), Vec<Key>>,
}

/// A copy, and what it is sent for.
type Gathered = (Key, Entry, Errand);

/// A copy that was sent, until it is known what became of it.
#[derive(Clone, Debug)]
pub(super) struct SentCopy {
    key: Key,
    errand: Errand,
    /// What has no value, and need not be stored here: a tombstone, a marker, what was evicted.
    small: Option<Entry>,
}

/// What a copy is sent for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    /// A home is to have it.
    Repair {
        /// Whether it is a hint, to be kept until it is delivered.
        hint: bool,
    },
    /// It moves there.
    Move {
        /// From this table, by its place.
        from: usize,
    },
}

impl Core {
    /// Sends a node an entry of a table, once what is being handled is done.
    pub(super) fn gather_copy(
        &mut self,
        table: usize,
        node: NodeId,
        (key, entry): (Key, Entry),
        errand: Errand,
    ) {
        self.bundles.copies.entry((table, node)).or_default().push((key, entry, errand));
    }

    /// Asks a home how hot it saw a session, once what is being handled is done.
    pub(super) fn gather_heat(&mut self, table: usize, home: NodeId, key: Key) {
        self.bundles.heats.entry((table, home)).or_default().push(key);
    }

    /// Sends what was gathered. What cannot be sent may make for more.
    pub(super) fn send_bundles(&mut self, now: Now) {
        while let Some(((table, node), keys)) = self.bundles.heats.pop_first() {
            let cores = self.cores_of(node);
            for keys in bundled(keys, cores, HeatRequest::KEYS_MAX, |key| (key.slot(), 0)) {
                let name = self.tables[table].store.policy().name.clone();
                let purpose = Purpose::Heat { table, keys: keys.clone() };
                let question = HeatRequest { table: name, keys: keys.clone() };
                if self.call(now, node, purpose, question).is_none() {
                    self.on_heats(now, table, node, keys, None);
                }
            }
        }
        while let Some(((table, node), copies)) = self.bundles.copies.pop_first() {
            let cores = self.cores_of(node);
            let measure = |(key, entry, _): &Gathered| (key.slot(), size_of(key, entry));
            for copies in bundled(copies, cores, Copies::ENTRIES_MAX, measure) {
                self.send_copies(now, table, node, copies);
            }
        }
    }

    pub(super) fn send_copies(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        copies: Vec<Gathered>,
    ) {
        let sent = |(key, entry, errand): &Gathered| SentCopy {
            key: key.clone(),
            errand: *errand,
            small: (size(entry) == 0).then(|| entry.clone()),
        };
        let sent: Vec<SentCopy> = copies.iter().map(sent).collect();
        let name = self.tables[table].store.policy().name.clone();
        let entries = copies.into_iter().map(|(key, entry, _)| (key, entry)).collect();
        let purpose = Purpose::Copies { table, sent: sent.clone() };
        if self.call(now, node, purpose, Copies { table: name, entries }).is_none() {
            self.on_copies_taken(now, table, node, sent, None);
        }
    }

    /// What a home does that is sent several copies.
    pub(super) fn take_copies(&mut self, now: Now, from: NodeId, request: &Copies) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let (mut differing, mut refused, mut done, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        for (key, entry) in request.entries.iter().take(Copies::ENTRIES_MAX) {
            if bytes >= BATCH_BYTES || !self.owns(key.slot()) {
                break; // The others are sent again.
            }
            match self.take_copy(now, from, table, (key, entry), Fresh::No, None) {
                Replicated::Stored => {}
                Replicated::Differs(held) => {
                    bytes += size_of(key, &held);
                    differing.push((done, held));
                }
                Replicated::Failed(failure) => refused.push((done, Some(failure))),
                _ => refused.push((done, None)),
            }
            done += 1;
        }
        CopiesTaken { cores: self.cores as u16, done, differing, refused }.into()
    }

    /// A node has said what became of copies, or has not.
    pub(super) fn on_copies_taken(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        sent: Vec<SentCopy>,
        answer: Option<Message>,
    ) {
        let mut answers = Vec::new();
        if let Some(Message::CopiesTaken(taken)) = answer {
            self.note_cores(node, taken.cores);
            answers = answers_of(taken, sent.len());
        }
        let is_answered = !answers.is_empty();
        let mut answers = answers.into_iter();
        for copy in sent {
            let answer = answers.next();
            if answer.is_none() && is_answered {
                self.send_again(now, table, node, copy);
                continue;
            }
            match copy.errand {
                Errand::Repair { hint } => {
                    self.on_repair_answer(now, (table, &copy.key), hint, node, answer);
                }
                Errand::Move { from } => {
                    self.on_move_answer(now, (from, &copy.key), node, answer);
                }
            }
        }
    }

    /// A copy was not looked at.
    fn send_again(&mut self, now: Now, table: usize, node: NodeId, copy: SentCopy) {
        let SentCopy { key, errand, small } = copy;
        let entry = match errand {
            Errand::Repair { hint } if small.is_none() => {
                return self.repair(now, table, node, key, hint);
            }
            Errand::Repair { .. } => small,
            Errand::Move { from } => self.tables[from].cooling.copy_under_way(&key),
        };
        if let Some(entry) = entry {
            self.gather_copy(table, node, (key, entry), errand);
        }
    }
}

/// What became of each copy, of so many, as far as an answer to them says so.
pub(super) fn answers_of(taken: CopiesTaken, sent: usize) -> Vec<Replicated> {
    let CopiesTaken { done, differing, refused, .. } = taken;
    let mut answers = vec![Replicated::Stored; sent.min(done.into())];
    let differing = differing.into_iter().map(|(place, held)| (place, Replicated::Differs(held)));
    let refused = refused.into_iter().map(|(place, why)| {
        let answer = why.map_or(Replicated::NoHome, Replicated::Failed);
        (place, answer)
    });
    for (place, answer) in differing.chain(refused) {
        if let Some(other) = answers.get_mut(usize::from(place)) {
            *other = answer;
        }
    }
    answers
}

/// Parts what is for one node into what goes together: of one of its cores, so many at most, and of so many bytes. What is
/// large goes by itself.
pub(super) fn bundled<T>(
    items: Vec<T>,
    cores: Option<u16>,
    max: usize,
    measure: impl Fn(&T) -> (Slot, usize),
) -> Vec<Vec<T>> {
    let Some(cores) = cores else {
        return items.into_iter().map(|item| vec![item]).collect();
    };
    let mut full = Vec::new();
    let mut open: BTreeMap<u16, (Vec<T>, usize)> = BTreeMap::new();
    for item in items {
        let (slot, size) = measure(&item);
        if size >= BATCH_BYTES {
            full.push(vec![item]);
            continue;
        }
        let (bundle, bytes) = open.entry(slot.index() % cores).or_default();
        bundle.push(item);
        *bytes += size;
        if bundle.len() == max || *bytes >= BATCH_BYTES {
            full.push(std::mem::take(bundle));
            *bytes = 0;
        }
    }
    full.extend(open.into_values().map(|(bundle, _)| bundle).filter(|bundle| !bundle.is_empty()));
    full
}
