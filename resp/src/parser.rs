//! Requests in a stream of bytes: arrays of bulk strings, and inline commands, which people type.
//!
//! ```text
//! *2\r\n$3\r\nGET\r\n$1\r\nk\r\n      an array: how many, then each with its size
//! GET "a \x6b ey"\r\n                 inline: words, quoted where they have blanks
//! ```
//!
//! What is read and what is refused, and the words of it, are Redis' (`processMultibulkBuffer`, `processInlineBuffer` and
//! `sdssplitargs` of 7.0), with its leniency: what stands where `\r\n` belongs behind a size or a bulk is not looked at.
//! Two things are not: Redis waits for more when a line has a NUL, where we go on; and whether a line is too
//! long depends there on how it arrives, here on its length alone.

use crate::arguments::{Arguments, Span};
use crate::number::integer;

/// The longest inline request, and the longest line that announces a number, without its end.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

// What a connection may announce before it has authenticated, as in Redis since 6.2.7.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16 * 1024;

// An argument takes at least so many bytes: `$0\r\n\r\n`.
const BULK_BYTES_MIN: usize = 6;

// What a GET begins with, before the size of its key, and how many digits of that a short cut looks at.
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$";
const GET_DIGITS_MAX: usize = 3;

// More places for arguments than this are given back before the next request.
const SPANS_KEPT: usize = 1024;

/// What a request may be. Whatever it announces, nothing is allocated before it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most arguments of a request, its name among them; each that has arrived costs 8 to 16 bytes. The
    /// default is 2^20, that of Redis before 7.0.
    pub arguments_max: u32,
    /// The most bytes of an argument. The default is 512 MiB, that of Redis (`proto-max-bulk-len`).
    pub bulk_bytes_max: u32,
    /// The most bytes of a request, which its caller has to keep until it is complete. The default is 1 GiB, that of
    /// Redis (`client-query-buffer-limit`).
    pub request_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { arguments_max: 1 << 20, bulk_bytes_max: 512 << 20, request_bytes_max: 1 << 30 }
    }
}

/// What [`Parser::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request, in so many bytes at the beginning of the buffer; [`Parser::arguments`] has at least one.
    Request {
        /// The bytes that it took.
        bytes: usize,
    },
    /// An empty line, or an array of none. There is nothing to answer, and more may follow.
    Nothing {
        /// The bytes that it took.
        bytes: usize,
    },
    /// A request has begun, or nothing is there.
    Partial {
        /// It takes at least so many bytes more, at least 1. That is what a stranger announces: read up to so many, but allocate
        /// for those that have come, never for so many.
        missing: usize,
    },
}

/// Bytes that are no request. The connection ends, after the answer if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of arguments is none, or more than the limit.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// The size of an argument is none, or more than the limit.
    #[error("invalid bulk length")]
    BulkLength,
    /// Where an argument's size should be is something else, which begins with this byte.
    #[error("expected '$', got byte {0}")]
    ExpectedBulk(u8),
    /// The line with the number of arguments does not end.
    #[error("too big mbulk count string")]
    MultibulkCountLine,
    /// The line with an argument's size does not end.
    #[error("too big bulk count string")]
    BulkCountLine,
    /// An inline request does not end.
    #[error("too big inline request")]
    InlineLine,
    /// A quote in an inline request is not closed, or something other than a blank follows it.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// More than 10 arguments from somebody who has not authenticated.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// More than 16384 bytes of an argument from somebody who has not authenticated.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// More bytes than the limit. Redis ends the connection without a word.
    #[error("too big request")]
    RequestBytes,
    /// It is HTTP: the first word is `POST` or `Host:`. Somebody may be abusing another's browser; there is no answer.
    #[error("HTTP")]
    Http,
}

impl ProtocolError {
    /// Appends the text of the answer, without its prefix `ERR`. Returns whether there is one.
    pub fn write(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Http => return false,
            Self::ExpectedBulk(byte) => {
                out.extend_from_slice(b"Protocol error: expected '$', got '");
                // C prints nothing from a NUL on.
                if *byte != 0 {
                    out.extend_from_slice(&[*byte, b'\'']);
                }
            }
            other => out.extend_from_slice(format!("Protocol error: {other}").as_bytes()),
        }
        true
    }
}

/// Finds the requests of one connection, one after the other, in a buffer that the caller keeps.
///
/// Call [`parse`](Self::parse) with all bytes from where the last request ended; when it wants more, with the same bytes
/// and those that followed. No byte is looked at twice, however small the pieces in which they come. Its own memory is
/// that for the places of the arguments that have arrived.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    authenticated: bool,
    spans: Vec<Span>,
    stands: Stands,
    /// The offset up to which everything is understood.
    position: usize,
    /// The offset up to which there is no end of the line that begins at `position`.
    searched: usize,
}

/// Where a parser stands.
#[derive(Clone, Copy, Debug)]
enum Stands {
    /// Before a request, or in its first line.
    Begin,
    /// Before the size of an argument, or in it.
    Size { left: u32 },
    /// In an argument.
    Bulk { left: u32, size: u32 },
    /// Behind a request.
    Done,
    /// Behind an error.
    Failed(ProtocolError),
}

impl Parser {
    /// For a connection that has yet to authenticate.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            authenticated: false,
            spans: Vec::new(),
            stands: Stands::Begin,
            position: 0,
            searched: 0,
        }
    }

    /// Whether its limits are those of the configuration from now on, or the narrow ones for strangers. To be called before
    /// the next request is looked for, whenever that may have changed: after AUTH, HELLO with AUTH, and RESET.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Looks for the next request at the beginning of `buffer`. The quotes of an inline request are resolved in place,
    /// once it is complete; nothing else changes.
    ///
    /// # Errors
    /// [`ProtocolError`]: the connection has to end. All calls that follow say the same, whatever they are given.
    ///
    /// # Panics
    /// If bytes that it had for a request that is not complete are gone.
    pub fn parse(&mut self, buffer: &mut [u8]) -> Result<Parsed, ProtocolError> {
        if let Stands::Done = self.stands {
            (self.stands, self.position, self.searched) = (Stands::Begin, 0, 0);
            self.spans.clear();
            if self.spans.capacity() > SPANS_KEPT {
                self.spans.shrink_to(SPANS_KEPT);
            }
        }
        if let Stands::Failed(error) = self.stands {
            return Err(error);
        }
        assert!(buffer.len() >= self.searched, "bytes of the request are gone");
        let parsed = self.step(buffer);
        match parsed {
            Ok(Parsed::Partial { .. }) => {}
            Ok(_) => self.stands = Stands::Done,
            Err(error) => self.stands = Stands::Failed(error),
        }
        parsed
    }

    /// The arguments of the request that [`parse`](Self::parse) found last, with the buffer that it was given: valid until it
    /// is called again. None, if it found no request.
    ///
    /// # Panics
    /// [`Arguments::get`] and what stands on it, if the buffer is shorter than that one. If it is another one, the arguments are
    /// some of its bytes.
    pub fn arguments<'a>(&'a self, buffer: &'a [u8]) -> Arguments<'a> {
        let complete = matches!(self.stands, Stands::Done);
        Arguments::new(buffer, if complete { &self.spans } else { &[] })
    }

    /// The GET at the beginning of `buffer`, if there is one as client libraries write it and no other request has begun: its
    /// key, and what follows it. A short cut for whoever looks ahead: [`parse`](Self::parse) finds the same
    /// there, and also all GETs that this does not find. The parser stays as it is.
    pub fn find_get<'a>(&self, buffer: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let is_between = !self.is_within_request() && !matches!(self.stands, Stands::Failed(_));
        let (begin, rest) = buffer.split_at_checked(GET.len())?;
        if !is_between || !begin.eq_ignore_ascii_case(GET) {
            return None;
        }
        let digits =
            rest.iter().take(GET_DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = rest.split_at(digits);
        // None, and those with a sign or a zero too many, are left to the parser.
        let is_usual = matches!(digits, [b'1'..=b'9', ..]);
        let size = digits.iter().fold(0, |size, digit| 10 * size + usize::from(digit - b'0'));
        let rest = rest.strip_prefix(b"\r\n").filter(|_| is_usual)?;
        let (key, rest) = rest.split_at_checked(size)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        let Limits { arguments_max, bulk_bytes_max, request_bytes_max } = self.limits;
        let is_within = arguments_max >= 2
            && size.max(3) <= bulk_bytes_max as usize
            && buffer.len() - rest.len() <= request_bytes_max as usize;
        is_within.then_some((key, rest))
    }

    /// Whether a request has begun and is not complete.
    pub fn is_within_request(&self) -> bool {
        match self.stands {
            Stands::Begin => self.searched > 0,
            Stands::Size { .. } | Stands::Bulk { .. } => true,
            Stands::Done | Stands::Failed(_) => false,
        }
    }

    /// The bytes of memory that it has besides itself: at most 8 KiB and eight times those of the request that it is in
    /// (an inline one, of single letters; three times those of an array).
    pub fn memory_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<Parsed, ProtocolError> {
        if let Stands::Begin = self.stands {
            let Some(&first) = buffer.first() else {
                return Ok(Parsed::Partial { missing: 1 });
            };
            if first != b'*' {
                return self.inline(buffer);
            }
            let Some(number) = self.number(buffer, ProtocolError::MultibulkCountLine)? else {
                return Ok(Parsed::Partial { missing: 1 });
            };
            match number {
                Some(count) if count <= i64::from(self.limits.arguments_max) => {
                    if count > UNAUTHENTICATED_ARGUMENTS_MAX && !self.authenticated {
                        return Err(ProtocolError::UnauthenticatedMultibulkLength);
                    }
                    if count <= 0 {
                        return Ok(Parsed::Nothing { bytes: self.position });
                    }
                    let left = count as u32;
                    self.refuse_longer(self.position, left)?;
                    self.stands = Stands::Size { left };
                }
                _ => return Err(ProtocolError::MultibulkLength),
            }
        }
        loop {
            match self.stands {
                Stands::Size { left: 0 } => {
                    self.refuse_http(buffer)?;
                    return Ok(Parsed::Request { bytes: self.position });
                }
                Stands::Size { left } => {
                    let begin = self.position;
                    let Some(number) = self.number(buffer, ProtocolError::BulkCountLine)? else {
                        let missing = 1 + (left as usize - 1) * BULK_BYTES_MIN;
                        return Ok(Parsed::Partial { missing });
                    };
                    if buffer[begin] != b'$' {
                        return Err(ProtocolError::ExpectedBulk(buffer[begin]));
                    }
                    match number {
                        Some(size @ 0..) if size <= i64::from(self.limits.bulk_bytes_max) => {
                            if size > UNAUTHENTICATED_BULK_BYTES_MAX && !self.authenticated {
                                return Err(ProtocolError::UnauthenticatedBulkLength);
                            }
                            let size = size as u32;
                            self.refuse_longer(self.position + size as usize + 2, left - 1)?;
                            self.stands = Stands::Bulk { left, size };
                        }
                        _ => return Err(ProtocolError::BulkLength),
                    }
                }
                Stands::Bulk { left, size } => {
                    let end = self.position + size as usize;
                    if buffer.len() < end + 2 {
                        let others = (left as usize - 1) * BULK_BYTES_MIN;
                        return Ok(Parsed::Partial { missing: end + 2 - buffer.len() + others });
                    }
                    self.spans.push(Span { from: self.position as u32, to: end as u32 });
                    self.stands = Stands::Size { left: left - 1 };
                    (self.position, self.searched) = (end + 2, end + 2);
                }
                Stands::Begin | Stands::Done | Stands::Failed(_) => {
                    unreachable!("a request has begun")
                }
            }
        }
    }

    /// Refuses a request that is understood up to `end` and has so many arguments to come, if it cannot become short
    /// enough. When this is asked does not depend on the pieces in which it comes.
    fn refuse_longer(&self, end: usize, left: u32) -> Result<(), ProtocolError> {
        let least = end + left as usize * BULK_BYTES_MIN;
        if least > self.limits.request_bytes_max as usize {
            return Err(ProtocolError::RequestBytes);
        }
        Ok(())
    }

    /// The number behind the first byte of the line at the position, which then is behind it; `Some(None)` if that is
    /// none, `None` if the line has not ended.
    fn number(
        &mut self,
        buffer: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<Option<i64>>, ProtocolError> {
        let Some(end) = self.find(buffer, b'\r', too_long)? else { return Ok(None) };
        if end + 1 >= buffer.len() {
            // Found again when the next byte is there.
            self.searched = end;
            return Ok(None);
        }
        // The line may be empty, of which the first byte is then the end.
        let number = buffer.get(self.position + 1..end).and_then(integer);
        (self.position, self.searched) = (end + 2, end + 2);
        Ok(Some(number))
    }

    /// The offset of the byte that ends the line at the position.
    fn find(
        &mut self,
        buffer: &[u8],
        end: u8,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        // Its offset is at most this: a `\n` may be the request's last byte, behind a `\r` is one more.
        let line_end_bytes = if end == b'\n' { 1 } else { 2 };
        let request_bytes_max = self.limits.request_bytes_max as usize;
        let end_max = (self.position + INLINE_BYTES_MAX)
            .min(request_bytes_max.saturating_sub(line_end_bytes));
        let window = buffer.len().min(end_max + 1);
        if let Some(at) = buffer[self.searched..window].iter().position(|&byte| byte == end) {
            return Ok(Some(self.searched + at));
        }
        self.searched = window;
        if window > end_max { Err(too_long) } else { Ok(None) }
    }

    fn inline(&mut self, buffer: &mut [u8]) -> Result<Parsed, ProtocolError> {
        let Some(newline) = self.find(buffer, b'\n', ProtocolError::InlineLine)? else {
            return Ok(Parsed::Partial { missing: 1 });
        };
        let line = &mut buffer[..newline];
        let line = match line {
            [rest @ .., b'\r'] => rest,
            line => line,
        };
        split_words(line, &mut self.spans)?;
        if self.spans.len() > self.limits.arguments_max as usize {
            return Err(ProtocolError::MultibulkLength);
        }
        if self.spans.is_empty() {
            return Ok(Parsed::Nothing { bytes: newline + 1 });
        }
        self.refuse_http(buffer)?;
        Ok(Parsed::Request { bytes: newline + 1 })
    }

    fn refuse_http(&self, buffer: &[u8]) -> Result<(), ProtocolError> {
        let first = Arguments::new(buffer, &self.spans).get(0);
        match first {
            Some(word) if word.is("post") || word.is("host:") => Err(ProtocolError::Http),
            _ => Ok(()),
        }
    }
}

/// The words of a line, each moved to the front of where it stood if it has quotes: a word takes fewer bytes than what
/// stands for it. The rules are those of Redis' `sdssplitargs`, but that a NUL is a byte like others.
fn split_words(line: &mut [u8], spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_blank(byte)) {
            at += 1;
        }
        if at == line.len() {
            return Ok(());
        }
        let from = at;
        let mut to = at;
        let mut quote = None;
        loop {
            let rest = &line[at..];
            // What stands at the front of the rest, as a byte and what it took; no byte at a word's end.
            let (byte, took) = match (quote, rest) {
                (None, [] | [b' ' | b'\n' | b'\r' | b'\t', ..]) => break,
                (None, [mark @ (b'"' | b'\''), ..]) => {
                    quote = Some(*mark);
                    at += 1;
                    continue;
                }
                (Some(_), []) => return Err(ProtocolError::Quotes),
                (Some(mark), [byte, after @ ..]) if *byte == mark => {
                    if after.first().is_some_and(|&byte| !is_blank(byte)) {
                        return Err(ProtocolError::Quotes);
                    }
                    at += 1;
                    break;
                }
                (Some(b'"'), [b'\\', b'x', high, low, ..])
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    (hex_digit(*high) << 4 | hex_digit(*low), 4)
                }
                (Some(b'"'), [b'\\', byte, ..]) => (
                    match byte {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    },
                    2,
                ),
                (Some(b'\''), [b'\\', b'\'', ..]) => (b'\'', 2),
                (_, [byte, ..]) => (*byte, 1),
            };
            line[to] = byte;
            to += 1;
            at += took;
        }
        spans.push(Span { from: from as u32, to: to as u32 });
    }
}

/// What `isspace` of C says.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests;
