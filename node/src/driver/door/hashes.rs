//! Hashes: sessions whose value is a map of fields. Fields merge one by one, whoever sets them where.

use std::collections::BTreeSet;

use annulus_net::Clock;
use annulus_proto::entry::{Fields, Kind};
use annulus_resp::table::Spec;
use annulus_resp::{
    Argument, Arguments, Command, CommandError, Decimal, Expiry, HashParts, Protocol, TtlCondition,
    Writer, integer, texts,
};

use super::connection::Connection;
use super::fields::{Edit, Seen, all_of, count_new, field_name, scan_fields};
use super::keyspace::{holds, named};
use super::store::{Outcome, Trouble};
use super::strings::{bulk_or_null, refuse_answer_of};

/// The last deadline that Redis gives a field, in milliseconds since 1970.
const FIELD_DEADLINE_MS_MAX: i64 = (1 << 46) - 1;

// What HEXPIRE and its like say of a field.
const NO_FIELD: i64 = -2;
const NO_DEADLINE: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

/// What a field takes in an answer, beside its name and its value.
const FIELD_ANSWERED_BYTES: usize = 16;

impl<C: Clock> Connection<C> {
    /// Does a command about hashes.
    pub(super) async fn hash<'a>(
        &mut self,
        spec: &'static Spec,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::HSet { key, pairs, counts } => {
                let mut set = Fields::new();
                for (name, value) in pairs.pairs() {
                    set.insert(field_name(name, Kind::Map)?, value.to_vec());
                }
                let before = self.set_fields(key, Kind::Map, &set).await?;
                if counts { out.integer(count_new(&set, &before)) } else { out.ok() }
            }
            Command::HSetNx { key, field, value } => {
                let is_new = self.edit_field(key, field, |current| {
                    Ok(current.is_none().then(|| value.to_vec()))
                });
                out.integer(is_new.await?.is_some().into());
            }
            Command::HGet { key, field } => {
                let fields = self.fields(key, Kind::Map).await?;
                bulk_or_null(fields.get(&*field).map(Vec::as_slice), out);
            }
            Command::HMGet { key, fields: names } => {
                let fields = self.fields(key, Kind::Map).await?;
                let values: Vec<_> =
                    names.iter().map(|name| fields.get(&*name).map(Vec::as_slice)).collect();
                // A field may be named many times.
                let size = values.iter().flatten().map(|value| value.len()).sum();
                refuse_answer_of(size)?;
                out.array(values.len());
                for value in values {
                    bulk_or_null(value, out);
                }
            }
            Command::HGetAll { key, parts } => {
                let fields = self.fields(key, Kind::Map).await?;
                match parts {
                    HashParts::All => out.map(fields.len()),
                    HashParts::Names | HashParts::Values => out.array(fields.len()),
                }
                for (name, value) in &fields {
                    if parts != HashParts::Values {
                        out.bulk(name);
                    }
                    if parts != HashParts::Names {
                        out.bulk(value);
                    }
                }
            }
            Command::HLen { key } => out.integer(self.fields(key, Kind::Map).await?.len() as i64),
            Command::HExists { key, field } => {
                out.integer(self.fields(key, Kind::Map).await?.contains_key(&*field).into());
            }
            Command::HStrLen { key, field } => {
                let fields = self.fields(key, Kind::Map).await?;
                out.integer(fields.get(&*field).map_or(0, Vec::len) as i64);
            }
            Command::HDel { key, fields } => {
                let names = all_of(fields);
                let deleted =
                    self.delete_fields(key, Kind::Map, |name, _| names.contains(name)).await?;
                out.integer(deleted as i64);
            }
            Command::HIncrBy { key, field, by } => {
                let new = self.edit_field(key, field, |current| {
                    let number = current.map_or(Some(0), integer);
                    let number =
                        number.ok_or_else(|| Trouble::text("ERR", texts::HASH_NOT_INTEGER))?;
                    let sum = number.checked_add(by);
                    let sum = sum.ok_or_else(|| Trouble::text("ERR", texts::OVERFLOW))?;
                    Ok(Some(sum.to_string().into_bytes()))
                });
                let new = new.await?.unwrap_or_default();
                out.integer(integer(&new).unwrap_or_default());
            }
            Command::HIncrByFloat { key, field, by } => {
                let new = self.edit_field(key, field, |current| {
                    sum(current, by, texts::HASH_NOT_FLOAT).map(Some)
                });
                out.bulk(&new.await?.unwrap_or_default());
            }
            Command::HScan { key, scan } => {
                let fields = self.fields(key, Kind::Map).await?;
                scan_fields(&fields, &scan, 2, out, |name, value, out| {
                    out.bulk(name);
                    out.bulk(value);
                });
            }
            Command::HExpire { key, expiry, condition, fields } => {
                let codes = self.expire_fields(spec, key, expiry, condition, fields).await?;
                write_codes(&codes, out);
            }
            Command::HPersist { key, fields } => {
                write_codes(&self.persist_fields(key, fields).await?, out);
            }
            Command::HTtl { key, fields, milliseconds, is_deadline } => {
                let from_ms = if is_deadline { 0 } else { self.now_ms() };
                let seen = match self.get(&named(key)?).await? {
                    Some(session) => Seen::of(session, Kind::Map)?,
                    None => Seen::default(),
                };
                let time = |name: Argument<'_>| match seen.fields.get(&*name) {
                    None => NO_FIELD,
                    Some(_) => seen.deadlines.get(&*name).map_or(NO_DEADLINE, |deadline| {
                        let left = i64::try_from(*deadline).unwrap_or(i64::MAX) - from_ms;
                        // A home whose clock is behind may show what has expired here.
                        let left = left.max(0);
                        // As Redis, which rounds up here, and not for keys.
                        if milliseconds { left } else { left.saturating_add(999) / 1_000 }
                    }),
                };
                write_codes(&fields.iter().map(time).collect::<Vec<_>>(), out);
            }
            Command::HRandField { key, count, with_values } => {
                let fields = self.fields(key, Kind::Map).await?;
                self.random_fields(&fields, count, with_values, out)?;
            }
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// HEXPIRE and its like: a code for each field.
    async fn expire_fields<'a>(
        &mut self,
        spec: &'static Spec,
        key: Argument<'a>,
        expiry: Expiry,
        condition: TtlCondition,
        names: Arguments<'a>,
    ) -> Outcome<'a, Vec<i64>> {
        let now_ms = self.now_ms();
        let deadline = expiry.deadline_ms(now_ms).ok_or(CommandError::Expire(spec))?;
        if deadline > FIELD_DEADLINE_MS_MAX {
            return Err(CommandError::Expire(spec).into());
        }
        self.edit_named(key, names, move |seen, name, edit| {
            if !seen.fields.contains_key(name) || edit.delete.contains(name) {
                return NO_FIELD;
            }
            let current = edit.deadlines.get(name).or_else(|| seen.deadlines.get(name));
            let current = current.map(|current| i64::try_from(*current).unwrap_or(i64::MAX));
            if !holds(condition, current, deadline) {
                return NOT_MET;
            }
            match u64::try_from(deadline).ok().filter(|_| deadline > now_ms) {
                Some(deadline) => {
                    edit.deadlines.insert(name.to_vec(), deadline);
                    DONE
                }
                None => {
                    edit.deadlines.remove(name);
                    edit.delete.insert(name.to_vec());
                    DELETED
                }
            }
        })
        .await
    }

    /// HPERSIST: a code for each field.
    async fn persist_fields<'a>(
        &mut self,
        key: Argument<'a>,
        names: Arguments<'a>,
    ) -> Outcome<'a, Vec<i64>> {
        self.edit_named(key, names, |seen, name, edit| {
            if !seen.fields.contains_key(name) {
                return NO_FIELD;
            }
            if !seen.deadlines.contains_key(name) || edit.deadlines.contains_key(name) {
                return NO_DEADLINE;
            }
            edit.deadlines.insert(name.to_vec(), 0);
            DONE
        })
        .await
    }

    /// Does something to each of the fields of these names, one after the other, and returns what that said.
    async fn edit_named<'a>(
        &mut self,
        key: Argument<'a>,
        names: Arguments<'a>,
        each: impl Fn(&Seen, &[u8], &mut Edit) -> i64,
    ) -> Outcome<'a, Vec<i64>> {
        let edit = |seen: &Seen| {
            let mut edit = Edit::default();
            let codes = names.iter().map(|name| each(seen, &name, &mut edit)).collect();
            Ok((edit, codes))
        };
        self.edit_fields(key, Kind::Map, &BTreeSet::new(), edit).await
    }

    /// Some fields at random: each once, or, of a negative number of them, again and again.
    fn random_fields<'a>(
        &self,
        fields: &Fields,
        count: Option<i64>,
        with_values: bool,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let mut fields: Vec<_> = fields.iter().collect();
        let Some(count) = count else {
            let one = fields.get(self.draw(fields.len() as u64) as usize);
            bulk_or_null(one.map(|(name, _)| name.as_slice()), out);
            return Ok(());
        };
        let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        let mut chosen = Vec::new();
        if count < 0 && !fields.is_empty() {
            // As long as the answer may be that has so many of the shortest.
            refuse_answer_of(wanted.saturating_mul(FIELD_ANSWERED_BYTES))?;
            let mut size = 0;
            for _ in 0..wanted {
                let field = fields[self.draw(fields.len() as u64) as usize];
                let value = if with_values { field.1.len() } else { 0 };
                size += FIELD_ANSWERED_BYTES + field.0.len() + value;
                refuse_answer_of(size)?;
                chosen.push(field);
            }
        } else {
            let wanted = wanted.min(fields.len());
            // Of all there is none to choose.
            let drawn = if wanted < fields.len() { wanted } else { 0 };
            for place in 0..drawn {
                let other = place + self.draw((fields.len() - place) as u64) as usize;
                fields.swap(place, other);
            }
            fields.truncate(wanted);
            chosen = fields;
        }
        let is_nested = with_values && self.protocol() == Protocol::Resp3;
        out.array(if with_values && !is_nested { 2 * chosen.len() } else { chosen.len() });
        for (name, value) in chosen {
            if is_nested {
                out.array(2);
            }
            out.bulk(name);
            if with_values {
                out.bulk(value);
            }
        }
        Ok(())
    }

    /// Makes something else of a field, or of none, in one step: `new` gives what it becomes, or `None` if it stays.
    async fn edit_field<'a>(
        &mut self,
        key: Argument<'a>,
        name: Argument<'a>,
        new: impl Fn(Option<&[u8]>) -> Outcome<'a, Option<Vec<u8>>>,
    ) -> Outcome<'a, Option<Vec<u8>>> {
        let name = field_name(name, Kind::Map)?;
        let names = BTreeSet::from([name.clone()]);
        let edit = |seen: &Seen| {
            let value = new(seen.fields.get(&name).map(Vec::as_slice))?;
            let set = value.iter().map(|value| (name.clone(), value.clone()));
            Ok((Edit::set(set.collect()), value))
        };
        self.edit_fields(key, Kind::Map, &names, edit).await
    }
}

fn write_codes(codes: &[i64], out: &mut Writer<'_>) {
    out.array(codes.len());
    codes.iter().for_each(|code| out.integer(*code));
}

/// What INCRBYFLOAT makes of a number, or of nothing; `not_float` is said if it is none.
pub(super) fn sum<'a>(
    current: Option<&[u8]>,
    by: Decimal,
    not_float: &'static [u8],
) -> Outcome<'a, Vec<u8>> {
    let number = Decimal::read(current.unwrap_or(b"0"));
    let number = number.ok_or_else(|| Trouble::text("ERR", not_float))?;
    let sum = number.checked_add(by).ok_or_else(|| {
        Trouble::Error("ERR", "increment would produce a number of more than 21 digits".into())
    })?;
    Ok(sum.to_string().into_bytes())
}
