//! RENAME, and MSETNX: commands that begin sessions under several keys, one after the other.

use std::collections::BTreeMap;

use annulus_net::Clock;
use annulus_proto::message::{Change, Failure, Lifetimes, Operation, Session, SessionReply};
use annulus_proto::{Key, Value, Version};
use annulus_resp::{Argument, Arguments, texts};

use super::connection::Connection;
use super::keyspace::{FOR_EVER, Found, TRIES_MAX, named};
use super::store::{Outcome, Trouble, contended};
use super::transaction::{deadlines_of, end_of};

impl<C: Clock> Connection<C> {
    /// Has a session go on under another key. Between the two writes both keys have it. `false`: there is something under the
    /// other key, and `if_absent`.
    pub(super) async fn rename<'a>(
        &mut self,
        from: Argument<'a>,
        to: Argument<'a>,
        if_absent: bool,
    ) -> Outcome<'a, bool> {
        let (from, to) = (named(from)?, named(to)?);
        if from == to {
            let is_there = self.get(&from).await?.is_some();
            return if is_there { Ok(!if_absent) } else { Err(no_such_key()) };
        }
        // The birth of what was begun there by this, and its last write.
        let mut begun = None;
        for _ in 0..TRIES_MAX {
            let seen = match self.look_anew(&from).await {
                Ok(Found::Alive(seen)) => seen,
                Ok(Found::Absent | Found::Ended) => {
                    // It ended meanwhile, and is not to live on under another name.
                    if let Some((birth, _)) = begun {
                        let ended = self.change(&to, Operation::End { birth: Some(birth) }).await;
                        ended.map_err(|trouble| trouble.after(true))?;
                    }
                    return Err(no_such_key());
                }
                Err(trouble) => return Err(trouble.after(begun.is_some())),
            };
            if !seen.attributes.owner.is_empty() {
                // The copy would be one session more of its owner, for a moment, and may cost him another one.
                let text =
                    "a session with an owner cannot be renamed; rotate it with another client";
                return Err(Trouble::Error("ERR", text.into()));
            }
            let end = end_of(&seen);
            let copied = self.copy(&to, seen, if_absent, begun).await;
            match copied.map_err(|trouble| trouble.after(begun.is_some()))? {
                None if begun.is_some() => return Err(contended().after(true)),
                None => return Ok(false),
                copied => begun = copied,
            }
            let ended = self.change(&from, end).await;
            if ended.map_err(|trouble| trouble.after(true))? {
                self.told.note(self.table, from.as_bytes());
                return Ok(true);
            }
        }
        Err(contended().after(true))
    }

    /// Begins a session as the one that was seen, or brings the one that was begun up to that. Returns its birth and last
    /// write; `None`: something else is there.
    async fn copy<'a>(
        &mut self,
        to: &Key,
        seen: Session,
        if_absent: bool,
        begun: Option<(Version, Version)>,
    ) -> Outcome<'a, Option<(Version, Version)>> {
        let now_ms = u64::try_from(self.now_ms()).unwrap_or(0);
        let left = match seen.expire_at {
            0 => 0,
            at => at.saturating_sub(now_ms).max(1),
        };
        let lifetimes = Lifetimes { idle_ms: Some(seen.idle), lifetime_ms: Some(left) };
        let (value, attributes) = (seen.value.clone(), seen.attributes.clone());
        let write = match (begun, if_absent) {
            (Some((_, version)), _) => {
                Operation::UpdateIf { version, change: Change::Whole(value, lifetimes) }
            }
            (None, true) => Operation::StartIfAbsent { value, lifetimes, attributes },
            (None, false) => Operation::Start { value, lifetimes, attributes },
        };
        let begun = self.start(to, write).await?;
        let Some(deadlines) = begun.and_then(|(birth, _)| deadlines_of(&seen, birth)) else {
            return Ok(begun);
        };
        // Whoever has set one of them meanwhile has said when it expires.
        let done = self.start(to, deadlines).await.map_err(|trouble| trouble.after(true))?;
        Ok(done.or(begun))
    }

    /// Begins sessions under all of these keys, or under none if something is under one of them.
    pub(super) async fn set_if_none_is_there<'a>(
        &mut self,
        pairs: Arguments<'a>,
    ) -> Outcome<'a, bool> {
        let mut values = BTreeMap::new();
        for (key, value) in pairs.pairs() {
            self.refuse_longer(value.len())?;
            // Of a key that is named twice, the last value counts.
            values.insert(named(key)?, value);
        }
        for key in values.keys() {
            if let Found::Alive(_) = self.look_anew(key).await? {
                return Ok(false);
            }
        }
        let mut begun = Vec::new();
        for (key, value) in values {
            let (value, lifetimes) = (Value::Bytes(value.to_vec()), FOR_EVER);
            let attributes = Default::default();
            let start = Operation::StartIfAbsent { value, lifetimes, attributes };
            let birth = self.start(&key, start).await;
            match birth.map_err(|trouble| trouble.after(!begun.is_empty()))? {
                Some((birth, _)) => begun.push((key, birth)),
                None => {
                    // Somebody came between: what was begun is taken back.
                    for (key, birth) in begun {
                        let end = Operation::End { birth: Some(birth) };
                        let ended = self.change(&key, end).await;
                        ended.map_err(|trouble| trouble.after(true))?;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Begins a session, or changes one. Returns its birth and this write; `None`: something else is there.
    async fn start<'a>(
        &mut self,
        key: &Key,
        start: Operation,
    ) -> Outcome<'a, Option<(Version, Version)>> {
        self.told.forget(self.table, key.as_bytes());
        match self.ask(key, start).await? {
            SessionReply::Acknowledged(acknowledged) => {
                Ok(Some((acknowledged.birth, acknowledged.version)))
            }
            SessionReply::Failed(
                Failure::Conflict { .. } | Failure::Absent | Failure::Ended | Failure::Expired,
            ) => Ok(None),
            SessionReply::Failed(failure) => Err(failure.into()),
            _ => Err(Trouble::Error("ERR", "the node answered something else".into())),
        }
    }
}

fn no_such_key<'a>() -> Trouble<'a> {
    Trouble::text("ERR", texts::NO_SUCH_KEY)
}
