//! `annulus top` in a real terminal, that of tmux, of which what is on the screen can be asked for.

use std::process::Command;

use annulus_client::{Key, SuspectName};

use super::{Node, Place, eventually, in_sync};

/// A shell in a terminal of its own. It ends with this.
struct Terminal<'a> {
    place: &'a Place,
}

impl<'a> Terminal<'a> {
    fn open(place: &'a Place, (width, height): (u16, u16)) -> Self {
        let terminal = Self { place };
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        terminal
            .tmux(&[&["-f", "/dev/null", "new-session", "-d"], &size[..], &["exec sh"]].concat());
        terminal
    }

    /// Talks to a server of this terminal's own, in the test's directory.
    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let ran = self.command(args).output().unwrap_or_else(|error| {
            panic!(
                "this test needs tmux, a terminal to look at: {error}. Install it, or run .ci/run"
            )
        });
        assert!(ran.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("text")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", "top"]).args(args);
        command.env_remove("TMUX").env("TMUX_TMPDIR", self.place.dir.path());
        command.env("HOME", self.place.dir.path()).env("ANNULUS_CONFIG", "/dev/null");
        command.env("PS1", "% ").env_remove("ENV").env_remove("ANNULUS_NODES");
        command
    }

    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it must become, and returns it.
    #[track_caller]
    fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        eventually(what, || Some(self.screen()).filter(|screen| is_so(screen)))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

fn line<'a>(screen: &'a str, beginning: &str) -> Option<&'a str> {
    screen.lines().find(|line| line.starts_with(beginning))
}

/// Which name stands in each line of the column with this heading.
fn names<'a>(screen: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = screen.lines().skip_while(|line| !line.contains("HOTTEST"));
    let at = lines.next().and_then(|headings| headings.find(heading));
    let name = |line: &'a str| line.get(at?..)?.split_whitespace().next();
    lines.filter_map(name).collect()
}

#[test]
fn a_terminal_shows_members_fill_hot_sessions_and_suspects_and_is_given_back() {
    let place = Place::new();
    let table = "[[table]]\nname = \"sessions\"\nmemory = \"1MiB\"\nburn = 20\nburn_half_life = \"1m\"\n\
                 [[table.ring]]\nname = \"cold\"\nafter = \"1h\"\n";
    let config = place.write("top.toml", table);
    let more = ["--config", &config];
    let first = place.node("n1", &[], &more);
    let second = place.node("n2", &[&first.addr], &more);
    let third = place.node("n3", &[&first.addr], &more);
    // It is home of nothing but what has cooled.
    let outer = place.node("n4", &[&first.addr], &[&more[..], &["--rings", "1"]].concat());
    let mut nodes = [first, second, third];
    in_sync(&place, &nodes[0].addr, 4);
    let run = |args: &[&str]| place.run(&[args, &["--node", &nodes[0].addr]].concat());
    for number in 0..60 {
        run(&["start", &format!("session {number}"), "v"]).ok();
    }
    for _ in 0..12 {
        run(&["touch", "session 7"]).ok();
    }
    eventually("somebody to be told to slow down", || {
        (run(&["touch", "session 8"]).code == 8).then_some(())
    });
    let name = |key: &str| SuspectName::of_key(&Key::new(key).expect("a key")).to_string();
    let (hot, suspect) = (name("session 7"), name("session 8"));

    let terminal = Terminal::open(&place, (80, 24));
    let annulus = env!("CARGO_BIN_EXE_annulus");
    // At first the keys may still be echoed: what is awaited does not stand in the line itself.
    terminal.enter("echo before-$((40 + 2))");
    terminal.shows("a shell", |screen| screen.contains("before-42"));
    terminal.enter(&format!("{annulus} top --interval 200ms --socket {}", nodes[0].socket));
    let screen = terminal.shows("all of it", |screen| {
        let is_up = |name: &str| line(screen, name).is_some_and(|line| line.contains(" up "));
        let fill = line(screen, "sessions ");
        ["n1 ", "n2 ", "n3 ", "n4 "].into_iter().all(is_up)
            && screen.starts_with("cluster annulus, 4 of 4 members agree")
            && fill.is_some_and(|line| line.contains("[#") && !line.contains(" 0% "))
            && names(screen, "HOTTEST").contains(&&*hot)
            && names(screen, "SUSPECT") == [&*suspect]
    });
    assert!(!screen.contains("session 7") && !screen.contains("before-42"), "{screen}");
    for part in ["WRITES/s", "sessions@cold", "/s outward, ", "RATES/s", "FAILED", "WRITTEN"] {
        assert!(screen.contains(part), "{part:?} is missing:\n{screen}");
    }
    let mut touched = (0..60).cycle();
    eventually("touches to be counted", || {
        run(&["touch", &format!("session {}", touched.next()?)]);
        let screen = terminal.screen();
        let per_second = line(&screen, "together")?.split_whitespace().nth(5)?;
        (!["0", "-"].contains(&per_second)).then_some(())
    });

    // A process on a host that is no home of it.
    assert!(line(&screen, "near copies").is_none(), "{screen}");
    eventually("a near copy", || {
        let read = place.run(&["get", "session 9", "--json", "--socket", &outer.socket]).json();
        (read["read_from"] == "shared_memory").then_some(())
    });
    terminal.shows("that one", |screen| {
        line(screen, "near copies: 1 on 1 host, ").is_some_and(|line| line.contains("/s missed"))
    });

    // Another size.
    terminal.tmux(&["resize-window", "-x", "50", "-y", "18"]);
    terminal.shows("less of it", |screen| {
        line(screen, "MEMBER").is_some_and(|line| !line.contains("ZONE") && line.contains("GETS/s"))
            && names(screen, "HOTTEST").contains(&&*hot)
    });
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);

    // A member that does not answer, and then is held for dead.
    nodes[2].child.kill().expect("it is ours");
    nodes[2].child.wait().expect("it ends");
    terminal.shows("that one is silent", |screen| {
        let third = line(screen, "n3 ");
        third.is_some_and(|line| line.contains(" silent ") && line.trim_end().ends_with(" ago"))
    });
    terminal.shows("that one is down", |screen| {
        line(screen, "n3 ").is_some_and(|line| line.contains(" down "))
            && screen.contains("3 of 3 members agree")
    });

    terminal.tmux(&["send-keys", "q"]);
    // Before that what is typed is not for the shell.
    terminal.shows("the picture gone", |screen| !screen.contains("HOTTEST"));
    terminal.enter("echo over-$?-$((40 + 2))");
    let screen = terminal.shows("the shell again", |screen| screen.contains("over-0-42"));
    assert!(screen.contains("before-42") && !screen.contains("HOTTEST"), "{screen}");
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let place = Place::new();
    let node = place.node("n1", &[], &[]);
    let terminal = Terminal::open(&place, (80, 24));
    let annulus = env!("CARGO_BIN_EXE_annulus");
    terminal.enter(&format!("exec {annulus} top --node {}", node.addr));
    terminal.shows("the member", |screen| line(screen, "n1 ").is_some());
    let process = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let state = format!("/proc/{}/stat", process.trim());
    assert!(std::fs::read_to_string(&state).expect("it runs").contains("(annulus)"));
    drop(terminal);
    eventually("it to end", || {
        // One that has ended may wait for whoever takes note of that.
        let is_over = std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
        is_over.then_some(())
    });
}

#[test]
fn without_a_terminal_there_is_a_picture_as_text_or_a_word_on_what_to_do() {
    let place = Place::new();
    let node: Node = place.node("n1", &[], &[]);
    let run = |args: &[&str]| place.run(&[args, &["--node", &node.addr]].concat());
    run(&["start", "k1", "v"]).ok();
    run(&["touch", "k1"]).ok();
    let why = run(&["top"]).fails(2);
    assert!(why.contains("--once") && why.contains("annulus status"), "{why}");
    run(&["top", "--json"]).fails(2);
    run(&["top", "--once", "--interval", "1ms"]).fails(2);
    let once = ["top", "--once", "--interval", "200ms"];
    let text = run(&once).ok();
    let name = SuspectName::of_key(&Key::new("k1").expect("a key")).to_string();
    assert!(line(&text, "n1 ").is_some_and(|line| line.contains(" up ")), "{text}");
    assert!(line(&text, &name).is_some(), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let json = run(&[&once[..], &["--json"]].concat()).json();
    assert_eq!(
        (&json["members"][0]["name"], &json["hottest"][0]["name"]),
        (&"n1".into(), &name.into())
    );
    assert_eq!(json["members"][0]["per_second"]["gets"], 0.0);
    assert_eq!(json["suspects"], serde_json::json!([]));
    let nobody = ["--node", "127.0.0.1:1", "--timeout", "2s"];
    place.run(&[&once[..], &nobody].concat()).fails(6);
}
