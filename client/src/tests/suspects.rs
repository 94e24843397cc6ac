use std::time::Duration;

use annulus_proto::message::{
    Failure, Judge, Members, Message, Rejected, Sentence, SessionReply, Suspect, Suspects,
};
use annulus_proto::{Key, Load, Member, Slot, Status};
use tokio::time::timeout;

use super::fake::{Arrived, FakeNode, birth, builder, client, routed, routes, version};
use crate::{Client, Error, SuspectChange, SuspectList, SuspectName, SuspectWatch};

const SHORT: Duration = Duration::from_millis(200);
const PERIOD: Duration = Duration::from_millis(1);

fn suspect(word: u64, judged: u64, heat: u32) -> Suspect {
    let (birth, judged, owner) = (birth(), version(judged), b"ada".to_vec());
    Suspect { word, birth, judged, until: 70_000, left_ms: 60_000, heat, owner }
}

fn page(suspects: &[Suspect], next: Option<(u16, Option<u64>)>) -> Suspects {
    Suspects { suspects: suspects.to_vec(), next }
}

fn member(node: &FakeNode, status: Status) -> Member {
    Member {
        id: node.id,
        incarnation: 1,
        revision: 1,
        status,
        addr: node.addr,
        name: node.id.to_string(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    }
}

pub(super) fn members(nodes: &[(&FakeNode, Status)]) -> Members {
    let members = nodes.iter().map(|(node, status)| member(node, *status)).collect();
    Members { node: nodes[0].0.id, view: 0, members }
}

/// Where a page that is asked for begins.
fn place(arrived: &Arrived) -> (u16, Option<u64>) {
    match &arrived.message {
        Message::SuspectsRequest(request) => {
            assert_eq!(request.table, "sessions");
            (request.core, request.after)
        }
        other => panic!("a request for suspects, not {}", other.name()),
    }
}

fn judged(arrived: &Arrived) -> &Judge {
    match &arrived.message {
        Message::Judge(judge) => judge,
        other => panic!("a sentence, not {}", other.name()),
    }
}

fn absent() -> SessionReply {
    SessionReply::Failed(Failure::Absent)
}

/// A word of the slot of `k`.
fn word() -> u64 {
    Key::new("k").unwrap().word()
}

#[test]
fn names_stand_for_words_and_nothing_else_does() {
    let key = Key::new("k").unwrap();
    let name = SuspectName::of_key(&key);
    assert_eq!(name.word(), key.word());
    assert!(name.to_string().starts_with("7629-"), "{name}");
    let words = [0, 1, (1 << 47) - 1, 1 << 47, (16_384 << 47) - 1];
    for word in words.into_iter().chain([key.word()]) {
        assert_eq!(SuspectName::of_word(word).to_string().parse(), Ok(SuspectName::of_word(word)));
        assert!(Slot::of_word(word).is_some());
    }
    let shown = words.map(|word| SuspectName::of_word(word).to_string());
    let expected = [
        "0-000000000000",
        "0-000000000001",
        "0-7fffffffffff",
        "1-000000000000",
        "16383-7fffffffffff",
    ];
    assert_eq!(shown, expected);
    for garbage in [
        "",
        "-",
        "7629",
        "7629-",
        "-00a1b2c3d4e5",
        "16384-000000000000",
        "-1-000000000000",
        "+1-000000000000",
        "01-000000000000",
        "1-00000000000",
        "1-0000000000000",
        "1-800000000000",
        "1-00A1B2C3D4E5",
        "1-+0a1b2c3d4e5",
        "1--0a1b2c3d4e5",
        "1-00a1b2c3d4eg",
        " 1-00a1b2c3d4e5",
        "1-00a1b2c3d4e5 ",
        "1_00a1b2c3d4e5",
        "1-00a1b2c3d4é5",
    ] {
        assert!(garbage.parse::<SuspectName>().is_err(), "{garbage}");
    }
    // No word has it, and it can be shown all the same.
    assert_eq!(SuspectName::of_word(u64::MAX).to_string(), "131071-7fffffffffff");
}

#[tokio::test]
async fn a_list_has_the_pages_of_all_who_take_part_and_each_suspect_once() {
    let (mut one, mut two) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let mut left = FakeNode::start(3).await;
    let client = client(&one).await;
    let members = members(&[(&one, Status::Up), (&two, Status::Draining), (&left, Status::Left)]);
    let (list, (), ()) = tokio::join!(
        client.sessions().suspects(),
        async {
            one.next().await.answer(members);
            let first = one.next().await;
            assert_eq!(place(&first), (0, None));
            first.answer(page(&[suspect(3, 9, 5), suspect(5, 8, 1)], Some((0, Some(5)))));
            let second = one.next().await;
            assert_eq!(place(&second), (0, Some(5)));
            second.answer(page(&[suspect(7, 7, 7)], Some((1, None))));
            let third = one.next().await;
            assert_eq!(place(&third), (1, None));
            third.answer(page(&[suspect(1, 7, 2)], None));
        },
        async {
            // Its verdict on one is older, and on the other later.
            let other = Suspect { birth: version(4), ..suspect(7, 7, 7) };
            let suspects = [suspect(3, 8, 9), suspect(5, 9, 0), other];
            two.next().await.answer(page(&suspects, None));
        },
    );
    let other = Suspect { birth: version(4), ..suspect(7, 7, 7) };
    let suspects =
        vec![suspect(1, 7, 2), suspect(3, 9, 9), suspect(5, 9, 1), suspect(7, 7, 7), other];
    assert_eq!(list.unwrap(), SuspectList { suspects, silent: Vec::new() });
    assert!(left.arrived.try_recv().is_err());

    let at_one = client.sessions().at(one.addr);
    let (list, ()) = tokio::join!(at_one.suspects(), async {
        one.next().await.answer(page(&[suspect(3, 9, 5)], None));
    });
    assert_eq!(list.unwrap().suspects, [suspect(3, 9, 5)]);
}

#[tokio::test]
async fn members_that_do_not_answer_are_named_unless_nobody_does() {
    let (mut one, gone) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let mut garbage = FakeNode::start(3).await;
    let client = client(&one).await;
    let members = members(&[(&one, Status::Up), (&gone, Status::Up), (&garbage, Status::Up)]);
    let silent = vec![gone.id, garbage.id];
    gone.stop().await;
    let (list, (), ()) = tokio::join!(
        client.sessions().suspects(),
        async {
            one.next().await.answer(members.clone());
            one.next().await.answer(page(&[suspect(3, 9, 5)], None));
        },
        // It would go on for ever.
        async { garbage.next().await.answer(page(&[], Some((0, None)))) },
    );
    assert_eq!(list.unwrap(), SuspectList { suspects: vec![suspect(3, 9, 5)], silent });

    let rejected = Rejected::Malformed { why: "takes the role monitor".to_owned() };
    let reject = |arrived: Arrived| arrived.answer(rejected.clone());
    let (list, (), ()) = tokio::join!(
        client.sessions().suspects(),
        async {
            one.next().await.answer(members);
            reject(one.next().await);
        },
        async { reject(garbage.next().await) },
    );
    let error = list.unwrap_err();
    assert!(matches!(&error, Error::Rejected { reason, .. } if *reason == rejected), "{error}");
}

#[tokio::test]
async fn a_sentence_goes_from_home_to_home_until_one_knows_of_the_suspect() {
    let (mut first, second) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let mut third = FakeNode::start(3).await;
    first.set_routes(routes(1, &[&first, &second, &third]));
    let client = routed(builder([first.seed()])).await;
    second.stop().await;
    let table = client.sessions();
    let (released, ()) = tokio::join!(table.release(word(), birth(), SHORT), async {
        first.next().await.answer(absent());
        let arrived = third.next().await;
        let Judge { table, word: judged_word, birth: judged_birth, patience_ms, sentence } =
            judged(&arrived);
        assert_eq!((table.as_str(), *judged_word, *judged_birth), ("sessions", word(), birth()));
        assert_eq!(*sentence, Sentence::Release { for_ms: 200 });
        assert!((1_000..2_000).contains(patience_ms), "{patience_ms}");
        arrived.acknowledge(version(3));
    });
    released.unwrap();

    let (ended, ()) = tokio::join!(table.end_suspect(word(), birth()), async {
        let arrived = first.next().await;
        assert_eq!(judged(&arrived).sentence, Sentence::End);
        arrived.acknowledge(version(3));
    });
    ended.unwrap();
    assert!(third.arrived.try_recv().is_err(), "one home is enough");
    // No key has such a word.
    assert_eq!(table.end_suspect(u64::MAX, birth()).await, Err(Error::Absent));
}

#[tokio::test]
async fn what_homes_say_of_a_sentence_is_told() {
    let (mut first, mut second) = (FakeNode::start(1).await, FakeNode::start(2).await);
    first.set_routes(routes(1, &[&first, &second]));
    let client = routed(builder([first.seed()])).await;
    let table = client.sessions();
    let unavailable = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
    let homeless = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };
    for (answers, expected) in [
        (vec![Failure::Absent, Failure::Absent], Error::Absent),
        (vec![unavailable.clone()], unavailable.into()),
        (vec![homeless, Failure::Absent], Error::Absent),
        (vec![Failure::Ended], Error::Ended),
    ] {
        let (ended, ()) = tokio::join!(table.end_suspect(word(), birth()), async {
            for (index, answer) in answers.iter().enumerate() {
                let home = if index == 0 { &mut first } else { &mut second };
                home.next().await.answer(SessionReply::Failed(answer.clone()));
            }
        });
        assert_eq!(ended, Err(expected));
    }
    // Without the role, as each of them says.
    let (ended, ()) = tokio::join!(table.end_suspect(word(), birth()), async {
        for home in [&mut first, &mut second] {
            home.next().await.answer(Rejected::Malformed { why: "no".to_owned() });
        }
    });
    assert!(matches!(ended, Err(Error::Rejected { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_sentence_without_an_answer_may_have_been_carried_out() {
    let (mut first, mut second) = (FakeNode::start(1).await, FakeNode::start(2).await);
    first.set_routes(routes(1, &[&first, &second]));
    let client = routed(builder([first.seed()]).timeout(SHORT)).await;
    let (ended, ()) = tokio::join!(client.sessions().end_suspect(word(), birth()), async {
        first.next().await;
        second.next().await.answer(absent());
    });
    assert_eq!(ended, Err(Error::TimedOut));
}

/// Has a watch look once at what the one node lists, and returns the changes.
async fn look<const N: usize>(
    watch: &mut SuspectWatch,
    node: &mut FakeNode,
    (members, listed): (&Members, &[Suspect]),
) -> [SuspectChange; N] {
    let mut changes = Vec::new();
    let answers = async {
        node.next().await.answer(members.clone());
        node.next().await.answer(page(listed, None));
    };
    let next = async {
        for _ in 0..N {
            changes.push(watch.next().await.unwrap());
        }
    };
    tokio::join!(next, answers);
    changes.try_into().expect("as many as were asked for")
}

async fn watched() -> (FakeNode, Client, SuspectWatch) {
    let node = FakeNode::start(1).await;
    let client = client(&node).await;
    let watch = client.sessions().watch_suspects(PERIOD);
    (node, client, watch)
}

#[tokio::test]
async fn a_watch_tells_of_each_change_once_and_in_order() {
    let (mut node, _client, mut watch) = watched().await;
    let members = members(&[(&node, Status::Up)]);
    let listed = [suspect(5, 5, 9), suspect(1, 5, 9), suspect(3, 5, 9)];
    let changes = look(&mut watch, &mut node, (&members, &listed)).await;
    assert_eq!(changes, [1, 3, 5].map(|word| SuspectChange::Appeared(suspect(word, 5, 9))));
    // Hotter is no change; an older verdict is one of a home that lags behind.
    let again = Suspect { birth: version(4), ..suspect(5, 9, 9) };
    let listed = [suspect(1, 5, 50), suspect(2, 6, 9), suspect(3, 4, 9), again.clone()];
    let changes = look(&mut watch, &mut node, (&members, &listed)).await;
    let gone = SuspectChange::Gone(suspect(5, 5, 9));
    let appeared = SuspectChange::Appeared;
    assert_eq!(changes, [gone, appeared(suspect(2, 6, 9)), appeared(again)]);
    let changes = look(&mut watch, &mut node, (&members, &[suspect(3, 6, 1)])).await;
    let again = Suspect { birth: version(4), ..suspect(5, 9, 9) };
    let [one, two, five] = [suspect(1, 5, 50), suspect(2, 6, 9), again].map(SuspectChange::Gone);
    assert_eq!(changes, [one, two, five, SuspectChange::Extended(suspect(3, 6, 1))]);
    let changes = look(&mut watch, &mut node, (&members, &[])).await;
    assert_eq!(changes, [SuspectChange::Gone(suspect(3, 6, 1))]);
    assert_eq!(changes[0].suspect().word, 3);
}

#[tokio::test]
async fn a_suspect_out_of_sight_is_not_gone_before_its_time() {
    let (mut node, _client, mut watch) = watched().await;
    let other = FakeNode::start(2).await;
    let both = members(&[(&node, Status::Up), (&other, Status::Up)]);
    other.stop().await;
    let alone = members(&[(&node, Status::Up)]);
    let over = Suspect { left_ms: 0, ..suspect(1, 5, 9) };
    let listed = [over.clone(), suspect(2, 5, 9)];
    let _: [SuspectChange; 2] = look(&mut watch, &mut node, (&alone, &listed)).await;
    let changes = look(&mut watch, &mut node, (&both, &[])).await;
    assert_eq!(changes, [SuspectChange::Gone(over)]);
    let changes = look(&mut watch, &mut node, (&alone, &[])).await;
    assert_eq!(changes, [SuspectChange::Gone(suspect(2, 5, 9))]);
}

#[tokio::test]
async fn a_watch_outlives_errors_and_callers_that_stop_waiting() {
    let (mut node, _client, mut watch) = watched().await;
    let members = members(&[(&node, Status::Up)]);
    let (failed, ()) = tokio::join!(watch.next(), async {
        node.next().await.answer(members.clone());
        node.next().await.answer(Rejected::Malformed { why: "no".to_owned() });
    });
    assert!(matches!(failed, Err(Error::Rejected { .. })), "{failed:?}");
    timeout(SHORT, watch.next()).await.expect_err("nobody answers");
    let unanswered = node.next().await;
    assert!(matches!(unanswered.message, Message::MembersRequest(_)));
    let changes = look(&mut watch, &mut node, (&members, &[suspect(1, 5, 9)])).await;
    assert_eq!(changes, [SuspectChange::Appeared(suspect(1, 5, 9))]);
    let shown = format!("{watch:?}");
    assert!(shown.contains("known: 1"), "{shown}");
}
