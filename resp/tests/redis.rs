//! What a real Redis says to the same bytes.
//!
//! Whatever we refuse, it must refuse in the same words; whatever we take, it must take, but for errors that depend on what it
//! holds. `.ci/run` installs the server. Not compared, because 7.0 differs or has it not:
//! - SET with IFEQ, CLIENT SETINFO and NO-TOUCH: they are younger;
//! - a NUL in a line: it waits for more, we go on; one in an option: it compares what stands before it;
//! - bytes from 0x80 on in a range of a pattern: they are negative there, where C's `char` has a sign;
//! - an empty name and a pattern of several stars: these match nothing there;
//! - INCRBYFLOAT with a hexadecimal number, or one that is too large or too small for 64 bits;
//! - patterns longer than 4 KiB, and COMMAND INFO and DOCS of more names than there are: it takes them;
//! - the order in which HELLO does what it is told, before it finds an error;
//! - GETEX, HSCAN and its like of what is not there: it answers before it looks at the time, or at the options;
//! - ZRANGE with BYLEX.

mod redis {
    pub(crate) mod reply;
    pub(crate) mod server;
}

use std::time::{SystemTime, UNIX_EPOCH};

use annulus_resp::{
    Arguments, Case, Command, Expiry, KeepTtl, Limits, Parsed, Parser, Protocol, ReplyMode,
    TtlChange, Writer, matches, table, texts,
};
use redis::reply::{Reply, replies};
use redis::server::Server;

/// What we say to a request.
#[derive(Debug, PartialEq)]
enum Ours {
    /// An error, with its line's end.
    Error(Vec<u8>),
    /// We take it, and this is the answer.
    Answer(Vec<u8>),
    /// We take it, and the answer is the node's.
    Taken,
    /// It is taken, and wants no answer.
    Silent,
}

/// How a connection's bytes end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// With a request.
    Whole,
    /// Within a request.
    Partial,
    /// With an error, behind which there is nothing.
    Error,
    /// With HTTP.
    Http,
}

/// The requests of a connection, as far as they are understood, and what we say to them.
fn ours(bytes: &[u8], authenticated: bool) -> (Vec<(String, Ours)>, End) {
    // As many arguments as Redis 7.0 takes.
    let limits =
        Limits { arguments_max: i32::MAX as u32, request_bytes_max: u32::MAX, ..Limits::default() };
    let mut parser = Parser::new(limits);
    parser.set_authenticated(authenticated);
    let (mut buffer, mut from, mut said) = (bytes.to_vec(), 0, Vec::new());
    loop {
        match parser.parse(&mut buffer[from..]) {
            Ok(Parsed::Request { bytes }) => {
                let arguments = parser.arguments(&buffer[from..]);
                said.push((shown(arguments), ours_to(arguments, authenticated)));
                from += bytes;
            }
            Ok(Parsed::Nothing { bytes }) => from += bytes,
            Ok(Parsed::Partial { .. }) if from == buffer.len() => return (said, End::Whole),
            Ok(Parsed::Partial { .. }) => return (said, End::Partial),
            Err(error) => {
                let mut out = Vec::new();
                if Writer::new(&mut out, Protocol::Resp2).refuse_bytes(error) {
                    said.push((error.to_string(), Ours::Error(out)));
                    return (said, End::Error);
                }
                return (said, End::Http);
            }
        }
    }
}

fn ours_to(arguments: Arguments<'_>, authenticated: bool) -> Ours {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, Protocol::Resp2);
    let spec = match table::find(arguments) {
        Ok(spec) => spec,
        Err(error) => {
            writer.refuse(&error);
            return Ours::Error(out);
        }
    };
    if !authenticated && !spec.flags.contains(table::Flags::NO_AUTH) {
        writer.error("NOAUTH", texts::NO_AUTH);
        return Ours::Error(out);
    }
    let command = match Command::parse(spec, arguments) {
        Ok(command) => command,
        Err(error) => {
            writer.refuse(&error);
            return Ours::Error(out);
        }
    };
    // What is left to who knows the time.
    let expiry = match command {
        Command::Set { options, .. } => match options.ttl {
            KeepTtl::Set(expiry) => Some(expiry),
            _ => None,
        },
        Command::GetEx { ttl: TtlChange::Set(expiry), .. } => Some(expiry),
        Command::Expire { expiry, .. } => Some(expiry),
        _ => None,
    };
    if expiry.is_some_and(|expiry: Expiry| expiry.deadline_ms(now_ms()).is_none()) {
        writer.refuse(&annulus_resp::CommandError::Expire(spec));
        return Ours::Error(out);
    }
    match command {
        Command::Echo { message } | Command::Ping { message: Some(message) } => {
            writer.bulk(&message);
        }
        Command::Ping { message: None } => writer.simple("PONG"),
        Command::Command(annulus_resp::CommandQuery::GetKeys { request }) => {
            table::answer(annulus_resp::CommandQuery::GetKeys { request }, &mut writer);
            if out.starts_with(b"-") {
                return Ours::Error(out);
            }
        }
        Command::ClientReply(ReplyMode::Off | ReplyMode::Skip) => return Ours::Silent,
        _ => return Ours::Taken,
    }
    Ours::Answer(out)
}

#[expect(clippy::disallowed_methods, reason = "the server has a clock")]
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    now.as_millis() as i64
}

fn shown(arguments: Arguments<'_>) -> String {
    arguments.iter().map(|argument| format!("{} ", argument.escape_ascii())).collect()
}

/// Errors of a real server that depend on what it holds or how it is configured.
const OF_STATE: &[&str] = &[
    "-ERR no such key",
    "-ERR DB index is out of range",
    "-ERR No such client",
    "-ERR No such user '",
    "-ERR increment or decrement would overflow",
    "-ERR DUMP payload version or checksum are wrong",
    "-ERR increment would produce NaN or Infinity",
    "-ERR string exceeds maximum allowed size",
    "-ERR AUTH <password> called without any password",
    "-ERR An LFU maxmemory policy is not selected",
    "-ERR This instance has cluster support disabled",
    "-ERR DISCARD without MULTI",
    "-ERR EXEC without MULTI",
    "-ERR Error compiling script",
    "-ERR Unknown option or number of arguments for CONFIG SET - '",
    "-WRONGPASS ",
    "-NOAUTH HELLO must be called",
];

/// Compares what we say to the requests of one connection with what the server says. Returns how many errors agreed.
#[track_caller]
fn compare(server: &Server, bytes: &[u8], authenticated: bool) -> usize {
    let (ours, end) = ours(bytes, authenticated);
    let silent = ours.iter().any(|(_, ours)| *ours == Ours::Silent);
    let theirs = match end {
        End::Error | End::Http => server.last_words(bytes),
        End::Whole if authenticated && !silent => server.ask(bytes),
        End::Whole | End::Partial => server.ask_little(bytes),
    };
    let mut theirs = replies(&theirs).into_iter();
    let mut errors = 0;
    for (request, ours) in ours {
        if ours == Ours::Silent {
            continue;
        }
        let Some(theirs) = theirs.next() else {
            // At HTTP it forgets also what it has not sent yet.
            if end == End::Http {
                return errors;
            }
            panic!("{request}: we say {ours:?}, it says nothing");
        };
        let said = theirs.bytes.escape_ascii();
        match ours {
            Ours::Error(ours) => {
                assert!(
                    ours == theirs.bytes,
                    "{request}: we say {}, it says {said}",
                    ours.escape_ascii()
                );
                errors += 1;
            }
            Ours::Answer(ours) => assert!(
                ours == theirs.bytes,
                "{request}: we say {}, it says {said}",
                ours.escape_ascii()
            ),
            Ours::Taken => {
                let text = String::from_utf8_lossy(&theirs.bytes);
                let of_state = OF_STATE.iter().any(|error| text.starts_with(error));
                assert!(!text.starts_with('-') || of_state, "{request}: it says {said}");
            }
            Ours::Silent => unreachable!("it was left out"),
        }
    }
    if let Some(theirs) = theirs.next() {
        panic!("{}: it says {} besides", bytes.escape_ascii(), theirs.bytes.escape_ascii());
    }
    errors
}

fn request<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Each line a request, its words between blanks.
fn requests(lines: &[&str]) -> Vec<u8> {
    let words = |line: &&str| request(&line.split(' ').collect::<Vec<_>>());
    lines.iter().flat_map(words).collect()
}

/// Whether Redis 7.0 has it.
fn is_old(spec: &table::Spec) -> bool {
    spec.since < "7.2"
}

#[test]
fn broken_requests_are_refused_in_the_same_words() {
    let server = Server::start(&[]);
    let long = |first: u8, count: usize| vec![first; count];
    let mut cases: Vec<Vec<u8>> = [
        "*a\r\n",
        "*\r\n",
        "*1a\r\n",
        "* 1\r\n",
        "*01\r\n",
        "*+1\r\n",
        "*1 \r\n",
        "*-\r\n",
        "*-0\r\n",
        "*2147483648\r\n",
        "*9223372036854775808\r\n",
        "*99999999999999999999999\r\n",
        "*--1\r\n",
        "*0\r\nPING\r\n",
        "*-1\r\nPING\r\n",
        "*-99\r\nPING\r\n",
        "*0\r\n*a\r\n",
        "\r\n\n  \r\nPING\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$a\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$ 4\r\n",
        "*1\r\n$4 \r\n",
        "*1\r\n$04\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n$+4\r\nPING\r\n",
        "*1\r\n$-0\r\n",
        "*1\r\n4\r\nPING\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n\r\n",
        "*1\r\n*1\r\n",
        "*1\r\n:4\r\n",
        "*1\r\n'x\r\n",
        "*2\r\n$4\r\nPING\r\n4\r\n",
        "*1\r\n\nfoo\r\n",
        "*1\r\n\x7f\r\n",
        "*1\r\n\t$4\r\n",
        "*1\rX$4\r\nPING\r\n",
        "*1\r\n$4\rXPING\r\n",
        "*1\r\n$4\r\nPINGXXPING\r\n",
        "*1\r\n$3\r\nPING\r\n",
        "*1\r\n$0\r\n\r\n",
        "*2\r\n$0\r\n\r\n$0\r\n\r\n",
        "PING\r\nPING\n*1\r\n$4\r\nPING\r\nPING\r\n",
        "PING\r\n*a\r\nPING\r\n",
        "*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$-5\r\n",
        "ECHO \"\r\n",
        "ECHO '\r\n",
        "ECHO \"a\"b\r\n",
        "ECHO 'a'b\r\n",
        "ECHO \"\\\"\r\n",
        "ECHO '\\'\r\n",
        "ECHO a\"b\r\n",
        "ECHO a'b c\r\n",
        "\"\r\n",
        "'\r\n",
        "ECHO \"a\\\r\n",
        "ECHO \"a\\x\r\n",
        "\"a\"\"b\"\r\n",
        "ECHO \"a\\x4\"\r\n",
        "ECHO \"\\x4g\\xg4\\x\"\r\n",
        "ECHO \"\\x41\\x0a\\xff\\x00\"\r\n",
        "ECHO \"\\n\\r\\t\\b\\a\\q\\\\\\\"\"\r\n",
        "ECHO '\\n\\x41\\'\"'\r\n",
        "ECHO a\"b c\"\r\n",
        "ECHO a\\ b\r\n",
        "ECHO \\x41\r\n",
        "  ECHO \t a \r\n",
        "ECHO a\x0bb\n",
        "ECHO a \x0b\x0c\n",
        "ECHO \"\"\r\n",
        "ECHO ''\r\n",
        "'PING' \"x\"\r\n",
        "\"\" \"\"\r\n",
        "''\r\n",
        "ECHO \"a\" \r\n",
        "ECHO \"a\"\t\r\n",
        "ECHO \"a\"\x0b\r\n",
        "ECHO 'a\r'\n",
        "ECHO a\rb\n",
        "ECHO a \r b\n",
        "PING\r\r\n",
        "ECHO \"a\r\"\n",
        "$4\r\nPING\r\n",
        "+PING\r\n",
        "GET / HTTP/1.1\r\nHost: example.org\r\nPING\r\n",
        "POST / HTTP/1.1\r\nPING\r\n",
        "hOsT: x\r\nPING\r\n",
        "*1\r\n$4\r\nPOST\r\nPING\r\n",
        "*2\r\n$5\r\nHOST:\r\n$1\r\nx\r\nPING\r\n",
        "hostt: x\r\nposts\r\nhost\r\n",
    ]
    .iter()
    .map(|case| case.as_bytes().to_vec())
    .collect();
    cases.push(b"*1\r\n\xff4\r\n".to_vec());
    cases.push(b"ECHO \xff\xfe\r\n\xc3\xa9 \xc3\xa9\r\n".to_vec());
    // Lines that do not end; a byte less waits for more.
    for (first, count) in [(b'a', 1 << 16), (b'*', 1 << 16), (b'"', 1 << 16)] {
        cases.push(long(first, count));
        cases.push(long(first, count + 1));
    }
    cases.push([b"*1\r\n".to_vec(), long(b'$', 1 << 16)].concat());
    cases.push([b"*1\r\n".to_vec(), long(b'$', (1 << 16) + 1)].concat());
    let count = cases.len();
    let errors: usize = cases.iter().map(|case| compare(&server, case, true)).sum();
    assert!(errors > 60, "{errors} errors of {count} cases");
}

#[test]
fn strangers_are_refused_in_the_same_words() {
    let server = Server::start(&["--requirepass", "secret"]);
    for case in [
        "*10\r\n",
        "*11\r\n",
        "*1000\r\n",
        "*1\r\n$16384\r\n",
        "*1\r\n$16385\r\n",
        "*2\r\n$4\r\nAUTH\r\n$16385\r\n",
        "*1\r\n$x\r\n",
        "*x\r\n",
        "PING\r\n",
        "GET\r\n",
        "GET k\r\n",
        "foo bar\r\n",
        "CLIENT x\r\n",
        "SET k v x\r\n",
        "HELLO x\r\n",
        "HELLO 9\r\n",
        "HELLO 3 x\r\n",
        "HELLO 3\r\n",
        "HELLO 3 AUTH default wrong\r\n",
        "AUTH a b c\r\n",
        "AUTH wrong\r\n",
        "AUTH a b\r\n",
        "AUTH\r\n",
        "QUIT\r\n",
        "RESET\r\n",
        "RESET x\r\n",
        "COMMAND\r\n",
        "READONLY\r\n",
        "CLIENT SETNAME\r\n",
        "CONFIG GET x\r\n",
        "POST x\r\nPING\r\n",
    ] {
        compare(&server, case.as_bytes(), false);
    }
}

#[test]
fn errors_of_state_have_the_same_texts() {
    let open = Server::start(&[]);
    let closed = Server::start(&["--requirepass", "secret"]);
    for (server, lines, prefix, text) in [
        (&closed, &["get k"][..], "NOAUTH", texts::NO_AUTH),
        (&closed, &["hello 3"], "NOAUTH", texts::NO_AUTH_HELLO),
        (&closed, &["auth wrong"], "WRONGPASS", texts::WRONG_PASS),
        (&closed, &["hello 3 auth default wrong"], "WRONGPASS", texts::WRONG_PASS),
        (&open, &["auth secret"], "ERR", texts::NO_PASSWORD),
        (&open, &["select 99"], "ERR", texts::DB_INDEX),
        (&open, &["set n 9223372036854775807", "incr n"], "ERR", texts::OVERFLOW),
        (&open, &["set n -9223372036854775808", "decrby n 1"], "ERR", texts::OVERFLOW),
        (&open, &["hset h f x", "hincrby h f 1"], "ERR", texts::HASH_NOT_INTEGER),
        (&open, &["hset h f x", "hincrbyfloat h f 1"], "ERR", texts::HASH_NOT_FLOAT),
        (&open, &["set s x", "restore s 0 x"], "BUSYKEY", texts::BUSY_KEY),
        (&open, &["zadd z inf m", "zincrby z -inf m"], "ERR", texts::SCORE_NOT_NUMBER),
        (&open, &["sadd set m", "get set"], "WRONGTYPE", texts::WRONG_TYPE),
        (&open, &["restore new 0 x"], "ERR", texts::BAD_PAYLOAD),
        (&open, &["set s x", "incr s"], "ERR", texts::NOT_INTEGER),
        (&open, &["set s x", "incrbyfloat s 1"], "ERR", texts::NOT_FLOAT),
        (&open, &["setrange s 536870912 x"], "ERR", texts::TOO_LONG),
        (&open, &["lpush l x", "get l"], "WRONGTYPE", texts::WRONG_TYPE),
        (&open, &["client kill 1:2"], "ERR", texts::NO_SUCH_CLIENT),
        (&open, &["rename nokey b"], "ERR", texts::NO_SUCH_KEY),
        (&open, &["renamenx nokey b"], "ERR", texts::NO_SUCH_KEY),
    ] {
        let theirs = replies(&server.ask_little(&requests(lines)));
        let mut ours = Vec::new();
        Writer::new(&mut ours, Protocol::Resp2).error(prefix, text);
        let theirs = theirs.last().map(|reply| reply.bytes.escape_ascii().to_string());
        assert_eq!(theirs, Some(ours.escape_ascii().to_string()), "{lines:?}");
    }
    let only = [b"Can't execute 'client|id': ", texts::ONLY_SUBSCRIBED].concat();
    let mut ours = Vec::new();
    Writer::new(&mut ours, Protocol::Resp2).error("ERR", &only);
    let theirs = replies(&open.ask_little(&requests(&["subscribe c", "client id"])));
    assert_eq!(theirs[1].bytes.escape_ascii().to_string(), ours.escape_ascii().to_string());
    // Where there is no key, and no error.
    for what in ["freq", "idletime", "encoding", "refcount"] {
        assert_eq!(open.ask(&requests(&[&format!("object {what} nokey")])), b"$-1\r\n", "{what}");
    }
    // A deadline in the past is set, and the key is gone.
    assert_eq!(open.ask(&requests(&["set k v exat 1", "exists k"])), b"+OK\r\n:0\r\n");
}

#[test]
fn unknown_commands_are_repeated_alike() {
    let server = Server::start(&[]);
    let (long, longer) = ("a".repeat(127), "b".repeat(300));
    let mut cases: Vec<Vec<Vec<u8>>> = Vec::new();
    for name in [
        "foo",
        "",
        "GETT",
        "ge",
        "client|id",
        "get|x",
        "a b",
        "a\r\nb",
        "\r\n",
        "'",
        "a\0b",
        "%s",
        &long,
        &longer,
    ] {
        for arguments in [
            &[][..],
            &["a"],
            &["a", "b", "c"],
            &["", "", ""],
            &["a\r\nb", "\n"],
            &["a\0b", "\0"],
            &["'", "%s%n"],
            &[&long, "x", "y"],
            &[&long[1..], "x"],
            &[&long[..124], "xyz", "w"],
            &[&long[..125], "xyz"],
            &[&longer, "x"],
            &["x", &longer, "x"],
            &[
                "1234567", "1234567", "1234567", "1234567", "1234567", "1234567", "1234567",
                "1234567", "1234567", "1234567", "1234567", "1234567", "1234567", "1234567",
                "1234567",
            ],
        ] {
            let words = std::iter::once(&name).chain(arguments);
            cases.push(words.map(|word| word.as_bytes().to_vec()).collect());
        }
    }
    cases.push(vec![b"\xff\xfe".to_vec(), b"\x80".to_vec(), (0..=255).collect()]);
    for container in ["client", "CONFIG", "command", "Object"] {
        for name in ["foo", "", "a\r\nb", "a\0b", "id ", "help|", &long, &longer] {
            cases.push(vec![container.into(), name.into()]);
            cases.push(vec![container.into(), name.into(), b"x".to_vec()]);
        }
    }
    let bytes: Vec<u8> = cases.iter().flat_map(|words| request(words)).collect();
    assert_eq!(compare(&server, &bytes, true), cases.len());
}

#[test]
fn each_command_refuses_the_same_arguments() {
    let server = Server::start(&[]);
    let (mut asked, mut errors) = (0, 0);
    for spec in table::all().filter(|spec| is_old(spec)) {
        // Each connection is asked one thing: some end it, or silence it.
        for filler in
            ["x", "1", "-1", "0", "ex", "NX", "9223372036854775808", "id", "type", "a b\r\n"]
        {
            for count in 0..7 {
                let mut words: Vec<&str> = spec.name.split('|').collect();
                words.resize(words.len() + count, filler);
                // It would wait, or keep what comes next.
                if spec.name == "wait" && filler == "1" || spec.name == "multi" && count == 0 {
                    continue;
                }
                // It would take nothing else, or answer for each name.
                let unsubscribes = usize::from(spec.name.ends_with("unsubscribe"));
                if spec.name.ends_with("subscribe") && count > unsubscribes {
                    continue;
                }
                server.ask(b"FLUSHALL\r\n");
                match spec.name {
                    "getex" => drop(server.ask(&request(&["set", filler, "v"]))),
                    "hscan" => drop(server.ask(&request(&["hset", filler, "f", "v"]))),
                    "sscan" => drop(server.ask(&request(&["sadd", filler, "m"]))),
                    "zscan" => drop(server.ask(&request(&["zadd", filler, "1", "m"]))),
                    _ => {}
                }
                errors += compare(&server, &request(&words), true);
                asked += 1;
            }
        }
    }
    assert!(errors * 3 > asked, "{errors} errors of {asked} requests");
}

#[test]
fn odd_arguments_are_refused_in_the_same_words() {
    let server = Server::start(&[]);
    let mut errors = 0;
    for line in [
        "hello 2 auth",
        "hello 2 AUTH a",
        "hello 2 setname",
        "hello 2 setname a\tb",
        "hello 2 setname a auth",
        "hello 02",
        "hello 1",
        "hello 4",
        "hello -3",
        "hello 2 x\r\ny",
        "hello 2 \r\n",
        "hello 2 setname \r\nx",
        "hello 9223372036854775807",
        "hello 9223372036854775808",
        "hello 2.0",
        "auth a b c",
        "ping a b",
        "ping a b c",
        "echo",
        "echo a b",
        "select a",
        "select 2147483648",
        "select -2147483649",
        "select 9223372036854775808",
        "select 1.0",
        "select -1",
        "select 99",
        "acl",
        "acl x",
        "acl whoami",
        "ACL WhoAmI x",
        "acl help x",
        "client setname a\nb",
        "client setname \x7f",
        "client setname é",
        "client setname a b",
        "client getname x",
        "client id x",
        "client info x",
        "client list x",
        "client list type",
        "client list type x",
        "client list type x y",
        "client list type\r\n x",
        "client list type x\r\ny",
        "client list type NORMAL",
        "client list type slave",
        "client list type replica",
        "client list type pubsub",
        "client list type master",
        "client list id",
        "client list id x",
        "client list id 1 x",
        "client list id 1 2",
        "client list id -1",
        "client list normal type",
        "client kill",
        "client kill x",
        "client kill id",
        "client kill id 0",
        "client kill id -1",
        "client kill id x",
        "client kill id 1.5",
        "client kill id 9223372036854775808",
        "client kill id 99999 type x",
        "client kill type x",
        "client kill type normal x",
        "client kill type x\r y",
        "client kill addr",
        "client kill addr x laddr",
        "client kill user nobody",
        "client kill user default id x",
        "client kill skipme x",
        "client kill skipme maybe id 1",
        "client kill id 9999 skipme yes",
        "client kill foo bar",
        "client kill addr 1:2 skipme NO",
        "client reply x",
        "client reply ON",
        "client reply on x",
        "client no-evict x",
        "client no-evict on",
        "client no-evict",
        "client no-evict OFF",
        "client help x",
        "command help x",
        "command count x",
        "command list x",
        "command list filterby",
        "command list filterby module",
        "command list filterby x y",
        "command list filterby aclcat read",
        "command list filterby pattern a* x",
        "command list FILTERBY PATTERN get*",
        "command list filterby module x",
        "command getkeys",
        "command getkeys get",
        "command getkeys get k",
        "command getkeys x y",
        "command getkeys get k v",
        "command getkeys mset a 1 b 2",
        "command getkeys mset a 1 b",
        "command getkeys mset a",
        "command getkeys mget a b c",
        "command getkeys ping x",
        "command getkeys ping x y z",
        "command getkeys rename a b",
        "command getkeys rename a",
        "command getkeys object freq k",
        "command getkeys object freq",
        "command getkeys object help",
        "command getkeys client id",
        "command getkeys client x",
        "command getkeys config get x",
        "command getkeys del a b a",
        "command getkeys set k v ex",
        "command getkeys SET k v",
        "command getkeys echo",
        "command getkeys client|id x",
        "config",
        "config get",
        "config x",
        "config get x",
        "config set",
        "config set x",
        "config set x y z",
        "wait",
        "wait 0",
        "wait x 0",
        "wait 0 x",
        "wait 0 -1",
        "wait -1 0",
        "wait 0 9223372036854775808",
        "wait x x",
        "wait 0 0",
        "wait 0 1.5",
        "get",
        "get a b",
        "getdel a b",
        "getset a",
        "mget",
        "mset",
        "mset a",
        "mset a b c",
        "msetnx a b c",
        "msetnx a",
        "mset a 1 b 2",
        "strlen",
        "append a",
        "getrange a x 1",
        "getrange a 1 x",
        "getrange a 1",
        "getrange nokey x y",
        "getrange a 0 -1",
        "getrange a 1 9223372036854775808",
        "setrange a x v",
        "setrange a -1 v",
        "setrange a -1 ",
        "setrange a 1.0 v",
        "setrange a 9223372036854775808 v",
        "setrange a 536870912 v",
        "setrange nokey -5 ",
        "incrby n x",
        "incrby n 1.0",
        "incrby n +1",
        "incrby n 01",
        "incrby n -0",
        "incrby n -",
        "incrby n ",
        "incrby n  1",
        "incrby n 9223372036854775808",
        "incrby n -9223372036854775809",
        "incrby n 1 2",
        "decrby n x",
        "decrby n -9223372036854775808",
        "decrby n 9223372036854775808",
        "incrbyfloat f x",
        "incrbyfloat f nan",
        "incrbyfloat f NaN",
        "incrbyfloat f ",
        "incrbyfloat f 1e",
        "incrbyfloat f 1 2",
        "incrbyfloat f 1,5",
        "incrbyfloat f 1_0",
        "incrbyfloat f \t1",
        "incrbyfloat f -",
        "incrbyfloat f .",
        "incrbyfloat f +.5",
        "incrbyfloat f 5.",
        "incrbyfloat f 1e3",
        "incrbyfloat f inf",
        "incrbyfloat f -Infinity",
        "incrbyfloat f infinit",
        "incrbyfloat f 1e5x",
        "incrbyfloat f 1e-5000",
        "incrbyfloat f -0.5E-9999",
        "incrbyfloat f 0e-5000",
        "hset h",
        "hset h f",
        "hset h f v g",
        "hmset h f v g",
        "hsetnx h f",
        "sadd s",
        "sismember s",
        "smismember s",
        "zadd z 1",
        "zadd z 1 m 2",
        "zadd z nx xx 1 m",
        "zadd z gt lt 1 m",
        "zadd z NX gt 1 m",
        "zadd z nx LT 1 m",
        "zadd z xx gt ch 1 m",
        "zadd z incr 1 m 2 n",
        "zadd z incr xx nx 1 m 2 n",
        "zadd z nx incr",
        "zadd z nan m",
        "zadd z 1 m 1e400 n",
        "zadd z 1e-400 n",
        "zadd z inf m -Infinity n",
        "zadd z ch ch 1.5e3 m",
        "zincrby z x m",
        "zincrby z 1",
        "zrem z",
        "zscore z",
        "zcount z 1 x",
        "zcount z (1 (nan",
        "zcount z ( 1e400",
        "zrange z 0 1 limit 0 -1",
        "zrange z 0 1 limit 0 1",
        "zrange z 0 1 limit 0",
        "zrange z 0 1 limit x 1",
        "zrange z 0 1 byscore limit 0 x",
        "zrange z 0 1 byscore byscore",
        "zrange z 0 1 rev rev",
        "zrange z 0 1 rev byscore withscores withscores",
        "zrange z (0 1",
        "zrange z (0 1 byscore",
        "zrange z 0 1 x",
        "zrevrange z 0 1 rev",
        "zrevrange z 0 1 byscore",
        "zrevrange z 0 1 withscores",
        "zrangebyscore z 0 1 rev",
        "zrangebyscore z 0 x",
        "zrangebyscore z 0 1 limit 0 1 limit 2 3 withscores",
        "zrevrangebyscore z +inf -inf limit 0 1",
        "zremrangebyscore z 0 x",
        "zscan z x",
        "hget h",
        "hmget h",
        "hgetall h f",
        "hdel h",
        "hrandfield h 1 x",
        "hrandfield h x",
        "hrandfield h 1.0 withvalues",
        "hrandfield h x y",
        "hrandfield h 9223372036854775807",
        "hrandfield h -9223372036854775807",
        "hrandfield h -9223372036854775808",
        "hrandfield h -9223372036854775808 x",
        "hrandfield h 9223372036854775808",
        "hrandfield h 4611686018427387903 WithValues",
        "hrandfield h 4611686018427387904 withvalues",
        "hrandfield h -4611686018427387903 withvalues",
        "hrandfield h -4611686018427387904 withvalues",
        "hrandfield h 1 withvalues x",
        "hrandfield h 4611686018427387904 withvalues x",
        "hincrby h f",
        "hincrby h f x",
        "hincrby h f 1.0",
        "hincrbyfloat h f x",
        "hincrbyfloat h f inf",
        "hincrbyfloat h f 1.5",
        "dump",
        "restore k 0",
        "restore k -1 x",
        "restore k x x",
        "restore k 0 x what",
        "restore k 0 x idletime",
        "restore k 0 x idletime x",
        "restore k 0 x idletime -1",
        "restore k 0 x freq 256",
        "restore k 0 x freq 1 idletime 1",
        "restore k 0 x replace freq",
        "del",
        "unlink",
        "exists",
        "touch",
        "ttl",
        "ttl a b",
        "type",
        "persist a b",
        "randomkey x",
        "keys",
        "keys a b",
        "rename a",
        "rename nokey b",
        "renamenx nokey b",
        "rename a b c",
        "flushdb x",
        "flushdb sync x",
        "flushall async async",
        "flushall x",
        "flushdb ASYNC",
        "flushall sync",
        "dbsize x",
        "time x",
        "readonly x",
        "readwrite x",
        "reset x",
        "object",
        "object freq",
        "object freq a b",
        "object idletime",
        "publish a",
        "publish a b c",
        "spublish",
        "pubsub",
        "pubsub foo",
        "pubsub channels a b",
        "PUBSUB Channels a b",
        "pubsub shardchannels a b c",
        "pubsub channels",
        "pubsub numpat x",
        "pubsub numsub",
        "pubsub shardnumsub a b",
        "pubsub help x",
        "subscribe",
        "ssubscribe",
        "psubscribe",
        "command getkeys ssubscribe a b",
        "command getkeys sunsubscribe",
        "command getkeys spublish a b",
        "command getkeys publish a b",
        "object help",
        "object help x",
        "object encoding",
        "object refcount nokey",
        "object foo bar",
        "info",
        "info x y",
        "info server everything",
    ] {
        errors += compare(&server, &request(&line.split(' ').collect::<Vec<_>>()), true);
    }
    assert!(errors > 120, "{errors} errors");
}

#[test]
fn options_of_scans_are_read_alike() {
    let server = Server::start(&[]);
    let cursors = [
        "",
        "0",
        "00",
        "007",
        "+5",
        "-1",
        "-",
        "+",
        "+-1",
        " 1",
        "1 ",
        "\t1",
        "x",
        "0x1",
        "1.5",
        "18446744073709551615",
        "18446744073709551616",
        "-18446744073709551615",
        "99999999999999999999",
    ];
    let mut lines: Vec<Vec<&str>> = cursors.iter().map(|cursor| vec!["scan", cursor]).collect();
    let options =
        ["count", "COUNT", "match", "type", "0", "-1", "x", "1", "string", "9223372036854775808"];
    for a in options {
        lines.push(vec!["scan", "0", a]);
        for b in options {
            lines.push(vec!["SCAN", "0", a, b]);
            for c in options {
                lines.push(vec!["scan", "0", a, b, c]);
                lines.push(vec!["scan", "0", "count", "1", a, b, c]);
            }
        }
    }
    lines.push(vec!["scan", "x", "count", "x"]);
    let bytes: Vec<u8> = lines.iter().flat_map(|words| request(words)).collect();
    let errors = compare(&server, &bytes, true);
    assert!(errors > 1000, "{errors} errors of {}", lines.len());
}

const SET_WORDS: &[&str] = &[
    "ex",
    "PX",
    "exAT",
    "pxat",
    "NX",
    "xx",
    "GET",
    "keepttl",
    "persist",
    "10",
    "0",
    "-5",
    "abc",
    "1.5",
    "9223372036854775",
    "9223372036854775807",
    "",
];

/// All of up to three words, and some of four.
fn combinations(words: &'static [&'static str]) -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    for &a in words {
        all.push(vec![a]);
        for &b in words {
            all.push(vec![a, b]);
            for &c in words {
                all.push(vec![a, b, c]);
                all.push(vec!["ex", "10", b, c, a]);
                all.push(vec![a, "Px", "10", b, c]);
            }
        }
    }
    all
}

#[test]
fn options_of_set_are_read_alike() {
    let server = Server::start(&[]);
    let mut bytes = Vec::new();
    for options in combinations(SET_WORDS) {
        bytes.extend(request(&[&["set", "k", "v"], &options[..]].concat()));
    }
    for time in SET_WORDS {
        bytes.extend(request(&["setex", "k", time, "v"]));
        bytes.extend(request(&["psetex", "k", time, "v"]));
    }
    let errors = compare(&server, &bytes, true);
    assert!(errors > 10_000, "{errors} errors");
}

#[test]
fn options_of_getex_are_read_alike() {
    let server = Server::start(&[]);
    let mut bytes = Vec::new();
    for options in combinations(SET_WORDS) {
        // It may have deleted what it looks for.
        bytes.extend(requests(&["set k v"]));
        bytes.extend(request(&[&["getex", "k"], &options[..]].concat()));
    }
    let errors = compare(&server, &bytes, true);
    assert!(errors > 10_000, "{errors} errors");
}

#[test]
fn options_of_expire_are_read_alike() {
    let server = Server::start(&[]);
    let times = [
        "10",
        "0",
        "-1",
        "abc",
        "1.5",
        "",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "9223372036854775",
        "9223372036854776",
        "-9223372036854776",
        "-9223372036854775",
        "+1",
        "01",
    ];
    let options = ["nx", "XX", "gt", "Lt", "ex", "a b", "x\r\ny", "z\r\n", "\r\n", "", "a\0b"];
    let mut bytes = Vec::new();
    for name in ["expire", "PEXPIRE", "expireat", "pexpireat"] {
        for time in times {
            bytes.extend(request(&[name, "nokey", time]));
            for a in options {
                bytes.extend(request(&[name, "nokey", time, a]));
                for b in options {
                    bytes.extend(request(&[name, "nokey", time, a, b]));
                }
            }
            for [a, b, c] in
                [["xx", "lt", "gt"], ["nx", "lt", "x"], ["gt", "lt", "nx"], ["lt", "xx", "lt"]]
            {
                bytes.extend(request(&[name, "nokey", time, a, b, c]));
            }
        }
    }
    let errors = compare(&server, &bytes, true);
    assert!(errors > 5000, "{errors} errors");
}

#[test]
fn the_table_is_what_redis_says_of_itself() {
    let server = Server::start(&[]);
    for spec in table::all().filter(|spec| is_old(spec)) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut asked = request(&["hello", &protocol.number().to_string()]);
            asked.extend(request(&["command", "info", spec.name]));
            asked.extend(request(&["command", "docs", spec.name]));
            let [_, info, docs]: [Reply; 3] =
                replies(&server.ask(&asked)).try_into().expect("three answers");
            let ours = |line: &str| {
                let mut bytes = request(&["command", line, spec.name]);
                let mut parser = Parser::new(Limits::default());
                assert!(matches!(parser.parse(&mut bytes), Ok(Parsed::Request { .. })));
                let arguments = parser.arguments(&bytes);
                let command =
                    table::find(arguments).and_then(|spec| Command::parse(spec, arguments));
                let Ok(Command::Command(query)) = command else { panic!("{command:?}") };
                let mut out = Vec::new();
                table::answer(query, &mut Writer::new(&mut out, protocol));
                let [reply]: [Reply; 1] = replies(&out).try_into().expect("one answer");
                reply
            };
            // Notes are our own words, and there are subcommands that we have not.
            let compared = |reply: Reply| {
                let mut fields = reply.children[0].children.clone();
                assert_eq!(fields.len(), 10);
                if !spec.subcommands.is_empty() {
                    fields.pop();
                }
                fields.iter().map(|field| field.without("notes").text()).collect::<Vec<_>>()
            };
            let our_info = ours("info");
            if spec.subcommands.is_empty() && spec.keys.iter().all(|keys| keys.notes.is_none()) {
                assert_eq!(
                    our_info.bytes.escape_ascii().to_string(),
                    info.bytes.escape_ascii().to_string()
                );
            }
            assert_eq!(compared(our_info), compared(info), "{}", spec.name);
            let said = |reply: &Reply, field: &str| {
                reply.children[1].field(field).map(|value| value.text()).expect(field)
            };
            let our_docs = ours("docs");
            for field in ["since", "group"] {
                assert_eq!(said(&our_docs, field), said(&docs, field), "{}", spec.name);
            }
        }
    }
}

#[test]
fn unknown_names_are_answered_alike_by_command_info_and_docs() {
    let server = Server::start(&[]);
    for line in ["command info foo client|foo client|id|x |", "command docs foo client|foo"] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut bytes = request(&words);
        let theirs = server.ask(&bytes);
        let mut parser = Parser::new(Limits::default());
        assert!(matches!(parser.parse(&mut bytes), Ok(Parsed::Request { .. })));
        let arguments = parser.arguments(&bytes);
        let command = table::find(arguments).and_then(|spec| Command::parse(spec, arguments));
        let Ok(Command::Command(query)) = command else { panic!("{command:?}") };
        let mut out = Vec::new();
        table::answer(query, &mut Writer::new(&mut out, Protocol::Resp2));
        assert_eq!(out.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{line}");
    }
}

#[test]
fn patterns_match_the_same_names() {
    let server = Server::start(&[]);
    // A small generator (Marsaglia's xorshift64) of names and patterns over few letters.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = |letters: &[u8], most: u64| {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let size = 1 + next() % most;
        (0..size).map(|_| letters[(next() % letters.len() as u64) as usize]).collect::<Vec<u8>>()
    };
    let names: std::collections::BTreeSet<Vec<u8>> =
        (0..300).map(|_| word(b"abcAB[]^-\\*?", 6)).collect();
    let patterns: Vec<Vec<u8>> = (0..2000).map(|_| word(b"aabbcA**??[[]]^-\\", 9)).collect();
    let mut asked = Vec::new();
    for name in &names {
        asked.extend(request(&[b"set", &name[..], b"v"]));
    }
    for pattern in &patterns {
        asked.extend(request(&[b"keys", &pattern[..]]));
    }
    let theirs = replies(&server.ask(&asked));
    let mut matched = 0;
    for (pattern, reply) in patterns.iter().zip(&theirs[names.len()..]) {
        let ours: Vec<&[u8]> = names
            .iter()
            .map(|name| &name[..])
            .filter(|name| matches(pattern, name, Case::Sensitive))
            .collect();
        let mut theirs: Vec<&[u8]> = reply.children.iter().map(Reply::bulk).collect();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{}", pattern.escape_ascii());
        matched += ours.len();
    }
    assert!(matched > 10_000, "{matched}");
}
