//! Fields of hashes that expire on their own: HEXPIRE and its like. A real Redis 7.0 has none of them.

use super::hashes::WRONG_TYPE;
use super::*;

fn codes(codes: &[i64]) -> String {
    let all: String = codes.iter().map(|code| format!(":{code}\r\n")).collect();
    format!("*{}\r\n{all}", codes.len())
}

#[test]
fn fields_expire_on_their_own() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    client.say("HSET h a 1 b 2 c 3");
    for (asked, answered) in [
        ("HTTL h FIELDS 3 a none b", codes(&[-1, -2, -1])),
        ("HEXPIRE none 100 FIELDS 2 a b", codes(&[-2, -2])),
        ("HTTL none FIELDS 1 a", codes(&[-2])),
        ("HEXPIRE h 1000 FIELDS 3 a none a", codes(&[1, -2, 1])),
        ("HEXPIRE h 2000 NX FIELDS 2 a b", codes(&[0, 1])),
        ("HEXPIRE h 3000 XX FIELDS 2 a c", codes(&[1, 0])),
        ("HEXPIRE h 2000 GT FIELDS 2 a c", codes(&[0, 0])),
        ("HPEXPIREAT h 4000000000000 lt FIELDS 3 a b c", codes(&[0, 0, 1])),
        ("HEXPIREAT h 4000000000 gt FIELDS 1 a", codes(&[1])),
        ("HEXPIRETIME h FIELDS 3 a none c", codes(&[4_000_000_000, -2, 4_000_000_000])),
        ("HPEXPIREAT h 4000000000123 FIELDS 1 a", codes(&[1])),
        ("HPEXPIRETIME h FIELDS 1 a", codes(&[4_000_000_000_123])),
        ("HEXPIRETIME h FIELDS 1 a", codes(&[4_000_000_001])),
        // Whoever counts on leaves the deadline as it is, and who sets a field anew takes it away.
        ("HINCRBY h a 5", ":6\r\n".to_owned()),
        ("HPEXPIRETIME h FIELDS 1 a", codes(&[4_000_000_000_123])),
        ("HPERSIST h FIELDS 3 a a none", codes(&[1, -1, -2])),
        ("HSET h b 3", ":0\r\n".to_owned()),
        ("HTTL h FIELDS 2 a b", codes(&[-1, -1])),
        // What is past is deleted, and with the last field the key.
        ("HEXPIREAT h 1 FIELDS 2 a a", codes(&[2, -2])),
        ("HEXISTS h a", ":0\r\n".to_owned()),
        ("HEXPIRE h 0 FIELDS 2 b c", codes(&[2, 2])),
        ("EXISTS h", ":0\r\n".to_owned()),
        ("SET text x", OK.to_owned()),
        ("HTTL text FIELDS 1 a", WRONG_TYPE.to_owned()),
        ("HEXPIRE text 1 FIELDS 1 a", WRONG_TYPE.to_owned()),
        ("HEXPIRE h -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0\r\n".to_owned()),
        (
            "HEXPIRE h 9223372036854775807 FIELDS 1 a",
            "-ERR invalid expire time in 'hexpire' command\r\n".to_owned(),
        ),
        (
            "HPEXPIREAT h 70368744177664 FIELDS 1 a",
            "-ERR invalid expire time in 'hpexpireat' command\r\n".to_owned(),
        ),
        (
            "HEXPIRE h 1 NX XX FIELDS 1 a",
            "-ERR Mandatory argument FIELDS is missing or not at the right position\r\n".to_owned(),
        ),
        ("HTTL h FIELDS 0 a", "-ERR Parameter `numFields` should be greater than 0\r\n".to_owned()),
        (
            "HTTL h FIELDS 2 a",
            "-ERR The `numfields` parameter must match the number of arguments\r\n".to_owned(),
        ),
    ] {
        assert_eq!(client.say(asked), answered, "{asked}");
    }
}

#[test]
fn an_expired_field_is_gone_on_all_nodes_and_the_others_stay() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let mut client = Tcp::of(&nodes[0]);
    client.say("HSET h brief 1 long 2");
    client.say("HSET all brief 1");
    assert_eq!(client.say("HPEXPIRE h 1500 FIELDS 1 brief"), codes(&[1]));
    assert_eq!(client.say("HPEXPIRE all 1500 FIELDS 1 brief"), codes(&[1]));
    for node in &nodes {
        let mut client = Tcp::of(node);
        eventually("that it is gone", || {
            (client.say("HKEYS h") == format!("*1\r\n{}", bulk("long"))).then_some(())
        });
        // Of what has no field left there is nothing to see.
        eventually("that all is gone", || (client.say("EXISTS all") == ":0\r\n").then_some(()));
        assert_eq!(client.say("TYPE all"), "+none\r\n");
        assert_eq!(client.say("HLEN all"), ":0\r\n");
    }
    // It is as if it were not there, for whoever writes, too.
    for key in ["all-2", "all-3", "all-4"] {
        client.say(&format!("HSET {key} brief 1"));
        assert_eq!(client.say(&format!("HPEXPIRE {key} 1 FIELDS 1 brief")), codes(&[1]));
        eventually("that it is gone", || {
            (client.say(&format!("EXISTS {key}")) == ":0\r\n").then_some(())
        });
    }
    client.say("SET precious value");
    assert_eq!(client.say("RENAME all-2 precious"), "-ERR no such key\r\n");
    assert_eq!(client.say("GET precious"), bulk("value"));
    assert_eq!(client.say("SET all-3 lock NX"), OK);
    assert_eq!(client.say("SADD all-4 m"), ":1\r\n");
    assert_eq!(client.say("HSET all again 1"), ":1\r\n");
    assert_eq!(client.say("HGETALL all"), format!("*2\r\n{}{}", bulk("again"), bulk("1")));
}

#[test]
fn deadlines_of_fields_go_through_transactions_and_new_names() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    client.say("HSET h a 1 b 2 c 3");
    client.say("HEXPIREAT h 4000000000 FIELDS 2 a b");
    for request in [
        "MULTI",
        "HINCRBY h a 1",
        "HSET h b 5",
        "HEXPIREAT h 4100000000 FIELDS 1 c",
        "HTTL h FIELDS 1 b",
    ] {
        client.say(request);
    }
    let done = client.say("EXEC");
    assert_eq!(done, format!("*4\r\n:2\r\n:0\r\n{}{}", codes(&[1]), codes(&[-1])));
    let all = "HEXPIRETIME h FIELDS 3 a b c";
    assert_eq!(client.say(all), codes(&[4_000_000_000, -1, 4_100_000_000]));
    // What begins in the transaction has them too, and what was something else before.
    client.say("SET other text");
    for request in [
        "MULTI",
        "HSET new code 1 more 2",
        "HEXPIREAT new 4000000000 FIELDS 1 code",
        "DEL other",
        "HSET other code 1",
        "HEXPIREAT other 4000000000 FIELDS 1 code",
        "RENAME other {renamed}other",
        "EXEC",
    ] {
        assert!(!client.say(request).contains("ERR"), "{request}");
    }
    for (key, expected) in [("new", [4_000_000_000, -1]), ("{renamed}other", [4_000_000_000, -2])] {
        assert_eq!(client.say(&format!("HEXPIRETIME {key} FIELDS 2 code more")), codes(&expected));
    }
    // A deadline is a change that WATCH sees.
    client.say("WATCH h");
    other.say("HPERSIST h FIELDS 1 a");
    client.say("MULTI");
    client.say("HSET h d 1");
    assert_eq!(client.say("EXEC"), "*-1\r\n");
    assert_eq!(client.say("RENAME h {elsewhere}h"), OK);
    let all = "HEXPIRETIME {elsewhere}h FIELDS 3 a b c";
    assert_eq!(client.say(all), codes(&[-1, -1, 4_100_000_000]));
}
