//! What hashes, sets and sorted sets have in common: fields that are set and deleted one by one, and merge, whoever does it
//! where. Members of sets are names of fields, and scores their values.

use std::collections::BTreeSet;

use annulus_net::Clock;
use annulus_proto::entry::{Fields, Kind, Value};
use annulus_proto::limits::FIELD_NAME_BYTES_MAX;
use annulus_proto::message::{Change, Operation, Session, field_hash};
use annulus_resp::{Argument, Arguments, Scan, Writer};

use super::connection::Connection;
use super::keyspace::{FOR_EVER, Found, TRIES_MAX, named};
use super::store::{Outcome, Trouble, contended};
use super::walk::is_like;

impl<C: Clock> Connection<C> {
    /// The fields of something of a kind, as the client is told; none if there is no such key.
    pub(super) async fn fields<'a>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
    ) -> Outcome<'a, Fields> {
        match self.get(&named(key)?).await? {
            Some(session) => fields_of(session, kind),
            None => Ok(Fields::new()),
        }
    }

    /// Sets fields, and returns those that were there. They are merged with these, and with what others set meanwhile; of two who
    /// set a new field at the same moment both may be told that it is new. A hash is a session, and a late save of it is refused;
    /// sets are lists of something else, and begin anew.
    pub(super) async fn set_fields<'a>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
        set: Fields,
    ) -> Outcome<'a, Fields> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let is_done = match self.look(&key).await? {
                Found::Alive(session) => {
                    let birth = Some(session.birth);
                    let fields = fields_of(session, kind)?;
                    let change = Change::Fields { set: set.clone(), delete: Vec::new() };
                    let update = Operation::Update { birth, change };
                    self.change(&key, update).await?.then_some(fields)
                }
                Found::Ended if kind == Kind::Map && !self.knows_of_the_end(&key) => {
                    self.late()?;
                    Some(Fields::new())
                }
                Found::Absent | Found::Ended => {
                    let value = Value::of_fields(kind, set.clone());
                    self.begin(&key, value, FOR_EVER).await?.then(Fields::new)
                }
            };
            if let Some(before) = is_done {
                return Ok(before);
            }
        }
        Err(contended())
    }

    /// Deletes those of the fields that are to be, and says how many there were. With the last one the key is gone.
    pub(super) async fn delete_fields<'a>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
        is_meant: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Outcome<'a, usize> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let Some(session) = self.get(&key).await? else { return Ok(0) };
            let birth = session.birth;
            let fields = fields_of(session, kind)?;
            let there: Fields = fields
                .iter()
                .filter(|(name, value)| is_meant(name, value))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if there.is_empty() {
                return Ok(0);
            }
            let seen = there.iter().map(|(name, value)| (name.clone(), Some(field_hash(value))));
            let (count, ends) = (there.len(), there.len() == fields.len());
            let delete = Operation::UpdateFieldsIf {
                birth,
                expected: seen.collect(),
                is_all: ends,
                set: Fields::new(),
                delete: there.into_keys().collect(),
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

    /// Makes something else of some fields in one step: `new` is shown all that there are, and gives what these become, none
    /// if all stays as it is. Returns what it gave besides. What begins anew here carries nothing of a session that was ended,
    /// and is no late save.
    pub(super) async fn edit_fields<'a, T>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
        names: &BTreeSet<Vec<u8>>,
        new: impl Fn(&Fields) -> Outcome<'a, (Fields, T)>,
    ) -> Outcome<'a, T> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let (birth, fields) = match self.look(&key).await? {
                Found::Alive(session) => (Some(session.birth), fields_of(session, kind)?),
                Found::Absent | Found::Ended => (None, Fields::new()),
            };
            let (set, told) = new(&fields)?;
            if set.is_empty() {
                return Ok(told);
            }
            let hash = |name: &Vec<u8>| fields.get(name).map(|value| field_hash(value));
            let is_done = match birth {
                Some(birth) => {
                    let update = Operation::UpdateFieldsIf {
                        birth,
                        expected: names.iter().map(|name| (name.clone(), hash(name))).collect(),
                        is_all: false,
                        set,
                        delete: Vec::new(),
                        lifetimes: None,
                        ends_empty: false,
                    };
                    self.change(&key, update).await?
                }
                None => self.begin(&key, Value::of_fields(kind, set), FOR_EVER).await?,
            };
            if is_done {
                return Ok(told);
            }
        }
        Err(contended())
    }
}

/// The fields of a session, if it is of this kind.
fn fields_of<'a>(session: Session, kind: Kind) -> Outcome<'a, Fields> {
    let is_one = session.value.kind() == kind;
    match session.value {
        Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) if is_one => Ok(fields),
        _ => Err(Trouble::wrong_type()),
    }
}

/// The name of a field or member that is written.
///
/// # Errors
/// If it is long. (Redis takes any.)
pub(super) fn field_name<'a>(name: Argument<'a>, kind: Kind) -> Outcome<'a, Vec<u8>> {
    if name.len() > FIELD_NAME_BYTES_MAX {
        let what = if kind == Kind::Map { "a field's name" } else { "a member" };
        let text = format!("{what} has {FIELD_NAME_BYTES_MAX} bytes at most");
        return Err(Trouble::Error("ERR", text.into()));
    }
    Ok(name.to_vec())
}

/// Arguments as a set.
pub(super) fn all_of(names: Arguments<'_>) -> BTreeSet<Vec<u8>> {
    names.iter().map(|name| name.to_vec()).collect()
}

/// Tells of all fields at once, as Redis does of what is not large: of each as many bulk strings as `parts` writes.
pub(super) fn scan_fields(
    fields: &Fields,
    scan: &Scan<'_>,
    parts: usize,
    out: &mut Writer<'_>,
    write: impl Fn(&[u8], &[u8], &mut Writer<'_>),
) {
    let is_meant = |name: &[u8]| scan.pattern.is_none_or(|pattern| is_like(name, pattern));
    let found: Vec<_> = fields.iter().filter(|(name, _)| is_meant(name)).collect();
    out.array(2);
    out.bulk(b"0");
    out.array(parts * found.len());
    for (name, value) in found {
        write(name, value, out);
    }
}
