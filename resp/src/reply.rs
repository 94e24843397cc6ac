//! Replies, in either version of the protocol.

use std::fmt;

use crate::error::CommandError;
use crate::parser::ProtocolError;

/// The version of the protocol that a connection has agreed on with HELLO; at first it is RESP2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The version of all clients.
    #[default]
    Resp2,
    /// The one with maps, sets, doubles, booleans and pushes.
    Resp3,
}

impl Protocol {
    /// Its number in HELLO.
    pub fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// Texts of errors that depend on state, for [`Writer::error`], in Redis' words: clients compare some of them.
pub mod texts {
    /// With prefix `WRONGTYPE`: a key that holds something else.
    pub const WRONG_TYPE: &[u8] = b"Operation against a key holding the wrong kind of value";
    /// With prefix `NOAUTH`: a command of somebody who has to authenticate first.
    pub const NO_AUTH: &[u8] = b"Authentication required.";
    /// With prefix `NOAUTH`: HELLO of somebody who has to authenticate first, or in it.
    pub const NO_AUTH_HELLO: &[u8] = b"HELLO must be called with the client already authenticated, otherwise the \
        HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
        at the same time";
    /// With prefix `WRONGPASS`.
    pub const WRONG_PASS: &[u8] = b"invalid username-password pair or user is disabled.";
    /// With prefix `ERR`: AUTH with a password alone, where none is needed.
    pub const NO_PASSWORD: &[u8] =
        b"AUTH <password> called without any password configured for the default user. \
        Are you sure your configuration is correct?";
    /// With prefix `ERR`: SELECT of something that is not there.
    pub const DB_INDEX: &[u8] = b"DB index is out of range";
    /// With prefix `ERR`: RENAME or RENAMENX of something that is not there. Others, OBJECT among them, answer null.
    pub const NO_SUCH_KEY: &[u8] = b"no such key";
    /// With prefix `ERR`: an INCR beyond 64 bits.
    pub const OVERFLOW: &[u8] = b"increment or decrement would overflow";
    /// With prefix `ERR`: INCR of what is no number.
    pub const NOT_INTEGER: &[u8] = crate::error::NOT_INTEGER.as_bytes();
    /// With prefix `ERR`: INCRBYFLOAT of what is no number.
    pub const NOT_FLOAT: &[u8] = crate::error::NOT_FLOAT.as_bytes();
    /// With prefix `ERR`: ZINCRBY of an infinity by the opposite one.
    pub const SCORE_NOT_NUMBER: &[u8] = b"resulting score is not a number (NaN)";
    /// With prefix `ERR`: HINCRBY of what is no number.
    pub const HASH_NOT_INTEGER: &[u8] = b"hash value is not an integer";
    /// With prefix `ERR`: HINCRBYFLOAT of what is no number.
    pub const HASH_NOT_FLOAT: &[u8] = b"hash value is not a float";
    /// With prefix `BUSYKEY`: RESTORE where there is something, without REPLACE.
    pub const BUSY_KEY: &[u8] = b"Target key name already exists.";
    /// With prefix `ERR`: RESTORE of what no DUMP has told.
    pub const BAD_PAYLOAD: &[u8] = b"DUMP payload version or checksum are wrong";
    /// With prefix `ERR`: an APPEND or SETRANGE beyond the limit.
    pub const TOO_LONG: &[u8] = b"string exceeds maximum allowed size (proto-max-bulk-len)";
    /// With prefix `ERR`: a MULTI after another one.
    pub const NESTED_MULTI: &[u8] = b"MULTI calls can not be nested";
    /// With prefix `ERR`.
    pub const EXEC_WITHOUT_MULTI: &[u8] = b"EXEC without MULTI";
    /// With prefix `ERR`.
    pub const DISCARD_WITHOUT_MULTI: &[u8] = b"DISCARD without MULTI";
    /// With prefix `ERR`: a WATCH after a MULTI.
    pub const WATCH_IN_MULTI: &[u8] = b"WATCH inside MULTI is not allowed";
    /// With prefix `EXECABORT`: one of the commands was refused before.
    pub const EXEC_ABORT: &[u8] = b"Transaction discarded because of previous errors.";
    /// With prefix `CROSSSLOT`: keys of several slots, where a request is to be for one.
    pub const CROSS_SLOT: &[u8] = b"Keys in request don't hash to the same slot";
    /// With prefix `ERR` and behind `Can't execute '…': `: a command of somebody who has subscribed, in RESP2.
    pub const ONLY_SUBSCRIBED: &[u8] =
        b"only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
        this context";
    /// With prefix `ERR`: CLUSTER, where there is none.
    pub const NO_CLUSTER: &[u8] = b"This instance has cluster support disabled";
    /// With prefix `ERR`: a slot that there is not.
    pub const INVALID_SLOT: &[u8] = b"Invalid slot";
    /// With prefix `ERR`: CLIENT KILL of an address that nobody has.
    pub const NO_SUCH_CLIENT: &[u8] = b"No such client";
}

/// Appends replies to bytes that will be sent. What RESP2 has not, it writes as Redis does: maps as arrays of keys and
/// values, sets and pushes as arrays, doubles and texts as bulk strings, booleans as integers.
///
/// Aggregates announce their count; as many replies have to follow (for a map two each). What it appends to holds values:
/// `Debug` tells how long that is, and no more.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("protocol", &self.protocol)
            .field("bytes", &self.out.len())
            .finish()
    }
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version in which it writes.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A short text without line breaks, which would be replaced by blanks.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.line(text.as_bytes());
    }

    /// An error: a prefix, which clients match on, and a text, in which line breaks become blanks. The prefixes are `ERR`,
    /// `WRONGTYPE`, `NOAUTH`, `WRONGPASS`, `NOPERM`, `NOPROTO`, `LOADING`, `READONLY`, `MOVED`, `TRYAGAIN`, `CROSSSLOT`,
    /// `CLUSTERDOWN`, `NOSCRIPT`, `EXECABORT`, `BUSY` and others.
    pub fn error(&mut self, prefix: &str, text: &[u8]) {
        self.begin_error(prefix);
        self.line(text);
    }

    /// The answer to what is no command.
    pub fn refuse(&mut self, error: &CommandError<'_>) {
        self.begin_error(error.prefix());
        let from = self.out.len();
        error.write(self.out);
        self.end_line(from);
    }

    /// The last words to a connection that does not keep to the protocol. Returns whether there are any.
    pub fn refuse_bytes(&mut self, error: ProtocolError) -> bool {
        let begin = self.out.len();
        self.begin_error("ERR");
        let from = self.out.len();
        if !error.write(self.out) {
            self.out.truncate(begin);
            return false;
        }
        self.end_line(from);
        true
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        self.number(b':', number);
    }

    /// A bulk string: any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + HEADER_BYTES_MAX);
        self.number(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.end();
    }

    /// A bulk string that `append` appends, without a copy in between.
    ///
    /// # Panics
    /// If it does not append `size` bytes.
    pub fn bulk_with(&mut self, size: usize, append: impl FnOnce(&mut Vec<u8>)) {
        self.out.reserve(size + HEADER_BYTES_MAX);
        self.number(b'$', size as i64);
        let end = self.out.len() + size;
        append(self.out);
        assert_eq!(self.out.len(), end, "the bulk is not as long as announced");
        self.end();
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, number: i64) {
        let mut digits = [0; DIGITS_MAX];
        self.bulk(decimal(number, &mut digits));
    }

    /// No value: `$-1`, or `_`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No array: `*-1`, or `_`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The beginning of an array of so many.
    pub fn array(&mut self, count: usize) {
        self.number(b'*', count as i64);
    }

    /// The beginning of a map of so many pairs.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.number(b'*', 2 * pairs as i64),
            Protocol::Resp3 => self.number(b'%', pairs as i64),
        }
    }

    /// The beginning of a set of so many.
    pub fn set(&mut self, count: usize) {
        self.aggregate(b'~', count);
    }

    /// The beginning of a push of so many: what nobody asked for just now.
    pub fn push(&mut self, count: usize) {
        self.aggregate(b'>', count);
    }

    /// A double, in the fewest digits that tell it from all others, with an exponent below 1e-4 and from 1e17 on. Redis has
    /// the fewest digits since 7.2, with an exponent from elsewhere on, and 17 before. Not for INCRBYFLOAT: its answer is the new
    /// value, a bulk string in both versions, of at most 17 decimals and never with an exponent.
    pub fn double(&mut self, number: f64) {
        let text = double(number);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b',');
                self.line(text.as_bytes());
            }
        }
    }

    /// A boolean: `1` or `0`, or `#t` or `#f`.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp2 => self.integer(value.into()),
            Protocol::Resp3 => {
                self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" })
            }
        }
    }

    /// A text for people, such as that of INFO.
    pub fn verbatim(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.number(b'=', VERBATIM_TEXT.len() as i64 + text.len() as i64);
                self.out.extend_from_slice(VERBATIM_TEXT);
                self.out.extend_from_slice(text);
                self.end();
            }
        }
    }

    /// A reply that another one of the same protocol has written, as it is: what is asked for often and changes rarely.
    pub fn raw(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    fn aggregate(&mut self, resp3: u8, count: usize) {
        let kind = if self.protocol == Protocol::Resp3 { resp3 } else { b'*' };
        self.number(kind, count as i64);
    }

    fn number(&mut self, kind: u8, number: i64) {
        let mut digits = [0; DIGITS_MAX];
        self.out.push(kind);
        self.out.extend_from_slice(decimal(number, &mut digits));
        self.end();
    }

    fn begin_error(&mut self, prefix: &str) {
        self.out.push(b'-');
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.push(b' ');
    }

    fn line(&mut self, text: &[u8]) {
        let from = self.out.len();
        self.out.extend_from_slice(text);
        self.end_line(from);
    }

    /// Ends a line the text of which begins at `from`.
    fn end_line(&mut self, from: usize) {
        for byte in &mut self.out[from..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

// A minus and 19 digits.
const DIGITS_MAX: usize = 20;
const HEADER_BYTES_MAX: usize = 1 + DIGITS_MAX + 2 + 2;
const VERBATIM_TEXT: &[u8] = b"txt:";

fn decimal(number: i64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    &digits[at..]
}

/// A double as [`Writer::double`] writes it.
pub fn double(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // Where C's %.17g begins to write exponents.
    let exponent = number != 0.0 && !(1e-4..1e17).contains(&number.abs());
    if !exponent {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').expect("it has an exponent");
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}e{sign}{exponent}")
}

#[cfg(test)]
mod tests;
