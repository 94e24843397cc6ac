//! Channels: who publishes at one node is heard at all.

use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

/// A client that always listens.
pub(super) struct Subscriber {
    stream: TcpStream,
    heard: mpsc::Receiver<String>,
}

impl Subscriber {
    pub(super) fn of(node: &Node) -> Self {
        let mut client = Tcp::of(node);
        let stream = client.stream.get_ref().try_clone().expect("a second handle");
        stream.set_read_timeout(None).expect("it may be so");
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            // An empty answer is the end.
            while let answer = client.answer()
                && !answer.is_empty()
                && said.send(answer).is_ok()
            {}
        });
        Self { stream, heard }
    }

    fn send(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.stream.write_all(&request(&words)).expect("it is taken");
    }

    /// What it is told next.
    pub(super) fn next(&self) -> String {
        self.heard.recv_timeout(PATIENCE).expect("it is told something")
    }

    /// What a request is answered, if nothing else comes before.
    pub(super) fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.next()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// An array of these words, or a push.
pub(super) fn told(kind: char, words: &[&str]) -> String {
    let words: String = words.iter().map(|word| bulk(word)).collect();
    format!("{kind}{}\r\n{words}", words.matches('$').count())
}

pub(super) fn changed(kind: char, word: &str, name: &str, count: usize) -> String {
    format!("{kind}3\r\n{}{}:{count}\r\n", bulk(word), bulk(name))
}

pub(super) fn counter(place: &Place, node: &Node, name: &str) -> u64 {
    let metrics = place.run(&["metrics", "--node", &node.addr]).ok();
    let line = metrics.lines().find(|line| line.starts_with(&format!("annulus_{name}_total")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn three_nodes(place: &Place) -> Vec<Node> {
    let door = ["--redis-listen", "127.0.0.1:0"];
    let mut nodes = vec![place.node("n1", &[], &door)];
    let seed = nodes[0].addr.clone();
    for name in ["n2", "n3"] {
        nodes.push(place.node(name, &[&seed], &door));
    }
    in_sync(place, &seed, 3);
    nodes
}

#[test]
fn what_is_published_at_one_node_is_heard_at_all() {
    let place = Place::new();
    let nodes = three_nodes(&place);
    let mut publisher = Tcp::of(&nodes[0]);
    let mut second = Subscriber::of(&nodes[1]);
    let mut third = Subscriber::of(&nodes[2]);
    assert_eq!(second.ask("SUBSCRIBE news"), changed('*', "subscribe", "news", 1));
    assert!(third.ask("HELLO 3").starts_with('%'));
    assert_eq!(third.ask("PSUBSCRIBE n?ws*"), changed('>', "psubscribe", "n?ws*", 1));
    // Nobody asks for what is lost, as where a stream breaks: then another hundred is said.
    let mut round = 0;
    eventually("a hundred messages are heard in their order", || {
        round += 1;
        let messages: Vec<String> = (0..100).map(|number| format!("{round}:{number}")).collect();
        for message in &messages {
            assert_eq!(publisher.say(&format!("PUBLISH news {message}")), ":0\r\n");
        }
        let (mut of_second, mut of_third) = (Vec::new(), Vec::new());
        while of_second.last() != Some(&told('*', &["message", "news", &messages[99]])) {
            of_second.push(second.heard.recv_timeout(Duration::from_secs(5)).ok()?);
        }
        while of_third.last() != Some(&told('>', &["pmessage", "n?ws*", "news", &messages[99]])) {
            of_third.push(third.heard.recv_timeout(Duration::from_secs(5)).ok()?);
        }
        let as_told = |kind, words: &[&str]| -> Vec<String> {
            messages.iter().map(|it| told(kind, &[words, &[it]].concat())).collect()
        };
        let is_whole = of_second == as_told('*', &["message", "news"])
            && of_third == as_told('>', &["pmessage", "n?ws*", "news"]);
        is_whole.then_some(())
    });
    // The answer counts those at this node; a transaction publishes, too.
    let mut first = Subscriber::of(&nodes[0]);
    assert_eq!(first.ask("SUBSCRIBE news"), changed('*', "subscribe", "news", 1));
    for request in ["MULTI", "PUBLISH news here"] {
        publisher.say(request);
    }
    assert_eq!(publisher.say("EXEC"), "*1\r\n:1\r\n");
    for subscriber in [&first, &second] {
        assert_eq!(subscriber.next(), told('*', &["message", "news", "here"]));
    }
    // Who has left hears nothing more. Sharded channels are others.
    assert_eq!(second.ask("SUBSCRIBE end"), changed('*', "subscribe", "end", 2));
    assert_eq!(second.ask("SSUBSCRIBE news"), changed('*', "ssubscribe", "news", 1));
    assert_eq!(second.ask("UNSUBSCRIBE news"), changed('*', "unsubscribe", "news", 1));
    for request in ["PUBLISH news gone", "SPUBLISH end shard", "SPUBLISH news shard"] {
        publisher.say(request);
    }
    assert_eq!(second.next(), told('*', &["smessage", "news", "shard"]));
    publisher.say("PUBLISH end over");
    assert_eq!(second.next(), told('*', &["message", "end", "over"]));
    assert!(counter(&place, &nodes[0], "redis_published") >= 105);
    assert!(counter(&place, &nodes[1], "redis_messages_from_nodes") >= 105);
    assert!(counter(&place, &nodes[1], "redis_messages_delivered") >= 103);
    assert_eq!(counter(&place, &nodes[0], "redis_messages_from_nodes"), 0, "nothing comes back");
}

#[test]
fn who_reads_too_slowly_is_sent_away_and_the_others_hear_everything() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut publisher, mut slow) = (Tcp::of(&node), Tcp::of(&node));
    let mut quick = Subscriber::of(&node);
    assert_eq!(slow.say("SUBSCRIBE c"), changed('*', "subscribe", "c", 1));
    assert_eq!(quick.ask("SUBSCRIBE c"), changed('*', "subscribe", "c", 1));
    let filler = "x".repeat(1 << 20);
    eventually("the slow one is sent away", || {
        publisher.ask(&["PUBLISH", "c", &filler]);
        assert!(quick.next().ends_with("xx\r\n"));
        (counter(&place, &node, "redis_subscribers_too_slow") == 1).then_some(())
    });
    eventually("nobody else listens", || {
        (publisher.say("CLIENT LIST TYPE pubsub").matches(" addr=").count() == 1).then_some(())
    });
    assert_eq!(publisher.say("PUBLISH c on"), ":1\r\n");
    assert_eq!(quick.next(), told('*', &["message", "c", "on"]));
    let mut rest = Vec::new();
    let _ = slow.stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"\r\non\r\n"));
}

/// A transaction that publishes to itself what no queue may hold.
#[test]
fn who_tells_himself_too_much_at_once_is_sent_away() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    client.say("HELLO 3");
    for number in 0..16 {
        client.say(&format!("PSUBSCRIBE {}c*", "[c]*".repeat(number)));
    }
    let message = "m".repeat(60_000);
    client.say("MULTI");
    for _ in 0..40 {
        assert_eq!(client.ask(&["PUBLISH", "cccccccccccccccccccc", &message]), "+QUEUED\r\n");
    }
    client.send(&request(&["EXEC"]));
    // 38 MB of messages, of which as many as may wait are heard twice at most.
    let mut heard = Vec::new();
    let _ = client.stream.read_to_end(&mut heard);
    assert!(heard.len() < 20 << 20, "{} bytes", heard.len());
    assert_eq!(counter(&place, &node, "redis_subscribers_too_slow"), 1);
    assert_eq!(Tcp::of(&node).say("PING"), "+PONG\r\n");
}

#[test]
fn what_somebody_listens_to_is_told_and_forgotten() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Subscriber::of(&node));
    assert_eq!(other.ask("SUBSCRIBE a"), changed('*', "subscribe", "a", 1));
    assert_eq!(other.ask("PSUBSCRIBE a*"), changed('*', "psubscribe", "a*", 2));
    assert_eq!(other.ask("SSUBSCRIBE a"), changed('*', "ssubscribe", "a", 1));
    let list = client.say("CLIENT LIST TYPE pubsub");
    for part in [" flags=P ", " sub=1 ", " psub=1 ", " ssub=1 ", " cmd=ssubscribe "] {
        assert!(list.contains(part) && list.matches(" addr=").count() == 1, "{part} in {list}");
    }
    assert_eq!(client.say("CLIENT LIST TYPE normal").matches(" addr=").count(), 1);
    let info = client.say("INFO stats");
    for line in ["pubsub_channels:1", "pubsub_patterns:1", "pubsubshard_channels:1"] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
    // Beyond the bounds.
    let (long, longer) = ("c".repeat(512), "c".repeat(513));
    let too_long = "-ERR a channel or a pattern has 512 bytes at most\r\n";
    for command in ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"] {
        assert_eq!(client.say(&format!("{command} a {longer}")), too_long);
    }
    assert_eq!(client.say(&format!("PUBLISH {longer} m")), too_long);
    assert_eq!(client.say(&format!("PUBLISH {long} m")), ":0\r\n");
    let message = "m".repeat((1 << 20) + 1);
    let too_long = "-ERR a message has 1048576 bytes at most\r\n";
    assert_eq!(client.ask(&["PUBLISH", "a", &message]), too_long);
    assert_eq!(client.ask(&["PUBLISH", "a", &message[1..]]), ":2\r\n");
    assert_eq!(client.say("GET k"), NIL, "nothing was subscribed to");
    (0..2).for_each(|_| assert!(other.next().ends_with("mm\r\n")));
    // RESET forgets, and so does the end of a connection.
    assert_eq!(other.ask("RESET"), "+RESET\r\n");
    assert_eq!(client.say("PUBLISH a m"), ":0\r\n");
    assert_eq!(other.ask("SUBSCRIBE a"), changed('*', "subscribe", "a", 1));
    assert_eq!(client.say("CLIENT KILL TYPE pubsub"), ":1\r\n");
    eventually("it is forgotten", || (client.say("PUBSUB CHANNELS") == "*0\r\n").then_some(()));
    // Whoever wants no answers hears messages all the same.
    let mut quiet = Subscriber::of(&node);
    assert!(quiet.ask("HELLO 3").starts_with('%'));
    quiet.send("CLIENT REPLY OFF");
    assert_eq!(quiet.ask("SUBSCRIBE q"), changed('>', "subscribe", "q", 1));
    assert_eq!(quiet.ask("PUBLISH q m"), told('>', &["message", "q", "m"]));
    assert_eq!(quiet.ask("CLIENT REPLY ON"), OK);
    assert_eq!(quiet.ask("HELLO 2").chars().next(), Some('*'));
    assert!(quiet.ask("GET k").starts_with("-ERR Can't execute 'get': only (P|S)SUBSCRIBE"));
    client.say("PUBLISH q m");
    assert_eq!(quiet.next(), told('*', &["message", "q", "m"]));
}

#[test]
fn a_transaction_changes_what_is_listened_to_once() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    client.say("MULTI");
    let requests =
        ["SUBSCRIBE a b", "PUBLISH a x", "PING", "GET k", "UNSUBSCRIBE a", "PUBSUB NUMSUB b"];
    for request in requests {
        assert_eq!(client.say(request), "+QUEUED\r\n");
    }
    assert_eq!(other.say("PUBSUB CHANNELS"), "*0\r\n");
    // SUBSCRIBE answers for each channel, also where one answer is announced.
    client.send(&request(&["EXEC"]));
    let expected = [
        "*6\r\n".to_owned(),
        changed('*', "subscribe", "a", 1),
        changed('*', "subscribe", "b", 2),
        ":1\r\n".to_owned(),
        told('*', &["pong", ""]),
        NIL.to_owned(),
        changed('*', "unsubscribe", "a", 1),
        format!("*2\r\n{}:1\r\n", bulk("b")),
        told('*', &["message", "a", "x"]),
    ];
    let expected = expected.concat();
    let mut answer = vec![0; expected.len()];
    client.stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), expected);
    assert_eq!(other.say("PUBSUB CHANNELS"), format!("*1\r\n{}", bulk("b")));
    // What is not done is not published, and what is done again is published once.
    client.say("RESET");
    client.say("SUBSCRIBE end");
    for (change, answer) in [("SET w 1", "*-1\r\n"), ("GET w", "*1\r\n:1\r\n")] {
        let mut watching = Tcp::of(&node);
        watching.say("WATCH w");
        other.say(change);
        watching.say("MULTI");
        watching.say("PUBLISH end x");
        assert_eq!(watching.say("EXEC"), answer, "{change}");
    }
    assert_eq!(client.answer(), told('*', &["message", "end", "x"]));
    other.say("PUBLISH end over");
    assert_eq!(client.answer(), told('*', &["message", "end", "over"]));
}

/// All that a client is told until it is answered a PING.
fn until_pong<S: Read + Write>(client: &mut Client<S>) -> Vec<String> {
    client.send(&request(&["PING", "all?"]));
    let mut told = Vec::new();
    loop {
        match client.answer() {
            pong if pong.ends_with("$4\r\nall?\r\n") => return told,
            other => told.push(other),
        }
    }
}

#[test]
fn random_commands_about_channels_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "");
    let real = RealRedis::start(&place);
    let theirs = |_| eventually("a real Redis", || Client::at(&real.socket));
    let mut theirs: Vec<_> = (0..4).map(theirs).collect();
    let mut ours: Vec<_> = (0..4).map(|_| Tcp::of(&node)).collect();
    let names = ["a", "b", "ab", "a*", "*b", "?", "[ab]"];
    let mut heard = 0;
    for seed in [1, 2, 3] {
        let mut draw = Draw(seed);
        for number in 0..1_000 {
            let (who, name, other) = (draw.below(4), draw.one_of(&names), draw.one_of(&names));
            let kind = draw.one_of(&["", "", "P", "S"]);
            let line = match draw.below(18) {
                0..=3 => format!("{kind}SUBSCRIBE {name} {other}"),
                4 => format!("{kind}UNSUBSCRIBE {name} {other}"),
                5 => format!("{kind}UNSUBSCRIBE"),
                6..=10 => format!("PUBLISH {name} {number}"),
                11 => format!("SPUBLISH {name} {number}"),
                12 => format!("PUBSUB {}NUMSUB {name} {other}", kind.replace('P', "")),
                13 => {
                    format!("PUBSUB {}CHANNELS {name}", kind.replace('P', "").replace('S', "SHARD"))
                }
                14 => "PUBSUB NUMPAT".to_owned(),
                15 => draw.one_of(&["GET k", "PING", "EXEC", "ECHO"]),
                16 => {
                    draw.one_of(&["PING x", "CLIENT GETNAME", "NOSUCH", "SUBSCRIBE", "PUBLISH a"])
                }
                // Who may do everything again, and speaks RESP3.
                _ => draw.one_of(&["RESET", "HELLO 3 SETNAME x"]),
            };
            let line = line.replace("SNUMSUB", "SHARDNUMSUB");
            let words: Vec<&str> = line.split(' ').collect();
            ours[who].send(&request(&words));
            theirs[who].send(&request(&words));
            // Once it is answered the others have heard.
            for client in [who].into_iter().chain((0..4).filter(|it| *it != who)) {
                let (mut ours, mut theirs) =
                    (until_pong(&mut ours[client]), until_pong(&mut theirs[client]));
                heard += ours.iter().filter(|it| it.contains("message")).count();
                let is_hello = line.starts_with("HELLO") && client == who;
                // Redis has no order among channels and patterns.
                if line.starts_with("PUB") || line.ends_with("UNSUBSCRIBE") {
                    (ours, theirs) = (lines(&ours), lines(&theirs));
                }
                assert!(
                    ours == theirs || is_hello && ours.len() == theirs.len(),
                    "seed {seed}, {number}: {who} says {line}, {client} hears {ours:?}, there {theirs:?}"
                );
            }
        }
    }
    assert!(heard > 400, "{heard} messages");
}

/// The lines of answers, in an order of their own.
fn lines(answers: &[String]) -> Vec<String> {
    let mut lines: Vec<String> =
        answers.iter().flat_map(|it| it.split("\r\n")).map(str::to_owned).collect();
    lines.sort();
    lines
}
