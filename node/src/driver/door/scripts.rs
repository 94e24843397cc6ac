//! The scripts that are known ([`Script`]), done as commands are: each reads its key and changes it by compare-and-set.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus_net::Clock;
use annulus_proto::entry::Value;
use annulus_proto::message::{Change, Operation, Session};
use annulus_resp::{
    Argument, Arguments, Command, CommandError, Script, Writer, integer, sha1, texts,
};

use super::connection::Connection;
use super::keyspace::{TRIES_MAX, deadline_ms, named, until};
use super::store::{Outcome, Trouble, contended};

/// Scripts that were sent: known ones, in texts that differ from those that their libraries send, by their SHA-1s.
#[derive(Default)]
pub(super) struct Scripts {
    sent: Mutex<BTreeMap<String, Script>>,
}

/// How many texts of the few known scripts are remembered.
const SENT_MAX: usize = 64;

const UNKNOWN: &str =
    "this script is not known; no Lua runs here, and docs/redis.md says which scripts are done";
const ARGUMENTS: &str = "this script has one key, and not so many arguments";

impl Scripts {
    fn sent(&self) -> MutexGuard<'_, BTreeMap<String, Script>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a script. Returns what it does, and its SHA-1; `None`: it is not known.
    fn load(&self, text: &[u8]) -> Option<(Script, String)> {
        let script = Script::of_text(text)?;
        let sha1 = sha1(text);
        let mut sent = self.sent();
        if Script::of_sha1(sha1.as_bytes()).is_none() && sent.len() < SENT_MAX {
            sent.insert(sha1.clone(), script);
        }
        Some((script, sha1))
    }

    fn find(&self, sha1: &[u8]) -> Option<Script> {
        let sent = || self.sent().get(&String::from_utf8_lossy(sha1).to_ascii_lowercase()).copied();
        Script::of_sha1(sha1).or_else(sent)
    }
}

impl<C: Clock> Connection<C> {
    /// Does a command about scripts.
    pub(super) async fn script<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let scripts = &self.door.scripts;
        match command {
            Command::Eval { script, by_sha1, keys, arguments } => {
                let script = match by_sha1 {
                    true => scripts.find(&script).ok_or(CommandError::NoScript)?,
                    false => scripts.load(&script).ok_or_else(unknown)?.0,
                };
                self.eval(script, keys, arguments, out).await?;
            }
            Command::ScriptLoad { script } => {
                let (_, sha1) = scripts.load(&script).ok_or_else(unknown)?;
                out.bulk(sha1.as_bytes());
            }
            Command::ScriptExists { scripts: sha1s } => {
                out.array(sha1s.len());
                sha1s.iter().for_each(|sha1| out.integer(scripts.find(&sha1).is_some().into()));
            }
            _ => {
                scripts.sent().clear();
                out.ok();
            }
        }
        Ok(())
    }

    async fn eval<'a>(
        &mut self,
        script: Script,
        keys: Arguments<'a>,
        arguments: Arguments<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let at = |index: usize| {
            arguments.get(index).ok_or_else(|| Trouble::Error("ERR", ARGUMENTS.into()))
        };
        if keys.len() != 1 || arguments.len() < script.arguments() {
            return Err(Trouble::Error("ERR", ARGUMENTS.into()));
        }
        let key = keys.get(0).ok_or_else(|| Trouble::Error("ERR", ARGUMENTS.into()))?;
        match script {
            Script::DeleteIfEqual => {
                let end = |version| Some(Operation::EndIf { version });
                let is_done = self.change_if_equal(key, at(0)?, |seen| Ok(end(seen.version)));
                out.integer(is_done.await?.into());
            }
            Script::SetIfAbsent => {
                let (value, seconds) = (at(0)?, number(at(1)?)?);
                let deadline = seconds.checked_mul(1_000).filter(|ms| *ms > 0);
                let deadline = deadline.and_then(|ms| ms.checked_add(self.now_ms()));
                let lifetimes = deadline.and_then(|deadline| until(deadline, self.now_ms()));
                let lifetimes = lifetimes.ok_or_else(|| {
                    Trouble::Error("ERR", "invalid expire time in 'setex' command".into())
                })?;
                self.refuse_longer(value.len())?;
                match self.begin(&named(key)?, Value::Bytes(value.to_vec()), lifetimes).await? {
                    true => out.ok(),
                    false => out.null(),
                }
            }
            Script::Extend => {
                let (by, adds) = (number(at(1)?)?, *at(2)? == *b"0");
                let now_ms = self.now_ms();
                let extend = |seen: &Session| {
                    let Some(deadline) = deadline_ms(seen) else { return Ok(None) };
                    let from = if adds { deadline } else { now_ms };
                    Ok(Some(lives_until(seen, from.saturating_add(by), now_ms)))
                };
                out.integer(self.change_if_equal(key, at(0)?, extend).await?.into());
            }
            Script::Reacquire => {
                let (by, now_ms) = (number(at(1)?)?, self.now_ms());
                let renew =
                    |seen: &Session| Ok(Some(lives_until(seen, now_ms.saturating_add(by), now_ms)));
                out.integer(self.change_if_equal(key, at(0)?, renew).await?.into());
            }
            Script::GetAndRenew => {
                let seconds = number(at(0)?)?;
                self.get_and_renew(key, seconds, out).await?;
            }
        }
        Ok(())
    }

    /// Does to a string what is said, if it is this one, in one step. `false`: it is not, or nothing was said.
    async fn change_if_equal<'a>(
        &mut self,
        key: Argument<'a>,
        value: Argument<'a>,
        change: impl Fn(&Session) -> Outcome<'a, Option<Operation>>,
    ) -> Outcome<'a, bool> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let Some(seen) = self.get(&key).await? else { return Ok(false) };
            let Value::Bytes(bytes) = &seen.value else { return Err(Trouble::wrong_type()) };
            if bytes[..] != *value {
                return Ok(false);
            }
            let Some(change) = change(&seen)? else { return Ok(false) };
            if self.change(&key, change).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }

    async fn get_and_renew<'a>(
        &mut self,
        key: Argument<'a>,
        seconds: i64,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let (key, now_ms) = (named(key)?, self.now_ms());
        for _ in 0..TRIES_MAX {
            let Some(seen) = self.get(&key).await? else {
                out.null();
                return Ok(());
            };
            let Value::Bytes(bytes) = &seen.value else { return Err(Trouble::wrong_type()) };
            let deadline = now_ms.saturating_add(seconds.saturating_mul(1_000));
            let is_kept = deadline_ms(&seen).is_none();
            if is_kept || self.change(&key, lives_until(&seen, deadline, now_ms)).await? {
                out.bulk(bytes);
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// A new deadline for what was seen, or its end if that is past.
fn lives_until(seen: &Session, deadline: i64, now_ms: i64) -> Operation {
    let version = seen.version;
    match until(deadline, now_ms) {
        None => Operation::EndIf { version },
        Some(lifetimes) => Operation::UpdateIf { version, change: Change::Lifetimes(lifetimes) },
    }
}

fn unknown<'a>() -> Trouble<'a> {
    Trouble::Error("ERR", UNKNOWN.into())
}

fn number<'a>(text: Argument<'a>) -> Outcome<'a, i64> {
    integer(&text).ok_or_else(|| Trouble::text("ERR", texts::NOT_INTEGER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scripts_are_remembered_however_they_are_written_and_so_many_of_them() {
        let scripts = Scripts::default();
        let text = |blanks: usize| {
            let blanks = " ".repeat(blanks);
            format!(
                "{blanks}return redis.call('exists', KEYS[1]) < 1 and redis.call('setex', KEYS[1], ARGV[2], ARGV[1])"
            )
        };
        let mut sha1s = Vec::new();
        for blanks in 0..2 * SENT_MAX {
            let (script, sha1) = scripts.load(text(blanks).as_bytes()).expect("it is known");
            assert_eq!(script, Script::SetIfAbsent);
            sha1s.push(sha1);
        }
        let found = |sha1: &String| scripts.find(sha1.to_uppercase().as_bytes()).is_some();
        assert_eq!(sha1s.iter().filter(|sha1| found(sha1)).count(), SENT_MAX);
        assert_eq!(scripts.load(b"return 1"), None);
        scripts.sent().clear();
        assert!(!sha1s.iter().any(found));
    }
}
