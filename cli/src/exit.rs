//! Exit codes: stable, so that scripts can tell what happened.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use annulus_client::{ConnectError, Error};
use annulus_node::config::ConfigError;

/// Something went wrong that has no code of its own.
pub(crate) const FAILURE: u8 = 1;
/// The command line or the configuration is wrong; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// There is no such session, or it ended or expired.
pub(crate) const ABSENT: u8 = 3;
/// Too few homes answered, or not in time: a write may or may not have happened.
pub(crate) const UNAVAILABLE: u8 = 4;
/// The request was refused, too large, or the table is full, or a condition does not hold.
pub(crate) const REFUSED: u8 = 5;
/// No node could be reached, or no shared memory where it was asked for.
pub(crate) const UNREACHABLE: u8 = 6;
/// What was asked about is not so yet: it is not safe to stop the node, or not everything is done.
pub(crate) const NOT_YET: u8 = 7;
/// The session, or the table, is used too much: nothing was done; later it may be.
pub(crate) const SLOW_DOWN: u8 = 8;

/// The codes as `--help` and the manual list them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong use, or a wrong configuration; nothing was done
  3  no such session: absent, ended or expired
  4  unavailable or timed out: a write may or may not have happened
  5  refused, too large, the table is full, or a condition does not hold
  6  cannot reach a node, or shared memory cannot tell (--local)
  7  not yet: the node is not safe to stop, or not drained
  8  slow down: the session or the table is used too much; nothing was done";

/// A failure of the command itself, with its code.
#[derive(Debug)]
pub(crate) struct Failed {
    /// One of the codes above.
    pub(crate) code: u8,
    /// What went wrong, and what to do.
    pub(crate) why: String,
}

impl Failed {
    /// A wrong use that the parser cannot see.
    pub(crate) fn usage(why: impl Into<String>) -> anyhow::Error {
        Self { code: USAGE, why: why.into() }.into()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failed {}

/// Says what went wrong on standard error, and returns its code. Who stops reading our output made
/// no mistake: a closed pipe is silent, and no failure.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // Several problems of a configuration come as several lines.
    let text = text(error);
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "annulus: {line}");
    }
    code(error).into()
}

/// An error and its causes, but for those that the error names itself already.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The code of an error, wherever in its chain the cause is.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILURE)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failed) = cause.downcast_ref::<Failed>() {
        return Some(failed.code);
    }
    if cause.is::<ConfigError>() {
        return Some(USAGE);
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return Some(match error {
            ConnectError::Rejected { .. } => REFUSED,
            ConnectError::NothingToTry => USAGE,
            _ => UNREACHABLE,
        });
    }
    match cause.downcast_ref::<Error>()? {
        Error::Absent | Error::Ended | Error::Expired => Some(ABSENT),
        Error::Unavailable { .. } | Error::TimedOut => Some(UNAVAILABLE),
        Error::TooLarge { .. }
        | Error::TableFull { .. }
        | Error::Refused(_)
        | Error::Conflict { .. }
        | Error::Rejected { .. } => Some(REFUSED),
        Error::NoNode { .. } | Error::Disconnected { .. } | Error::NotAttached => Some(UNREACHABLE),
        Error::Key(_) => Some(USAGE),
        Error::SlowDown { .. } => Some(SLOW_DOWN),
        _ => None,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use annulus_client::{KeyError, NodeId, Tried, Version};
    use anyhow::Context;

    use super::*;

    #[test]
    fn every_error_of_the_client_has_the_documented_code() {
        let node = NodeId::from_bits(1);
        let tried = vec![Tried { at: "a:1".to_owned(), why: "no".to_owned() }];
        for (error, expected) in [
            (Error::Absent, 3),
            (Error::Ended, 3),
            (Error::Expired, 3),
            (Error::Unavailable { answered: 1, needed: 2, homes: 3 }, 4),
            (Error::TimedOut, 4),
            (Error::TooLarge { size: 2, limit: 1 }, 5),
            (Error::TableFull { node }, 5),
            (Error::Refused("no".to_owned()), 5),
            (Error::Conflict { version: Version::ZERO }, 5),
            (Error::SlowDown { retry_after: Duration::from_secs(1) }, 8),
            (Error::NoNode { tried: tried.clone() }, 6),
            (Error::Disconnected { at: "a:1".to_owned() }, 6),
            (Error::NotAttached, 6),
            (Error::Key(KeyError::Empty), 2),
            (Error::Protocol { at: "a:1".to_owned(), why: "no".to_owned() }, 1),
        ] {
            let shown = format!("{error:?}");
            assert_eq!(code(&anyhow::Error::from(error).context("while")), expected, "{shown}");
        }
        assert_eq!(code(&ConnectError::NoNode { tried }.into()), UNREACHABLE);
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause =
            anyhow::anyhow!("disk on fire").context("writing f: disk on fire").context("init");
        assert_eq!(text(&cause), "init: writing f: disk on fire");
        assert_eq!(text(&anyhow::anyhow!("a").context("b")), "b: a");
    }

    #[test]
    fn other_errors_are_failures_and_a_closed_pipe_is_none() {
        assert_eq!(code(&anyhow::anyhow!("whatever")), FAILURE);
        assert_eq!(code(&Failed::usage("no")), USAGE);
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        let closed = Err::<(), _>(closed).context("writing").expect_err("an error");
        assert!(is_closed_pipe(&closed));
    }
}
