//! Values that an application joins: what two writes of one session become, where neither is to be lost.
//!
//! The application's call-back is not believed. What a copy becomes is decided by [`ValueMerge::join`], which
//! asks it for the two values in the order of their bytes, so that the answer is the same on every node, and takes
//! what it says for a join only if it contains both: joining either of them to it once more changes nothing.
//! So two nodes that exchange what they hold are even after one exchange, whatever the call-back does. What it
//! cannot join, or not within bounds, is decided as anywhere else: the later write stays. That is counted.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annulus_proto::entry::Join;
use annulus_proto::limits::MERGE_NAME_BYTES_MAX;
use annulus_proto::message::{Failure, Message};
use annulus_proto::{Entry, NodeId, Value, Version};

use super::io::Notice;
use super::{Core, TablePolicy};

/// How the values of a table are joined, by a call-back of the application that embeds the node.
///
/// Within one birth a write is joined with what is stored instead of replacing it, on its coordinator and wherever
/// two copies meet. All values are strings of bytes; such a table takes no maps.
///
/// The call-back must be
/// - **commutative, associative and idempotent**: sets that grow, maximums, maps of such;
/// - **a pure function**, the same on every node of the cluster, in every version of the application: its name
///   stands for that. Nodes that have another one for a table, or none, exchange nothing of it and say so;
/// - **total**: clients write what they like, and it is called with all of that;
/// - **bounded**: what it makes of two values has at most twice the table's `max_value`, and a write whose outcome
///   has more than `max_value` is refused;
/// - **quick**: requests of the core's other sessions wait meanwhile. It is called up to three times for two values
///   that differ.
///
/// If it is not, no node fails, and none takes more memory; a write is refused, or of two copies that meet
/// the later write stays alone, and counters say how often (`merges_panicked`, `merges_too_large`, `merges_unlawful`).
/// A panic is caught, where panics unwind.
#[derive(Clone)]
pub struct ValueMerge {
    name: String,
    merge: Arc<MergeFn>,
}

/// See [`ValueMerge`].
type MergeFn = dyn Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync;

/// A name that a table's merge cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a merge cannot be named {0:?}: take 1 to {MERGE_NAME_BYTES_MAX} of the characters a-z A-Z 0-9 - _ ."
)]
pub struct ValueMergeError(String);

/// Why two values were not joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unjoined {
    /// The call-back panicked.
    Panicked,
    /// It made something of this size of them.
    TooLarge(usize),
    /// What it made of them does not contain both.
    Unlawful,
}

/// How often values were not joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnjoinedCounts {
    pub(super) panicked: u64,
    pub(super) too_large: u64,
    pub(super) unlawful: u64,
}

/// Between a table's name and its merge's where nodes talk to each other: no name has it.
const SEPARATOR: char = '+';

impl ValueMerge {
    /// A merge of this name, which is to change with what it does.
    ///
    /// ```
    /// # use annulus_node::ValueMerge;
    /// // The greatest string of bytes that was ever written.
    /// let greatest = ValueMerge::new("greatest-1", |one, other| one.max(other).to_vec());
    /// assert_eq!(greatest.unwrap().name(), "greatest-1");
    /// ```
    ///
    /// # Errors
    /// [`ValueMergeError`], if it cannot be named so.
    pub fn new(
        name: impl Into<String>,
        merge: impl Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, ValueMergeError> {
        let name = name.into();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > MERGE_NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(ValueMergeError(name));
        }
        Ok(Self { name, merge: Arc::new(merge) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What two values become: at most `limit` bytes that contain both.
    pub(super) fn join(&self, one: &[u8], other: &[u8], limit: usize) -> Result<Vec<u8>, Unjoined> {
        let joined = self.call(one, other, limit)?;
        // If it is one of the two, it was just joined to the other.
        let is_one_of_them = joined == one || joined == other;
        if !is_one_of_them
            && (self.call(&joined, one, limit)? != joined
                || self.call(&joined, other, limit)? != joined)
        {
            return Err(Unjoined::Unlawful);
        }
        Ok(joined)
    }

    fn call(&self, one: &[u8], other: &[u8], limit: usize) -> Result<Vec<u8>, Unjoined> {
        let (lesser, greater) = if one <= other { (one, other) } else { (other, one) };
        // Nothing of the core is seen by it.
        let called = catch_unwind(AssertUnwindSafe(|| (self.merge)(lesser, greater)));
        match called {
            Err(_) => Err(Unjoined::Panicked),
            Ok(joined) if joined.len() > limit => Err(Unjoined::TooLarge(joined.len())),
            Ok(joined) => Ok(joined),
        }
    }
}

impl fmt::Debug for ValueMerge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValueMerge").field(&self.name).finish()
    }
}

/// The same name is the same merge.
impl PartialEq for ValueMerge {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl UnjoinedCounts {
    fn add(&mut self, why: Unjoined) {
        match why {
            Unjoined::Panicked => self.panicked += 1,
            Unjoined::TooLarge(_) => self.too_large += 1,
            Unjoined::Unlawful => self.unlawful += 1,
        }
    }
}

impl TablePolicy {
    /// The policy under the name that the table has among nodes. One whose values are joined is another
    /// table than one whose values are not, or otherwise: what they hold is never exchanged.
    pub(super) fn among_nodes(mut self) -> Self {
        if let Some(merge) = &self.merge {
            self.name = format!("{}{SEPARATOR}{}", self.name, merge.name);
        }
        self
    }

    /// Makes one entry the join of itself and another, and says whether that changed it.
    pub(super) fn join(
        &self,
        mine: &mut Entry,
        theirs: &Entry,
        unjoined: &mut UnjoinedCounts,
    ) -> bool {
        let Some(merge) = &self.merge else { return mine.merge(theirs) };
        let limit = self.joined_bytes_max();
        let mut join = |one: &[u8], other: &[u8]| {
            let joined = merge.join(one, other, limit);
            joined.inspect_err(|why| unjoined.add(*why)).ok()
        };
        let join: &mut Join<'_> = &mut join;
        mine.merge_by(theirs, join)
    }

    /// Writes a client's value, which is joined with what is there if this table's values are.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] or [`Failure::Refused`], if they cannot be joined; the entry is spoilt.
    pub(super) fn write_value(
        &self,
        entry: &mut Entry,
        version: Version,
        value: Value,
        unjoined: &mut UnjoinedCounts,
    ) -> Result<(), Failure> {
        let Some(merge) = &self.merge else {
            entry.write_value(version, value);
            return Ok(());
        };
        let mut failed = None;
        let limit = self.joined_bytes_max();
        let mut join = |stored: &[u8], written: &[u8]| {
            let joined = merge.join(stored, written, limit);
            joined.inspect_err(|why| failed = Some(*why)).ok()
        };
        entry.write_value_by(version, value, &mut join);
        let Some(why) = failed else { return Ok(()) };
        unjoined.add(why);
        Err(match why {
            Unjoined::TooLarge(size) => {
                Failure::TooLarge { size: size as u64, limit: self.max_value.into() }
            }
            Unjoined::Panicked | Unjoined::Unlawful => Failure::Refused(format!(
                "the merge {:?} of table {:?} cannot join this value with the stored one",
                merge.name,
                name_among_clients(&self.name)
            )),
        })
    }

    /// What two values within bounds, written on two sides of a partition, may become.
    fn joined_bytes_max(&self) -> usize {
        2 * self.max_value as usize
    }
}

/// A table's name among clients, of the one among nodes.
pub(super) fn name_among_clients(name: &str) -> &str {
    name.split_once(SEPARATOR).map_or(name, |(name, _)| name)
}

/// The name of the merge of a table with this name among nodes.
pub(super) fn merge_of(name: &str) -> Option<&str> {
    name.split_once(SEPARATOR).map(|(_, merge)| merge)
}

/// Whether these are names, among nodes, of one table whose values are merged in two ways.
pub(super) fn differ_in_merge(ours: &str, theirs: &str) -> bool {
    ours != theirs && name_among_clients(ours) == name_among_clients(theirs)
}

impl Core {
    /// Notes what another node speaks of a table that is here, and whose values it joins otherwise: whoever runs
    /// the cluster has to hear of that, once for each of them.
    pub(super) fn note_merge(&mut self, node: NodeId, message: &Message) {
        let theirs = match message {
            Message::Replicate(request) => &request.table,
            Message::Rewrite(request) => &request.copy.table,
            Message::Copies(request) => &request.table,
            Message::SketchRequest(request) => &request.table,
            Message::SessionRequest(request) => &request.table,
            _ => return,
        };
        if self.table_named(theirs).is_some() || self.standing.view.get(node).is_none() {
            return;
        }
        let mut ours = self.tables.iter().map(|table| &table.store.policy().name);
        let Some(ours) = ours.find(|ours| differ_in_merge(ours, theirs)) else { return };
        let table = name_among_clients(ours).to_owned();
        let merge = |name: &str| merge_of(name).map(str::to_owned);
        let (ours, theirs) = (merge(ours), merge(theirs));
        self.counters.add("requests_of_other_merges");
        if self.other_merges.insert((node, table.clone())) {
            self.notify(Notice::OtherMerge { node, table, ours, theirs });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use annulus_proto::{Attributes, Hlc};

    use super::*;

    fn union(one: &[u8], other: &[u8]) -> Vec<u8> {
        let all: BTreeSet<u8> = one.iter().chain(other).copied().collect();
        all.into_iter().collect()
    }

    fn merge(of: impl Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync + 'static) -> ValueMerge {
        ValueMerge::new("m", of).unwrap()
    }

    #[test]
    fn a_merge_has_a_name_that_no_tables_name_runs_into() {
        for name in ["", "a+b", "a b", "ä", &"x".repeat(MERGE_NAME_BYTES_MAX + 1)] {
            let error = ValueMerge::new(name, union).unwrap_err();
            assert!(error.to_string().contains("1 to 31"), "{error}");
        }
        assert!(ValueMerge::new("x".repeat(MERGE_NAME_BYTES_MAX), union).is_ok());
    }

    #[test]
    fn what_is_joined_contains_both() {
        let union = merge(union);
        assert_eq!(union.join(b"ab", b"bc", 9), Ok(b"abc".to_vec()));
        assert_eq!(union.join(b"abc", b"bc", 9), Ok(b"abc".to_vec()));
        assert_eq!(union.join(b"ab", b"bc", 2), Err(Unjoined::TooLarge(3)));
    }

    #[test]
    fn what_is_no_join_is_none() {
        let sum = merge(|one, other| vec![one[0] + other[0]]);
        assert_eq!(sum.join(&[1], &[2], 9), Err(Unjoined::Unlawful));
        let glue = merge(|one, other| [one, other].concat());
        assert_eq!(glue.join(b"a", b"b", 9), Err(Unjoined::Unlawful));
        assert_eq!(glue.join(&[1; 40], &[2; 40], 64), Err(Unjoined::TooLarge(80)));
        let panics = merge(|_, _| panic!("no"));
        assert_eq!(panics.join(b"a", b"b", 9), Err(Unjoined::Panicked));
    }

    /// Whatever it does: each takes the other's in, and then they are even.
    #[test]
    fn two_copies_are_even_after_one_exchange_whatever_the_call_back_does() {
        let lawless: Vec<ValueMerge> = vec![
            merge(|one, other| vec![one[0].wrapping_sub(other[0])]),
            merge(|one, other| [one, other].concat()),
            merge(|one, _| one.to_vec()),
            merge(|one, other| if one[0] % 3 == 0 { other.to_vec() } else { vec![7] }),
            merge(|one, other| if one[0] == 1 { panic!("no") } else { union(one, other) }),
        ];
        for merge in lawless {
            let policy = TablePolicy { merge: Some(merge), max_value: 8, ..TablePolicy::default() };
            for one in 0..6u8 {
                for other in 0..6u8 {
                    let entry = |value: u8, ms: u64| {
                        let at = |ms| Version::new(Hlc::from_ms(ms), NodeId::from_bits(1));
                        let (attributes, empty) = (Attributes::default(), Value::Bytes(vec![]));
                        let mut entry = Entry::start(at(1), empty, (0, 0), attributes, 1);
                        entry.write_value(at(ms), Value::Bytes(vec![value]));
                        entry
                    };
                    let (a, b) = (entry(one, 2), entry(other, 3));
                    let mut counts = UnjoinedCounts::default();
                    let (mut at_b, mut at_a) = (b.clone(), a.clone());
                    policy.join(&mut at_b, &a, &mut counts);
                    // What was answered.
                    policy.join(&mut at_a, &at_b, &mut counts);
                    assert_eq!(at_a, at_b, "{one} {other}");
                    assert!(!policy.join(&mut at_b, &at_a, &mut counts));
                }
            }
        }
    }
}
