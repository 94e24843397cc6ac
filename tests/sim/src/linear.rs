//! Whether what the clients of one key were told fits some order of its conditional operations.
//!
//! The search of Wing and Gong (1993) in the order of events, as Lowe does it (*Testing for
//! linearizability*, 2017): of all that is under way, whatever may have taken effect by now, in every
//! order. An operation takes effect once between its call and its answer; one whose outcome is unknown
//! may take effect at any later time, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::Version;

use crate::history::{Action, Op, Outcome};

/// What lives under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Absent,
    Live { birth: Write, last: Write },
    Ended,
}

/// The write of an operation, by its place, and its version as far as that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    op: usize,
    version: Option<Version>,
}

/// What may be true: the state, and which of those under way have taken effect.
type Config = (State, Taken);

/// Some of the operations under way, by their seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Taken([u64; SEATS / 64]);

/// Operations that may be under way at a time; with more, the search is given up.
const SEATS: usize = 512;

/// More than this many at a time, and the search is given up.
const CONFIGS_MAX: usize = 100_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An order in which everything makes sense.
    Order,
    /// There is none: by the answer of this operation at the latest.
    None(usize),
    /// Too many orders to look at.
    TooMany,
}

/// Searches for an order of the operations of one key: conditional ones, and ends that name a birth.
#[must_use]
pub fn search(ops: &[&Op]) -> Found {
    let ops: Vec<&Op> = ops.iter().copied().filter(|op| is_of_interest(op)).collect();
    let owned: BTreeSet<Version> = ops.iter().filter_map(|op| Some(op.acknowledged()?.1)).collect();
    // Answers before calls, so that what met at one instant is not taken for concurrent.
    let mut events: Vec<(Duration, bool, usize)> = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        events.push((op.invoked, true, place));
        if let Some(returned) = op.returned.filter(|_| is_known(op)) {
            events.push((returned, false, place));
        }
    }
    events.sort_unstable();
    let mut configs: BTreeSet<Config> = BTreeSet::from([(State::Absent, Taken::default())]);
    // Those under way, by their places, and the seats that nobody has.
    let (mut under_way, mut free) = (BTreeMap::new(), (0..SEATS).collect::<Vec<_>>());
    for (_, begins, place) in events {
        if begins {
            let Some(seat) = free.pop() else { return Found::TooMany };
            under_way.insert(place, seat);
            continue;
        }
        let seat = under_way[&place];
        let mut open: Vec<Config> = configs.iter().copied().collect();
        while let Some((state, taken)) = open.pop() {
            if taken.has(seat) {
                continue;
            }
            for (next, seat) in under_way.iter().filter(|(_, seat)| !taken.has(**seat)) {
                let Some(after) = step(state, *next, ops[*next], &owned) else {
                    continue;
                };
                let config = (after, taken.with(*seat));
                if configs.insert(config) {
                    open.push(config);
                }
            }
            if configs.len() > CONFIGS_MAX {
                return Found::TooMany;
            }
        }
        under_way.remove(&place);
        free.push(seat);
        let after = configs.into_iter().filter(|(_, taken)| taken.has(seat));
        configs = after.map(|(state, taken)| (state, taken.without(seat))).collect();
        if configs.is_empty() {
            return Found::None(ops[place].id);
        }
    }
    Found::Order
}

impl Taken {
    fn has(self, seat: usize) -> bool {
        self.0[seat / 64] & 1 << (seat % 64) != 0
    }

    fn with(mut self, seat: usize) -> Self {
        self.0[seat / 64] |= 1 << (seat % 64);
        self
    }

    fn without(mut self, seat: usize) -> Self {
        self.0[seat / 64] &= !(1 << (seat % 64));
        self
    }
}

fn is_of_interest(op: &Op) -> bool {
    let is_asked = op.is_conditional() || matches!(op.action, Action::End { birth: Some(_) });
    let is_void =
        op.is_conditional() && matches!(op.outcome, Outcome::Unavailable(_) | Outcome::Refused(_));
    is_asked && !is_void
}

/// Whether the answer says what became of it.
fn is_known(op: &Op) -> bool {
    !matches!(op.outcome, Outcome::Unknown | Outcome::Unavailable(_) | Outcome::Refused(_))
}

/// The state after an operation that took effect in this one; `None` if its answer does not fit that.
fn step(state: State, place: usize, op: &Op, owned: &BTreeSet<Version>) -> Option<State> {
    let version = op.acknowledged().map(|(_, version)| version);
    let mine = Write { op: place, version };
    let done = version.is_some() || !is_known(op);
    // The version of a write whose client was not told it may be any that nobody was told.
    let fits = |write: Write, seen: Version| match write.version {
        Some(version) => version == seen,
        None => !owned.contains(&seen),
    };
    let named = |write: Write, seen: Version| Write { version: Some(seen), ..write };
    match (&op.action, state, &op.outcome) {
        (Action::StartIfAbsent(_), State::Absent | State::Ended, _) if done => {
            Some(State::Live { birth: mine, last: mine })
        }
        (Action::CompareAndSet { version, .. }, State::Live { birth, last }, _)
            if done && fits(last, *version) =>
        {
            Some(State::Live { birth, last: mine })
        }
        (Action::EndIf { version }, State::Live { last, .. }, _)
            if done && fits(last, *version) =>
        {
            Some(State::Ended)
        }
        // Told *ended*, it may have found its own work done: the client repeats it until it is answered.
        (Action::End { birth: Some(meant) }, State::Live { birth, .. }, outcome)
            if fits(birth, *meant) =>
        {
            (*outcome != Outcome::Absent).then_some(State::Ended)
        }
        // Another session lives there, or none: it had ended before.
        (Action::End { birth: Some(_) }, state, outcome) => {
            (*outcome != Outcome::Absent || state == State::Absent).then_some(state)
        }
        (action, State::Live { birth, last }, Outcome::Conflict { version }) => {
            let expected = action.expected();
            (fits(last, *version) && expected != Some(*version)).then(|| {
                let birth = if birth == last { named(birth, *version) } else { birth };
                State::Live { birth, last: named(last, *version) }
            })
        }
        (_, State::Absent, Outcome::Absent) | (_, State::Ended, Outcome::Ended) => Some(state),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::{Hlc, NodeId, Value};

    use super::*;

    fn version(ms: u64) -> Version {
        Version::new(Hlc::from_ms(ms), NodeId::from_bits(1))
    }

    fn op(id: usize, at: (u64, u64), action: Action, outcome: Outcome) -> Op {
        Op {
            id,
            client: "c1".to_owned(),
            site: 0,
            key: 0,
            action,
            invoked: Duration::from_millis(at.0),
            returned: Some(Duration::from_millis(at.1)),
            outcome,
        }
    }

    fn done(birth: u64, at: u64) -> Outcome {
        Outcome::Acknowledged { birth: version(birth), version: version(at) }
    }

    fn value() -> Value {
        Value::Bytes(Vec::new())
    }

    fn cas(expected: u64) -> Action {
        Action::CompareAndSet { version: version(expected), value: value() }
    }

    fn searched(ops: &[Op]) -> Found {
        search(&ops.iter().collect::<Vec<_>>())
    }

    #[test]
    fn two_that_were_done_on_one_version_have_no_order() {
        let start = op(0, (0, 9), Action::StartIfAbsent(value()), done(1, 1));
        let one = op(1, (10, 19), cas(1), done(1, 2));
        let other = op(2, (10, 19), cas(1), done(1, 3));
        let next = op(3, (10, 19), cas(2), done(1, 3));
        assert_eq!(searched(&[start.clone(), one.clone(), next]), Found::Order);
        assert!(matches!(searched(&[start, one, other]), Found::None(_)));
    }

    #[test]
    fn an_answer_must_not_show_what_was_replaced_before_it_was_asked() {
        let start = op(0, (0, 9), Action::StartIfAbsent(value()), done(1, 1));
        let next = op(1, (10, 19), cas(1), done(1, 2));
        let late =
            |from, seen| op(2, (from, 30), cas(9), Outcome::Conflict { version: version(seen) });
        assert_eq!(searched(&[start.clone(), next.clone(), late(15, 1)]), Found::Order);
        assert_eq!(searched(&[start.clone(), next.clone(), late(20, 2)]), Found::Order);
        assert_eq!(searched(&[start, next, late(20, 1)]), Found::None(2));
    }

    #[test]
    fn what_nobody_knows_may_take_effect_late_or_never_but_once() {
        let start = op(0, (0, 9), Action::StartIfAbsent(value()), done(1, 1));
        let unknown = op(1, (10, 19), cas(1), Outcome::Unknown);
        let conflict = |id, from, seen| {
            op(id, (from, from + 9), cas(9), Outcome::Conflict { version: version(seen) })
        };
        let (before, after) = (conflict(2, 20, 1), conflict(3, 30, 2));
        let ops = [start.clone(), unknown.clone(), before.clone(), after.clone()];
        assert_eq!(searched(&ops), Found::Order);
        let back = conflict(4, 40, 1);
        assert_eq!(searched(&[start, unknown, before, after, back]), Found::None(4));
    }

    #[test]
    fn an_end_that_nobody_knows_of_may_come_up_while_its_condition_holds() {
        let start = op(0, (0, 9), Action::StartIfAbsent(value()), done(1, 1));
        let end = op(1, (10, 19), Action::EndIf { version: version(1) }, Outcome::Unknown);
        let late = op(3, (30, 39), cas(1), Outcome::Ended);
        assert_eq!(searched(&[start.clone(), end.clone(), late.clone()]), Found::Order);
        let next = op(2, (20, 29), cas(1), done(1, 2));
        assert_eq!(searched(&[start, end, next, late]), Found::None(3));
    }

    #[test]
    fn an_ended_session_stays_ended_and_another_may_start() {
        let start = op(0, (0, 9), Action::StartIfAbsent(value()), done(1, 1));
        let end = op(1, (10, 19), Action::EndIf { version: version(1) }, done(1, 2));
        let late = op(2, (20, 29), cas(1), Outcome::Ended);
        let again = op(3, (30, 39), Action::StartIfAbsent(value()), done(3, 3));
        let all = [start.clone(), end.clone(), late, again];
        assert_eq!(searched(&all), Found::Order);
        let revived = op(4, (20, 29), cas(1), done(1, 4));
        assert_eq!(searched(&[start, end, revived]), Found::None(4));
    }
}
