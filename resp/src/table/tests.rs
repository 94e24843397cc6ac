use super::*;
use crate::{Command, Limits, Parsed, Parser, Protocol, Writer};

fn with<T>(line: &str, then: impl FnOnce(Arguments<'_>) -> T) -> T {
    let mut buffer = format!("{line}\r\n").into_bytes();
    let mut parser = Parser::new(Limits::default());
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Request { .. })));
    then(parser.arguments(&buffer))
}

#[test]
fn each_command_is_found_by_its_name_in_any_case() {
    assert!(COMMANDS.is_sorted_by(|one, next| one.name < next.name));
    for spec in all() {
        assert_eq!(named(spec.name.as_bytes()).map(|found| found.id), Some(spec.id));
        assert_eq!(
            named(spec.name.to_ascii_uppercase().as_bytes()).map(|found| found.id),
            Some(spec.id)
        );
        let words = spec.name.replace('|', " ") + &" x".repeat(spec.arity.unsigned_abs().into());
        let found = with(&words, |arguments| match find(arguments) {
            Ok(spec) | Err(CommandError::Arity(spec)) => Some(spec.id),
            Err(CommandError::UnknownSubcommand(spec, _)) => Some(spec.id),
            Err(_) => None,
        });
        assert_eq!(found, Some(spec.id));
    }
    for name in [
        "",
        "ge",
        "gett",
        "get\0",
        "\0",
        "client|",
        "client|id|id",
        "|",
        "get|",
        "a-name-longer-than-all",
    ] {
        assert_eq!(named(name.as_bytes()), None, "{name:?}");
    }
}

#[test]
fn names_fit_where_they_are_folded() {
    for spec in COMMANDS {
        assert!(spec.name.len() <= NAME_BYTES_MAX);
        assert!(spec.name.bytes().all(|byte| !byte.is_ascii_uppercase()));
        for sub in spec.subcommands {
            assert!(sub.name.starts_with(&format!("{}|", spec.name)));
            assert!(sub.subcommands.is_empty());
        }
    }
}

#[test]
fn identities_are_different() {
    let ids: std::collections::BTreeSet<Id> = all().map(|spec| spec.id).collect();
    assert_eq!(ids.len(), all().count());
    assert_eq!(ids.len(), NAMES_MAX);
}

#[test]
fn keys_are_where_the_table_says() {
    for (line, keys) in [
        ("get a", &["a"][..]),
        ("set a b ex 1", &["a"]),
        ("mget a b c", &["a", "b", "c"]),
        ("mset a 1 b 2", &["a", "b"]),
        ("rename a b", &["a", "b"]),
        ("object freq a", &["a"]),
        ("eval script 2 a b c", &["a", "b"]),
        ("evalsha sha 1 a", &["a"]),
        ("eval script 0 a", &[]),
        ("eval script x a", &[]),
        ("eval script 9 a", &["a"]),
        ("scan 0 match a", &[]),
        ("publish a b", &[]),
        ("spublish a b", &["a"]),
        ("ssubscribe a b", &["a", "b"]),
        ("ping a", &[]),
    ] {
        let found = with(line, |arguments| {
            let spec = find(arguments).expect("a command");
            let found: Vec<String> = spec
                .keys_of(arguments)
                .map(|key| String::from_utf8_lossy(&key).into_owned())
                .collect();
            found
        });
        assert_eq!(found, keys, "{line}");
    }
    // With too few arguments there are just fewer.
    for spec in all() {
        for count in 0..10 {
            assert!(
                spec.key_indexes(count).all(|index| index > 0 && index < count),
                "{}",
                spec.name
            );
        }
    }
}

#[test]
fn key_ranges_are_what_older_clients_know() {
    for (name, range) in [
        ("get", (1, 1, 1)),
        ("mget", (1, -1, 1)),
        ("mset", (1, -1, 2)),
        ("rename", (1, 2, 1)),
        ("object|freq", (2, 2, 1)),
        ("ping", (0, 0, 0)),
        ("eval", (0, 0, 0)),
    ] {
        assert_eq!(named(name.as_bytes()).expect("a command").key_range(), range, "{name}");
    }
}

#[test]
fn sets_know_their_members() {
    let flags = named(b"get").expect("a command").flags;
    assert!(flags.contains(Flags::READONLY) && !flags.contains(Flags::WRITE));
    assert_eq!(flags.names().collect::<Vec<_>>(), ["readonly", "fast"]);
    assert_eq!(Categories::named(b"KEYspace"), Some(Categories::KEYSPACE));
    assert_eq!(Categories::named(b"nothing"), None);
}

#[test]
fn help_counts_its_lines() {
    for spec in COMMANDS.iter().filter(|spec| !spec.subcommands.is_empty()) {
        let mut out = Vec::new();
        help(spec, &mut Writer::new(&mut out, Protocol::Resp2));
        let text = String::from_utf8(out).expect("text");
        let (count, lines) = text.split_once("\r\n").expect("lines");
        assert_eq!(count, format!("*{}", lines.matches("\r\n").count()));
        assert!(lines.contains("\r\n+HELP\r\n"));
    }
}

/// Each row, asked for again and again: what a request may make of few bytes has a bound.
#[test]
fn no_more_names_are_answered_than_there_are() {
    for question in ["command info", "command docs"] {
        for spec in all() {
            let with_names =
                |count| format!("{question}{}", format!(" {}", spec.name).repeat(count));
            let parsed = |line: &str| {
                with(line, |arguments| {
                    let command = find(arguments).and_then(|spec| Command::parse(spec, arguments));
                    let query = match command {
                        Ok(Command::Command(query)) => query,
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => return Err(error.to_string()),
                    };
                    let mut out = Vec::new();
                    answer(query, &mut Writer::new(&mut out, Protocol::Resp3));
                    Ok(out.len())
                })
            };
            let bytes = parsed(&with_names(NAMES_MAX)).expect("there are so many");
            assert!(bytes <= 320 << 10, "{bytes} of {}", spec.name);
            let error = parsed(&with_names(NAMES_MAX + 1)).expect_err("there are not so many");
            assert_eq!(error, "too many names");
        }
    }
}
