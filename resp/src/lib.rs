//! The Redis protocol, as far as nothing has to be sent or waited for: bytes in, typed commands out, and replies.
//!
//! A [`Parser`] finds requests in bytes that its caller keeps, and copies none of them. [`table::find`] says which
//! command a request is, and whether it has as many arguments as that takes; [`Command::parse`] reads the arguments. Whether
//! the client may ask for that command is looked at between the two. A [`Writer`] appends replies to what will be sent, in RESP2
//! or RESP3. What is between them, connections and data, is the caller's:
//!
//! ```
//! use annulus_resp::table::{self, Flags};
//! use annulus_resp::{Command, Limits, Parsed, Parser, Protocol, Writer, texts};
//!
//! # // Of the same length: the time that it takes tells where they differ to nobody.
//! # fn is_password(given: &[u8]) -> bool {
//! #     given.len() == 6 && given.iter().zip(b"secret").fold(0, |all, (a, b)| all | (a ^ b)) == 0
//! # }
//! let mut buffer = b"ECHO x\r\nAUTH secret\r\n\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nRESET\r\nGET".to_vec();
//! let mut parser = Parser::new(Limits::default());
//! let (mut authenticated, mut from, mut sent) = (false, 0, Vec::new());
//! loop {
//!     // After an error, its last words are sent, if there are any (`Writer::refuse_bytes`), and the connection ends.
//!     match parser.parse(&mut buffer[from..])? {
//!         Parsed::Partial { .. } => break,
//!         Parsed::Nothing { bytes } => from += bytes,
//!         Parsed::Request { bytes } => {
//!             let arguments = parser.arguments(&buffer[from..]);
//!             let mut reply = Writer::new(&mut sent, Protocol::Resp2);
//!             match table::find(arguments) {
//!                 Ok(spec) if !authenticated && !spec.flags.contains(Flags::NO_AUTH) => {
//!                     reply.error("NOAUTH", texts::NO_AUTH);
//!                 }
//!                 found => match found.and_then(|spec| Command::parse(spec, arguments)) {
//!                     Ok(Command::Auth(who)) if is_password(&who.password) => {
//!                         authenticated = true;
//!                         reply.ok();
//!                     }
//!                     Ok(Command::Auth(_)) => reply.error("WRONGPASS", texts::WRONG_PASS),
//!                     Ok(Command::Reset) => {
//!                         authenticated = false;
//!                         reply.simple("RESET");
//!                     }
//!                     Ok(Command::Echo { message }) => reply.bulk(&message),
//!                     Ok(_) => reply.error("ERR", b"not here"),
//!                     Err(error) => reply.refuse(&error),
//!                 },
//!             }
//!             // Before the next request: AUTH, HELLO with AUTH and RESET change how long it may be.
//!             parser.set_authenticated(authenticated);
//!             from += bytes;
//!         }
//!     }
//! }
//! assert_eq!(sent, b"-NOAUTH Authentication required.\r\n+OK\r\n$2\r\nhi\r\n+RESET\r\n");
//! # Ok::<(), annulus_resp::ProtocolError>(())
//! ```
//!
//! Commands, their errors and the order in which these are found are those of Redis 7.0; a test asks a real one. What
//! later versions have besides, and where we depart from all, is said where it is. Keys, values and passwords are secrets:
//! no `Debug` and no `Display` shows any. Two replies repeat what the client sent, as Redis does, to that client
//! alone ([`CommandError::write`]).
//!
//! To add a command: a row in [`table`], a variant of [`Command`], its arguments in [`Command::parse`], and what its `Debug`
//! shows.

#![forbid(unsafe_code)]

mod arguments;
mod command;
mod decimal;
mod error;
mod glob;
mod number;
mod parser;
mod reply;
mod script;
pub mod table;

pub use arguments::{Argument, Arguments, Span};
pub use command::{
    ChannelKind, ClientAttribute, ClientList, ClientType, Command, CommandQuery, Credentials,
    Expiry, Flush, HashParts, KeepTtl, KillFilter, ListFilter, MemberRange, Membership,
    ObjectQuery, ReplyMode, Scan, ScoreChange, ScoreRange, SetCondition, SetOptions, TtlChange,
    TtlCondition, ZAddOptions,
};
pub use decimal::Decimal;
pub use error::CommandError;
pub use glob::{Case, PATTERN_BYTES_MAX, matches};
pub use number::{integer, score};
pub use parser::{INLINE_BYTES_MAX, Limits, Parsed, Parser, ProtocolError};
pub use reply::{Protocol, Writer, double, texts};
pub use script::{SHA1_BYTES, Script, sha1};
