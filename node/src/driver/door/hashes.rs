//! Hashes: sessions whose value is a map of fields. Fields merge one by one, whoever sets them where.

use std::collections::{BTreeMap, BTreeSet};

use annulus_net::Clock;
use annulus_proto::entry::Value;
use annulus_proto::limits::FIELD_NAME_BYTES_MAX;
use annulus_proto::message::{Change, Operation, Session, field_hash};
use annulus_resp::{
    Argument, Arguments, Command, Decimal, HashParts, Scan, Writer, integer, texts,
};

use super::connection::Connection;
use super::keyspace::{FOR_EVER, Found, TRIES_MAX, named};
use super::store::{Outcome, Trouble, contended};
use super::strings::{bulk_or_null, refuse_answer_of};
use super::walk::is_like;

/// By their names.
pub(super) type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

impl<C: Clock> Connection<C> {
    /// Does a command about hashes.
    pub(super) async fn hash<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::HSet { key, pairs, counts } => {
                let new = self.set_fields(key, pairs).await?;
                if counts { out.integer(new as i64) } else { out.ok() }
            }
            Command::HSetNx { key, field, value } => {
                let is_new = self.edit_field(key, field, |current| {
                    Ok(current.is_none().then(|| value.to_vec()))
                });
                out.integer(is_new.await?.is_some().into());
            }
            Command::HGet { key, field } => {
                let fields = self.fields(key).await?;
                bulk_or_null(fields.get(&*field).map(Vec::as_slice), out);
            }
            Command::HMGet { key, fields: names } => {
                let fields = self.fields(key).await?;
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
                let fields = self.fields(key).await?;
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
            Command::HLen { key } => out.integer(self.fields(key).await?.len() as i64),
            Command::HExists { key, field } => {
                out.integer(self.fields(key).await?.contains_key(&*field).into());
            }
            Command::HStrLen { key, field } => {
                let fields = self.fields(key).await?;
                out.integer(fields.get(&*field).map_or(0, Vec::len) as i64);
            }
            Command::HDel { key, fields } => {
                out.integer(self.delete_fields(key, fields).await? as i64);
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
            Command::HScan { key, scan } => scan_fields(&self.fields(key).await?, &scan, out),
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// The fields of a hash, as the client is told; none if there is no such key.
    async fn fields<'a>(&mut self, key: Argument<'a>) -> Outcome<'a, Fields> {
        match self.get(&named(key)?).await? {
            Some(session) => fields_of(session),
            None => Ok(Fields::new()),
        }
    }

    /// Sets fields, and says how many are new. They are merged with those that are there, and with what others set meanwhile;
    /// of two who set a new field at the same moment both may be told that it is new.
    async fn set_fields<'a>(
        &mut self,
        key: Argument<'a>,
        pairs: Arguments<'a>,
    ) -> Outcome<'a, usize> {
        let key = named(key)?;
        let mut set = Fields::new();
        for (name, value) in pairs.pairs() {
            set.insert(field_name(name)?, value.to_vec());
        }
        for _ in 0..TRIES_MAX {
            let is_done = match self.look(&key).await? {
                Found::Alive(session) => {
                    let birth = Some(session.birth);
                    let fields = fields_of(session)?;
                    let new = set.keys().filter(|name| !fields.contains_key(*name)).count();
                    let change = Change::Fields { set: set.clone(), delete: Vec::new() };
                    let update = Operation::Update { birth, change };
                    self.change(&key, update).await?.then_some(new)
                }
                Found::Ended if !self.knows_of_the_end(&key) => {
                    self.late()?;
                    Some(set.len())
                }
                Found::Absent | Found::Ended => {
                    let map = Value::Map(set.clone());
                    self.begin(&key, map, FOR_EVER).await?.then_some(set.len())
                }
            };
            if let Some(new) = is_done {
                return Ok(new);
            }
        }
        Err(contended())
    }

    /// Deletes fields, and says how many there were. With the last one the key is gone.
    async fn delete_fields<'a>(
        &mut self,
        key: Argument<'a>,
        names: Arguments<'a>,
    ) -> Outcome<'a, usize> {
        let key = named(key)?;
        let names: BTreeSet<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
        for _ in 0..TRIES_MAX {
            let Some(session) = self.get(&key).await? else { return Ok(0) };
            let birth = session.birth;
            let fields = fields_of(session)?;
            let there: Vec<_> =
                names.iter().filter(|name| fields.contains_key(*name)).cloned().collect();
            if there.is_empty() {
                return Ok(0);
            }
            let hash = |name: &Vec<u8>| fields.get(name).map(|value| field_hash(value));
            let seen = there.iter().map(|name| (name.clone(), hash(name)));
            let (count, ends) = (there.len(), there.len() == fields.len());
            let delete = Operation::UpdateFieldsIf {
                birth,
                expected: seen.collect(),
                is_all: ends,
                set: Fields::new(),
                delete: there,
                lifetimes: None,
                // Others may take the rest meanwhile.
                ends_empty: true,
            };
            if self.change(&key, delete).await? {
                if ends {
                    self.told.note(self.table, key.as_bytes());
                }
                return Ok(count);
            }
        }
        Err(contended())
    }

    /// Makes something else of a field, or of none, in one step: `new` gives what it becomes, or `None` if it stays. What begins
    /// anew here carries nothing of a session that was ended, and is no late save.
    async fn edit_field<'a>(
        &mut self,
        key: Argument<'a>,
        name: Argument<'a>,
        new: impl Fn(Option<&[u8]>) -> Outcome<'a, Option<Vec<u8>>>,
    ) -> Outcome<'a, Option<Vec<u8>>> {
        let (key, name) = (named(key)?, field_name(name)?);
        for _ in 0..TRIES_MAX {
            let (birth, fields) = match self.look(&key).await? {
                Found::Alive(session) => (Some(session.birth), fields_of(session)?),
                Found::Absent | Found::Ended => (None, Fields::new()),
            };
            let current = fields.get(&name).map(Vec::as_slice);
            let Some(value) = new(current)? else { return Ok(None) };
            let set = Fields::from([(name.clone(), value.clone())]);
            let is_done = match birth {
                Some(birth) => {
                    let update = Operation::UpdateFieldsIf {
                        birth,
                        expected: BTreeMap::from([(name.clone(), current.map(field_hash))]),
                        is_all: false,
                        set,
                        delete: Vec::new(),
                        lifetimes: None,
                        ends_empty: false,
                    };
                    self.change(&key, update).await?
                }
                None => self.begin(&key, Value::Map(set), FOR_EVER).await?,
            };
            if is_done {
                return Ok(Some(value));
            }
        }
        Err(contended())
    }
}

fn fields_of<'a>(session: Session) -> Outcome<'a, Fields> {
    match session.value {
        Value::Map(fields) => Ok(fields),
        Value::Bytes(_) => Err(Trouble::wrong_type()),
    }
}

/// The name of a field that is written.
///
/// # Errors
/// If it is long. (Redis takes any.)
fn field_name(name: Argument<'_>) -> Outcome<'_, Vec<u8>> {
    if name.len() > FIELD_NAME_BYTES_MAX {
        let text = format!("a field's name has {FIELD_NAME_BYTES_MAX} bytes at most");
        return Err(Trouble::Error("ERR", text.into()));
    }
    Ok(name.to_vec())
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

/// All fields at once, as Redis does with hashes that are not large.
fn scan_fields(fields: &Fields, scan: &Scan<'_>, out: &mut Writer<'_>) {
    let is_meant = |name: &[u8]| scan.pattern.is_none_or(|pattern| is_like(name, pattern));
    let found: Vec<_> = fields.iter().filter(|(name, _)| is_meant(name)).collect();
    out.array(2);
    out.bulk(b"0");
    out.array(2 * found.len());
    for (name, value) in found {
        out.bulk(name);
        out.bulk(value);
    }
}
