use annulus_proto::message::{Acknowledged, Change, Failure, Operation, Session, SessionReply};
use annulus_proto::{Attributes, Key, Replaced, Value};

use super::fake::{FakeNode, birth, client, version};
use crate::{Error, Rotated, Version};

fn old(seen: u64, value: &str) -> SessionReply {
    SessionReply::Session(Session {
        birth: birth(),
        version: version(seen),
        deadline: 90_000,
        touched: 30_000,
        idle: 60_000,
        expire_at: 95_000,
        attributes: Attributes { replicas: 5, owner: b"ada".to_vec() },
        pin: None,
        field_deadlines: Default::default(),
        value: Value::Bytes(value.as_bytes().to_vec()),
    })
}

fn done(birth: Version, seen: u64) -> SessionReply {
    SessionReply::Acknowledged(Acknowledged { birth, version: version(seen), held_by: 2, homes: 3 })
}

fn failed(failure: Failure) -> SessionReply {
    SessionReply::Failed(failure)
}

/// Answers requests, each of which is to be about this key and this operation.
async fn play(node: &mut FakeNode, script: Vec<(&str, Operation, SessionReply)>) {
    for (key, operation, reply) in script {
        let arrived = node.next().await;
        let request = arrived.session();
        assert_eq!((&request.key, &request.operation), (&Key::new(key).unwrap(), &operation));
        arrived.answer(reply);
    }
    assert!(node.arrived.try_recv().is_err(), "more was asked for");
}

fn instead(value: &str) -> Operation {
    Operation::StartInstead {
        replaced: Replaced { word: Key::new("old").unwrap().word(), birth: birth() },
        value: Value::Bytes(value.as_bytes().to_vec()),
        idle: 60_000,
        expire_at: 95_000,
        attributes: Attributes { replicas: 5, owner: b"ada".to_vec() },
    }
}

fn end_if(seen: u64) -> Operation {
    Operation::EndIf { version: version(seen) }
}

async fn rotated(script: Vec<(&str, Operation, SessionReply)>) -> Result<Rotated, Error> {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let (rotated, ()) = tokio::join!(
        client.sessions().rotate("old", Some(birth()), "new"),
        play(&mut node, script)
    );
    rotated
}

#[tokio::test]
async fn the_new_one_begins_first_with_all_that_the_old_one_was() {
    let script = vec![
        ("old", Operation::Get, old(3, "v")),
        ("new", instead("v"), done(version(9), 9)),
        ("old", end_if(3), done(birth(), 10)),
    ];
    let rotated = rotated(script).await.unwrap();
    assert!(rotated.has_ended);
    assert_eq!((rotated.begun.birth, rotated.begun.version), (version(9), version(9)));
}

#[tokio::test]
async fn who_logs_in_owns_what_was_somebody_elses_or_nobodys() {
    let mut of_bob = instead("v");
    if let Operation::StartInstead { attributes, .. } = &mut of_bob {
        attributes.owner = b"bob".to_vec();
    }
    let script = vec![
        ("old", Operation::Get, old(3, "v")),
        ("new", of_bob, done(version(9), 9)),
        ("old", end_if(3), done(birth(), 10)),
    ];
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let (rotated, ()) = tokio::join!(
        client.sessions().rotate_for("old", Some(birth()), "new", "bob"),
        play(&mut node, script)
    );
    assert!(rotated.unwrap().has_ended);
}

#[tokio::test]
async fn what_is_written_to_the_old_one_meanwhile_is_taken_over() {
    let conflict = |seen| failed(Failure::Conflict { version: version(seen) });
    let change = Change::Value(Value::Bytes(b"w".to_vec()));
    let update = Operation::Update { birth: Some(version(9)), change };
    let script = vec![
        ("old", Operation::Get, old(3, "v")),
        ("new", instead("v"), done(version(9), 9)),
        ("old", end_if(3), conflict(4)),
        // Its lifetimes alone.
        ("old", Operation::Get, old(4, "v")),
        ("old", end_if(4), conflict(5)),
        ("old", Operation::Get, old(5, "w")),
        ("new", update, done(version(9), 11)),
        ("old", end_if(5), done(birth(), 12)),
    ];
    let rotated = rotated(script).await.unwrap();
    assert!(rotated.has_ended);
    assert_eq!(rotated.begun.version, version(11));
}

#[tokio::test]
async fn who_logs_out_meanwhile_is_logged_out_of_both() {
    for gone in [Failure::Ended, Failure::Absent, Failure::Expired] {
        let end = Operation::End { birth: Some(version(9)) };
        let script = vec![
            ("old", Operation::Get, old(3, "v")),
            ("new", instead("v"), done(version(9), 9)),
            ("old", end_if(3), failed(gone)),
            ("new", end, done(version(9), 12)),
        ];
        assert_eq!(rotated(script).await, Err(Error::Ended));
    }
}

#[tokio::test]
async fn an_old_one_that_cannot_be_ended_yet_is_left_to_the_nodes() {
    let few = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
    let script = vec![
        ("old", Operation::Get, old(3, "v")),
        ("new", instead("v"), done(version(9), 9)),
        ("old", end_if(3), failed(few)),
    ];
    assert!(!rotated(script).await.unwrap().has_ended);
}

#[tokio::test]
async fn nothing_is_begun_in_place_of_what_is_not_there_or_is_another() {
    let script = vec![("old", Operation::Get, failed(Failure::Absent))];
    assert_eq!(rotated(script).await, Err(Error::Absent));
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let table = client.sessions();
    let (rotated, ()) = tokio::join!(
        table.rotate("old", Some(version(8)), "new"),
        play(&mut node, vec![("old", Operation::Get, old(3, "v"))])
    );
    assert_eq!(rotated, Err(Error::Ended));
    assert!(matches!(table.rotate("old", None, "old").await, Err(Error::Refused(_))));
}
