//! Keys, whatever they hold, and the ways in which they change.

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::entry::{Fields, Kind, Value};
use annulus_proto::message::{Change, Failure, Lifetimes, Operation, Session, SessionReply};
use annulus_resp::table::Spec;
use annulus_resp::{
    Argument, Command, CommandError, Expiry, ObjectQuery, TtlCondition, Writer, integer,
};

use super::connection::Connection;
use super::store::{Outcome, Trouble, contended};
use super::transaction::end_of;

/// What is under a key.
pub(super) enum Found {
    Alive(Session),
    /// Nothing, or what expired.
    Absent,
    /// Nothing any more: somebody ended it.
    Ended,
}

/// How often a key is looked at again that others change at the same time. Of those who change it at the same time one gets on
/// each time.
pub(super) const TRIES_MAX: usize = 256;

/// What lives until it is ended, as far as its table allows.
pub(super) const FOR_EVER: Lifetimes = Lifetimes { idle_ms: Some(0), lifetime_ms: Some(0) };

impl<C: Clock> Connection<C> {
    /// Does a command about keys.
    pub(super) async fn key<'a>(
        &mut self,
        spec: &'static Spec,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::Del { keys } | Command::Unlink { keys } => {
                let mut count = 0;
                for key in keys.iter() {
                    let is_there = self.delete(&named(key)?).await;
                    count += i64::from(is_there.map_err(|trouble| trouble.after(count > 0))?);
                }
                out.integer(count);
            }
            Command::Exists { keys } => {
                let mut count = 0;
                for key in keys.iter() {
                    count += i64::from(self.read(&named(key)?).await?.is_some());
                }
                out.integer(count);
            }
            Command::Touch { keys } => {
                let mut count = 0;
                for key in keys.iter() {
                    let touch = Operation::Touch { birth: None };
                    count += i64::from(self.change(&named(key)?, touch).await?);
                }
                out.integer(count);
            }
            Command::Expire { key, expiry, condition } => {
                let is_set = self.expire(spec, key, expiry, condition).await?;
                out.integer(is_set.into());
            }
            Command::Ttl { key, milliseconds } => {
                let now_ms = self.now_ms();
                let left = self.read(&named(key)?).await?.map(|session| {
                    let left = deadline_ms(&session)? - now_ms;
                    Some(left.max(0))
                });
                out.integer(time(left, milliseconds));
            }
            Command::ExpireTime { key, milliseconds } => {
                let deadline = self.read(&named(key)?).await?.map(|session| deadline_ms(&session));
                out.integer(time(deadline, milliseconds));
            }
            Command::Persist { key } => out.integer(self.persist(key).await?.into()),
            Command::Type { key } => {
                let session = self.read(&named(key)?).await?;
                out.simple(session.map_or("none", |session| type_of(session.value.kind())));
            }
            Command::Object { query, key } => {
                let now_ms = self.now_ms();
                match self.read(&named(key)?).await? {
                    None => out.null(),
                    Some(session) => object(query, &session, now_ms, out)?,
                }
            }
            Command::Rename { key, to } => {
                self.rename(key, to, false).await?;
                out.ok();
            }
            Command::RenameNx { key, to } => {
                out.integer(self.rename(key, to, true).await?.into());
            }
            Command::Dump { key } => self.dump(key, out).await?,
            Command::Restore { key, payload, expiry, replace } => {
                self.restore(spec, key, payload, expiry, replace).await?;
                out.ok();
            }
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// What is under a key. What has not been looked for by a command of its own is not *told*.
    pub(super) async fn look<'a>(&mut self, key: &Key) -> Outcome<'a, Found> {
        let reply = self.ask(key, Operation::Get).await?;
        self.found(key, reply)
    }

    /// The same for who puts something else there: a hash whose fields have all expired is ended first. Not by who reads, since a
    /// save after that would be a late one.
    pub(super) async fn look_anew<'a>(&mut self, key: &Key) -> Outcome<'a, Found> {
        match self.look(key).await? {
            Found::Alive(session) if is_over(&session) => {
                // A field that came meanwhile is seen the next time; and who may not end it does not begin either.
                let is_ended = matches!(self.change(key, end_of(&session)).await, Ok(true));
                Ok(if is_ended { Found::Absent } else { Found::Alive(session) })
            }
            found => Ok(found),
        }
    }

    /// What a core says is under a key.
    pub(super) fn found<'a>(&mut self, key: &Key, reply: SessionReply) -> Outcome<'a, Found> {
        match reply {
            SessionReply::Session(session) => {
                self.told.forget(self.table, key.as_bytes());
                Ok(Found::Alive(session))
            }
            SessionReply::Failed(Failure::Absent | Failure::Expired) => Ok(Found::Absent),
            SessionReply::Failed(Failure::Ended) => Ok(Found::Ended),
            SessionReply::Failed(failure) => Err(failure.into()),
            _ => Err(unexpected()),
        }
    }

    /// The session under a key, as the client is going to be told.
    pub(super) async fn get<'a>(&mut self, key: &Key) -> Outcome<'a, Option<Session>> {
        let found = self.look(key).await?;
        Ok(self.say(key, found))
    }

    /// What was found under a key, which the client is told now.
    pub(super) fn say(&mut self, key: &Key, found: Found) -> Option<Session> {
        match found {
            Found::Alive(session) if !is_over(&session) => Some(session),
            Found::Alive(_) => None,
            Found::Absent | Found::Ended => {
                self.told.note(self.table, key.as_bytes());
                None
            }
        }
    }

    /// Changes a key. `false`: nothing was done, since there is no session, or another one than was meant.
    pub(super) async fn change<'a>(&mut self, key: &Key, change: Operation) -> Outcome<'a, bool> {
        let is_end = change.is_end();
        // Whatever comes of it: it may be done though its answer is lost, and another's session may be there.
        self.told.forget(self.table, key.as_bytes());
        let is_done = is_done(self.ask(key, change).await?)?;
        if is_end && is_done {
            self.told.note(self.table, key.as_bytes());
        }
        Ok(is_done)
    }

    /// Has a new value, and new lifetimes if so, take the place of what was seen under a key. `false`: something else is there
    /// by now.
    pub(super) async fn replace<'a>(
        &mut self,
        key: &Key,
        seen: &Session,
        value: Value,
        lifetimes: Option<Lifetimes>,
    ) -> Outcome<'a, bool> {
        let change = match lifetimes {
            None => Change::Value(value),
            Some(lifetimes) => Change::Whole(value, lifetimes),
        };
        self.change(key, Operation::UpdateIf { version: seen.version, change }).await
    }

    /// Begins a session if there is none.
    pub(super) async fn begin<'a>(
        &mut self,
        key: &Key,
        value: Value,
        lifetimes: Lifetimes,
    ) -> Outcome<'a, bool> {
        let attributes = Default::default();
        let start = Operation::StartIfAbsent { value, lifetimes, attributes };
        if self.change(key, start.clone()).await? {
            return Ok(true);
        }
        Ok(self.was_emptied(key).await? && self.change(key, start).await?)
    }

    /// Whether what was under a key was a hash whose fields have all expired, and is no more. Mostly shared memory tells that it
    /// is none.
    async fn was_emptied<'a>(&mut self, key: &Key) -> Outcome<'a, bool> {
        let is_other =
            self.find_near(key.as_bytes(), |live| live.session().map(|it| !is_over(&it)));
        Ok(is_other != Some(true) && matches!(self.look_anew(key).await?, Found::Absent))
    }

    pub(super) async fn ask<'a>(
        &mut self,
        key: &Key,
        operation: Operation,
    ) -> Outcome<'a, SessionReply> {
        if self.staged.is_some() {
            return self.ask_staged(key, operation).await;
        }
        let table = &self.door.tables[self.table].name;
        Ok(self.store.ask(table, key, operation).await?)
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.door.clock.wall_ms()).unwrap_or(i64::MAX)
    }

    async fn expire<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        expiry: Expiry,
        condition: TtlCondition,
    ) -> Outcome<'a, bool> {
        let now_ms = self.now_ms();
        let deadline = expiry.deadline_ms(now_ms).ok_or(CommandError::Expire(spec))?;
        let key = named(key)?;
        let lifetimes = until(deadline, now_ms);
        if condition == TtlCondition::Always {
            let Some(lifetimes) = lifetimes else { return self.delete(&key).await };
            let change = Change::Lifetimes(lifetimes);
            return self.change(&key, Operation::Update { birth: None, change }).await;
        }
        for _ in 0..TRIES_MAX {
            let Some(session) = self.get(&key).await? else { return Ok(false) };
            if !holds(condition, deadline_ms(&session), deadline) {
                return Ok(false);
            }
            let version = session.version;
            let change = match lifetimes {
                None => Operation::EndIf { version },
                Some(lifetimes) => {
                    Operation::UpdateIf { version, change: Change::Lifetimes(lifetimes) }
                }
            };
            if self.change(&key, change).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// Ends what lives under a key. Returns whether there was anything; of two who end it at the same moment both may be told
    /// so.
    async fn delete<'a>(&mut self, key: &Key) -> Outcome<'a, bool> {
        let Some(session) = self.get(key).await? else { return Ok(false) };
        self.change(key, Operation::End { birth: Some(session.birth) }).await
    }

    async fn persist<'a>(&mut self, key: Argument<'a>) -> Outcome<'a, bool> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let Some(session) = self.get(&key).await? else { return Ok(false) };
            if session.deadline == 0 {
                return Ok(false);
            }
            let (version, change) = (session.version, Change::Lifetimes(FOR_EVER));
            if self.change(&key, Operation::UpdateIf { version, change }).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }
}

/// What Redis calls a kind of value.
pub(super) fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Bytes => "string",
        Kind::Map => "hash",
        Kind::Set => "set",
        Kind::SortedSet => "zset",
    }
}

/// Whether all fields of it have expired, with which Redis would have ended it.
pub(super) fn is_over(session: &Session) -> bool {
    session.value.fields().is_some_and(Fields::is_empty) && !session.field_deadlines.is_empty()
}

/// New lifetimes for what was seen, and for nothing that came after it.
pub(super) fn lifetimes_of(seen: &Session, lifetimes: Lifetimes) -> Operation {
    Operation::Update { birth: Some(seen.birth), change: Change::Lifetimes(lifetimes) }
}

/// The key that an argument is.
pub(super) fn named(key: Argument<'_>) -> Outcome<'_, Key> {
    Key::new(&*key).map_err(|error| Trouble::Error("ERR", error.to_string().into()))
}

/// The lifetimes of what lives until a deadline; `None` if that is past.
pub(super) fn until(deadline_ms: i64, now_ms: i64) -> Option<Lifetimes> {
    let left = u64::try_from(deadline_ms.checked_sub(now_ms)?).ok().filter(|left| *left > 0)?;
    Some(Lifetimes { idle_ms: Some(0), lifetime_ms: Some(left) })
}

/// Whether it was done; `false` if there was nothing to do it to.
pub(super) fn is_done<'a>(reply: SessionReply) -> Outcome<'a, bool> {
    match reply {
        SessionReply::Acknowledged(_) => Ok(true),
        SessionReply::Failed(
            Failure::Absent | Failure::Ended | Failure::Expired | Failure::Conflict { .. },
        ) => Ok(false),
        SessionReply::Failed(failure) => Err(failure.into()),
        _ => Err(unexpected()),
    }
}

pub(super) fn unexpected<'a>() -> Trouble<'a> {
    Trouble::Error("ERR", "the node answered something else than was asked".into())
}

/// When a session expires; `None` = never.
pub(super) fn deadline_ms(session: &Session) -> Option<i64> {
    (session.deadline != 0).then(|| i64::try_from(session.deadline).unwrap_or(i64::MAX))
}

/// What TTL and its like say: -2 of nothing, -1 of what has no deadline, else a time, rounded as Redis does.
fn time(of: Option<Option<i64>>, milliseconds: bool) -> i64 {
    match of {
        None => -2,
        Some(None) => -1,
        Some(Some(ms)) if milliseconds => ms,
        Some(Some(ms)) => ms.saturating_add(500) / 1_000,
    }
}

/// Whether a deadline takes the place of the one that is there.
pub(super) fn holds(condition: TtlCondition, current: Option<i64>, new: i64) -> bool {
    match condition {
        TtlCondition::Always => true,
        TtlCondition::Absent => current.is_none(),
        TtlCondition::Present => current.is_some(),
        TtlCondition::Later => current.is_some_and(|current| new > current),
        TtlCondition::Earlier => current.is_none_or(|current| new < current),
        TtlCondition::PresentAndEarlier => current.is_some_and(|current| new < current),
    }
}

fn object<'a>(
    query: ObjectQuery,
    session: &Session,
    now_ms: i64,
    out: &mut Writer<'_>,
) -> Outcome<'a, ()> {
    match query {
        ObjectQuery::Encoding => out.bulk(encoding(&session.value)),
        ObjectQuery::RefCount => out.integer(1),
        ObjectQuery::IdleTime => {
            let touched = i64::try_from(session.touched).unwrap_or(i64::MAX);
            out.integer(now_ms.saturating_sub(touched).max(0) / 1_000);
        }
        ObjectQuery::Freq => {
            let text = "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                        switching between policies at runtime LRU and LFU data will take some time to adjust.";
            return Err(Trouble::Error("ERR", text.into()));
        }
    }
    Ok(())
}

/// How Redis would keep such a value, had it been SET at once.
fn encoding(value: &Value) -> &'static [u8] {
    match value {
        Value::Bytes(bytes) if integer(bytes).is_some() => b"int",
        Value::Bytes(bytes) if bytes.len() <= EMBEDDED_BYTES_MAX => b"embstr",
        Value::Bytes(_) => b"raw",
        Value::Map(fields) if is_short(fields, 512) => b"listpack",
        Value::Map(_) => b"hashtable",
        Value::Set(fields) if is_intset(fields) => b"intset",
        Value::Set(_) => b"hashtable",
        Value::SortedSet(fields) if is_short(fields, 128) => b"listpack",
        Value::SortedSet(_) => b"skiplist",
    }
}

/// With `hash-max-listpack-entries`, `zset-max-listpack-entries` and their values as they are by default.
fn is_short(fields: &Fields, count_max: usize) -> bool {
    let is_short = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() <= 64 && value.len() <= 64;
    fields.len() <= count_max && fields.iter().all(is_short)
}

/// With `set-max-intset-entries` as it is by default.
fn is_intset(members: &Fields) -> bool {
    members.len() <= 512 && members.keys().all(|member| integer(member).is_some())
}

const EMBEDDED_BYTES_MAX: usize = 44;

/// The error for a SET after the end.
pub(super) const LATE_SAVE: &str =
    "late save: the session was ended; what begins one anew says NX, or reads the key before";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_replaces_another_one_as_the_condition_says() {
        use TtlCondition as T;
        for (condition, of_none, of_earlier, of_same, of_later) in [
            (T::Always, true, true, true, true),
            (T::Absent, true, false, false, false),
            (T::Present, false, true, true, true),
            (T::Later, false, true, false, false),
            (T::Earlier, true, false, false, true),
            (T::PresentAndEarlier, false, false, false, true),
        ] {
            let holds = |current| holds(condition, current, 10);
            assert_eq!(
                [holds(None), holds(Some(9)), holds(Some(10)), holds(Some(11))],
                [of_none, of_earlier, of_same, of_later],
                "{condition:?}"
            );
        }
    }

    #[test]
    fn a_deadline_that_is_reached_is_past() {
        let lifetime = |deadline| until(deadline, 100).map(|it| it.lifetime_ms);
        assert_eq!(lifetime(101), Some(Some(1)));
        assert_eq!([lifetime(100), lifetime(99), lifetime(i64::MIN)], [None; 3]);
    }

    #[test]
    fn times_are_rounded_to_the_next_second() {
        assert_eq!([time(None, true), time(Some(None), false)], [-2, -1]);
        assert_eq!([499, 500, 1_499, 1_500].map(|ms| time(Some(Some(ms)), false)), [0, 1, 1, 2]);
        assert_eq!(time(Some(Some(499)), true), 499);
    }
}
