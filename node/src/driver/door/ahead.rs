//! SETs that follow each other, under different keys: each goes to its homes before those before it are acknowledged, and the
//! answers come in the order of the commands. Who sends many at a time waits for the homes once, and these get them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::message::{Failure, SessionReply};
use annulus_resp::{Arguments, Command, Writer, table};

use super::Done;
use super::connection::{Answering, Connection};
use super::keyspace::is_done;
use super::store::{ASKED_AT_ONCE_MAX, Asked, Outcome, Trouble};
use super::strings::is_plain;

/// Commands whose answers are to come.
#[derive(Default)]
pub(super) struct Ahead {
    /// The SETs under way, and what they set.
    asked: Vec<Asked>,
    keys: Vec<Key>,
    /// The commands in their order, each with where its answer comes from.
    turns: Vec<Turn>,
    held: Option<Held>,
}

enum Turn {
    /// From the homes.
    OfSet { is_skipped: bool },
    /// It was there at once.
    Of(Vec<u8>),
}

/// Counts bytes that are on their way, until it is dropped.
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

/// With so many bytes on their way, of all connections, no SET goes ahead of others any more: a few who send many at a time must
/// not take all the room that cores have for what waits.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// What a SET on its way takes besides its value.
const SET_OVERHEAD_BYTES: usize = 1 << 10;

impl<C: Clock> Connection<C> {
    /// Whether a command may be begun though answers are to come: it is a SET under a key of its own.
    pub(super) fn may_go_ahead(&self, arguments: Arguments<'_>) -> bool {
        let Some(ahead) = &self.ahead else { return true };
        let command = table::find(arguments).and_then(|spec| Command::parse(spec, arguments));
        let Ok(Command::Set { key, options, .. }) = command else { return false };
        let is_other = |other: &Key| other.as_bytes() != &*key;
        let has_room = ahead.turns.len() < ASKED_AT_ONCE_MAX
            && self.door.ahead_bytes.load(Ordering::Relaxed) < AHEAD_BYTES_MAX;
        has_room && is_plain(&options) && ahead.keys.iter().all(is_other)
    }

    /// Notes a SET that was begun, of a value with so many bytes.
    pub(super) fn go_ahead(&mut self, key: Key, asked: Asked, bytes: usize) {
        self.done_at_once.ahead += u32::from(self.ahead.is_some());
        let ahead = self.ahead.get_or_insert_default();
        ahead.asked.push(asked);
        ahead.keys.push(key);
        ahead.turns.push(Turn::OfSet { is_skipped: false });
        let all = &self.door.ahead_bytes;
        let held = ahead.held.get_or_insert_with(|| Held { all: all.clone(), bytes: 0 });
        held.add(SET_OVERHEAD_BYTES + bytes);
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
    ///
    /// # Errors
    /// If the node stops; the first answer that did not come says so, and is the last one.
    pub(super) async fn settle(&mut self, answers: &mut Vec<u8>) -> Done {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        let Ahead { asked, turns, held, .. } = *ahead;
        let mut replies = self.store.finish(asked).await.into_iter();
        drop(held);
        for turn in turns {
            let is_skipped = match turn {
                Turn::Of(bytes) => {
                    answers.extend_from_slice(&bytes);
                    continue;
                }
                Turn::OfSet { is_skipped } => is_skipped,
            };
            let reply = replies.next().unwrap_or(Ok(SessionReply::Failed(Failure::TimedOut)));
            let answering = Answering { begin: answers.len(), is_skipped, is_exec: false };
            let outcome = reply.map_err(Trouble::from).and_then(|reply| self.is_set(reply));
            if outcome.is_ok() {
                Writer::new(answers, self.protocol()).ok();
            }
            self.conclude(answering, outcome, answers)?;
        }
        Ok(())
    }

    /// Whether a SET was done, by what the homes say.
    pub(super) fn is_set<'a>(&self, reply: SessionReply) -> Outcome<'a, ()> {
        if is_done(reply)? { Ok(()) } else { self.late() }
    }
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
