//! What happens to one input of a fuzzer: the bytes of a client, in any pieces. Nothing may panic, requests and errors are the
//! same in whatever pieces they come, and nothing is allocated on a stranger's word. The libFuzzer target in `fuzz/` and the
//! tests share this body.

use annulus_resp::{
    Arguments, Command, Limits, Parsed, Parser, Protocol, ProtocolError, Writer, table,
};

/// The input's first bytes choose limits, who asks, and the pieces; the rest is what the client sends.
pub(crate) fn requests(input: &[u8]) {
    let Some((&[kind, size, turn], bytes)) = input.split_first_chunk() else { return };
    let limits = match kind % 3 {
        0 => Limits::default(),
        1 => Limits { arguments_max: 4, bulk_bytes_max: 16, request_bytes_max: 64 },
        _ => Limits { arguments_max: 1000, bulk_bytes_max: 100_000, request_bytes_max: 200_000 },
    };
    let authenticated = kind & 0x80 == 0;
    let whole = read(bytes, limits, authenticated, |_| bytes.len().max(1));
    let pieces = read(bytes, limits, authenticated, |piece| {
        1 + usize::from(if piece % 2 == 0 { size } else { turn })
    });
    assert_eq!(whole, pieces);
    let single = read(bytes, limits, authenticated, |_| 1);
    assert_eq!(whole, single);
}

/// What the client is understood to say: the arguments of its requests and the error with which it ends, or the bytes that
/// are left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) requests: Vec<Vec<Vec<u8>>>,
    pub(crate) end: Option<ProtocolError>,
    pub(crate) left: usize,
}

/// Reads bytes in pieces of the sizes that `size_of` gives for the first, the second and so on.
pub(crate) fn read(
    bytes: &[u8],
    limits: Limits,
    authenticated: bool,
    size_of: impl Fn(usize) -> usize,
) -> Said {
    let mut said = Said::default();
    let mut parser = Parser::new(limits);
    parser.set_authenticated(authenticated);
    let (mut buffer, mut rest, mut piece) = (Vec::new(), bytes, 0);
    while !rest.is_empty() {
        let (next, others) = rest.split_at(size_of(piece).min(rest.len()));
        buffer.extend_from_slice(next);
        (rest, piece) = (others, piece + 1);
        loop {
            let before = buffer.len();
            let get = parser.find_get(&buffer).map(|(key, rest)| (key.to_vec(), rest.len()));
            let parsed = parser.parse(&mut buffer);
            assert_eq!(buffer.len(), before);
            assert!(parser.memory_bytes() <= 8192 + 8 * buffer.len());
            assert!(get.is_none() || matches!(parsed, Ok(Parsed::Request { .. })));
            match parsed {
                Ok(Parsed::Request { bytes }) => {
                    let arguments = parser.arguments(&buffer);
                    understand(arguments);
                    if let Some((key, left)) = get {
                        assert_eq!(left, buffer.len() - bytes);
                        let words = arguments.iter().map(|argument| argument.to_vec());
                        let words: Vec<_> = words.collect();
                        assert!(words[0].eq_ignore_ascii_case(b"get") && words[1] == key);
                        assert_eq!(words.len(), 2);
                    }
                    said.requests
                        .push(arguments.iter().map(|argument| argument.to_vec()).collect());
                    assert!(!arguments.is_empty());
                    buffer.drain(..bytes);
                }
                Ok(Parsed::Nothing { bytes }) => {
                    assert!(bytes > 0);
                    buffer.drain(..bytes);
                }
                Ok(Parsed::Partial { missing }) => {
                    assert!(missing > 0);
                    assert!(buffer.len() < limits.request_bytes_max as usize);
                    break;
                }
                Err(error) => {
                    assert_eq!(parser.parse(&mut buffer), Err(error));
                    said.end = Some(error);
                    return said;
                }
            }
        }
    }
    said.left = buffer.len();
    said
}

/// Whatever a request is, it is answered with one reply that ends where it should.
fn understand(arguments: Arguments<'_>) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, protocol);
        match table::find(arguments).and_then(|spec| Command::parse(spec, arguments)) {
            Ok(Command::Command(query)) => table::answer(query, &mut writer),
            Ok(command) => writer.simple(&format!("{command:?}")),
            Err(error) => {
                writer.refuse(&error);
                assert_eq!(out.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(), 2);
            }
        }
        assert!(out.ends_with(b"\r\n"));
    }
}
