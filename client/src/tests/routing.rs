use std::time::Duration;

use annulus_proto::message::{
    Change, Failure, Lifetimes, Operation, Peer, PeerState, RequestId, Session, SessionReply,
    SessionRequest,
};
use annulus_proto::{Attributes, Key, Rtt, Value};

use super::fake::{FakeNode, Script, builder, client, echo, routed, routes, session, version};
use crate::request::Whom;
use crate::{Error, Source};

#[tokio::test]
async fn requests_go_to_the_primary_of_their_slot() {
    let (contact, mut primary) = (FakeNode::start(1).await, FakeNode::start(2).await);
    contact.set_routes(routes(1, &[&primary, &contact]));
    let client = routed(builder([contact.seed()])).await;
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&primary.next().await) });
    assert_eq!(read.unwrap().source, Source::Node(primary.id));

    let location = client.locate("k").await.unwrap();
    assert_eq!(location.homes, [primary.route(), contact.route()]);
    assert_eq!((location.slot.index(), location.in_shared_memory), (7629, false));
}

#[tokio::test]
async fn reads_go_to_the_nearest_home_and_writes_to_the_primary() {
    let (mut far, mut near) = (FakeNode::start(2).await, FakeNode::start(3).await);
    let script =
        Script { peers: [peer(&far, 9_000), peer(&near, 300)].into(), ..Script::default() };
    let mut host = FakeNode::with(1, script).await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    host.also_at(&socket).await;
    host.set_routes(routes(1, &[&far, &near]));
    let client = routed(builder([]).local_socket(&socket)).await;
    let proximity = &client.sessions().handle().inner.proximity;
    while proximity.load().is_empty() {
        tokio::task::yield_now().await;
    }
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&near.next().await) });
    assert_eq!(read.unwrap().source, Source::Node(near.id));
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        far.next().await.acknowledge(version(2));
    });
    touched.unwrap();
}

#[tokio::test]
async fn homes_that_are_equally_far_are_read_in_the_order_of_the_ring() {
    let (mut primary, other) = (FakeNode::start(2).await, FakeNode::start(3).await);
    let script =
        Script { peers: [peer(&primary, 240), peer(&other, 80)].into(), ..Script::default() };
    let mut host = FakeNode::with(1, script).await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    host.also_at(&socket).await;
    host.set_routes(routes(1, &[&primary, &other]));
    let client = routed(builder([]).local_socket(&socket)).await;
    let proximity = &client.sessions().handle().inner.proximity;
    while proximity.load().is_empty() {
        tokio::task::yield_now().await;
    }
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&primary.next().await) });
    assert_eq!(read.unwrap().source, Source::Node(primary.id));
}

#[tokio::test]
async fn a_pinned_session_is_asked_for_at_its_node_until_a_home_says_otherwise() {
    let (mut home, mut pinned) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let mut routes = routes(1, &[&home, &pinned]);
    // The second node is known, and no home of any slot.
    routes.homes.fill(0);
    home.set_routes(routes);
    let client = routed(builder([home.seed()])).await;
    let said = |pin| match session(b"v") {
        SessionReply::Session(session) => SessionReply::Session(Session { pin, ..session }),
        other => other,
    };
    let (read, ()) = tokio::join!(client.get("k"), async {
        home.next().await.answer(said(Some(pinned.id)));
    });
    read.unwrap();
    for _ in 0..2 {
        let (read, ()) = tokio::join!(client.get("k"), async {
            pinned.next().await.answer(said(Some(pinned.id)));
        });
        assert_eq!(read.unwrap().source, Source::Node(pinned.id));
    }
    let (done, ()) = tokio::join!(client.touch("k", None), async {
        pinned.next().await.acknowledge(version(3));
    });
    done.unwrap();
    let (ended, ()) = tokio::join!(client.end("other", None), async {
        home.next().await.acknowledge(version(3));
    });
    ended.unwrap();
    // What is decided the homes decide.
    let (ended, ()) = tokio::join!(client.sessions().end_if("k", version(3)), async {
        home.next().await.acknowledge(version(4));
    });
    ended.unwrap();
    // While it is gone the homes are asked, and may say that it is pinned no more.
    let id = pinned.id;
    pinned.stop().await;
    let (read, ()) = tokio::join!(client.get("k"), async { home.next().await.answer(said(None)) });
    assert_eq!(read.unwrap().source, Source::Node(home.id));
    assert_eq!(client.sessions().handle().inner.local("sessions").pins.of(&key("k")), None);
    assert_ne!(home.id, id);
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn peer(node: &FakeNode, smoothed_us: u32) -> Peer {
    let rtt = Some(Rtt { smoothed_us, variation_us: 10, samples: 4 });
    Peer { node: node.id, state: PeerState::Alive, view: 1, rtt }
}

#[tokio::test]
async fn an_answer_from_another_view_refreshes_the_routes() {
    let (mut old, mut new) = (FakeNode::start(1).await, FakeNode::start(2).await);
    old.set_routes(routes(1, &[&old]));
    let client = routed(builder([old.seed()])).await;
    old.set_routes(routes(2, &[&new, &old]));
    let (read, ()) = tokio::join!(client.get("k"), async {
        let arrived = old.next().await;
        assert_eq!(arrived.header.view, 1, "the node learns from which view it was asked");
        arrived.answer_from_view(2, session(b"v"));
    });
    read.unwrap();
    while client.locate("k").await.unwrap().view != 2 {
        tokio::task::yield_now().await;
    }
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&new.next().await) });
    assert_eq!(read.unwrap().source, Source::Node(new.id));
}

#[tokio::test]
async fn who_watches_the_routes_is_told_of_others_though_nobody_asks_for_anything() {
    let (node, other) = (FakeNode::start(1).await, FakeNode::start(2).await);
    node.set_routes(routes(1, &[&node]));
    let client = client(&node).await;
    let mut watch = client.watch_routes();
    assert_eq!(watch.changed().await.view(), 1);
    node.set_routes(routes(2, &[&other, &node]));
    let changed = watch.changed().await;
    assert_eq!((changed.view(), changed.nodes().len()), (2, 2));
    assert_eq!(client.route_table(), Some(changed));
}

#[tokio::test]
async fn the_same_view_again_refreshes_nothing() {
    let mut node = FakeNode::start(1).await;
    node.set_routes(routes(1, &[&node]));
    let client = routed(builder([node.seed()])).await;
    // The refresh at the start may still be under way.
    while client.counters().routes_fetched < 2 {
        client.routes().await.unwrap();
    }
    let before = client.counters().routes_fetched;
    for _ in 0..20 {
        let (read, ()) = tokio::join!(client.get("k"), async {
            node.next().await.answer_from_view(1, session(b"v"));
        });
        read.unwrap();
    }
    assert!(client.counters().routes_fetched <= before + 1);
}

#[tokio::test]
async fn what_is_unavailable_at_one_home_is_asked_of_the_next() {
    let (mut alone, mut other) = (FakeNode::start(1).await, FakeNode::start(2).await);
    alone.set_routes(routes(1, &[&alone, &other]));
    let client = routed(builder([alone.seed()])).await;
    let unavailable = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        alone.next().await.answer(SessionReply::Failed(unavailable.clone()));
        other.next().await.acknowledge(version(2));
    });
    touched.unwrap();
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        alone.next().await.answer(SessionReply::Failed(unavailable.clone()));
        other.next().await.answer(SessionReply::Failed(unavailable.clone()));
    });
    assert_eq!(touched.unwrap_err(), Error::Unavailable { answered: 1, needed: 2, homes: 3 });
}

#[tokio::test]
async fn a_silent_home_is_asked_last_the_next_time() {
    let (mut silent, mut other) = (FakeNode::start(1).await, FakeNode::start(2).await);
    other.set_routes(routes(1, &[&silent, &other]));
    let patient = builder([other.seed()]).timeout(Duration::from_millis(400));
    let client = routed(patient).await;
    let (read, ()) = tokio::join!(client.get("one"), async { echo(&other.next().await) });
    read.unwrap();
    assert_eq!(silent.next().await.session().key.as_bytes(), b"one");
    let (read, ()) = tokio::join!(client.get("two"), async { echo(&other.next().await) });
    read.unwrap();
    assert!(silent.arrived.try_recv().is_err(), "it was not asked again so soon");
}

#[tokio::test]
async fn a_read_waits_for_a_silent_home_as_long_as_answers_take_and_a_write_for_half_of_its_time() {
    let (mut first, mut second) = (FakeNode::start(1).await, FakeNode::start(2).await);
    second.set_routes(routes(1, &[&first, &second]));
    let client = routed(builder([second.seed()]).timeout(Duration::from_secs(20))).await;
    let (read, ()) = tokio::join!(client.get("one"), async { echo(&second.next().await) });
    read.unwrap();
    let asked = first.next().await;
    let patience = asked.session().patience_ms;
    assert!((1..=50).contains(&patience), "{patience} ms");
    // It is avoided now, and the second one the last that there is.
    let (read, patience) = tokio::join!(client.get("two"), async {
        let asked = second.next().await;
        echo(&asked);
        asked.session().patience_ms
    });
    read.unwrap();
    // The mean of two answers at least is in there: what was waited for in vain counts as one.
    assert!((1..9_000).contains(&patience), "{patience} ms");
    // Not so a write that would undo what comes between.
    let change = Change::Value(Value::Bytes(Vec::new()));
    let (done, patience) = tokio::join!(client.update("three", None, change), async {
        let asked = second.next().await;
        asked.acknowledge(version(1));
        asked.session().patience_ms
    });
    done.unwrap();
    assert!((9_000..20_000).contains(&patience), "{patience} ms");
}

#[tokio::test]
async fn a_touch_that_goes_on_to_the_next_home_soon_costs_no_other_call_its_stream() {
    let (mut first, mut second) = (FakeNode::start(1).await, FakeNode::start(2).await);
    second.set_routes(routes(1, &[&first, &second]));
    let client = routed(builder([second.seed()]).timeout(Duration::from_secs(20))).await;
    let touch = client.touch("one", Some(version(3)));
    let change = Change::Value(Value::Bytes(Vec::new()));
    let update = client.update("two", None, change);
    let (touched, updated, ()) = tokio::join!(touch, update, async {
        let (mut one, mut two) = (first.next().await, first.next().await);
        if one.session().key.as_bytes() == b"two" {
            std::mem::swap(&mut one, &mut two);
        }
        second.next().await.acknowledge(version(3));
        // The first home is slow, and answers after that.
        assert!(!two.is_closed(), "the stream was given up");
        two.acknowledge(version(4));
    });
    touched.unwrap();
    updated.unwrap();
}

#[tokio::test]
async fn a_touch_and_an_end_that_names_its_session_go_on_to_the_next_home_soon_and_others_do_not() {
    let birth = version(3);
    let end = |birth| Operation::End { birth };
    let value = || Value::Bytes(Vec::new());
    let (lifetimes, attributes) = (Lifetimes::default(), Attributes::default());
    let start = Operation::Start { value: value(), lifetimes, attributes };
    let change = Change::Value(value());
    let update = Operation::Update { birth: Some(birth), change: change.clone() };
    let update_if = Operation::UpdateIf { version: birth, change };
    for (operation, is_soon) in [
        (Operation::Touch { birth: None }, true),
        (Operation::Touch { birth: Some(birth) }, true),
        (end(Some(birth)), true),
        (end(None), false),
        (start, false),
        (update, false),
        (update_if, false),
    ] {
        let (mut silent, mut second) = (FakeNode::start(1).await, FakeNode::start(2).await);
        second.set_routes(routes(1, &[&silent, &second]));
        let client = routed(builder([second.seed()]).timeout(Duration::from_secs(20))).await;
        let message = SessionRequest {
            table: "sessions".to_owned(),
            key: Key::new("k").unwrap(),
            request: RequestId { client: 1, sequence: 1 },
            hops: 0,
            patience_ms: 0,
            operation: operation.clone(),
        };
        let inner = client.sessions().handle().inner.clone();
        let whom = Whom::Slot { slot: message.key.slot(), host: None, pin: None };
        let asking = tokio::spawn(async move { inner.ask(whom, message.into()).await });
        let first = silent.next().await;
        let first = first.session();
        assert_eq!((1..=50).contains(&first.patience_ms), is_soon, "{operation:?}");
        if is_soon {
            let asked = second.next().await;
            assert_eq!(asked.session().request, first.request, "the same request");
            asked.acknowledge(version(4));
            assert_eq!(asking.await.unwrap().unwrap().1, second.id);
        } else {
            assert!(first.patience_ms > 9_000, "{operation:?}: {} ms", first.patience_ms);
            asking.abort();
        }
    }
}

#[tokio::test]
async fn other_nodes_are_used_while_the_contact_is_gone() {
    let (contact, mut home) = (FakeNode::start(1).await, FakeNode::start(2).await);
    contact.set_routes(routes(1, &[&home]));
    let client = routed(builder([contact.seed()])).await;
    contact.stop().await;
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&home.next().await) });
    read.unwrap();
    // And it becomes the contact, since no seed answers.
    let mut search = client.sessions().handle().inner.search.subscribe();
    let is_home = |search: &crate::contact::Search| {
        search.found.as_ref().is_some_and(|found| found.link.peer.node == home.id)
    };
    search.wait_for(is_home).await.unwrap();
}

#[tokio::test]
async fn a_table_at_a_node_asks_that_node_only() {
    let (mut primary, mut other) = (FakeNode::start(1).await, FakeNode::start(2).await);
    primary.set_routes(routes(1, &[&primary]));
    let client = routed(builder([primary.seed()])).await;
    let table = client.sessions().at(other.addr);
    let (read, ()) = tokio::join!(table.get("k"), async { echo(&other.next().await) });
    assert_eq!(read.unwrap().source, Source::Node(other.id));
    assert!(primary.arrived.try_recv().is_err());
}

#[tokio::test]
async fn routes_that_make_no_sense_are_not_used() {
    let mut node = FakeNode::start(1).await;
    let mut broken = routes(1, &[&node]);
    broken.homes.pop();
    node.set_routes(broken);
    let client = client(&node).await;
    assert!(matches!(client.locate("k").await, Err(Error::Protocol { .. })));
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&node.next().await) });
    read.unwrap();
}
