use annulus_proto::Key;
use annulus_proto::message::{
    Acknowledged, Failure, Listed, Message, Operation, Owned, OwnedPlace, OwnedSession,
    SessionReply,
};

use super::fake::{Arrived, FakeNode, birth, client, version};
use super::suspects::members;
use crate::owned::beyond;
use crate::{Error, Status, Version};

fn session(key: &str, born: u64, touched: u64, size: u64) -> OwnedSession {
    let (birth, version) = (version(born), version(born + 1));
    let key = Key::new(key).unwrap();
    let listed = Listed { key, birth, version, touched, deadline: touched + 9, size };
    OwnedSession { listed, ring: 0 }
}

fn page(sessions: &[OwnedSession], next: Option<OwnedPlace>) -> Owned {
    Owned { sessions: sessions.to_vec(), next, write_homes: 2 }
}

#[track_caller]
fn asked_for(arrived: &Arrived) -> OwnedPlace {
    match &arrived.message {
        Message::OwnedRequest(request) => {
            assert_eq!((&request.table[..], &request.owner[..]), ("sessions", &b"ada"[..]));
            request.place
        }
        other => panic!("a request for somebody's sessions, not {}", other.name()),
    }
}

/// The key and birth of a session that is to end.
#[track_caller]
fn to_end(arrived: &Arrived) -> (Key, Option<Version>) {
    match &arrived.message {
        Message::SessionRequest(request) => match request.operation {
            Operation::End { birth } => (request.key.clone(), birth),
            ref other => panic!("an end, not {other:?}"),
        },
        other => panic!("an end, not {}", other.name()),
    }
}

#[tokio::test]
async fn a_list_has_each_session_once_as_the_copy_that_knows_most() {
    let (mut one, mut two) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let client = client(&one).await;
    let members = members(&[(&one, Status::Up), (&two, Status::Up)]);
    let second = OwnedPlace { core: 0, ring: 1, after: Some(7) };
    let (list, (), ()) = tokio::join!(
        client.sessions().sessions_of("ada"),
        async {
            one.next().await.answer(members);
            let first = one.next().await;
            assert_eq!(asked_for(&first), OwnedPlace::default());
            first.answer(page(&[session("a", 3, 50, 0), session("b", 3, 20, 4)], Some(second)));
            let rest = one.next().await;
            assert_eq!(asked_for(&rest), second);
            rest.answer(page(&[session("a", 3, 10, 8)], None));
        },
        async {
            // One was begun anew since, and is told first or last.
            let sessions = [session("b", 5, 5, 1), session("c", 1, 1, 1)];
            two.next().await.answer(page(&sessions, None));
        },
    );
    let list = list.unwrap();
    let a = session("a", 3, 50, 8);
    assert_eq!(list.sessions, [a, session("b", 5, 5, 1), session("c", 1, 1, 1)]);
    assert!(list.is_complete && list.silent.is_empty());
}

#[tokio::test]
async fn pages_that_come_to_no_end_are_an_error() {
    let mut one = FakeNode::start(1).await;
    let client = client(&one).await;
    let members = members(&[(&one, Status::Up)]);
    let (list, ()) = tokio::join!(client.sessions().sessions_of("ada"), async {
        one.next().await.answer(members);
        one.next().await.answer(page(&[], Some(OwnedPlace::default())));
    });
    assert!(matches!(list, Err(Error::Protocol { .. })), "{list:?}");
}

#[tokio::test]
async fn all_but_one_are_ended_each_by_its_birth_and_what_may_be_missing_is_said() {
    let (mut one, two) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let three = FakeNode::start(3).await;
    let client = client(&one).await;
    let silent = |count: usize| {
        let all = [(&one, Status::Up), (&two, Status::Up), (&three, Status::Up)];
        members(&all[..=count])
    };
    let (few, many) = (silent(1), silent(2));
    two.stop().await;
    three.stop().await;
    let done = || {
        let (birth, version) = (birth(), version(9));
        SessionReply::Acknowledged(Acknowledged { birth, version, held_by: 2, homes: 3 })
    };
    for (members, is_complete) in [(few, true), (many, false)] {
        let (ended, ()) =
            tokio::join!(client.sessions().end_sessions_of("ada", Some(b"b")), async {
                one.next().await.answer(members);
                let sessions = ["a", "b", "c", "d"]
                    .map(|key| session(key, u64::from(key.as_bytes()[0]), 1, 1));
                one.next().await.answer(page(&sessions, None));
                let mut asked = Vec::new();
                for _ in 0..3 {
                    let arrived = one.next().await;
                    let (key, birth) = to_end(&arrived);
                    assert_eq!(birth, Some(version(u64::from(key.as_bytes()[0]))));
                    // Another has ended it meanwhile.
                    match key.as_bytes() {
                        b"c" => arrived.answer(SessionReply::Failed(Failure::Ended)),
                        _ => arrived.answer(done()),
                    }
                    asked.push(key);
                }
                asked.sort();
                assert_eq!(asked, ["a", "c", "d"].map(|key| Key::new(key).unwrap()));
            });
        match is_complete {
            true => assert_eq!(ended, Ok(2)),
            false => {
                assert_eq!(ended, Err(Error::Unavailable { answered: 0, needed: 1, homes: 2 }))
            }
        }
    }
}

#[track_caller]
fn assert_beyond(most: usize, begun: Option<u64>, expected: &[&str]) {
    let sessions = [("a", 1, 90), ("b", 2, 20), ("c", 3, 30), ("d", 4, 20), ("e", 5, 50)];
    let sessions = sessions.map(|(key, born, touched)| session(key, born, touched, 1));
    let begun = begun.map(version);
    let ended = beyond(sessions.to_vec(), most, begun);
    let keys: Vec<_> =
        ended.iter().map(|it| str::from_utf8(it.listed.key.as_bytes()).unwrap()).collect();
    assert_eq!(keys, expected, "at most {most}, {begun:?}");
}

#[test]
fn those_used_longest_ago_are_too_many() {
    assert_beyond(0, None, &["a", "e", "c", "d", "b"]);
    assert_beyond(1, None, &["e", "c", "d", "b"]);
    assert_beyond(3, None, &["d", "b"]);
    assert_beyond(4, None, &["b"]);
    assert_beyond(5, None, &[]);
    assert_beyond(usize::MAX, None, &[]);
}

#[test]
fn who_begins_a_session_ends_neither_that_one_nor_a_later_one() {
    assert_beyond(1, Some(5), &["a", "c", "d", "b"]);
    assert_beyond(3, Some(5), &["d", "b"]);
    // One began at the same time, and counts.
    assert_beyond(3, Some(4), &["c", "b"]);
    assert_beyond(1, Some(4), &["a", "c", "b"]);
    assert_beyond(0, Some(1), &[]);
}
