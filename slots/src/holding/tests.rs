use super::*;

#[test]
fn a_copy_is_dropped_with_the_receipts_of_k_nodes() {
    let (mut leaving, attempt) = draining();
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, anybody));
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, anybody), "the same node again");
    assert_eq!(leaving.phase(), Phase::Drain);
    assert!(leaving.on_receipt(receipt(3, attempt), 2, anybody));
    assert_eq!(leaving.phase(), Phase::None);
    assert!(!leaving.on_receipt(receipt(4, attempt), 2, anybody), "there is nothing to drop");
}

#[test]
fn no_number_of_receipts_asked_for_is_none() {
    let (mut leaving, attempt) = draining();
    assert!(!leaving.on_receipt(receipt(2, attempt), 0, nobody));
    assert_eq!(leaving.phase(), Phase::Drain);
}

#[test]
fn receipts_of_another_attempt_do_not_count() {
    let (mut leaving, first) = draining();
    assert!(!leaving.on_receipt(receipt(2, first), 2, anybody));
    leaving.take_up();
    assert_eq!((leaving.attempt(), leaving.may_store()), (None, true));
    let second = leaving.begin_drain(7).unwrap();
    assert!(second > first);
    assert!(!leaving.on_receipt(receipt(3, first), 2, anybody));
    assert!(!leaving.on_receipt(receipt(3, second), 2, anybody));
    let third = leaving.renew(7).unwrap();
    assert!(third > second);
    assert!(leaving.receipts().is_empty());
    assert!(!leaving.on_receipt(receipt(2, second), 1, anybody));
    assert!(leaving.on_receipt(receipt(2, third), 1, anybody));
}

#[test]
fn receipts_of_who_is_gone_are_forgotten() {
    let (mut leaving, attempt) = draining();
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, anybody));
    assert!(!leaving.on_receipt(receipt(3, attempt), 2, |node, _| node != id(2)));
    assert_eq!(leaving.receipts(), [receipt(3, attempt)]);
    // It restarted meanwhile, and what it said before comes late.
    let again = Receipt { incarnation: 2, ..receipt(2, attempt) };
    let is_current = |node, incarnation| node != id(2) || incarnation == 2;
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, is_current));
    assert!(leaving.on_receipt(again, 2, is_current));
}

#[test]
fn a_later_receipt_of_a_node_is_not_replaced_by_an_earlier_one() {
    let (mut leaving, attempt) = draining();
    let again = Receipt { incarnation: 2, ..receipt(2, attempt) };
    assert!(!leaving.on_receipt(again, 2, anybody));
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, anybody));
    assert_eq!(leaving.receipts(), [again]);
}

#[test]
fn who_drains_has_nothing_or_is_not_ready_gives_no_receipt() {
    let (leaving, attempt) = draining();
    let give = |holding: &Holding, ready| holding.on_offer(attempt, id(2), 1, ready);
    assert_eq!(give(&leaving, true), None);
    assert_eq!(give(&Holding::new(), true), None);
    assert_eq!(give(&Holding::reopened(true), false), None);
    assert_eq!(give(&Holding::reopened(true), true), Some(receipt(2, attempt)));
}

#[test]
fn a_change_begins_a_new_attempt_only_while_draining() {
    let mut holding = Holding::reopened(true);
    assert_eq!(holding.renew(7), None);
    assert_eq!(holding.phase(), Phase::Hold);
    let mut nothing = Holding::new();
    assert_eq!((nothing.begin_drain(7), nothing.renew(7)), (None, None));
}

#[test]
fn draining_again_goes_on_with_the_attempt_under_way() {
    let (mut leaving, attempt) = draining();
    assert!(!leaving.on_receipt(receipt(2, attempt), 2, anybody));
    assert_eq!(leaving.begin_drain(7), Some(attempt));
    assert_eq!(leaving.receipts().len(), 1);
    assert!(!leaving.may_store());
}

fn draining() -> (Holding, Attempt) {
    let mut holding = Holding::reopened(true);
    let attempt = holding.begin_drain(7).unwrap();
    (holding, attempt)
}

fn receipt(from: u64, attempt: Attempt) -> Receipt {
    Receipt { from: id(from), incarnation: 1, attempt }
}

fn id(bits: u64) -> NodeId {
    NodeId::from_bits(bits)
}

fn anybody(_: NodeId, _: u64) -> bool {
    true
}

fn nobody(_: NodeId, _: u64) -> bool {
    false
}
