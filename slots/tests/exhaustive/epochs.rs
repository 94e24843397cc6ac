//! All that can happen to the epochs of one slot and to what is written in their name.

use crate::search::{LONG, fails, holds, holds_as_far_as};
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
    late: 0,
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
    let two_ways: &[&[u8]] = &[&[0, 2], &[1, 2]];
    let paxos = Bounds { at_once: false, targets: two_ways, proposals: 3, losses: 1, ..TWO };
    holds("2 homes, 3 proposals, 1 loss", &paxos, MOST);
}

#[test]
fn a_write_is_seen_in_its_epoch_and_all_that_follow() {
    holds("3 homes, 2 writes", &Bounds { writes: 2, ..THREE }, MOST);
    holds("3 homes, 1 write, 2 epochs", &Bounds { writes: 1, proposals: 2, ..THREE }, MOST);
    holds("2 homes, 2 writes, 3 epochs", &Bounds { writes: 2, proposals: 3, ..TWO }, MOST);
    let bounds = Bounds { writes: 1, late: 1, restarts: 1, ..THREE };
    holds("3 homes, 1 write, 1 late answer, 1 restart", &bounds, MOST);
    let step_by_step = Bounds { writes: 1, at_once: false, ..THREE };
    holds("3 homes, 1 write, successor step by step", &step_by_step, MOST);
    let four = Bounds { nodes: 5, homes: &[0, 1, 2, 3], targets: &[&[0, 1, 2, 4]], ..THREE };
    holds("4 homes, 1 write", &Bounds { writes: 1, ..four }, MOST);
}

#[test]
fn a_write_is_seen_though_homes_lost_their_memory() {
    let bounds = Bounds { writes: 1, losses: 1, proposals: 2, ..AGAIN };
    holds("3 homes, 1 write, 1 loss, 2 epochs", &bounds, MOST);
    let bounds = Bounds { writes: 1, losses: 1, late: 1, ..AGAIN };
    holds("3 homes, 1 write, 1 loss, 1 late answer", &bounds, MOST);
    let bounds = Bounds { writes: 1, losses: 2, ..THREE };
    holds("3 homes of 4, 1 write, 2 losses", &bounds, MOST);
    let bounds = Bounds { writes: 1, losses: 2, proposals: 3, ..TWO };
    holds("2 homes, 1 write, 2 losses, 3 epochs", &bounds, MOST);
}

#[test]
fn of_two_conditional_operations_one_takes_effect() {
    holds("3 homes, 2 conditional", &Bounds { conditionals: 2, ..AGAIN }, MOST);
    holds("3 homes of 4, 2 conditional", &Bounds { conditionals: 2, ..THREE }, MOST);
    let bounds = Bounds { conditionals: 2, losses: 1, proposals: 2, ..TWO };
    holds("2 homes, 2 conditional, 1 loss, 2 epochs", &bounds, MOST);
}

#[test]
fn of_two_clusters_that_meet_all_is_seen() {
    let merging = Bounds {
        nodes: 3,
        homes: &[0],
        targets: &[&[0, 1], &[1, 2]],
        stranger: Some(1),
        proposals: 3,
        writes: 2,
        ..THREE
    };
    holds("2 clusters, 2 writes, 3 epochs", &merging, MOST);
    let bounds = Bounds { proposals: 4, writes: 1, losses: 1, ..merging.clone() };
    holds("2 clusters, 1 write, 1 loss, 4 epochs", &bounds, MOST);
    let bounds = Bounds { conditionals: 2, writes: 0, ..merging };
    holds("2 clusters, 2 conditional, 3 epochs", &bounds, MOST);
}

#[test]
fn by_an_operators_word_only_what_the_dead_had_is_lost() {
    let bounds = Bounds { nodes: 3, forced: &[1, 2], writes: 1, ..AGAIN };
    holds("3 homes, 2 die, 1 write", &bounds, MOST);
    let bounds = Bounds { forced: &[1], writes: 1, proposals: 2, ..TWO };
    holds("2 homes, 1 dies, 1 write, 2 epochs", &bounds, MOST);
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
fn successors_decided_by_the_living_are_caught() {
    let bounds = Bounds { proposals: 2, at_once: false, ..AGAIN };
    let bounds = Bounds { targets: &[&[0, 1], &[1, 2]], ..bounds };
    fails("successor by the living", &mutant(Mutant::SuccessorByTheLiving, bounds), MOST);
}

#[test]
fn promises_that_are_not_recorded_are_caught() {
    let two_ways: &[&[u8]] = &[&[0, 1], &[1, 2]];
    let paxos = Bounds { nodes: 3, at_once: false, targets: two_ways, proposals: 2, ..THREE };
    let bounds = Bounds { restarts: 1, ..paxos };
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
#[ignore = "minutes, and gigabytes"]
fn epochs_at_larger_bounds() {
    let four = Bounds { nodes: 5, homes: &[0, 1, 2, 3], targets: &[&[0, 1, 2, 4]], ..THREE };
    let all = [
        ("3 homes, 3 writes", Bounds { writes: 3, ..THREE }),
        ("3 homes, 2 writes, 1 loss", Bounds { writes: 2, losses: 1, ..THREE }),
        ("3 homes, 1 write, 3 epochs", Bounds { writes: 1, proposals: 3, ..THREE }),
        (
            "3 homes, 1 write, 1 conditional, 1 loss",
            Bounds { writes: 1, conditionals: 1, losses: 1, ..AGAIN },
        ),
        ("3 homes, 2 conditional, 1 loss", Bounds { conditionals: 2, losses: 1, ..AGAIN }),
        ("3 homes, 2 conditional, 2 epochs", Bounds { conditionals: 2, proposals: 2, ..AGAIN }),
        (
            "3 homes, 1 write, 2 losses, 2 epochs",
            Bounds { writes: 1, losses: 2, proposals: 2, ..AGAIN },
        ),
        ("4 homes, 1 write, 1 loss", Bounds { writes: 1, losses: 1, ..four }),
    ];
    for (what, bounds) in all {
        holds_as_far_as(what, &bounds, LONG);
    }
}
