//! Why a request is no command.

use crate::arguments::{Argument, Arguments};
use crate::table::{Id, Spec};

/// Why a request is no command; nothing has been done then. `Display` and `Debug` show no argument: what is sent is what
/// [`write`](Self::write) writes. That takes the texts of `Display`, which are therefore Redis' to the letter and not for
/// improvement, and puts what is repeated into some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError<'a> {
    /// No command has this name. The answer repeats the beginning of the request.
    #[error("unknown command")]
    UnknownCommand(Arguments<'a>),
    /// A command has no such subcommand. The answer repeats its name.
    #[error("unknown subcommand of {}", .0.name)]
    UnknownSubcommand(&'static Spec, Argument<'a>),
    /// A subcommand with too many arguments, where Redis looks at these late. The answer repeats its name.
    #[error("unknown subcommand or wrong number of arguments of {}", .0.name)]
    SubcommandArity(&'static Spec, Argument<'a>),
    /// Too few arguments, too many, or an odd number where there are pairs.
    #[error("wrong number of arguments for '{}' command", .0.name)]
    Arity(&'static Spec),
    /// An option that is none, or that does not go with the others.
    #[error("syntax error")]
    Syntax,
    /// No integer of 64 bits.
    #[error("{}", NOT_INTEGER)]
    NotInteger,
    /// No integer of 32 bits.
    #[error("value is out of range, value must between -2147483648 and 2147483647")]
    OutOfIntRange,
    /// The least integer of 64 bits, of which there is no opposite, as how many to choose.
    #[error("value is out of range, value must between -{max} and {max}", max = i64::MAX)]
    OutOfCountRange,
    /// More fields with their values than can be counted.
    #[error("value is out of range")]
    OutOfPairsRange,
    /// No number.
    #[error("{}", NOT_FLOAT)]
    NotFloat,
    /// An infinity, in HINCRBYFLOAT.
    #[error("value is NaN or Infinity")]
    NotFinite,
    /// An infinity, in INCRBYFLOAT. (Redis looks at the key before.)
    #[error("{}", SUM_NOT_FINITE)]
    SumNotFinite,
    /// A negative time to live, in RESTORE. (Redis looks at the key before.)
    #[error("Invalid TTL value, must be >= 0")]
    RestoreTtl,
    /// A negative IDLETIME, in RESTORE.
    #[error("Invalid IDLETIME value, must be >= 0")]
    IdleTime,
    /// No FREQ, in RESTORE.
    #[error("Invalid FREQ value, must be >= 0 and <= 255")]
    Frequency,
    /// A time to live that is not positive, or a deadline beyond 64 bits in milliseconds.
    #[error("invalid expire time in '{}' command", .0.name)]
    Expire(&'static Spec),
    /// An option that EXPIRE and its like have not. The answer repeats it.
    #[error("Unsupported option")]
    UnsupportedOption(Argument<'a>),
    /// NX with another condition.
    #[error("NX and XX, GT or LT options at the same time are not compatible")]
    NotExistsWithOthers,
    /// Both GT and LT.
    #[error("GT and LT options at the same time are not compatible")]
    GreaterWithLess,
    /// Both NX and XX, in ZADD.
    #[error("XX and NX options at the same time are not compatible")]
    PresentWithAbsent,
    /// More than one of GT, LT and NX, in ZADD.
    #[error("GT, LT, and/or NX options at the same time are not compatible")]
    ScoreConditions,
    /// ZADD with INCR, of several members.
    #[error("INCR option supports a single increment-element pair")]
    OneIncrement,
    /// What ought to be a score, or one behind a parenthesis.
    #[error("min or max is not a float")]
    ScoreBounds,
    /// LIMIT, in a range of places.
    #[error("syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")]
    LimitOfPlaces,
    /// A range of members by their bytes. Redis has it.
    #[error("BYLEX is not here; ranges are by places or BYSCORE")]
    ByLex,
    /// A negative time, in HEXPIRE and its like.
    #[error("invalid expire time, must be >= 0")]
    NegativeExpire,
    /// No FIELDS where HEXPIRE and its like have them.
    #[error("Mandatory argument FIELDS is missing or not at the right position")]
    NoFields,
    /// No positive number behind it.
    #[error("Parameter `numFields` should be greater than 0")]
    FieldsNumber,
    /// Another number of fields than it says.
    #[error("The `numfields` parameter must match the number of arguments")]
    FieldsCount,
    /// DECRBY by the one number that has no opposite.
    #[error("decrement would overflow")]
    DecrementOverflow,
    /// SETRANGE at a negative offset.
    #[error("offset is out of range")]
    Offset,
    /// No cursor.
    #[error("invalid cursor")]
    Cursor,
    /// The protocol's version in HELLO is no integer.
    #[error("Protocol version is not an integer or out of range")]
    ProtocolVersion,
    /// The protocol's version in HELLO is neither 2 nor 3.
    #[error("unsupported protocol version")]
    NoProtocol,
    /// An option that HELLO has not. The answer repeats it.
    #[error("Syntax error in HELLO option")]
    HelloOption(Argument<'a>),
    /// A name of a connection with characters that CLIENT LIST could not show.
    #[error("Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    /// What a library says of itself, with such characters. The answer repeats which of the two, as it was written.
    #[error("cannot contain spaces, newlines or special characters.")]
    ClientAttribute(Argument<'a>),
    /// Nothing that a library may say of itself. The answer repeats it.
    #[error("Unrecognized option")]
    ClientOption(Argument<'a>),
    /// No type of clients. The answer repeats it.
    #[error("Unknown client type")]
    ClientType(Argument<'a>),
    /// No number of a connection, in CLIENT LIST.
    #[error("Invalid client ID")]
    ClientId,
    /// No positive number of a connection, in CLIENT KILL.
    #[error("client-id should be greater than 0")]
    ClientIdPositive,
    /// More keys than arguments, in EVAL.
    #[error("Number of keys can't be greater than number of args")]
    KeysBeyondArguments,
    /// A negative number of keys, in EVAL.
    #[error("Number of keys can't be negative")]
    KeysNegative,
    /// What SCRIPT FLUSH is told besides.
    #[error("SCRIPT FLUSH only support SYNC|ASYNC option")]
    ScriptFlush,
    /// EVALSHA of what is no SHA-1.
    #[error("No matching script. Please use EVAL.")]
    NoScript,
    /// How long WAIT waits is no integer.
    #[error("timeout is not an integer or out of range")]
    Timeout,
    /// How long WAIT waits is negative.
    #[error("timeout is negative")]
    TimeoutNegative,
    /// A pattern of more than [`PATTERN_BYTES_MAX`](crate::PATTERN_BYTES_MAX) bytes, or several of more together. Redis takes any.
    #[error("pattern is too long")]
    PatternLength,
    /// COMMAND INFO or DOCS of more names than [`NAMES_MAX`](crate::table::NAMES_MAX). Redis answers any number.
    #[error("too many names")]
    TooManyNames,
}

// Values that are stored are refused with them too: `texts`.
pub(crate) const NOT_INTEGER: &str = "value is not an integer or out of range";
pub(crate) const SUM_NOT_FINITE: &str = "increment would produce NaN or Infinity";
pub(crate) const NOT_FLOAT: &str = "value is not a valid float";

impl CommandError<'_> {
    /// The prefix of the answer, by which clients know what it is.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Arity(spec) if spec.id == Id::Exec => "EXECABORT",
            Self::NoProtocol => "NOPROTO",
            Self::NoScript => "NOSCRIPT",
            _ => "ERR",
        }
    }

    /// Appends the text of the answer, which may repeat what the client sent, as Redis does: it is for that client, and for
    /// nobody's log. At most some 300 bytes, but for an option, which is repeated whole.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::UnknownCommand(arguments) => write_unknown(*arguments, out),
            Self::UnknownSubcommand(spec, name) => {
                write_subcommand("unknown subcommand", spec, *name, out);
            }
            Self::SubcommandArity(spec, name) => {
                let what = "unknown subcommand or wrong number of arguments for";
                write_subcommand(what, spec, *name, out);
            }
            Self::Arity(spec) if spec.id == Id::Exec => {
                out.extend_from_slice(
                    format!("Transaction discarded because of: {self}").as_bytes(),
                );
            }
            Self::UnsupportedOption(option) => {
                out.extend_from_slice(b"Unsupported option ");
                let option = option.until_nul();
                // Redis takes line breaks off the end of a text with arguments.
                let end = option.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
                out.extend_from_slice(&option[..end.map_or(0, |last| last + 1)]);
            }
            Self::HelloOption(option) | Self::ClientOption(option) | Self::ClientType(option) => {
                out.extend_from_slice(format!("{self} '").as_bytes());
                out.extend_from_slice(option.until_nul());
                out.push(b'\'');
            }
            Self::ClientAttribute(attribute) => {
                out.extend_from_slice(attribute);
                out.extend_from_slice(format!(" {self}").as_bytes());
            }
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
    }
}

// So much of a name, and of the arguments in all, do Redis' errors repeat.
const ECHO_BYTES_MAX: usize = 128;

fn write_subcommand(what: &str, container: &Spec, name: Argument<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{what} '").as_bytes());
    out.extend_from_slice(up_to(name.until_nul(), ECHO_BYTES_MAX));
    let text = format!("'. Try {} HELP.", container.name.to_ascii_uppercase());
    out.extend_from_slice(text.as_bytes());
}

fn write_unknown(arguments: Arguments<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"unknown command '");
    let mut arguments = arguments.iter();
    if let Some(name) = arguments.next() {
        out.extend_from_slice(up_to(name.until_nul(), ECHO_BYTES_MAX));
    }
    out.extend_from_slice(b"', with args beginning with: ");
    let begin = out.len();
    for argument in arguments {
        let echoed = out.len() - begin;
        if echoed >= ECHO_BYTES_MAX {
            break;
        }
        out.push(b'\'');
        out.extend_from_slice(up_to(argument.until_nul(), ECHO_BYTES_MAX - echoed));
        out.extend_from_slice(b"' ");
    }
}

fn up_to(bytes: &[u8], count: usize) -> &[u8] {
    &bytes[..bytes.len().min(count)]
}
