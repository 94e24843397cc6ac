use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;
use crate::arbitrary::{few_entries, greatest, version};

fn join(entries: impl IntoIterator<Item = Entry>) -> Option<Entry> {
    entries.into_iter().reduce(|mut joined, entry| {
        joined.merge(&entry);
        joined
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn merging_is_commutative(a in few_entries(), b in few_entries()) {
        prop_assert_eq!(join([a.clone(), b.clone()]), join([b, a]));
    }

    #[test]
    fn merging_is_associative(a in few_entries(), b in few_entries(), c in few_entries()) {
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        let mut right = b;
        right.merge(&c);
        let mut whole = a;
        whole.merge(&right);
        prop_assert_eq!(left, whole);
    }

    #[test]
    fn merging_is_idempotent(a in few_entries(), b in few_entries()) {
        let mut merged = a.clone();
        prop_assert!(!merged.merge(&a));
        prop_assert_eq!(&merged, &a);
        merged.merge(&b);
        let before = merged.clone();
        prop_assert!(!merged.merge(&a));
        prop_assert!(!merged.merge(&b));
        prop_assert_eq!(merged, before);
    }

    #[test]
    fn merge_is_true_exactly_when_it_changed_something(a in few_entries(), b in few_entries()) {
        let mut merged = a.clone();
        let changed = merged.merge(&b);
        prop_assert_eq!(changed, merged != a);
    }

    #[test]
    fn what_is_merged_stays_well_formed(a in few_entries(), b in few_entries()) {
        let mut merged = a;
        merged.merge(&b);
        prop_assert_eq!(merged.check(), Ok(()));
        if let Some(body) = &merged.body {
            prop_assert_eq!(merged.version, greatest(body));
        }
    }

    #[test]
    fn merging_never_goes_back_in_the_order(a in few_entries(), b in few_entries()) {
        let order = |entry: &Entry| (entry.birth, entry.is_ended());
        let mut merged = a.clone();
        merged.merge(&b);
        prop_assert_eq!(order(&merged), order(&a).max(order(&b)));
        let touched = |entry: &Entry| entry.body.as_ref().map_or(u64::MAX, |body| body.touched);
        if merged.birth == a.birth {
            prop_assert!(touched(&merged) >= touched(&a));
        }
    }

    #[test]
    fn a_touch_never_lowers(mut entry in few_entries(), now_ms in 0..4u64) {
        let before = entry.clone();
        let news = entry.touch(now_ms);
        prop_assert_eq!(news, entry != before);
        if let (Some(after), Some(before)) = (&entry.body, &before.body) {
            prop_assert_eq!(after.touched, before.touched.max(now_ms));
        }
    }
}

/// The bytes that are in one of the values, in ascending order: a set that only grows.
fn union(one: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let all: std::collections::BTreeSet<u8> = one.iter().chain(other).copied().collect();
    Some(all.into_iter().collect())
}

/// Entries without maps, of which some share a version though their values differ, as copies do that lack
/// different writes.
fn few_sets() -> impl Strategy<Value = Entry> {
    (few_entries(), vec(0..4u8, 0..3)).prop_map(|(mut entry, bytes)| {
        if let Some(body) = &mut entry.body {
            (body.base.kind, body.base.bytes) = (Kind::Bytes, union(&bytes, &[]).unwrap());
            body.fields.clear();
            entry.version = greatest(body);
        }
        entry
    })
}

fn joined(entries: &[&Entry]) -> Entry {
    let mut joined = entries[0].clone();
    for entry in &entries[1..] {
        joined.merge_by(entry, &mut union);
    }
    joined
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn values_that_are_joined_are_a_semilattice(
        a in few_sets(), b in few_sets(), c in few_sets(),
    ) {
        prop_assert_eq!(joined(&[&a, &b]), joined(&[&b, &a]));
        let (left, right) = (joined(&[&a, &b]), joined(&[&b, &c]));
        let whole = joined(&[&left, &c]);
        prop_assert_eq!(&whole, &joined(&[&a, &right]));
        prop_assert_eq!(whole.check(), Ok(()));
        for part in [&a, &b, &c] {
            let mut again = whole.clone();
            prop_assert!(!again.merge_by(part, &mut union));
            prop_assert_eq!(&again, &whole);
        }
        let mut merged = a.clone();
        let changed = merged.merge_by(&b, &mut union);
        prop_assert_eq!(changed, merged != a);
    }
}

#[test]
fn values_that_are_joined_lose_nothing_within_one_birth_and_nothing_outlives_its_birth() {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let start = started(version(1, 1), bytes(b"a"));
    let (mut left, mut right) = (start.clone(), start.clone());
    left.write_value_by(version(2, 1), bytes(b"b"), &mut union);
    right.write_value_by(version(3, 1), bytes(b"c"), &mut union);
    assert_eq!(left.body.as_ref().unwrap().base.bytes, b"ab");
    let later = right.clone();
    assert!(right.merge_by(&left, &mut union));
    assert_eq!(right.body.as_ref().unwrap().base.bytes, b"abc");
    assert_eq!(right.version, later.version, "the value is another one, and the version is not");
    assert_eq!(right.digest(b"key"), later.digest(b"key"));
    assert_ne!(right.digest_with_value(b"key"), later.digest_with_value(b"key"));
    // A late write of a lower version counts, too.
    let mut late = start.clone();
    late.write_value_by(version(2, 0), bytes(b"d"), &mut union);
    assert!(right.merge_by(&late, &mut union));
    assert_eq!(right.body.as_ref().unwrap().base.bytes, b"abcd");
    // What cannot be joined is as anywhere: the later write stays.
    left.write_value_by(version(4, 1), bytes(b"x"), &mut |_, _| None);
    assert_eq!(left.body.as_ref().unwrap().base.bytes, b"x");
    let next = started(version(5, 1), bytes(b"e"));
    assert!(right.merge_by(&next, &mut union));
    assert_eq!(right, next);
    let end = Entry::ended(version(5, 1), version(6, 1));
    assert!(right.merge_by(&end, &mut union));
    assert!(!right.merge_by(&next, &mut union));
    assert_eq!(right.digest_with_value(b"key"), right.digest(b"key"));
}

/// A write of one session.
#[derive(Clone, Debug)]
enum Write {
    Value(Value),
    Field(Vec<u8>, Option<Vec<u8>>),
    Lease(u64, u64),
    Pin(Option<u64>),
    Touch(u64),
    End,
    Start(Value),
}

impl Write {
    /// What a coordinator that holds `entry` makes of it.
    fn apply(&self, entry: &mut Entry, version: Version) {
        match self.clone() {
            Self::Value(value) => entry.write_value(version, value),
            Self::Field(name, value) => entry.write_field(version, name, value),
            Self::Lease(idle, expire_at) => entry.write_lease(version, idle, expire_at),
            Self::Pin(node) => entry.write_pin(version, node.map(NodeId::from_bits)),
            Self::Touch(now_ms) => drop(entry.touch(now_ms)),
            Self::End => drop(entry.merge(&Entry::ended(entry.birth, version))),
            Self::Start(value) => drop(entry.merge(&started(version, value))),
        }
    }
}

fn started(version: Version, value: Value) -> Entry {
    Entry::start(version, value, (160, 0), Attributes::default(), version.hlc.ms())
}

fn values() -> impl Strategy<Value = Value> {
    let field = ((0..3u8).prop_map(|name| vec![name]), vec(any::<u8>(), 0..2));
    prop_oneof![
        vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
        vec(field, 0..3).prop_map(|fields| Value::Map(fields.into_iter().collect())),
    ]
}

fn writes_of_one_birth() -> impl Strategy<Value = Write> {
    let name = (0..3u8).prop_map(|name| vec![name]);
    prop_oneof![
        2 => values().prop_map(Write::Value),
        4 => (name, any::<Option<[u8; 1]>>())
            .prop_map(|(name, value)| Write::Field(name, value.map(Into::into))),
        1 => (0..200u64, 0..200u64).prop_map(|(idle, expire_at)| Write::Lease(idle, expire_at)),
        1 => any::<Option<u8>>().prop_map(|node| Write::Pin(node.map(u64::from))),
        1 => (0..200u64).prop_map(Write::Touch),
    ]
}

fn writes() -> impl Strategy<Value = Write> {
    prop_oneof![
        8 => writes_of_one_birth(),
        1 => Just(Write::End),
        1 => values().prop_map(Write::Start),
    ]
}

/// What three homes send each other while a history of writes happens at them: their copies after
/// each write, some of which had news of the others before. Stamps are later than what is stored.
fn copies() -> impl Strategy<Value = Vec<Entry>> {
    let step = (writes(), 0..3usize, any::<Option<Index>>());
    vec(step, 1..12).prop_map(|steps| {
        let first = started(version(1, 0), Value::Bytes(b"first".into()));
        let mut homes = [first.clone(), first.clone(), first.clone()];
        let mut sent = vec![first];
        for (at, (write, home, news)) in steps.into_iter().enumerate() {
            if let Some(news) = news {
                homes[home].merge(news.get(&sent));
            }
            // Clocks differ: node 0 is ahead of the others, and a stamp beats what is stored.
            let clock = Hlc::from_ms(2 + at as u64 + if home == 0 { 3 } else { 0 });
            let hlc = clock.max(homes[home].version.hlc.next());
            write.apply(&mut homes[home], Version::new(hlc, NodeId::from_bits(home as u64)));
            sent.push(homes[home].clone());
        }
        sent
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn writes_in_any_order_and_number_give_equal_entries(
        (writes, shuffled) in vec(writes_of_one_birth(), 1..10).prop_flat_map(|writes| {
            let writes: Vec<(usize, Write)> = writes.into_iter().enumerate().collect();
            let twice = [writes.clone(), writes.clone()].concat();
            (Just(writes), Just(twice).prop_shuffle())
        }),
    ) {
        let first = started(version(1, 0), Value::Bytes(b"first".into()));
        let apply = |writes: Vec<(usize, Write)>| {
            let mut entry = first.clone();
            for (at, write) in writes {
                write.apply(&mut entry, version(2 + at as u64, 0));
                assert_eq!(entry.check(), Ok(()));
            }
            entry
        };
        let (once, often) = (apply(writes), apply(shuffled));
        prop_assert_eq!(once.digest(b"key"), often.digest(b"key"));
        prop_assert_eq!(once, often);
    }

    #[test]
    fn copies_that_took_the_same_writes_by_any_route_are_equal(
        (copies, shuffled) in copies().prop_flat_map(|copies| {
            let twice = [copies.clone(), copies.clone()].concat();
            (Just(copies), Just(twice).prop_shuffle())
        }),
    ) {
        let (one, other) = (join(copies).unwrap(), join(shuffled).unwrap());
        prop_assert_eq!(one.digest(b"key"), other.digest(b"key"));
        prop_assert_eq!(one, other);
    }

    /// Over what nodes that stamp each write once can hold, and up to the rounding of touches.
    #[test]
    fn digests_are_equal_exactly_when_entries_are(
        (some, others) in copies().prop_flat_map(|copies| {
            let count = copies.len();
            (subsequence(copies.clone(), 1..=count), subsequence(copies, 1..=count))
        }),
    ) {
        let rounded = |copies: Vec<Entry>| {
            let mut entry = join(copies).unwrap();
            let digest = entry.digest(b"key");
            if let Some(body) = &mut entry.body {
                body.touched = body.touched.checked_div(body.lease.idle.div_ceil(16)).unwrap_or(0);
            }
            (entry, digest)
        };
        let ((one, one_digest), (other, other_digest)) = (rounded(some), rounded(others));
        prop_assert_eq!(one == other, one_digest == other_digest);
    }
}

#[test]
fn a_newer_birth_replaces_everything_older_tombstones_included() {
    let old = started(version(1, 1), Value::Bytes(b"old".into()));
    let new = started(version(5, 1), Value::Bytes(b"new".into()));
    let ended = Entry::ended(old.birth, version(9, 9));
    for older in [old, ended] {
        let mut merged = older.clone();
        assert!(merged.merge(&new));
        assert_eq!(merged, new);
        assert!(!merged.merge(&older));
        assert_eq!(merged, new);
    }
}

#[test]
fn a_tombstone_wins_within_its_birth_over_later_writes_too() {
    let session = started(version(1, 1), Value::Bytes(b"value".into()));
    let mut late = session.clone();
    late.write_value(version(9, 1), Value::Bytes(b"late".into()));
    late.write_lease(version(9, 2), 0, 0);
    late.touch(1_000);
    let ended = Entry::ended(session.birth, version(2, 1));
    for mut copy in [session, late.clone()] {
        assert!(copy.merge(&ended));
        assert_eq!(copy, ended);
        assert!(!copy.merge(&late));
        copy.write_value(version(10, 1), Value::Bytes(b"later".into()));
        copy.write_field(version(10, 1), b"f".to_vec(), Some(b"later".to_vec()));
        assert!(!copy.touch(2_000));
        assert_eq!(copy, ended);
    }
}

#[test]
fn a_proposed_end_counts_while_nothing_is_written_after_it_and_is_no_end() {
    let before = started(version(1, 1), Value::Bytes(vec![1]));
    let mut ending = before.clone();
    ending.propose_end(version(3, 1));
    assert!(ending.is_ending() && !ending.is_ended() && ending.check().is_ok());
    assert_eq!(ending.version, version(3, 1));
    assert_ne!(ending.digest(b"key"), before.digest(b"key"));
    let mut merged = before.clone();
    assert!(merged.merge(&ending) && merged.is_ending());
    merged.touch(9);
    assert!(merged.is_ending());
    // Whoever did not know of it wrote in the meantime.
    let mut later = before;
    later.write_value(version(4, 1), Value::Bytes(vec![2]));
    assert!(later.merge(&ending) && !later.is_ending());
    assert_eq!(later.body.as_ref().map(|body| body.base.bytes.clone()), Some(vec![2]));
    assert!(ending.merge(&later) && !ending.is_ending());
    ending.propose_end(version(5, 1));
    assert!(ending.is_ending());
}

fn map(fields: &[(&str, &str)]) -> Value {
    let pair = |&(name, value): &(&str, &str)| (name.into(), value.into());
    Value::Map(fields.iter().map(pair).collect())
}

#[test]
fn two_writers_keep_each_others_fields() {
    let start = started(version(1, 1), map(&[("cart", "0"), ("user", "ada")]));
    let (mut left, mut right) = (start.clone(), start);
    left.write_field(version(2, 1), b"cart".to_vec(), Some(b"3".to_vec()));
    right.write_field(version(2, 2), b"flash".to_vec(), Some(b"hi".to_vec()));
    assert!(left.merge(&right));
    let expected = map(&[("cart", "3"), ("flash", "hi"), ("user", "ada")]);
    assert_eq!(left.body.as_ref().unwrap().value(0), expected);
    assert_eq!(left.version, version(2, 2));
}

#[test]
fn a_deleted_field_stays_deleted() {
    let start = started(version(1, 1), map(&[("a", "1"), ("b", "2")]));
    let mut deleted = start.clone();
    deleted.write_field(version(3, 1), b"a".to_vec(), None);
    let mut older = start.clone();
    older.write_field(version(2, 2), b"a".to_vec(), Some(b"9".to_vec()));
    assert!(!deleted.merge(&start));
    deleted.merge(&older);
    assert_eq!(deleted.body.as_ref().unwrap().value(0), map(&[("b", "2")]));
    deleted.write_field(version(4, 2), b"a".to_vec(), Some(b"new".to_vec()));
    assert_eq!(deleted.body.as_ref().unwrap().value(0), map(&[("a", "new"), ("b", "2")]));
}

#[test]
fn a_whole_write_drops_the_fields_before_it_and_keeps_those_after_it() {
    let start = started(version(1, 1), map(&[("a", "1"), ("b", "2")]));
    let mut whole = start.clone();
    whole.write_value(version(5, 1), map(&[("c", "3")]));
    let mut fields = start;
    fields.write_field(version(4, 2), b"a".to_vec(), Some(b"before".to_vec()));
    fields.write_field(version(6, 2), b"b".to_vec(), Some(b"after".to_vec()));
    for (mut one, other) in [(whole.clone(), fields.clone()), (fields, whole)] {
        one.merge(&other);
        assert_eq!(one.body.unwrap().value(0), map(&[("b", "after"), ("c", "3")]));
    }
}

#[test]
fn a_map_turns_into_bytes_and_bytes_into_a_map() {
    let mut entry = started(version(1, 1), map(&[("a", "1")]));
    entry.write_value(version(2, 1), Value::Bytes(b"all".into()));
    assert_eq!(entry.body.as_ref().unwrap().value(0), Value::Bytes(b"all".into()));
    entry.write_field(version(3, 1), b"b".to_vec(), Some(b"2".to_vec()));
    assert_eq!(entry.body.as_ref().unwrap().value(0), map(&[("b", "2")]));
}

#[test]
fn a_field_expires_on_its_own() {
    let mut entry = started(version(1, 1), map(&[("a", "1"), ("b", "2")]));
    let body = entry.body.as_mut().unwrap();
    body.fields.get_mut(b"a".as_slice()).unwrap().expire_at = 100;
    assert_eq!(body.value(99), map(&[("a", "1"), ("b", "2")]));
    assert_eq!(body.value(100), map(&[("b", "2")]));
}

#[test]
fn a_session_expires_at_the_earlier_of_its_deadlines_and_a_touch_moves_one() {
    assert_eq!(deadline(0, 0, 50), 0);
    assert_eq!(deadline(0, 70, 50), 70);
    assert_eq!(deadline(10, 0, 50), 60);
    assert_eq!(deadline(10, 55, 50), 55);
    assert_eq!(deadline(u64::MAX, 0, 50), u64::MAX);
    let value = Value::Bytes(Vec::new());
    let mut entry = Entry::start(version(1, 1), value, (10, 100), Attributes::default(), 50);
    assert!(!entry.is_expired(59));
    assert!(entry.is_expired(60));
    entry.touch(95);
    assert!(!entry.is_expired(99));
    assert!(entry.is_expired(100));
    assert!(!Entry::ended(version(1, 1), version(2, 1)).is_expired(u64::MAX));
    assert_eq!(die_by(Hlc::from_ms(7), 0), 0);
    assert_eq!(die_by(Hlc::from_ms(7), 10), 17);
}

#[test]
fn times_beyond_hybrid_time_are_capped_when_they_are_written() {
    let value = Value::Bytes(Vec::new());
    let lease = (u64::MAX, u64::MAX);
    let mut entry = Entry::start(version(1, 1), value, lease, Attributes::default(), u64::MAX);
    entry.write_lease(version(2, 1), u64::MAX, u64::MAX);
    entry.touch(u64::MAX);
    assert_eq!(entry.check(), Ok(()));
}

#[test]
fn what_is_not_well_formed_says_why() {
    let good = started(version(5, 1), map(&[("a", "1")]));
    assert_eq!(good.check(), Ok(()));
    let wrong = |change: fn(&mut Body)| {
        let mut entry = good.clone();
        change(entry.body.as_mut().unwrap());
        assert!(entry.check().is_err());
    };
    wrong(|body| body.base.version = version(6, 1));
    wrong(|body| body.lease.version = version(6, 1));
    wrong(|body| body.base.bytes = vec![1]);
    wrong(|body| body.touched = 1 << 48);
    wrong(|body| body.lease.idle = 1 << 48);
    wrong(|body| body.lease.expire_at = 1 << 48);
    wrong(|body| body.attributes.owner = vec![0; 256]);
    wrong(|body| body.fields.values_mut().for_each(|field| field.version = version(4, 1)));
    wrong(|body| body.fields.values_mut().for_each(|field| field.version = version(6, 1)));
    wrong(|body| body.fields.values_mut().for_each(|field| field.expire_at = 1 << 48));
    wrong(|body| {
        let field = body.fields.values().next().cloned().unwrap();
        body.fields.insert(vec![0; 1025], field);
    });
    wrong(|body| {
        body.notes.insert(1, Note { version: version(6, 1), bytes: Vec::new() });
    });
    wrong(|body| {
        body.notes.insert(1, Note { version: version(5, 1), bytes: vec![0; 25] });
    });
    wrong(|body| {
        let note = Note { version: version(5, 1), bytes: Vec::new() };
        body.notes.extend((0..6).map(|number| (number, note.clone())));
    });
}

#[test]
fn notes_merge_by_number_and_outlive_the_value() {
    let mut left = started(version(1, 1), map(&[("a", "1")]));
    let mut right = left.clone();
    let note = |ms, bytes: &[u8]| Note { version: version(ms, 1), bytes: bytes.to_vec() };
    left.body.as_mut().unwrap().notes = [(1, note(2, b"old")), (7, note(3, b"kept"))].into();
    left.version = version(3, 1);
    right.body.as_mut().unwrap().notes = [(1, note(4, b"new"))].into();
    right.version = version(4, 1);
    right.write_value(version(5, 1), Value::Bytes(b"whole".into()));
    assert!(left.merge(&right));
    let expected = [(1, note(4, b"new")), (7, note(3, b"kept"))].into();
    assert_eq!(left.body.unwrap().notes, expected);
}

#[test]
fn the_last_pin_counts_and_a_write_of_the_value_leaves_it_alone() {
    let start = started(version(1, 1), map(&[("a", "1")]));
    assert_eq!((start.pin(), start.is_placed()), (None, false));
    let (mut left, mut right) = (start.clone(), start);
    let node = |bits| Some(NodeId::from_bits(bits));
    left.write_pin(version(2, 1), node(7));
    right.write_pin(version(3, 1), node(0xffff_ffff_ffff));
    right.write_value(version(4, 1), Value::Bytes(b"whole".into()));
    assert_eq!(left.pin(), node(7));
    assert_ne!(left.digest(b"key"), right.digest(b"key"));
    assert!(left.merge(&right) && left.is_placed());
    assert_eq!(left.pin(), node(0xffff_ffff_ffff));
    right.write_pin(version(5, 1), None);
    assert!(left.merge(&right));
    assert_eq!((left.pin(), left.is_placed(), left.check()), (None, false, Ok(())));
    left.write_pin(version(2, 9), node(7));
    assert_eq!(left.pin(), None, "an older write");
    left.body.as_mut().unwrap().notes.get_mut(&PIN).unwrap().bytes = vec![1; 7];
    assert_eq!(left.pin(), None, "what is no id is no pin");
}

#[test]
fn the_last_move_says_where_a_session_is_and_is_no_write() {
    let start = started(version(1, 1), map(&[("a", "1")]));
    assert_eq!((start.ring(), start.moved_at(), start.moved_digest()), (0, Version::ZERO, None));
    let digest = |entry: &Entry| entry.digest(b"key");
    let (mut left, mut right) = (start.clone(), start.clone());
    left.move_to(1, version(7, 1), digest);
    right.move_to(2, version(8, 1), digest);
    right.write_value(version(4, 1), Value::Bytes(b"whole".into()));
    assert_eq!((left.version, left.check()), (start.version, Ok(())), "later than the entry");
    assert_eq!(left.moved_digest(), Some(left.digest(b"key")), "of all of it, the move too");
    assert!(left.merge(&right));
    assert_eq!((left.ring(), left.moved_at(), left.version), (2, version(8, 1), version(4, 1)));
    left.move_to(1, version(6, 1), digest);
    assert_eq!(left.ring(), 2, "an earlier move");
    assert_ne!(left.moved_digest(), Some(left.digest(b"key")), "it was written since");
    assert_eq!(Entry::ended(version(1, 1), version(9, 1)).ring(), 0);
}

#[test]
fn a_marker_is_a_copy_that_lacks_the_value() {
    for value in [map(&[("a", "1")]), Value::Bytes(b"whole".into())] {
        let mut entry = started(version(1, 1), value);
        entry.move_to(1, version(2, 1), |entry| entry.digest(b"key"));
        let marker = entry.marker();
        assert!(marker.is_marker() && !entry.is_marker());
        assert_eq!((marker.ring(), marker.check()), (1, Ok(())));
        let mut joined = marker.clone();
        // Not even an application's merge is asked to join something with nothing.
        assert!(joined.merge_by(&entry, &mut |_, _| panic!("there is one value")));
        assert_eq!(joined, entry);
        assert!(!joined.merge(&marker));
        let mut bytes = Vec::new();
        crate::record::write(&marker, &mut bytes);
        let view = crate::record::View::parse(&bytes).unwrap();
        assert!(view.is_marker());
        let mark = crate::record::mark(marker.body.as_ref().unwrap().touched);
        assert_eq!(view.entry(mark), Ok(marker));
    }
    let ended = Entry::ended(version(1, 1), version(2, 1));
    assert!(!ended.is_marker());
    assert_eq!(ended.marker(), ended);
}

#[test]
fn the_last_verdict_counts_and_is_no_write() {
    let started = started(version(5, 1), Value::Bytes(b"value".to_vec()));
    assert_eq!(started.verdict(), None);
    let (suspect, released) =
        (Verdict::Suspect { until: 5_000 }, Verdict::Released { until: Hlc::MS_MAX });
    let (mut first, mut second) = (started.clone(), started.clone());
    first.judge(version(7, 1), suspect);
    second.judge(version(8, 2), released);
    assert_eq!((first.version, first.noted_at()), (started.version, version(7, 1)));
    assert_eq!(first.check(), Ok(()));
    assert_eq!(first.slowed_until(4_999), Some(5_000));
    assert_eq!(first.slowed_until(5_000), None);
    assert_ne!(first.digest(b"key"), started.digest(b"key"));
    let mut bytes = Vec::new();
    crate::record::write(&first, &mut bytes);
    let view = crate::record::View::parse(&bytes).unwrap();
    assert_eq!(view.slowed_until(4_999), Some(5_000));
    assert_eq!(view.slowed_until(5_000), None);
    let mut both = first.clone();
    assert!(both.merge(&second));
    assert!(second.merge(&first) || second == both);
    assert_eq!(both, second);
    assert_eq!(both.verdict(), Some((version(8, 2), released)));
    assert_eq!(both.slowed_until(0), None);
    // A note has 48 bits for it.
    both.judge(version(9, 1), Verdict::Suspect { until: u64::MAX });
    assert_eq!(both.slowed_until(0), Some(Hlc::MS_MAX));
    // What others may write there is none.
    for bytes in [&[][..], &[1; 6], &[3, 1, 0, 0, 0, 0, 0], &[9; 20]] {
        let note = Note { version: version(9, 1), bytes: bytes.to_vec() };
        both.body.as_mut().unwrap().notes.insert(VERDICT, note);
        assert_eq!((both.verdict(), both.noted_at()), (None, version(9, 1)));
    }
    let mut ended = Entry::ended(version(5, 1), version(6, 1));
    ended.judge(version(7, 1), suspect);
    assert_eq!((ended.verdict(), ended.noted_at()), (None, Version::ZERO));
}

#[test]
fn what_a_session_replaces_is_noted_until_that_has_ended() {
    let started = started(version(5, 1), Value::Bytes(b"value".to_vec()));
    assert_eq!(started.replaces(), None);
    let old = Replaced { word: u64::MAX - 7, birth: version(3, (1 << 48) - 2) };
    let mut first = started.clone();
    first.note_replaced(version(5, 1), Some(old));
    assert_eq!((first.replaces(), first.version), (Some(old), started.version));
    assert_eq!(first.check(), Ok(()));
    let parsed = |entry: &Entry| {
        let mut bytes = Vec::new();
        crate::record::write(entry, &mut bytes);
        let view = crate::record::View::parse(&bytes).unwrap();
        assert_eq!(view.entry(0).unwrap().replaces(), entry.replaces());
        (view.may_be_placed(), view.slowed_until(0))
    };
    assert_eq!(parsed(&first), (true, None));
    let mut done = first.clone();
    done.note_replaced(version(9, 2), None);
    assert_eq!((done.replaces(), done.noted_at()), (None, version(9, 2)));
    assert_eq!((done.version, done.check()), (started.version, Ok(())));
    // Nobody has to look closer at it any more, unless there is something else.
    assert_eq!(parsed(&done), (false, None));
    assert!(first.merge(&done) && !done.merge(&first));
    assert_eq!(first, done);
    done.judge(version(9, 1), Verdict::Suspect { until: 5_000 });
    assert_eq!(parsed(&done), (true, Some(5_000)));
    for bytes in [&[][..], &[1; 21], &[1; 23]] {
        let note = Note { version: version(9, 2), bytes: bytes.to_vec() };
        first.body.as_mut().unwrap().notes.insert(REPLACES, note);
        assert_eq!(first.replaces(), None);
    }
}

/// Nodes of different builds compare digests, so they must never change.
#[test]
fn digests_are_what_they_always_were() {
    let mut entry = started(version(1, 1), map(&[("a", "1"), ("b", "2")]));
    let start = entry.digest(b"key");
    entry.write_field(version(2, 2), b"a".to_vec(), None);
    entry.touch(1_000);
    entry.body.as_mut().unwrap().notes.insert(3, Note { version: version(1, 1), bytes: vec![1] });
    let ended = Entry::ended(version(1, 1), version(3, 1));
    let digests = [start, entry.digest(b"key"), ended.digest(b"key")];
    assert_eq!(
        digests.map(|digest| format!("{digest:016x}")),
        ["da1bb57262c9d58c", "a915060a244f8469", "29f69da20b3eb845"]
    );
    let start = started(version(1, 1), Value::Bytes(b"value".to_vec()));
    let with_value = start.digest_with_value(b"key");
    assert_eq!(format!("{with_value:016x}"), "b12e3577e36aeac7");
}
