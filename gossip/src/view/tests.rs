use std::net::SocketAddr;

use annulus_proto::Load;
use proptest::prelude::*;

use super::*;

fn member(id: u64) -> Member {
    Member {
        id: NodeId::from_bits(id),
        incarnation: 1,
        revision: 0,
        status: Status::Up,
        addr: SocketAddr::from(([127, 0, 0, 1], 7_000)),
        name: format!("n{id}"),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    }
}

/// Records whose ranks collide often: few ids, incarnations, revisions and contents.
fn any_member() -> impl Strategy<Value = Member> {
    let status = prop::sample::select(vec![
        Status::Joining,
        Status::Up,
        Status::Draining,
        Status::Down,
        Status::Left,
    ]);
    (0..4u64, 0..3u64, 0..3u32, status, 1..4u16, 0..3u16).prop_map(
        |(id, incarnation, revision, status, port, weight)| Member {
            incarnation,
            revision,
            status,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            weight,
            ..member(id)
        },
    )
}

proptest! {
    #[test]
    fn views_are_equal_whatever_the_order_of_learning(
        (members, shuffled) in prop::collection::vec(any_member(), 0..24)
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
        cut in 0..24usize,
    ) {
        let one: View = members.iter().cloned().collect();
        let other: View = shuffled.iter().cloned().collect();
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.digest(), other.digest());

        // Learning in two halves that then merge, and learning again, change nothing.
        let (left, right) = members.split_at(cut.min(members.len()));
        let mut left: View = left.iter().cloned().collect();
        let right: View = right.iter().cloned().collect();
        for member in right.iter() {
            left.merge(member.clone());
        }
        prop_assert_eq!(&left, &one);
        for member in &shuffled {
            prop_assert!(!left.merge(member.clone()));
        }
        prop_assert_eq!(left.digest(), one.digest());
    }

    #[test]
    fn of_two_different_records_of_one_member_exactly_one_beats_the_other(
        a in any_member(),
        b in any_member(),
        c in any_member(),
    ) {
        let of_one = |m: Member| Member { id: NodeId::from_bits(1), name: String::new(), ..m };
        let (a, b, c) = (of_one(a), of_one(b), of_one(c));
        prop_assert_eq!(a != b, beats(&a, &b) || beats(&b, &a));
        prop_assert!(!(beats(&a, &b) && beats(&b, &a)));
        prop_assert!(!(beats(&a, &b) && beats(&b, &c)) || beats(&a, &c));
    }
}

#[test]
fn the_digest_knows_what_placement_depends_on_and_nothing_else() {
    let base = View::from_iter([member(1), member(2)]);
    let load = Load { cpu_permille: 7, ..Load::default() };
    let busy = View::from_iter([member(1), Member { revision: 9, load, ..member(2) }]);
    assert_eq!(base.digest(), busy.digest());
    let changes = [
        Member { incarnation: 2, ..member(2) },
        Member { status: Status::Draining, revision: 1, ..member(2) },
        Member { zone: "b".into(), revision: 1, ..member(2) },
        Member { weight: 50, revision: 1, ..member(2) },
        Member { rings: 3, revision: 1, ..member(2) },
    ];
    for change in changes {
        let changed = View::from_iter([member(1), member(2), change.clone()]);
        assert_ne!(base.digest(), changed.digest(), "{change:?}");
    }
    assert_eq!(View::new().digest(), 0);
    assert_eq!(base.digest(), GOLDEN, "builds with other digests never agree");
}

const GOLDEN: u64 = 5_949_972_853_853_932_960;

#[test]
fn down_is_a_fact_at_an_incarnation() {
    let mut view = View::from_iter([member(1)]);
    assert!(view.merge(Member { status: Status::Down, ..member(1) }));
    assert!(!view.merge(Member { revision: 99, ..member(1) }));
    assert_eq!(view.active().count(), 0);
    assert!(view.merge(Member { incarnation: 2, ..member(1) }));
    assert_eq!(view.active().count(), 1);
}

#[test]
fn malformed_members_and_those_beyond_the_bound_are_counted_and_ignored() {
    let mut view = View::new();
    assert!(!view.merge(Member { name: "x".repeat(64), ..member(1) }));
    assert!(!view.merge(Member { addr: SocketAddr::from(([0, 0, 0, 0], 1)), ..member(1) }));
    assert!(!view.merge(Member { incarnation: u64::MAX, ..member(1) }));
    assert_eq!((view.len(), view.refused()), (0, 3));
    for id in 0..MEMBERS_MAX as u64 {
        assert!(view.merge(member(id)));
    }
    let digest = view.digest();
    assert!(!view.merge(member(MEMBERS_MAX as u64)));
    assert_eq!((view.len(), view.refused(), view.digest()), (MEMBERS_MAX, 4, digest));
    // Those that are in go on changing.
    assert!(view.merge(Member { incarnation: 2, ..member(7) }));
}
