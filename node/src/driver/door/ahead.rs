//! SETs that follow each other, under different keys: each goes to its homes before those before it are acknowledged, and the
//! answers come in the order of the commands. Who sends many at a time waits for the homes once, and these get them together.

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::message::{Failure, SessionReply};
use annulus_resp::{Arguments, Command, Writer, table};

use super::Done;
use super::connection::{Connection, Place};
use super::keyspace::is_done;
use super::store::{ASKED_AT_ONCE_MAX, Asked, Trouble};
use super::strings::is_plain;

/// Commands whose answers are to come.
#[derive(Default)]
pub(super) struct Ahead {
    /// The SETs under way, and what they set.
    asked: Vec<Asked>,
    keys: Vec<Key>,
    /// Whose answers follow each other how.
    turns: Vec<Turn>,
}

/// Whose answer comes next.
enum Turn {
    OfSet {
        is_skipped: bool,
    },
    /// It is there.
    Of(Vec<u8>),
}

impl Ahead {
    /// Notes a SET that was begun.
    pub(super) fn push(&mut self, key: Key, asked: Asked) {
        self.asked.push(asked);
        self.keys.push(key);
        self.turns.push(Turn::OfSet { is_skipped: false });
    }
}

impl<C: Clock> Connection<C> {
    /// Whether a command may be begun though answers are to come: it is a SET under a key of its own.
    pub(super) fn may_go_ahead(&self, arguments: Arguments<'_>) -> bool {
        let Some(ahead) = &self.ahead else { return true };
        let command = table::find(arguments).and_then(|spec| Command::parse(spec, arguments));
        let Ok(Command::Set { key, options, .. }) = command else { return false };
        let is_other = |other: &Key| other.as_bytes() != &*key;
        let has_room = ahead.turns.len() < ASKED_AT_ONCE_MAX;
        has_room && is_plain(&options) && ahead.keys.iter().all(is_other)
    }

    /// The answer to the SET that was begun last is not wanted.
    pub(super) fn skip_last(&mut self) {
        if let Some(Turn::OfSet { is_skipped }) =
            self.ahead.as_mut().and_then(|ahead| ahead.turns.last_mut())
        {
            *is_skipped = true;
        }
    }

    /// What was answered at once, from `begin` on, has its turn after what is to come.
    pub(super) fn stand_behind(&mut self, begin: usize, answers: &mut Vec<u8>) {
        if let Some(ahead) = &mut self.ahead {
            ahead.turns.push(Turn::Of(answers.split_off(begin)));
        }
    }

    /// Whether answers are to come.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Waits for all answers that are to come, and appends them.
    pub(super) async fn settle(&mut self, answers: &mut Vec<u8>) -> Done {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        let Ahead { asked, turns, .. } = *ahead;
        let replies = self.store.finish(asked).await.inspect_err(|_| {
            Trouble::Stopping.write(&mut Writer::new(answers, self.protocol()));
        });
        let (mut replies, mut done) = (replies?.into_iter(), Ok(()));
        for turn in turns {
            let is_skipped = match turn {
                Turn::Of(bytes) => {
                    answers.extend_from_slice(&bytes);
                    continue;
                }
                Turn::OfSet { is_skipped } => is_skipped,
            };
            let reply = replies.next().unwrap_or(SessionReply::Failed(Failure::TimedOut));
            let place = Place { begin: answers.len(), is_skipped, is_exec: false };
            let outcome =
                is_done(reply).and_then(|is_set| if is_set { Ok(()) } else { self.late() });
            if outcome.is_ok() {
                Writer::new(answers, self.protocol()).ok();
            }
            done = done.and(self.conclude(place, outcome, answers));
        }
        done
    }
}
