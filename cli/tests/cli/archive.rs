//! Sessions that leave a table, and are read back.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Node, Place, eventually};

/// A node with little room, whose sessions go to an archive when they have expired.
fn archiving(place: &Place) -> Node {
    let table = "[[table]]\nname = \"sessions\"\nidle = \"1s\"\noverflow = \"archive\"\n";
    let config = place.write("annulus.toml", format!("{table}memory = \"1MiB\"\n"));
    place.node("n1", &[], &["--config", &config])
}

fn counter(place: &Place, node: &Node, name: &str) -> u64 {
    let metrics = place.run(&["metrics", "--socket", &node.socket]).ok();
    let line = metrics.lines().find(|line| line.contains(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_session_that_expired_is_read_back_and_one_that_ended_is_not() {
    let place = Place::new();
    let node = archiving(&place);
    let at = ["--socket", node.socket.as_str()];
    let run = |args: &[&str]| place.run(&[args, &at].concat());
    run(&["start", "secret-1", "--field", "cart=apples", "--owner", "ada"]).ok();
    run(&["start", "secret-2", "two"]).ok();
    run(&["start", "secret-3", "three"]).ok();
    run(&["start", "secret-ended", "gone"]).ok();
    run(&["end", "secret-ended"]).ok();
    // Those that have expired make room for others.
    let large = place.write("large", vec![b'x'; 60_000]);
    let file = place.path("n1/archive/sessions.00000001.jsonl");
    let mut begun = 0;
    let lines = eventually("three sessions in a file", || {
        let filler = format!("filler-{begun}");
        begun += 1;
        run(&["start", &filler, "--file", &large, "--owner", "filler", "--idle", "1h"]);
        let text = std::fs::read_to_string(&file).ok()?;
        (text.lines().count() >= 3).then_some(text)
    });
    run(&["end", "--owner", "filler"]).ok();
    assert!(lines.ends_with('\n') && !lines.contains("filler"), "{lines}");
    assert!(!lines.contains("secret-ended"), "{lines}");
    let permissions = |path: &str| std::fs::metadata(path).expect("it is there").permissions();
    assert_eq!(permissions(&file).mode() & 0o777, 0o600);
    assert_eq!(permissions(&place.path("n1/archive")).mode() & 0o777, 0o700);
    assert_eq!(counter(&place, &node, "sessions_archived"), 3);
    assert_eq!(counter(&place, &node, "overflow_lost"), 0);

    // What lives is left alone, and so is what has ended; what is no session is passed by.
    run(&["start", "secret-2", "another", "--idle", "1h"]).ok();
    run(&["start", "secret-3", "another"]).ok();
    run(&["end", "secret-3"]).ok();
    let ended = lines.lines().next().expect("a line");
    let ended = ["1", "2", "3"].iter().fold(ended.to_owned(), |line, number| {
        line.replace(&format!("secret-{number}"), "secret-ended")
    });
    let copy = format!("secret garbage\n{lines}{ended}\n{}", &lines[..60]);
    let copy = place.write("copy.jsonl", copy);

    let listed = place.run(&["archive", "list", &copy]);
    let messages = listed.stderr.clone();
    let table = listed.ok();
    assert_eq!(table.lines().count(), 1 + 4, "{table}");
    assert!(table.contains("expired") && table.contains("ada"), "{table}");
    assert!(!table.contains("secret") && !messages.contains("secret"), "{table}{messages}");
    for number in [1, 6] {
        assert!(messages.contains(&format!("{copy}:{number}: no JSON object")), "{messages}");
    }
    let documents = place.run(&["archive", "list", &copy, "--json"]).ok();
    assert!(!documents.contains("secret") && !documents.contains("apples"), "{documents}");
    let first: Value =
        serde_json::from_str(documents.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["table"], &first["why"]), (&"sessions".into(), &"expired".into()));

    run(&["archive", "restore", &copy]).fails(2);
    run(&["archive", "restore", &file, "--key", "secret-0"]).fails(3);
    run(&["archive", "restore", &place.path("none"), "--all"]).fails(1);
    let restored = run(&["archive", "restore", &copy, "--all", "--json"]).json();
    assert_eq!(restored["restored"], 1, "{restored}");
    assert_eq!(restored["skipped_live"], 1, "{restored}");
    assert_eq!(restored["skipped_ended"], 2, "{restored}");
    assert_eq!(restored["unreadable_lines"], 2, "{restored}");
    assert_eq!(run(&["get", "secret-2"]).ok(), "another");
    run(&["get", "secret-3"]).fails(3);
    run(&["get", "secret-ended"]).fails(3);

    // It lives as long as the table says: a second.
    let session = eventually("a session that is used in time", || {
        run(&["archive", "restore", &file, "--key", "secret-1"]).ok();
        let used = run(&["set", "secret-1", "--idle", "1h"]);
        (used.code == 0).then(|| run(&["get", "secret-1", "--json"]).json())
    });
    assert_eq!(session["fields"]["cart"], "apples");
    assert_eq!(session["owner"], "ada");
}

#[test]
fn of_one_session_the_latest_is_read_back() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let line = |value: &str, birth: u64, version: u64| {
        format!(
            r#"{{"table":"sessions","key":{{"base64":"/2s="}},"why":"evicted","owner":"","replicas":0,"birth":"{birth}.0@0000000000a1","version":"{version}.0@0000000000a1","idle_ms":0,"touched_ms":1,"deadline_ms":0,"value":"{value}"}}"#
        )
    };
    let lines = [line("one", 5, 6), line("two", 5, 8), line("three", 5, 7), line("four", 4, 9)];
    let other = line("other", 9, 9).replace("sessions", "carts");
    let files = [place.write("a", lines[..2].join("\n")), place.write("b", lines[2..].join("\n"))];
    let other = place.write("c", other);
    let args = ["archive", "restore", &files[1], &files[0], &other, "--all", "--json"];
    let restored = place.run(&[&args[..], &["--socket", &node.socket]].concat()).json();
    assert_eq!(restored["restored"], 1, "{restored}");
    assert_eq!(restored["of_other_tables"], 1, "{restored}");
    let listed = place.run(&["sessions", "--keys", "--json", "--socket", &node.socket]).json();
    assert_eq!(listed["sessions"][0]["key"]["base64"], "/2s=", "{listed}");
    let mut get = place.command(&["get"]);
    let key = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xffk");
    let got = get.arg(key).args(["--socket", &node.socket]).output().expect("it runs");
    assert_eq!(got.stdout, b"two");
}
