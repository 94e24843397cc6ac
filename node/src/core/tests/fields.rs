//! Fields that change if fields are as somebody has seen them.

use annulus_proto::message::field_hash;

use super::*;

const KEY: &str = "hash";

type Seen<'a> = &'a [(&'a str, Option<&'a str>)];

/// The session and its fields, as its user has seen them.
struct Condition<'a> {
    birth: Version,
    seen: Seen<'a>,
    is_all: bool,
    ends_empty: bool,
}

impl<'a> Condition<'a> {
    fn new(birth: Version, seen: Seen<'a>) -> Self {
        Self { birth, seen, is_all: false, ends_empty: false }
    }

    fn then(&self, set: &[(&str, &str)], delete: &[&str]) -> Operation {
        let name = |name: &&str| name.as_bytes().to_vec();
        let hash = |value: &str| field_hash(value.as_bytes(), 0);
        let Value::Map(set) = map(set) else { unreachable!("it is one") };
        Operation::UpdateFieldsIf {
            birth: self.birth,
            expected: self.seen.iter().map(|(of, value)| (name(of), value.map(hash))).collect(),
            is_all: self.is_all,
            set,
            delete: delete.iter().map(name).collect(),
            deadlines: BTreeMap::new(),
            lifetimes: None,
            ends_empty: self.ends_empty,
        }
    }
}

#[test]
fn fields_change_if_they_are_as_was_seen() {
    let mut world = World::new(3, 2_001);
    world.settle();
    let begun = world.acknowledged(0, KEY, start(map(&[("a", "1"), ("b", "2")])));
    let birth = begun.birth;
    let is = |seen| Condition::new(birth, seen);
    world.acknowledged(1, KEY, is(&[("a", Some("1")), ("c", None)]).then(&[("c", "3")], &["a"]));
    assert_eq!(world.value(2, KEY), map(&[("b", "2"), ("c", "3")]));
    let all = |seen| Condition { is_all: true, ..Condition::new(birth, seen) };
    world.acknowledged(2, KEY, all(&[("b", Some("2")), ("c", Some("3"))]).then(&[("b", "4")], &[]));
    assert_eq!(world.value(0, KEY), map(&[("b", "4"), ("c", "3")]));

    let version = world.copy(0, KEY).unwrap().version;
    let other = Version::new(birth.hlc, NodeId::from_bits(99));
    for condition in [
        is(&[("b", Some("2"))]),
        is(&[("b", None)]),
        is(&[("a", Some("1"))]),
        all(&[("b", Some("4"))]),
        all(&[]),
        Condition::new(other, &[]),
    ] {
        let failure = world.fails(1, KEY, condition.then(&[("x", "x")], &["b"]));
        assert_eq!(failure, Failure::Conflict { version }, "{:?}", condition.seen);
    }
    assert_eq!(world.value(0, KEY), map(&[("b", "4"), ("c", "3")]));
    let large = "x".repeat(70_000);
    let failure = world.fails(0, KEY, is(&[]).then(&[("x", &large)], &[]));
    assert!(matches!(failure, Failure::TooLarge { .. }), "{failure:?}");
    let failure = world.fails(0, "nothing", is(&[]).then(&[("x", "1")], &[]));
    assert_eq!(failure, Failure::Absent);
}

/// A version does not say which fields there are: those of plain updates come together under the later one's.
#[test]
fn what_came_together_under_a_version_is_not_taken_for_what_was_seen() {
    let mut world = World::new(3, 2_002);
    world.settle();
    let birth = world.acknowledged(0, KEY, start(map(&[("hits", "1")]))).birth;
    let seen = Condition::new(birth, &[("hits", Some("1"))]);
    world.acknowledged(0, KEY, seen.then(&[("hits", "2")], &[]));
    let later = world.acknowledged(1, KEY, set_field("other", "x"));
    // Somebody who had the later field alone saw this version, and the first number.
    assert_eq!(world.copy(0, KEY).unwrap().version, later.version);
    let failure = world.fails(2, KEY, seen.then(&[("hits", "2")], &[]));
    assert_eq!(failure, Failure::Conflict { version: later.version });
    assert_eq!(world.value(2, KEY), map(&[("hits", "2"), ("other", "x")]));
}

#[test]
fn a_map_ends_with_its_last_field_if_that_is_said() {
    let mut world = World::new(3, 2_003);
    world.settle();
    let birth = world.acknowledged(0, KEY, start(map(&[("a", "1"), ("b", "2")]))).birth;
    let last = Condition { ends_empty: true, ..Condition::new(birth, &[("a", Some("1"))]) };
    // Another one is there, whatever its user saw.
    world.acknowledged(1, KEY, last.then(&[], &["a"]));
    assert_eq!(world.value(1, KEY), map(&[("b", "2")]));
    let stays = Condition::new(birth, &[("b", Some("2"))]);
    world.acknowledged(2, KEY, stays.then(&[], &["b"]));
    assert_eq!(world.value(0, KEY), map(&[]));
    world.acknowledged(0, KEY, set_field("c", "3"));
    let last = Condition { ends_empty: true, ..Condition::new(birth, &[("c", Some("3"))]) };
    world.acknowledged(1, KEY, last.then(&[], &["c"]));
    assert_eq!(world.fails(2, KEY, Operation::Get), Failure::Ended);
    assert_eq!(world.fails(0, KEY, last.then(&[("d", "4")], &[])), Failure::Ended);
}

#[test]
fn what_is_no_map_has_no_fields_to_see() {
    let mut world = World::new(3, 2_004);
    world.settle();
    let begun = world.acknowledged(0, KEY, start(bytes("text")));
    let nothing = Condition::new(begun.birth, &[]);
    let failure = world.fails(1, KEY, nothing.then(&[("a", "1")], &[]));
    assert_eq!(failure, Failure::Conflict { version: begun.version });
    assert_eq!(world.value(1, KEY), bytes("text"));
}

#[test]
fn who_may_not_end_sessions_may_not_take_their_last_field() {
    let last = |ends_empty| Condition { ends_empty, ..Condition::new(Version::ZERO, &[]) };
    let ask = |role, operation| {
        let (table, key) = ("sessions".to_owned(), Key::new(KEY).unwrap());
        let request = RequestId::NONE;
        let request =
            SessionRequest { table, key, request, hops: 0, patience_ms: 1_000, operation };
        refusal(Caller::Client(role), &request)
    };
    assert_eq!(ask(Role::Worker, last(false).then(&[], &["a"])), None);
    assert!(ask(Role::Worker, last(true).then(&[], &["a"])).is_some());
    assert_eq!(ask(Role::Authority, last(true).then(&[], &["a"])), None);
}

/// Symptom: fields that were set through nodes which had just joined were lost to counters of the same moment, though both were
/// acknowledged. Cause: a slot's homes by placement held them, and those of its epoch, which decide, were others yet. Fix:
/// a majority of these has to hold them, too.
#[test]
fn what_is_set_while_the_homes_change_is_known_to_those_who_decide() {
    let mut during = 0;
    for seed in 2_100..2_108 {
        let mut world = World::sparse(1, seed);
        world.settle();
        let birth = world.acknowledged(0, KEY, start(map(&[("hits", "0")]))).birth;
        world.add(12);
        world.add(13);
        let slot = Key::new(KEY).unwrap().slot();
        world.run_until("three homes", Duration::from_secs(9), |world| {
            (0..3).all(|node| world.core(node, KEY).homes(0, slot).len() == 3)
        });
        let mut names = Vec::new();
        for at in 0..40 {
            let (name, hits) = (format!("f{at}"), at.to_string());
            let set = world.request(1 + at % 2, KEY, set_field(&name, "1"));
            let counts = Condition::new(birth, &[]).then(&[("hits", &hits)], &[]);
            let counts = world.request(0, KEY, counts);
            let (set, _) = (world.wait(set), world.wait(counts));
            names.extend(matches!(set, SessionReply::Acknowledged(_)).then_some(name));
            let epoch = world.core(0, KEY).epoch(0, slot).map_or(0, |config| config.homes.len());
            during += usize::from(epoch < 3);
        }
        world.settle();
        let Value::Map(fields) = world.value(2, KEY) else { panic!("no map") };
        let lost: Vec<_> =
            names.iter().filter(|name| !fields.contains_key(name.as_bytes())).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} of {} are lost", names.len());
        assert!(!names.is_empty());
    }
    assert!(during > 8, "the homes of the epoch are others long enough: {during}");
}

/// Whichever node is asked may have to pass it on, in one message.
#[test]
fn a_condition_names_no_more_than_a_message_has_room_for() {
    let mut world = World::new(3, 2_300);
    world.settle();
    let birth = world.acknowledged(0, KEY, start(map(&[("a", "1")]))).birth;
    let names: Vec<String> = (0..1_100).map(|number| format!("{number:01000}")).collect();
    let seen: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    for node in 0..3 {
        let condition = Condition::new(birth, &seen);
        let failure = world.fails(node, KEY, condition.then(&[("a", "2")], &[]));
        let Failure::Refused(why) = &failure else { panic!("{failure:?}") };
        assert!(why.starts_with("a condition about fields"), "{why}");
        let condition = Condition::new(birth, &seen[..900]);
        world.acknowledged(node, KEY, condition.then(&[("a", "2")], &[]));
    }
}

#[test]
fn fields_expire_on_their_own_and_their_deadlines_are_seen() {
    let mut world = World::new(3, 2_200);
    world.settle();
    let birth = world.acknowledged(0, KEY, start(map(&[("a", "1"), ("b", "2")]))).birth;
    let edit = |seen: Option<u64>, set: &[(&str, &str)], deadlines: &[(&str, u64)]| {
        let name = |name: &str| name.as_bytes().to_vec();
        let Value::Map(set) = map(set) else { unreachable!("it is one") };
        Operation::UpdateFieldsIf {
            birth,
            expected: [(name("a"), seen)].into(),
            is_all: false,
            set,
            delete: Vec::new(),
            deadlines: deadlines.iter().map(|(of, deadline)| (name(of), *deadline)).collect(),
            lifetimes: None,
            ends_empty: false,
        }
    };
    let soon = world.copy(0, KEY).unwrap().birth.hlc.ms() + 3_000;
    let hash = |deadline| Some(field_hash(b"1", deadline));
    // Of what is not there nothing expires.
    world.acknowledged(1, KEY, edit(hash(0), &[("c", "3")], &[("a", soon), ("none", soon)]));
    let seen = |world: &mut World, node| match world.ask(node, KEY, Operation::Get) {
        SessionReply::Session(session) => (session.value, session.field_deadlines),
        other => panic!("{other:?}"),
    };
    let all = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(seen(&mut world, 2), (all, [(b"a".to_vec(), soon)].into()));
    // The value is as it was, and its deadline is not.
    let refused = world.fails(2, KEY, edit(hash(0), &[("c", "4")], &[]));
    assert!(matches!(refused, Failure::Conflict { .. }), "{refused:?}");
    world.acknowledged(2, KEY, edit(hash(soon), &[("c", "4")], &[]));
    world.run_for(Duration::from_millis(3_500));
    for node in 0..3 {
        // That it has expired is seen, too.
        let left = (map(&[("b", "2"), ("c", "4")]), [(b"a".to_vec(), soon)].into());
        assert_eq!(seen(&mut world, node), left, "{node}");
    }
    // What is set anew has no deadline, unless it is said.
    world.acknowledged(0, KEY, edit(None, &[("a", "5")], &[("a", soon + 60_000)]));
    assert_eq!(seen(&mut world, 1).1, [(b"a".to_vec(), soon + 60_000)].into());
    world.acknowledged(1, KEY, set_field("a", "6"));
    assert_eq!(seen(&mut world, 2), (map(&[("a", "6"), ("b", "2"), ("c", "4")]), BTreeMap::new()));
}
