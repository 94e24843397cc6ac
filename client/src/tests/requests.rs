use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::codec::{self, Header};
use annulus_proto::message::{Failure, MembersRequest, Operation, Rejected, SessionReply};
use annulus_proto::{Hlc, NodeId, Value};

use super::fake::{
    CLUSTER, FakeNode, birth, builder, client, echo, routed, routes, session, version,
};
use crate::{Change, Error, Source, StartOptions, Via};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn answers_may_overtake_each_other() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let answers = async {
        let (first, second) = (node.next().await, node.next().await);
        echo(&second);
        echo(&first);
    };
    let (one, two, ()) = tokio::join!(client.get("one"), client.get("two"), answers);
    assert_eq!(one.unwrap().session.value, Value::Bytes(b"one".to_vec()));
    assert_eq!(two.unwrap().session.value, Value::Bytes(b"two".to_vec()));
}

#[tokio::test]
async fn many_requests_share_one_stream() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..300 {
        let client = client.clone();
        asked.spawn(async move { (n, client.get(format!("key-{n}")).await) });
    }
    // All of them wait at the same time.
    let mut arrived = Vec::new();
    while arrived.len() < 300 {
        arrived.push(node.next().await);
    }
    arrived.iter().rev().for_each(echo);
    while let Some(read) = asked.join_next().await {
        let (n, read) = read.unwrap();
        let read = read.unwrap();
        assert_eq!(read.session.value, Value::Bytes(format!("key-{n}").into_bytes()));
        assert_eq!(read.source, Source::Node(node.id));
    }
    assert_eq!(node.streams(), 1);
    assert_eq!(client.counters().remote_requests, 301, "and the routes");
}

#[tokio::test]
async fn operations_arrive_as_they_were_meant() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await.table("carts");
    let options = StartOptions {
        idle: Some(Duration::from_micros(1)),
        lifetime: Some(Duration::ZERO),
        owner: b"me".to_vec(),
        replicas: 2,
    };
    let map = Value::Map(BTreeMap::from([(b"a".to_vec(), b"1".to_vec())]));
    let (started, ()) = tokio::join!(client.start("k", map.clone(), options), async {
        let arrived = node.next().await;
        let request = arrived.session();
        assert_eq!((request.table.as_str(), request.hops), ("carts", 0));
        assert_eq!(request.request.client, 77);
        assert!((1_500..2_000).contains(&request.patience_ms), "{}", request.patience_ms);
        let Operation::Start { value, lifetimes, attributes } = &request.operation else {
            panic!("a start")
        };
        assert_eq!(*value, map);
        assert_eq!((lifetimes.idle_ms, lifetimes.lifetime_ms), (Some(1), Some(0)));
        assert_eq!((attributes.replicas, attributes.owner.as_slice()), (2, b"me".as_slice()));
        arrived.acknowledge(version(5));
    });
    assert_eq!(started.unwrap().version, version(5));

    let (ended, ()) = tokio::join!(client.end("k", Some(birth())), async {
        let arrived = node.next().await;
        assert_eq!(arrived.session().operation, Operation::End { birth: Some(birth()) });
        assert_eq!(arrived.header.hlc, version(5).hlc, "what is asked next is stamped later");
        arrived.acknowledge(version(6));
    });
    ended.unwrap();
}

#[tokio::test]
async fn failures_keep_their_meaning() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let unavailable = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
    let cases = [
        (Failure::Absent, Error::Absent),
        (Failure::Ended, Error::Ended),
        (Failure::Expired, Error::Expired),
        (unavailable, Error::Unavailable { answered: 1, needed: 2, homes: 3 }),
        (Failure::TooLarge { size: 9, limit: 8 }, Error::TooLarge { size: 9, limit: 8 }),
        (Failure::TableFull { node: node.id }, Error::TableFull { node: node.id }),
        (Failure::Refused("why".to_owned()), Error::Refused("why".to_owned())),
        (Failure::Conflict { version: birth() }, Error::Conflict { version: birth() }),
        (Failure::SlowDown { retry_after_ms: 200 }, Error::SlowDown { retry_after: SHORT }),
    ];
    for (failure, error) in cases {
        let (touched, ()) = tokio::join!(client.touch("k", None), async {
            node.next().await.answer(SessionReply::Failed(failure));
        });
        assert_eq!(touched.unwrap_err(), error);
    }
}

#[tokio::test]
async fn what_no_node_would_take_is_refused_without_asking_one() {
    let node = FakeNode::start(1).await;
    let client = client(&node).await;
    let before = client.counters().retries;
    let large = Value::Bytes(vec![0; 2 << 20]);
    let error = client.update("k", None, Change::Value(large)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size, .. } if size > 2 << 20), "{error}");
    assert!(matches!(client.get("").await, Err(Error::Key(_))));
    assert!(matches!(client.get([0; 256]).await, Err(Error::Key(_))));
    assert_eq!(client.counters().retries, before);
}

#[tokio::test]
async fn a_retry_at_another_home_carries_the_same_request_id() {
    let (mut primary, mut secondary) = (FakeNode::start(1).await, FakeNode::start(2).await);
    primary.set_routes(routes(1, &[&primary, &secondary]));
    let client = routed(builder([primary.seed()])).await;
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        let first = primary.next().await;
        first.hang_up();
        let second = secondary.next().await;
        assert_eq!(first.session().request, second.session().request);
        second.acknowledge(version(3));
    });
    touched.unwrap();
    assert_eq!(client.counters().retries, 1);
}

#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).timeout(SHORT).connect().await.unwrap();
    assert_eq!(client.touch("k", None).await.unwrap_err(), Error::TimedOut);
    assert_eq!(client.get("k").await.unwrap_err(), Error::TimedOut);
    node.next().await;
}

#[tokio::test]
async fn a_refusal_after_a_lost_try_leaves_the_outcome_unknown() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let full = Failure::TableFull { node: NodeId::from_bits(1) };
    for refusal in [full, Failure::SlowDown { retry_after_ms: 200 }] {
        let (touched, ()) = tokio::join!(client.touch("k", None), async {
            node.next().await.hang_up();
            node.next().await.answer(SessionReply::Failed(refusal));
        });
        assert_eq!(touched.unwrap_err(), Error::TimedOut);
    }
}

#[tokio::test]
async fn who_is_to_slow_down_is_told_at_once_and_no_other_node_is_asked() {
    let (mut primary, mut secondary) = (FakeNode::start(1).await, FakeNode::start(2).await);
    primary.set_routes(routes(1, &[&primary, &secondary]));
    let client = routed(builder([primary.seed()])).await;
    let (read, ()) = tokio::join!(client.get("k"), async {
        let slow_down = Failure::SlowDown { retry_after_ms: 200 };
        primary.next().await.answer(SessionReply::Failed(slow_down));
    });
    assert_eq!(read.unwrap_err(), Error::SlowDown { retry_after: SHORT });
    assert!(secondary.arrived.try_recv().is_err());
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test]
async fn a_silent_stream_is_given_up_and_a_late_answer_mistaken_for_none() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).timeout(SHORT).connect().await.unwrap();
    client.get("one").await.unwrap_err();
    let late = node.next().await;
    // If its routes came meanwhile, the stream was not silent: ask again.
    while !late.is_closed() {
        client.get("one").await.unwrap_err();
    }
    let (read, ()) = tokio::join!(client.get("two"), async {
        loop {
            let arrived = node.next().await;
            if arrived.session().key.as_bytes() == b"two" {
                assert_eq!((late.stream, arrived.stream), (1, 2));
                echo(&late);
                echo(&arrived);
                break;
            }
        }
    });
    assert_eq!(read.unwrap().session.value, Value::Bytes(b"two".to_vec()));
}

#[tokio::test]
async fn a_stream_on_which_others_are_answered_is_kept() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).timeout(SHORT).connect().await.unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.get("slow").await }
    });
    let held = node.next().await;
    let (read, ()) = tokio::join!(client.get("quick"), async { echo(&node.next().await) });
    read.unwrap();
    assert_eq!(slow.await.unwrap().unwrap_err(), Error::TimedOut);
    echo(&held);
    let (read, ()) = tokio::join!(client.get("after"), async { echo(&node.next().await) });
    read.unwrap();
    assert_eq!(node.streams(), 1);
    assert_eq!(client.counters().unmatched, 1);
}

#[tokio::test]
async fn a_caller_that_stops_waiting_harms_nobody() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let given_up = tokio::spawn({
        let client = client.clone();
        async move { client.get("k").await }
    });
    let held = node.next().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    echo(&held);
    let (read, ()) = tokio::join!(client.get("other"), async { echo(&node.next().await) });
    assert_eq!(read.unwrap().session.value, Value::Bytes(b"other".to_vec()));
    assert_eq!(node.streams(), 1);
}

#[tokio::test]
async fn garbage_from_a_node_ends_its_stream_and_nothing_else() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).timeout(SHORT).connect().await.unwrap();
    let reading = tokio::spawn({
        let client = client.clone();
        async move { client.get("k").await }
    });
    let garbage = [vec![0xff; 64], b"AN".repeat(40), vec![0; 4096]];
    let mut sent = garbage.iter().cycle();
    // However often it asks again, this is what it gets, until its time is over.
    let error = loop {
        tokio::select! {
            arrived = node.next() => arrived.answer_bytes(sent.next().unwrap().clone()),
            () = wait_finished(&reading) => break reading.await.unwrap().unwrap_err(),
        }
    };
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let (read, ()) = tokio::join!(client.get("k"), async {
        // A repetition of the first may still be on its way.
        loop {
            let arrived = node.next().await;
            echo(&arrived);
            if arrived.stream == node.streams() {
                break;
            }
        }
    });
    read.unwrap();
}

async fn wait_finished<T>(task: &tokio::task::JoinHandle<T>) {
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_a_fault_of_the_node() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let (status, ()) = tokio::join!(client.status(), async {
        node.next().await.answer(MembersRequest {});
    });
    let error = status.unwrap_err();
    assert!(error.to_string().contains("MembersRequest instead of NodeStatus"), "{error}");
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        node.next().await.answer(session(b"v"));
    });
    assert!(matches!(touched.unwrap_err(), Error::Protocol { .. }));
}

#[tokio::test]
async fn a_particular_node_that_is_gone_is_reported_at_once() {
    let node = FakeNode::start(1).await;
    let client = client(&node).await;
    let gone = FakeNode::start(2).await.stop().await;
    let error = client.node(gone).ping().await.unwrap_err();
    let Error::NoNode { tried } = error else { panic!("{error}") };
    assert_eq!(tried.len(), 1);
    assert_eq!(client.counters().retries, 0);
    assert_eq!(client.node(node.addr).ping().await.unwrap(), node.id);
    assert_eq!(node.streams(), 1, "the stream to it is there already");
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_the_same() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).via(Via::Udp).connect().await.unwrap();
    let (read, ()) = tokio::join!(client.get("k"), async {
        let (first, second) = (node.next().await, node.next().await);
        assert!(first.from.is_some() && second.from.is_some());
        assert_eq!((first.header, &first.message), (second.header, &second.message));
        echo(&second);
        // The first one's answer arrives late, and twice.
        echo(&first);
        echo(&first);
    });
    assert_eq!(read.unwrap().source, Source::Node(node.id));
    assert_eq!(client.counters().retries, 1);
}

#[tokio::test]
async fn a_datagram_from_elsewhere_is_no_answer() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).via(Via::Udp).connect().await.unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (read, ()) = tokio::join!(client.get("k"), async {
        let arrived = node.next().await;
        let header = Header { id: arrived.header.id, view: 0, hlc: Hlc::ZERO };
        let mut forged = Vec::new();
        codec::encode_datagram(header, CLUSTER, &session(b"forged").into(), &mut forged).unwrap();
        stranger.send_to(&forged, arrived.from.unwrap()).unwrap();
        stranger.send_to(b"garbage", arrived.from.unwrap()).unwrap();
        echo(&arrived);
    });
    assert_eq!(read.unwrap().session.value, Value::Bytes(b"k".to_vec()));
    assert!(client.counters().unmatched >= 2);
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_goes_over_the_stream() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).via(Via::Udp).connect().await.unwrap();
    let large = Change::Value(Value::Bytes(vec![7; 4096]));
    let (updated, ()) = tokio::join!(client.update("k", None, large), async {
        let arrived = node.next().await;
        assert!(arrived.from.is_none());
        arrived.acknowledge(version(3));
    });
    updated.unwrap();
    let (read, ()) = tokio::join!(client.get("k"), async {
        let small = node.next().await;
        assert!(small.from.is_some());
        small.answer(Rejected::AskOverStream);
        let again = node.next().await;
        assert!(again.from.is_none());
        assert_eq!(small.session().request, again.session().request);
        echo(&again);
    });
    read.unwrap();
}

#[tokio::test]
async fn keys_never_show() {
    let mut node = FakeNode::start(1).await;
    let client = builder([node.seed()]).timeout(SHORT).connect().await.unwrap();
    let secret = "s3cret-session-id";
    let error = client.get(secret).await.unwrap_err();
    node.next().await;
    let table = client.table("t");
    let location = client.locate(secret).await.unwrap();
    let shown = format!("{error} {error:?} {client:?} {table:?} {location:?}");
    assert!(!shown.contains(secret) && !shown.contains("s3cret"), "{shown}");
}
