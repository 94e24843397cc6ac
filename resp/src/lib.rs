//! The Redis protocol, as far as nothing has to be sent or waited for: bytes in, typed commands out, and replies.
//!
//! A [`Parser`] finds requests in bytes that its caller keeps, and copies none of them. [`table::find`] says which
//! command a request is, and whether it has as many arguments as that takes; [`Command::parse`] reads the arguments. A
//! [`Writer`] appends replies to what will be sent, in RESP2 or RESP3. What is between them, connections and data, is the
//! caller's:
//!
//! ```
//! use annulus_resp::{Command, Limits, Parsed, Parser, Protocol, Writer, table};
//!
//! let mut buffer = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n".to_vec();
//! let mut parser = Parser::new(Limits::default());
//! parser.set_authenticated(true);
//! let (mut from, mut sent) = (0, Vec::new());
//! while let Parsed::Request { bytes } = parser.parse(&mut buffer[from..])? {
//!     let arguments = parser.arguments(&buffer[from..]);
//!     let mut reply = Writer::new(&mut sent, Protocol::Resp2);
//!     match table::find(arguments).and_then(|spec| Command::parse(spec, arguments)) {
//!         Ok(Command::Echo { message }) => reply.bulk(&message),
//!         Ok(Command::Ping { message: None }) => reply.simple("PONG"),
//!         Ok(_) => reply.error("ERR", b"not here"),
//!         Err(error) => reply.refuse(&error),
//!     }
//!     from += bytes;
//! }
//! assert_eq!(sent, b"$2\r\nhi\r\n+PONG\r\n");
//! # Ok::<(), annulus_resp::ProtocolError>(())
//! ```
//!
//! Commands, their errors and the order in which these are found are those of Redis 7.0; a test asks a real one. What
//! later versions have besides, and where we depart from all, is said where it is. Keys, values and passwords are secrets:
//! no `Debug` and no `Display` shows any. Two replies repeat what the client sent, as Redis does, to that client
//! alone ([`CommandError::write`]).
//!
//! To add a command: a row in [`table`], a variant of [`Command`], its arguments in [`Command::parse`].

#![forbid(unsafe_code)]

mod arguments;
mod command;
mod error;
mod glob;
mod number;
mod parser;
mod reply;
pub mod table;

pub use arguments::{Argument, Arguments, Span};
pub use command::{
    ClientAttribute, ClientList, ClientType, Command, CommandQuery, Credentials, Expiry, Float,
    Flush, KeepTtl, KillFilter, ListFilter, ObjectQuery, ReplyMode, Scan, SetCondition, SetOptions,
    TtlChange, TtlCondition,
};
pub use error::CommandError;
pub use glob::{Case, matches};
pub use parser::{INLINE_BYTES_MAX, Limits, Parsed, Parser, ProtocolError};
pub use reply::{Protocol, Writer, texts};
