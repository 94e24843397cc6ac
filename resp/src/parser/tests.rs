use super::*;

fn words(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut buffer = bytes.to_vec();
    let mut parser = authenticated(Limits::default());
    match parser.parse(&mut buffer)? {
        Parsed::Request { bytes: taken } => assert_eq!(taken, bytes.len()),
        Parsed::Nothing { bytes: taken } => assert_eq!(taken, bytes.len()),
        Parsed::Partial { .. } => panic!("{bytes:?} is not complete"),
    }
    Ok(parser.arguments(&buffer).iter().map(|argument| argument.to_vec()).collect())
}

fn authenticated(limits: Limits) -> Parser {
    let mut parser = Parser::new(limits);
    parser.set_authenticated(true);
    parser
}

fn error_of(parser: &mut Parser, bytes: &[u8]) -> ProtocolError {
    parser.parse(&mut bytes.to_vec()).expect_err("it is wrong")
}

#[test]
fn an_inline_request_is_split_at_blanks_outside_of_quotes() {
    for (line, expected) in [
        ("GET k\r\n", &[&b"GET"[..], b"k"][..]),
        ("  GET\t\x0b k  \n", &[b"GET", b"k"]),
        ("a\x0bb\n", &[b"a\x0bb"]),
        (r#"SET "a b" 'c d'"#, &[b"SET", b"a b", b"c d"]),
        (r#""" ''"#, &[b"", b""]),
        (r#"a"b"c"#, &[]),
        (r#"pre"fix" x"#, &[b"prefix", b"x"]),
        (r#""\x41\x6g\xfF\n\r\t\b\a\q\"\\""#, &[b"Ax6g\xff\n\r\t\x08\x07q\"\\"]),
        (r#"'\x41\n\'\"'"#, &[b"\\x41\\n'\\\""]),
        (r"a\ b\x41", &[b"a\\", b"b\\x41"]),
        ("a\0b c", &[b"a\0b", b"c"]),
    ] {
        let line = if line.ends_with('\n') { line.to_owned() } else { format!("{line}\r\n") };
        match words(line.as_bytes()) {
            Ok(words) => assert_eq!(words, expected, "{line:?}"),
            Err(error) => {
                assert_eq!(error, ProtocolError::Quotes);
                assert!(expected.is_empty(), "{line:?}");
            }
        }
    }
    for line in ["\"a\n", "'a\n", "\"a\\\n", "'a\\'\n", "\"a\"b\n", "'a'b\n", "\"\\\"\n"] {
        assert_eq!(words(line.as_bytes()), Err(ProtocolError::Quotes), "{line:?}");
    }
}

#[test]
fn empty_requests_take_their_bytes_and_are_none() {
    for bytes in ["\r\n", "\n", "   \r\n", "*0\r\n", "*-1\r\n", "*-5\r\n"] {
        let mut buffer = bytes.as_bytes().to_vec();
        let mut parser = authenticated(Limits::default());
        assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Nothing { bytes: bytes.len() }));
        assert!(parser.arguments(&buffer).is_empty());
    }
    assert_eq!(authenticated(Limits::default()).parse(&mut []), Ok(Parsed::Partial { missing: 1 }));
}

#[test]
fn arguments_are_bytes_of_the_buffer() {
    let mut buffer = b"*2\r\n$3\r\nGET\r\n$4\r\nk\r\n\0\r\nrest".to_vec();
    let mut parser = authenticated(Limits::default());
    assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Request { bytes: buffer.len() - 4 }));
    let arguments = parser.arguments(&buffer);
    let key = arguments.get(1).expect("two arguments").0;
    assert_eq!(key, b"k\r\n\0");
    assert!(buffer.as_ptr_range().contains(&key.as_ptr()));
    assert_eq!((arguments.len(), arguments.get(2)), (2, None));
}

#[test]
fn arguments_are_none_until_all_are_there() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let mut parser = authenticated(Limits::default());
    for end in 0..bytes.len() {
        let mut buffer = bytes[..end].to_vec();
        assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Partial { .. })));
        assert!(parser.arguments(&buffer).is_empty());
        assert_eq!(parser.is_within_request(), end > 0);
    }
    assert!(matches!(parser.parse(&mut bytes.to_vec()), Ok(Parsed::Request { .. })));
    assert!(!parser.is_within_request());
}

#[test]
fn what_is_missing_is_never_more_than_what_comes() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n";
    let mut parser = authenticated(Limits::default());
    let mut asked = Vec::new();
    for end in 0..bytes.len() {
        match parser.parse(&mut bytes[..end].to_vec()) {
            Ok(Parsed::Partial { missing }) => {
                assert!(end + missing <= bytes.len(), "{missing} at {end}");
                asked.push(missing);
            }
            other => panic!("{other:?}"),
        }
    }
    // In the middle of `SET`: its rest, a line's end, and two arguments of nothing.
    assert_eq!(asked[10], 1 + 2 + 2 * BULK_BYTES_MIN);
}

#[test]
fn what_is_understood_is_not_looked_at_again() {
    let mut parser = authenticated(Limits::default());
    let mut buffer = b"*2\r\n$3\r\nGET\r\n$6\r\nab".to_vec();
    assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Partial { missing: 6 }));
    buffer[..17].fill(b'x');
    buffer.extend_from_slice(b"cdef\r\n");
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Request { .. })));
    assert_eq!(parser.arguments(&buffer).get(1).expect("two").0, b"abcdef");

    // Where no line ended before, none ends now.
    let mut parser = authenticated(Limits::default());
    let mut buffer = vec![b'a'; 1000];
    assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Partial { missing: 1 }));
    buffer[500] = b'\n';
    buffer.extend_from_slice(b"b\n");
    assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Request { bytes: 1002 }));
}

#[test]
fn wrong_numbers_end_the_connection() {
    use ProtocolError::{BulkLength, ExpectedBulk, MultibulkLength};
    for (bytes, error) in [
        ("*a\r\n", MultibulkLength),
        ("*\r\n", MultibulkLength),
        ("* 1\r\n", MultibulkLength),
        ("*01\r\n", MultibulkLength),
        ("*+1\r\n", MultibulkLength),
        ("*1048577\r\n", MultibulkLength),
        ("*99999999999999999999\r\n", MultibulkLength),
        ("*1\0\r\n", MultibulkLength),
        ("*1\r\n$-1\r\n", BulkLength),
        ("*1\r\n$a\r\n", BulkLength),
        ("*1\r\n$\r\n", BulkLength),
        ("*1\r\n$536870913\r\n", BulkLength),
        ("*1\r\n3\r\n", ExpectedBulk(b'3')),
        ("*1\r\n\r\n", ExpectedBulk(b'\r')),
        ("*1\r\n*1\r\n", ExpectedBulk(b'*')),
    ] {
        assert_eq!(error_of(&mut authenticated(Limits::default()), bytes.as_bytes()), error);
    }
}

#[test]
fn a_nul_is_not_repeated() {
    let said = |byte| {
        let mut out = Vec::new();
        assert!(ProtocolError::ExpectedBulk(byte).write(&mut out));
        String::from_utf8(out).expect("text")
    };
    assert_eq!(said(b'x'), "Protocol error: expected '$', got 'x'");
    assert_eq!(said(0), "Protocol error: expected '$', got '");
}

#[test]
fn strangers_may_announce_little() {
    let stranger = || Parser::new(Limits::default());
    assert_eq!(
        error_of(&mut stranger(), b"*11\r\n"),
        ProtocolError::UnauthenticatedMultibulkLength
    );
    assert_eq!(
        error_of(&mut stranger(), b"*1\r\n$16385\r\n"),
        ProtocolError::UnauthenticatedBulkLength
    );
    let mut parser = stranger();
    let mut buffer = b"*10\r\n$16384\r\n".to_vec();
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Partial { .. })));
    // It may authenticate in the meantime, in a request that was sent with this one.
    let mut parser = stranger();
    parser.set_authenticated(true);
    assert!(matches!(parser.parse(&mut b"*11\r\n$16385\r\n".to_vec()), Ok(Parsed::Partial { .. })));
}

#[test]
fn a_line_has_64_kib() {
    for (first, error) in
        [(b'*', ProtocolError::MultibulkCountLine), (b'a', ProtocolError::InlineLine)]
    {
        let mut parser = authenticated(Limits::default());
        let mut buffer = vec![first; INLINE_BYTES_MAX];
        assert_eq!(parser.parse(&mut buffer), Ok(Parsed::Partial { missing: 1 }));
        buffer.push(first);
        assert_eq!(parser.parse(&mut buffer), Err(error));
        // Also if its end is there already.
        buffer.extend_from_slice(b"\r\n");
        assert_eq!(error_of(&mut authenticated(Limits::default()), &buffer), error);
    }
    let mut buffer = b"*1\r\n".to_vec();
    buffer.resize(buffer.len() + INLINE_BYTES_MAX + 1, b'$');
    assert_eq!(
        error_of(&mut authenticated(Limits::default()), &buffer),
        ProtocolError::BulkCountLine
    );
}

#[test]
fn a_request_beyond_its_limits_is_refused_when_it_is_announced() {
    let limits = Limits { arguments_max: 3, bulk_bytes_max: 50, request_bytes_max: 60 };
    let parser = || authenticated(limits);
    assert_eq!(error_of(&mut parser(), b"*4\r\n"), ProtocolError::MultibulkLength);
    assert_eq!(error_of(&mut parser(), b"*1\r\n$51\r\n"), ProtocolError::BulkLength);
    assert_eq!(error_of(&mut parser(), b"*3\r\n$48\r\n"), ProtocolError::RequestBytes);
    assert_eq!(error_of(&mut parser(), b"a b c d\r\n"), ProtocolError::MultibulkLength);
    assert_eq!(error_of(&mut parser(), &[b'a'; 60]), ProtocolError::InlineLine);
    assert_eq!(parser().parse(&mut [b'a'; 59]), Ok(Parsed::Partial { missing: 1 }));
    assert_eq!(error_of(&mut parser(), &[b'*'; 59]), ProtocolError::MultibulkCountLine);
    assert_eq!(parser().parse(&mut [b'*'; 58]), Ok(Parsed::Partial { missing: 1 }));
    assert_eq!(error_of(&mut parser(), b"*1\r\n$50\r\n"), ProtocolError::RequestBytes);
    let short = Limits { arguments_max: 10, request_bytes_max: 27, ..limits };
    assert_eq!(error_of(&mut authenticated(short), b"*4\r\n"), ProtocolError::RequestBytes);
    let short = Limits { request_bytes_max: 28, ..short };
    let partial = authenticated(short).parse(&mut b"*4\r\n".to_vec());
    assert_eq!(partial, Ok(Parsed::Partial { missing: 19 }));
    let mut fits = b"*1\r\n$49\r\n".to_vec();
    assert_eq!(parser().parse(&mut fits), Ok(Parsed::Partial { missing: 51 }));
    fits.resize(60, b'\r');
    assert_eq!(parser().parse(&mut fits), Ok(Parsed::Request { bytes: 60 }));
}

/// A fuzzer's find: where a line ended with the last byte that a request may have, and its `\n` was to come, more was wanted
/// than may be kept. The end of a line has to fit too.
#[test]
fn nothing_beyond_the_limit_is_waited_for() {
    let request = b"*2\r\n$3\r\nGET\r\n$000000000001\r\nk\r\n";
    for bytes in [&request[..], &[b'*'; 30], b"GET k \"a b\" 'c'                    \n"] {
        for request_bytes_max in 1..bytes.len() {
            let limits =
                Limits { request_bytes_max: request_bytes_max as u32, ..Limits::default() };
            let waits = |end: &usize| {
                let mut parser = authenticated(limits);
                parser.parse(&mut bytes[..*end].to_vec()).is_ok()
            };
            let waited = (0..bytes.len()).take_while(waits).last().unwrap_or_default();
            assert!(waited < request_bytes_max, "{waited} of {request_bytes_max}");
        }
    }
}

#[test]
fn an_announcement_allocates_nothing() {
    let mut parser = authenticated(Limits::default());
    let mut buffer = b"*1048576\r\n$536870912\r\nabc".to_vec();
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Partial { .. })));
    assert_eq!(parser.memory_bytes(), 0);
}

#[test]
fn places_of_many_arguments_are_given_back() {
    let mut parser = authenticated(Limits::default());
    let mut buffer = b"*10000\r\n".to_vec();
    for _ in 0..10_000 {
        buffer.extend_from_slice(b"$0\r\n\r\n");
    }
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Request { .. })));
    assert!(parser.memory_bytes() >= 80_000);
    assert!(matches!(parser.parse(&mut b"PING\r\n".to_vec()), Ok(Parsed::Request { .. })));
    assert!(parser.memory_bytes() <= SPANS_KEPT * size_of::<Span>());
}

#[test]
fn places_of_a_thousand_arguments_are_kept() {
    let mut parser = authenticated(Limits::default());
    let mut buffer = b"*1000\r\n".to_vec();
    for _ in 0..1000 {
        buffer.extend_from_slice(b"$0\r\n\r\n");
    }
    assert!(matches!(parser.parse(&mut buffer), Ok(Parsed::Request { .. })));
    let kept = parser.memory_bytes();
    assert!(matches!(parser.parse(&mut b"PING\r\n".to_vec()), Ok(Parsed::Request { .. })));
    assert_eq!(parser.memory_bytes(), kept);
}

#[test]
fn a_failure_is_repeated_whatever_the_buffer() {
    for bytes in ["*1\r\n$x\r\n", "*x\r\n", "a 'b\r\n"] {
        let mut parser = authenticated(Limits::default());
        let error = error_of(&mut parser, bytes.as_bytes());
        assert_eq!(error_of(&mut parser, b""), error);
        assert_eq!(error_of(&mut parser, b"*1\r\n$4\r\nPING\r\n"), error);
        assert!(parser.arguments(b"").is_empty());
    }
}

#[test]
fn http_ends_the_connection_without_an_answer() {
    for bytes in
        ["POST / HTTP/1.1\r\n", "post\r\n", "hOst: example.org\r\n", "*1\r\n$4\r\nPOST\r\n"]
    {
        let error = error_of(&mut Parser::new(Limits::default()), bytes.as_bytes());
        assert_eq!(error, ProtocolError::Http);
        assert!(!error.write(&mut Vec::new()));
    }
    // A GET is a command.
    assert!(words(b"GET / HTTP/1.1\r\n").is_ok());
}

/// What looks ahead finds what libraries write, and only between requests.
#[test]
fn a_get_is_found_ahead_where_it_is_whole_and_plain() {
    let mut parser = authenticated(Limits::default());
    let get = b"*2\r\n$3\r\nget\r\n$12\r\nsess:1234567\r\nmore";
    assert_eq!(parser.find_get(get), Some((&b"sess:1234567"[..], &b"more"[..])));
    for other in [
        &get[..31],
        b"*2\r\n$3\r\nSET\r\n$1\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$-1\r\n",
        b"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nkey\r\n",
        b"GET k\r\n",
        b"",
    ] {
        assert_eq!(parser.find_get(other), None, "{other:?}");
    }
    let mut begun = b"*2\r\n$3\r\nGET\r\n$33\r\n".to_vec();
    assert!(matches!(parser.parse(&mut begun), Ok(Parsed::Partial { .. })));
    assert_eq!(parser.find_get(get), None);
    begun.extend_from_slice(get);
    begun.truncate(18 + 33);
    begun.extend_from_slice(b"\r\n");
    assert!(matches!(parser.parse(&mut begun), Ok(Parsed::Request { .. })));
    assert_eq!(parser.find_get(get), Some((&b"sess:1234567"[..], &b"more"[..])));
}

/// What is refused is not found ahead either.
#[test]
fn a_get_beyond_the_limits_is_not_found_ahead() {
    let get = b"*2\r\n$3\r\nget\r\n$12\r\nsess:1234567\r\n";
    let default = Limits::default();
    let enough = Limits { arguments_max: 2, bulk_bytes_max: 12, request_bytes_max: 32 };
    for (limits, is_found) in [
        (default, true),
        (enough, true),
        (Limits { arguments_max: 1, ..default }, false),
        (Limits { bulk_bytes_max: 11, ..default }, false),
        (Limits { request_bytes_max: 31, ..default }, false),
    ] {
        let mut parser = authenticated(limits);
        assert_eq!(parser.find_get(get).is_some(), is_found, "{limits:?}");
        let parsed = parser.parse(&mut get.to_vec());
        assert_eq!(matches!(parsed, Ok(Parsed::Request { .. })), is_found, "{limits:?}");
    }
    // Nor one whose name is too long.
    let limits = Limits { bulk_bytes_max: 2, ..default };
    let short = b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n";
    assert_eq!(authenticated(limits).find_get(short), None);
    assert!(authenticated(limits).parse(&mut short.to_vec()).is_err());
}
