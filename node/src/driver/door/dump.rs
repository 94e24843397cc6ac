//! DUMP and RESTORE: what a key holds as bytes of our own. Clients of clusters rename keys so, from one slot to another.

use std::collections::BTreeMap;

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::entry::{Kind, Value};
use annulus_proto::message::Operation;
use annulus_resp::table::Spec;
use annulus_resp::{Argument, CommandError, Expiry, Writer, texts};
use twox_hash::XxHash3_64;

use super::connection::Connection;
use super::keyspace::{FOR_EVER, named, until};
use super::store::{Outcome, Trouble};

/// Of this layout: the kind of value, and the value; of fields, name and value one after the other, each behind its length in
/// 4 bytes, little-endian; then this number; then XXH3-64 of all that, in 8 bytes, little-endian. Redis' own has a version of
/// 2 bytes and a checksum there: neither takes the other's.
const LAYOUT: u8 = 0xa1;
const BYTES: u8 = 0;
const MAP: u8 = 1;
const SET: u8 = 2;
const SORTED_SET: u8 = 3;

impl<C: Clock> Connection<C> {
    /// DUMP.
    pub(super) async fn dump<'a>(
        &mut self,
        key: Argument<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match self.get(&named(key)?).await? {
            Some(session) => out.bulk(&payload(&session.value)),
            None => out.null(),
        }
        Ok(())
    }

    /// RESTORE. It begins a session, and is no late save: what it writes was not read under this key.
    pub(super) async fn restore<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        bytes: Argument<'a>,
        expiry: Option<Expiry>,
        replace: bool,
    ) -> Outcome<'a, ()> {
        let now_ms = self.now_ms();
        let lifetimes = match expiry {
            None => Some(FOR_EVER),
            Some(expiry) => {
                until(expiry.deadline_ms(now_ms).ok_or(CommandError::Expire(spec))?, now_ms)
            }
        };
        let value = value(&bytes).ok_or_else(|| Trouble::text("ERR", texts::BAD_PAYLOAD))?;
        let (key, attributes) = (named(key)?, Default::default());
        let Some(lifetimes) = lifetimes else {
            return self.restore_nothing(&key, replace).await;
        };
        let start = match replace {
            true => Operation::Start { value, lifetimes, attributes },
            false => Operation::StartIfAbsent { value, lifetimes, attributes },
        };
        if self.change(&key, start).await? { Ok(()) } else { Err(busy()) }
    }

    /// What is restored with a deadline that is past.
    async fn restore_nothing<'a>(&mut self, key: &Key, replace: bool) -> Outcome<'a, ()> {
        if self.get(key).await?.is_none() {
            return Ok(());
        }
        if !replace {
            return Err(busy());
        }
        self.change(key, Operation::End { birth: None }).await.map(drop)
    }
}

fn busy<'a>() -> Trouble<'a> {
    Trouble::text("BUSYKEY", texts::BUSY_KEY)
}

fn payload(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.size() + 16);
    match value {
        Value::Bytes(value) => {
            bytes.push(BYTES);
            bytes.extend_from_slice(value);
        }
        Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) => {
            bytes.push(match value.kind() {
                Kind::Bytes => BYTES,
                Kind::Map => MAP,
                Kind::Set => SET,
                Kind::SortedSet => SORTED_SET,
            });
            for part in fields.iter().flat_map(|(name, value)| [name, value]) {
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
    }
    bytes.push(LAYOUT);
    bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
    bytes
}

/// `None`: no DUMP has told this.
fn value(payload: &[u8]) -> Option<Value> {
    let (bytes, hash) = payload.split_last_chunk()?;
    if XxHash3_64::oneshot(bytes) != u64::from_le_bytes(*hash) {
        return None;
    }
    match bytes {
        [BYTES, value @ .., LAYOUT] => Some(Value::Bytes(value.to_vec())),
        [kind @ MAP..=SORTED_SET, rest @ .., LAYOUT] => {
            let kind = match *kind {
                MAP => Kind::Map,
                SET => Kind::Set,
                _ => Kind::SortedSet,
            };
            let (mut fields, mut rest) = (BTreeMap::new(), rest);
            while !rest.is_empty() {
                let name = next_part(&mut rest)?;
                fields.insert(name, next_part(&mut rest)?);
            }
            Some(Value::of_fields(kind, fields))
        }
        _ => None,
    }
}

fn next_part(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, behind) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(part.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> Value {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Value::Map(fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
    }

    #[test]
    fn what_was_dumped_is_restored() {
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        for it in [text(""), text("some"), map(&[]), map(&[("", ""), ("name", "value")])] {
            assert_eq!(value(&payload(&it)), Some(it));
        }
    }

    #[test]
    fn what_was_not_dumped_is_refused() {
        let dumped = payload(&map(&[("name", "value"), ("other", "")]));
        for size in 0..dumped.len() {
            assert_eq!(value(&dumped[..size]), None, "{size} bytes");
        }
        for at in 0..dumped.len() {
            let mut changed = dumped.clone();
            changed[at] ^= 1;
            assert_eq!(value(&changed), None, "byte {at}");
        }
        // With a hash that is right, but lengths that lead beyond the end, an odd number of parts, or of another kind.
        for bytes in [&[MAP, 9, 0, 0, 0, b'a'][..], &[MAP, 1, 0, 0, 0, b'a'], &[MAP, 1, 0], &[7]] {
            let mut bytes = [bytes, &[LAYOUT]].concat();
            bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
            assert_eq!(value(&bytes), None, "{bytes:?}");
        }
    }
}
