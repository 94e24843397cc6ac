//! Epochs and hand-over together: nodes that are homes no more drop what they have, against
//! receipts, while homes are still gathering it.

use crate::search::{LONG, fails, holds, holds_as_far_as};
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
    late: 0,
    k: 2,
    mutant: None,
};

/// Fewer receipts than homes that have to hold a write: copies may become too few, but nobody says
/// *absent*.
const FEWER_RECEIPTS: Bounds = Bounds { k: 1, losses: 1, proposals: 2, ..TWO };

const MOST: usize = 4_000_000;

#[test]
fn what_is_dropped_is_seen_in_the_epochs_that_follow() {
    holds("2 homes to 2 others, k 2, 2 writes", &Bounds { writes: 2, ..TWO }, MOST);
    let bounds = Bounds { losses: 1, late: 1, ..TWO };
    holds("2 homes to 2 others, k 2, 1 write, 1 loss, 1 late answer", &bounds, MOST);
    let back = Bounds { nodes: 3, targets: &[&[1, 2], &[0, 1]], proposals: 3, losses: 1, ..TWO };
    holds("2 homes, there and back, k 2, 1 write, 1 loss, 3 epochs", &back, MOST);
    holds("2 homes, k 1, 1 write, 1 loss, 2 epochs", &FEWER_RECEIPTS, MOST);
    let three = Bounds { nodes: 5, homes: &[0, 1, 2], targets: &[&[0, 3, 4]], ..TWO };
    holds("3 homes, 2 replaced, k 2, 1 write", &three, MOST);
}

#[test]
fn letting_go_because_a_table_said_so_is_caught() {
    let bounds = Bounds { mutant: Some(Mutant::DropUnasked), ..TWO };
    fails("let go by table", &bounds, MOST);
}

#[test]
fn copies_that_were_dropped_count_as_asked_and_that_is_caught() {
    let bounds = Bounds { mutant: Some(Mutant::DroppedCopiesCountAsAsked), ..FEWER_RECEIPTS };
    fails("dropped copies count as asked", &bounds, MOST);
}

#[test]
#[ignore = "minutes, and gigabytes"]
fn together_at_larger_bounds() {
    let three = Bounds { nodes: 5, homes: &[0, 1, 2], targets: &[&[0, 3, 4]], ..TWO };
    let back = Bounds { nodes: 4, targets: &[&[2, 3], &[0, 1]], proposals: 2, losses: 1, ..TWO };
    let all = [
        ("3 homes, 2 replaced, k 2, 1 write, 1 loss", Bounds { losses: 1, ..three.clone() }),
        ("3 homes, 2 replaced, k 3, 1 write, 1 loss", Bounds { losses: 1, k: 3, ..three }),
        ("2 homes to 2 others and back, k 2, 1 write, 1 loss", back.clone()),
        ("2 homes to 2 others and back, k 2, 1 conditional", Bounds { conditionals: 1, ..back }),
    ];
    for (what, bounds) in all {
        holds_as_far_as(what, &bounds, LONG);
    }
}
