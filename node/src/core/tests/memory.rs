//! Memory for near copies on hosts that are homes of nothing.

use super::*;
use crate::core::settings::ReadFrom;

const KEY: &str = "near";

impl World {
    /// A node that does not serve the innermost ring: without memory for it after a start.
    fn serves_no_innermost_ring(&mut self, node: usize) {
        self.kill(node);
        let count = self.nodes[node].regions.len();
        let region = |shard| HeapRegion::unreserved(self.shard_bytes(shard, count) as usize);
        let regions = (0..count).map(region).collect();
        let this = &mut self.nodes[node];
        (this.rings, this.regions, this.fresh) = (0b10, regions, true);
        self.start(node);
        self.settle();
    }

    /// Clients are on the hosts of their nodes, and the last node serves no innermost ring.
    fn with_a_facing_host(seed: u64, policy: TablePolicy) -> (Self, String, usize) {
        let mut world = Self::sparse_with_policy(5, seed, policy);
        world.settle();
        let outer = 4;
        world.serves_no_innermost_ring(outer);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        (world, key, outer)
    }

    /// What a node says is reserved of its table.
    fn reserved(&self, node: usize) -> u64 {
        let cores = &self.nodes[node].whole.as_ref().unwrap().cores;
        cores.iter().map(|core| core.report().tables[0].segment_bytes).sum()
    }

    fn says_refused(&mut self, node: usize, key: &str) -> bool {
        let counters = self.core(node, key).report().counters;
        counters.contains(&("tables_refused_memory".to_owned(), 1))
    }
}

#[test]
fn memory_is_asked_for_when_a_process_of_the_host_reads_and_not_before() {
    for seed in 0..3 {
        let (mut world, key, outer) = World::with_a_facing_host(seed, TablePolicy::default());
        world.acknowledged(outer, &key, write(None, bytes("two")));
        for _ in 0..50 {
            assert_eq!(world.value(outer, &key), bytes("two"));
            world.run_for(Duration::from_millis(100));
        }
        assert_eq!((world.nodes[outer].memory_asked, world.reserved(outer)), (0, 0));

        world.asker = Asker::Local(0);
        world.read_until_near(outer, &key);
        assert_eq!(world.nodes[outer].memory_asked, 1, "seed {seed}");
        assert!(world.reserved(outer) > 0 && world.sees(outer, &key, "two"));
        // It stays, and another session needs none.
        let other = sparse("another");
        world.acknowledged(0, &other, start(bytes("three")));
        world.read_until_near(outer, &other);
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.nodes[outer].memory_asked, 1, "seed {seed}");
        assert!(world.reserved(outer) > 0);
    }
}

#[test]
fn without_memory_the_homes_answer_and_it_is_asked_for_again_now_and_then() {
    let (mut world, key, outer) = World::with_a_facing_host(3, TablePolicy::default());
    world.asker = Asker::Local(0);
    world.nodes[outer].has_memory = false;
    for _ in 0..650 {
        assert_eq!(world.value(outer, &key), bytes("one"));
        assert_eq!(world.seen(outer, &key), None);
        world.run_for(Duration::from_millis(100));
    }
    let asked = world.nodes[outer].memory_asked;
    assert!((2..=3).contains(&asked), "asked {asked} times in 65 s");
    assert!(world.says_refused(outer, &key) && world.reserved(outer) == 0);
    // For those who have read since it was asked for, and then for nobody.
    world.run_for(Duration::from_secs(120));
    let asked = asked + 1;
    assert_eq!(world.nodes[outer].memory_asked, asked);

    world.nodes[outer].has_memory = true;
    world.read_until_near(outer, &key);
    assert_eq!(world.nodes[outer].memory_asked, asked + 1);
    assert!(!world.says_refused(outer, &key));
}

#[test]
fn where_no_near_copies_are_kept_no_memory_is_asked_for() {
    let policy = TablePolicy { read: ReadFrom::Home, ..TablePolicy::default() };
    let (mut world, key, outer) = World::with_a_facing_host(4, policy);
    world.asker = Asker::Local(0);
    for _ in 0..20 {
        assert_eq!(world.value(outer, &key), bytes("one"));
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!((world.nodes[outer].memory_asked, world.reserved(outer)), (0, 0));
}
