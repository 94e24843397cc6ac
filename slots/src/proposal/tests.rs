use annulus_proto::{Hlc, Version};

use super::*;

#[test]
fn a_majority_of_all_homes_decides() {
    let mut seats = three();
    let wanted = successor(&seats[0], 4);
    let mut proposal = Proposal::begin(&mut seats[0], wanted.clone()).unwrap();
    assert_eq!(proposal.to_accept(), None, "its own promise is one of three");
    prepare(&mut proposal, &mut seats[1]);
    assert_eq!(proposal.to_accept(), Some(&wanted));
    accept(&mut proposal, &mut seats[2]);
    accept(&mut proposal, &mut seats[2]);
    assert_eq!(proposal.chosen(), None, "one, twice");
    accept(&mut proposal, &mut seats[0]);
    assert_eq!(proposal.chosen(), Some(&wanted));
}

#[test]
fn what_may_have_been_chosen_is_proposed_again() {
    let mut seats = three();
    let first = successor(&seats[0], 4);
    let mut one = Proposal::begin(&mut seats[0], first.clone()).unwrap();
    prepare(&mut one, &mut seats[1]);
    accept(&mut one, &mut seats[0]);
    // It got no further; another home wants something else.
    let wanted = successor(&seats[2], 5);
    let mut other = Proposal::begin(&mut seats[2], wanted).unwrap();
    assert!(other.ballot() > one.ballot());
    prepare(&mut other, &mut seats[0]);
    assert_eq!(other.to_accept(), Some(&first));
    // Promised to the greater ballot, the homes refuse the first one.
    let under = one.under();
    let refused = seats[0].on_accept(under, one.ballot(), &first);
    assert_eq!(refused, Err(Refused::Outbid(other.ballot())));
}

#[test]
fn answers_of_strangers_and_of_other_ballots_do_not_count() {
    let mut seats = three();
    let wanted = successor(&seats[0], 4);
    let mut proposal = Proposal::begin(&mut seats[0], wanted.clone()).unwrap();
    let (under, ballot) = (proposal.under(), proposal.ballot());
    let promise = seats[1].on_prepare(under, ballot).unwrap();
    proposal.on_promise(id(9), &promise);
    let other = Ballot { round: 9, ..ballot };
    proposal.on_promise(id(2), &Promise { ballot: other, ..promise.clone() });
    assert_eq!(proposal.to_accept(), None);
    proposal.on_accepted(id(2), under, ballot);
    proposal.on_promise(id(2), &promise);
    proposal.on_accepted(id(9), under, ballot);
    proposal.on_accepted(id(2), under, other);
    proposal.on_accepted(id(3), under, ballot);
    assert_eq!(proposal.chosen(), None);
    assert!(proposal.has_answer_of(id(3)) && !proposal.has_answer_of(id(2)));
    proposal.on_accepted(id(1), under, ballot);
    assert_eq!(proposal.chosen(), Some(&wanted));
}

#[test]
fn only_homes_propose() {
    let config = three()[0].config().unwrap().clone();
    let wanted = Successor::Next(Arc::new(config.next(vec![id(1)], &[])));
    let mut stranger = Seat::new(id(9));
    assert_eq!(Proposal::begin(&mut stranger, wanted.clone()), Err(Refused::OtherEpoch));
    stranger.learn(&config).unwrap();
    assert_eq!(Proposal::begin(&mut stranger, wanted), Err(Refused::NotHome));
}

fn prepare(proposal: &mut Proposal, seat: &mut Seat) {
    let promise = seat.on_prepare(proposal.under(), proposal.ballot()).unwrap();
    proposal.on_promise(seat.next_ballot().node, &promise);
}

fn accept(proposal: &mut Proposal, seat: &mut Seat) {
    let successor = proposal.to_accept().unwrap().clone();
    seat.on_accept(proposal.under(), proposal.ballot(), &successor).unwrap();
    proposal.on_accepted(seat.next_ballot().node, proposal.under(), proposal.ballot());
}

fn successor(seat: &Seat, home: u64) -> Successor {
    Successor::Next(Arc::new(seat.config().unwrap().next(vec![id(home)], &[])))
}

/// Three homes of one epoch, all ready.
fn three() -> [Seat; 3] {
    let lineage = Version::new(Hlc::from_ms(1), id(1));
    let homes = [1, 2, 3].map(id).to_vec();
    let config = Arc::new(Config { homes, ..Config::founding(lineage) });
    [1, 2, 3].map(|node| {
        let seat = Seat::founded(config.clone());
        Seat::reopened(id(node), seat.record(), true)
    })
}

fn id(bits: u64) -> NodeId {
    NodeId::from_bits(bits)
}
