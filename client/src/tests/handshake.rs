use std::time::Duration;

use annulus_net::{SystemClock, TokioNet};
use annulus_proto::message::Rejected;

use super::fake::{FakeNode, Script, builder, client, echo};
use crate::{Builder, Client, ConnectError, Error, Via};

/// An address where nobody listens.
async fn nobody() -> String {
    FakeNode::start(99).await.stop().await.to_string()
}

#[tokio::test]
async fn a_wrong_cluster_is_reported_in_the_nodes_own_words() {
    let reason = Rejected::WrongCluster { asked: "other".to_owned() };
    let script = Script { reject: Some(reason.clone()), ..Script::default() };
    let node = FakeNode::with(1, script).await;
    let error = builder([node.seed()]).cluster("other").connect().await.unwrap_err();
    assert_eq!(error, ConnectError::Rejected { at: node.seed(), reason: reason.clone() });
    assert!(error.to_string().ends_with(&reason.to_string()), "{error}");
}

#[tokio::test]
async fn nothing_to_try_is_its_own_error() {
    assert_eq!(builder([]).connect().await.unwrap_err(), ConnectError::NothingToTry);
    let local_only = builder([nobody().await]).via(Via::Local);
    assert_eq!(local_only.connect().await.unwrap_err(), ConnectError::NothingToTry);
}

#[tokio::test]
async fn all_that_was_tried_is_listed_with_its_reason() {
    let (closed, socket) = (nobody().await, tempfile::tempdir().unwrap().path().join("none"));
    let seeds = [closed.clone(), "no-port".to_owned()];
    let error = builder(seeds).local_socket(&socket).connect().await.unwrap_err();
    let ConnectError::NoNode { tried } = &error else { panic!("{error}") };
    let at: Vec<&str> = tried.iter().map(|tried| tried.at.as_str()).collect();
    assert_eq!(at, [socket.to_str().unwrap(), closed.as_str(), "no-port"]);
    assert!(error.to_string().contains("no-port: "), "{error}");
}

#[tokio::test]
async fn seeds_are_tried_in_order_until_one_answers() {
    let reason = Rejected::TooManyConnections { limit: 1 };
    let full = FakeNode::with(1, Script { reject: Some(reason), ..Script::default() }).await;
    let node = FakeNode::start(2).await;
    let client = builder([nobody().await, full.seed(), node.seed()]).connect().await.unwrap();
    assert_eq!(client.contact().unwrap().node, node.id);
    assert_eq!(client.contact().unwrap().name, "node-2");
}

#[tokio::test]
async fn a_node_that_talks_something_else_is_not_taken_for_one() {
    let bytes = b"HTTP/1.1 400 Bad Request\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_vec();
    let script = Script { instead_of_welcome: Some(bytes), ..Script::default() };
    let node = FakeNode::with(1, script).await;
    let error = builder([node.seed()]).connect().await.unwrap_err();
    assert!(error.to_string().contains("not a frame of this protocol"), "{error}");
}

#[tokio::test]
async fn a_node_that_never_greets_is_given_up_in_time() {
    let script = Script { instead_of_welcome: Some(Vec::new()), ..Script::default() };
    let node = FakeNode::with(1, script).await;
    let hasty = builder([node.seed()]).timeout(Duration::from_millis(100));
    let error = hasty.connect().await.unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn the_local_socket_is_tried_first_and_returned_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sock");
    let away = FakeNode::start(1).await;
    let client = builder([away.seed()]).local_socket(&path).connect().await.unwrap();
    assert_eq!(client.contact().unwrap().node, away.id, "the host's node is not up yet");

    let mut home = FakeNode::start(2).await;
    home.also_at(&path).await;
    let found = |search: &crate::contact::Search| {
        search.found.as_ref().is_some_and(|found| found.link.peer.node == home.id)
    };
    let mut search = client.sessions().handle().inner.search.subscribe();
    search.wait_for(found).await.unwrap();
    assert_eq!(client.contact().unwrap().at, path.to_str().unwrap());
    assert_eq!(client.contact().unwrap().addr, None);
}

#[tokio::test]
async fn a_client_finds_its_node_again_after_a_restart() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&node.next().await) });
    read.unwrap();
    let addr = node.stop().await;

    // Asked while nobody is there: answered by who comes back.
    let (read, node) = tokio::join!(client.get("k"), async {
        let mut node = FakeNode::start_at(addr, 1, Script::default()).await;
        echo(&node.next().await);
        node
    });
    read.unwrap();
    assert_eq!(node.streams(), 1);
}

#[tokio::test]
async fn an_open_client_works_as_soon_as_there_is_a_node() {
    let addr = FakeNode::start(1).await.stop().await;
    let client = builder([addr.to_string()]).open();
    assert!(client.connected().await.is_err());
    let (read, _node) = tokio::join!(client.get("k"), async {
        let mut node = FakeNode::start_at(addr, 1, Script::default()).await;
        echo(&node.next().await);
        node
    });
    read.unwrap();
}

#[tokio::test]
async fn an_open_client_without_a_node_says_so_when_its_time_is_over() {
    let seed = nobody().await;
    let client = builder([seed.clone()]).timeout(Duration::from_millis(150)).open();
    let error = client.get("k").await.unwrap_err();
    let Error::NoNode { tried } = error else { panic!("{error}") };
    assert_eq!(tried[0].at, seed);
}

#[tokio::test]
async fn streams_close_when_the_last_handle_goes() {
    let mut node = FakeNode::start(1).await;
    let client = client(&node).await;
    let table = client.table("other");
    drop(client);
    let asked = tokio::spawn(async move { table.get("k").await });
    let arrived = node.next().await;
    echo(&arrived);
    asked.await.unwrap().unwrap();
    // The stream's end of the answers goes when the stream does.
    arrived.closed().await;
}

#[tokio::test]
async fn two_production_clients_have_different_numbers() {
    let node = FakeNode::start(1).await;
    let one = Client::connect([node.seed()]).await.unwrap();
    let two = Client::connect([node.seed()]).await.unwrap();
    assert_ne!(one.number(), two.number());
    let given = Builder::new(TokioNet::new(), SystemClock, 5).seed(node.seed());
    assert_eq!(given.connect().await.unwrap().number(), 5);
}
