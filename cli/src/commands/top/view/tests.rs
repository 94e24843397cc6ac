//! Pictures of clusters that were made up.

use std::time::Instant;

use annulus_client::{
    HotSession, Member, NodeId, NodeStatus, Status, Suspect, SuspectList, TableStatus, Version,
};

use super::super::ask::Told;
use super::*;

const NOW_MS: u64 = 1_790_000_100_000;
const HOT: &str = "7629-00a1b2c3d4e5";
const WORD: u64 = 7_629 << 47 | 0x00a1_b2c3_d4e5;

fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

fn member(number: u64, name: &str, status: Status) -> Member {
    Member {
        id: NodeId::from_bits(number),
        incarnation: 3,
        revision: 1,
        status,
        addr: ([10, 0, 0, number as u8], 7_946).into(),
        name: name.to_owned(),
        zone: "z1".to_owned(),
        weight: 100,
        rings: 0b11,
        door: None,
        load: Default::default(),
    }
}

fn table(name: &str, entries: u64) -> TableStatus {
    TableStatus {
        name: name.to_owned(),
        entries,
        capacity: 10_000,
        bytes: entries * 300,
        segment_bytes: 8 << 20,
        huge_bytes: 0,
        reserve_used: 0,
        slots_home: 16_384,
        slots_unsynced: 0,
        slots_leaving: 0,
        slots_short: 0,
        slots_undecided: 0,
        hints: 0,
        replicas: 3,
        write_homes: 2,
        members_lacking: 0,
    }
}

/// What a member tells so long after its start, that has done so many reads and cooled so many sessions, and twice as
/// many reads out of its 60 near copies, of which as many were changed as sessions have cooled.
fn told(member: &Member, uptime_ms: u64, gets: u64, cooled: u64) -> Box<Told> {
    let counters = [
        ("requests_get", gets),
        ("requests_start", gets / 10),
        ("sessions_cooled", cooled),
        ("near_copies", 60),
        ("near_uses_noted", 2 * gets),
        ("near_reads", gets / 50),
        ("near_copies_invalidated", cooled),
    ];
    let status = NodeStatus {
        cluster: "shop".to_owned(),
        member: member.clone(),
        software: "annulus".to_owned(),
        uptime_ms,
        view: 1,
        active_members: 3,
        agreeing_members: 3,
        tables: vec![table("sessions", 4_200), table("sessions@cold", 100)],
        counters: counters.map(|(name, count)| (name.to_owned(), count)).into(),
        unknown_commands: Vec::new(),
    };
    let hot = HotSession {
        word: WORD,
        birth: version("1790000000000.0@0000000000a1"),
        heat: 512,
        touched: NOW_MS - 3_000,
    };
    let hottest = vec![("sessions".to_owned(), vec![hot])];
    Box::new(Told { status, took: Duration::from_micros(400), hottest })
}

fn suspect() -> Suspect {
    Suspect {
        word: WORD,
        birth: version("1790000000000.0@0000000000a1"),
        judged: version("1790000000009.1@0000000000a2"),
        until: NOW_MS + 61_500,
        left_ms: 61_500,
        heat: 600,
        owner: b"ada".to_vec(),
    }
}

fn listed(suspects: Vec<Suspect>) -> SuspectList {
    SuspectList { suspects, silent: Vec::new() }
}

/// A board with three members of which the first two answered twice, a second apart, and the third is down.
fn board(now: Instant) -> Board {
    let mut board = Board::default();
    let members = [
        member(1, "app1", Status::Up),
        member(2, "app2", Status::Up),
        member(3, "app3", Status::Down),
    ];
    board.take_members(members.to_vec());
    for member in &members[..2] {
        board.take_told(member.id, Some(told(member, 10_000, 1_000, 5)), now);
        board.take_told(member.id, Some(told(member, 11_000, 1_250, 12)), now);
    }
    board.suspects.insert("sessions".to_owned(), Ok(listed(vec![suspect()])));
    board
}

fn drawn(board: &Board, now: Instant, width: u16, height: u16) -> Vec<String> {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(board, Moment { now, now_ms: NOW_MS }, area, &mut buffer);
    let lines: Vec<String> = text(&buffer).lines().map(str::to_owned).collect();
    assert!(lines.len() <= height.into());
    lines
}

#[track_caller]
fn line<'a>(lines: &'a [String], beginning: &str) -> &'a str {
    let found = lines.iter().find(|line| line.trim_start().starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line begins with {beginning:?}:\n{}", lines.join("\n")))
}

#[test]
fn a_usual_terminal_has_room_for_everything() {
    let now = Instant::now();
    let lines = drawn(&board(now), now, 80, 24);
    assert_eq!(lines[0], "cluster shop, 3 of 3 members agree  q quits");
    let shown = lines.join("\n");
    for (beginning, parts) in [
        ("MEMBER", &["STATUS", "SESSIONS", "GETS/s", "WRITES/s", "ANSWER"][..]),
        ("app1", &["up", "4300", " 250 ", " 25 ", "0.4 ms"]),
        ("app3", &["down", " - "]),
        ("sessions ", &["[#####     ]", "42%", "8400", "MiB"]),
        ("14/s outward, 0/s inward", &[]),
        ("sessions@cold", &["[#         ]", "1%", "200"]),
        ("RATES/s", &["SHARED", "GETS", "STARTS", "UPDATES", "ENDS", "SLOWED", "FAILED"]),
        ("together", &["500", "50"]),
        ("near copies: 120 on 2 hosts, 1000/s read, 10/s missed, 14/s gone", &[]),
        ("HOTTEST", &["HEAT", "SUSPECT", "LEFT"]),
        (HOT, &["512", "3s", "600", "1m 1s"]),
    ] {
        let line = line(&lines, beginning);
        for part in parts {
            assert!(line.contains(part), "{part:?} is missing in {line:?}:\n{shown}");
        }
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(line(&lines, HOT).matches(HOT).count(), 2, "hot, and a suspect:\n{shown}");
    assert!(lines.len() < 24, "it fits");
}

#[test]
fn the_more_room_there_is_the_more_is_shown_and_none_is_too_little() {
    let now = Instant::now();
    let board = board(now);
    for width in 0..=130 {
        for height in [0, 1, 2, 3, 4, 5, 7, 10, 24, 60] {
            drawn(&board, now, width, height);
        }
    }
    let narrow = drawn(&board, now, 40, 10).join("\n");
    for part in ["app1", "up", "4300", "250", "42%", "together", "HOTTEST", HOT, "512"] {
        assert!(narrow.contains(part), "{part:?} is missing:\n{narrow}");
    }
    let narrow = drawn(&board, now, 40, 24).join("\n");
    for part in ["near copies: 120 on 2 hosts", "HOTTEST", "512", "SUSPECT", "600", "1m 1s"] {
        assert!(narrow.contains(part), "{part:?} is missing:\n{narrow}");
    }
    let wide = drawn(&board, now, 120, 40).join("\n");
    for part in ["RINGS", "UNSYNCED", "NEAR", " 60 ", " 0-1 ", "CAPACITY", "OWNER", "ada", "TABLE"]
    {
        assert!(wide.contains(part), "{part:?} is missing:\n{wide}");
    }
    // As high as that, nothing is left out.
    assert_eq!(height(&board), 1 + 4 + 4 + 3 + 2);
    line(&drawn(&board, now, 80, height(&board)), "sessions@cold");
}

#[test]
fn near_copies_have_a_line_where_there_are_some() {
    let now = Instant::now();
    let mut board = board(now);
    let without = |told: &mut Told| {
        told.status.counters.retain(|(name, _)| !name.starts_with("near_"));
    };
    let one = member(1, "app1", Status::Up);
    let again = |board: &mut Board, uptime_ms: u64, change: &dyn Fn(&mut Told)| {
        let mut answer = told(&one, uptime_ms, 1_250, 12);
        change(&mut answer);
        board.take_told(one.id, Some(answer), now);
    };
    again(&mut board, 12_000, &without);
    let lines = drawn(&board, now, 80, 24);
    line(&lines, "near copies: 60 on 1 host, 500/s read, 5.0/s missed, 7.0/s gone");
    // The other one is silent, and what it told last counts for nothing.
    board.take_told(NodeId::from_bits(2), None, now);
    assert_eq!(board.near_copies(), (0, 0));
    let shown = drawn(&board, now, 80, 24).join("\n");
    assert!(!shown.contains("near copies"), "{shown}");
    // There are none, and some are missed.
    again(&mut board, 13_000, &|told| {
        told.status.counters.retain(|(name, _)| name != "near_copies");
    });
    line(&drawn(&board, now, 80, 24), "near copies: 0 on 0 hosts, 2500/s read, 25/s missed");
    let large = |told: &mut Told| {
        told.status.counters.iter_mut().for_each(|(_, count)| *count = u64::MAX);
    };
    again(&mut board, 14_000, &large);
    assert!(line(&drawn(&board, now, 80, 24), "near copies").ends_with("/s gone"));
}

#[test]
fn rates_are_never_negative_and_not_told_across_a_restart() {
    let now = Instant::now();
    let mut board = board(now);
    let app1 = member(1, "app1", Status::Up);
    // Its counters began anew, as did its time.
    board.take_told(app1.id, Some(told(&app1, 500, 40, 0)), now);
    assert_eq!(board.rows[0].rates, None);
    assert!(line(&drawn(&board, now, 80, 24), "app1").contains(" - "));
    board.take_told(app1.id, Some(told(&app1, 1_500, 60, 0)), now);
    assert_eq!(board.rows[0].rates.map(|rates| rates.of(Rate::Gets)), Some(20.0));
    // It was away for so long that it runs for longer than before.
    board.take_told(app1.id, Some(told(&app1, 9_500, 10, 0)), now);
    assert_eq!(board.rows[0].rates.map(|rates| rates.of(Rate::Gets)), Some(0.0));
    // An answer that overtook another one tells nothing.
    board.take_told(app1.id, Some(told(&app1, 9_500, 10, 0)), now);
    assert_eq!(board.rows[0].rates, None);
    assert!(!drawn(&board, now, 120, 24).join("\n").contains(" -0"));
}

#[test]
fn who_does_not_answer_is_shown_with_what_it_told_last_and_counts_for_nothing() {
    let now = Instant::now();
    let mut board = board(now);
    board.take_told(NodeId::from_bits(2), None, now);
    let later = now + Duration::from_secs(7);
    let lines = drawn(&board, later, 80, 24);
    let app2 = line(&lines, "app2");
    assert!(app2.contains("silent") && app2.contains("4300") && app2.ends_with("7s ago"), "{app2}");
    assert!(line(&lines, "together").contains(" 250 "), "{lines:?}");
    assert!(line(&lines, "sessions ").contains(" 4200 "), "{lines:?}");
    // Who never answered has told nothing.
    board.take_members(vec![member(4, "new", Status::Joining)]);
    board.take_told(NodeId::from_bits(4), None, now);
    let lines = drawn(&board, later, 80, 24);
    assert!(line(&lines, "new").contains("silent") && line(&lines, "new").ends_with('-'));
    // Nobody tells of the members.
    board.unreached = Some(("no node could be reached".to_owned(), now));
    assert_eq!(
        drawn(&board, later, 80, 24)[0],
        "no member answers for 7s: no node could be reached"
    );
}

#[test]
fn names_do_nothing_to_the_terminal_and_stay_in_their_columns() {
    let now = Instant::now();
    let mut board = Board::default();
    let harmful = "a\x1b[2J\u{9b}31m\r\n\u{202e}b";
    let long = "long-".repeat(40);
    let wide = "名".repeat(40);
    let names = [harmful, &long, &wide, "zürich"];
    let members = names.iter().zip(1..).map(|(name, number)| member(number, name, Status::Up));
    board.take_members(members.collect());
    for row in 0..4 {
        let known = board.rows[row].member.clone();
        let mut told = told(&known, 1_000, 0, 0);
        told.status.cluster = harmful.to_owned();
        told.status.tables[0].name = harmful.to_owned();
        told.hottest[0].0 = harmful.to_owned();
        board.take_told(known.id, Some(told), now);
    }
    let owned = Suspect { owner: harmful.as_bytes().to_vec(), ..suspect() };
    board.suspects.insert(harmful.to_owned(), Ok(listed(vec![owned])));
    board.suspects.insert("b".to_owned(), Err(NoSuspects::Silent(harmful.to_owned())));
    for width in [40, 80, 120] {
        let area = Rect::new(0, 0, width, 24);
        let mut buffer = Buffer::empty(area);
        draw(&board, Moment { now, now_ms: NOW_MS }, area, &mut buffer);
        let symbols: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
        assert!(!symbols.contains(|char: char| char.is_control() || char == '\u{202e}'));
        let shown = text(&buffer);
        assert!(shown.contains("a?[2J?31m") && shown.contains("zürich"), "{shown}");
        let lines: Vec<String> = shown.lines().map(str::to_owned).collect();
        for name in ["long-", "名"] {
            let line = line(&lines, name);
            assert!(line.contains("~") && line.contains(" up "), "{line}");
        }
    }
}

#[test]
fn members_that_have_no_room_are_counted_and_scrolled_to() {
    let now = Instant::now();
    let mut board = Board::default();
    let names = (0..60).map(|number| (number, format!("app{number:02}")));
    board.take_members(names.map(|(number, name)| member(number + 1, &name, Status::Up)).collect());
    let lines = drawn(&board, now, 80, 24);
    line(&lines, "app00");
    let more = lines.iter().find(|line| line.contains("more, see with down")).expect("so many");
    let shown = lines.iter().filter(|line| line.starts_with("app")).count();
    assert_eq!(*more, format!("{} more, see with down", 60 - shown));
    board.scroll(1_000);
    let lines = drawn(&board, now, 80, 24);
    line(&lines, "app59");
    assert!(!lines.iter().any(|line| line.contains("see with down")));
    board.scroll(-1_000);
    line(&drawn(&board, now, 80, 24), "app00");
    // The others keep their room.
    line(&lines, "HOTTEST");
    line(&lines, "together");
}

#[test]
fn why_suspects_are_not_known_is_said() {
    let now = Instant::now();
    let mut board = board(now);
    board.suspects.insert("sessions".to_owned(), Err(NoSuspects::NotAMonitor));
    let shown = drawn(&board, now, 80, 24).join("\n");
    assert!(shown.contains("not known: takes the role monitor"), "{shown}");
    assert_eq!(board.document()["suspects"], serde_json::Value::Null);
    board.suspects.insert("sessions".to_owned(), Ok(listed(Vec::new())));
    let shown = drawn(&board, now, 80, 24).join("\n");
    assert!(shown.contains(" none\n") || shown.ends_with(" none"), "{shown}");
    assert_eq!(board.document()["suspects"], serde_json::json!([]));
    let silent = vec![NodeId::from_bits(2)];
    let list = SuspectList { silent, ..SuspectList::default() };
    board.suspects.insert("sessions".to_owned(), Ok(list));
    let shown = drawn(&board, now, 80, 24).join("\n");
    assert!(shown.contains("none, but 1 do not answer"), "{shown}");
}

#[test]
fn numbers_are_short() {
    let counts = [0, 99_999, 100_000, 1_234_567, 999_999_999, u64::MAX].map(count);
    assert_eq!(counts, ["0", "99999", "100k", "1.2M", "1.0G", "18447P"]);
    let rates = [0.0, 0.04, 0.06, 9.94, 9.96, 99_999.0, 123_456.0].map(per_second);
    assert_eq!(rates, ["0", "0", "0.1", "9.9", "10", "99999", "123k"]);
    let spans = [0, 999, 59_000, 61_000, 7_260_000, 90_000_000].map(|ms| ago(0, ms));
    assert_eq!(spans, ["now", "now", "59s", "1m", "2h", "1d"]);
    assert_eq!(round_trip(Duration::from_micros(1_234)), "1.2 ms");
    assert_eq!([0, 1, 0b11, 0b10111, 0xff].map(runs), ["", "0", "0-1", "0-2,4", "0-7"]);
    assert_eq!([fit("app1", 4), fit("app10", 4), fit("app10", 1)], ["app1", "app~", "~"]);
}
