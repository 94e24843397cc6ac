//! What must be true of everything the clients saw and the hosts hold.
//!
//! For tables where the last writer wins, oracle invariants instead of linearizability: each write
//! has a version and each value tells the operation that wrote it, so that every check is a
//! comparison. The rules:
//!
//! - **lost**: after healing, the homes hold every acknowledged write, or something that dominates
//!   it (a newer birth, a tombstone of its birth, a newer version of what it wrote).
//! - **revived**: after healing, no session lives whose end was acknowledged.
//! - **diverged**: after healing, all homes of a key hold the same.
//! - **phantom**: a read returns only what was written, field by field, to that session; nothing of
//!   a write that was refused; and no tombstone without an end.
//! - **stale**: what a read through a host *in contact* returns is at most two beats and a round
//!   trip behind what was acknowledged; an ended session is not seen alive by then.
//! - **unavailable**: between hosts in contact every operation gets an answer.
//! - **expired**: nothing expires before its time (no session here does, in a run).
//! - **twice**: no two writes have one version.
//! - **linear**: what clients were told of conditional operations fits some order of them
//!   ([`crate::linear`]).
//! - **two-sided**: in a table that refuses, no key's writes are acknowledged on two sides of a split,
//!   and nothing comes up later that was answered *unavailable* there.
//! - **kept**: after healing, nobody but the homes holds anything of a slot that has all its homes.
//! - **copies**: nothing is at any time on fewer nodes than it was on before ([`crate::copies`]).
//! - **one-sided**: in a table that serves, both sides of a split acknowledge writes of the same key.
//!
//! *In contact* means: both clients' sites were in one group of an [`Epoch`] from before the write
//! began until the read returned, and the epoch had settled. It says nothing while the cluster gets
//! used to a fault, so runs have quiet stretches. While a node is missing, what needs a majority of a
//! key's homes may be *unavailable*: the homes that are missing count.
//!
//! # What it cannot see
//! A request that the client library repeats may be done twice, at two coordinators (a node
//! remembers only the answers it gave itself), the second time when a message that was held up
//! arrives after all. Then an acknowledged start has a second birth, a write a second version that
//! beats what came between, and an end without a birth a second victim. All look like writes of the
//! same operation and are taken for one; [`Tally::ghosts`] counts reads that show a second birth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use annulus_node::core::Partition;
use annulus_proto::{Entry, Key, Value, Version};

use crate::clock::EPOCH_MS;
use crate::history::{Action, Op, Outcome, content};
use crate::host::Holding;
use crate::linear::{self, Found};
use crate::plan::Epoch;

/// The beat of the design.
const BEAT: Duration = Duration::from_millis(200);
/// How far clocks may be apart that stamp uses, and then some.
const TOUCH_SLACK_MS: u64 = 2_000;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its name.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// How it all ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// What the table does without a majority.
    pub partition: Partition,
    /// The keys, by their numbers.
    pub keys: Vec<String>,
    /// How many homes a slot has, if there are enough nodes.
    pub replicas: usize,
    /// By how many milliseconds a touch may count for less than it said, besides what clocks differ by.
    pub touches_short_ms: u64,
    /// The nodes that run.
    pub up: BTreeSet<usize>,
    /// For each key the nodes that are its homes.
    pub homes: Vec<Vec<usize>>,
    /// What each node's memory holds.
    pub holdings: Vec<Holding>,
    /// What a read through each node (first) of each key (second) returned.
    pub reads: Vec<(usize, usize, Outcome)>,
}

/// What a run was made of, so that nobody mistakes an empty one for a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub ops: usize,
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// Reads that returned a session.
    pub reads: usize,
    /// Of which out of shared memory.
    pub reads_local: usize,
    /// Operations with an unknown outcome, or too few homes.
    pub open: usize,
    /// Pairs of a write and a read that were in contact.
    pub in_contact: usize,
    /// Conditional operations that were done.
    pub conditional: usize,
    /// Conditional operations whose condition did not hold.
    pub conflicts: usize,
    /// Keys for whose conditional operations an order was found.
    pub ordered: usize,
    /// Keys that were written on two sides of a split at the same time.
    pub two_sided: usize,
    /// Sessions with another birth than was acknowledged, of the same start.
    pub ghosts: usize,
    /// How often the memory of all nodes was looked at during the run.
    pub samples: usize,
    /// How often a node was then seen without what it had held.
    pub let_go: usize,
}

/// Checks a history and how it ended.
#[must_use]
pub fn check(ops: &[Op], epochs: &[Epoch], ending: &Ending) -> (Vec<Violation>, Tally) {
    let mut checker = Checker {
        undone: BTreeSet::new(),
        ops,
        by_key: BTreeMap::new(),
        found: BTreeSet::new(),
        tally: Tally::default(),
    };
    checker.tally();
    for op in ops {
        checker.by_key.entry(op.key).or_default().push(op);
    }
    checker.versions_are_unique();
    checker.sides_agree(epochs, ending.partition);
    for op in ops {
        checker.read_is_no_phantom(op);
        checker.answer_is_good(op, epochs, ending.partition);
        checker.read_is_fresh(op, epochs);
    }
    for key in 0..ending.keys.len() {
        checker.ending(key, ending);
        checker.conditions_held(key);
    }
    (checker.found.into_iter().collect(), checker.tally)
}

struct Checker<'a> {
    /// Operations that were refused on one side of a split, and must leave no trace.
    undone: BTreeSet<usize>,
    ops: &'a [Op],
    by_key: BTreeMap<usize, Vec<&'a Op>>,
    found: BTreeSet<Violation>,
    tally: Tally,
}

impl<'a> Checker<'a> {
    fn fail(&mut self, rule: &'static str, what: String) {
        self.found.insert(Violation { rule, what });
    }

    fn of_key(&self, key: usize) -> Vec<&'a Op> {
        self.by_key.get(&key).cloned().unwrap_or_default()
    }

    fn tally(&mut self) {
        self.tally.ops = self.ops.len();
        for op in self.ops {
            match &op.outcome {
                Outcome::Acknowledged { .. } => {
                    self.tally.acknowledged += 1;
                    self.tally.conditional += usize::from(op.is_conditional());
                }
                Outcome::Conflict { .. } => self.tally.conflicts += 1,
                Outcome::Read { source, .. } => {
                    self.tally.reads += 1;
                    let local = *source == annulus_client::Source::SharedMemory;
                    self.tally.reads_local += usize::from(local);
                }
                Outcome::Unknown | Outcome::Unavailable(_) => self.tally.open += 1,
                _ => {}
            }
        }
    }

    fn versions_are_unique(&mut self) {
        let mut seen: BTreeMap<Version, usize> = BTreeMap::new();
        for op in self.ops {
            // A touch writes nothing, and an end of what has ended is told the end's version.
            let writes = !matches!(op.action, Action::Touch { .. } | Action::End { .. });
            let Some((_, version)) = op.acknowledged().filter(|_| writes) else { continue };
            if let Some(other) = seen.insert(version, op.id) {
                self.fail("twice", format!("#{other} and #{} both have {version}", op.id));
            }
        }
    }

    fn read_is_no_phantom(&mut self, op: &Op) {
        if let (Outcome::Read { session, .. }, Some(returned)) = (&op.outcome, op.returned) {
            let whose = format!("#{} read", op.id);
            self.value_was_written(&whose, op.key, session.birth, &session.value, returned);
        }
    }

    fn value_was_written(
        &mut self,
        whose: &str,
        key: usize,
        birth: Version,
        value: &Value,
        by: Duration,
    ) {
        match value {
            Value::Bytes(bytes) => self.part_was_written(whose, key, birth, None, bytes, by),
            Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) => {
                for (name, bytes) in fields {
                    self.part_was_written(whose, key, birth, Some(name), bytes, by);
                }
            }
        }
    }

    fn part_was_written(
        &mut self,
        whose: &str,
        key: usize,
        birth: Version,
        field: Option<&[u8]>,
        bytes: &[u8],
        by: Duration,
    ) {
        let name = field.map_or_else(|| "value".into(), String::from_utf8_lossy).into_owned();
        let writer = number_of(bytes).and_then(|id| self.ops.get(id));
        let Some(op) = writer.filter(|op| content(op.id, bytes.len()) == bytes) else {
            return self.fail("phantom", format!("{whose} {name} of k{key}: nobody wrote it"));
        };
        let value_has = |value: &Value| match (value, field) {
            (Value::Bytes(written), None) => written == bytes,
            (Value::Map(fields), Some(field)) => fields.get(field).is_some_and(|v| v == bytes),
            _ => false,
        };
        let wrote = op.key == key
            && op.invoked <= by
            && match &op.action {
                Action::Start(value)
                | Action::StartIfAbsent(value)
                | Action::Replace { value, .. }
                | Action::CompareAndSet { value, .. } => value_has(value),
                Action::SetFields { set, .. } => {
                    field.is_some_and(|field| set.get(field).is_some_and(|v| v == bytes))
                }
                _ => false,
            };
        let id = op.id;
        if !wrote {
            return self
                .fail("phantom", format!("{whose} {name} of k{key}: #{id} did not write it"));
        }
        if !op.may_have_happened() {
            return self.fail("phantom", format!("{whose} {name} of k{key}: #{id} was refused"));
        }
        if self.undone.contains(&id) {
            let what = format!("{whose} {name} of k{key}: #{id} was unavailable in a split");
            return self.fail("two-sided", what);
        }
        if op.meant().is_some_and(|meant| meant != birth) {
            let what = format!("{whose} {name} of k{key}: #{id} meant another session");
            return self.fail("phantom", what);
        }
        let acknowledged = op.acknowledged();
        if acknowledged.is_some_and(|(acknowledged, _)| acknowledged != birth) {
            self.tally.ghosts += 1;
        }
    }

    fn answer_is_good(&mut self, op: &Op, epochs: &[Epoch], partition: Partition) {
        if op.outcome == Outcome::Expired {
            self.fail("expired", format!("#{} on k{} at {:?}", op.id, op.key, op.returned));
        }
        let Some(returned) = op.returned else { return };
        if in_contact(epochs, op.site, op.site, op.invoked, returned).is_none() {
            return;
        }
        let decides = op.is_end() || op.is_conditional() || partition == Partition::Refuse;
        let is_whole = |epoch: &Epoch| epoch.whole && epoch.settled <= op.invoked;
        let may_lack_homes = !epochs.iter().any(|e| is_whole(e) && returned <= e.until);
        // A client that has had no answer asks another home early whatever it may ask for twice: the first one may be
        // waiting for a majority still.
        let is_repeated =
            matches!(op.action, Action::Touch { .. } | Action::End { birth: Some(_) });
        let is_told = match op.outcome {
            Outcome::Unavailable(_) => true,
            Outcome::Unknown => is_repeated,
            _ => false,
        };
        if decides && may_lack_homes && is_told {
            return;
        }
        if let Outcome::Unknown | Outcome::Unavailable(_) | Outcome::Refused(_) = &op.outcome {
            let (id, client, outcome) = (op.id, &op.client, &op.outcome);
            let what = format!("#{id} by {client} at {:?}: {outcome:?}", op.invoked);
            self.fail("unavailable", what);
        }
    }

    fn read_is_fresh(&mut self, read: &Op, epochs: &[Epoch]) {
        let Some(returned) = read.returned.filter(|_| read.action == Action::Get) else { return };
        let ops = self.of_key(read.key);
        for write in &ops {
            let Some((birth, version)) = write.acknowledged() else { continue };
            let Some(round_trip) =
                in_contact(epochs, write.site, read.site, write.invoked, returned)
            else {
                continue;
            };
            let acknowledged = write.returned.unwrap_or(Duration::MAX);
            if acknowledged.saturating_add(2 * BEAT + round_trip) > read.invoked {
                continue;
            }
            self.tally.in_contact += 1;
            let behind = match &read.outcome {
                Outcome::Read { session, .. } if session.birth < birth => Some("an older session"),
                Outcome::Read { session, .. } if session.birth > birth => None,
                Outcome::Read { .. } if write.is_end() => Some("it alive"),
                Outcome::Read { session, .. } if session.version < version => Some("before it"),
                Outcome::Absent => Some("nothing"),
                Outcome::Ended if !self.could_have_ended(&ops, birth, returned) => Some("an end"),
                _ => None,
            };
            if let Some(behind) = behind {
                let (r, w, key) = (read.id, write.id, read.key);
                let how = if write.is_end() { "ended" } else { "wrote" };
                let (at, client) = (read.invoked, &read.client);
                let source = match &read.outcome {
                    Outcome::Read { source, .. } => format!("{source:?}"),
                    other => format!("{other:?}"),
                };
                let what = format!(
                    "#{r} by {client} at {at:?} sees {behind}, of k{key}, which #{w} {how} by \
                     {acknowledged:?} ({source})"
                );
                return self.fail("stale", what);
            }
        }
    }

    /// What one side of a split acknowledged the other one did, too, if the table says so, or did not.
    fn sides_agree(&mut self, epochs: &[Epoch], partition: Partition) {
        let splits: Vec<&Epoch> = epochs.iter().filter(|epoch| epoch.groups.len() > 1).collect();
        let mut is_long = false;
        for epoch in splits {
            let mut sides: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
            for op in self.ops {
                let Some(returned) = op.returned else { continue };
                if op.invoked < epoch.settled || returned > epoch.until {
                    continue;
                }
                is_long = true;
                let side = epoch.groups.iter().position(|group| group.contains(&op.site));
                if let (Some(side), Some(_)) = (side, op.acknowledged()) {
                    sides.entry(op.key).or_default().insert(side);
                }
                let is_undone = matches!(op.outcome, Outcome::Unavailable(_)) && !op.is_end();
                if partition == Partition::Refuse && is_undone {
                    self.undone.insert(op.id);
                }
            }
            let both: Vec<usize> =
                sides.iter().filter(|(_, sides)| sides.len() > 1).map(|(key, _)| *key).collect();
            self.tally.two_sided += both.len();
            if partition == Partition::Refuse && !both.is_empty() {
                self.fail("two-sided", format!("both sides acknowledged writes of {both:?}"));
            }
        }
        if partition == Partition::Serve && is_long && self.tally.two_sided == 0 {
            self.fail("one-sided", "no key was written on both sides of a split".to_owned());
        }
    }

    fn conditions_held(&mut self, key: usize) {
        let ops = self.of_key(key);
        if !ops.iter().any(|op| op.is_conditional()) {
            return;
        }
        match linear::search(&ops) {
            Found::Order => self.tally.ordered += 1,
            Found::TooMany => {}
            Found::None(id) => {
                let op = &self.ops[id];
                let what = format!(
                    "no order of the conditional operations on k{key} fits what #{id} by {} at {:?} \
                     was told: {:?}",
                    op.client, op.invoked, op.outcome
                );
                self.fail("linear", what);
            }
        }
    }

    /// Whether something may have ended this session, or a later one under the key.
    fn could_have_ended(&self, ops: &[&Op], birth: Version, by: Duration) -> bool {
        ops.iter().any(|op| {
            let ends = op.is_end()
                && match op.acknowledged() {
                    Some((ended, _)) => ended >= birth,
                    None => op.meant().is_none_or(|meant| meant >= birth),
                };
            ends && op.invoked <= by
        })
    }

    fn ending(&mut self, key: usize, ending: &Ending) {
        let Ok(name) = Key::new(&ending.keys[key]) else { return };
        let homes = ending.homes.get(key).cloned().unwrap_or_default();
        let mut merged: Option<Entry> = None;
        for home in &homes {
            let Some(held) = ending.holdings.get(*home).and_then(|held| held.get(&name)) else {
                continue;
            };
            match &mut merged {
                None => merged = Some(held.clone()),
                Some(merged) => {
                    merged.merge(held);
                }
            }
        }
        for home in &homes {
            let held = ending.holdings.get(*home).and_then(|held| held.get(&name));
            if !is_equal(held, merged.as_ref(), name.as_bytes()) {
                self.fail(
                    "diverged",
                    format!("n{} holds another k{key} than the others", home + 1),
                );
            }
        }
        for node in kept_elsewhere(key, ending) {
            let what = format!("n{} holds k{key}, and is no home of it", node + 1);
            self.fail("kept", what);
        }
        if let Some(entry) = &merged {
            self.entry_was_written(key, entry);
        }
        for op in self.of_key(key) {
            self.write_is_there(op, merged.as_ref(), ending.touches_short_ms);
        }
        for (node, _, outcome) in ending.reads.iter().filter(|(_, of, _)| *of == key) {
            let agrees = match (outcome, &merged) {
                (Outcome::Absent, None) => true,
                (Outcome::Ended, Some(entry)) => entry.is_ended(),
                (Outcome::Read { session, .. }, Some(entry)) => {
                    (session.birth, session.version) == (entry.birth, entry.version)
                        && entry.body.as_ref().is_some_and(|b| b.value(u64::MAX) == session.value)
                }
                _ => false,
            };
            if !agrees {
                let what = format!("in the end n{} answers {outcome:?} for k{key}", node + 1);
                self.fail("stale", what);
            }
        }
    }

    fn entry_was_written(&mut self, key: usize, entry: &Entry) {
        let whose = "in the end".to_owned();
        match &entry.body {
            Some(body) => {
                self.value_was_written(&whose, key, entry.birth, &body.value(0), Duration::MAX);
            }
            None => {
                let ends = self.of_key(key).into_iter().any(|op| {
                    op.is_end()
                        && op.may_have_happened()
                        && match op.acknowledged() {
                            // Done twice, it ended two sessions if the start was done twice.
                            Some((birth, _)) => birth == entry.birth || op.meant().is_none(),
                            None => op.meant().is_none_or(|birth| birth == entry.birth),
                        }
                });
                if !ends {
                    let what = format!("in the end k{key} is a tombstone that nobody asked for");
                    self.fail("phantom", what);
                }
            }
        }
    }

    fn write_is_there(&mut self, op: &Op, held: Option<&Entry>, touches_short_ms: u64) {
        let Some((birth, version)) = op.acknowledged() else { return };
        let (id, key) = (op.id, op.key);
        let at = op.returned.unwrap_or_default();
        let entry = match held {
            None => {
                return self.fail("lost", format!("#{id} ({at:?}): nobody holds k{key} any more"));
            }
            Some(entry) if entry.birth > birth => return,
            Some(entry) if entry.birth < birth => {
                let what = format!("#{id} ({at:?}): k{key} is an older session");
                return self.fail("lost", what);
            }
            Some(entry) => entry,
        };
        let Some(body) = &entry.body else { return };
        let kept = match &op.action {
            Action::End { .. } | Action::EndIf { .. } => {
                return self.fail("revived", format!("#{id} ({at:?}) ended k{key}, which lives"));
            }
            Action::Replace { .. } | Action::CompareAndSet { .. } => body.base.version >= version,
            Action::SetFields { set, delete, .. } => set.keys().chain(delete).all(|name| {
                body.base.version > version
                    || body.fields.get(name).is_some_and(|field| field.version >= version)
            }),
            Action::Touch { .. } => {
                let invoked_ms = u64::try_from(op.invoked.as_millis()).unwrap_or(0);
                body.touched + TOUCH_SLACK_MS + touches_short_ms >= EPOCH_MS + invoked_ms
            }
            _ => true,
        };
        if !kept {
            self.fail("lost", format!("#{id} ({at:?}): k{key} is without it"));
        }
    }
}

/// The nodes that hold a key without being its homes, though it has as many of those as it should.
fn kept_elsewhere(key: usize, ending: &Ending) -> Vec<usize> {
    let homes = ending.homes.get(key).map_or(&[][..], Vec::as_slice);
    let Some(name) = Key::new(&ending.keys[key]).ok().filter(|_| homes.len() == ending.replicas)
    else {
        return Vec::new();
    };
    let holds = |node: &usize| ending.holdings.get(*node).is_some_and(|it| it.contains_key(&name));
    ending.up.iter().copied().filter(|node| !homes.contains(node)).filter(holds).collect()
}

/// The round trip between two sites that were in contact all the time.
fn in_contact(
    epochs: &[Epoch],
    one: usize,
    other: usize,
    from: Duration,
    until: Duration,
) -> Option<Duration> {
    // What ends at the very instant at which contact does may be what ended it.
    let epoch = epochs.iter().find(|epoch| epoch.settled <= from && until < epoch.until)?;
    let together = |group: &BTreeSet<usize>| group.contains(&one) && group.contains(&other);
    epoch.groups.iter().any(together).then_some(epoch.round_trip)
}

/// Whether two copies are the same, but for a touch on its way.
pub(crate) fn is_equal(one: Option<&Entry>, other: Option<&Entry>, key: &[u8]) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.digest(key) == other.digest(key),
        _ => false,
    }
}

fn number_of(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(bytes[..end].strip_prefix(b"w")?).ok()?.parse().ok()
}
