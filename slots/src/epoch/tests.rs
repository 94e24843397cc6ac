use annulus_proto::Hlc;

use super::*;
use crate::Proposal;

#[test]
fn a_founder_answers_at_once_and_alone() {
    let founded = Seat::founded(founding(1));
    assert!(founded.may_coordinate().is_ok_and(|config| config.homes == [id(1)]));
    assert_eq!(Seat::new(id(1)).may_coordinate(), Err(Refused::OtherEpoch));
}

#[test]
fn a_new_home_stores_and_answers_only_once_it_compared() {
    let first = founding(1);
    let next = Arc::new(first.next(ids([1, 2]), &[]));
    let mut founder = Seat::founded(first);
    let mut joining = Seat::new(id(2));
    assert_eq!(joining.learn(&next), Ok(true));
    assert_eq!(joining.learn(&next), Ok(false));
    assert_eq!(joining.may_store(next.id), Ok(()));
    assert_eq!(joining.may_answer(next.id), Err(Refused::NotReady));
    assert_eq!(joining.wanted(), [id(1)]);
    assert!(joining.wants(id(1)) && !joining.wants(id(2)) && !joining.wants(id(3)));
    // Who does not know the epoch is told of it first, and has sealed its own by then.
    assert_eq!(founder.testify(next.id), Err(Refused::OtherEpoch));
    assert_eq!(founder.learn(&next), Ok(true));
    assert!(founder.is_ready(), "what it had is all there is");
    let ask = joining.ask().unwrap();
    assert!(joining.on_compared(ask, id(1), founder.testify(next.id).unwrap()));
    assert_eq!(joining.may_answer(next.id), Ok(()));
    assert!(joining.wanted().is_empty() && !joining.wants(id(1)));
}

#[test]
fn a_comparison_from_before_a_loss_or_for_another_epoch_does_not_count() {
    let first = founding(1);
    let next = Arc::new(first.next(ids([1, 2]), &[]));
    let mut founder = Seat::founded(first);
    founder.learn(&next).unwrap();
    let testimony = founder.testify(next.id).unwrap();
    let mut joining = Seat::new(id(2));
    joining.learn(&next).unwrap();
    let before = joining.ask().unwrap();
    joining.lose();
    assert!(!joining.on_compared(before, id(1), testimony));
    let after_next = Arc::new(next.next(ids([1, 2]), &[]));
    let ask = joining.ask().unwrap();
    joining.learn(&after_next).unwrap();
    assert!(!joining.on_compared(ask, id(1), testimony));
    assert_eq!(joining.standing(), Standing::Fresh);
}

#[test]
fn a_home_that_lost_its_memory_gets_back_by_the_next_epoch() {
    let [mut one, mut two, mut three] = three();
    let under = one.config().unwrap().id;
    two = Seat::reopened(id(2), two.record(), false);
    assert_eq!((two.standing(), two.may_store(under)), (Standing::Lost, Ok(())));
    assert_eq!(two.may_answer(under), Err(Refused::NotReady));
    assert!(two.wanted().is_empty());
    let next = Arc::new(two.config().unwrap().next(ids([1, 2, 3]), &[]));
    for seat in [&mut one, &mut two, &mut three] {
        seat.learn(&next).unwrap();
        assert_eq!(seat.standing(), Standing::Fresh);
    }
    // Two of three that were ready are enough, and fewer are not.
    assert!(!compare(&mut two, &one, 1));
    assert!(compare(&mut two, &three, 3));
    assert!(!compare(&mut one, &three, 3) || one.is_ready());
    assert!(one.is_ready(), "itself, and the third");
    assert!(two.is_ready());
}

#[test]
fn homes_that_all_lost_their_memory_have_asked_everybody_at_last() {
    let [one, two, three] = three();
    let next = Arc::new(one.config().unwrap().next(ids([1, 2, 3]), &[]));
    let seats = [(1, one), (2, two), (3, three)];
    let mut seats = seats.map(|(node, seat)| Seat::reopened(id(node), seat.record(), false));
    seats.iter_mut().for_each(|seat| assert_eq!(seat.learn(&next), Ok(true)));
    let [one, two, three] = &mut seats;
    assert!(!compare(one, two, 2));
    assert!(compare(one, three, 3));
    assert!(one.is_ready());
}

#[test]
fn who_handed_over_is_not_one_of_those_that_were_asked() {
    let [mut one, mut two, _] = three();
    let next = Arc::new(one.config().unwrap().next(ids([4]), &[]));
    let mut four = Seat::new(id(4));
    four.learn(&next).unwrap();
    one.learn(&next).unwrap();
    two.learn(&next).unwrap();
    one.hand_over();
    assert_eq!(one.testify(next.id).unwrap().before, Some((0, Standing::HandedOver)));
    assert!(!compare(&mut four, &one, 1));
    assert!(!compare(&mut four, &two, 2));
    assert!(!four.is_ready());
}

#[test]
fn what_was_accepted_outlives_restarts_and_only_following_it_seals() {
    let [mut one, ..] = three();
    let config = one.config().unwrap().clone();
    let ballot = one.next_ballot();
    let next = Arc::new(config.next(ids([1, 4, 5]), &[]));
    let successor = Successor::Next(next.clone());
    one.on_accept(config.id, ballot, &successor).unwrap();
    assert_eq!(one.may_answer(config.id), Ok(()), "it may never be chosen");
    for has_memory in [true, false] {
        let mut seat = Seat::reopened(id(1), one.record(), has_memory);
        assert_eq!(seat.accepted(), Some(&successor));
        assert!(seat.next_ballot() > ballot);
        seat.learn(&next).unwrap();
        assert_eq!(seat.may_store(config.id), Err(Refused::OtherEpoch));
        assert_eq!(seat.may_answer(config.id), Err(Refused::OtherEpoch));
        assert_eq!(seat.accepted(), None);
    }
}

#[test]
fn ballots_below_what_was_promised_are_refused_even_after_a_restart() {
    let [mut one, ..] = three();
    let under = one.config().unwrap().id;
    let ballot = |round| Ballot { round, node: id(2) };
    one.on_prepare(under, ballot(5)).unwrap();
    one = Seat::reopened(id(1), one.record(), false);
    assert_eq!(one.on_prepare(under, ballot(4)), Err(Refused::Outbid(ballot(5))));
    let ended = Successor::Ended { into: under };
    assert_eq!(one.on_accept(under, ballot(4), &ended), Err(Refused::Outbid(ballot(5))));
    assert_eq!(one.on_accept(under, ballot(5), &ended), Ok(()));
    let elsewhere = EpochId { number: 9, ..under };
    assert_eq!(one.on_prepare(elsewhere, ballot(9)), Err(Refused::OtherEpoch));
}

#[test]
fn older_epochs_and_other_lineages_are_not_followed() {
    let first = founding(1);
    let second = Arc::new(first.next(ids([1, 2]), &[]));
    let other = founding(3);
    let mut seat = Seat::founded(first.clone());
    assert_eq!(seat.meet(&first), Meeting::Same);
    assert_eq!(seat.meet(&second), Meeting::WeAreBehind);
    assert_eq!(seat.meet(&other), Meeting::TheyYield);
    assert_eq!(Seat::founded(other.clone()).meet(&first), Meeting::WeYield);
    assert_eq!(seat.learn(&other), Err(Behind));
    seat.learn(&second).unwrap();
    assert_eq!(seat.learn(&first), Err(Behind));
    assert_eq!(seat.meet(&first), Meeting::TheyAreBehind);
}

#[test]
fn a_lineage_absorbs_those_that_ended_in_it_and_those_that_ended_in_them() {
    let [one, two, three, four] = [1, 2, 3, 4].map(founding);
    let ending = |config: &Arc<Config>, into: &Arc<Config>| {
        let config = config.clone();
        Ending { config, into: into.id }
    };
    // Three ended in two and two in one; four in nobody that is absorbed here.
    let ended = [ending(&three, &two), ending(&four, &founding(5)), ending(&two, &one)];
    let next = one.next(ids([1, 2]), &ended);
    let sources: Vec<_> = next.sources.iter().map(|source| source.id).collect();
    assert_eq!(sources, [one.id, two.id, three.id]);
    assert!(next.supersedes(two.id) && next.supersedes(three.id) && !next.supersedes(four.id));
    assert!(!next.supersedes(next.id));
    let after = next.next(ids([1, 2]), &ended);
    assert_eq!(after.sources.len(), 1, "what was absorbed is not absorbed again");
    assert!(after.supersedes(three.id));
    let mut seat = Seat::founded(three);
    assert_eq!(seat.learn(&Arc::new(after)), Ok(true), "whoever was away follows all the same");
}

#[test]
fn by_an_operators_word_those_who_are_left_go_on() {
    let [mut one, ..] = three();
    let dead = ids([2, 3]);
    let config = one.config().unwrap().clone();
    let lineage = Version::new(Hlc::from_ms(9), id(1));
    let forced = Arc::new(config.forced(lineage, &dead).unwrap());
    assert_eq!(forced.homes, [id(1)]);
    assert_eq!(config.forced(lineage, &ids([1, 2, 3])), None);
    one.learn(&forced).unwrap();
    assert!(one.is_ready());
    // One that was held for dead comes back, and follows.
    let [_, mut two, _] = three();
    assert_eq!(two.learn(&forced), Ok(true));
    assert!(!two.is_home());
}

#[test]
fn a_successor_never_has_fewer_homes_unless_some_left_for_good() {
    let homes = |now: &[u64], wanted: &[u64], left: &[u64]| {
        let ids = |all: &[u64]| all.iter().map(|bits| id(*bits)).collect::<Vec<_>>();
        let left = ids(left);
        let homes = successor_homes(&ids(now), &ids(wanted), |node| left.contains(&node));
        homes.iter().map(|node| node.bits()).collect::<Vec<_>>()
    };
    assert_eq!(homes(&[1, 2, 3], &[4, 2, 3], &[]), [4, 2, 3], "somebody takes the place");
    assert_eq!(homes(&[1, 2, 3], &[2, 3], &[]), [2, 3, 1], "nobody does: the dead one stays");
    assert_eq!(homes(&[1, 2, 3], &[2, 3], &[1]), [2, 3], "it left");
    assert_eq!(homes(&[1, 2, 3], &[4], &[1]), [4, 2]);
    assert_eq!(homes(&[1, 2], &[1, 2, 3], &[]), [1, 2, 3]);
    assert_eq!(homes(&[1, 2], &[], &[1, 2]), [1, 2], "better they than nobody");
}

#[test]
fn a_home_that_never_was_ready_accepts_nothing() {
    let first = founding(1);
    let second = Arc::new(first.next(ids([1, 2]), &[]));
    let mut joining = Seat::new(id(2));
    joining.learn(&second).unwrap();
    let third = Successor::Next(Arc::new(second.next(ids([2]), &[])));
    let proposal = Proposal::begin(&mut joining, third.clone()).unwrap();
    let refused = joining.on_accept(second.id, proposal.ballot(), &third);
    assert_eq!(refused, Err(Refused::NotReady));
    joining.lose();
    assert_eq!(joining.standing(), Standing::Blank);
    let refused = joining.on_accept(second.id, proposal.ballot(), &third);
    assert_eq!(refused, Err(Refused::NotReady));
}

#[test]
fn what_cannot_have_come_about_is_told_from_what_can() {
    let first = founding(1);
    let second = first.next(ids([1, 2]), &[]);
    let forced = second.forced(Version::new(Hlc::from_ms(9), id(2)), &ids([1])).unwrap();
    let third = second.next(ids([2, 3, 4]), &[]);
    for config in [&*first, &second, &forced, &third, &forced.next(ids([2]), &[])] {
        assert!(config.is_well_formed(), "{config:?}");
    }
    let with = |change: fn(&mut Config)| {
        let mut config = third.clone();
        change(&mut config);
        config
    };
    let broken: [fn(&mut Config); 9] = [
        |it| it.homes.clear(),
        |it| it.homes.push(id(2)),
        |it| it.homes.extend((10..20).map(id)),
        |it| it.id.number = 0,
        |it| it.id.number = u64::MAX,
        |it| it.sources.clear(),
        |it| it.sources[0].homes.clear(),
        |it| it.sources[0].written_off = Some(ids([9])),
        |it| it.sources = vec![it.sources[0].clone(); SOURCES_MAX + 1],
    ];
    for change in broken {
        assert!(!with(change).is_well_formed(), "{:?}", with(change));
    }
}

#[test]
fn of_too_many_lineages_that_ended_the_rest_waits() {
    let first = founding(1);
    let ending = |node| Ending { config: founding(node), into: first.id };
    let ended: Vec<_> = (2..102).map(ending).collect();
    let second = first.next(ids([1]), &ended);
    assert_eq!(second.sources.len(), SOURCES_MAX - 1);
    let forced = second.forced(Version::new(Hlc::from_ms(999), id(1)), &ids([2])).unwrap();
    assert!(second.is_well_formed() && forced.is_well_formed());
    let third = second.next(ids([1]), &ended);
    assert!((1..102).all(|node| third.supersedes(founding(node).id)));
}

#[test]
fn ballots_and_epochs_out_of_range_panic_nowhere() {
    let mut founder = Seat::founded(founding(1));
    let under = founder.config().unwrap().id;
    let ballot = |round| Ballot { round, node: id(2) };
    assert_eq!(founder.on_prepare(under, ballot(u64::MAX)), Err(Refused::OutOfRange));
    assert!(founder.on_prepare(under, ballot(COUNT_MAX)).is_ok());
    let beyond = founder.next_ballot();
    assert_eq!(founder.on_prepare(under, beyond), Err(Refused::OutOfRange));
    let last = EpochId { number: u64::MAX, ..under };
    let config = Config { id: last, ..(*founding(1)).clone() };
    assert_eq!(config.next(ids([1]), &[]).id.number, u64::MAX);
}

fn compare(asking: &mut Seat, asked: &Seat, node: u64) -> bool {
    let ask = asking.ask().unwrap();
    asking.on_compared(ask, id(node), asked.testify(ask.under).unwrap())
}

/// Three homes of one epoch, all ready.
fn three() -> [Seat; 3] {
    let config = Arc::new(founding(1).next(ids([1, 2, 3]), &[]));
    let mut seats = [1, 2, 3].map(|node| Seat::new(id(node)));
    seats[0] = Seat::founded(founding(1));
    seats.iter_mut().for_each(|seat| assert_eq!(seat.learn(&config), Ok(true)));
    let [one, two, three] = &mut seats;
    assert!(compare(two, one, 1) && compare(three, one, 1));
    seats
}

fn founding(node: u64) -> Arc<Config> {
    Arc::new(Config::founding(Version::new(Hlc::from_ms(node), id(node))))
}

fn ids<const N: usize>(bits: [u64; N]) -> Vec<NodeId> {
    bits.map(id).to_vec()
}

fn id(bits: u64) -> NodeId {
    NodeId::from_bits(bits)
}
