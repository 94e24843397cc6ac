//! Hashes, numbers that need not be whole, DUMP and RESTORE.

use super::*;

pub(super) const WRONG_TYPE: &str =
    "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

pub(super) const TIMED_OUT: &str = "-ERR timed out";

impl Draw {
    /// The words of a request about a hash.
    fn of_hash(&mut self, number: usize) -> Vec<String> {
        let field = |draw: &mut Self| draw.one_of(&["f", "g", "h", ""]);
        let mut words = vec![self.one_of(&[
            "HSET",
            "HSET",
            "HMSET",
            "HSETNX",
            "HGET",
            "HMGET",
            "HGETALL",
            "HKEYS",
            "HVALS",
            "HLEN",
            "HEXISTS",
            "HSTRLEN",
            "HDEL",
            "HDEL",
            "HINCRBY",
            "HINCRBYFLOAT",
            "HSCAN",
            "HRANDFIELD",
            "TYPE",
        ])];
        words.push(self.key());
        match &*words[0] {
            "HSET" | "HMSET" => {
                for _ in 0..=self.below(3) {
                    let value = if self.below(3) == 0 { number.to_string() } else { self.value() };
                    words.extend([field(self), value]);
                }
            }
            "HSETNX" => words.extend([field(self), self.value()]),
            "HGET" | "HEXISTS" | "HSTRLEN" => words.push(field(self)),
            "HMGET" | "HDEL" => (0..=self.below(3)).for_each(|_| words.push(field(self))),
            "HINCRBY" => {
                let by = self.one_of(&["1", "-7", "9223372036854775807", "1.5"]);
                words.extend([field(self), by]);
            }
            "HINCRBYFLOAT" => words.extend([field(self), self.one_of(&["1", "-2.", "1e3", "x"])]),
            "HSCAN" => words.extend(["0", "MATCH", "[fg]"].map(str::to_owned)),
            // All that there are.
            "HRANDFIELD" => words.push("10".to_owned()),
            _ => {}
        }
        words
    }
}

/// The answer, whatever the order is in which it tells of fields or members: Redis' own is another one.
pub(super) fn in_order(answer: String, asked: &str) -> String {
    let per_field = match asked {
        "HGETALL" | "HSCAN" | "ZSCAN" => 2,
        "HKEYS" | "HVALS" | "HRANDFIELD" | "SMEMBERS" | "SSCAN" => 1,
        _ => return answer,
    };
    let Some(at) = answer.rfind('*') else { return answer };
    let (count, fields) = answer[at..].split_once("\r\n").expect("a line");
    let lines: Vec<&str> = fields.split_terminator("\r\n").collect();
    let mut fields: Vec<String> = lines.chunks(2 * per_field).map(|it| it.join(" ")).collect();
    fields.sort_unstable();
    format!("{}{count} {fields:?}", &answer[..at])
}

/// Ours, and a real one, of whom the same is asked.
pub(super) struct Both {
    ours: Tcp,
    theirs: Client<UnixStream>,
}

impl Both {
    pub(super) fn of(node: &Node, real: &RealRedis) -> Self {
        let theirs = eventually("a real Redis", || Client::at(&real.socket));
        Self { ours: Tcp::of(node), theirs }
    }

    /// Begins anew with the keys that are drawn.
    pub(super) fn end_all(&mut self) {
        let ended = ["DEL", "a", "b", "c", "d"];
        self.ours.ask(&ended);
        self.theirs.ask(&ended);
    }

    #[track_caller]
    pub(super) fn say_alike(&mut self, requests: &[Vec<String>], when: &str) {
        for words in requests {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answers = [self.ours.ask(&words), self.theirs.ask(&words)];
            let [ours, theirs] = answers.map(|answer| in_order(answer, words[0]));
            assert_eq!(ours, theirs, "{when}: {words:?}");
        }
    }
}

pub(super) fn in_a_transaction(requests: &mut Vec<Vec<String>>) {
    requests.insert(0, vec!["MULTI".to_owned()]);
    requests.push(vec!["EXEC".to_owned()]);
}

#[test]
fn random_commands_about_hashes_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut both = Both::of(&node, &real);
    let is_time = |words: &[String]| words[0].contains("TTL") || words[0].contains("TIME");
    for seed in [7, 8, 9] {
        let mut draw = Draw(seed);
        both.end_all();
        for number in 0..500 {
            // Alone, or some of them in a transaction.
            let mut requests = Vec::new();
            for at in 0..=draw.below(4) {
                match draw.below(4) {
                    0 => requests.push(draw.request(number + at)),
                    _ => requests.push(draw.of_hash(number + at)),
                }
            }
            requests.retain(|words| !is_time(words));
            let is_transaction = draw.below(3) == 0;
            if is_transaction {
                // Its answers are in one, and tell of no fields.
                let tell_of_fields = ["HGETALL", "HKEYS", "HVALS", "HSCAN", "HRANDFIELD"];
                requests.retain(|words| !tell_of_fields.contains(&&*words[0]));
                in_a_transaction(&mut requests);
            }
            both.say_alike(&requests, &format!("seed {seed}, round {number}"));
        }
    }
}

#[test]
fn a_hash_is_a_session_with_fields_for_everybody() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    assert_eq!(client.say("HSET sess user alice cart 3"), ":2\r\n");
    assert_eq!(client.say("HSET sess user bob seen 1"), ":1\r\n");
    let run = |args: &[&str]| place.run(&[args, &["--node", &node.addr]].concat());
    let got = run(&["get", "sess"]).stdout;
    for part in ["user", "bob", "cart", "seen"] {
        assert!(got.contains(part), "{part} in {got}");
    }
    run(&["set", "sess", "--field", "cart=4"]);
    eventually("what another client of Annulus set", || {
        (client.say("HGET sess cart") == bulk("4")).then_some(())
    });
    client.say("HELLO 3");
    let all = format!("%3\r\n{}{}", bulk("cart"), bulk("4"));
    let answered = client.say("HGETALL sess");
    assert!(answered.starts_with(&all), "{answered}");
    assert_eq!(client.say("HGET sess none"), "_\r\n");
    assert_eq!(client.say("OBJECT ENCODING sess"), bulk("listpack"));
    client.say("HELLO 2");

    // Deadlines are those of the key, and stay.
    assert_eq!(client.say("EXPIRE sess 100"), ":1\r\n");
    client.say("HSET sess more 1");
    client.say("HDEL sess seen");
    assert!(is_answer(&client.say("TTL sess"), ":100\r\n", "TTL sess"));
    assert_eq!(client.say("GET sess"), WRONG_TYPE);
    client.say("SET text x");
    for request in
        ["HSET text f v", "HGET text f", "HDEL text f", "HINCRBY text f 1", "HSCAN text 0"]
    {
        assert_eq!(client.say(request), WRONG_TYPE, "{request}");
    }

    // What is too long is refused, and nothing is done.
    let (name, value) = ("n".repeat(1_025), "v".repeat(70_000));
    let refused = client.ask(&["HSET", "sess", "fine", "1", &name, "v"]);
    assert_eq!(refused, "-ERR a field's name has 1024 bytes at most\r\n");
    let refused = client.ask(&["HSET", "sess", "fine", "1", "other", &value]);
    assert!(refused.starts_with("-ERR string exceeds maximum allowed size"), "{refused}");
    assert_eq!(client.say("HEXISTS sess fine"), ":0\r\n");

    // A field may be named many times; not for as many bytes as there are then.
    let value = "v".repeat(60_000);
    assert_eq!(client.ask(&["HSET", "large", "f", &value]), ":1\r\n");
    let many = [vec!["HMGET", "large"], vec!["f"; 300]].concat();
    let refused = client.ask(&many);
    assert_eq!(refused, "-ERR the answer is longer than 16777216 bytes; ask for less\r\n");
    assert_eq!(client.say("HSTRLEN large f"), ":60000\r\n", "the connection goes on");
}

#[test]
fn a_hash_that_was_ended_is_not_brought_back_by_a_late_save() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut late, mut other) = (Tcp::of(&node), Tcp::of(&node));
    late.say("HMSET sess user alice cart 3");
    assert_eq!(other.say("DEL sess"), ":1\r\n");
    for save in ["HMSET sess cart 4", "HSET sess cart 4"] {
        let refused = late.say(save);
        assert!(refused.starts_with(LATE), "{save}: {refused}");
    }
    assert_eq!(other.say("EXISTS sess"), ":0\r\n");
    // Whoever has looked begins another one.
    assert_eq!(late.say("HGETALL sess"), "*0\r\n");
    assert_eq!(late.say("HSET sess cart 1"), ":1\r\n");
    assert_eq!(other.say("HLEN sess"), ":1\r\n");
    // With its last field a hash is gone, as after DEL.
    assert_eq!(late.say("HDEL sess cart none cart"), ":1\r\n");
    assert_eq!(other.say("TYPE sess"), "+none\r\n");
    assert_eq!(late.say("HSET sess cart 2"), ":1\r\n", "this one ended it");
    assert_eq!(other.say("HDEL sess cart"), ":1\r\n");
    let refused = late.say("HSET sess cart 3");
    assert!(refused.starts_with(LATE), "{refused}");
}

/// Through three nodes at the same time, nobody's field is lost, and each step counts once.
#[test]
fn fields_that_are_set_through_several_nodes_are_merged() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let all_have = |count: usize| {
        let count = format!(":{count}\r\n");
        eventually("all fields", || {
            nodes.iter().all(|node| Tcp::of(node).say("HLEN sess") == count).then_some(())
        });
    };
    // Forty requests through each; of so many nobody knows whether they were done.
    let through_each = |request: &(dyn Fn(usize, usize) -> String + Sync)| -> usize {
        std::thread::scope(|scope| {
            let asking = nodes.iter().enumerate().map(|(number, node)| {
                scope.spawn(move || {
                    let mut client = Tcp::of(node);
                    let answers = (0..40).map(|at| client.say(&request(number, at)));
                    let errors = answers.filter(|answer| answer.starts_with('-'));
                    errors.inspect(|error| assert!(error.starts_with(TIMED_OUT), "{error}")).count()
                })
            });
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|thread| thread.join().expect("it asks")).sum()
        })
    };
    Tcp::of(&nodes[0]).say("HSET sess begun 1");
    all_have(1);
    let unknown = through_each(&|number, at| format!("HSET sess field-{number}-{at} 1"));
    assert_eq!(unknown, 0);
    all_have(121);
    let mut client = Tcp::of(&nodes[1]);
    for (command, field, step) in [("HINCRBY", "hits", "1"), ("HINCRBYFLOAT", "sum", "0.5")] {
        let unknown = through_each(&|_, _| format!("{command} sess {field} {step}"));
        eventually("all steps", || {
            let sum = client.ask(&["HGET", "sess", field]);
            let sum: f64 = sum.split("\r\n").nth(1)?.parse().ok()?;
            let steps = (sum / step.parse::<f64>().ok()?) as usize;
            assert!(steps <= 120, "{command}: {steps}");
            (120 - unknown..=120).contains(&steps).then_some(())
        });
    }
}

#[test]
fn sums_of_numbers_that_need_not_be_whole_are_exact() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    for (asked, answered) in [
        ("INCRBYFLOAT n 10.50", bulk("10.5")),
        ("INCRBYFLOAT n 0.1", bulk("10.6")),
        ("INCRBYFLOAT n -5", bulk("5.6")),
        ("INCRBYFLOAT n 5.0e3", bulk("5005.6")),
        ("GET n", bulk("5005.6")),
        ("INCRBYFLOAT n inf", "-ERR increment would produce NaN or Infinity\r\n".to_owned()),
        ("INCRBYFLOAT n 1e21", bulk("1000000000000000005005.6")),
        (
            "INCRBYFLOAT n 1e21",
            "-ERR increment would produce a number of more than 21 digits\r\n".to_owned(),
        ),
        ("SET n text", OK.to_owned()),
        ("INCRBYFLOAT n 1", "-ERR value is not a valid float\r\n".to_owned()),
        ("HSET h f text", ":1\r\n".to_owned()),
        ("HINCRBYFLOAT h f 1", "-ERR hash value is not a float\r\n".to_owned()),
    ] {
        assert_eq!(client.say(asked), answered, "{asked}");
    }
}

#[test]
fn what_was_dumped_under_one_key_is_restored_under_another() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut one, mut other) = (Tcp::of(&node), Tcp::of(&node));
    one.say("HSET hash f v g w");
    one.say("SET text value");
    assert_eq!(one.say("DUMP nothing"), NIL);
    let mut dump = |key: &str| {
        one.send(&request(&["DUMP", key]));
        let mut answer = Vec::new();
        one.read_into(&mut answer);
        let begin = answer.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        answer[begin..answer.len() - 2].to_vec()
    };
    let (hash, text) = (dump("hash"), dump("text"));
    let mut restore = |key: &str, ttl: &str, payload: &[u8], options: &[&str]| {
        let words = [b"RESTORE", key.as_bytes(), ttl.as_bytes(), payload];
        let words = words.into_iter().chain(options.iter().map(|option| option.as_bytes()));
        let words: Vec<_> = words.collect();
        other.send(&request_of_bytes(&words));
        other.answer()
    };
    assert_eq!(restore("new", "0", &hash, &[]), OK);
    assert_eq!(restore("new", "0", &text, &[]), "-BUSYKEY Target key name already exists.\r\n");
    assert_eq!(restore("brief", "100000", &text, &["IDLETIME", "5"]), OK);
    assert_eq!(restore("past", "1", &text, &["ABSTTL"]), OK);
    assert_eq!(restore("text", "1", &text, &["ABSTTL", "REPLACE"]), OK);
    assert_eq!(restore("hash", "0", &text, &["REPLACE"]), OK);
    let bad = "-ERR DUMP payload version or checksum are wrong\r\n";
    assert_eq!(restore("bad", "0", &hash[1..], &[]), bad);
    assert_eq!(
        other.say("HGETALL new"),
        format!("*4\r\n{}{}{}{}", bulk("f"), bulk("v"), bulk("g"), bulk("w"))
    );
    assert!(is_answer(&other.say("TTL brief"), ":100\r\n", "TTL brief"));
    assert_eq!(other.say("EXISTS past bad text"), ":0\r\n");
    assert_eq!(other.say("GET hash"), bulk("value"));
}

#[test]
fn fields_at_random_are_some_of_those_that_there_are() {
    let place = Place::new();
    let node = door(&place, "");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours = Tcp::of(&node);
    // Where there is no choice, the answer is Redis' own.
    let without_choice = [
        "HSET one f v",
        "SET text v",
        "HRANDFIELD none",
        "HRANDFIELD none 3",
        "HRANDFIELD none -3 WITHVALUES",
        "HRANDFIELD one",
        "HRANDFIELD one 0",
        "HRANDFIELD one 0 WITHVALUES",
        "HRANDFIELD one 7",
        "HRANDFIELD one 7 WITHVALUES",
        "HRANDFIELD one -3",
        "HRANDFIELD one -3 withvalues",
        "HRANDFIELD text",
        "HRANDFIELD text 1",
        "MULTI",
        "HRANDFIELD one -2 WITHVALUES",
        "HRANDFIELD text 1",
        "EXEC",
    ];
    for asked in without_choice {
        assert_eq!(ours.say(asked), theirs.say(asked), "{asked}");
    }
    assert!(ours.say("HELLO 3").starts_with('%') && theirs.say("HELLO 3").starts_with('%'));
    for asked in without_choice.iter().filter(|asked| !asked.starts_with("HSET")) {
        assert_eq!(ours.say(asked), theirs.say(asked), "{asked} with RESP3");
    }
    assert_eq!(ours.say("RESET"), "+RESET\r\n");
    ours.say("HSET many a 1 b 2 c 3 d 4");
    let mut texts = |request: &str| {
        let answer = ours.say(request);
        let texts = answer.split("\r\n").skip(1).filter(|line| !line.starts_with('$'));
        texts.filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = ["a", "b", "c", "d"];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        seen.extend(texts("HRANDFIELD many"));
    }
    assert!(seen.iter().eq(all), "{seen:?}");
    for count in 0..6 {
        for _ in 0..20 {
            let mut found = texts(&format!("HRANDFIELD many {count}"));
            assert!(found.iter().all(|field| all.contains(&&**field)), "{found:?}");
            assert_eq!(found.len(), count.min(4));
            found.sort();
            found.dedup();
            assert_eq!(found.len(), count.min(4), "each once");
            let again = texts(&format!("HRANDFIELD many -{count} WITHVALUES"));
            assert_eq!(again.len(), 2 * count);
            for pair in again.chunks(2) {
                let place = all.iter().position(|field| *field == pair[0]);
                assert_eq!(place.map(|place| (place + 1).to_string()).as_ref(), Some(&pair[1]));
            }
        }
    }
    for count in ["-9223372036854775807", "-2000000", "-1000000 WITHVALUES"] {
        let refused = ours.say(&format!("HRANDFIELD many {count}"));
        assert!(refused.starts_with("-ERR the answer is longer than "), "{count}: {refused}");
    }
}
