//! The scripts of session libraries.

use super::*;

const RELEASE: &str = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";
const RELEASE_SHA1: &str = "b70c2384248f88e6b75b9f89241a180f856ad852";
const ADD: &str =
    "return redis.call('exists',KEYS[1])<1 and redis.call('setex',KEYS[1],ARGV[2],ARGV[1])";
const EXTEND_SHA1: &str = "a4e8783852e6b949f9ef3a97212805108459a890";
const REACQUIRE_SHA1: &str = "1cac51482acf5858da00f6d685d68f886cd6b6b2";
const RENEW_SHA1: &str = "54ea03b66da5fbbf9c19520232b7fc68354b94eb";

#[test]
fn a_lock_is_released_by_who_holds_it_alone() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut one, mut other) = (Tcp::of(&node), Tcp::of(&node));
    assert_eq!(one.say("SET lock token-1 NX PX 100000"), OK);
    assert_eq!(other.say("SET lock token-2 NX PX 100000"), NIL);
    assert_eq!(other.ask(&["EVALSHA", RELEASE_SHA1, "1", "lock", "token-2"]), ":0\r\n");
    assert_eq!(other.ask(&["EVAL", RELEASE, "1", "lock", "token-2"]), ":0\r\n");
    assert_eq!(one.ask(&["EVALSHA", EXTEND_SHA1, "1", "lock", "token-1", "100000", "0"]), ":1\r\n");
    assert!(is_answer(&one.say("TTL lock"), ":200\r\n", "TTL lock"));
    assert_eq!(one.ask(&["EVALSHA", EXTEND_SHA1, "1", "lock", "token-1", "50000", "1"]), ":1\r\n");
    assert!(is_answer(&one.say("TTL lock"), ":50\r\n", "TTL lock"));
    assert_eq!(other.ask(&["EVALSHA", REACQUIRE_SHA1, "1", "lock", "token-2", "90000"]), ":0\r\n");
    assert_eq!(one.ask(&["EVALSHA", REACQUIRE_SHA1, "1", "lock", "token-1", "90000"]), ":1\r\n");
    assert!(is_answer(&one.say("TTL lock"), ":90\r\n", "TTL lock"));
    assert_eq!(one.ask(&["EVAL", RELEASE, "1", "lock", "token-1"]), ":1\r\n");
    assert_eq!(other.say("SET lock token-2 NX PX 100000"), OK);
    // Of two who hold one token one releases it.
    other.say("MULTI");
    other.ask(&["EVAL", RELEASE, "1", "lock", "token-2"]);
    other.ask(&["EVAL", RELEASE, "1", "lock", "token-2"]);
    assert_eq!(other.say("EXEC"), "*2\r\n:1\r\n:0\r\n");
    assert_eq!(one.say("EXISTS lock"), ":0\r\n");
}

#[test]
fn known_scripts_are_answered_as_by_a_real_redis_and_others_refused() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours = Tcp::of(&node);
    let spaced = RELEASE.replace(' ', "\n  ");
    for words in [
        &["EVALSHA", "0123456789012345678901234567890123456789", "0"][..],
        &["EVALSHA", "short", "0"],
        &["EVALSHA", "short", "x"],
        &["EVALSHA", RELEASE_SHA1, "x"],
        &["EVAL", RELEASE, "2", "k"],
        &["EVAL", RELEASE, "-1", "k"],
        &["EVAL", RELEASE],
        &["SCRIPT"],
        &["SCRIPT", "NOSUCH"],
        &["SCRIPT", "LOAD"],
        &["SCRIPT", "FLUSH", "NOW"],
        &["SCRIPT", "LOAD", RELEASE],
        &["SCRIPT", "LOAD", &spaced],
        &["SCRIPT", "EXISTS", RELEASE_SHA1, "x"],
        &["EVAL", ADD, "1", "k", "value", "100"],
        &["EVAL", ADD, "1", "k", "value", "100"],
        &["GET", "k"],
        &["EVAL", RELEASE, "1", "k", "other"],
        &["EVAL", &spaced, "1", "k", "value"],
        &["EXISTS", "k"],
        &["SCRIPT", "FLUSH", "SYNC"],
        &["SCRIPT", "FLUSH"],
    ] {
        assert_eq!(ours.ask(words), theirs.ask(words), "{words:?}");
    }
    assert!(ours.ask(&["EVAL", "return 1", "0"]).starts_with("-ERR this script is not known"));
    assert!(ours.ask(&["SCRIPT", "LOAD", "return 1"]).starts_with("-ERR this script is not known"));
    assert!(ours.ask(&["EVAL", RELEASE, "0"]).starts_with("-ERR this script has one key"));
    ours.say("SET s data EX 100");
    assert_eq!(ours.ask(&["EVALSHA", RENEW_SHA1, "1", "s", "200"]), bulk("data"));
    assert!(is_answer(&ours.say("TTL s"), ":200\r\n", "TTL s"));
    ours.say("SET s data");
    assert_eq!(ours.ask(&["EVALSHA", RENEW_SHA1, "1", "s", "200"]), bulk("data"));
    assert_eq!(ours.say("TTL s"), ":-1\r\n");
    assert_eq!(ours.ask(&["EVALSHA", RENEW_SHA1, "1", "none", "200"]), NIL);
}
