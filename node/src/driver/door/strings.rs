//! Strings.

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::entry::Value;
use annulus_proto::message::{Failure, Lifetimes, Operation, Session, SessionReply};
use annulus_resp::table::Spec;
use annulus_resp::{
    Argument, Arguments, Command, CommandError, KeepTtl, SetCondition, SetOptions, TtlChange,
    Writer, integer, texts,
};

use super::super::settings::OnLateSave;
use super::connection::{Begun, Connection};
use super::hashes::sum;
use super::keyspace::{FOR_EVER, Found, LATE_SAVE, TRIES_MAX, lifetimes_of, named, until};
use super::store::{ASKED_AT_ONCE_MAX, Asked, Outcome, Trouble, contended};

/// MSET waits for the homes when they have more bytes of values than this.
const MSET_BYTES_MAX: usize = 64 << 10;
/// The most bytes of values that MGET and HMGET answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a SET did.
struct Written {
    is_written: bool,
    /// What was there before, if that was asked for.
    before: Option<Vec<u8>>,
}

impl<C: Clock> Connection<C> {
    /// Does a command about strings.
    pub(super) async fn string<'a>(
        &mut self,
        spec: &'static Spec,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::Get { key } => {
                let key = named(key)?;
                bulk_or_null(self.bytes(&key).await?.as_deref(), out);
            }
            Command::Set { key, value, options } => {
                let Written { is_written, before } = self.set(spec, key, value, options).await?;
                match (options.get, is_written) {
                    (true, _) => bulk_or_null(before.as_deref(), out),
                    (false, true) => out.ok(),
                    (false, false) => out.null(),
                }
            }
            Command::SetNx { key, value } => {
                let is_set =
                    self.begin(&named(key)?, Value::Bytes(value.to_vec()), FOR_EVER).await?;
                out.integer(is_set.into());
            }
            Command::GetSet { key, value } => {
                let options = SetOptions { get: true, ..PLAIN };
                let before = self.set(spec, key, value, options).await?.before;
                bulk_or_null(before.as_deref(), out);
            }
            Command::GetEx { key, ttl } => {
                let value = self.get_ex(spec, key, ttl).await?;
                bulk_or_null(value.as_deref(), out);
            }
            Command::GetDel { key } => {
                let value = self.get_del(key).await?;
                bulk_or_null(value.as_deref(), out);
            }
            Command::MGet { keys } => {
                out.array(keys.len());
                let mut size = 0;
                for key in keys.iter() {
                    let session = self.read(&named(key)?).await?;
                    let Some(Value::Bytes(value)) = session.map(|session| session.value) else {
                        out.null();
                        continue;
                    };
                    size += value.len();
                    refuse_answer_of(size)?;
                    out.bulk(&value);
                }
            }
            Command::MSet { pairs } => {
                // All keys and values are looked at before any is written, but not in one step: others see some of them.
                for (key, value) in pairs.pairs() {
                    named(key)?;
                    self.refuse_longer(value.len())?;
                }
                self.set_all(spec, pairs).await?;
                out.ok();
            }
            Command::MSetNx { pairs } => {
                out.integer(self.set_if_none_is_there(pairs).await?.into());
            }
            Command::StrLen { key } => {
                let value = self.bytes(&named(key)?).await?;
                out.integer(value.map_or(0, |value| value.len()) as i64);
            }
            Command::GetRange { key, start, end } => {
                let value = self.bytes(&named(key)?).await?.unwrap_or_default();
                out.bulk(range(&value, start, end));
            }
            Command::Append { key, value } => {
                let new = self
                    .edit(key, |current| Ok(Some([current.unwrap_or_default(), &value].concat())));
                out.integer(new.await?.len() as i64);
            }
            Command::SetRange { key, offset, value } => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let limit = self.value_bytes_max();
                let new = self.edit(key, |current| {
                    let current = current.unwrap_or_default();
                    if value.is_empty() {
                        return Ok(None);
                    }
                    let end = offset.saturating_add(value.len());
                    if end > limit {
                        return Err(Trouble::text("ERR", texts::TOO_LONG));
                    }
                    let mut new = current.to_vec();
                    new.resize(new.len().max(end), 0);
                    new[offset..end].copy_from_slice(&value);
                    Ok(Some(new))
                });
                out.integer(new.await?.len() as i64);
            }
            Command::IncrBy { key, by } => {
                let new = self.edit(key, |current| {
                    let number = match current {
                        None => 0,
                        Some(text) => {
                            integer(text).ok_or_else(|| Trouble::text("ERR", texts::NOT_INTEGER))?
                        }
                    };
                    let sum = number.checked_add(by);
                    let sum = sum.ok_or_else(|| Trouble::text("ERR", texts::OVERFLOW))?;
                    Ok(Some(sum.to_string().into_bytes()))
                });
                let new = new.await?;
                out.integer(integer(&new).unwrap_or_default());
            }
            Command::IncrByFloat { key, by } => {
                let new =
                    self.edit(key, |current| sum(current, by, texts::NOT_FLOAT).map(Some)).await?;
                out.bulk(&new);
            }
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// The string under a key, as the client is told.
    async fn bytes<'a>(&mut self, key: &Key) -> Outcome<'a, Option<Vec<u8>>> {
        self.read(key).await?.map(bytes_of).transpose()
    }

    /// What SET writes under, whether deadlines that are there stay, and else those of what it writes; `None` if they are past:
    /// it is gone at once.
    fn check_set<'a>(
        &self,
        spec: &'static Spec,
        key: Argument<'a>,
        value: Argument<'a>,
        ttl: KeepTtl,
    ) -> Outcome<'a, (Key, bool, Option<Lifetimes>)> {
        let now_ms = self.now_ms();
        let (keeps, lifetimes) = match ttl {
            KeepTtl::Remove => (false, Some(FOR_EVER)),
            KeepTtl::Keep => (true, Some(FOR_EVER)),
            KeepTtl::Set(expiry) => {
                let deadline = expiry.deadline_ms(now_ms).ok_or(CommandError::Expire(spec))?;
                (false, until(deadline, now_ms))
            }
        };
        self.refuse_longer(value.len())?;
        Ok((named(key)?, keeps, lifetimes))
    }

    /// Begins a SET that asks for nothing else, without waiting for anything. `None`: nothing was done.
    pub(super) fn set_ahead<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        value: Argument<'a>,
        ttl: KeepTtl,
    ) -> Outcome<'a, Option<Begun>> {
        if self.staged.is_some() {
            return Ok(None);
        }
        let (key, keeps, lifetimes) = self.check_set(spec, key, value, ttl)?;
        let Some(lifetimes) = lifetimes else { return Ok(None) };
        Ok(Some(match self.begin_put(&key, &value, lifetimes, keeps) {
            None => Begun::Answered,
            Some(asked) => {
                let bytes = value.len();
                self.go_ahead(key, asked, bytes);
                Begun::Ahead
            }
        }))
    }

    /// Has a value put under a key; `None`: it is there, since what lives there concerns this node alone.
    fn begin_put(
        &mut self,
        key: &Key,
        value: &[u8],
        lifetimes: Lifetimes,
        keeps_lifetimes: bool,
    ) -> Option<Asked> {
        let table = &self.door.tables[self.table];
        let new = (!keeps_lifetimes).then_some(&lifetimes);
        let is_put = self.store.put_at_once(table.place, key, value, new);
        let put = (!is_put).then(|| self.put_of(key, value, lifetimes, keeps_lifetimes));
        // Whatever comes of it: it may be done though its answer is lost, and another's session may be there.
        self.told.forget(self.table, key.as_bytes());
        self.done_at_once.writes += u32::from(is_put);
        Some(self.store.begin(&table.name, key, put?))
    }

    /// What puts these bytes under a key, as far as this client may.
    fn put_of(
        &self,
        key: &Key,
        value: &[u8],
        lifetimes: Lifetimes,
        keeps_lifetimes: bool,
    ) -> Operation {
        let (value, after_end) = (Value::Bytes(value.to_vec()), self.knows_of_the_end(key));
        Operation::Put { value, lifetimes, keeps_lifetimes, after_end }
    }

    /// MSET, of values that are not too long: many keys at a time.
    async fn set_all<'a>(&mut self, spec: &'static Spec, pairs: Arguments<'a>) -> Outcome<'a, ()> {
        let (mut asked, mut keys, mut bytes, mut some) = (Vec::new(), Vec::new(), 0, false);
        for (key, value) in pairs.pairs() {
            if self.staged.is_some() {
                let written = self.set(spec, key, value, PLAIN).await;
                written.map_err(|trouble| trouble.after(some))?;
                some = true;
                continue;
            }
            let key = named(key)?;
            let is_much = asked.len() == ASKED_AT_ONCE_MAX || bytes > MSET_BYTES_MAX;
            // The last one of several for a key is to stay.
            if is_much || keys.contains(&key) {
                (keys, bytes) = (Vec::new(), 0);
                self.finish_puts(std::mem::take(&mut asked), &mut some).await?;
            }
            match self.begin_put(&key, &value, FOR_EVER, false) {
                None => some = true,
                Some(put) => {
                    asked.push(put);
                    keys.push(key);
                    bytes += value.len();
                }
            }
        }
        self.finish_puts(asked, &mut some).await
    }

    /// Waits for puts that were begun. `some`: whether some were done, or have been before.
    async fn finish_puts<'a>(&mut self, asked: Vec<Asked>, some: &mut bool) -> Outcome<'a, ()> {
        let mut failed = None;
        for reply in self.store.finish(asked).await {
            let reply = reply?;
            *some |= may_be_done(&reply);
            match self.is_set(reply) {
                Ok(()) => *some = true,
                Err(trouble) => failed = failed.or(Some(trouble)),
            }
        }
        match failed {
            None => Ok(()),
            Some(trouble) => Err(trouble.after(*some)),
        }
    }

    async fn set<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        value: Argument<'a>,
        options: SetOptions<'a>,
    ) -> Outcome<'a, Written> {
        let (key, keeps, lifetimes) = self.check_set(spec, key, value, options.ttl)?;
        let written = |is_written| Written { is_written, before: None };
        match (options.condition, lifetimes) {
            (SetCondition::Always, None) if !options.get => {
                self.change(&key, Operation::End { birth: None }).await?;
                return Ok(written(true));
            }
            (SetCondition::Always, Some(lifetimes)) if !options.get => {
                let put = self.put_of(&key, &value, lifetimes, keeps);
                if !self.change(&key, put).await? {
                    self.late()?;
                }
                return Ok(written(true));
            }
            (SetCondition::Absent, Some(lifetimes)) if !options.get => {
                let value = Value::Bytes(value.to_vec());
                return Ok(written(self.begin(&key, value, lifetimes).await?));
            }
            _ => {}
        }
        for _ in 0..TRIES_MAX {
            let found = self.look_anew(&key).await?;
            let current = match &found {
                Found::Alive(session) => match &session.value {
                    Value::Bytes(bytes) => Some(bytes),
                    _ if asks_for_value(&options) => return Err(Trouble::wrong_type()),
                    _ => None,
                },
                Found::Absent | Found::Ended => None,
            };
            let before = current.filter(|_| options.get).cloned();
            let is_alive = matches!(found, Found::Alive(_));
            let is_met = match options.condition {
                SetCondition::Always => true,
                SetCondition::Absent => !is_alive,
                SetCondition::Present => is_alive,
                SetCondition::Equal(wanted) => current.is_some_and(|bytes| bytes[..] == *wanted),
            };
            if !is_met {
                if !is_alive {
                    self.told.note(self.table, key.as_bytes());
                }
                return Ok(Written { is_written: false, before });
            }
            let is_plain = options.condition == SetCondition::Always;
            if is_plain && matches!(found, Found::Ended) && !self.knows_of_the_end(&key) {
                return self.late().map(|()| Written { is_written: true, before });
            }
            let new = || Value::Bytes(value.to_vec());
            let is_done = match (found, lifetimes) {
                (Found::Alive(session), None) => {
                    let version = session.version;
                    self.change(&key, Operation::EndIf { version }).await?
                }
                (Found::Alive(session), Some(lifetimes)) => {
                    let lifetimes = Some(lifetimes).filter(|_| !keeps);
                    self.replace(&key, &session, new(), lifetimes).await?
                }
                (_, None) => true,
                (_, Some(lifetimes)) => self.begin(&key, new(), lifetimes).await?,
            };
            if is_done {
                return Ok(Written { is_written: true, before });
            }
        }
        Err(contended())
    }

    /// Whether the client may begin a session though another one was ended there. It was told that there is none, or ended it
    /// itself; of an end after that, of a session that began after that, it may not know: ends have no names here by which
    /// they could be told apart.
    pub(super) fn knows_of_the_end(&self, key: &Key) -> bool {
        self.door.on_late_save == OnLateSave::Recreate
            || self.told.knows(self.table, key.as_bytes())
    }

    /// What is said to a late save.
    pub(super) fn late<'a>(&self) -> Outcome<'a, ()> {
        self.door.reception.tally.add("redis_late_saves");
        match self.door.on_late_save {
            OnLateSave::Ignore => Ok(()),
            OnLateSave::Error | OnLateSave::Recreate => {
                Err(Trouble::Error("ERR", LATE_SAVE.into()))
            }
        }
    }

    async fn get_ex<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        ttl: TtlChange,
    ) -> Outcome<'a, Option<Vec<u8>>> {
        let (key, now_ms) = (named(key)?, self.now_ms());
        let Some(session) = self.get(&key).await? else { return Ok(None) };
        let is_string = matches!(session.value, Value::Bytes(_));
        if !is_string {
            return Err(Trouble::wrong_type());
        }
        let change = match ttl {
            TtlChange::Keep => None,
            TtlChange::Remove => Some(lifetimes_of(&session, FOR_EVER)),
            TtlChange::Set(expiry) => {
                let deadline = expiry.deadline_ms(now_ms).ok_or(CommandError::Expire(spec))?;
                let birth = Some(session.birth);
                Some(match until(deadline, now_ms) {
                    None => Operation::End { birth },
                    Some(lifetimes) => lifetimes_of(&session, lifetimes),
                })
            }
        };
        if let Some(change) = change {
            // Should the session be another one by now, this was before it.
            self.change(&key, change).await?;
        }
        bytes_of(session).map(Some)
    }

    async fn get_del<'a>(&mut self, key: Argument<'a>) -> Outcome<'a, Option<Vec<u8>>> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let Some(session) = self.get(&key).await? else { return Ok(None) };
            let version = session.version;
            let value = bytes_of(session)?;
            if self.change(&key, Operation::EndIf { version }).await? {
                return Ok(Some(value));
            }
        }
        Err(contended())
    }

    /// Makes something else of a string, or of nothing, in one step: `new` gives what it becomes, or `None` if it stays. What
    /// begins anew here carries nothing of a session that was ended, and is no late save.
    async fn edit<'a>(
        &mut self,
        key: Argument<'a>,
        new: impl Fn(Option<&[u8]>) -> Outcome<'a, Option<Vec<u8>>>,
    ) -> Outcome<'a, Vec<u8>> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let session = match self.look_anew(&key).await? {
                Found::Alive(session) => Some(session),
                Found::Absent | Found::Ended => None,
            };
            let current = match session.as_ref().map(|session| &session.value) {
                None => None,
                Some(Value::Bytes(bytes)) => Some(&bytes[..]),
                Some(_) => return Err(Trouble::wrong_type()),
            };
            let Some(value) = new(current)? else {
                return Ok(current.unwrap_or_default().to_vec());
            };
            if value.len() > self.value_bytes_max() {
                return Err(Trouble::text("ERR", texts::TOO_LONG));
            }
            let written = Value::Bytes(value.clone());
            let is_done = match &session {
                Some(session) => self.replace(&key, session, written, None).await?,
                None => self.begin(&key, written, FOR_EVER).await?,
            };
            if is_done {
                return Ok(value);
            }
        }
        Err(contended())
    }

    fn value_bytes_max(&self) -> usize {
        self.door.tables[self.table].value_bytes_max
    }

    pub(super) fn refuse_longer<'a>(&self, bytes: usize) -> Outcome<'a, ()> {
        let limit = self.value_bytes_max();
        if bytes <= limit {
            return Ok(());
        }
        let failure = Failure::TooLarge { size: bytes as u64, limit: limit as u64 };
        Err(failure.into())
    }
}

/// Refuses an answer with so many bytes of values.
pub(super) fn refuse_answer_of<'a>(bytes: usize) -> Outcome<'a, ()> {
    if bytes <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    let text = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes; ask for less");
    Err(Trouble::Error("ERR", text.into()))
}

const PLAIN: SetOptions<'static> =
    SetOptions { condition: SetCondition::Always, ttl: KeepTtl::Remove, get: false };

/// Whether a write was done, or may be, by what the homes say.
fn may_be_done(reply: &SessionReply) -> bool {
    matches!(reply, SessionReply::Acknowledged(_) | SessionReply::Failed(Failure::TimedOut))
}

/// Whether a SET puts its value there whatever was there, and tells of nothing else.
pub(super) fn is_plain(options: &SetOptions<'_>) -> bool {
    matches!(options.condition, SetCondition::Always) && !options.get
}

/// Whether a SET has to do with the value that is there.
fn asks_for_value(options: &SetOptions<'_>) -> bool {
    options.get || matches!(options.condition, SetCondition::Equal(_))
}

fn bytes_of<'a>(session: Session) -> Outcome<'a, Vec<u8>> {
    match session.value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(Trouble::wrong_type()),
    }
}

pub(super) fn bulk_or_null(value: Option<&[u8]>, out: &mut Writer<'_>) {
    match value {
        Some(value) => out.bulk(value),
        None => out.null(),
    }
}

/// What GETRANGE says, by offsets that may count from the end and lie outside.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let size = value.len() as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(size - 1));
    if start > end {
        return &[];
    }
    &value[start as usize..=end as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is told that nothing was done does it again by itself.
    #[test]
    fn what_timed_out_may_be_done_and_what_was_refused_is_not() {
        let none = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
        for (failure, may_be) in [
            (Failure::TimedOut, true),
            (none, false),
            (Failure::SlowDown { retry_after_ms: 7 }, false),
            (Failure::Ended, false),
        ] {
            assert_eq!(may_be_done(&SessionReply::Failed(failure.clone())), may_be, "{failure:?}");
        }
    }

    #[test]
    fn a_range_lies_within_the_string_whatever_is_asked_for() {
        let value = b"This is a string";
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (-1, -5, ""),
            (5, 3, ""),
            (100, 200, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
            (-100, -100, "T"),
            (0, -100, "T"),
        ] {
            assert_eq!(range(value, start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!([range(b"", 0, 0), range(b"", 0, -1), range(b"", -1, -1)], [b""; 3]);
    }
}
