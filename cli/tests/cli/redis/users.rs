//! Users of the door, who are roles, and the end of all sessions, which is for one of them.

use super::*;

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NO_AUTH: &str = "-NOAUTH Authentication required.\r\n";

fn no_permission(command: &str) -> String {
    format!("-NOPERM this user has no permissions to run the '{command}' command\r\n")
}

/// The line for a user's password, which is its name twice.
fn password_files(place: &Place, users: &[&str]) -> String {
    let file = |user: &&str| {
        let path = place.secret(&format!("{user}.password"), &format!("{user}-{user}\n"));
        format!("{user} = {path:?}")
    };
    let files: Vec<_> = users.iter().map(file).collect();
    format!("password_files = {{ {} }}\n", files.join(", "))
}

fn client_of(node: &Node, user: &str) -> Tcp {
    let mut client = Tcp::of(node);
    assert_eq!(client.say(&format!("AUTH {user} {user}-{user}")), OK);
    client
}

#[test]
fn who_does_not_say_the_password_in_time_is_sent_away() {
    let place = Place::new();
    let password = place.secret("password", "correct horse\n");
    let node = door(&place, &format!("password_file = {password:?}"));
    let (mut stranger, mut known) = (Tcp::of(&node), Tcp::of(&node));
    assert_eq!(known.ask(&["AUTH", "correct horse"]), OK);
    assert_eq!(stranger.say("PING"), NO_AUTH);
    stranger.hears_no_more();
    assert_eq!(known.say("PING"), "+PONG\r\n");
}

#[test]
fn a_user_may_do_what_its_role_may() {
    let place = Place::new();
    let password = place.secret("password", "correct horse\n");
    let users = ["worker", "monitor", "operator", "authority"];
    let lines = password_files(&place, &users);
    let node = door(&place, &format!("password_file = {password:?}\n{lines}"));
    let mut default = Tcp::of(&node);
    assert_eq!(default.ask(&["AUTH", "correct horse"]), OK);
    let mut authority = client_of(&node, "authority");
    for (client, key) in [(&mut default, "one"), (&mut authority, "other")] {
        assert_eq!(client.say(&format!("SET {key} v")), OK);
        assert_eq!(client.say("FLUSHDB"), no_permission("flushdb"));
        assert_eq!(client.say("FLUSHALL ASYNC"), no_permission("flushall"));
        assert_eq!(client.say(&format!("DEL {key}")), ":1\r\n");
    }
    assert_eq!(default.say("SET k v"), OK);
    assert_eq!(default.say("HSET map a 1"), ":1\r\n");
    // It reads and changes what there is, and neither begins nor ends anything.
    let mut worker = client_of(&node, "worker");
    for (asked, answered) in [
        ("GET k", &bulk("v")[..]),
        ("HSET map b 2", ":1\r\n"),
        ("EXPIRE k 1000", ":1\r\n"),
        // One of two fields, and not the last.
        ("HDEL map a", ":1\r\n"),
        ("HKEYS map", &format!("*1\r\n{}", bulk("b"))),
        ("DBSIZE", ":2\r\n"),
        ("FLUSHDB", &no_permission("flushdb")),
    ] {
        assert_eq!(worker.say(asked), answered, "{asked}");
    }
    let refused =
        ["DEL k", "SET new v", "SET k w", "MSET k w", "GETDEL k", "HSET new a 1", "HDEL map b"];
    for asked in refused {
        let refused = worker.say(asked);
        assert!(refused.contains("the role worker may not do this"), "{asked}: {refused}");
    }
    // Neither has anything to do with sessions.
    for name in ["monitor", "operator"] {
        let mut client = client_of(&node, name);
        for (asked, command) in [
            ("GET k", "get"),
            ("DEL k", "del"),
            ("HGETALL map", "hgetall"),
            ("OBJECT IDLETIME k", "object|idletime"),
            ("SCAN 0", "scan"),
            ("DBSIZE", "dbsize"),
            ("WATCH k", "watch"),
            ("EVAL x 1 k", "eval"),
        ] {
            assert_eq!(client.say(asked), no_permission(command), "{name}: {asked}");
        }
        for asked in ["PING", "INFO server", "CLIENT LIST", "PUBLISH a b", "COMMAND COUNT"] {
            assert!(!client.say(asked).starts_with('-'), "{name}: {asked}");
        }
        // What is refused is refused before EXEC, and so is all else with it.
        assert_eq!(client.say("MULTI"), OK);
        assert_eq!(client.say("GET k"), no_permission("get"));
        assert!(client.say("EXEC").starts_with("-EXECABORT"));
    }
    let mut monitor = client_of(&node, "monitor");
    assert_eq!(monitor.say("FLUSHALL"), no_permission("flushall"));
    assert_eq!(default.say("DBSIZE"), ":2\r\n");
    let mut operator = client_of(&node, "operator");
    assert_eq!(operator.say("FLUSHDB"), OK);
    assert_eq!(default.say("DBSIZE"), ":0\r\n");
}

#[test]
fn a_connection_is_who_it_said_last() {
    let place = Place::new();
    let password = place.secret("password", "correct horse\n");
    let lines = password_files(&place, &["worker", "operator"]);
    let node = door(&place, &format!("password_file = {password:?}\n{lines}"));
    let mut client = Tcp::of(&node);
    for (words, answered) in [
        (&["ACL", "WHOAMI"][..], NO_AUTH),
        (&["AUTH", "worker", "correct horse"], WRONG),
        (&["AUTH", "worker-worker"], WRONG),
        (&["AUTH", "Worker", "worker-worker"], WRONG),
        (&["AUTH", "authority", "correct horse"], WRONG),
        (&["AUTH", "development", "correct horse"], WRONG),
        (&["AUTH", "worker", "worker-worker"], OK),
        (&["ACL", "WHOAMI"], &bulk("worker")),
        // It stays who it was.
        (&["AUTH", "operator", "wrong password"], WRONG),
        (&["ACL", "WHOAMI"], &bulk("worker")),
        (&["AUTH", "correct horse"], OK),
        (&["ACL", "WHOAMI"], &bulk("default")),
        (&["SET", "k", "v"], OK),
        (&["AUTH", "operator", "operator-operator"], OK),
        (&["GET", "k"], &no_permission("get")),
        (&["RESET"], "+RESET\r\n"),
        (&["FLUSHALL"], NO_AUTH),
        (&["ACL", "WHOAMI"], NO_AUTH),
    ] {
        assert_eq!(client.ask(words), answered, "{words:?}");
    }
    let hello = client.say("HELLO 3 AUTH operator operator-operator SETNAME ops");
    assert!(hello.starts_with("%7\r\n"), "{hello}");
    let info = client.say("CLIENT INFO");
    assert!(info.contains(" name=ops ") && info.contains(" user=operator "), "{info}");
    // Others see it, too.
    let (mut worker, mut default) = (client_of(&node, "worker"), Tcp::of(&node));
    assert_eq!(default.ask(&["AUTH", "correct horse"]), OK);
    let list = default.say("CLIENT LIST");
    for user in ["operator", "worker", "default"] {
        assert_eq!(list.matches(&format!(" user={user} ")).count(), 1, "{list}");
    }
    assert_eq!(default.say("CLIENT KILL USER worker"), ":1\r\n");
    assert!(worker.is_closed());
    assert_eq!(default.say("CLIENT KILL USER nobody"), "-ERR No such user 'nobody'\r\n");
    let help = default.say("ACL HELP");
    assert!(help.contains("+WHOAMI\r\n"), "{help}");
}

#[test]
fn without_a_password_of_its_own_there_is_no_default_user() {
    let place = Place::new();
    let lines = password_files(&place, &["worker"]);
    let node = door(&place, &lines);
    let mut client = Tcp::of(&node);
    for (asked, answered) in [
        ("GET k", NO_AUTH),
        ("AUTH anything", WRONG),
        ("AUTH default anything", WRONG),
        ("AUTH default worker-worker", WRONG),
        ("AUTH worker worker-worker", OK),
        ("GET k", NIL),
    ] {
        assert_eq!(client.say(asked), answered, "{asked}");
    }
}

#[test]
fn all_sessions_of_a_table_end_or_of_all_tables() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    // Of one slot more than a page has, and many more.
    let count = 2_500;
    for number in 0..count {
        let tag = if number % 2 == 0 { "{one}" } else { "" };
        client.send(&request(&["SET", &format!("{tag}{number}"), "v"]));
        if number % 100 == 99 {
            (0..100).for_each(|_| assert_eq!(client.answer(), OK));
        }
    }
    client.say("HSET map a 1");
    assert_eq!(client.say("SELECT 1"), OK);
    assert_eq!(client.say("SET there v"), OK);
    assert_eq!(client.say("SELECT 0"), OK);
    assert_eq!(client.say("DBSIZE"), format!(":{}\r\n", count + 1));
    // Others go on meanwhile.
    client.send(&request(&["FLUSHDB", "ASYNC"]));
    assert_eq!(other.say("PING"), "+PONG\r\n");
    let stream = client.stream.get_ref();
    stream.set_nonblocking(true).expect("it can be asked");
    assert!(stream.peek(&mut [0]).is_err(), "nobody was answered before all was done");
    stream.set_nonblocking(false).expect("it can be waited for");
    assert_eq!(client.answer(), OK);
    assert_eq!(other.say("DBSIZE"), ":0\r\n");
    assert_eq!(other.say("SELECT 1"), OK);
    assert_eq!(other.say("GET there"), bulk("v"));
    assert_eq!(other.say("SELECT 0"), OK);
    // They have ended, as by DEL: nothing comes back late. Who ended them may begin anew.
    let last = format!("{}", count - 1);
    let ended = place.run(&["get", &last, "--node", &node.addr]);
    assert!(ended.fails(3).contains("ended"));
    assert!(other.ask(&["SET", &last, "late"]).starts_with(LATE));
    assert_eq!(client.say("SET {one}0 anew"), OK);
    assert_eq!(client.say("HSET map b 2"), ":1\r\n");
    assert_eq!(client.say("GET map"), WRONG_TYPE);
    // Unless it has met another's session there since.
    assert_eq!(other.say("SET {one}2 theirs NX"), OK);
    assert_eq!(client.say("GET {one}2"), bulk("theirs"));
    assert_eq!(other.say("DEL {one}2"), ":1\r\n");
    assert!(client.say("SET {one}2 mine").starts_with(LATE));
    assert_eq!(client.say("FLUSHALL"), OK);
    assert_eq!(client.say("DBSIZE"), ":0\r\n");
    assert_eq!(client.say("SELECT 1"), OK);
    assert_eq!(client.say("DBSIZE"), ":0\r\n");
    assert_eq!(client.say("SET there again"), OK);
    assert_eq!(client.say("FLUSHDB SYNC"), OK);
    assert_eq!(client.say("GET there"), NIL);
    assert_eq!(client.say("FLUSHDB NOW"), "-ERR syntax error\r\n");
    // It takes more than a step, which a transaction has.
    assert_eq!(client.say("MULTI"), OK);
    assert_eq!(client.say("FLUSHDB"), "-ERR Command not allowed inside a transaction\r\n");
    assert!(client.say("EXEC").starts_with("-EXECABORT"));
}

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn all_sessions_of_a_mesh_end_through_any_node() {
    let place = Place::new();
    let password = place.secret("password", "correct horse\n");
    let operator = place.secret("operator", "ops-ops-ops\n");
    let operator = format!("operator={operator}");
    let flags = ["--redis-listen", "127.0.0.1:0", "--redis-password-file", &password];
    let flags = [&flags[..], &["--redis-password-files", &operator]].concat();
    let nodes = doors(&place, "n1", &["n2", "n3"], &flags);
    let mut clients: Vec<Tcp> = nodes.iter().map(Tcp::of).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&["AUTH", "correct horse"]), OK);
    }
    for number in 0..300 {
        let key = format!("sess:{number}");
        assert_eq!(clients[number % 3].ask(&["SET", &key, "v", "EX", "1000"]), OK);
    }
    assert_eq!(clients[0].say("DBSIZE"), ":300\r\n");
    let mut last = Tcp::of(&nodes[2]);
    assert_eq!(last.ask(&["AUTH", "operator", "ops-ops-ops"]), OK);
    assert_eq!(last.say("FLUSHALL"), OK);
    for client in &mut clients {
        assert_eq!(client.say("DBSIZE"), ":0\r\n");
        assert!(client.say("SET sess:7 late EX 1000").starts_with(LATE));
    }
    // Again, where there is nothing to end.
    assert_eq!(last.say("FLUSHALL"), OK);
    assert_eq!(clients[1].say("SET sess:7 new NX"), OK);
    assert_eq!(clients[1].say("GET sess:7"), bulk("new"));
}
