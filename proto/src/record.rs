//! How an entry is laid out in a record of shared memory, where any process may read it.
//!
//! All integers are little-endian. The time of last use is not in these bytes: it lives in the
//! record's `mark`, a word beside them that a touch raises in place (see [`mark`] and [`touched`]).
//!
//! ```text
//! byte  0  format (1)
//!       1  flags: 1 ended, 2 has fields, 4 version ≠ birth, 8 base ≠ version,
//!                 16 lease ≠ birth, 32 has deadlines, 64 has attributes,
//!                 128 has notes; a tombstone has no other flags than 1 and 4
//!       2  birth: hlc u64, node u48
//!      16  version (14 bytes)                          if flag 4
//!       …  the base's version (14)                     if flag 8
//!       …  the lease's version (14)                    if flag 16
//!       …  idle u48, expire_at u48                     if flag 32
//!       …  replicas u8, owner length u8, owner         if flag 64
//!       …  count u8, then for each note in ascending order of numbers:
//!          number u8, version (14), length u8, bytes   if flag 128
//!       …  the value's bytes, to the end               without flag 2
//!       …  kind u8, base length u32, base bytes,
//!          field count u32, then for each field in ascending order of names:
//!          name length u16, flags u8 (1 deleted, 2 expires), version (14),
//!          [expire_at u48], value length u32, name, value   with flag 2
//! ```
//!
//! Any change of this layout gets another format number. Decoding takes arbitrary bytes and never
//! panics; [`View::parse`] copies nothing.

mod reading;

use std::collections::BTreeMap;

use crate::entry::{
    Attributes, Base, Body, DigestBytes, Entry, Field, Kind, Lease, Note, REPLACES, VERDICT,
    deadline, with_value,
};
use crate::limits::{NOTE_BYTES_MAX, NOTES_MAX};
use crate::suspects::Verdict;
use crate::version::{Hlc, NodeId, Version};

pub use reading::Standing;

/// The most bytes that a record needs beside the value's own, for a value that is no map.
pub const OVERHEAD_BYTES_MAX: usize =
    16 + 3 * 14 + 12 + 2 + 255 + 1 + NOTES_MAX * (NOTE_OVERHEAD_BYTES + NOTE_BYTES_MAX);

/// A record that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record of format {FORMAT}: {0}")]
pub struct Malformed(&'static str);

/// The parts of a record that a reader needs, in place.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The version that created the session.
    pub birth: Version,
    /// The last write.
    pub version: Version,
    /// Whether this is a tombstone.
    pub ended: bool,
    /// The deadlines in force.
    pub lease: Lease,
    base_version: Version,
    replicas: u8,
    owner: &'a [u8],
    /// With their count; empty if there are none.
    notes: &'a [u8],
    has_fields: bool,
    rest: &'a [u8],
}

impl<'a> View<'a> {
    /// Reads the head of a record.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are cut short, of another format, or contradict themselves.
    pub fn parse(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(record);
        if cursor.u8()? != FORMAT {
            return Err(Malformed("another format"));
        }
        let flags = cursor.u8()?;
        let birth = cursor.version()?;
        let optional = |cursor: &mut Cursor<'a>, flag, default| {
            if flags & flag == 0 { Ok(default) } else { cursor.version() }
        };
        let version = optional(&mut cursor, VERSION, birth)?;
        let base_version = optional(&mut cursor, BASE, version)?;
        let lease_version = optional(&mut cursor, LEASE, birth)?;
        let (idle, expire_at) =
            if flags & DEADLINES == 0 { (0, 0) } else { (cursor.u48()?, cursor.u48()?) };
        let (replicas, owner) = if flags & ATTRIBUTES == 0 {
            (0, &[][..])
        } else {
            let (replicas, length) = (cursor.u8()?, cursor.u8()?);
            (replicas, cursor.take(length.into())?)
        };
        let notes = if flags & NOTES == 0 { &[][..] } else { cursor.skip_notes()? };
        let is_body = flags & !(ENDED | VERSION) != 0 || !cursor.0.is_empty();
        if flags & ENDED != 0 && is_body {
            return Err(Malformed("a tombstone with a body"));
        }
        Ok(Self {
            birth,
            version,
            ended: flags & ENDED != 0,
            lease: Lease { version: lease_version, idle, expire_at },
            base_version,
            replicas,
            owner,
            notes,
            has_fields: flags & FIELDS != 0,
            rest: cursor.0,
        })
    }

    /// Whose session it is; empty = nobody's, as that of a tombstone.
    pub fn owner(&self) -> &'a [u8] {
        self.owner
    }

    /// The value, if it is a string of bytes; `None` for a map or a tombstone.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        (!self.ended && !self.has_fields).then_some(self.rest)
    }

    /// What kind of value it is; `None` of a tombstone, and of what is malformed.
    pub fn kind(&self) -> Option<Kind> {
        match (self.ended, self.has_fields) {
            (true, _) => None,
            (false, false) => Some(Kind::Bytes),
            (false, true) => match self.base_and_fields().ok()?.0 {
                // Fields after a string of bytes.
                Kind::Bytes => Some(Kind::Map),
                kind => Some(kind),
            },
        }
    }

    /// The fields, in place, if the value is a map or a set; `None` for a string of bytes or a tombstone.
    ///
    /// # Errors
    /// [`Malformed`] when the record is cut short before the first of them.
    pub fn map(&self) -> Result<Option<Fields<'a>>, Malformed> {
        if self.ended || !self.has_fields {
            return Ok(None);
        }
        self.base_and_fields().map(|(_, _, fields)| Some(fields))
    }

    /// The whole entry. `mark` is the word that stood beside the record.
    ///
    /// # Errors
    /// [`Malformed`] when the rest is not well formed, as by [`Entry::check`].
    pub fn entry(&self, mark: u64) -> Result<Entry, Malformed> {
        if self.ended {
            return Ok(Entry::ended(self.birth, self.version));
        }
        let (base, fields) = if self.has_fields {
            self.fields()?
        } else {
            let bytes = self.rest.to_vec();
            let base = Base { version: self.base_version, kind: Kind::Bytes, bytes };
            (base, BTreeMap::new())
        };
        let attributes = Attributes { replicas: self.replicas, owner: self.owner.to_vec() };
        let (lease, touched, notes) = (self.lease, touched(mark), self.notes()?);
        let body = Body { base, fields, lease, touched, attributes, notes };
        let entry = Entry { birth: self.birth, version: self.version, body: Some(body) };
        entry.check().map_err(Malformed)?;
        Ok(entry)
    }

    /// The entry's digest: see [`Entry::digest`]. Costs no more than its hash if there are no notes and
    /// fields, and as much as [`View::entry`] otherwise.
    ///
    /// # Errors
    /// As for [`View::entry`].
    ///
    /// # Panics
    /// If `key` is longer than a key may be.
    pub fn digest(&self, key: &[u8], mark: u64) -> Result<u64, Malformed> {
        if self.has_parts() {
            return Ok(self.entry(mark)?.digest(key));
        }
        self.check()?;
        let body = (!self.ended).then_some((self.base_version, &self.lease, touched(mark)));
        Ok(DigestBytes::new(key, self.birth, self.version, body).digest())
    }

    /// What an entry's digest becomes in a table whose values are joined: see [`Entry::digest_with_value`].
    ///
    /// # Errors
    /// As for [`View::entry`].
    pub fn with_value(&self, digest: u64) -> Result<u64, Malformed> {
        let value = match (self.ended, self.has_fields) {
            (true, _) => return Ok(digest),
            (false, false) => self.rest,
            (false, true) => self.base_and_fields()?.1,
        };
        Ok(with_value(digest, value))
    }

    /// The entry's digests before and after a change of the mark; `None` if they are the same, as they mostly are:
    /// digests do not see each touch. That costs little to find out.
    ///
    /// # Errors
    /// As for [`View::entry`].
    ///
    /// # Panics
    /// If `key` is longer than a key may be.
    pub fn digest_change(
        &self,
        key: &[u8],
        before: u64,
        after: u64,
    ) -> Result<Option<(u64, u64)>, Malformed> {
        if self.ended || self.lease.step(touched(before)) == self.lease.step(touched(after)) {
            return self.check().map(|()| None);
        }
        Ok(Some((self.digest(key, before)?, self.digest(key, after)?)))
    }

    /// Whether the whole entry is well formed.
    fn check(&self) -> Result<(), Malformed> {
        if self.has_parts() {
            return self.entry(0).map(drop);
        }
        // What else could be wrong has no room in a record.
        if !self.ended && self.base_version.max(self.lease.version) > self.version {
            return Err(Malformed("a part newer than its entry"));
        }
        Ok(())
    }

    /// Whether the value is on another ring: see [`Entry::marker`].
    pub fn is_marker(&self) -> bool {
        !self.ended && !self.has_fields && self.base_version == Version::ZERO
    }

    /// Whether more than the table's homes may be meant to hold it: it says how many do, or has a note.
    pub fn may_be_placed(&self) -> bool {
        self.replicas != 0 || !self.notes.is_empty() && self.has_more_than_an_end()
    }

    /// Whether it has other notes than that a session has ended that it replaced.
    fn has_more_than_an_end(&self) -> bool {
        let mut cursor = Cursor(self.notes.get(1..).unwrap_or_default());
        while !cursor.0.is_empty() {
            match cursor.note() {
                Ok((REPLACES, _, [])) => {}
                _ => return true,
            }
        }
        false
    }

    /// Until when the session is kept away from its users at `now_ms`, as [`Entry::slowed_until`]. Costs next to nothing
    /// without notes.
    #[inline]
    pub fn slowed_until(&self, now_ms: u64) -> Option<u64> {
        if self.notes.is_empty() { None } else { self.slowed_by_note(now_ms) }
    }

    fn slowed_by_note(&self, now_ms: u64) -> Option<u64> {
        let mut cursor = Cursor(self.notes.get(1..)?);
        while !cursor.0.is_empty() {
            if let (VERDICT, _, bytes) = cursor.note().ok()? {
                return Verdict::of_bytes(bytes)?.slowed_until(now_ms);
            }
        }
        None
    }

    fn has_parts(&self) -> bool {
        self.has_fields || !self.notes.is_empty()
    }

    /// When the session expires, in hybrid milliseconds; 0 = never, as a tombstone. `mark` is the word that
    /// stood beside the record.
    pub fn deadline(&self, mark: u64) -> u64 {
        deadline(self.lease.idle, self.lease.expire_at, touched(mark))
    }

    /// What becomes of the session when a write that is later than all of it replaces the whole value by these
    /// bytes: as [`Entry::write_value`].
    pub fn with_bytes(&self, version: Version, bytes: &'a [u8]) -> Self {
        debug_assert!(version > self.version && !self.ended);
        Self { version, base_version: version, has_fields: false, rest: bytes, ..*self }
    }

    /// What becomes of the session's deadlines by a write that is later than all of it: as [`Entry::write_lease`].
    pub fn with_deadlines(&self, version: Version, idle: u64, expire_at: u64) -> Self {
        debug_assert!(version > self.lease.version && !self.ended);
        Self {
            version: self.version.max(version),
            lease: Lease::new(version, idle, expire_at),
            ..*self
        }
    }

    /// The tombstone of the session with this birth, ended by the write `version`.
    pub fn tombstone(birth: Version, version: Version) -> Self {
        let lease = Lease { version: birth, idle: 0, expire_at: 0 };
        Self {
            birth,
            version,
            ended: true,
            lease,
            base_version: version,
            replicas: 0,
            owner: &[],
            notes: &[],
            has_fields: false,
            rest: &[],
        }
    }

    /// Writes the record to the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut head = Head { bytes: [0; Head::SIZE_MAX], size: 2 };
        let mut flags = 0;
        head.version(self.birth);
        let mut optional = |flag, version, default| {
            if version != default {
                flags |= flag;
                head.version(version);
            }
        };
        optional(VERSION, self.version, self.birth);
        optional(BASE, self.base_version, self.version);
        optional(LEASE, self.lease.version, self.birth);
        if self.lease.idle != 0 || self.lease.expire_at != 0 {
            flags |= DEADLINES;
            head.u48(self.lease.idle);
            head.u48(self.lease.expire_at);
        }
        let has_attributes = self.replicas != 0 || !self.owner.is_empty();
        let owner = &self.owner[..self.owner.len().min(usize::from(u8::MAX))];
        if has_attributes {
            flags |= ATTRIBUTES;
            head.push([self.replicas, owner.len() as u8]);
        }
        for (flag, is_set) in
            [(ENDED, self.ended), (FIELDS, self.has_fields), (NOTES, !self.notes.is_empty())]
        {
            flags |= if is_set { flag } else { 0 };
        }
        head.bytes[..2].copy_from_slice(&[FORMAT, flags]);
        out.reserve(head.size + owner.len() + self.notes.len() + self.rest.len());
        out.extend_from_slice(&head.bytes[..head.size]);
        out.extend_from_slice(owner);
        out.extend_from_slice(self.notes);
        out.extend_from_slice(self.rest);
    }

    fn notes(&self) -> Result<BTreeMap<u8, Note>, Malformed> {
        let mut cursor = Cursor(self.notes.get(1..).unwrap_or_default());
        let mut notes = BTreeMap::new();
        while !cursor.0.is_empty() {
            let (number, version, bytes) = cursor.note()?;
            insert_last(&mut notes, number, Note { version, bytes: bytes.to_vec() })?;
        }
        Ok(notes)
    }

    fn fields(&self) -> Result<(Base, BTreeMap<Vec<u8>, Field>), Malformed> {
        let (kind, bytes, mut left) = self.base_and_fields()?;
        let base = Base { version: self.base_version, kind, bytes: bytes.to_vec() };
        let mut fields = BTreeMap::new();
        while let Some(FieldView { name, version, value, expire_at }) = left.next_field()? {
            let value = value.map(<[u8]>::to_vec);
            insert_last(&mut fields, name.to_vec(), Field { version, value, expire_at })?;
        }
        Ok((base, fields))
    }

    fn base_and_fields(&self) -> Result<(Kind, &'a [u8], Fields<'a>), Malformed> {
        let mut cursor = Cursor(self.rest);
        let kind = match cursor.u8()? {
            0 => Kind::Bytes,
            1 => Kind::Map,
            2 => Kind::Set,
            3 => Kind::SortedSet,
            _ => return Err(Malformed("an unknown kind of value")),
        };
        let length = cursor.u32()?;
        let bytes = cursor.take(length as usize)?;
        let count = cursor.u32()?;
        Ok((kind, bytes, Fields { rest: cursor.0, left: Some(count) }))
    }
}

/// The fields of a map in a record, in place, in ascending order of names; nothing is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// How many are still to come; `None` = as many as there are bytes for.
    left: Option<u32>,
}

/// A field in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldView<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The write that set or deleted it.
    pub version: Version,
    /// Its value; `None` when it was deleted.
    pub value: Option<&'a [u8]>,
    /// When it expires on its own, in hybrid milliseconds; 0 = with its session.
    pub expire_at: u64,
}

impl<'a> Fields<'a> {
    /// Goes on where [`Fields::rest`] of another walk stood. The number of fields is not known
    /// then: the walk goes to the end of the bytes.
    pub fn resume(rest: &'a [u8]) -> Self {
        Self { rest, left: None }
    }

    /// What is still to be walked.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, deleted and expired ones included; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not well formed. Order and uniqueness of the names are the
    /// caller's to check.
    pub fn next_field(&mut self) -> Result<Option<FieldView<'a>>, Malformed> {
        match &mut self.left {
            Some(0) if self.rest.is_empty() => return Ok(None),
            Some(0) => return Err(Malformed("bytes after the last field")),
            Some(left) => *left -= 1,
            None if self.rest.is_empty() => return Ok(None),
            None => {}
        }
        let mut cursor = Cursor(self.rest);
        let name_length = cursor.u16()?;
        let flags = cursor.u8()?;
        let version = cursor.version()?;
        let expire_at = if flags & FIELD_EXPIRES == 0 { 0 } else { cursor.u48()? };
        let value_length = cursor.u32()?;
        let name = cursor.take(name_length.into())?;
        let value = cursor.take(value_length as usize)?;
        let value = (flags & FIELD_DELETED == 0).then_some(value);
        if flags & !(FIELD_DELETED | FIELD_EXPIRES) != 0
            || (value.is_none() && value_length != 0)
            || (flags & FIELD_EXPIRES != 0 && expire_at == 0)
        {
            return Err(Malformed("a field's flags"));
        }
        self.rest = cursor.0;
        Ok(Some(FieldView { name, version, value, expire_at }))
    }
}

/// Writes an entry's record to the end of `out`. The entry is to be well formed (see
/// [`Entry::check`]): names that are too long would be cut, times that are too late capped.
pub fn write(entry: &Entry, out: &mut Vec<u8>) {
    debug_assert_eq!(entry.check(), Ok(()));
    let Some(body) = &entry.body else {
        return View::tombstone(entry.birth, entry.version).write(out);
    };
    let (mut notes, mut fields) = (Vec::new(), Vec::new());
    if !body.notes.is_empty() {
        push_notes(&mut notes, &body.notes);
    }
    if body.has_fields() {
        push_fields(&mut fields, body);
    }
    let view = View {
        birth: entry.birth,
        version: entry.version,
        ended: false,
        lease: body.lease,
        base_version: body.base.version,
        replicas: body.attributes.replicas,
        owner: &body.attributes.owner,
        notes: &notes,
        has_fields: body.has_fields(),
        rest: if body.has_fields() { &fields } else { &body.base.bytes },
    };
    view.write(out);
}

/// The word beside a record that carries the time of the last touch, in hybrid milliseconds. Its upper
/// 16 bits are the host's own: how much the entry is used there (see [`heat`](crate::heat)).
pub const fn mark(touched: u64) -> u64 {
    touched & TOUCHED_MASK
}

/// The time of the last touch that a mark carries, in hybrid milliseconds.
pub const fn touched(mark: u64) -> u64 {
    mark & TOUCHED_MASK
}

/// The level of an entry's heat that a mark carries; 0 if no use was counted.
pub const fn level(mark: u64) -> u16 {
    (mark >> TOUCHED_BITS) as u16
}

/// The mark with that level.
pub const fn with_level(mark: u64, level: u16) -> u64 {
    touched(mark) | (level as u64) << TOUCHED_BITS
}

const FORMAT: u8 = 1;
const TOUCHED_MASK: u64 = Hlc::MS_MAX;
const TOUCHED_BITS: u32 = TOUCHED_MASK.count_ones();

const ENDED: u8 = 1;
const FIELDS: u8 = 2;
const VERSION: u8 = 4;
const BASE: u8 = 8;
const LEASE: u8 = 16;
const DEADLINES: u8 = 32;
const ATTRIBUTES: u8 = 64;
const NOTES: u8 = 128;

const FIELD_DELETED: u8 = 1;
const FIELD_EXPIRES: u8 = 2;

const VERSION_BYTES: usize = 8 + 6;
/// Number, version and length.
const NOTE_OVERHEAD_BYTES: usize = 1 + VERSION_BYTES + 1;

fn push_notes(out: &mut Vec<u8>, notes: &BTreeMap<u8, Note>) {
    let count = notes.len().min(NOTES_MAX);
    out.push(count as u8);
    for (number, note) in notes.iter().take(count) {
        let bytes = &note.bytes[..note.bytes.len().min(NOTE_BYTES_MAX)];
        out.push(*number);
        out.extend_from_slice(&version_bytes(note.version));
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
}

fn push_fields(out: &mut Vec<u8>, body: &Body) {
    out.push(body.base.kind as u8);
    out.extend_from_slice(&(body.base.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&body.base.bytes);
    out.extend_from_slice(&(body.fields.len() as u32).to_le_bytes());
    for (name, field) in &body.fields {
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        let expires = field.expire_at != 0;
        let deleted = field.value.is_none();
        let value = field.value.as_deref().unwrap_or_default();
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.push(u8::from(deleted) * FIELD_DELETED + u8::from(expires) * FIELD_EXPIRES);
        out.extend_from_slice(&version_bytes(field.version));
        if expires {
            out.extend_from_slice(&u48_bytes(field.expire_at));
        }
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
}

fn version_bytes(version: Version) -> [u8; VERSION_BYTES] {
    let bits = u128::from(version.hlc.bits()) | u128::from(version.node.bits()) << 64;
    let [bytes @ .., _, _] = bits.to_le_bytes();
    bytes
}

fn u48_bytes(value: u64) -> [u8; 6] {
    let [bytes @ .., _, _] = value.min(TOUCHED_MASK).to_le_bytes();
    bytes
}

/// What a record begins with, up to its owner.
struct Head {
    bytes: [u8; Self::SIZE_MAX],
    size: usize,
}

impl Head {
    const SIZE_MAX: usize = 2 + 4 * VERSION_BYTES + 2 * 6 + 2;

    fn push<const N: usize>(&mut self, part: [u8; N]) {
        self.bytes[self.size..][..N].copy_from_slice(&part);
        self.size += N;
    }

    fn version(&mut self, version: Version) {
        self.push(version_bytes(version));
    }

    fn u48(&mut self, value: u64) {
        self.push(u48_bytes(value));
    }
}

/// Inserts behind everything that is there: records are in ascending order.
fn insert_last<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), Malformed> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(Malformed("not in ascending order"));
    }
    map.insert(key, value);
    Ok(())
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Passes over the notes, and returns them with their count.
    fn skip_notes(&mut self) -> Result<&'a [u8], Malformed> {
        let notes = self.0;
        let count = self.u8()?;
        for _ in 0..count {
            self.take(NOTE_OVERHEAD_BYTES - 1)?;
            let length = self.u8()?;
            self.take(length.into())?;
        }
        match notes.len() - self.0.len() {
            0 | 1 => Err(Malformed("notes without a note")),
            length => Ok(&notes[..length]),
        }
    }

    /// The next note: its number, its version, and what it says.
    fn note(&mut self) -> Result<(u8, Version, &'a [u8]), Malformed> {
        let (number, version, length) = (self.u8()?, self.version()?, self.u8()?);
        Ok((number, version, self.take(length.into())?))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u48(&mut self) -> Result<u64, Malformed> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    fn version(&mut self) -> Result<Version, Malformed> {
        let hlc = self.array().map(u64::from_le_bytes).map(Hlc::from_bits)?;
        Ok(Version::new(hlc, NodeId::from_bits(self.u48()?)))
    }
}

#[cfg(test)]
mod tests;
