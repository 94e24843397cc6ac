//! What hashes, sets and sorted sets have in common: fields that are set and deleted one by one, and merge, whoever does it
//! where. Members of sets are names of fields, and scores their values.

use std::collections::BTreeSet;

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::entry::{FieldDeadlines, Fields, Kind, Value};
use annulus_proto::limits::FIELD_NAME_BYTES_MAX;
use annulus_proto::message::{Change, Operation, Session, field_hash};
use annulus_resp::{Argument, Arguments, Scan, Writer};

use super::connection::Connection;
use super::keyspace::{FOR_EVER, Found, TRIES_MAX, named};
use super::store::{Outcome, Trouble, contended};
use super::walk::is_like;

/// Fields as somebody has seen them.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) fields: Fields,
    /// Of those that expire on their own, in milliseconds since 1970.
    pub(super) deadlines: FieldDeadlines,
}

/// What becomes of fields.
#[derive(Default)]
pub(super) struct Edit {
    pub(super) set: Fields,
    pub(super) delete: BTreeSet<Vec<u8>>,
    /// New deadlines, 0 = none. What is set and was there keeps the one that it had.
    pub(super) deadlines: FieldDeadlines,
}

impl<C: Clock> Connection<C> {
    /// The fields of something of a kind, as the client is told; none if there is no such key.
    pub(super) async fn fields<'a>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
    ) -> Outcome<'a, Fields> {
        match self.get(&named(key)?).await? {
            Some(session) => Ok(Seen::of(session, kind)?.fields),
            None => Ok(Fields::new()),
        }
    }

    /// What is under a key, for who puts something of a kind there: a hash may go on though none of its fields is left.
    async fn look_for<'a>(&mut self, key: &Key, kind: Kind) -> Outcome<'a, Found> {
        if kind == Kind::Map { self.look(key).await } else { self.look_anew(key).await }
    }

    /// Sets fields, and returns those that were there. They are merged with these, and with what others set meanwhile; of two who
    /// set a new field at the same moment both may be told that it is new. A hash is a session, and a late save of it is refused;
    /// sets are lists of something else, and begin anew.
    pub(super) async fn set_fields<'a>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
        set: &Fields,
    ) -> Outcome<'a, Fields> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let is_done = match self.look_for(&key, kind).await? {
                Found::Alive(session) => {
                    let birth = Some(session.birth);
                    let fields = Seen::of(session, kind)?.fields;
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
        let delete = |seen: &Seen| {
            let there = seen.fields.iter().filter(|(name, value)| is_meant(name, value));
            let delete: BTreeSet<_> = there.map(|(name, _)| name.clone()).collect();
            let count = delete.len();
            Ok((Edit { delete, ..Edit::default() }, count))
        };
        self.edit_fields(key, kind, &BTreeSet::new(), delete).await
    }

    /// Makes something else of some fields in one step: `new` is shown all that there are, and says what becomes of some, which
    /// depends on those of these names, and on those that it deletes or gives deadlines. Returns what it gave besides. What
    /// begins anew here carries nothing of a session that was ended, and is no late save. With its last field the key is gone.
    pub(super) async fn edit_fields<'a, T>(
        &mut self,
        key: Argument<'a>,
        kind: Kind,
        names: &BTreeSet<Vec<u8>>,
        new: impl Fn(&Seen) -> Outcome<'a, (Edit, T)>,
    ) -> Outcome<'a, T> {
        let key = named(key)?;
        for _ in 0..TRIES_MAX {
            let found = self.look_for(&key, kind).await?;
            let (birth, seen) = match found {
                Found::Alive(session) => (Some(session.birth), Seen::of(session, kind)?),
                Found::Absent | Found::Ended => (None, Seen::default()),
            };
            let (Edit { set, delete, mut deadlines }, told) = new(&seen)?;
            if set.is_empty() && delete.is_empty() && deadlines.is_empty() {
                if birth.is_none() {
                    self.told.note(self.table, key.as_bytes());
                }
                return Ok(told);
            }
            let is_done = match birth {
                Some(birth) => {
                    let ends = set.is_empty() && seen.fields.keys().all(|it| delete.contains(it));
                    let expected = names.iter().chain(&delete).chain(deadlines.keys());
                    let expected = expected.map(|it| (it.clone(), seen.expected(it))).collect();
                    for name in set.keys() {
                        if let Some(deadline) = seen.deadlines.get(name) {
                            deadlines.entry(name.clone()).or_insert(*deadline);
                        }
                    }
                    let update = Operation::UpdateFieldsIf {
                        birth,
                        expected,
                        is_all: ends,
                        set,
                        // Others may take the rest meanwhile: who may not end it leaves an empty one then.
                        ends_empty: ends || !delete.is_empty() && self.store.may_end(),
                        delete: delete.into_iter().collect(),
                        deadlines,
                        lifetimes: None,
                    };
                    let is_done = self.change(&key, update).await?;
                    if is_done && ends {
                        self.told.note(self.table, key.as_bytes());
                    }
                    is_done
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

impl Seen {
    /// The fields of a session, if it is of this kind.
    pub(super) fn of<'a>(session: Session, kind: Kind) -> Outcome<'a, Self> {
        let is_one = session.value.kind() == kind;
        match session.value {
            Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) if is_one => {
                Ok(Self { fields, deadlines: session.field_deadlines })
            }
            _ => Err(Trouble::wrong_type()),
        }
    }

    /// What is expected of a field that is to be as it was seen.
    fn expected(&self, name: &[u8]) -> Option<u64> {
        let deadline = self.deadlines.get(name).copied().unwrap_or(0);
        self.fields.get(name).map(|value| field_hash(value, deadline))
    }
}

impl Edit {
    /// Sets fields.
    pub(super) fn set(set: Fields) -> Self {
        Self { set, ..Self::default() }
    }
}

/// How many of the fields that were set are new.
pub(super) fn count_new(set: &Fields, before: &Fields) -> i64 {
    set.keys().filter(|name| !before.contains_key(*name)).count() as i64
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
