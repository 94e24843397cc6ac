//! The keys of a real Redis, as sessions.

use super::*;

struct World {
    place: Place,
    node: Node,
    real: RealRedis,
    theirs: Client<UnixStream>,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let node = door(&place, "");
        let real = RealRedis::start(&place);
        let theirs = eventually("a real Redis", || Client::at(&real.socket));
        Self { place, node, real, theirs }
    }

    fn import(&self, more: &[&str]) -> crate::Ran {
        let from = format!("redis+unix://{}", self.real.socket);
        let args = ["import", "--from", &from, "--node", &self.node.addr, "--json"];
        self.place.run(&[&args[..], more].concat())
    }

    fn counts(&self, more: &[&str], code: i32) -> serde_json::Value {
        let ran = self.import(more);
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).expect("a document")
    }
}

#[test]
fn what_a_redis_holds_becomes_sessions_with_its_deadlines() {
    let mut world = World::new();
    let World { theirs, node, .. } = &mut world;
    let long = "x".repeat(70_000);
    theirs.say("SET plain value");
    theirs.say("SET brief value EX 1000");
    theirs.say("HSET hash user alice cart 3");
    theirs.say("EXPIRE hash 2000");
    theirs.ask(&["SET", "empty", ""]);
    theirs.ask(&["SET", "odd key\r\n", "odd\0value"]);
    for key in ["here", "ended"] {
        theirs.say(&format!("SET {key} theirs"));
    }
    for request in [&["RPUSH", "list", "x"][..], &["SET", "long", &long]] {
        theirs.ask(request);
    }
    theirs.say("SADD set m n");
    theirs.say("ZADD scores 2.5 m inf n");
    theirs.ask(&["SET", &"k".repeat(256), "x"]);
    let mut ours = Tcp::of(node);
    ours.say("SET here ours");
    ours.say("SET ended ours");
    ours.say("DEL ended");

    // What could not be imported is told of, and the rest is done.
    let counts = world.counts(&[], 5);
    assert_eq!((&counts["seen"], &counts["imported"]), (&12.into(), &7.into()), "{counts}");
    assert_eq!((&counts["skipped_live"], &counts["skipped_ended"]), (&1.into(), &1.into()));
    assert_eq!((&counts["other_types"], &counts["refused"]), (&1.into(), &2.into()), "{counts}");
    for (asked, answered) in [
        ("GET plain", bulk("value")),
        ("TTL plain", ":-1\r\n".to_owned()),
        ("GET brief", bulk("value")),
        ("HGET hash user", bulk("alice")),
        ("HLEN hash", ":2\r\n".to_owned()),
        ("GET empty", bulk("")),
        ("GET here", bulk("ours")),
        ("SMEMBERS set", format!("*2\r\n{}{}", bulk("m"), bulk("n"))),
        ("ZSCORE scores m", bulk("2.5")),
        ("ZCOUNT scores inf inf", ":1\r\n".to_owned()),
        ("EXISTS ended list long", ":0\r\n".to_owned()),
    ] {
        assert_eq!(ours.say(asked), answered, "{asked}");
    }
    assert_eq!(ours.ask(&["GET", "odd key\r\n"]), bulk("odd\0value"));
    for (key, most) in [("brief", 1_000), ("hash", 2_000)] {
        let left: i64 = ours.ask(&["TTL", key]).trim()[1..].parse().expect("a number");
        assert!((most - 200..=most).contains(&left), "{key}: {left}");
    }
    let counts = world.counts(&["--match", "[pb]*"], 0);
    assert_eq!((&counts["seen"], &counts["skipped_live"]), (&2.into(), &2.into()), "{counts}");
}

#[test]
fn an_import_goes_on_where_another_one_was() {
    let mut world = World::new();
    for number in 0..1_000 {
        world.theirs.say(&format!("SET key:{number} {number}"));
    }
    // As an import leaves it that came so far and was killed.
    let scanned = world.theirs.say("SCAN 0 COUNT 256");
    let cursor = scanned.split("\r\n").nth(2).expect("a cursor").to_owned();
    let first = scanned.matches("key:").count();
    assert!(cursor != "0" && first > 0, "{scanned}");
    let from = format!("{}/0", world.real.socket);
    let info = world.theirs.say("INFO server");
    let run =
        info.split("run_id:").nth(1).and_then(|rest| rest.get(..40)).expect("a run").to_owned();
    let note = |from: &str, run: &str| {
        let counts = format!(
            "{{\"seen\":{first},\"imported\":{first},\"live\":0,\"ended\":0,\"gone\":0,\"other_types\":0,\"refused\":0}}"
        );
        format!(
            "{{\"from\":\"{from}\",\"run\":\"{run}\",\"pattern\":null,\"table\":\"sessions\",\"cursor\":{cursor},\"counts\":{counts}}}"
        )
    };
    let state = world.place.write("state", note("elsewhere:6379/0", &run));
    let told = world.import(&["--state", &state]).fails(2);
    assert!(told.contains("it is of an import from elsewhere:6379/0"), "{told}");
    world.place.write("state", "x");
    world.import(&["--state", &state]).fails(2);
    world.place.write("state", note(&from, &run));
    world.import(&["--state", &state, "--match", "k*"]).fails(2);
    let counts = world.counts(&["--state", &state], 0);
    assert_eq!((&counts["seen"], &counts["imported"]), (&1_000.into(), &1_000.into()), "{counts}");
    assert_eq!(Tcp::of(&world.node).say("DBSIZE"), format!(":{}\r\n", 1_000 - first));
    assert!(!std::path::Path::new(&state).exists(), "it is done");
    // The cursor of another run of the Redis means nothing: from the first key on, which is to say the rest.
    world.place.write("state", note(&from, "another"));
    let counts = world.counts(&["--state", &state], 0);
    assert_eq!(counts["imported"], first, "{counts}");
}

#[test]
fn a_redis_that_is_none_is_told_of() {
    let world = World::new();
    let import =
        |from: &str| world.place.run(&["import", "--from", from, "--node", &world.node.addr]);
    let told = import("http://127.0.0.1:1/").fails(2);
    assert!(told.contains("--from is no address of a Redis"), "{told}");
    let told = import("redis://:secret-of-tests@127.0.0.1:1/3").fails(6);
    assert!(told.contains("cannot connect to the Redis at 127.0.0.1:1/3"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}
