//! Epochs and hand-over together: nodes that are homes no more drop what they have, against receipts,
//! while homes are still gathering it.

use crate::search::{fails, holds};
use crate::world::{Bounds, Mutant};

const TWO: Bounds = Bounds {
    nodes: 4,
    homes: &[0, 1],
    targets: &[&[2, 3]],
    stranger: None,
    proposals: 1,
    at_once: true,
    writes: 1,
    conditionals: 0,
    losses: 0,
    restarts: 0,
    forced: &[],
    k: 1,
    mutant: None,
};

const MOST: usize = 4_000_000;

#[test]
fn what_is_dropped_is_seen_in_the_epochs_that_follow() {
    holds("2 homes to 2 others, k 1, 1 write", &TWO, MOST);
    holds("2 homes to 2 others, k 1, 1 write, 1 loss", &Bounds { losses: 1, ..TWO }, MOST);
    holds("2 homes to 2 others, k 2, 1 write, 1 loss", &Bounds { losses: 1, k: 2, ..TWO }, MOST);
    let back = Bounds { nodes: 3, targets: &[&[1, 2], &[0, 1]], proposals: 2, k: 2, ..TWO };
    holds("2 homes, there and back, k 2, 1 write", &back, MOST);
}

#[test]
fn letting_go_because_a_table_said_so_is_caught() {
    let bounds = Bounds { mutant: Some(Mutant::DropUnasked), ..TWO };
    fails("let go by table", &bounds, MOST);
}

#[test]
fn copies_that_were_dropped_count_as_asked_and_that_is_caught() {
    let bounds = Bounds { mutant: Some(Mutant::DroppedCopiesCountAsAsked), ..TWO };
    fails("dropped copies count as asked", &bounds, MOST);
}
