use super::*;
use crate::table::find;
use crate::{CommandError, Limits, PATTERN_BYTES_MAX, Parsed, Parser, Writer};

fn with<T>(line: &str, then: impl FnOnce(Result<Command<'_>, CommandError<'_>>) -> T) -> T {
    let mut buffer = format!("{line}\r\n").into_bytes();
    let mut parser = Parser::new(Limits::default());
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Request { .. })));
    let arguments = parser.arguments(&buffer);
    then(find(arguments).and_then(|spec| Command::parse(spec, arguments)))
}

#[track_caller]
fn is(line: &str, expected: Command<'_>) {
    with(line, |command| assert_eq!(command, Ok(expected), "{line}"));
}

#[track_caller]
fn fails(line: &str, expected: &str) {
    with(line, |command| {
        let error = command.expect_err(line);
        let mut text = format!("{} ", error.prefix()).into_bytes();
        error.write(&mut text);
        assert_eq!(String::from_utf8_lossy(&text), expected, "{line}");
    });
}

const KEY: Argument<'_> = Argument(b"k");
const VALUE: Argument<'_> = Argument(b"v");

fn set(condition: SetCondition<'_>, ttl: KeepTtl, get: bool) -> Command<'_> {
    Command::Set { key: KEY, value: VALUE, options: SetOptions { condition, ttl, get } }
}

#[test]
fn set_takes_its_options_in_any_order() {
    use KeepTtl::{Keep, Remove, Set};
    use SetCondition::{Absent, Always, Equal, Present};
    is("SET k v", set(Always, Remove, false));
    is("set k v ex 2 nx", set(Absent, Set(Expiry::In(2000)), false));
    is("SET k v XX PX 5 GET", set(Present, Set(Expiry::In(5)), true));
    is("SET k v get EXAT 7", set(Always, Set(Expiry::At(7000)), true));
    is("SET k v PXAT 7 nx", set(Absent, Set(Expiry::At(7)), false));
    is("SET k v KEEPTTL XX", set(Present, Keep, false));
    is("SET k v EX 1 EX 2", set(Always, Set(Expiry::In(2000)), false));
    is("SET k v IFEQ old EX 1", set(Equal(Argument(b"old")), Set(Expiry::In(1000)), false));
    is("SET k v GET IFEQ get", set(Equal(Argument(b"get")), Remove, true));
    is("SETEX k 3 v", set(Always, Set(Expiry::In(3000)), false));
    is("PSETEX k 3 v", set(Always, Set(Expiry::In(3)), false));
}

#[test]
fn options_of_set_that_exclude_each_other_are_a_syntax_error() {
    for options in [
        "NX XX",
        "XX NX",
        "EX 1 PX 1",
        "PX 1 EXAT 1",
        "EX 1 KEEPTTL",
        "KEEPTTL EX 1",
        "EX",
        "PXAT",
        "PERSIST",
        "IFEQ",
        "IFEQ a NX",
        "NX IFEQ a",
        "IFEQ a IFEQ b",
        "EX notanumber NX XX",
        "what",
    ] {
        fails(&format!("SET k v {options}"), "ERR syntax error");
    }
}

#[test]
fn times_are_positive_and_fit_into_64_bits_of_milliseconds() {
    for time in ["0", "-1", "9223372036854775807", "9223372036854776"] {
        fails(&format!("SET k v EX {time}"), "ERR invalid expire time in 'set' command");
        fails(&format!("SETEX k {time} v"), "ERR invalid expire time in 'setex' command");
        fails(&format!("GETEX k EXAT {time}"), "ERR invalid expire time in 'getex' command");
    }
    fails("PSETEX k 0 v", "ERR invalid expire time in 'psetex' command");
    fails("SET k v EX 1.5", "ERR value is not an integer or out of range");
    // EXPIRE takes what is in the past.
    let past =
        Command::Expire { key: KEY, expiry: Expiry::In(-1000), condition: TtlCondition::Always };
    is("EXPIRE k -1", past);
    fails("EXPIRE k 9223372036854776", "ERR invalid expire time in 'expire' command");
    fails("EXPIREAT k -9223372036854776", "ERR invalid expire time in 'expireat' command");
    // What remains for the caller, who knows the time.
    assert_eq!(Expiry::In(i64::MAX).deadline_ms(1), None);
    assert_eq!(Expiry::In(i64::MAX).deadline_ms(0), Some(i64::MAX));
    assert_eq!(Expiry::At(i64::MAX).deadline_ms(1), Some(i64::MAX));
    assert_eq!(Expiry::In(-5).deadline_ms(3), Some(-2));
}

#[test]
fn conditions_of_expire_go_together_where_they_can() {
    use TtlCondition::{Absent, Always, Earlier, Later, Present, PresentAndEarlier};
    for (options, condition) in [
        ("", Always),
        ("NX", Absent),
        ("nx nx", Absent),
        ("XX", Present),
        ("GT", Later),
        ("xx gt", Later),
        ("LT", Earlier),
        ("LT XX", PresentAndEarlier),
    ] {
        let expiry = Expiry::In(1);
        is(&format!("PEXPIRE k 1 {options}"), Command::Expire { key: KEY, expiry, condition });
    }
    let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
    for options in ["NX XX", "GT NX", "NX LT", "NX GT LT"] {
        fails(&format!("EXPIRE k 1 {options}"), text);
    }
    fails("EXPIRE k 1 GT LT", "ERR GT and LT options at the same time are not compatible");
    fails("EXPIRE k x GT what", "ERR Unsupported option what");
}

#[test]
fn getex_changes_the_deadline_in_one_way() {
    let getex = |ttl| Command::GetEx { key: KEY, ttl };
    is("GETEX k", getex(TtlChange::Keep));
    is("GETEX k PERSIST", getex(TtlChange::Remove));
    is("GETEX k PX 5", getex(TtlChange::Set(Expiry::In(5))));
    for options in ["PERSIST EX 1", "EX 1 PERSIST", "NX", "KEEPTTL", "EX", "PX 1 EX 1"] {
        fails(&format!("GETEX k {options}"), "ERR syntax error");
    }
}

#[test]
fn steps_are_one_command() {
    let by = |by| Command::IncrBy { key: KEY, by };
    is("INCR k", by(1));
    is("DECR k", by(-1));
    is("INCRBY k -5", by(-5));
    is("DECRBY k -5", by(5));
    is("DECRBY k 9223372036854775807", by(-i64::MAX));
    fails("DECRBY k -9223372036854775808", "ERR decrement would overflow");
    fails("INCRBY k +5", "ERR value is not an integer or out of range");
    let by = Decimal::read(b"1.5").expect("a number");
    is("INCRBYFLOAT k 15e-1", Command::IncrByFloat { key: KEY, by });
    fails("INCRBYFLOAT k nan", "ERR value is not a valid float");
    fails("INCRBYFLOAT k -inf", "ERR increment would produce NaN or Infinity");
}

#[test]
fn hashes_have_fields() {
    let field = Argument(b"f");
    is("HGET k f", Command::HGet { key: KEY, field });
    is("HSETNX k f v", Command::HSetNx { key: KEY, field, value: VALUE });
    is("HKEYS k", Command::HGetAll { key: KEY, parts: HashParts::Names });
    is("HINCRBY k f -3", Command::HIncrBy { key: KEY, field, by: -3 });
    with("HSET k f v g w", |command| match command {
        Ok(Command::HSet { key: KEY, pairs, counts: true }) => assert_eq!(pairs.pairs().count(), 2),
        other => panic!("{other:?}"),
    });
    with("HMSET k f v", |command| {
        assert!(matches!(command, Ok(Command::HSet { counts: false, .. })), "{command:?}");
    });
    with("HDEL k f g f", |command| match command {
        Ok(Command::HDel { key: KEY, fields }) => assert_eq!(fields.len(), 3),
        other => panic!("{other:?}"),
    });
    fails("HSET k f v g", "ERR wrong number of arguments for 'hset' command");
    fails("HMSET k f", "ERR wrong number of arguments for 'hmset' command");
    fails("HINCRBY k f 1.5", "ERR value is not an integer or out of range");
    fails("HINCRBYFLOAT k f x", "ERR value is not a valid float");
    fails("HINCRBYFLOAT k f inf", "ERR value is NaN or Infinity");
    let scan = Scan { cursor: 7, pattern: Some(Argument(b"a*")), count: Some(5), holds: None };
    is("HSCAN k 7 COUNT 5 MATCH a*", Command::HScan { key: KEY, scan });
    fails("HSCAN k 0 TYPE hash", "ERR syntax error");
    fails("HSCAN k x", "ERR invalid cursor");
}

#[test]
fn sets_have_members() {
    let member = Argument(b"m");
    is("SISMEMBER k m", Command::SIsMember { key: KEY, member });
    is("SMEMBERS k", Command::SMembers { key: KEY });
    with("SADD k m n m", |command| match command {
        Ok(Command::SAdd { key: KEY, members }) => assert_eq!(members.len(), 3),
        other => panic!("{other:?}"),
    });
    let scan = Scan { cursor: 0, pattern: Some(Argument(b"m*")), count: None, holds: None };
    is("SSCAN k 0 MATCH m*", Command::SScan { key: KEY, scan });
}

#[test]
fn members_of_sorted_sets_have_scores() {
    let added = |line: &str, expected, count| {
        with(line, |command| match command {
            Ok(Command::ZAdd { key: KEY, options, members }) => {
                assert_eq!((options, members.pairs().count()), (expected, count), "{line}");
            }
            other => panic!("{line}: {other:?}"),
        });
    };
    let none = ZAddOptions::default();
    added("ZADD k 1 m -inf n", none, 2);
    // What stands behind the first score are no options.
    added("ZADD k 1 nx 2 xx", none, 2);
    let (only, only_if) = (Some(Membership::Present), Some(ScoreChange::Greater));
    added("ZADD k gt Ch XX 1.5 m", ZAddOptions { only, only_if, counts_changed: true, ..none }, 1);
    added(
        "ZADD k nx incr 1 m",
        ZAddOptions { only: Some(Membership::Absent), increments: true, ..none },
        1,
    );
    added("ZINCRBY k 1 m", ZAddOptions { increments: true, ..none }, 1);
    for (line, error) in [
        ("ZADD k 1 m 2", "ERR syntax error"),
        ("ZADD k 1", "ERR wrong number of arguments for 'zadd' command"),
        ("ZADD k nx nx nx", "ERR syntax error"),
        ("ZADD k nx xx 1 m", "ERR XX and NX options at the same time are not compatible"),
        ("ZADD k gt lt 1 m", "ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("ZADD k nx lt 1 m", "ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("ZADD k incr 1 m 2 n", "ERR INCR option supports a single increment-element pair"),
        ("ZADD k 1 m x n", "ERR value is not a valid float"),
        ("ZINCRBY k nan m", "ERR value is not a valid float"),
    ] {
        fails(line, error);
    }
}

#[test]
fn ranges_are_of_places_or_scores() {
    let range = |range, is_reversed, with_scores| Command::ZRange {
        key: KEY,
        range,
        is_reversed,
        with_scores,
    };
    let places = MemberRange::Places { start: 0, stop: -1 };
    is("ZRANGE k 0 -1", range(places, false, false));
    is("ZRANGE k 0 -1 REV WITHSCORES", range(places, true, true));
    is("ZREVRANGE k 0 -1", range(places, true, false));
    let scores = |min, max, offset, count| MemberRange::Scores {
        scores: ScoreRange { min, max },
        offset,
        count,
    };
    let all = (f64::NEG_INFINITY, false);
    is("ZRANGEBYSCORE k -inf (5", range(scores(all, (5.0, true), 0, -1), false, false));
    let some = scores((1.0, false), (2.0, false), 3, 4);
    is("ZRANGEBYSCORE k 1 2 LIMIT 3 4 WITHSCORES", range(some, false, true));
    is("ZREVRANGEBYSCORE k 2 1 LIMIT 3 4", range(some, true, false));
    is("ZRANGE k 2 1 BYSCORE REV LIMIT 3 4", range(some, true, false));
    for (line, error) in [
        ("ZRANGE k a 1", "ERR value is not an integer or out of range"),
        (
            "ZRANGE k 0 1 LIMIT 0 5",
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ),
        ("ZRANGE k a b BYLEX", "ERR BYLEX is not here; ranges are by places or BYSCORE"),
        ("ZREVRANGE k 0 1 REV", "ERR syntax error"),
        ("ZRANGEBYSCORE k 0 1 LIMIT 1", "ERR syntax error"),
        ("ZRANGEBYSCORE k 0 x", "ERR min or max is not a float"),
        ("ZCOUNT k (( 1", "ERR min or max is not a float"),
    ] {
        fails(line, error);
    }
}

#[test]
fn a_range_has_bounds() {
    let range = |min, max| ScoreRange { min, max };
    let contains = |range: ScoreRange| [0.0, 1.0, 2.0, 3.0].map(|score| range.contains(score));
    assert_eq!(contains(range((1.0, false), (2.0, false))), [false, true, true, false]);
    assert_eq!(contains(range((1.0, true), (3.0, true))), [false, false, true, false]);
    assert_eq!(contains(range((2.0, false), (1.0, false))), [false; 4]);
}

#[test]
fn what_is_restored_lives_as_long_as_is_said() {
    let restore = |expiry, replace| Command::Restore { key: KEY, payload: VALUE, expiry, replace };
    is("RESTORE k 0 v", restore(None, false));
    is("RESTORE k 5 v replace", restore(Some(Expiry::In(5)), true));
    is("RESTORE k 5 v FREQ 255 ABSTTL", restore(Some(Expiry::At(5)), false));
    is("RESTORE k 0 v IDLETIME 9", restore(None, false));
    fails("RESTORE k -1 v", "ERR Invalid TTL value, must be >= 0");
    fails("RESTORE k x v", "ERR value is not an integer or out of range");
    fails("RESTORE k 0 v IDLETIME -1", "ERR Invalid IDLETIME value, must be >= 0");
    fails("RESTORE k 0 v FREQ 256", "ERR Invalid FREQ value, must be >= 0 and <= 255");
    for options in ["IDLETIME", "FREQ 1 IDLETIME 1", "IDLETIME 1 FREQ 1", "NX"] {
        fails(&format!("RESTORE k 0 v {options}"), "ERR syntax error");
    }
}

#[test]
fn hello_says_who_one_is_and_how_one_speaks() {
    let hello = |protocol, credentials, name| Command::Hello { protocol, credentials, name };
    is("HELLO", hello(None, None, None));
    is("hello 3", hello(Some(Protocol::Resp3), None, None));
    let credentials = Credentials { user: Some(Argument(b"u")), password: Argument(b"p") };
    is(
        "HELLO 2 setname n AUTH u p",
        hello(Some(Protocol::Resp2), Some(credentials), Some(Argument(b"n"))),
    );
    is("HELLO 2 AUTH a b SETNAME m AUTH u p SETNAME n", {
        hello(Some(Protocol::Resp2), Some(credentials), Some(Argument(b"n")))
    });
    fails("HELLO 4", "NOPROTO unsupported protocol version");
    fails("HELLO AUTH u p", "ERR Protocol version is not an integer or out of range");
    fails("HELLO 3 AUTH u", "ERR Syntax error in HELLO option 'AUTH'");
    fails(
        "HELLO 3 SETNAME 'a b'",
        "ERR Client names cannot contain spaces, newlines or special characters.",
    );
    is("AUTH p", Command::Auth(Credentials { user: None, ..credentials }));
    is("AUTH u p", Command::Auth(credentials));
    fails("AUTH u p x", "ERR syntax error");
}

#[test]
fn libraries_may_say_what_they_are() {
    let attribute = ClientAttribute::LibraryName;
    is(
        "CLIENT SETINFO lib-name x(y)",
        Command::ClientSetInfo { attribute, value: Argument(b"x(y)") },
    );
    let attribute = ClientAttribute::LibraryVersion;
    is("client setinfo LIB-VER 1", Command::ClientSetInfo { attribute, value: Argument(b"1") });
    fails("CLIENT SETINFO lib x", "ERR Unrecognized option 'lib'");
    fails(
        "CLIENT SETINFO lib-NAME 'a b'",
        "ERR lib-NAME cannot contain spaces, newlines or special characters.",
    );
    is("CLIENT NO-TOUCH on", Command::ClientNoTouch(true));
}

#[test]
fn clients_are_listed_and_killed_by_filters() {
    is("CLIENT LIST TYPE replica", Command::ClientList(ClientList::Type(ClientType::Replica)));
    with("CLIENT LIST ID 3 -4", |command| match command {
        Ok(Command::ClientList(list)) => assert_eq!(list.numbers().collect::<Vec<_>>(), [3, -4]),
        other => panic!("{other:?}"),
    });
    fails("CLIENT LIST TYPE x", "ERR Unknown client type 'x'");
    fails("CLIENT LIST ID 1 x", "ERR Invalid client ID");
    let filter = KillFilter {
        one: true,
        id: None,
        client_type: None,
        address: Some(Argument(b"a:1")),
        local_address: None,
        user: None,
        skip_me: false,
    };
    is("CLIENT KILL a:1", Command::ClientKill(filter));
    let filter =
        KillFilter { one: false, id: Some(5), address: None, user: Some(Argument(b"u")), ..filter };
    is("CLIENT KILL ID 5 USER u SKIPME no", Command::ClientKill(filter));
    fails("CLIENT KILL ID 0 USER u", "ERR client-id should be greater than 0");
}

#[test]
fn scans_go_on_from_any_cursor() {
    let scan = Scan { cursor: 5, pattern: None, count: None, holds: None };
    is("SCAN 5", Command::Scan(scan));
    let pattern = Some(Argument(b"p*"));
    is("SCAN 5 COUNT 100 MATCH p*", Command::Scan(Scan { pattern, count: Some(100), ..scan }));
    is("scan 5 type string", Command::Scan(Scan { holds: Some(Argument(b"string")), ..scan }));
    fails("SCAN x COUNT 0", "ERR invalid cursor");
    fails("SCAN 0 COUNT 0", "ERR syntax error");
    fails("SCAN 0 COUNT x", "ERR value is not an integer or out of range");
    fails("SCAN 0 MATCH", "ERR syntax error");
}

#[test]
fn errors_repeat_128_bytes_of_the_unknown() {
    fails("foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
    let (name, long) = ("n".repeat(200), "a".repeat(100));
    let expected = format!(
        "ERR unknown command '{}', with args beginning with: '{long}' '{}' ",
        "n".repeat(128),
        "a".repeat(25),
    );
    fails(&format!("{name} {long} {long} {long}"), &expected);
    let full = "a".repeat(125);
    let expected = format!("ERR unknown command 'x', with args beginning with: '{full}' ");
    fails(&format!("x {full} b"), &expected);
    fails("client what 1", "ERR unknown subcommand 'what'. Try CLIENT HELP.");
    fails("get", "ERR wrong number of arguments for 'get' command");
    fails("client", "ERR wrong number of arguments for 'client' command");
    fails("client setname", "ERR wrong number of arguments for 'client|setname' command");
    fails("mset a 1 b", "ERR wrong number of arguments for 'mset' command");
}

#[test]
fn nothing_that_is_printed_shows_an_argument() {
    for line in [
        "AUTH hunter2",
        "AUTH hunter2 hunter2",
        "HELLO 3 AUTH hunter2 hunter2 SETNAME hunter2",
        "SET hunter2 hunter2 IFEQ hunter2",
        "MSET hunter2 hunter2",
        "DEL hunter2 hunter2",
        "hunter2 hunter2",
        "CLIENT hunter2",
        "HELLO 3 hunter2",
        "EXPIRE hunter2 1 hunter2",
        "INCRBYFLOAT hunter2 1",
        "COMMAND GETKEYS GET hunter2",
        "KEYS hunter2",
        "SCAN 0 MATCH hunter2",
    ] {
        with(line, |command| {
            let printed = format!("{command:?}");
            assert!(!printed.contains("hunter2"), "{printed}");
            if let Err(error) = command {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        });
    }
    // Numbers, which become values too.
    for line in ["INCRBY k 31337", "DECRBY k 31337", "INCRBYFLOAT k 31337", "INCRBYFLOAT k 31337e0"]
    {
        with(line, |command| {
            assert!(command.is_ok(), "{line}");
            let printed = format!("{command:?} {command:#?}");
            assert!(!printed.contains("31337"), "{printed}");
        });
    }
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, Protocol::Resp2);
    writer.bulk(b"hunter2");
    let printed = format!("{writer:?}");
    assert_eq!(printed, "Writer { protocol: Resp2, bytes: 13 }");
}

#[test]
fn channels_are_of_three_kinds() {
    for (letter, expected) in
        [("", ChannelKind::Plain), ("P", ChannelKind::Pattern), ("S", ChannelKind::Sharded)]
    {
        with(&format!("{letter}SUBSCRIBE k v"), |command| match command {
            Ok(Command::Subscribe { kind, names }) => {
                assert_eq!((kind, names.len()), (expected, 2));
            }
            other => panic!("{other:?}"),
        });
        with(&format!("{letter}UNSUBSCRIBE"), |command| match command {
            Ok(Command::Unsubscribe { kind, names }) => {
                assert_eq!((kind, names.len()), (expected, 0));
            }
            other => panic!("{other:?}"),
        });
        fails(
            &format!("{letter}SUBSCRIBE"),
            &format!(
                "ERR wrong number of arguments for '{}subscribe' command",
                letter.to_ascii_lowercase()
            ),
        );
    }
    is("PUBLISH k v", Command::Publish { channel: KEY, message: VALUE, is_sharded: false });
    is("SPUBLISH k v", Command::Publish { channel: KEY, message: VALUE, is_sharded: true });
    is("PUBSUB CHANNELS", Command::PubSubChannels { pattern: None, is_sharded: false });
    is("PUBSUB SHARDCHANNELS k", Command::PubSubChannels { pattern: Some(KEY), is_sharded: true });
    is("PUBSUB NUMPAT", Command::PubSubNumPat);
    fails(
        "PUBSUB Channels a b",
        "ERR unknown subcommand or wrong number of arguments for 'Channels'. Try PUBSUB HELP.",
    );
}

#[test]
fn each_row_of_the_table_is_parsed() {
    for spec in crate::table::all() {
        let words = spec.name.replace('|', " ");
        let id = format!("{:?}", spec.id);
        // Which variant it is, if not that of its own name.
        let variant = match &*id {
            "Acl" | "Client" | "Cluster" | "Config" | "Object" | "PubSub" | "Script" => {
                let text = format!("ERR wrong number of arguments for '{}' command", spec.name);
                fails(&words, &text);
                continue;
            }
            "Incr" | "Decr" | "DecrBy" => "IncrBy",
            "SetEx" | "PSetEx" => "Set",
            "ExpireAt" | "PExpire" | "PExpireAt" => "Expire",
            "PTtl" => "Ttl",
            "PExpireTime" => "ExpireTime",
            "AclHelp" | "ClientHelp" | "ClusterHelp" | "ConfigHelp" | "ObjectHelp"
            | "PubSubHelp" | "ScriptHelp" => "Help",
            "PSubscribe" | "SSubscribe" => "Subscribe",
            "PUnsubscribe" | "SUnsubscribe" => "Unsubscribe",
            "SPublish" => "Publish",
            "PubSubShardChannels" => "PubSubChannels",
            "PubSubShardNumSub" => "PubSubNumSub",
            "EvalSha" => "Eval",
            "HKeys" | "HVals" => "HGetAll",
            "HMSet" => "HSet",
            "HPExpire" | "HExpireAt" | "HPExpireAt" => "HExpire",
            "HPTtl" | "HExpireTime" | "HPExpireTime" => "HTtl",
            "ZIncrBy" => "ZAdd",
            "ZRevRange" | "ZRangeByScore" | "ZRevRangeByScore" => "ZRange",
            id if id.starts_with("Command") => "Command",
            id if id.starts_with("Object") => "Object",
            id => id,
        };
        let arguments = match &*id {
            "ClientNoEvict" | "ClientNoTouch" | "ClientReply" => " on".to_owned(),
            "ClientSetInfo" => " lib-name x".to_owned(),
            "CommandGetKeys" => " get k".to_owned(),
            "Eval" => " script 0".to_owned(),
            "EvalSha" => format!(" {} 0", "a".repeat(40)),
            "ScriptFlush" => String::new(),
            "ZAdd" => " 1 1 1".to_owned(),
            "HExpire" | "HPExpire" | "HExpireAt" | "HPExpireAt" => " k 1 FIELDS 1 f".to_owned(),
            "HPersist" | "HTtl" | "HPTtl" | "HExpireTime" | "HPExpireTime" => {
                " k FIELDS 1 f".to_owned()
            }
            _ => " 1".repeat(spec.arity.unsigned_abs() as usize - words.split(' ').count()),
        };
        with(&format!("{words}{arguments}"), |command| match command {
            Ok(command) => {
                let printed = format!("{command:?}");
                let name = printed.split([' ', '(']).next();
                assert_eq!(name, Some(variant), "{words}{arguments}");
            }
            Err(error) => panic!("{words}{arguments}: {error}"),
        });
    }
}

#[test]
fn patterns_have_a_size() {
    let (longest, longer) = ("*".repeat(PATTERN_BYTES_MAX), "*".repeat(PATTERN_BYTES_MAX + 1));
    for line in [
        "KEYS",
        "SCAN 0 MATCH",
        "SCAN 0 COUNT 5 MATCH",
        "CONFIG GET",
        "COMMAND LIST FILTERBY PATTERN",
        "PUBSUB CHANNELS",
    ] {
        with(&format!("{line} {longest}"), |command| assert!(command.is_ok(), "{line}"));
        fails(&format!("{line} {longer}"), "ERR pattern is too long");
    }
    fails(&format!("SCAN 0 MATCH {longer} MATCH *"), "ERR pattern is too long");
    fails(&format!("CONFIG GET * {longest}"), "ERR pattern is too long");
    // What is no pattern may be longer.
    with(&format!("SCAN 0 TYPE {longer}"), |command| assert!(command.is_ok()));
}
