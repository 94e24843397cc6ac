//! The sessions of one owner, wherever they are.

use annulus_proto::message::{OwnedPlace, OwnedRequest, OwnedSession, Rejected};

use super::*;

const WORKER: Caller = Caller::Client(Role::Worker);

/// A session of somebody.
pub(super) fn start_of(owner: &str) -> Operation {
    let attributes = Attributes { replicas: 0, owner: owner.as_bytes().to_vec() };
    Operation::Start { value: bytes("one"), lifetimes: Lifetimes::default(), attributes }
}

impl World {
    /// What a node says of an owner's sessions, page by page.
    #[track_caller]
    pub(super) fn owned_at(&mut self, node: usize, owner: &str) -> Vec<OwnedSession> {
        let now = self.present(node);
        let whole = self.nodes[node].whole.as_mut().expect("it runs");
        let mut all = Vec::new();
        for core in &mut whole.cores {
            let mut place = OwnedPlace { core: core.number as u16, ring: 0, after: None };
            loop {
                let (table, owner) = ("sessions".to_owned(), owner.as_bytes().to_vec());
                let request = OwnedRequest { table, owner, place };
                let page = match core.list_owned(now, WORKER, &request) {
                    Message::Owned(page) => page,
                    other => panic!("{other:?}"),
                };
                assert!(
                    page.sessions.is_sorted_by_key(|it| it.listed.key.word()),
                    "in their order"
                );
                all.extend(page.sessions);
                match page.next {
                    Some(next) if next.core == place.core => place = next,
                    _ => break,
                }
            }
        }
        all
    }

    /// The keys of an owner's sessions, of each how many nodes list it.
    pub(super) fn owned(&mut self, owner: &str) -> BTreeMap<String, usize> {
        let mut owned = BTreeMap::new();
        for node in 0..self.nodes.len() {
            for session in self.owned_at(node, owner) {
                let key = String::from_utf8(session.listed.key.as_bytes().to_vec()).unwrap();
                *owned.entry(key).or_default() += 1;
            }
        }
        owned
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| sparse(&format!("key {number}"))).collect()
}

#[test]
fn each_home_lists_what_it_holds_of_an_owner_and_nothing_else() {
    let mut world = World::sparse(5, 1);
    world.settle();
    let keys = keys(30);
    for (number, key) in keys.iter().enumerate() {
        world.acknowledged(number % 5, key, start_of(["ada", "bob", ""][number % 3]));
    }
    world.run_for(Duration::from_millis(100));
    let of = |owner: usize| -> BTreeMap<String, usize> {
        keys.iter().skip(owner).step_by(3).map(|key| (key.clone(), 3)).collect()
    };
    assert_eq!((world.owned("ada"), world.owned("bob")), (of(0), of(1)));
    assert_eq!(world.owned("eve"), BTreeMap::new());
    // What changes stays the owner's, and what ends or expires does not.
    world.acknowledged(0, &keys[0], write(None, bytes("two")));
    world.acknowledged(1, &keys[3], Operation::End { birth: None });
    world.acknowledged(2, &keys[6], start_of("bob"));
    let soon = Change::Lifetimes(Lifetimes { idle_ms: Some(1_000), lifetime_ms: None });
    world.acknowledged(3, &keys[9], Operation::Update { birth: None, change: soon });
    world.run_for(Duration::from_secs(2));
    let mut ada = of(0);
    [3, 6, 9].iter().for_each(|number| _ = ada.remove(&keys[*number]));
    let bob = of(1).into_iter().chain([(keys[6].clone(), 3)]).collect();
    assert_eq!((world.owned("ada"), world.owned("bob")), (ada, bob));
}

#[test]
fn many_sessions_of_one_owner_come_in_pages_each_once() {
    let mut world = World::of_single_cores(1, 2, TablePolicy::default());
    world.settle();
    let keys: BTreeSet<String> = (0..1_300).map(|number| format!("key {number}")).collect();
    for key in &keys {
        world.acknowledged(0, key, start_of("ada"));
    }
    let listed = world.owned("ada");
    assert_eq!(listed.keys().cloned().collect::<BTreeSet<_>>(), keys);
    assert!(listed.values().all(|count| *count == 1));
}

#[test]
fn who_owns_what_is_known_after_a_restart_and_at_new_homes() {
    let mut world = World::sparse(3, 3);
    world.settle();
    let keys = keys(20);
    for key in &keys {
        world.acknowledged(0, key, start_of("ada"));
    }
    world.run_for(Duration::from_millis(100));
    let all: BTreeMap<String, usize> = keys.iter().map(|key| (key.clone(), 3)).collect();
    world.kill(1);
    world.start(1);
    world.settle();
    assert_eq!(world.owned("ada"), all);
    // It has nothing yet, and gets its share.
    world.add(4);
    world.settle();
    world.run_until_seen("the new one holds its share", Duration::from_secs(60), |world| {
        !world.owned_at(3, "ada").is_empty() && world.owned("ada") == all
    });
}

#[test]
fn a_session_that_is_ended_through_a_lane_is_nobodys() {
    let mut world = World::of_single_cores(1, 4, TablePolicy::default());
    world.settle();
    world.acknowledged(0, "key", start_of("ada"));
    assert_eq!(world.owned("ada").len(), 1);
    let (_, is_quick) = world.ask_through_a_lane("key", Operation::End { birth: None });
    assert!(is_quick);
    assert!(world.core(0, "key").tables[0].store.has_exact_owners());
    assert_eq!(world.owned("ada").len(), 0);
}

#[test]
fn who_may_not_read_sessions_is_told_of_none_and_wrong_questions_are_refused() {
    let mut world = World::of_single_cores(1, 5, TablePolicy::default());
    world.settle();
    world.acknowledged(0, "key", start_of("ada"));
    let now = world.present(0);
    let core = world.core(0, "key");
    let mut ask = |role, table: &str, owner: &[u8], place| {
        let request = OwnedRequest { table: table.to_owned(), owner: owner.to_vec(), place };
        match core.list_owned(now, Caller::Client(role), &request) {
            Message::Owned(page) => Ok(page.sessions.len()),
            Message::Rejected(Rejected::Malformed { why }) => Err(why),
            other => panic!("{other:?}"),
        }
    };
    let place = OwnedPlace::default();
    for role in [Role::Development, Role::Authority, Role::Worker] {
        assert_eq!(ask(role, "sessions", b"ada", place), Ok(1));
    }
    for role in [Role::Monitor, Role::Operator] {
        assert!(ask(role, "sessions", b"ada", place).unwrap_err().contains(role.name()));
    }
    assert!(ask(Role::Worker, "nosuch", b"ada", place).unwrap_err().contains("nosuch"));
    for owner in [&b""[..], &[7; 256]] {
        assert!(ask(Role::Worker, "sessions", owner, place).unwrap_err().contains("255 bytes"));
    }
    let beyond = OwnedPlace { ring: 1, ..place };
    assert!(ask(Role::Worker, "sessions", b"ada", beyond).unwrap_err().contains("ring"));
    let end = OwnedPlace { after: Some(u64::MAX), ..place };
    assert_eq!(ask(Role::Worker, "sessions", b"ada", end), Ok(0));
}
