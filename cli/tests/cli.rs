//! The command from outside: real processes, real nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

#[path = "cli/archive.rs"]
mod archive;
#[path = "cli/near.rs"]
mod near;
#[path = "cli/owner_limit.rs"]
mod owner_limit;
#[path = "cli/redis.rs"]
mod redis;
#[path = "cli/redis_cluster.rs"]
mod redis_cluster;
#[path = "cli/redis_near.rs"]
mod redis_near;
#[path = "cli/rings.rs"]
mod rings;
#[path = "cli/rolling.rs"]
mod rolling;
#[path = "cli/top.rs"]
mod top;

/// How long to wait for what must happen: far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for one test's nodes and files, and commands that know nothing of the host.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// In the memory of the host, so that what a segment takes is what it has reserved.
    fn in_memory() -> Self {
        Self { dir: tempfile::tempdir_in("/dev/shm").expect("a directory in memory") }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A file that this user alone may read.
    fn secret(&self, name: &str, text: &str) -> String {
        let path = self.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
        command.args(args).env_clear().env("HOME", self.dir.path());
        command.env("ANNULUS_CONFIG", "/dev/null").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("it runs"))
    }

    /// Starts a node, and waits until it is ready.
    fn node(&self, name: &str, seeds: &[&str], more: &[&str]) -> Node {
        self.node_at(name, "127.0.0.1:0", seeds, more)
    }

    /// Starts a node at an address, and waits until it is ready.
    fn node_at(&self, name: &str, listen: &str, seeds: &[&str], more: &[&str]) -> Node {
        let dir = self.dir.path().join(name);
        let shm = dir.join("shm");
        std::fs::create_dir_all(&shm).expect("made");
        let socket = dir.join("s");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let mut child = self
            .command(&["node", "--listen", listen, "--name", name, "--print-ready"])
            .args(["--data-dir", &text(&dir), "--shm-dir", &text(&shm), "--socket", &text(&socket)])
            .args(["--seeds", &seeds.join(","), "--log", "warn"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it is read");
        let mut node = Node {
            child,
            socket: text(&socket),
            addr: String::new(),
            id: String::new(),
            redis: None,
        };
        if line.is_empty() {
            let (status, stderr) = node.finish();
            panic!("the node did not get ready: {status}\n{stderr}");
        }
        let ready: Value = serde_json::from_str(&line).expect("a line of JSON");
        node.addr = ready["addr"].as_str().expect("an address").to_owned();
        node.id = ready["node"].as_str().expect("an id").to_owned();
        node.redis = ready["redis"][0].as_str().map(str::to_owned);
        assert_eq!(ready["socket"], node.socket.as_str());
        assert!(ready["incarnation"].as_u64() >= Some(1), "{ready}");
        node
    }

    /// Three nodes that agree and are in sync.
    fn cluster(&self) -> [Node; 3] {
        let first = self.node("n1", &[], &[]);
        let seeds = [first.addr.clone()];
        let seeds = seeds.each_ref().map(String::as_str);
        let nodes = [self.node("n2", &seeds, &[]), self.node("n3", &seeds, &[])];
        let [second, third] = nodes;
        let nodes = [first, second, third];
        eventually("three nodes that agree", || {
            let ran = self.run(&["status", "--all", "--json", "--node", &nodes[0].addr]);
            let document: Value = serde_json::from_str(&ran.stdout).ok()?;
            let agreed = document["nodes"].as_array()?.iter().filter(|node| {
                node["agreeing_members"] == 3
                    && node["active_members"] == 3
                    && node["member"]["status"] == "up"
                    && node["tables"][0]["slots_unsynced"] == 0
            });
            (agreed.count() == 3).then_some(())
        });
        nodes
    }
}

/// Nodes `n1`, `n2`, … that agree and are in sync, whom `place` starts.
fn nodes_of(place: &Place, count: usize) -> Vec<Node> {
    let mut nodes = vec![place.node("n1", &[], &[])];
    let seed = nodes[0].addr.clone();
    for number in 2..=count {
        nodes.push(place.node(&format!("n{number}"), &[&seed], &[]));
    }
    in_sync(place, &nodes[0].addr, count);
    nodes
}

/// Waits until so many nodes agree and are in sync.
fn in_sync(place: &Place, at: &str, count: usize) {
    eventually("nodes that agree", || {
        let ran = place.run(&["status", "--all", "--json", "--node", at]);
        let document: Value = serde_json::from_str(&ran.stdout).ok()?;
        let agreed = document["nodes"].as_array()?.iter().filter(|node| {
            node["agreeing_members"] == count
                && node["active_members"] == count
                && node["member"]["status"] == "up"
                && node["tables"][0]["slots_unsynced"] == 0
        });
        (agreed.count() == count).then_some(())
    });
}

struct Node {
    child: Child,
    addr: String,
    socket: String,
    id: String,
    /// Where clients of Redis find it, over TCP.
    redis: Option<String>,
}

impl Node {
    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    fn finish(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("it ends");
        let mut text = String::new();
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut text).expect("it is read");
        (status, text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    fn json(self) -> Value {
        let text = self.ok();
        assert_eq!(text.lines().count(), 1, "one document in a line: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.starts_with("annulus: ") || self.stderr.starts_with("error: "));
        self.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let code = output.status.code().expect("no signal ended it");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fits_80_columns(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn what_init_writes_is_a_right_configuration() {
    let place = Place::new();
    let file = place.path("etc/annulus.toml");
    place.run(&["init", &file]).ok();
    assert!(place.run(&["init", &file]).fails(1).contains("--force replaces it"));
    place.run(&["init", &file, "--force"]).ok();
    let written = std::fs::read_to_string(&file).expect("it is there");
    assert_eq!(place.run(&["init", "-"]).ok(), written);

    let checked = place.run(&["config", "check", "--config", &file, "--weight", "7", "--json"]);
    let checked = checked.json();
    assert_eq!(checked["file"], file.as_str());
    let settings = checked["settings"].as_array().expect("a list");
    let row = |key: &str| settings.iter().find(|row| row["key"] == key).expect("its row");
    assert_eq!(row("weight")["value"], "7");
    assert_eq!(row("weight")["from"], "--weight");
    assert_eq!(row("cluster")["from"], "default");
    assert_eq!(row("table.sessions.memory")["value"], "8MiB");
    let text = place.run(&["config", "check", "--config", &file]).ok();
    assert!(text.lines().any(|line| line.starts_with("weight ")), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_with_all_that_is_wrong() {
    let place = Place::new();
    let file = place.write("a.toml", "cluster = \"c\"\ncolour = 1\nstop_timeout = 5\n");
    for command in [&["config", "check"][..], &["node"]] {
        let args = [command, &["--config", &file, "--listen", "0.0.0.0:1"]].concat();
        let stderr = place.run(&args).fails(2);
        assert!(stderr.contains(&format!("{file}:2: unknown key `colour`")), "{stderr}");
        assert!(stderr.contains(&format!("{file}:3: stop_timeout = 5")), "{stderr}");
        assert!(stderr.contains("--listen: listen = \"0.0.0.0:1\": a node never"), "{stderr}");
    }
    let stderr = place.run(&["config", "check", "--log", "annulus=loud"]).fails(2);
    assert!(stderr.contains("log = \"annulus=loud\""), "{stderr}");
    let missing = place.path("no.toml");
    let stderr = place.run(&["config", "check", "--config", &missing]).fails(2);
    assert!(stderr.contains("no.toml: cannot read"), "{stderr}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]).ok();
        assert!(script.contains("annulus") && script.contains("explain"), "{shell}");
    }
    let page = place.run(&["man"]).ok();
    assert!(page.contains(".TH annulus 1") || page.contains(".TH ANNULUS 1"), "{page}");
    assert!(page.contains("no such session"), "the exit codes: {page}");
    let dir = place.path("man1");
    place.run(&["man", "--out", &dir]).ok();
    for page in ["annulus.1", "annulus-node.1", "annulus-config-check.1", "annulus-start.1"] {
        let text = std::fs::read_to_string(Path::new(&dir).join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
}

#[test]
fn wrong_use_has_its_code_and_help_has_none() {
    let place = Place::new();
    place.run(&["nosuch"]).fails(2);
    place.run(&["start", "k"]).fails(2);
    assert!(place.run(&["--version"]).ok().starts_with("annulus "));
    assert!(place.run(&["help", "start"]).ok().contains("--lifetime"));
}

#[test]
fn without_a_node_there_is_a_code_of_its_own() {
    let place = Place::new();
    // Nothing listens at port 1.
    let stderr = place.run(&["members", "--node", "127.0.0.1:1", "--timeout", "2s"]).fails(6);
    assert!(stderr.contains("no node could be reached: 127.0.0.1:1: "), "{stderr}");
    let socket = place.path("none");
    let stderr = place.run(&["get", "k", "--socket", &socket]).fails(6);
    assert!(stderr.contains(&socket), "{stderr}");
}

#[test]
fn who_stops_reading_is_not_told_off() {
    let place = Place::new();
    let mut child = place
        .command(&["man"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_session_begins_changes_and_ends() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let at = ["--node", node.addr.as_str()];
    let run = |args: &[&str]| place.run(&[args, &at].concat());

    run(&["get", "k1"]).fails(3);
    run(&["start", "k1", "value", "--owner", "ada", "--idle", "30m"]).ok();
    assert_eq!(run(&["get", "k1"]).ok(), "value");
    let read = run(&["get", "k1", "--json"]).json();
    assert_eq!(read["value"], "value");
    let idle_ms = read["deadline_ms"].as_u64().expect("a deadline")
        - read["touched_ms"].as_u64().expect("a time");
    assert_eq!(idle_ms, 1_800_000);
    assert!(read["birth"].as_str().expect("a version").ends_with(&node.id), "{read}");

    let done = run(&["set", "k1", "other", "--json"]).json();
    assert_eq!((&done["held_by"], &done["homes"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(run(&["get", "k1"]).ok(), "other");
    run(&["touch", "k1"]).ok();
    run(&["set", "k1", "--idle", "never", "--lifetime", "1h"]).ok();
    let read = run(&["get", "k1", "--json"]).json();
    assert!(read["deadline_ms"].as_u64().expect("a deadline") > 0);

    let file = place.write("value", b"\x00\xffbytes");
    run(&["start", "k2", "--file", &file]).ok();
    let got = place.command(&["get", "k2", "--node", &node.addr]).output().expect("it runs");
    assert_eq!(got.stdout, b"\x00\xffbytes");
    assert_eq!(run(&["get", "k2", "--json"]).json()["value"]["base64"], "AP9ieXRlcw==");

    let mut piped = place
        .command(&["start", "k3", "-", "--node", &node.addr])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    piped.stdin.take().expect("it is piped").write_all(b"from a pipe").expect("written");
    Ran::from(piped.wait_with_output().expect("it ends")).ok();
    assert_eq!(run(&["get", "k3"]).ok(), "from a pipe");

    run(&["end", "k1"]).ok();
    assert!(run(&["get", "k1"]).fails(3).contains("ended"));
    assert!(run(&["set", "k1", "late"]).fails(3).contains("ended"));
    run(&["touch", "nobody"]).fails(3);
}

#[test]
fn a_node_lets_in_whom_it_is_told_to() {
    let place = Place::new();
    let node = place.node("n1", &[], &["--socket-mode", "660", "--local-roles", "default=worker"]);
    let mode = std::fs::metadata(&node.socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // Its own user may do everything.
    place.run(&["start", "k", "v", "--socket", &node.socket]).ok();
    place.run(&["end", "k", "--socket", &node.socket]).ok();
    let default = place.node("n2", &[], &[]);
    let mode = std::fs::metadata(&default.socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_fields_of_a_map_change_one_by_one() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let at = ["--node", node.addr.as_str()];
    let run = |args: &[&str]| place.run(&[args, &at].concat());

    run(&["start", "m", "--field", "user=ada", "--field", "cart=3", "--field", "note=a=b"]).ok();
    assert_eq!(run(&["get", "m"]).ok(), "cart=3\nnote=a=b\nuser=ada\n");
    run(&["set", "m", "--field", "cart=4", "--delete", "note"]).ok();
    assert_eq!(run(&["get", "m", "--field", "cart"]).ok(), "4");
    let read = run(&["get", "m", "--json"]).json();
    assert_eq!(read["fields"], serde_json::json!({ "cart": "4", "user": "ada" }));
    run(&["get", "m", "--field", "note"]).fails(3);
    run(&["set", "m", "--field", "nonsense"]).fails(2);
    run(&["set", "m", "--field", "a=1", "--delete", "a"]).fails(2);
}

#[test]
fn what_a_node_refuses_has_its_code() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let at = ["--node", node.addr.as_str()];
    let run = |args: &[&str]| place.run(&[args, &at].concat());

    let large = place.write("large", vec![b'x'; (64 << 10) + 1]);
    assert!(run(&["start", "k", "--file", &large]).fails(5).contains("65537"));
    let huge = place.write("huge", vec![b'x'; (1 << 20) + 1]);
    assert!(run(&["start", "k", "--file", &huge]).fails(5).contains("1 MiB"));
    run(&["start", "k", "v", "--table", "nosuch"]).fails(5);
    assert!(run(&["start", "", "v"]).fails(2).contains("empty"));
    run(&["start", &"k".repeat(256), "v"]).fails(2);
    let stderr = run(&["get", "k", "--cluster", "other"]).fails(5);
    assert!(stderr.contains("another cluster"), "{stderr}");
}

#[test]
fn shared_memory_answers_on_its_host() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let run = |args: &[&str]| place.run(&[args, &["--socket", &node.socket]].concat());

    run(&["start", "k", "v"]).ok();
    run(&["start", "m", "--field", "a=1"]).ok();
    eventually("a node that vouches for its memory", || {
        (run(&["get", "k", "--local"]).code == 0).then_some(())
    });
    assert_eq!(run(&["get", "k", "--local"]).ok(), "v");
    assert_eq!(run(&["get", "m", "--local", "--field", "a"]).ok(), "1");
    assert_eq!(run(&["get", "k", "--json"]).json()["read_from"], "shared_memory");
    assert!(run(&["get", "none", "--local"]).fails(6).contains("without --local"));
    let listed = run(&["sessions", "--local", "--keys", "--json"]).json();
    let mut keys: Vec<&str> = listed["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|session| session["key"].as_str().expect("a key"))
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, ["k", "m"]);
}

#[test]
fn three_nodes_tell_of_themselves() {
    let place = Place::new();
    let nodes = place.cluster();
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[1].addr]].concat());

    let status = run(&["status", "--json"]).json();
    assert_eq!(status["member"]["id"], nodes[1].id.as_str());
    assert_eq!(status["tables"][0]["name"], "sessions");
    assert!(status["counters"].is_object());
    let text = run(&["status"]).ok();
    assert!(text.contains("3 of 3 active members agree"), "{text}");
    fits_80_columns(&text);
    let text = run(&["status", "--all"]).ok();
    assert_eq!(text.lines().count(), 4, "{text}");
    fits_80_columns(&text);
    assert!(run(&["status", "--counters"]).ok().contains("COUNTER"));

    let members = run(&["members", "--json"]).json();
    let members = members["members"].as_array().expect("a list");
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["status"] == "up"), "{members:?}");
    fits_80_columns(&run(&["members"]).ok());

    // Each of two others was pinged by now, or is within a second.
    let peers = eventually("both round trips to be known", || {
        let peers = run(&["rtt", "--json"]).json();
        let measured = |peer: &Value| peer["rtt"]["smoothed_us"].as_u64().is_some();
        peers["peers"].as_array().is_some_and(|all| all.iter().all(measured)).then_some(peers)
    });
    assert_eq!(peers["node"], nodes[1].id.as_str());
    let others = peers["peers"].as_array().expect("a list");
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|peer| peer["state"] == "alive"), "{others:?}");
    let text = run(&["rtt"]).ok();
    assert!(text.contains("alive") && text.contains("same"), "{text}");
    fits_80_columns(&text);
    let text = run(&["rtt", "--all"]).ok();
    assert_eq!(text.lines().count(), 4, "a row for each: {text}");
    fits_80_columns(&text);
    let text = run(&["status"]).ok();
    assert!(text.contains("2 alive, median round trip"), "{text}");
    assert!(text.contains("health    good"), "{text}");

    let metrics = run(&["metrics"]).ok();
    let is_there = |line: &str| metrics.lines().any(|each| each == line);
    for line in [
        "# TYPE annulus_members_agreeing gauge",
        "annulus_members_agreeing 3",
        "annulus_table_slots_home{table=\"sessions\"} 16384",
        "# TYPE annulus_mesh_local_health gauge",
        "annulus_mesh_local_health 0",
        "# TYPE annulus_mesh_packets_in_total counter",
    ] {
        assert!(is_there(line), "{line} is not in\n{metrics}");
    }
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    for other in [&nodes[0], &nodes[2]] {
        let state = format!("annulus_peer_state{{peer=\"{}\",name=\"n", other.id);
        let of_it = samples.clone().filter(|line| line.starts_with(&state));
        assert_eq!(of_it.filter(|line| line.ends_with("state=\"alive\"} 1")).count(), 1);
        let rtt = format!("annulus_peer_round_trip_seconds{{peer=\"{}\"", other.id);
        assert_eq!(samples.clone().filter(|line| line.starts_with(&rtt)).count(), 1, "{metrics}");
    }
    let counters = run(&["status", "--json"]).json();
    for name in counters["counters"].as_object().expect("by name").keys() {
        let is_it = |line: &&str| {
            let metric = line.split([' ', '{']).next().expect("a name");
            metric.trim_start_matches("annulus_").trim_end_matches("_total") == name
        };
        // Whatever was counted for the first time since is missing, and nothing else.
        assert!(samples.clone().any(|line| is_it(&line)) || !status["counters"][name].is_u64());
    }
    let json = run(&["metrics", "--json"]).json();
    let names: Vec<&str> =
        json.as_array().expect("a list").iter().filter_map(|m| m["name"].as_str()).collect();
    assert!(names.contains(&"annulus_peer_agrees"), "{names:?}");

    let ring = run(&["ring", "--json"]).json();
    assert_eq!((&ring["slots"], &ring["homes_per_slot"]), (&Value::from(16_384), &Value::from(3)));
    let sum = |part: &str| {
        let nodes = ring["nodes"].as_array().expect("a list").iter();
        nodes.map(|node| node[part].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!((sum("primary"), sum("slots")), (16_384, 3 * 16_384));
    assert_eq!(ring["view"], status["view"]);
    let text = run(&["ring"]).ok();
    assert!(text.contains("16384 slots with 3 homes each"), "{text}");
    fits_80_columns(&text);
}

#[test]
fn three_nodes_tell_where_a_session_is() {
    let place = Place::new();
    let nodes = place.cluster();
    let run =
        |node: usize, args: &[&str]| place.run(&[args, &["--node", &nodes[node].addr]].concat());

    run(0, &["start", "{user7}.s", "v"]).ok();
    assert_eq!(run(2, &["get", "{user7}.s"]).ok(), "v");
    let located = run(1, &["locate", "{user7}.s", "--json"]).json();
    assert_eq!(located["homes"].as_array().expect("a list").len(), 3);
    let same = run(2, &["locate", "user7", "--json"]).json();
    assert_eq!((&same["slot"], &same["homes"]), (&located["slot"], &located["homes"]));
    fits_80_columns(&run(1, &["locate", "user7"]).ok());

    let explained = eventually("three equal copies", || {
        let explained = run(1, &["explain", "{user7}.s", "--json"]).json();
        let homes = explained["homes"].as_array()?;
        let alive = homes.iter().all(|home| home["state"] == "alive");
        (alive && homes.len() == 3).then_some(explained)
    });
    assert_eq!(explained["slot"], located["slot"]);
    assert!(
        explained["homes"].as_array().expect("a list").iter().all(|home| {
            home["version"] == explained["homes"][0]["version"] && home["size"] == 1
        })
    );
    let text = run(1, &["explain", "{user7}.s"]).ok();
    assert!(text.contains("primary") && text.contains("alive"), "{text}");
    fits_80_columns(&text);

    run(1, &["end", "{user7}.s"]).ok();
    let text = run(0, &["explain", "{user7}.s"]).ok();
    assert!(text.contains("read    the session was ended"), "{text}");
    let text = run(0, &["explain", "never"]).ok();
    assert!(text.contains("read    no such session"), "{text}");
}

/// A client counts for half of what makes a suspect at most, and each command is one. It has no lane, so that what it
/// reads out of shared memory is not counted.
#[test]
fn a_hammered_session_is_slowed_down_released_and_ended() {
    let place = Place::new();
    let table = "[[table]]\nname = \"sessions\"\nburn = 20\nburn_half_life = \"1m\"\n";
    let config = place.write("suspects.toml", table);
    let more = ["--config", &config];
    let first = place.node("n1", &[], &more);
    let second = place.node("n2", &[&first.addr], &more);
    let third = place.node("n3", &[&first.addr], &more);
    let nodes = [first, second, third];
    in_sync(&place, &nodes[0].addr, 3);
    let run =
        |node: usize, args: &[&str]| place.run(&[args, &["--node", &nodes[node].addr]].concat());
    run(0, &["start", "secret", "v", "--owner", "ada"]).ok();
    run(0, &["start", "other", "v"]).ok();
    assert_eq!(run(0, &["suspects", "list", "--json"]).ok(), "");

    let told = eventually("somebody to be told to slow down", || {
        let ran = [0, 1, 2].map(|node| run(node, &["touch", "secret"]));
        ran.into_iter().find(|ran| ran.code == 8)
    });
    assert!(told.stderr.contains("slow down: ask again in "), "{}", told.stderr);
    let list = run(1, &["suspects", "list", "--json"]).json();
    assert_eq!(list["owner"], "ada");
    assert!(list["left_ms"].as_u64() > Some(30_000), "{list}");
    let name = list["name"].as_str().expect("a name").to_owned();
    for (number, node) in nodes.iter().enumerate() {
        run(number, &["get", "secret"]).fails(8);
        run(number, &["set", "secret", "w"]).fails(8);
        run(number, &["get", "other"]).ok();
        // All three are homes, and have it in their memory.
        place.run(&["get", "secret", "--local", "--socket", &node.socket]).fails(8);
    }
    let text = run(2, &["suspects", "list"]).ok();
    assert!(text.contains(&name) && !text.contains("secret"), "{text}");
    fits_80_columns(&text);
    let watched = run(2, &["suspects", "watch", "--count", "1", "--json"]).json();
    assert_eq!((&watched["change"], &watched["name"]), (&"appeared".into(), &list["name"]));

    run(0, &["suspects", "release", &name]).ok();
    for node in 0..3 {
        eventually("it to be served again", || {
            (run(node, &["get", "secret"]).code == 0).then_some(())
        });
    }
    run(0, &["suspects", "release", &name]).fails(3);
    run(0, &["suspects", "end", "--key", "nosuch"]).fails(3);

    // Who is held for one may be ended as one: by its key, which a monitor may know.
    for number in 0..60 {
        run(number % 3, &["touch", "other"]);
    }
    eventually("the other one to be told", || (run(0, &["get", "other"]).code == 8).then_some(()));
    run(1, &["suspects", "end", "--key", "other"]).ok();
    run(2, &["get", "other"]).fails(3);
}

#[test]
fn an_owners_sessions_are_listed_and_ended_at_once_but_for_one() {
    let place = Place::new();
    let [first, second, third] = place.cluster();
    let nodes = [&first, &second, &third];
    let addrs: Vec<String> = nodes.iter().map(|node| node.addr.clone()).collect();
    let run = |node: usize, args: &[&str]| place.run(&[args, &["--node", &addrs[node]]].concat());
    let keys: Vec<String> = (0..12).map(|number| format!("secret-{number:02}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let owner = ["ada", "bob"][number % 2];
        run(number % 3, &["start", key, "v", "--owner", owner]).ok();
    }
    run(0, &["start", "nobodys", "v"]).ok();
    let listed = |node: usize, owner: &str| -> Vec<String> {
        let list = run(node, &["sessions", "--owner", owner, "--keys", "--json"]).json();
        let sessions = list["sessions"].as_array().expect("a list").clone();
        let key = |it: &Value| it["key"].as_str().expect("a key").to_owned();
        sessions.iter().map(key).collect()
    };
    for node in 0..3 {
        let mut ada = listed(node, "ada");
        ada.sort();
        assert_eq!(ada, keys.iter().step_by(2).cloned().collect::<Vec<_>>());
        assert_eq!(listed(node, "bob").len(), 6);
        assert_eq!(listed(node, "eve"), Vec::<String>::new());
    }
    // The last used first, and no key without being asked.
    run(1, &["touch", "secret-04"]).ok();
    eventually("the last use to be known", || (listed(2, "ada")[0] == "secret-04").then_some(()));
    let text = run(0, &["sessions", "--owner", "ada", "--limit", "2"]);
    assert!(text.stderr.contains("6 in all"), "{}", text.stderr);
    assert!(!text.ok().contains("secret"));

    // The last used one is kept in any case.
    let ended = run(2, &["end", "--owner", "ada", "--keep", "4", "--json"]).json();
    assert_eq!(ended["ended"], 2);
    eventually("the ends to be known", || (listed(0, "ada").len() == 4).then_some(()));
    assert!(listed(0, "ada").contains(&"secret-04".to_owned()));
    run(0, &["end", "--owner", "ada", "--keep", "4", "--except", "secret-04"]).fails(2);
    run(0, &["end", "secret-04", "--keep", "4"]).fails(2);
    run(0, &["end", "secret-04", "--except", "secret-00"]).fails(2);

    let ended = run(1, &["end", "--owner", "ada", "--except", "secret-04", "--json"]).json();
    assert_eq!(ended["ended"], 3);
    for node in 0..3 {
        assert_eq!(listed(node, "ada"), ["secret-04"]);
        run(node, &["get", "secret-00"]).fails(3);
        run(node, &["get", "secret-04"]).ok();
        run(node, &["get", "secret-01"]).ok();
    }
    assert_eq!(run(2, &["end", "--owner", "eve", "--json"]).json()["ended"], 0);
    run(0, &["end", "--owner", ""]).fails(5);
    run(0, &["end", "nobodys", "--owner", "ada"]).fails(2);
    run(0, &["end"]).fails(2);

    // One of three homes that does not answer hides nothing; of two that do not, anything may be missing.
    drop(third);
    assert_eq!(listed(0, "bob").len(), 6);
    let ended = run(0, &["end", "--owner", "bob", "--json"]).json();
    assert_eq!(ended["ended"], 6);
    drop(second);
    let left = run(0, &["sessions", "--owner", "ada"]);
    assert_eq!(left.code, 4);
    assert!(left.stderr.contains("did not answer"), "{}", left.stderr);
}

#[test]
fn a_session_gets_another_key_and_ends_under_the_old_one() {
    let place = Place::new();
    let nodes = place.cluster();
    let run =
        |node: usize, args: &[&str]| place.run(&[args, &["--node", &nodes[node].addr]].concat());
    let lifetimes = ["--owner", "ada", "--idle", "20m", "--lifetime", "2h"];
    run(0, &[&["start", "guest-1", "a basket"][..], &lifetimes].concat()).ok();
    let before = run(0, &["get", "guest-1", "--json"]).json();
    let rotated = run(1, &["rotate", "guest-1", "ada-1", "--json"]).json();
    assert_eq!(rotated["old_has_ended"], true);
    for node in 0..3 {
        run(node, &["get", "guest-1"]).fails(3);
        run(node, &["set", "guest-1", "late"]).fails(3);
        let read = run(node, &["get", "ada-1", "--json"]).json();
        assert_eq!((&read["value"], &read["owner"]), (&before["value"], &before["owner"]));
        assert_eq!(read["birth"], rotated["birth"]);
        // Unused it lives as long from its last use, which was a moment ago.
        let (old, new) = (before["deadline_ms"].as_u64(), read["deadline_ms"].as_u64());
        assert!(old <= new && new <= old.map(|old| old + 60_000), "{old:?} {new:?}");
    }
    run(2, &["rotate", "guest-1", "ada-2"]).fails(3);
    run(2, &["rotate", "nosuch", "ada-2"]).fails(3);
    run(2, &["rotate", "ada-1", "ada-1"]).fails(5);
    run(2, &["get", "ada-2"]).fails(3);
}

#[test]
fn sessions_are_listed_once_page_by_page_and_without_their_keys() {
    let place = Place::new();
    let nodes = place.cluster();
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[0].addr]].concat());
    let keys: Vec<String> = (0..25).map(|n| format!("secret-{n:02}")).collect();
    for key in &keys {
        run(&["start", key, "v"]).ok();
    }
    run(&["end", "secret-24"]).ok();

    let mut listed = Vec::new();
    let mut cursor: Option<String> = None;
    let mut pages = 0;
    loop {
        let mut args = vec!["sessions", "--all", "--keys", "--limit", "10", "--json"];
        args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor.as_str()]));
        let page = run(&args).json();
        let sessions = page["sessions"].as_array().expect("a list");
        assert!(sessions.len() <= 10);
        listed.extend(sessions.iter().map(|s| s["key"].as_str().expect("a key").to_owned()));
        pages += 1;
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    listed.sort_unstable();
    assert_eq!(listed, keys[..24]);
    assert!(pages >= 3);

    let text = run(&["sessions", "--all"]).ok();
    assert_eq!(text.lines().count(), 25, "{text}");
    assert!(!text.contains("secret"), "{text}");
    fits_80_columns(&text);
    let one = run(&["sessions", "--limit", "5"]);
    assert!(one.stderr.contains("more follow: --cursor "), "{}", one.stderr);
    assert_eq!(one.stdout.lines().count(), 6, "{}", one.stdout);
    run(&["sessions", "--cursor", "nonsense"]).fails(2);
}

#[test]
fn a_session_moves_to_a_node_survives_its_restart_there_and_comes_back() {
    let place = Place::new();
    let mut nodes = nodes_of(&place, 5);
    let at = nodes[0].addr.clone();
    let run = |args: &[&str]| place.run(&[args, &["--node", &at]].concat());
    run(&["start", "cart", "one"]).ok();
    let located = run(&["locate", "cart", "--json"]).json();
    let homes = located["homes"].as_array().expect("a list");
    let is_home = |node: &Node| homes.iter().any(|home| home["id"] == node.id.as_str());
    // The node that the command talks to stays.
    let there = (1..5).find(|n| !is_home(&nodes[*n])).expect("two of five are no homes");
    let (name, id) = (format!("n{}", there + 1), nodes[there].id.clone());
    let text = run(&["migrate", "cart", "--to", &name]).ok();
    assert_eq!(text, format!("pinned to {name} ({id})\n"));

    let copy = |place: &Place, key: &str| {
        let explained = place.run(&["explain", key, "--json", "--node", &at]).json();
        assert_eq!(explained["pin"], id.as_str(), "{explained}");
        explained["extra"].as_array().expect("a list").first().cloned()
    };
    eventually("a copy at the node", || {
        copy(&place, "cart").filter(|copy| copy["state"] == "alive" && copy["node"] == id.as_str())
    });
    let text = run(&["explain", "cart"]).ok();
    assert!(text.contains(&format!("pin     node {id}")) && text.contains("pinned"), "{text}");
    fits_80_columns(&text);
    let read = place.run(&["get", "cart", "--json", "--node", &nodes[there].addr]).json();
    assert_eq!((&read["value"], &read["pin"]), (&Value::from("one"), &Value::from(id.as_str())));
    assert_eq!(read["read_from"]["node"], id.as_str());

    nodes[there].terminate();
    let (status, stderr) = nodes[there].finish();
    assert!(status.success(), "{stderr}");
    run(&["set", "cart", "two"]).ok();
    assert_eq!(run(&["get", "cart"]).ok(), "two");
    nodes[there] = place.node(&name, &[&at], &[]);
    assert_eq!(nodes[there].id, id, "it is the same node");
    in_sync(&place, &at, 5);
    eventually("the new value at the node", || {
        let explained = run(&["explain", "cart", "--json"]).json();
        let copy = copy(&place, "cart")?;
        let is_same = copy["version"] == explained["homes"][0]["version"];
        (copy["state"] == "alive" && is_same).then_some(())
    });
    let again = nodes[there].addr.clone();
    assert_eq!(place.run(&["get", "cart", "--node", &again]).ok(), "two");

    assert_eq!(run(&["migrate", "cart", "--undo"]).ok(), "pinned to no node\n");
    let read = run(&["get", "cart", "--json"]).json();
    assert_eq!(read["pin"], Value::Null);
    eventually("a node that has let go", || {
        let status = place.run(&["status", "--json", "--node", &again]).json();
        (status["counters"]["sessions_besides_homes"] == 0).then_some(())
    });
    assert_eq!(place.run(&["get", "cart", "--node", &again]).ok(), "two");
    run(&["end", "cart"]).ok();
    assert!(place.run(&["get", "cart", "--node", &again]).fails(3).contains("ended"));
}

#[test]
fn a_session_begins_where_it_is_told_to_or_not_at_all() {
    let place = Place::new();
    let nodes = nodes_of(&place, 5);
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[0].addr]].concat());
    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    let pin = |key: &str| {
        let read = run(&["get", key, "--json"]).json();
        read["pin"].as_str().expect("a node").to_owned()
    };
    run(&["start", "a", "v", "--pin", "n4"]).ok();
    assert_eq!(pin("a"), ids[3]);
    run(&["start", "b", "v", "--affinity", "memory"]).ok();
    assert!(ids.contains(&pin("b").as_str()));
    for what in ["cpu", "memory", "io", "network"] {
        let moved = run(&["migrate", "a", "--affinity", what, "--json"]).json();
        assert!(ids.contains(&moved["pin"].as_str().expect("a node")), "{moved}");
    }
    let many = run(&["start", "c", "v", "--replicas", "5", "--json"]).json();
    assert_eq!(many["homes"], 5);
    assert!(many["held_by"].as_u64() >= Some(3), "{many}");
    eventually("five copies", || {
        let explained = run(&["explain", "c", "--json"]).json();
        let homes = explained["homes"].as_array()?.iter();
        let copies = homes.chain(explained["extra"].as_array()?);
        (copies.filter(|copy| copy["state"] == "alive").count() == 5).then_some(())
    });

    assert!(run(&["start", "d", "v", "--pin", "nosuch"]).fails(2).contains("nosuch"));
    assert!(run(&["start", "d", "v", "--replicas", "2"]).fails(5).contains("table of its own"));
    run(&["start", "d", "v", "--replicas", "8"]).fails(2);
    run(&["start", "d", "v", "--affinity", "colour"]).fails(2);
    run(&["get", "d"]).fails(3);
    run(&["migrate", "a"]).fails(2);
    run(&["migrate", "a", "--to", "n1", "--undo"]).fails(2);
    run(&["migrate", "a", "--to", "nosuch"]).fails(2);
    run(&["migrate", "nobody", "--to", "n1"]).fails(3);
}

#[test]
fn a_node_is_evacuated_and_its_sessions_stay() {
    let place = Place::new();
    let nodes = nodes_of(&place, 4);
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[0].addr]].concat());
    let keys: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    for key in &keys {
        run(&["start", key, "value", "--pin", "n2"]).ok();
    }
    run(&["start", "other", "value", "--pin", "n3"]).ok();
    run(&["end", "s0"]).ok();
    let pin = |key: &str| run(&["get", key, "--json"]).json()["pin"].clone();
    let moved = run(&["evacuate", "n2", "--affinity", "cpu", "--rate", "1MiB", "--json"]).json();
    assert_eq!(moved["moved"], 19);
    let others = [0, 2, 3].map(|n| nodes[n].id.as_str());
    for key in &keys[1..] {
        let pin = pin(key);
        assert!(others.contains(&pin.as_str().expect("a node")), "{key}: {pin}");
    }
    assert_eq!(pin("other"), nodes[2].id.as_str());
    let to: Vec<String> = moved["to"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|node| node.as_str().expect("a node").to_owned())
        .collect();
    assert_eq!(to.len(), 2, "the better half of three");
    for node in &to {
        run(&["evacuate", node]).ok();
    }
    for key in &keys[1..] {
        assert_eq!(pin(key), Value::Null);
        assert_eq!(run(&["get", key]).ok(), "value");
    }
    assert_eq!(run(&["evacuate", "n2", "--json"]).json()["moved"], 0);
    run(&["evacuate", "nosuch"]).fails(2);
    run(&["evacuate", "n2", "--rate", "0"]).fails(2);
}

#[test]
fn what_a_weight_would_move_is_shown_and_then_moved() {
    let place = Place::new();
    let mut nodes = nodes_of(&place, 4);
    let at = nodes[0].addr.clone();
    let run = |args: &[&str]| place.run(&[args, &["--node", &at]].concat());
    for n in 0..30 {
        run(&["start", &format!("k{n}"), "a value of some bytes"]).ok();
    }
    let of = |document: &Value, name: &str, part: &str| {
        let nodes = document["nodes"].as_array().expect("a list");
        let node = nodes.iter().find(|node| node["name"] == name).expect("it is there");
        node[part].as_u64().expect("a count")
    };
    let slots = |name: &str| of(&run(&["ring", "--json"]).json(), name, "slots");
    let before = slots("n2");
    let planned = run(&["rebalance", "--dry-run", "--weight", "n2=20", "--json"]).json();
    assert_eq!(of(&planned, "n2", "slots_before"), before);
    let after = of(&planned, "n2", "slots_after");
    assert!(after < before / 2, "{planned}");
    assert_eq!(of(&planned, "n2", "slots_given"), before - after);
    assert!(of(&planned, "n2", "bytes_after") < of(&planned, "n2", "bytes_before"), "{planned}");
    let without = run(&["rebalance", "--dry-run", "--without", "n3", "--json"]).json();
    assert_eq!(of(&without, "n3", "slots_after"), 0);
    assert_eq!(of(&without, "n2", "slots_after"), 16_384, "three nodes for three homes");
    let zones = ["--zone", "n1=a", "--zone", "n2=a", "--zone", "n3=a"];
    let zoned = run(&[&["rebalance", "--dry-run"][..], &zones].concat()).ok();
    assert!(zoned.contains("copies of slots would move"), "{zoned}");
    fits_80_columns(&zoned);
    assert_eq!(slots("n2"), before, "nothing has moved");

    run(&["rebalance", "--weight", "n2=20"]).ok();
    let moved = || (slots("n2") == after).then_some(());
    eventually("the slots to move", moved);
    in_sync(&place, &at, 4);
    nodes[1].terminate();
    nodes[1].finish();
    nodes[1] = place.node("n2", &[&at], &[]);
    in_sync(&place, &at, 4);
    assert_eq!(slots("n2"), after, "over a restart");
    run(&["rebalance", "--weight", "n2=default"]).ok();
    eventually("the slots to come back", || (slots("n2") == before).then_some(()));
    for n in 0..30 {
        assert_eq!(run(&["get", &format!("k{n}")]).ok(), "a value of some bytes");
    }

    run(&["rebalance"]).fails(2);
    run(&["rebalance", "--dry-run"]).fails(2);
    run(&["rebalance", "--weight", "n2"]).fails(2);
    run(&["rebalance", "--weight", "n2=heavy"]).fails(2);
    run(&["rebalance", "--weight", "n2=65536"]).fails(2);
    run(&["rebalance", "--weight", "nosuch=5"]).fails(2);
    run(&["rebalance", "--without", "n3"]).fails(2);
    run(&["rebalance", "--dry-run", "--weight", "n2=default"]).fails(2);
}

#[test]
fn the_way_to_a_session_is_shown_and_watched() {
    let place = Place::new();
    let first = place.node("n1", &[], &[]);
    let run = |args: &[&str]| place.run(&[args, &["--node", &first.addr]].concat());
    let by_key = run(&["route", "k", "--json"]).json();
    assert_eq!(by_key["slot"], run(&["locate", "k", "--json"]).json()["slot"]);
    let by_slot = run(&["route", "--slot", &by_key["slot"].to_string(), "--json"]).json();
    assert_eq!(by_key, by_slot);
    assert_eq!(by_slot["homes"][0]["id"], first.id.as_str());
    let of = run(&["route", "--of", "n1"]).ok();
    assert!(of.contains("primary    0-16383") && of.contains("secondary  none"), "{of}");
    run(&["route"]).fails(2);
    run(&["route", "k", "--slot", "1"]).fails(2);
    run(&["route", "--slot", "16384"]).fails(2);
    run(&["route", "--of", "nosuch"]).fails(2);

    let mut watching = place
        .command(&["route", "k", "--watch", "--json", "--node", &first.addr])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("it goes on").expect("it is read");
        serde_json::from_str(&line).expect("a line of JSON")
    };
    assert_eq!(next()["homes"].as_array().expect("a list").len(), 1);
    let second = place.node("n2", &[&first.addr], &[]);
    loop {
        let homes = next()["homes"].clone();
        let homes = homes.as_array().expect("a list");
        if homes.len() == 2 {
            assert!(homes.iter().any(|home| home["id"] == second.id.as_str()));
            break;
        }
    }
    watching.kill().expect("it runs still");
    watching.wait().expect("it ends");
}

#[test]
fn a_node_is_safe_to_stop_only_while_the_others_can_do_without_it() {
    let place = Place::new();
    let [first, mut second, third] = place.cluster();
    let safe = |node: &Node, more: &[&str]| {
        place.run(&[&["safe-to-stop", "--json", "--node", &node.addr], more].concat())
    };
    let ran = safe(&first, &["--wait", "30s"]);
    assert_eq!(ran.json()["safe"], true);
    second.child.kill().expect("it runs");
    second.child.wait().expect("it ends");
    let ran = safe(&first, &[]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert!(document["reasons"].to_string().contains("n2"), "{document}");
    // Down it counts where a majority decides. Counted out it does not, and the next one may go.
    eventually("it is down", || safe(&first, &[]).stdout.contains("is down").then_some(()));
    place.run(&["remove", "n2", "--node", &first.addr]).ok();
    let ran = safe(&first, &["--wait", "60s"]);
    assert_eq!(ran.code, 0, "{}", ran.stdout);
    drop(third);
    let text = place.run(&["safe-to-stop", "--node", &first.addr]);
    assert_eq!(text.code, 7);
    assert!(text.stderr.contains("not safe to stop yet"), "{}", text.stderr);
}

#[test]
fn a_dead_member_is_counted_out_and_a_live_one_is_not() {
    let place = Place::new();
    let [first, second, third] = place.cluster();
    let run = |args: &[&str]| place.run(&[args, &["--node", &first.addr]].concat());
    let ran = run(&["remove", "n3"]);
    assert_eq!(ran.code, 5);
    assert!(ran.stderr.contains("is not down"), "{}", ran.stderr);
    assert_eq!(run(&["remove", "n7"]).code, 2);
    let gone = third.id.clone();
    drop(third);
    eventually("the dead one to be counted out", || {
        (run(&["remove", &gone]).code == 0).then_some(())
    });
    eventually("the others to hear of it", || {
        let ran = place.run(&["members", "--json", "--node", &second.addr]).json();
        let members = ran["members"].as_array()?.clone();
        members.iter().any(|it| it["id"] == gone.as_str() && it["status"] == "left").then_some(())
    });
}

#[test]
fn a_restarted_node_names_whom_it_did_not_meet_again_and_decides_once_they_are_counted_out() {
    let place = Place::new();
    let nodes = place.cluster();
    let gone = [nodes[1].id.clone(), nodes[2].id.clone()];
    drop(nodes);
    let first = place.node("n1", &[], &[]);
    let run = |args: &[&str]| place.run(&[args, &["--node", &first.addr]].concat());
    eventually("it serves alone", || {
        (run(&["status", "--json"]).json()["member"]["status"] == "up").then_some(())
    });
    let reasons = run(&["safe-to-stop", "--json"]).stdout;
    for (name, id) in ["n2", "n3"].iter().zip(&gone) {
        assert!(reasons.contains(&format!("nothing was heard of {name} ({id})")), "{reasons}");
    }
    assert!(run(&["metrics"]).ok().contains("annulus_mesh_peers_unmet 2"));
    let ran = run(&["remove", &gone[0]]);
    assert!(ran.code != 0 && ran.stderr.contains("--accept-loss"), "{}", ran.stderr);
    for id in &gone {
        let text = run(&["remove", id, "--accept-loss"]).ok();
        assert_eq!(text, format!("{id} is counted out\n"));
    }
    assert!(run(&["metrics"]).ok().contains("annulus_mesh_peers_unmet 0"));
    eventually("it decides", || {
        (run(&["start", "cart", "one", "--if-absent"]).code == 0).then_some(())
    });
    assert_eq!(run(&["get", "cart"]).ok(), "one");
}

#[test]
fn a_node_tells_what_happened_a_line_each() {
    let place = Place::new();
    let nodes = place.cluster();
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[0].addr]].concat());
    assert!(run(&["sync", "now"]).ok().contains("compares"));
    let text = run(&["events"]).ok();
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let numbers: Vec<u64> = events.iter().map(|it| it["number"].as_u64().expect("one")).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    let has = |name: &str| events.iter().any(|event| event["event"] == name);
    assert!(
        ["member", "view", "slots_taken_up", "synced", "ordered"].map(has) == [true; 5],
        "{text}"
    );
    let joined = |node: &Node| {
        let mut all = events.iter();
        all.any(|it| {
            it["event"] == "member" && it["node"] == node.id.as_str() && it["status"] == "up"
        })
    };
    assert!(joined(&nodes[1]) && joined(&nodes[2]), "{text}");
    let last = *numbers.last().expect("there are some");
    // Something may have happened since.
    let later = run(&["events", "--after", &last.to_string()]).ok();
    let later = later.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    assert!(later.into_iter().all(|it: Value| it["number"].as_u64() > Some(last)));
}

#[test]
fn a_member_that_does_not_answer_is_named() {
    let place = Place::new();
    let [first, second, third] = place.cluster();
    drop(third);
    let ran = place.run(&["status", "--all", "--json", "--node", &first.addr, "--timeout", "1s"]);
    // Until its death is known it is asked, in vain.
    assert!(ran.code == 4 || ran.code == 0, "{}", ran.stderr);
    if ran.code == 4 {
        let document: Value = serde_json::from_str(&ran.stdout).expect("a document");
        assert_eq!(document["silent"][0]["name"], "n3");
        assert!(ran.stderr.contains("1 of 3 active members did not answer"), "{}", ran.stderr);
    }
    eventually("its death to be known", || {
        let members = place.run(&["members", "--json", "--node", &second.addr]).json();
        let members = members["members"].as_array().expect("a list");
        members.iter().any(|m| m["name"] == "n3" && m["status"] == "down").then_some(())
    });
}

#[test]
fn a_node_stops_when_it_is_told_to() {
    let place = Place::new();
    let mut node = place.node("n1", &[], &[]);
    node.terminate();
    let (status, stderr) = node.finish();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains(&format!("node {} is ready at {}", node.id, node.addr)), "{stderr}");
}

#[test]
fn what_keeps_a_node_from_starting_is_said() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let dir = place.path("n2");
    let shm = place.path("shm");
    std::fs::create_dir_all(&shm).expect("made");
    let args = ["node", "--data-dir", &dir, "--shm-dir", &shm, "--listen", &node.addr];
    let stderr = place.run(&args).fails(1);
    assert!(stderr.contains(&node.addr) && stderr.contains("`listen`"), "{stderr}");
    let taken = place.path("n1");
    let args = ["node", "--data-dir", &taken, "--shm-dir", &shm, "--listen", "127.0.0.1:0"];
    let stderr = place.run(&args).fails(1);
    assert!(stderr.contains("data_dir"), "{stderr}");
}

/// Prints what it finds under each key that it is asked for, from one reader.
const PYTHON: &str = "
import sys
from annulus import Reader, Session
reader = Reader.table(*sys.argv[1:4])
for line in sys.stdin:
    answer = reader.get(line.strip().encode())
    print(answer.value if isinstance(answer, Session) else answer.name, flush=True)
";

/// A Python process that reads the shared memory of a node.
struct Python {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Python {
    fn start(shm: &str) -> Self {
        let capi = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("capi");
        let mut child = Command::new("python3")
            .args(["-B", "-c", PYTHON, "annulus", "sessions", shm])
            .env("PYTHONPATH", capi.join("python"))
            .env("ANNULUS_LIBRARY", library("libannulus.so"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs python3");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, answers }
    }

    fn get(&mut self, key: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{key}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    fn sees(&mut self, key: &str, expected: &str) {
        eventually("what Python should read", || (self.get(key) == expected).then_some(()));
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the libraries for other languages: cargo puts them beside the test.
/// Nodes with a keyring each, and who asks them with an operator's key.
struct Sealed {
    nodes: Vec<Node>,
    operator: String,
    names: Vec<String>,
}

impl Sealed {
    /// `count` nodes that agree, all with the same key of nodes, and keys of clients.
    fn start(place: &Place, count: usize) -> Self {
        let node = place.run(&["keys", "generate"]).ok();
        let role = |role| place.run(&["keys", "generate", "--role", role]).ok();
        let (operator, authority) = (role("operator"), role("authority"));
        let operator_file = place.secret("operator", &operator);
        place.secret("authority", &authority);
        let mut sealed = Self { nodes: Vec::new(), operator: operator_file, names: Vec::new() };
        for number in 1..=count {
            let name = format!("n{number}");
            let ring =
                place.secret(&format!("keyring{number}"), &(node.clone() + &operator + &authority));
            let seeds: Vec<&str> =
                sealed.nodes.iter().take(1).map(|node| node.addr.as_str()).collect();
            let node = place.node(&name, &seeds, &["--keyring", &ring]);
            sealed.nodes.push(node);
            sealed.names.push(name);
        }
        sealed.settle(place);
        sealed
    }

    fn settle(&self, place: &Place) {
        eventually("nodes that agree", || {
            let document = self.status(place)?;
            let count = self.nodes.len();
            let agreed = document["nodes"].as_array()?.iter().filter(|node| {
                node["agreeing_members"] == count
                    && node["active_members"] == count
                    && node["tables"][0]["slots_unsynced"] == 0
            });
            (agreed.count() == count).then_some(())
        });
    }

    /// How all nodes are, asked with the operator's key.
    fn status(&self, place: &Place) -> Option<Value> {
        let args = ["status", "--all", "--json", "--counters", "--node", &self.nodes[0].addr];
        let ran = place.run(&[&args[..], &["--key-file", &self.operator]].concat());
        serde_json::from_str(&ran.stdout).ok()
    }

    /// A counter of each node.
    fn counters(&self, place: &Place, name: &str) -> Vec<u64> {
        let document = self.status(place).expect("they answer");
        let nodes = document["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| node["counters"][name].as_u64().unwrap_or(0)).collect()
    }

    /// Has a node see to keys.
    fn keys(&self, place: &Place, at: usize, args: &[&str]) -> Ran {
        place.run(&[&["keys"], args, &["--socket", &self.nodes[at].socket]].concat())
    }

    /// Who uses which key, and how many each accepts.
    fn held(&self, place: &Place, at: usize) -> Vec<(String, usize)> {
        let document = self.keys(place, at, &["list", "--json"]).json();
        let nodes = document["nodes"].as_array().expect("nodes");
        let held = |node: &Value| {
            let count = node["keys"].as_array().expect("keys").len();
            (node["in_use"].as_str().expect("an id").to_owned(), count)
        };
        nodes.iter().map(held).collect()
    }
}

/// The id of a key, which is its last part.
fn id_of(key: &str) -> &str {
    key.trim().rsplit(':').next().expect("there is one")
}

/// Updates sessions again and again over the network and over local sockets until it is told to stop,
/// and counts what went well. Nothing may fail.
fn load(
    addrs: Vec<String>,
    sockets: Vec<String>,
    key: String,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<usize> {
    use annulus_client::{Change, Client, StartOptions, Value, Via};
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            let ways = [(Via::Tcp, addrs.clone()), (Via::Udp, addrs), (Via::Local, Vec::new())];
            for (way, (via, seeds)) in ways.into_iter().enumerate() {
                let builder = Client::builder().via(via).seeds(seeds).without_shared_memory();
                let builder = builder.local_socket(&sockets[way % sockets.len()]);
                let client =
                    builder.key(key.parse().expect("a key")).connect().await.expect("let in");
                for task in 0..4 {
                    let (client, stop) = (client.clone(), stop.clone());
                    tasks.spawn(async move {
                        let name = format!("{way}-{task}");
                        let value = Value::Bytes(b"first".to_vec());
                        client.start(&name, value, StartOptions::default()).await.expect("started");
                        let mut count = 0;
                        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                            let value = Value::Bytes(format!("{count}").into_bytes());
                            let updated = client.update(&name, None, Change::Value(value.clone()));
                            updated
                                .await
                                .unwrap_or_else(|error| panic!("{via:?}, {count}: {error}"));
                            let read = client.get(&name).await;
                            let read = read.unwrap_or_else(|error| panic!("{via:?}: {error}"));
                            assert_eq!(read.session.value, value);
                            count += 1;
                        }
                        count
                    });
                }
            }
            let mut count = 0;
            while let Some(done) = tasks.join_next().await {
                count += done.expect("nothing failed");
            }
            count
        })
    })
}

#[test]
fn keys_are_replaced_under_load_with_no_node_lost_and_no_request_failed() {
    let place = Place::new();
    let cluster = Sealed::start(&place, 3);
    let addrs = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    let sockets = cluster.nodes.iter().map(|node| node.socket.clone()).collect();
    let authority = std::fs::read_to_string(place.path("authority")).expect("it is there");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = load(addrs, sockets, authority, stop.clone());

    let before = std::fs::read_to_string(place.path("keyring3")).expect("it is there");
    let old = before.lines().next().expect("a key").to_owned();
    for round in 0..3 {
        let old = cluster.held(&place, 0)[0].0.clone();
        let new = place.run(&["keys", "generate"]).ok();
        let file = place.secret(&format!("new{round}"), &new);
        // Each step through another node.
        cluster.keys(&place, round, &["install", &file]).ok();
        assert_eq!(cluster.held(&place, 1), [(old.clone(), 4), (old.clone(), 4), (old.clone(), 4)]);
        cluster.keys(&place, (round + 1) % 3, &["use", id_of(&new)]).ok();
        let in_use = (id_of(&new).to_owned(), 4);
        assert_eq!(cluster.held(&place, 2), [in_use.clone(), in_use.clone(), in_use]);
        cluster.keys(&place, (round + 2) % 3, &["remove", &old]).ok();
        let only = (id_of(&new).to_owned(), 3);
        assert_eq!(cluster.held(&place, 0), [only.clone(), only.clone(), only]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let count = load.join().expect("no request failed");
    assert!(count > 100, "{count} updates");
    assert_eq!(cluster.counters(&place, "members_down"), [0, 0, 0]);
    assert_eq!(cluster.counters(&place, "failures_unavailable"), [0, 0, 0]);

    // The change is on disk, for this user alone, and the old key is refused.
    let after = std::fs::read_to_string(place.path("keyring3")).expect("it is there");
    assert!(!after.contains(&old) && after.contains("\nuse "), "a secret was printed");
    let mode = std::fs::metadata(place.path("keyring3")).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let ring = place.secret("keyring4", &before);
    let more = ["--keyring", &ring, "--join-timeout", "0s"];
    let late = place.node("n4", &[&cluster.nodes[0].addr], &more);
    eventually("the old key is noticed", || {
        let counts = cluster.counters(&place, "sealed_with_unknown_key");
        counts.iter().any(|count| *count > 0).then_some(())
    });
    let alone = place.run(&["members", "--json", "--socket", &late.socket]).json();
    assert_eq!(alone["members"].as_array().map(Vec::len), Some(1));
    let members = place.run(&["members", "--json", "--socket", &cluster.nodes[0].socket]).json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_change_of_keys_that_would_cut_a_node_off_is_refused() {
    let place = Place::new();
    let mut cluster = Sealed::start(&place, 2);
    let old = cluster.held(&place, 0)[0].0.clone();
    let new = place.run(&["keys", "generate"]).ok();
    let worker = place.run(&["keys", "generate", "--role", "worker"]).ok();
    let refused = |cluster: &Sealed, args: &[&str]| cluster.keys(&place, 0, args).fails(5);
    assert!(refused(&cluster, &["use", id_of(&new)]).contains("install it first"));
    assert!(refused(&cluster, &["remove", &old]).contains("is in use at n1, n2"));
    assert!(refused(&cluster, &["remove", "00000000"]).contains("no node has a key 00000000"));
    let file = place.secret("worker", &worker);
    cluster.keys(&place, 0, &["install", &file]).ok();
    assert!(refused(&cluster, &["use", id_of(&worker)]).contains("is for clients"));
    cluster.keys(&place, 1, &["remove", id_of(&worker)]).ok();
    // From standard input, as a file of anybody, and as no key.
    let mut install =
        place.command(&["keys", "install", "-", "--socket", &cluster.nodes[0].socket]);
    let mut child = install.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    child.stdin.take().expect("it is piped").write_all(new.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    let why = cluster.keys(&place, 0, &["install", new.trim()]).fails(2);
    assert!(why.contains("a key and no file") && !why.contains(new.trim()), "{why}");
    let open = place.write("open", &new);
    let why = cluster.keys(&place, 0, &["install", &open]).fails(2);
    assert!(why.contains("chmod 600"), "{why}");
    let damaged = place.secret("damaged", &new.replace("node", "worker"));
    let why = cluster.keys(&place, 0, &["install", &damaged]).fails(2);
    assert!(why.contains("damaged") && !why.contains(new.split(':').nth(2).expect("a secret")));

    // A member that does not answer would be cut off, perhaps.
    let _ = cluster.nodes[1].child.kill();
    let _ = cluster.nodes[1].child.wait();
    let why = refused(&cluster, &["use", id_of(&new)]);
    assert!(why.contains("not every member tells of its keys (n2)"), "{why}");
    let forced = cluster.keys(&place, 0, &["use", id_of(&new), "--force"]);
    assert_eq!(forced.code, 4, "{}", forced.stderr);
    assert!(forced.stderr.contains("1 of 2 nodes"), "{}", forced.stderr);
    assert!(forced.stdout.contains(id_of(&new)), "{}", forced.stdout);
}

#[test]
fn only_sealed_callers_with_a_right_key_are_let_in() {
    let place = Place::new();
    let cluster = Sealed::start(&place, 1);
    let addr = &cluster.nodes[0].addr;
    let why = place.run(&["members", "--node", addr]).fails(6);
    assert!(why.contains("give this client a key"), "{why}");
    let stranger = place.run(&["keys", "generate", "--role", "worker"]).ok();
    let stranger = place.secret("stranger", &stranger);
    let why = place.run(&["members", "--node", addr, "--key-file", &stranger]).fails(6);
    assert!(why.contains("does not accept key"), "{why}");
    let why =
        place.run(&["members", "--node", addr, "--key-file", &cluster.operator, "--cluster", "x"]);
    assert!(why.fails(6).contains("another cluster"));
    place.run(&["members", "--node", addr, "--key-file", &cluster.operator]).ok();
    // A key gives its role and no other.
    let as_operator = ["--node", addr, "--key-file", &cluster.operator];
    let why = place.run(&[&["start", "k", "v"], &as_operator[..]].concat()).fails(5);
    assert!(why.contains("operator"), "{why}");
    let authority = place.path("authority");
    place.run(&["start", "k", "v", "--node", addr, "--key-file", &authority]).ok();
    let ring = std::fs::read_to_string(place.path("keyring1")).expect("it is there");
    let of_nodes = place.secret("of_nodes", ring.lines().next().expect("a key"));
    let why = place.run(&["members", "--node", addr, "--key-file", &of_nodes]).fails(5);
    assert!(why.contains("this key is for node"), "{why}");
    // Keys are seen to by who runs the cluster, on the host.
    let why = place.run(&[&["keys", "list"], &as_operator[..]].concat()).fails(5);
    assert!(why.contains("Unix socket"), "{why}");
    // A node without a keyring says what is missing, to callers with a key too.
    let plain = place.node("plain", &[], &[]);
    let why = place.run(&["members", "--node", &plain.addr, "--key-file", &authority]).fails(6);
    assert!(why.contains("has no keyring"), "{why}");
    let why = place.run(&["keys", "list", "--socket", &plain.socket]).fails(5);
    assert!(why.contains("has no keyring"), "{why}");
}

#[test]
fn a_keyring_that_others_may_read_or_that_is_none_starts_no_node() {
    let place = Place::new();
    let key = place.run(&["keys", "generate"]).ok();
    let start = |ring: &str| {
        let dir = place.path("data");
        let shm = place.path("");
        let args = ["node", "--listen", "127.0.0.1:0", "--data-dir", &dir, "--shm-dir", &shm];
        place.run(&[&args[..], &["--keyring", ring]].concat()).fails(1)
    };
    let open = place.write("open", &key);
    assert!(start(&open).contains("others may use it, too (mode 644); chmod 600 it"));
    assert!(start(&place.path("none")).contains("`annulus keys generate --out FILE` makes one"));
    let secret = key.split(':').nth(2).expect("a secret");
    let cut = place.secret("cut", &key.replace(&secret[..60], ""));
    let why = start(&cut);
    assert!(why.contains("line 1: the key's secret must have 64") && !why.contains(&secret[60..]));
    // A file is made for this user alone, and never replaced.
    let made = place.path("made");
    let says = place.run(&["keys", "generate", "--role", "monitor", "--out", &made]);
    assert_eq!(says.stdout, "");
    let text = std::fs::read_to_string(&made).expect("it is there");
    assert!(
        says.stderr.contains(id_of(&text)) && says.stderr.contains("monitor"),
        "{}",
        says.stderr
    );
    let mode = std::fs::metadata(&made).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    place.run(&["keys", "generate", "--out", &made]).fails(1);
    assert_eq!(std::fs::read_to_string(&made).expect("it is there"), text);
}

fn library(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.with_file_name(name)
}

#[test]
fn other_languages_read_what_a_node_holds_whatever_becomes_of_it() {
    let place = Place::new();
    let mut node = place.node("n1", &[], &[]);
    let run = |node: &Node, args: &[&str]| place.run(&[args, &["--node", &node.addr]].concat());
    run(&node, &["start", "k1", "value"]).ok();
    run(&node, &["start", "m", "--field", "user=ada", "--field", "cart=3"]).ok();
    let shm = place.path("n1/shm");
    let mut python = Python::start(&shm);
    python.sees("k1", "b'value'");
    python.sees("m", "{b'cart': b'3', b'user': b'ada'}");

    let capi = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("capi");
    let example = place.path("read");
    let compiled = Command::new("cc")
        .args(["-std=c99", "-o", &example, "-I"])
        .args([capi.join("include"), capi.join("examples/read.c"), library("libannulus.a")])
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .expect("this test needs cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let segment = format!("{shm}/annulus-annulus-{}-sessions", node.id);
    let read = |key: &str| {
        Ran::from(Command::new(&example).args([&segment, key]).output().expect("it runs"))
    };
    assert!(read("m").ok().ends_with("\nfield cart = 3\nfield user = ada\n"));

    // What the node applied before it answered is there at once.
    run(&node, &["set", "k1", "other"]).ok();
    assert_eq!(python.get("k1"), "b'other'");
    run(&node, &["end", "k1"]).ok();
    assert_eq!(python.get("k1"), "ENDED");
    assert_eq!((read("k1").code, read("nobody").code), (3, 4));

    // A killed node's successor goes on with the segment.
    run(&node, &["start", "k2", "stays"]).ok();
    node.child.kill().expect("it runs");
    node.finish();
    let mut node = place.node("n1", &[], &[]);
    run(&node, &["set", "k2", "went on"]).ok();
    python.sees("k2", "b'went on'");
    python.sees("k1", "ENDED");

    // One with other settings makes another, which takes the place of this.
    node.terminate();
    node.finish();
    let settings = "[[table]]\nname = \"sessions\"\nmemory = \"16MiB\"\n";
    let settings = place.write("larger.toml", settings);
    let node = place.node("n1", &[], &["--config", &settings]);
    run(&node, &["start", "k3", "in the next"]).ok();
    python.sees("k3", "b'in the next'");
    python.sees("k2", "b'went on'");
}

#[test]
fn a_node_that_drains_gives_everything_away_or_says_why_not() {
    let place = Place::new();
    let [first, second, third] = place.cluster();
    for n in 0..30 {
        place.run(&["start", &format!("k{n}"), "v", "--node", &first.addr]).ok();
    }
    let drain = |more: &[&str]| {
        place.run(&[&["drain", "--node", &third.addr, "--timeout", "30s"], more].concat())
    };
    // Two others are one too few for three copies.
    let ran = drain(&[]);
    assert_eq!(ran.code, 7, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("are kept"), "{}", ran.stderr);
    let text = place.run(&["status", "--node", &third.addr]).ok();
    assert!(text.contains("kept for want of other homes"), "{text}");
    let ran = place.run(&["safe-to-stop", "--node", &first.addr]);
    assert_eq!(ran.code, 7, "{}", ran.stdout);
    assert!(drain(&["--accept-fewer"]).ok().contains("fewer copies"));
    // With a fourth one there is a place for everything.
    let seeds = [first.addr.as_str(), second.addr.as_str()];
    let _fourth = place.node("n4", &seeds, &[]);
    let drained = eventually("all is given away", || {
        let ran = drain(&[]);
        (ran.code == 0).then_some(ran.stdout)
    });
    assert!(drained.contains("drained"), "{drained}");
    // A copy is dropped once it is on disk that others speak for it.
    eventually("all copies are dropped", || {
        let status = place.run(&["status", "--json", "--node", &third.addr]).json();
        (status["tables"][0]["entries"] == 0).then_some(())
    });
    for n in 0..30 {
        for node in [&first, &second, &third] {
            let args = ["get", &format!("k{n}"), "--node", &node.addr];
            assert_eq!(place.run(&args).ok().trim_end(), "v");
        }
    }
    assert!(place.run(&["drain", "--cancel", "--node", &third.addr]).ok().contains("again"));
    eventually("it takes slots again", || {
        let status = place.run(&["status", "--json", "--node", &third.addr]).json();
        (status["tables"][0]["slots_home"].as_u64()? > 0).then_some(())
    });
}
