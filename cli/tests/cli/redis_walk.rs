//! Commands about all keys, and those that give sessions other names.

use std::collections::BTreeSet;

use super::*;

/// The bulk strings of an answer.
fn words(answer: &str) -> Vec<String> {
    let mut lines = answer.split("\r\n");
    let mut words = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') && line != "$-1" {
            words.extend(lines.next().map(str::to_owned));
        }
    }
    words
}

/// A page of SCAN: the cursor of the next one, and the keys.
fn page<S: Read + Write>(client: &mut Client<S>, request: &str) -> (String, Vec<String>) {
    let answer = client.say(request);
    assert!(answer.starts_with("*2\r\n"), "{request}: {answer}");
    let mut words = words(&answer);
    let cursor = words.remove(0);
    (cursor, words)
}

/// All that SCAN returns with these options.
fn scanned<S: Read + Write>(client: &mut Client<S>, options: &str) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let (next, found) = page(client, &format!("SCAN {cursor}{options}"));
        keys.extend(found);
        if next == "0" {
            return keys;
        }
        cursor = next;
    }
}

fn set(keys: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    keys.into_iter().collect()
}

#[test]
fn all_keys_are_told_of_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours = Tcp::of(&node);
    assert_eq!(ours.say("DBSIZE"), ":0\r\n");
    assert_eq!(ours.say("RANDOMKEY"), NIL);
    assert_eq!(ours.say("SCAN 0"), "*2\r\n$1\r\n0\r\n*0\r\n");
    // Many of one slot among them, that pages have to be begun within it.
    let plain = (0..300).map(|number| format!("key:{number}"));
    let keys: Vec<String> = plain.chain((0..300).map(|it| format!("{{one}}:{it}"))).collect();
    let mut both = |request: &str| {
        let (ours, theirs) = (ours.say(request), theirs.say(request));
        (ours, theirs)
    };
    for key in &keys {
        both(&format!("SET {key} v"));
    }
    for request in ["DEL key:0 {one}:0", "EXPIRE key:2 -1", "DBSIZE"] {
        let (ours, theirs) = both(request);
        assert_eq!(ours, theirs, "{request}");
    }
    for pattern in ["*", "key:*", "key:1?", "{one}:[0-3]*", "none*", "key:5", "*:2\\9"] {
        let (ours, theirs) = both(&format!("KEYS {pattern}"));
        let (ours, theirs) = (words(&ours), words(&theirs));
        assert_eq!(ours.len(), theirs.len(), "each once: {pattern}");
        assert_eq!(set(ours), set(theirs), "{pattern}");
    }
    for options in [
        "",
        " COUNT 1",
        " COUNT 7",
        " COUNT 100000",
        " MATCH key:1*",
        " MATCH *7 COUNT 33",
        " TYPE string",
        " TYPE hash",
        " TYPE nothing",
        " TYPE STRING MATCH key:2*",
    ] {
        let (mine, real) = (scanned(&mut ours, options), scanned(&mut theirs, options));
        assert_eq!(mine.len(), set(mine.clone()).len(), "each once: {options}");
        assert_eq!(set(mine), set(real), "{options}");
    }
    for _ in 0..20 {
        let key = words(&ours.say("RANDOMKEY"));
        assert!(key.len() == 1 && theirs.say(&format!("EXISTS {}", key[0])) == ":1\r\n", "{key:?}");
    }
    // A page has about as many as were asked for, and a cursor that nobody gave is the end.
    let (cursor, found) = page(&mut ours, "SCAN 0 COUNT 7");
    assert!(found.len() == 7 && cursor.parse::<u64>().is_ok_and(|it| it < 1 << 53), "{cursor}");
    assert_eq!(page(&mut ours, "SCAN 18446744073709551615"), ("0".to_owned(), Vec::new()));
    // Maps of others, and tables, are apart.
    place.run(&["start", "map", "--field", "a=1", "--node", &node.addr]).ok();
    assert_eq!(scanned(&mut ours, " TYPE hash"), ["map"]);
    assert_eq!(ours.say("SELECT 1"), OK);
    assert_eq!(ours.say("DBSIZE"), ":0\r\n");
}

/// A walk goes on at another node, after the one where it began was killed and another one has joined.
#[test]
fn a_walk_misses_no_key_that_stays_whoever_goes_on_with_it() {
    let place = Place::new();
    let door = ["--redis-listen", "127.0.0.1:0"];
    let mut nodes = doors(&place, "n1", &["n2", "n3"], &door);
    let seed = nodes[0].addr.clone();
    let keys: Vec<String> = (0..400).map(|number| format!("sess:{number}")).collect();
    let mut first = Tcp::of(&nodes[0]);
    for key in &keys {
        assert_eq!(first.ask(&["SET", key, "v", "EX", "1000"]), OK);
    }
    place.run(&["safe-to-stop", "--wait", "60s", "--node", &seed]).ok();
    // What ended is told of by nobody, though a home may not know it yet.
    let (gone, stay) = keys.split_at(50);
    for key in gone {
        assert_eq!(first.ask(&["DEL", key]), ":1\r\n");
    }
    assert_eq!(first.say("DBSIZE"), ":350\r\n");
    assert_eq!(set(words(&first.say("KEYS *"))), set(stay.to_vec()));
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    let mut go_on = |client: &mut Tcp, pages: usize, cursor: &mut String| {
        for _ in 0..pages {
            let (next, keys) = page(client, &format!("SCAN {cursor} COUNT 20"));
            found.extend(keys);
            *cursor = next;
            if *cursor == "0" {
                break;
            }
        }
    };
    go_on(&mut first, 5, &mut cursor);
    // A fourth one takes its share of the slots, while the walk goes on at the second one.
    nodes.push(place.node("n4", &[&seed], &door));
    let mut second = Tcp::of(&nodes[1]);
    go_on(&mut second, 3, &mut cursor);
    in_sync(&place, &seed, 4);
    let mut fourth = Tcp::of(&nodes[3]);
    go_on(&mut fourth, 3, &mut cursor);
    nodes[0].child.kill().expect("it is killed");
    assert_ne!(cursor, "0");
    go_on(&mut second, 2, &mut cursor);
    go_on(&mut fourth, usize::MAX, &mut cursor);
    assert_eq!(found, set(stay.to_vec()));
}

#[test]
fn sessions_get_other_names_as_in_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours = Tcp::of(&node);
    let mut draw = Draw(7);
    for number in 0..600 {
        let (one, other) = (draw.key(), draw.key());
        let time = 100_000 + number * 1_000;
        let request = match draw.below(8) {
            0 => format!("SET {one} {number}"),
            1 => format!("SET {one} {number} EX {time}"),
            2 | 3 => format!("RENAME {one} {other}"),
            4 => format!("RENAMENX {one} {other}"),
            5 => format!("MSETNX {one} {number} {other} x"),
            6 => format!("DEL {one}"),
            _ => format!("EXPIRE {one} {time}"),
        };
        assert_eq!(ours.say(&request), theirs.say(&request), "{number}: {request}");
        for key in [&one, &other] {
            let get = format!("GET {key}");
            assert_eq!(ours.say(&get), theirs.say(&get), "{number}: {request}, {get}");
            // Somebody may be a second later.
            let mut seconds = |request: &str| {
                let answers = [ours.say(request), theirs.say(request)];
                answers.map(|answer| answer[1..].trim().parse::<i64>().expect("a number"))
            };
            let [mine, real] = seconds(&format!("TTL {key}"));
            assert!((mine - real).abs() <= 1, "{number}: {request}, {mine} and {real}");
        }
        assert_eq!(ours.say("DBSIZE"), theirs.say("DBSIZE"), "{number}: {request}");
    }
}
