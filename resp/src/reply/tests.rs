use super::*;

fn written(protocol: Protocol, write: impl FnOnce(&mut Writer<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out, protocol));
    String::from_utf8(out).expect("text")
}

/// In RESP2 and in RESP3.
#[track_caller]
fn writes(write: impl Fn(&mut Writer<'_>), resp2: &str, resp3: &str) {
    assert_eq!(written(Protocol::Resp2, &write), resp2);
    assert_eq!(written(Protocol::Resp3, &write), resp3);
}

#[test]
fn each_version_has_its_own_forms() {
    writes(|out| out.ok(), "+OK\r\n", "+OK\r\n");
    writes(|out| out.simple("PONG"), "+PONG\r\n", "+PONG\r\n");
    writes(|out| out.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
    writes(|out| out.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
    writes(|out| out.null(), "$-1\r\n", "_\r\n");
    writes(|out| out.null_array(), "*-1\r\n", "_\r\n");
    writes(|out| out.array(2), "*2\r\n", "*2\r\n");
    writes(|out| out.map(2), "*4\r\n", "%2\r\n");
    writes(|out| out.set(2), "*2\r\n", "~2\r\n");
    writes(|out| out.push(2), "*2\r\n", ">2\r\n");
    writes(|out| out.boolean(true), ":1\r\n", "#t\r\n");
    writes(|out| out.boolean(false), ":0\r\n", "#f\r\n");
    writes(|out| out.verbatim(b"ab"), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n");
    writes(|out| out.double(0.1), "$3\r\n0.1\r\n", ",0.1\r\n");
}

#[test]
fn integers_are_decimal() {
    for number in [0, 7, -7, 10, 1_234_567_890, i64::MAX, i64::MIN] {
        assert_eq!(written(Protocol::Resp2, |out| out.integer(number)), format!(":{number}\r\n"));
        let digits = number.to_string();
        let bulk = format!("${}\r\n{digits}\r\n", digits.len());
        assert_eq!(written(Protocol::Resp2, |out| out.bulk_integer(number)), bulk);
    }
}

#[test]
fn doubles_are_short_and_exact() {
    for (number, text) in [
        (0.0, "0"),
        (3.0, "3"),
        (-1.5, "-1.5"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "1e-5"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(double(number), text);
    }
    for number in [0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE, 1.0 / 3.0] {
        assert_eq!(double(number).parse(), Ok(number));
    }
}

#[test]
fn an_error_is_one_line() {
    let broken = |out: &mut Writer<'_>| out.error("ERR", b"a\r\nb\nc");
    writes(broken, "-ERR a  b c\r\n", "-ERR a  b c\r\n");
    let wrong = |out: &mut Writer<'_>| out.error("WRONGTYPE", texts::WRONG_TYPE);
    let text = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    writes(wrong, text, text);
}

#[test]
fn last_words_are_those_of_the_error() {
    let quotes = |out: &mut Writer<'_>| assert!(out.refuse_bytes(ProtocolError::Quotes));
    let text = "-ERR Protocol error: unbalanced quotes in request\r\n";
    writes(quotes, text, text);
    let line_end =
        |out: &mut Writer<'_>| assert!(out.refuse_bytes(ProtocolError::ExpectedBulk(b'\n')));
    let text = "-ERR Protocol error: expected '$', got ' '\r\n";
    writes(line_end, text, text);
    let http = |out: &mut Writer<'_>| assert!(!out.refuse_bytes(ProtocolError::Http));
    writes(http, "", "");
}

#[test]
fn a_bulk_is_appended_where_it_is_sent_from() {
    let text = written(Protocol::Resp2, |out| {
        out.bulk_with(3, |bytes| bytes.extend_from_slice(b"abc"));
    });
    assert_eq!(text, "$3\r\nabc\r\n");
}

#[test]
#[should_panic(expected = "not as long as announced")]
fn a_bulk_is_as_long_as_announced() {
    written(Protocol::Resp2, |out| out.bulk_with(3, |bytes| bytes.extend_from_slice(b"ab")));
}
