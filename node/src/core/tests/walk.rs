//! Pages of keys, as nodes give them.

use annulus_proto::message::{Rejected, WalkRequest, Walked};

use super::rings::ARRIVED;
use super::*;

const WORKER: Caller = Caller::Client(Role::Worker);

fn request(from: u64, limit: u16) -> WalkRequest {
    WalkRequest { table: "sessions".to_owned(), from, limit, is_whole: false }
}

impl World {
    /// A page of each of a node's cores.
    #[track_caller]
    fn pages(&mut self, node: usize, from: u64, limit: u16) -> Vec<Walked> {
        let now = self.present(node);
        let whole = self.nodes[node].whole.as_mut().expect("it runs");
        let page = |core: &mut Core| match core.walk(now, WORKER, &request(from, limit)) {
            Message::Walked(page) => page,
            other => panic!("{other:?}"),
        };
        whole.cores.iter_mut().map(page).collect()
    }

    /// All keys that a node has, asked for in pages of so many.
    #[track_caller]
    fn walked(&mut self, node: usize, limit: u16) -> Vec<String> {
        let mut all = Vec::new();
        for core in 0..self.nodes[node].whole.as_ref().expect("it runs").cores.len() {
            let mut from = 0;
            loop {
                let page = self.pages(node, from, limit).swap_remove(core);
                assert!(page.keys.len() <= limit.into(), "no more than were asked for");
                let is_within = |key: &Key| {
                    key.place() >= from && page.next.is_none_or(|next| key.place() < next)
                };
                assert!(page.keys.iter().all(|found| is_within(&found.key)));
                assert!(page.keys.is_sorted_by_key(|found| found.key.place()));
                let text = |key: &Key| String::from_utf8(key.as_bytes().to_vec()).expect("text");
                all.extend(page.keys.iter().map(|found| text(&found.key)));
                match page.next {
                    None => break,
                    Some(next) => from = next,
                }
            }
        }
        all
    }
}

#[test]
fn pages_of_any_size_have_each_live_key_once() {
    let mut world = World::of_single_cores(1, 3, TablePolicy::default());
    world.settle();
    // Some of a slot of their own, some of one slot.
    let keys: Vec<String> =
        (0..40).flat_map(|n| [format!("key {n}"), format!("{{t}}{n}")]).collect();
    for key in &keys {
        world.acknowledged(0, key, start(bytes("one")));
    }
    world.acknowledged(0, &keys[0], Operation::End { birth: None });
    let soon = Lifetimes { idle_ms: None, lifetime_ms: Some(1_000) };
    let expires = Operation::Update { birth: None, change: Change::Lifetimes(soon) };
    world.acknowledged(0, &keys[1], expires);
    world.run_for(Duration::from_secs(2));
    let expected: BTreeSet<String> = keys[2..].iter().cloned().collect();
    for limit in [1, 2, 7, 78, 1_024] {
        let walked = world.walked(0, limit);
        assert_eq!(walked.len(), expected.len(), "each once, by {limit}");
        assert_eq!(walked.into_iter().collect::<BTreeSet<_>>(), expected, "by {limit}");
    }
    // Behind all keys there is nothing.
    for from in [1 << 53, u64::MAX] {
        let [page] = &world.pages(0, from, 10)[..] else { panic!("one core") };
        assert_eq!((page.keys.len(), page.next), (0, None));
    }
}

#[test]
fn a_walk_comes_to_what_has_cooled_and_not_to_what_has_ended() {
    let mut world = World::with_rings(4, 12, &[5]);
    let key = sparse("cold");
    world.acknowledged(0, &key, start(bytes("one")));
    world.until_it_is_on(1, &key);
    let listed = |world: &mut World| (0..4).flat_map(|node| world.walked(node, 10)).count();
    assert!(listed(&mut world) >= 2, "the homes outside tell of it");
    world.acknowledged(0, &key, Operation::End { birth: None });
    world.run_for(ARRIVED);
    assert_eq!(listed(&mut world), 0);
}

#[test]
fn a_monitor_is_told_of_no_keys() {
    let mut world = World::of_single_cores(1, 3, TablePolicy::default());
    world.settle();
    let now = world.present(0);
    let core = &mut world.nodes[0].whole.as_mut().expect("it runs").cores[0];
    let mut told = |role, table: &str| {
        let request = WalkRequest { table: table.to_owned(), ..request(0, 10) };
        match core.walk(now, Caller::Client(role), &request) {
            Message::Walked(_) => true,
            Message::Rejected(Rejected::Malformed { .. }) => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(told(Role::Worker, "sessions") && told(Role::Authority, "sessions"));
    assert!(!told(Role::Monitor, "sessions") && !told(Role::Worker, "none"));
}
