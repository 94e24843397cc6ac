//! Sets and sorted sets.

use super::hashes::{Both, TIMED_OUT, WRONG_TYPE, in_a_transaction, in_order};
use super::*;

impl Draw {
    fn member(&mut self) -> String {
        self.one_of(&["m", "n", "o", "", "7"])
    }

    fn score(&mut self) -> String {
        self.one_of(&["0", "1", "-3", "2.5", "1e3", "-inf", "inf", "x"])
    }

    /// The words of a request about a set, sorted or not.
    fn of_set(&mut self, number: usize) -> Vec<String> {
        let mut words = vec![self.one_of(&[
            "SADD",
            "SADD",
            "SREM",
            "SMEMBERS",
            "SISMEMBER",
            "SMISMEMBER",
            "SCARD",
            "SSCAN",
            "ZADD",
            "ZADD",
            "ZADD",
            "ZREM",
            "ZINCRBY",
            "ZSCORE",
            "ZCARD",
            "ZCOUNT",
            "ZRANGE",
            "ZREVRANGE",
            "ZRANGEBYSCORE",
            "ZREVRANGEBYSCORE",
            "ZREMRANGEBYSCORE",
            "ZSCAN",
            "TYPE",
            "RENAME",
        ])];
        words.push(self.key());
        match &*words[0] {
            "SADD" | "SREM" | "SMISMEMBER" | "ZREM" => {
                (0..=self.below(3)).for_each(|_| words.push(self.member()));
                if self.below(3) == 0 {
                    words.push(number.to_string());
                }
            }
            "SISMEMBER" | "ZSCORE" => words.push(self.member()),
            "SSCAN" | "ZSCAN" => words.extend(["0", "MATCH", "[mn]"].map(str::to_owned)),
            "ZADD" => {
                for option in ["NX", "XX", "GT", "lt", "CH", "INCR"] {
                    if self.below(6) == 0 {
                        words.push(option.to_owned());
                    }
                }
                for _ in 0..=self.below(3) {
                    words.extend([self.score(), self.member()]);
                }
            }
            "ZINCRBY" => words.extend([self.score(), self.member()]),
            "ZCOUNT" | "ZREMRANGEBYSCORE" => words.extend([self.bound(), self.bound()]),
            "ZRANGE" if self.below(2) == 0 => {
                words.extend([self.bound(), self.bound(), "BYSCORE".to_owned()]);
                self.add_options(&mut words, &["REV", "WITHSCORES", "LIMIT"]);
            }
            "ZRANGE" => {
                words.extend([self.place(), self.place()]);
                self.add_options(&mut words, &["REV", "WITHSCORES"]);
            }
            "ZREVRANGE" => {
                words.extend([self.place(), self.place()]);
                self.add_options(&mut words, &["WITHSCORES"]);
            }
            "ZRANGEBYSCORE" | "ZREVRANGEBYSCORE" => {
                words.extend([self.bound(), self.bound()]);
                self.add_options(&mut words, &["WITHSCORES", "LIMIT"]);
            }
            "RENAME" => words.push(self.key()),
            _ => {}
        }
        words
    }

    fn bound(&mut self) -> String {
        self.one_of(&["-inf", "+inf", "0", "(1", "1", "(2.5", "1000", "-5"])
    }

    fn place(&mut self) -> String {
        self.one_of(&["0", "1", "-1", "-2", "5", "-9"])
    }

    fn add_options(&mut self, words: &mut Vec<String>, options: &[&str]) {
        for option in options {
            if self.below(3) == 0 {
                words.push((*option).to_owned());
                if *option == "LIMIT" {
                    words.extend([self.one_of(&["0", "1", "-1"]), self.one_of(&["0", "2", "-1"])]);
                }
            }
        }
    }
}

#[test]
fn random_commands_about_sets_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut both = Both::of(&node, &real);
    for seed in [17, 18, 19] {
        let mut draw = Draw(seed);
        both.end_all();
        for number in 0..700 {
            // Alone, or some of them in a transaction.
            let mut requests = Vec::new();
            for at in 0..=draw.below(4) {
                match draw.below(6) {
                    0 => requests.push(vec!["DEL".to_owned(), draw.key()]),
                    1 => requests.push(vec!["GET".to_owned(), draw.key()]),
                    _ => requests.push(draw.of_set(number + at)),
                }
            }
            if draw.below(3) == 0 {
                // Its answers are in one, and tell of nothing that is in no order.
                requests.retain(|words| !["SMEMBERS", "SSCAN", "ZSCAN"].contains(&&*words[0]));
                in_a_transaction(&mut requests);
            }
            both.say_alike(&requests, &format!("seed {seed}, round {number}"));
        }
    }
}

#[test]
fn a_set_is_no_session_and_begins_anew_after_its_end() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut one, mut other) = (Tcp::of(&node), Tcp::of(&node));
    assert_eq!(one.say("SADD user:7 s1 s2 s1"), ":2\r\n");
    assert_eq!(one.say("ZADD due 5 s1 7.5 s2"), ":2\r\n");
    let kinds = ["user:7", "due"].map(|key| one.say(&format!("TYPE {key}")));
    assert_eq!(kinds, ["+set\r\n", "+zset\r\n"]);
    let encodings = ["user:7", "due"].map(|key| one.say(&format!("OBJECT ENCODING {key}")));
    assert_eq!(encodings, [bulk("hashtable"), bulk("listpack")]);
    assert_eq!(other.say("DEL user:7 due"), ":2\r\n");
    assert_eq!(one.say("SADD user:7 s3"), ":1\r\n", "it was not told, and need not be");
    assert_eq!(one.say("ZADD due 1 s3"), ":1\r\n");
    assert_eq!(other.say("SMEMBERS user:7"), format!("*1\r\n{}", bulk("s3")));
    // With its last member it is gone.
    assert_eq!(one.say("SREM user:7 s3 s4"), ":1\r\n");
    assert_eq!(one.say("ZREMRANGEBYSCORE due -inf 1"), ":1\r\n");
    assert_eq!(other.say("EXISTS user:7 due"), ":0\r\n");
    // Deadlines are those of the key.
    one.say("SADD user:7 s4");
    assert_eq!(one.say("EXPIRE user:7 100"), ":1\r\n");
    one.say("SADD user:7 s5");
    assert!(is_answer(&one.say("TTL user:7"), ":100\r\n", "TTL user:7"));
    // Others than sets are none.
    one.say("HSET map f v");
    one.say("SET text x");
    for (command, key) in [("SADD", "map"), ("SADD", "text"), ("SREM", "due"), ("HSET", "user:7")] {
        one.say("ZADD due 1 m");
        assert_eq!(one.say(&format!("{command} {key} a b")), WRONG_TYPE, "{command} {key}");
    }
    let refused = one.ask(&["SADD", "user:7", &"m".repeat(1_025)]);
    assert_eq!(refused, "-ERR a member has 1024 bytes at most\r\n");
}

#[test]
fn sets_are_seen_by_other_clients_and_in_the_newer_protocol() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    client.say("SADD members b a");
    client.say("ZADD scores 2.5 b -inf a 1e20 c");
    let run = |args: &[&str]| place.run(&[args, &["--node", &node.addr]].concat()).stdout;
    assert_eq!(run(&["get", "members"]), "a\nb\n");
    assert_eq!(run(&["get", "scores"]), "a=-inf\nb=2.5\nc=1e+20\n");
    for (key, expected) in [
        ("members", r#""members":["a","b"]"#),
        ("scores", r#""scores":{"a":"-inf","b":"2.5","c":"1e+20"}"#),
    ] {
        let json = run(&["get", key, "--json"]).replace([' ', '\n'], "");
        assert!(json.contains(expected), "{json}");
    }
    client.say("HELLO 3");
    assert_eq!(client.say("SMEMBERS members"), format!("~2\r\n{}{}", bulk("a"), bulk("b")));
    assert_eq!(client.say("ZSCORE scores b"), ",2.5\r\n");
    assert_eq!(client.say("ZADD scores NX INCR 1 b"), "_\r\n");
    assert_eq!(
        client.say("ZRANGEBYSCORE scores (-inf 3 WITHSCORES"),
        format!("*1\r\n*2\r\n{},2.5\r\n", bulk("b"))
    );
    assert_eq!(client.say("ZRANGE scores 0 1"), format!("*2\r\n{}{}", bulk("a"), bulk("b")));
    client.say("HELLO 2");
    // A walk tells them apart.
    client.say("HSET map f v");
    for (kind, key) in [("set", "members"), ("ZSET", "scores"), ("hash", "map")] {
        let found = client.say(&format!("SCAN 0 TYPE {kind}"));
        assert!(found.ends_with(&format!("*1\r\n{}", bulk(key))), "{kind}: {found}");
    }
    // What is dumped and restored is a set still.
    client.say("RENAME members {other}slot");
    assert_eq!(client.say("SISMEMBER {other}slot a"), ":1\r\n");
}

/// Through three nodes at the same time: nothing that was added is lost while others add and remove, and what was removed, and
/// not added again, is gone.
#[test]
fn members_that_are_added_while_others_are_removed_stay() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let mut client = Tcp::of(&nodes[0]);
    let begun: Vec<String> = (0..60).map(|at| format!("old-{at}")).collect();
    let add = |command: &str, scored: bool| {
        let mut words = vec![command.to_owned(), command.to_lowercase()];
        for member in &begun {
            words.extend(scored.then(|| "1".to_owned()));
            words.push(member.clone());
        }
        words
    };
    for (command, scored) in [("SADD", false), ("ZADD", true)] {
        let words = add(command, scored);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(client.ask(&words), ":60\r\n");
    }
    eventually("all of them, everywhere", || {
        let counts = |node| {
            let mut client = Tcp::of(node);
            [client.say("SCARD sadd"), client.say("ZCARD zadd")]
        };
        let whole = [":60\r\n", ":60\r\n"];
        nodes.iter().all(|node| counts(node) == whole).then_some(())
    });
    let unknown: Vec<String> = std::thread::scope(|scope| {
        let asking = nodes.iter().enumerate().map(|(number, node)| {
            scope.spawn(move || {
                let mut client = Tcp::of(node);
                let mut unknown = Vec::new();
                for at in 0..40 {
                    let requests = match (number, at % 2) {
                        (0, 0) => [format!("SREM sadd old-{at}"), format!("ZREM zadd old-{at}")],
                        _ => [
                            format!("SADD sadd new-{number}-{at}"),
                            format!("ZADD zadd {at} new-{number}-{at}"),
                        ],
                    };
                    for request in requests {
                        let answer = client.say(&request);
                        // Who removes waits for a majority, and may be told that nobody knows.
                        let is_unknown = answer.starts_with(TIMED_OUT) && request.contains("REM");
                        assert!(answer == ":1\r\n" || is_unknown, "{request}: {answer}");
                        unknown.extend(is_unknown.then_some(request));
                    }
                }
                unknown
            })
        });
        let asking: Vec<_> = asking.collect();
        asking.into_iter().flat_map(|thread| thread.join().expect("it asks")).collect()
    });
    for request in unknown {
        eventually("that it is removed", || client.say(&request).starts_with(':').then_some(()));
    }
    let mut expected: Vec<String> =
        (0..60).filter(|at| *at >= 40 || at % 2 == 1).map(|at| format!("old-{at}")).collect();
    for number in 0..3 {
        let new = (0..40).filter(|at| number != 0 || at % 2 == 1);
        expected.extend(new.map(|at| format!("new-{number}-{at}")));
    }
    expected.sort_unstable();
    let told: String = expected.iter().map(|member| bulk(member)).collect();
    let told = format!("*{}\r\n{told}", expected.len());
    for node in &nodes {
        let mut client = Tcp::of(node);
        eventually("the same members everywhere", || {
            let scored = in_order(client.say("ZRANGE zadd 0 -1"), "SMEMBERS");
            let members = client.say("SMEMBERS sadd");
            (members == told && scored == in_order(told.clone(), "SMEMBERS")).then_some(())
        });
    }
}
