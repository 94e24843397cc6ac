//! Requests in all pieces, and whatever else may come.

#[path = "../fuzz_bodies.rs"]
mod fuzz_bodies;

use annulus_resp::{Limits, ProtocolError};
use fuzz_bodies::{Said, read, requests};
use proptest::prelude::*;

/// Requests of all kinds, one after the other, as clients send them.
const PIPELINE: &[u8] = b"*3\r\n$3\r\nSET\r\n$5\r\nsess:\r\n$8\r\n\r\n*1\r\n$4\r\n\
    \r\nGET \"a \\x6b \\n\" 'it' s\r\n*0\r\n*-1\r\n\n   \r\nGET \"a \\x6b \\n\" 'it\\'s'\n\
    *1\r\n$0\r\n\r\nPING\r\n*2\r\n$4\r\necho\r\n$2\r\n\0\xff\r\n\
    *2\r\n$3\r\nGET\r\n$2\r\nk\n\r\n*2\r\n$3\r\nGet\r\n$17\r\n*2\r\n$3\r\nGET\r\n$1\r\n\r\n";

fn encoded(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for argument in request {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}

/// As `redis-cli` shows bytes, which is how people type them.
fn quoted(argument: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in argument {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'\n' => text += "\\n",
            b'\r' => text += "\\r",
            b'\t' => text += "\\t",
            7 => text += "\\a",
            8 => text += "\\b",
            b' '..=b'~' => text.push(byte.into()),
            other => text += &format!("\\x{other:02x}"),
        }
    }
    text + "\""
}

fn whole(bytes: &[u8]) -> Said {
    read(bytes, Limits::default(), true, |_| bytes.len().max(1))
}

#[test]
fn pieces_are_requests_wherever_they_are_cut() {
    let wrong = [PIPELINE, b"PING\r\nGET \"a\" 'b''c'\r\nPING\r\n"].concat();
    for bytes in [PIPELINE, &wrong] {
        let expected = whole(bytes);
        for first in 0..=bytes.len() {
            for size in (1..8).chain([bytes.len()]) {
                let cut = read(bytes, Limits::default(), true, |piece| match piece {
                    0 => first,
                    _ => size,
                });
                assert_eq!(cut, expected, "cut at {first}, then each {size}");
            }
        }
    }
    let said = whole(PIPELINE);
    assert_eq!((said.end, said.left, said.requests.len()), (None, 0, 8));
    assert_eq!(said.requests[0][2], b"\r\n*1\r\n$4");
    assert_eq!(said.requests[1], [&b"GET"[..], b"a k \n", b"it", b"s"]);
    assert_eq!(said.requests[2], [&b"GET"[..], b"a k \n", b"it's"]);
    assert_eq!(said.requests[5], [&b"echo"[..], b"\0\xff"]);
    let said = whole(&wrong);
    assert_eq!((said.end, said.requests.len()), (Some(ProtocolError::Quotes), 9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_the_same_in_any_pieces(input: Vec<u8>) {
        requests(&input);
    }

    #[test]
    fn what_looks_like_requests_is_the_same_in_any_pieces(
        head: [u8; 3],
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "*1\r\n", "*2\r\n", "*3\r\n", "*11\r\n", "*-1\r\n", "*x\r\n", "*", "$", "\r", "\n", "\r\n",
                "$0\r\n\r\n", "$3\r\nGET\r\n", "$3\r\nset\r\n", "$1\r\nk\r\n", "$5\r\nPERSI\r\n", "$-1\r\n",
                "$17\r\n", "$20000\r\n", "$99999\r\n", "GET k\r\n", "\"", "'", "\\x41", "\\", " ", "a", "\0",
                "EX", "POST ", "client list\r\n", "command docs get\r\n", "hello 3 auth a\r\n",
            ]),
            0..24,
        ),
    ) {
        requests(&[&head[..], tokens.concat().as_bytes()].concat());
    }

    #[test]
    fn what_was_written_is_read(
        written in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            0..6,
        ),
        size in 1usize..50,
    ) {
        let http = |request: &Vec<Vec<u8>>| {
            [&b"post"[..], b"host:"].contains(&&*request[0].to_ascii_lowercase())
        };
        prop_assume!(!written.iter().any(http));
        let bytes = encoded(&written);
        let said = read(&bytes, Limits::default(), true, |_| size);
        prop_assert_eq!(said, Said { requests: written, end: None, left: 0 });
    }

    #[test]
    fn what_was_typed_is_read(
        typed in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
        size in 1usize..50,
    ) {
        let line: Vec<String> = typed.iter().map(|argument| quoted(argument)).collect();
        let bytes = line.join(" ") + "\r\n";
        let said = read(bytes.as_bytes(), Limits::default(), true, |_| size);
        prop_assert_eq!(said, Said { requests: vec![typed], end: None, left: 0 });
    }
}
