//! MULTI, EXEC and WATCH.

use super::*;

const QUEUED: &str = "+QUEUED\r\n";
/// What EXEC answers if a watched key has changed.
const CHANGED: &str = "*-1\r\n";

#[test]
fn commands_after_multi_are_done_at_once_or_not_at_all() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    assert_eq!(client.say("MULTI"), OK);
    for request in ["SET a 1 EX 100", "INCRBY a 41", "GET a", "SET b x", "DEL b", "EXISTS a b"] {
        assert_eq!(client.say(request), QUEUED);
    }
    assert_eq!(other.say("EXISTS a b"), ":0\r\n", "nothing is done before EXEC");
    assert_eq!(client.say("EXEC"), format!("*6\r\n{OK}:42\r\n{}{OK}:1\r\n:1\r\n", bulk("42")));
    assert_eq!(other.say("GET a"), bulk("42"));
    assert_eq!(other.say("TTL a"), ":100\r\n");

    // An error of one command is its answer, and the others are done.
    client.say("MULTI");
    for request in ["INCR a", "SET a x KEEPTTL", "INCR a", "APPEND a y"] {
        assert_eq!(client.say(request), QUEUED);
    }
    let not_integer = "-ERR value is not an integer or out of range\r\n";
    assert_eq!(client.say("EXEC"), format!("*4\r\n:43\r\n{OK}{not_integer}:2\r\n"));
    assert_eq!(other.say("GET a"), bulk("xy"));
    assert!(is_answer(&other.say("TTL a"), ":100\r\n", "TTL a"));

    // What is refused at once aborts all of it.
    client.say("MULTI");
    assert_eq!(client.say("SET a z"), QUEUED);
    assert!(client.say("SET a").starts_with("-ERR wrong number of arguments for 'set'"));
    assert!(client.say("EXEC").starts_with("-EXECABORT "));
    client.say("MULTI");
    client.say("SET a z");
    assert_eq!(client.say("DISCARD"), OK);
    assert_eq!(other.say("GET a"), bulk("xy"));

    // A late save is one in a transaction, too.
    assert_eq!(other.say("DEL a"), ":1\r\n");
    client.say("MULTI");
    client.say("SET a late");
    client.say("INCR c");
    let answered = client.say("EXEC");
    assert!(answered.starts_with(&format!("*2\r\n{LATE}")), "{answered}");
    assert!(answered.ends_with("\r\n:1\r\n"), "{answered}");
    assert_eq!(other.say("GET a"), NIL);
    assert_eq!(client.say("EXEC"), "-ERR EXEC without MULTI\r\n");

    // Tables are chosen as the commands say.
    client.say("MULTI");
    for request in ["SELECT 1", "SET a other", "SELECT 0", "EXISTS a"] {
        client.say(request);
    }
    assert_eq!(client.say("EXEC"), format!("*4\r\n{OK}{OK}{OK}:0\r\n"));
    client.say("SELECT 1");
    assert_eq!(client.say("GET a"), bulk("other"));
}

#[test]
fn a_transaction_is_not_done_if_somebody_else_changed_what_it_watches() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    other.say("SET a 1");
    let changes =
        ["SET a 2", "INCR a", "EXPIRE a 100", "DEL a", "SETNX a 1", "APPEND a x", "DEL b a"];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(client.say("WATCH a b"), OK);
        other.say(change);
        client.say("MULTI");
        client.say("SET c x");
        assert_eq!(client.say("EXEC"), CHANGED, "{number}: {change}");
        assert_eq!(other.say("EXISTS c"), ":0\r\n");
    }
    other.say("SETNX a 1");
    for change in ["GET a", "SET d x"] {
        client.say("WATCH a b");
        other.say(change);
        client.say("MULTI");
        client.say("GET a");
        assert_eq!(client.say("EXEC"), format!("*1\r\n{}", bulk("1")), "{change}");
    }
    for forget in ["UNWATCH", "MULTI DISCARD", "MULTI EXEC", "RESET"] {
        client.say("WATCH a");
        other.say("INCR a");
        for request in forget.split(' ') {
            client.say(request);
        }
        client.say("MULTI");
        client.say("PING");
        assert_eq!(client.say("EXEC"), "*1\r\n+PONG\r\n", "{forget}");
    }
    client.say("MULTI");
    assert_eq!(client.say("WATCH a"), "-ERR WATCH inside MULTI is not allowed\r\n");
    assert_eq!(client.say("MULTI"), "-ERR MULTI calls can not be nested\r\n");
    assert_eq!(client.say("EXEC"), "*0\r\n");
    client.say("HELLO 3");
    client.say("WATCH a");
    other.say("INCR a");
    client.say("MULTI");
    assert_eq!(client.say("EXEC"), "_\r\n");
    let keys: Vec<String> = (0..1_025).map(|number| format!("watched:{number}")).collect();
    let words: Vec<&str> = ["WATCH"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(client.ask(&words), "-ERR a connection watches 1024 keys at most\r\n");
}

#[test]
fn what_a_transaction_answers_and_writes_has_a_bound() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    let value = "x".repeat(60_000);
    client.ask(&["SET", "large", &value]);
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for key in &keys {
        assert_eq!(client.ask(&["SET", key, &value]), OK);
    }
    let answers = vec![["GET", "large"]; 300];
    // 13 MB of answers, and twice what was there.
    let drafts = keys.iter().cycle().take(210).map(|key| ["GET", key]).collect();
    for (what, requests) in [("answers", answers), ("drafts", drafts)] {
        client.say("MULTI");
        client.say("SET small 1");
        for request in requests {
            assert_eq!(client.ask(&request), QUEUED);
        }
        let bound = "-ERR the values and answers of a transaction have 16777216 bytes at most\r\n";
        assert_eq!(client.say("EXEC"), bound, "{what}");
        assert_eq!(client.say("EXISTS small"), ":0\r\n", "nothing is done");
    }
    assert_eq!(client.say("STRLEN large"), ":60000\r\n", "the connection goes on");
}

/// Whoever reads, computes and writes under a WATCH gets on if nobody else did meanwhile, through whichever node.
#[test]
fn of_those_who_watch_a_key_at_three_nodes_one_gets_on_each_time() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let counting = nodes.iter().map(|node| {
            scope.spawn(move || {
                let mut client = Tcp::of(node);
                let mut answers = Vec::new();
                for _ in 0..40 {
                    client.say("WATCH hits");
                    let seen = client.say("GET hits");
                    let seen = seen.split("\r\n").nth(1).and_then(|it| it.parse().ok());
                    let next = seen.unwrap_or(0_u32) + 1;
                    client.say("MULTI");
                    client.ask(&["SET", "hits", &next.to_string()]);
                    client.say("INCR all");
                    answers.push(client.say("EXEC"));
                }
                answers
            })
        });
        let counting: Vec<_> = counting.collect();
        counting.into_iter().flat_map(|thread| thread.join().expect("it counts")).collect()
    });
    let done = answers.iter().filter(|answer| answer.starts_with("*2\r\n")).count();
    let unknown = answers.iter().filter(|answer| answer.starts_with('-')).count();
    assert!(done > 0);
    let mut client = Tcp::of(&nodes[1]);
    for key in ["hits", "all"] {
        let count = client.ask(&["GET", key]);
        let count = count.split("\r\n").nth(1).and_then(|it| it.parse().ok()).expect("a number");
        assert!(
            (done..=done + unknown).contains(&count),
            "{key}: {count}, {done} and {unknown} unknown"
        );
    }
}

#[test]
fn random_transactions_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let (mut ours, mut our_other) = (Tcp::of(&node), Tcp::of(&node));
    let mut their_other = Client::at(&real.socket).expect("it is there");
    for seed in [4, 5, 6] {
        let mut draw = Draw(seed);
        let ended = ["DEL", "a", "b", "c", "d"];
        ours.ask(&ended);
        theirs.ask(&ended);
        for number in 0..300 {
            let mut requests: Vec<(bool, Vec<String>)> = vec![(false, vec!["UNWATCH".to_owned()])];
            if draw.below(3) == 0 {
                requests.push((false, vec!["WATCH".to_owned(), draw.key()]));
                let change = draw.request(number);
                // To Redis a key has changed that was not there, was written and is gone.
                if !change.contains(&"EXAT".to_owned()) {
                    requests.push((draw.below(3) == 0, change));
                }
            }
            if draw.below(8) > 0 {
                requests.push((false, vec!["MULTI".to_owned()]));
            }
            for at in 0..draw.below(8) {
                requests.push((false, draw.request(number + at)));
                if draw.below(40) == 0 {
                    let wrong =
                        ["GET", "NOSUCH", "MULTI", "WATCH a", "DISCARD", "UNWATCH", "EXEC x"];
                    let wrong = draw.one_of(&wrong);
                    requests.push((false, wrong.split(' ').map(str::to_owned).collect()));
                }
            }
            requests.push((false, vec![draw.one_of(&["EXEC", "EXEC", "EXEC", "DISCARD"])]));
            // How long it still lives depends on the time.
            let is_time = |words: &[String]| words[0].contains("TTL") || words[0].contains("TIME");
            requests.retain(|(_, words)| !is_time(words));
            for (by_other, words) in requests {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let (ours, theirs) = match by_other {
                    true => (our_other.ask(&words), their_other.ask(&words)),
                    false => (ours.ask(&words), theirs.ask(&words)),
                };
                assert_eq!(ours, theirs, "seed {seed}, transaction {number}: {words:?}");
            }
        }
    }
}
