use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use super::*;

const HEAT: Subject = Subject::Heat { half_life: HALF_LIFE, has_outer: false };
const OUTER: Subject = Subject::Heat { half_life: HALF_LIFE, has_outer: true };

/// An `h` for each access that hits, a dot for others.
fn hits(subject: Subject, capacity: usize, keys: impl IntoIterator<Item = u32>) -> String {
    let mut policy = subject.policy(capacity, 1_000);
    keys.into_iter().map(|key| if policy.access(key) { 'h' } else { '.' }).collect()
}

fn all() -> impl Iterator<Item = Subject> {
    Subject::PEERS.iter().copied().chain([HEAT, OUTER])
}

#[test]
fn lru_evicts_what_was_used_longest_ago() {
    assert_eq!(hits(Subject::Lru, 2, [0, 1, 0, 2, 0, 1]), "..h.h.");
}

#[test]
fn lru_hits_when_the_crate_lru_does() {
    let trace = Trace::zipf().begin(50_000);
    let mut theirs = ::lru::LruCache::new(NonZeroUsize::new(500).unwrap());
    let mut ours = Subject::Lru.policy(500, trace.unique);
    for key in trace.keys {
        assert_eq!(ours.access(key), theirs.put(key, ()).is_some());
    }
}

#[test]
fn lfu_evicts_what_was_used_least_and_the_oldest_of_several() {
    assert_eq!(hits(Subject::Lfu, 2, [0, 0, 1, 2, 1, 0]), ".h...h");
    assert_eq!(hits(Subject::Lfu, 2, [0, 1, 2, 1, 0, 1]), "...h.h");
}

#[test]
fn sieve_goes_on_where_it_stopped_and_spares_what_was_used() {
    // 3 takes the place of 1, since 0 was used; 4 that of 2, 5 that of 3, and so on. In the end all three were used,
    // the hand goes round, and 1 goes, where it had stopped.
    let keys = [0, 1, 2, 0, 3, 4, 0, 5, 1, 0, 2, 1, 2, 3, 1, 0];
    assert_eq!(hits(Subject::Sieve, 3, keys), "...h..h..h.hh..h");
}

#[test]
fn s3_fifo_keeps_what_was_used_twice_or_comes_back() {
    // 10 moves 0 to the main queue and evicts 1, which comes back there, as do 2 and 3. 5 was used once, which is not
    // enough.
    let keys = (0..10).chain([0, 0, 10, 1, 2, 0, 1, 2, 3, 5, 11, 5]);
    assert_eq!(hits(Subject::S3Fifo, 10, keys), "..........hh...hhh.h..");
    // 3 moves all three to the main queue, which has room for two: 0 goes. 3 comes back there, and 5 takes its place,
    // as 1 and 2 were used.
    let keys = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 1, 2, 4, 3, 5, 1, 2, 3, 0];
    assert_eq!(hits(Subject::S3Fifo, 3, keys), ".hh.hh.hh.hh...hh..");
}

#[test]
fn w_tiny_lfu_lets_in_what_was_used_more_often_than_what_has_to_go() {
    // 9 leaves the window for 10, and is not let in for 0, as each was used once. The second time it is.
    let keys = (0..10).chain([10, 9, 11, 9, 0, 1]);
    assert_eq!(hits(Subject::WTinyLfu, 10, keys), ".............h.h");
    // 0 and 1 are protected, and outlast 2, which was let in before 1.
    let keys = (0..10).chain([0, 0, 1, 1, 10, 10, 10, 11, 0, 1, 2]);
    assert_eq!(hits(Subject::WTinyLfu, 10, keys), "..........hhhh.hh.hh.");
}

#[test]
fn heat_keeps_what_was_used_often_for_as_long_as_half_lives_say() {
    let keys = || [0; 20].into_iter().chain(1..100).chain([0]);
    for (half_life, last) in [(16, 'h'), (1, '.')] {
        let subject = Subject::Heat { half_life, has_outer: false };
        assert!(hits(subject, 20, keys()).ends_with(last), "{half_life}");
    }
    assert!(hits(Subject::Lru, 20, keys()).ends_with('.'));
}

#[test]
fn only_who_remembers_heat_gets_to_know_what_comes_back_late() {
    // 0 comes back after twice as many others as there is room for.
    let keys = || {
        (0..20).flat_map(|round| (0..40).map(move |at| if at == 0 { 0 } else { 40 * round + at }))
    };
    for (has_outer, last) in [(false, '.'), (true, 'h')] {
        let subject = Subject::Heat { half_life: 16, has_outer };
        assert!(hits(subject, 20, keys().chain([0])).ends_with(last), "{has_outer}");
    }
}

#[test]
fn what_fits_is_kept_and_what_is_new_never_hits() {
    for subject in all() {
        assert_eq!(
            hits(subject, 50, (0..50).chain(0..50)),
            ".".repeat(50) + &"h".repeat(50),
            "{subject:?}"
        );
        assert_eq!(hits(subject, 50, 0..1_000), ".".repeat(1_000), "{subject:?}");
    }
}

#[test]
fn the_same_accesses_hit_in_every_run() {
    let trace = Trace::shifting().begin(30_000);
    for subject in all() {
        let [once, again] = [(); 2].map(|()| subject.hit_rate(&trace, 300));
        assert_eq!(once.to_bits(), again.to_bits(), "{subject:?}");
    }
}

#[test]
fn nobody_hits_more_often_than_who_knows_the_future() {
    for trace in [Trace::zipf(), Trace::zipf_with_scans(), Trace::shifting()] {
        let trace = trace.begin(30_000);
        for capacity in [30, 300, 3_000] {
            let most = most_hits(&trace, capacity);
            for subject in all() {
                let hits = subject.hit_rate(&trace, capacity) * trace.keys.len() as f64 / 100.0;
                assert!(hits > 0.0 && hits <= most as f64 + 0.5, "{subject:?}: {hits} of {most}");
            }
        }
    }
}

/// Of who evicts what is not asked for the longest (Belady, *A study of replacement algorithms for a virtual-storage
/// computer*, IBM Systems Journal 5(2), 1966), and need not take anything in.
fn most_hits(trace: &Trace, capacity: usize) -> usize {
    let never = usize::MAX;
    let mut next_of = vec![never; trace.unique];
    let mut next: Vec<usize> = Vec::new();
    for (at, key) in trace.keys.iter().enumerate().rev() {
        next.push(std::mem::replace(&mut next_of[*key as usize], at));
    }
    next.reverse();
    let mut held = BTreeSet::new();
    let mut hits = 0;
    for (at, (key, next)) in trace.keys.iter().zip(next).enumerate() {
        hits += usize::from(held.remove(&(at, *key)));
        held.insert((next, *key));
        if held.len() > capacity {
            held.pop_last();
        }
    }
    hits
}
