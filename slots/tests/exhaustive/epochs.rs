//! All that can happen to the epochs of one slot and to what is written in their name.

use crate::search::{fails, holds, search};
use crate::world::{Bounds, Mutant};

/// Three homes, and a fourth node that takes the place of one.
const THREE: Bounds = Bounds {
    nodes: 4,
    homes: &[0, 1, 2],
    targets: &[&[0, 1, 3]],
    stranger: None,
    proposals: 1,
    at_once: true,
    writes: 0,
    conditionals: 0,
    losses: 0,
    restarts: 0,
    forced: &[],
    k: 0,
    mutant: None,
};

/// Two homes, one of which is replaced.
const TWO: Bounds = Bounds { nodes: 3, homes: &[0, 1], targets: &[&[0, 2]], ..THREE };

/// The same homes once more, as after a loss of memory.
const AGAIN: Bounds = Bounds { nodes: 3, targets: &[&[0, 1, 2]], ..THREE };

const MOST: usize = 4_000_000;

#[test]
fn an_epoch_has_one_successor() {
    let two_ways: &[&[u8]] = &[&[0, 1], &[1, 2]];
    let paxos = Bounds { nodes: 3, at_once: false, targets: two_ways, proposals: 2, ..THREE };
    holds("3 homes, 2 proposals", &paxos, MOST);
    holds("3 homes, 2 proposals, 1 restart", &Bounds { restarts: 1, ..paxos }, MOST);
    let two_ways: &[&[u8]] = &[&[0, 2], &[1, 2]];
    let paxos = Bounds { at_once: false, targets: two_ways, proposals: 3, losses: 1, ..TWO };
    holds("2 homes, 3 proposals, 1 loss", &paxos, MOST);
}

#[test]
fn a_write_is_seen_in_its_epoch_and_all_that_follow() {
    holds("3 homes, 2 writes", &Bounds { writes: 2, ..THREE }, MOST);
    holds("2 homes, 2 writes, 2 proposals", &Bounds { writes: 2, proposals: 2, ..TWO }, MOST);
}

#[test]
fn a_write_is_seen_though_a_home_lost_its_memory() {
    holds("3 homes, 1 write, 1 loss", &Bounds { writes: 1, losses: 1, ..AGAIN }, MOST);
    let bounds = Bounds { writes: 1, losses: 1, proposals: 2, ..AGAIN };
    holds("3 homes, 1 write, 1 loss, 2 proposals", &bounds, MOST);
    let bounds = Bounds { writes: 1, losses: 2, ..THREE };
    holds("3 homes of 4, 1 write, 2 losses", &bounds, MOST);
    let bounds = Bounds { writes: 1, losses: 1, proposals: 2, ..TWO };
    holds("2 homes, 1 write, 1 loss, 2 proposals", &bounds, MOST);
}

#[test]
fn of_two_conditional_operations_one_takes_effect() {
    holds("3 homes, 2 conditional", &Bounds { conditionals: 2, ..AGAIN }, MOST);
    holds("3 homes of 4, 2 conditional", &Bounds { conditionals: 2, ..THREE }, MOST);
    let bounds = Bounds { conditionals: 2, losses: 1, ..TWO };
    holds("2 homes, 2 conditional, 1 loss", &bounds, MOST);
}

#[test]
fn of_two_clusters_that_meet_all_is_seen() {
    let merging = Bounds {
        nodes: 3,
        homes: &[0],
        targets: &[&[0, 1], &[1, 2]],
        stranger: Some(1),
        proposals: 2,
        writes: 2,
        ..THREE
    };
    holds("2 clusters of 1, 2 writes, 2 proposals", &merging, MOST);
    let bounds = Bounds { proposals: 3, writes: 1, ..merging };
    holds("2 clusters of 1, 1 write, 3 proposals", &bounds, MOST);
}

#[test]
fn by_an_operators_word_only_what_the_dead_had_is_lost() {
    let bounds = Bounds { nodes: 3, forced: &[1, 2], writes: 1, ..AGAIN };
    holds("3 homes, 2 die, 1 write", &bounds, MOST);
    let bounds = Bounds { forced: &[1], writes: 1, proposals: 2, ..TWO };
    holds("2 homes, 1 dies, 1 write, 2 proposals", &bounds, MOST);
}

fn mutant(mutant: Mutant, bounds: Bounds) -> Bounds {
    Bounds { mutant: Some(mutant), ..bounds }
}

#[test]
fn homes_that_go_on_after_they_followed_are_caught() {
    let bounds = Bounds { writes: 1, ..THREE };
    fails("following does not seal", &mutant(Mutant::FollowingDoesNotSeal, bounds), MOST);
}

#[test]
fn homes_that_answer_before_they_compared_are_caught() {
    let bounds = Bounds { writes: 1, ..THREE };
    fails("not synced counts as ready", &mutant(Mutant::FreshHomesAnswer, bounds), MOST);
}

#[test]
fn homes_that_answer_after_they_lost_their_memory_are_caught() {
    let bounds = Bounds { writes: 1, losses: 1, ..AGAIN };
    fails("a forgetful home answers", &mutant(Mutant::ForgetfulHomesAnswer, bounds), MOST);
}

#[test]
fn homes_that_get_back_in_the_same_epoch_are_caught() {
    let bounds = Bounds { writes: 1, losses: 1, ..AGAIN };
    let mutant = mutant(Mutant::LostHomesBecomeReadyAgain, bounds);
    fails("a lost home becomes ready again in its epoch", &mutant, MOST);
}

#[test]
fn homes_that_accept_before_they_compared_are_caught() {
    let bounds = Bounds { writes: 1, losses: 2, proposals: 2, ..TWO };
    fails("not synced accepts", &mutant(Mutant::FreshHomesAccept, bounds), MOST);
}

#[test]
fn majorities_of_the_living_are_caught() {
    let bounds = Bounds { writes: 1, ..AGAIN };
    fails("majority over the living", &mutant(Mutant::MajorityOverTheLiving, bounds), MOST);
}

#[test]
fn promises_that_are_not_recorded_are_caught() {
    let bounds = Bounds { targets: &[&[0, 2], &[1, 2]], proposals: 2, restarts: 1, ..TWO };
    fails("promise not persisted", &mutant(Mutant::PromisesAreNotRecorded, bounds), MOST);
}

#[test]
fn floors_that_stay_behind_are_caught() {
    let bounds = Bounds { conditionals: 2, ..THREE };
    fails("floors stay behind", &mutant(Mutant::FloorsStayBehind, bounds), MOST);
}

#[test]
fn lineages_that_are_merged_without_ending_are_caught() {
    let bounds = Bounds {
        nodes: 3,
        homes: &[0],
        targets: &[&[0, 1], &[1, 2]],
        stranger: Some(1),
        proposals: 2,
        writes: 1,
        ..THREE
    };
    let mutant = mutant(Mutant::MergedWithoutEnding, bounds);
    fails("merged lineages without ending one", &mutant, MOST);
}

#[test]
#[ignore = "measures how far bounds reach"]
fn larger_bounds() {
    let most = 25_000_000;
    let all = [
        ("3 homes, 3 writes", Bounds { writes: 3, ..THREE }),
        ("3 homes, 1 write, 2 proposals", Bounds { writes: 1, proposals: 2, ..THREE }),
        (
            "3 homes, 1 write, 1 conditional, 1 loss",
            Bounds { writes: 1, conditionals: 1, losses: 1, ..AGAIN },
        ),
        ("3 homes, 2 conditional, 1 loss", Bounds { conditionals: 2, losses: 1, ..AGAIN }),
        ("3 homes, 2 writes, 2 losses", Bounds { writes: 2, losses: 2, ..THREE }),
    ];
    for (what, bounds) in all {
        let report = search(&bounds, most);
        let (states, depth, complete) = (report.states, report.depth, report.complete);
        assert!(report.violation.is_none(), "{what}: {:?}", report.violation);
        println!("{what}: {states} states, {depth} steps deep, complete: {complete}");
    }
}
