//! Clients of Redis at real nodes: bytes over TCP and over the Unix socket, Redis' own client, and a real Redis beside it.

mod redis_walk;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::{Node, PATIENCE, Place, eventually, in_sync};

/// A client that shows answers as they came.
pub(super) struct Client<S> {
    stream: BufReader<S>,
}

pub(super) type Tcp = Client<TcpStream>;

impl Tcp {
    pub(super) fn of(node: &Node) -> Self {
        let addr = node.redis.as_ref().expect("it listens for clients of Redis");
        let stream = TcpStream::connect(addr).expect("it is let in");
        stream.set_read_timeout(Some(PATIENCE)).expect("some time");
        Self { stream: BufReader::new(stream) }
    }
}

impl Client<UnixStream> {
    fn at(path: &str) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("some time");
        Some(Self { stream: BufReader::new(stream) })
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("it is taken");
    }

    /// Waits until the other side ends the connection, and says nothing before.
    #[track_caller]
    fn hears_no_more(&mut self) {
        assert_eq!(self.stream.read(&mut [0]).expect("it ends in time"), 0);
    }

    /// What a request of these words is answered.
    pub(super) fn ask(&mut self, words: &[&str]) -> String {
        self.send(&request(words));
        self.answer()
    }

    /// The same of a request without blanks in its words.
    pub(super) fn say(&mut self, request: &str) -> String {
        self.ask(&request.split(' ').collect::<Vec<_>>())
    }

    /// The same of several, which are sent at once.
    pub(super) fn say_all(&mut self, requests: &[&str]) -> Vec<String> {
        let words = |one: &&str| request(&one.split(' ').collect::<Vec<_>>());
        self.send(&requests.iter().flat_map(words).collect::<Vec<_>>());
        requests.iter().map(|_| self.answer()).collect()
    }

    /// The next answer, as it came.
    fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        self.read_into(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn read_into(&mut self, answer: &mut Vec<u8>) {
        let begin = answer.len();
        self.stream.read_until(b'\n', answer).expect("an answer");
        let line = String::from_utf8_lossy(&answer[begin..]).trim_end().to_owned();
        let Some(kind) = line.chars().next() else { return };
        let count = || line[1..].parse::<i64>().expect("a number");
        match kind {
            '$' | '=' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.stream.read_exact(&mut bulk).expect("a whole answer");
                answer.extend(bulk);
            }
            '*' | '~' | '>' => (0..count()).for_each(|_| self.read_into(answer)),
            '%' => (0..2 * count()).for_each(|_| self.read_into(answer)),
            _ => {}
        }
    }

    /// Whether the other side has ended the connection, without a word more.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // It may have been reset.
        let _ = self.stream.read_to_end(&mut rest);
        rest.is_empty()
    }
}

fn request(words: &[&str]) -> Vec<u8> {
    request_of_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
}

fn request_of_bytes(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend([*word, b"\r\n"].concat());
    }
    bytes
}

pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Whether this is the answer, or says of a time to live that a second of it has passed.
fn is_answer(said: &str, answer: &str, to: &str) -> bool {
    let seconds = |text: &str| text.trim_end().strip_prefix(':')?.parse::<i64>().ok();
    let (said_s, answer_s) = (seconds(said), seconds(answer));
    let is_later =
        to.starts_with("TTL ") && answer_s.is_some_and(|it| it > 0 && said_s == Some(it - 1));
    said == answer || is_later
}

pub(super) const OK: &str = "+OK\r\n";
pub(super) const NIL: &str = "$-1\r\n";
const LATE: &str = "-ERR late save: ";

/// A node with two tables whose sessions live until they are ended, and these lines under `[redis]`.
fn door(place: &Place, lines: &str) -> Node {
    let tables = ["sessions", "others"].map(|name| {
        format!("[[table]]\nname = \"{name}\"\nidle = \"never\"\nlifetime_max = \"never\"\n")
    });
    let listen = "[redis]\nlisten = [\"127.0.0.1:0\"]\n";
    let config = place.write("door.toml", format!("{listen}{lines}\n{}", tables.concat()));
    place.node("n1", &[], &["--config", &config])
}

#[test]
fn a_client_of_redis_shakes_hands_in_one_batch() {
    let place = Place::new();
    let node = door(&place, &format!("socket = {:?}", place.path("redis.sock")));
    let mut local = Client::at(&place.path("redis.sock")).expect("the socket is there");
    let mut tcp = Tcp::of(&node);
    // As redis-py and node-redis begin, and an inline command.
    let batch: Vec<u8> = [
        request(&["HELLO", "3"]),
        request(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"]),
        request(&["CLIENT", "SETNAME", "app"]),
        request(&["SELECT", "1"]),
        b"PING\r\n".to_vec(),
        request(&["GET", "nothing"]),
    ]
    .concat();
    // Split at each byte, too: the answers are the same.
    tcp.send(&batch);
    batch.iter().for_each(|&byte| local.send(&[byte]));
    for answers in [answers(&mut tcp, 6), answers(&mut local, 6)] {
        assert!(answers[0].starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{answers:?}");
        assert!(answers[0].contains("$5\r\nproto\r\n:3\r\n"), "{answers:?}");
        assert_eq!(answers[1..], [OK, OK, OK, "+PONG\r\n", "_\r\n"]);
    }
    let info = tcp.say("CLIENT INFO");
    for part in [" name=app ", " db=1 ", " resp=3 ", " lib-name=redis-py ", " cmd=client|info "] {
        assert!(info.contains(part), "{part} in {info}");
    }
    assert_eq!(tcp.say("CLIENT LIST").matches(" addr=").count(), 2);
    // The one other is ended, and so is it in the list.
    assert_eq!(tcp.say("CLIENT KILL TYPE normal"), ":1\r\n");
    assert!(local.is_closed());
    eventually("the other one is gone", || {
        let list = tcp.say("CLIENT LIST");
        (list.matches(" addr=").count() == 1).then_some(())
    });
    assert_eq!(tcp.say("SELECT 2"), "-ERR DB index is out of range\r\n");
    assert_eq!(tcp.say("HELLO 4"), "-NOPROTO unsupported protocol version\r\n");
    assert_eq!(tcp.say("RESET"), "+RESET\r\n");
    assert_eq!(tcp.say("GET nothing"), NIL);
    // Without answers, and with them again.
    tcp.send(&[request(&["CLIENT", "REPLY", "SKIP"]), request(&["PING"])].concat());
    assert_eq!(tcp.say("ECHO one"), bulk("one"));
    tcp.send(&[request(&["CLIENT", "REPLY", "OFF"]), request(&["PING"])].concat());
    assert_eq!(tcp.say("CLIENT REPLY ON"), OK);
    assert_eq!(tcp.say("QUIT"), OK);
    assert!(tcp.is_closed());
}

fn answers<S: Read + Write>(client: &mut Client<S>, count: usize) -> Vec<String> {
    (0..count).map(|_| client.answer()).collect()
}

#[test]
fn strings_are_set_and_read_as_in_redis() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    for (asked, answered) in [
        ("SET k v", OK),
        ("GET k", &bulk("v")),
        ("SET k w NX", NIL),
        ("SET k w XX", OK),
        ("SET k x GET", &bulk("w")),
        ("SET k y IFEQ w", NIL),
        ("SET k y IFEQ x", OK),
        ("SET k z EX 100", OK),
        ("TTL k", ":100\r\n"),
        ("SET k zz KEEPTTL", OK),
        ("TTL k", ":100\r\n"),
        ("SET k z XX PX 200000", OK),
        ("TTL k", ":200\r\n"),
        ("SET k z", OK),
        ("TTL k", ":-1\r\n"),
        ("SET k z EXAT 1", OK),
        ("GET k", NIL),
        ("SET new v NX EX 50 GET", NIL),
        ("SET new w NX GET", &bulk("v")),
        ("TTL new", ":50\r\n"),
        ("MSET a 1 b 2", OK),
        ("MGET a b none", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"),
        ("APPEND a 23", ":3\r\n"),
        ("INCRBY a 7", ":130\r\n"),
        ("INCR new", "-ERR value is not an integer or out of range\r\n"),
        ("GETRANGE a 1 -1", &bulk("30")),
        ("SETRANGE a 5 x", ":6\r\n"),
        ("GET a", &bulk("130\0\0x")),
        ("GETDEL a", &bulk("130\0\0x")),
        ("EXISTS a b b", ":2\r\n"),
        ("DEL a b", ":1\r\n"),
        ("TYPE new", "+string\r\n"),
        ("TTL none", ":-2\r\n"),
        ("OBJECT ENCODING new", &bulk("embstr")),
        ("SET k", "-ERR wrong number of arguments for 'set' command\r\n"),
        ("FLUSHALL", OK),
        ("EXISTS k new", ":0\r\n"),
    ] {
        assert!(is_answer(&client.say(asked), answered, asked), "{asked}");
    }
    // What is no string stays as it is.
    let run = |args: &[&str]| place.run(&[args, &["--node", &node.addr]].concat());
    run(&["start", "map", "--field", "a=1"]).ok();
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    for asked in
        ["GET map", "APPEND map x", "INCR map", "SET map x GET", "GETDEL map", "STRLEN map"]
    {
        assert_eq!(client.say(asked), wrong, "{asked}");
    }
    assert_eq!(client.say("MGET map"), "*1\r\n$-1\r\n");
    assert_eq!(client.say("TYPE map"), "+hash\r\n");
    // It is the same session for everybody.
    client.say("SET shared theirs");
    assert_eq!(run(&["get", "shared"]).ok().trim_end(), "theirs");
    run(&["start", "other-way", "ours"]).ok();
    assert_eq!(client.say("GET other-way"), bulk("ours"));
    // Too large a value is refused, and the connection goes on.
    let large = "x".repeat(65 << 10);
    let refused = client.ask(&["SET", "large", &large]);
    assert_eq!(refused, "-ERR string exceeds maximum allowed size (65536 bytes)\r\n");
    assert_eq!(client.say("GET large"), NIL);
    // Tables are apart.
    assert_eq!(client.say("SELECT 1"), OK);
    assert_eq!(client.say("GET shared"), NIL);
}

#[test]
fn deadlines_change_as_their_conditions_say() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    for (asked, answered) in [
        ("SET k v", OK),
        ("EXPIRE k 100 XX", ":0\r\n"),
        ("EXPIRE k 100 GT", ":0\r\n"),
        ("EXPIRE k 100 NX", ":1\r\n"),
        ("EXPIRE k 200 NX", ":0\r\n"),
        ("EXPIRE k 50 GT", ":0\r\n"),
        ("EXPIRE k 200 GT", ":1\r\n"),
        ("TTL k", ":200\r\n"),
        ("EXPIRE k 300 LT", ":0\r\n"),
        ("EXPIRE k 100 LT", ":1\r\n"),
        ("PEXPIRE k 300000 XX", ":1\r\n"),
        ("TTL k", ":300\r\n"),
        ("PERSIST k", ":1\r\n"),
        ("PERSIST k", ":0\r\n"),
        ("TTL k", ":-1\r\n"),
        ("EXPIRETIME k", ":-1\r\n"),
        ("EXPIREAT k 4102444800", ":1\r\n"),
        ("EXPIRETIME k", ":4102444800\r\n"),
        ("GETEX k EX 100", &bulk("v")),
        ("TTL k", ":100\r\n"),
        ("GETEX k PERSIST", &bulk("v")),
        ("TTL k", ":-1\r\n"),
        ("EXPIRE none 100", ":0\r\n"),
        ("PERSIST none", ":0\r\n"),
        ("EXPIRE k -1", ":1\r\n"),
        ("TTL k", ":-2\r\n"),
        ("EXPIRE k 9223372036854775", "-ERR invalid expire time in 'expire' command\r\n"),
    ] {
        assert!(is_answer(&client.say(asked), answered, asked), "{asked}");
    }
}

/// Nodes with these flags, of which the first one is the others' seed, once they are in sync.
pub(super) fn doors(place: &Place, first: &str, others: &[&str], flags: &[&str]) -> Vec<Node> {
    let mut nodes = vec![place.node(first, &[], flags)];
    let seed = nodes[0].addr.clone();
    for name in others {
        nodes.push(place.node(name, &[&seed], flags));
    }
    in_sync(place, &seed, nodes.len());
    nodes
}

#[test]
fn counters_count_each_time_once() {
    let place = Place::new();
    let node = door(&place, "");
    let mut clients: Vec<Tcp> = (0..4).map(|_| Tcp::of(&node)).collect();
    let mut numbers: Vec<i64> = std::thread::scope(|scope| {
        let counting = clients.iter_mut().map(|client| {
            scope.spawn(|| {
                let number = |answer: String| answer.trim()[1..].parse().expect("a number");
                (0..50).map(|_| number(client.say("INCR hits"))).collect::<Vec<i64>>()
            })
        });
        let counting: Vec<_> = counting.collect();
        counting.into_iter().flat_map(|thread| thread.join().expect("it counts")).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_late_save_brings_nothing_back() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut late, mut other) = (Tcp::of(&node), Tcp::of(&node));
    assert_eq!(late.say("SET s mine"), OK);
    assert_eq!(late.say("GET s"), bulk("mine"));
    assert_eq!(other.say("DEL s"), ":1\r\n");
    for save in ["SET s mine", "SETEX s 100 mine", "MSET s mine", "GETSET s mine", "SET s mine GET"]
    {
        let refused = late.say(save);
        assert!(refused.starts_with(LATE), "{save}: {refused}");
    }
    assert_eq!(other.say("EXISTS s"), ":0\r\n");
    // Whoever was told that it is not there means a new one; so does NX, and who ended it.
    assert_eq!(late.say("GET s"), NIL);
    assert_eq!(late.say("SET s new"), OK);
    assert_eq!(other.say("DEL s"), ":1\r\n");
    assert_eq!(other.say("SET s again"), OK);
    assert_eq!(other.say("DEL s"), ":1\r\n");
    assert!(late.say("SET s mine").starts_with(LATE));
    assert_eq!(late.say("SET s fresh NX"), OK);
    // Once written, the word that it was not there is used up.
    assert_eq!(other.say("DEL s"), ":1\r\n");
    assert!(late.say("SET s mine").starts_with(LATE));
    // A logout by somebody else is one, too.
    assert_eq!(late.say("SET t mine"), OK);
    place.run(&["end", "t", "--node", &node.addr]).ok();
    assert!(late.say("SET t mine").starts_with(LATE));
}

/// Whoever was told that there is no session may begin one; but not once it has met another one's, whatever it did there.
#[test]
fn what_was_told_is_used_up_by_whatever_meets_a_session() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut late, mut other) = (Tcp::of(&node), Tcp::of(&node));
    for meets in [
        "GET s",
        "STRLEN s",
        "SETNX s y",
        "SET s y NX",
        "SET s y XX",
        "SET s y KEEPTTL",
        "SET s y IFEQ no",
        "GETSET s y",
        "APPEND s y",
        "EXPIRE s 100",
        "EXPIRE s 100 NX",
        "GETEX s EX 100",
        "PERSIST s",
        "TOUCH s",
    ] {
        assert_eq!(late.say("GET s"), NIL);
        assert_eq!(other.say("SET s theirs NX"), OK, "{meets}");
        late.say(meets);
        assert_eq!(other.say("DEL s"), ":1\r\n", "{meets}");
        let refused = late.say("SET s mine");
        assert!(refused.starts_with(LATE), "{meets}: {refused}");
    }
    // Nor does it go with the connection to whom that is handed on.
    assert_eq!(late.say("GET s"), NIL);
    assert_eq!(late.say("RESET"), "+RESET\r\n");
    assert!(late.say("SET s mine").starts_with(LATE));
}

#[test]
fn late_saves_are_ignored_or_done_where_the_configuration_says_so() {
    for (what, found) in [("ignore", NIL.to_owned()), ("recreate", bulk("mine"))] {
        let place = Place::new();
        let node = door(&place, &format!("on_late_save = \"{what}\""));
        let (mut late, mut other) = (Tcp::of(&node), Tcp::of(&node));
        assert_eq!(late.say("SET s mine"), OK);
        assert_eq!(other.say("DEL s"), ":1\r\n");
        assert_eq!(late.say("SET s mine"), OK, "{what}");
        assert_eq!(other.say("GET s"), found, "{what}");
    }
}

#[test]
fn a_client_is_silent_when_told_so_and_says_little_of_itself() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    let asked =
        ["CLIENT REPLY OFF", "PING", "CLIENT REPLY SKIP", "PING", "PING", "CLIENT REPLY ON"];
    let bytes: Vec<u8> = asked.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
    client.send(&bytes);
    assert_eq!(client.answer(), OK);
    let long = "n".repeat(257);
    for asked in [&["CLIENT", "SETNAME", &long][..], &["HELLO", "3", "SETNAME", &long]] {
        let refused = client.ask(asked);
        assert!(
            refused.starts_with("-ERR a client's name, library and version have 256"),
            "{refused}"
        );
    }
    assert_eq!(client.say("CLIENT GETNAME"), NIL);
}

#[test]
fn without_the_password_nothing_is_told() {
    let place = Place::new();
    let password = place.secret("password", "correct horse\n");
    let node = door(&place, &format!("password_file = {password:?}"));
    let mut client = Tcp::of(&node);
    let no_auth = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    for (words, answered) in [
        (&["GET", "k"][..], no_auth),
        (&["CLIENT", "LIST"], no_auth),
        (&["INFO"], no_auth),
        (&["AUTH", "wrong horse!!"], wrong),
        (&["AUTH", "default", "correct"], wrong),
        (&["AUTH", "root", "correct horse"], wrong),
        (&["HELLO", "3", "AUTH", "default", "wrong"], wrong),
        (&["GET", "k"], no_auth),
        (&["AUTH", "correct horse"], OK),
        (&["GET", "k"], NIL),
        (&["SET", "k", "v"], OK),
        (&["GET", "k"], &bulk("v")),
        (&["RESET"], "+RESET\r\n"),
        (&["GET", "k"], no_auth),
    ] {
        assert_eq!(client.ask(words), answered, "{words:?}");
    }
    assert!(client.say("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(client.ask(&["HELLO", "3", "AUTH", "default", "correct horse"]).starts_with("%7\r\n"));
    // Somebody unknown announces no more than that.
    let mut stranger = Tcp::of(&node);
    stranger.send(b"*11\r\n");
    assert_eq!(stranger.answer(), "-ERR Protocol error: unauthenticated multibulk length\r\n");
    assert!(stranger.is_closed());
    // Where none is needed, Redis' words for whoever says one.
    let place = Place::new();
    let node = door(&place, "");
    let said = Tcp::of(&node).say("AUTH something");
    assert!(said.starts_with("-ERR AUTH <password> called without any password"), "{said}");
}

#[test]
fn a_node_without_a_usable_password_does_not_start() {
    let place = Place::new();
    let short = place.secret("short", "1234567\nmore\n");
    let readable = place.write("readable", "correct horse\n");
    let none = place.path("none");
    let files = [(&short, "at least 8"), (&readable, "chmod 600"), (&none, "No such file")];
    let of_all = files.map(|(file, why)| ("--redis-password-file", file.clone(), why));
    let of_a_role =
        files.map(|(file, why)| ("--redis-password-files", format!("worker={file}"), why));
    for (flag, file, why) in of_all.into_iter().chain(of_a_role) {
        let ran = place.run(&[
            "node",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &place.path("d"),
            "--shm-dir",
            &place.path(""),
            "--socket",
            "",
            "--redis-listen",
            "127.0.0.1:0",
            flag,
            &file,
        ]);
        assert_ne!(ran.code, 0);
        assert!(
            ran.stderr.contains(&flag[2..].replacen("redis-", "redis.", 1).replace('-', "_"))
                && ran.stderr.contains(why),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("1234567"), "{}", ran.stderr);
    }
}

#[test]
fn what_is_no_request_ends_its_connection_and_no_other() {
    let place = Place::new();
    let node = door(&place, "connections_max = 2");
    let mut other = Tcp::of(&node);
    assert_eq!(other.say("PING"), "+PONG\r\n");
    for (bytes, answered) in [
        (&b"*1\r\n$600000000\r\n"[..], "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (b"POST / HTTP/1.1\r\n\r\n", ""),
    ] {
        // There is a place again as soon as the one before has ended.
        let mut client = eventually("a place", || {
            let mut client = Tcp::of(&node);
            (client.say("PING") == "+PONG\r\n").then_some(client)
        });
        client.send(bytes);
        if !answered.is_empty() {
            assert_eq!(client.answer(), answered);
        }
        assert!(client.is_closed(), "{answered}");
    }
    let held = eventually("a place", || {
        let mut client = Tcp::of(&node);
        (client.say("PING") == "+PONG\r\n").then_some(client)
    });
    let mut third = Tcp::of(&node);
    assert_eq!(third.answer(), "-ERR max number of clients reached\r\n");
    assert!(third.is_closed());
    drop(held);
    assert_eq!(other.say("PING"), "+PONG\r\n");
}

#[test]
fn commands_that_are_none_here_are_neither_done_nor_announced() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    for name in ["SDIFF", "LPUSH", "ZDIFF"] {
        let answered = client.ask(&[name, "0"]);
        let expected = format!("-ERR unknown command '{name}', with args beginning with: '0' \r\n");
        assert_eq!(answered, expected);
        assert_eq!(client.ask(&["COMMAND", "INFO", name]), "*1\r\n$-1\r\n");
    }
    let count: usize = client.say("COMMAND COUNT").trim()[1..].parse().expect("a number");
    let listed = client.say("COMMAND LIST").matches("$").count();
    assert!(count >= 50 && listed > count, "{count} commands, {listed} with their subcommands");
    let info = client.say("INFO stats");
    assert!(info.contains("unknown_commands:lpush=1,sdiff=1,zdiff=1\r\n"), "{info}");
    // Who runs the cluster finds them, too.
    client.say("zdiff again");
    client.say("\u{1b}[2J x");
    let status = |more: &[&str]| place.run(&[&["status", "--node", &node.addr], more].concat());
    let json = status(&["--json"]).json();
    let expected = r#"{"(others)":1,"lpush":1,"sdiff":1,"zdiff":2}"#;
    assert_eq!(json["unknown_commands"].to_string(), expected);
    let all = status(&["--all", "--json"]).json();
    assert_eq!(all["nodes"][0]["unknown_commands"].to_string(), expected);
    let line = "clients of Redis asked in vain for: zdiff 2, (others) 1, lpush 1, sdiff 1\n";
    assert!(status(&[]).ok().ends_with(&format!("\n{line}")));
    assert!(status(&["--all"]).ok().ends_with(&format!("\nn1: {line}")));
    let info = client.say("INFO");
    for line in
        ["loading:0", "role:master", "redis_mode:standalone", "cluster_enabled:0", "arch_bits:64"]
    {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
    let config = client.say("CONFIG GET max*y");
    assert_eq!(
        config,
        format!(
            "*4\r\n{}{}{}{}",
            bulk("maxmemory"),
            bulk("0"),
            bulk("maxmemory-policy"),
            bulk("noeviction")
        )
    );
}

#[test]
fn a_session_that_was_set_through_one_node_is_read_through_the_others() {
    let place = Place::new();
    let mut nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let seed = nodes[0].addr.clone();
    let keys: Vec<String> = (0..50).map(|number| format!("sess:{number}")).collect();
    let mut first = Tcp::of(&nodes[0]);
    for key in &keys {
        assert_eq!(first.ask(&["SET", key, key, "EX", "1000"]), OK);
    }
    let mut last = Tcp::of(&nodes[2]);
    for key in &keys {
        assert_eq!(last.ask(&["GET", key]), bulk(key));
    }
    // Logged out through one, and late through another.
    assert_eq!(last.ask(&["DEL", &keys[0]]), ":1\r\n");
    assert!(first.ask(&["SET", &keys[0], "late"]).starts_with(LATE));
    // kill -9, and everything is still there. Before the others decide about slots with it, nobody would without it.
    place.run(&["safe-to-stop", "--wait", "60s", "--node", &seed]).ok();
    nodes[0].child.kill().expect("it is killed");
    for key in &keys[1..] {
        assert_eq!(last.ask(&["GET", key]), bulk(key));
    }
    // Whoever decides about the counter may have been the one that died: then it takes until that is known.
    let mut count = || last.say("INCR hits").trim().strip_prefix(':')?.parse::<i64>().ok();
    let mut before = eventually("it is counted again", &mut count);
    for _ in 0..20 {
        let number = eventually("it is counted", &mut count);
        assert!(number > before, "{number} after {before}");
        before = number;
    }
}

#[test]
fn the_client_that_comes_with_redis_is_served() {
    let place = Place::new();
    let socket = place.path("redis.sock");
    let password = place.secret("password", "correct horse");
    let lines = format!("socket = {socket:?}\npassword_file = {password:?}");
    let node = door(&place, &lines);
    let port = node.redis.as_ref().and_then(|addr| addr.rsplit_once(':')).expect("a port").1;
    let cli = |args: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.env("REDISCLI_AUTH", "correct horse").args(args);
        let output = command.stdin(Stdio::null()).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    assert_eq!(cli(&["-p", port, "SET", "k", "v", "EX", "100"]), "OK");
    assert_eq!(cli(&["-3", "-p", port, "GET", "k"]), "v");
    let left = cli(&["-s", &socket, "--no-raw", "TTL", "k"]);
    let left = left.strip_prefix("(integer) ").and_then(|left| left.parse::<i64>().ok());
    assert!(left.is_some_and(|left| (1..=100).contains(&left)), "{left:?}");
    assert_eq!(cli(&["-s", &socket, "-n", "1", "GET", "k"]), "");
    assert!(cli(&["-s", &socket, "-3", "HELLO", "3"]).starts_with("server redis"));
    // Many at once, and none of them lost.
    let numbers = cli(&["-s", &socket, "-r", "20", "INCR", "n"]);
    assert_eq!(numbers.lines().last(), Some("20"));
}

/// A real Redis, for as long as it is held.
struct RealRedis {
    child: Child,
    socket: String,
}

impl RealRedis {
    fn start(place: &Place) -> Self {
        let socket = place.path("real.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", &socket]);
        command.current_dir(place.path("")).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("redis-server is installed"), socket }
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers from a seed (xorshift64*).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn one_of(&mut self, words: &[&'static str]) -> String {
        words[self.below(words.len())].to_owned()
    }

    fn key(&mut self) -> String {
        self.one_of(&["a", "b", "c", "d"])
    }

    fn value(&mut self) -> String {
        self.one_of(&[
            "",
            "1",
            "-3",
            "41",
            "007",
            " 5",
            "1e3",
            "text",
            "9223372036854775807",
            "a longer text",
        ])
    }

    /// The words of a request; `number` differs from one to the next.
    fn request(&mut self, number: usize) -> Vec<String> {
        // Far away, and no two within a second of each other: nothing depends on how fast anybody is.
        let seconds = 100_000 + number * 7_919 % 100_003 * 1_000;
        let time = |unit: usize| match unit {
            0 => ["EX".to_owned(), seconds.to_string()],
            1 => ["PX".to_owned(), (seconds * 1_000).to_string()],
            2 => ["EXAT".to_owned(), (4_000_000_000 + seconds).to_string()],
            _ => ["EXAT".to_owned(), "1".to_owned()],
        };
        let mut words: Vec<String> = Vec::new();
        match self.below(24) {
            0..=3 => {
                words.push("SET".to_owned());
                words.push(self.key());
                words.push(self.value());
                match self.below(6) {
                    0 => words.push("KEEPTTL".to_owned()),
                    1 | 2 => words.extend(time(self.below(8))),
                    _ => {}
                }
                match self.below(5) {
                    0 => words.push("nx".to_owned()),
                    1 => words.push("XX".to_owned()),
                    _ => {}
                }
                if self.below(4) == 0 {
                    words.push("GET".to_owned());
                }
            }
            4 => words.extend(["SETNX", &self.key(), &self.value()].map(str::to_owned)),
            5 => words.extend(
                ["SETEX", &self.key(), &seconds.to_string(), &self.value()].map(str::to_owned),
            ),
            6 => words.extend(["GETSET", &self.key(), &self.value()].map(str::to_owned)),
            7 => words.extend(["GETDEL", &self.key()].map(str::to_owned)),
            8 => {
                words.push("GETEX".to_owned());
                words.push(self.key());
                match self.below(4) {
                    0 => {}
                    1 => words.push("PERSIST".to_owned()),
                    _ => words.extend(time(self.below(6))),
                }
            }
            9 => words.extend(["MGET", &self.key(), &self.key(), &self.key()].map(str::to_owned)),
            10 => words.extend(
                ["MSET", &self.key(), &self.value(), &self.key(), &self.value()].map(str::to_owned),
            ),
            11 => words.extend(["APPEND", &self.key(), &self.value()].map(str::to_owned)),
            12 => {
                let offset = self.one_of(&["0", "1", "7", "20", "-1", "600000000"]);
                words.extend(["SETRANGE", &self.key(), &offset, &self.value()].map(str::to_owned))
            }
            13 => {
                let places =
                    &["0", "1", "3", "-1", "-3", "100", "-100", "9223372036854775807", "x"];
                let (start, end) = (self.one_of(places), self.one_of(places));
                words.extend(["GETRANGE", &self.key(), &start, &end].map(str::to_owned))
            }
            14 => {
                let name = self.one_of(&["INCR", "DECR"]);
                words.extend([&name, &self.key()].map(|word| word.to_owned()))
            }
            15 => {
                let name = self.one_of(&["INCRBY", "DECRBY"]);
                let by =
                    self.one_of(&["1", "-7", "9223372036854775807", "-9223372036854775808", "1.5"]);
                words.extend([&name, &self.key(), &by].map(|word| word.to_owned()))
            }
            16 => {
                let name = self.one_of(&["DEL", "UNLINK", "EXISTS", "TOUCH"]);
                words.extend([&name, &self.key(), &self.key()].map(|word| word.to_owned()))
            }
            17 | 18 => {
                let name = self.one_of(&["EXPIRE", "PEXPIRE"]);
                let time = match self.below(8) {
                    0 => "-1".to_owned(),
                    1 => "0".to_owned(),
                    _ if name == "EXPIRE" => seconds.to_string(),
                    _ => (seconds * 1_000).to_string(),
                };
                words.extend([&name, &self.key(), &time].map(|word| word.to_owned()));
                match self.below(7) {
                    0 => words.push("NX".to_owned()),
                    1 => words.push("XX".to_owned()),
                    2 => words.push("GT".to_owned()),
                    3 => words.push("LT".to_owned()),
                    4 => words.extend(["XX", "LT"].map(str::to_owned)),
                    _ => {}
                }
            }
            19 => {
                let name = self.one_of(&["EXPIREAT", "PEXPIREAT"]);
                let at = match self.below(6) {
                    0 => "1".to_owned(),
                    _ if name == "EXPIREAT" => (4_000_000_000 + seconds).to_string(),
                    _ => ((4_000_000_000 + seconds) * 1_000).to_string(),
                };
                words.extend([&name, &self.key(), &at].map(|word| word.to_owned()))
            }
            20 => words.extend(["PERSIST", &self.key()].map(str::to_owned)),
            21 => {
                let name = self.one_of(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]);
                words.extend([&name, &self.key()].map(|word| word.to_owned()))
            }
            22 => {
                let name = self.one_of(&["TYPE", "STRLEN", "GET"]);
                words.push(name);
                words.push(self.key());
            }
            _ => words.extend(["GET", &self.key()].map(str::to_owned)),
        }
        words
    }
}

#[test]
fn random_commands_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let node = door(&place, "on_late_save = \"recreate\"");
    let real = RealRedis::start(&place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours = Tcp::of(&node);
    for seed in [1, 2, 3] {
        let mut draw = Draw(seed);
        let ended = ["DEL", "a", "b", "c", "d"];
        ours.ask(&ended);
        theirs.ask(&ended);
        for number in 0..1_500 {
            let words = draw.request(number);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let is_time = words[0].contains("TTL") || words[0].contains("EXPIRETIME");
            let plain = |answer: String| match answer.strip_prefix(':') {
                // How long it still lives depends on the time.
                Some(time) if is_time && !time.starts_with('-') => "a time".to_owned(),
                _ => answer,
            };
            let (ours, theirs) = (plain(ours.ask(&words)), plain(theirs.ask(&words)));
            assert_eq!(ours, theirs, "seed {seed}, request {number}: {words:?}");
        }
    }
}

#[path = "redis/channels.rs"]
mod channels;
#[path = "redis/events.rs"]
mod events;
#[path = "redis/field_deadlines.rs"]
mod field_deadlines;
#[path = "redis/hashes.rs"]
mod hashes;
#[path = "redis/import.rs"]
mod import;
#[path = "redis/pipelines.rs"]
mod pipelines;
#[path = "redis/scripts.rs"]
mod scripts;
#[path = "redis/sets.rs"]
mod sets;
#[path = "redis/transactions.rs"]
mod transactions;
#[path = "redis/users.rs"]
mod users;
