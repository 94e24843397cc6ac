//! What is stored under a key, and how two copies of it become one.
//!
//! An entry is a join-semilattice: [`Entry::merge`] is commutative, associative and idempotent, so
//! copies that took the same writes in any order, any number of times, by any route, are equal.
//! The order is (birth, ended, version): a newer birth replaces everything older; within one birth
//! a tombstone wins; otherwise each part of the body keeps its last writer. Parts written with the
//! same version (which only a duplicated node id could produce) are ordered by their content, so
//! that even then every node decides alike.

use std::collections::BTreeMap;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Decode, Encode};
use serde::Serialize;
use twox_hash::XxHash3_64;

use crate::limits::{
    FIELD_NAME_BYTES_MAX, KEY_BYTES_MAX, NOTE_BYTES_MAX, NOTES_MAX, OWNER_BYTES_MAX,
};
use crate::suspects::Verdict;
use crate::version::{Hlc, NodeId, Version};

/// A session, or the tombstone of one.
///
/// What the methods here make is well formed (see [`Entry::check`]), and what is decoded is checked.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Entry {
    /// The version that created the session. What carries another birth belongs to another session.
    pub birth: Version,
    /// The last write: the greatest version of any part of the body, or the one that ended it.
    pub version: Version,
    /// The session itself; `None` in a tombstone.
    pub body: Option<Body>,
}

/// The living part of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Body {
    /// The last write of the whole value. Of version 0 where there is none: the value is on another ring
    /// ([`Entry::marker`]).
    pub base: Base,
    /// The fields written with the base or after it, deleted ones included.
    pub fields: BTreeMap<Vec<u8>, Field>,
    /// The deadlines in force. Changing them is a versioned write.
    pub lease: Lease,
    /// When the session was last used, in hybrid milliseconds. A touch raises it; nothing lowers it.
    pub touched: u64,
    /// What was fixed when the session was created.
    pub attributes: Attributes,
    /// What nodes note about the session beside its value, by number: at most 5 of 24 bytes each.
    /// Writes of the value leave them alone. A number never changes its meaning; a node keeps and
    /// passes on those it does not know. In use are [`PIN`], [`ENDING`], [`MOVED`],
    /// [`VERDICT`] and [`REPLACES`].
    pub notes: BTreeMap<u8, Note>,
}

/// A write of the whole value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Base {
    /// The write that set it.
    pub version: Version,
    /// What kind of value it set.
    pub kind: Kind,
    /// The value of [`Kind::Bytes`]; empty for what has fields, which carry the base's version.
    pub bytes: Vec<u8>,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[repr(u8)]
pub enum Kind {
    /// One string of bytes that is written as a whole.
    Bytes = 0,
    /// Named fields that are written, and merge, one by one.
    Map = 1,
    /// Members: the names of fields without values.
    Set = 2,
    /// Members with scores: the names and values of fields. A score is a number in decimal, as text.
    SortedSet = 3,
}

/// One field of a map, or one member of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Field {
    /// The write that set or deleted it.
    pub version: Version,
    /// Its value; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
    /// When it expires on its own, in hybrid milliseconds; 0 = with its session.
    pub expire_at: u64,
}

/// One of a session's notes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Note {
    /// The write that set it.
    pub version: Version,
    /// What it says; empty = nothing any more.
    pub bytes: Vec<u8>,
}

/// The number of the note that names the node to which a session is pinned: its id in 6 bytes,
/// little-endian. Anything else in it is no pin.
pub const PIN: u8 = 1;

/// The number of the note that an end of the session was proposed by the write that set it: one byte, 1. It counts
/// while nothing was written later ([`Entry::is_ending`]).
pub const ENDING: u8 = 2;

/// The number of the note that says to which ring the session was moved last: the ring's number, then the
/// [digest](Entry::digest) of what was moved, this note included, in 8 bytes, little-endian. It may be later than
/// the entry: a move is no write, and whoever has seen the session's version sees it still.
pub const MOVED: u8 = 3;

/// The number of the note that says what was decided about a session that was used too much: see
/// [`Entry::verdict`]. As that of a move it may be later than the entry.
pub const VERDICT: u8 = 4;

/// The number of the note that says which session is to end since this one was begun in its place: see
/// [`Entry::replaces`]. Like that of a move it may be later than the entry.
pub const REPLACES: u8 = 5;

/// A session that another one was begun in place of, under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Replaced {
    /// What stands for its key: [`Key::word`](crate::Key::word).
    pub word: u64,
    /// The version that created it.
    pub birth: Version,
}

/// When a session expires: at the earlier of its two deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
pub struct Lease {
    /// The write that set it.
    pub version: Version,
    /// How long the session lives unused, in milliseconds; 0 = for ever.
    pub idle: u64,
    /// When it ends however much it is used, in hybrid milliseconds; 0 = never.
    pub expire_at: u64,
}

/// What is fixed when a session is created and never changes within one birth.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
pub struct Attributes {
    /// How many nodes are to hold it, if that is more than its table says; 0 = as many as that.
    pub replicas: u8,
    /// Whose session it is (at most 255 bytes); empty = nobody's.
    pub owner: Vec<u8>,
}

/// What two different values of one session become, in a table whose application says so. Copies converge
/// if it is commutative, associative and idempotent. `None`: the later one stays.
pub type Join<'a> = dyn FnMut(&[u8], &[u8]) -> Option<Vec<u8>> + 'a;

/// Fields by their names.
pub type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// When fields expire on their own, by their names.
pub type FieldDeadlines = BTreeMap<Vec<u8>, u64>;

/// A value as applications see it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Value {
    /// One string of bytes.
    Bytes(Vec<u8>),
    /// Named fields.
    Map(Fields),
    /// Members, as the names of fields whose values say nothing.
    Set(Fields),
    /// Members, as the names of fields, and their scores in decimal, as text.
    SortedSet(Fields),
}

impl Entry {
    /// A session that begins with this value. `lease` is (idle, expire_at) as in [`Lease`].
    pub fn start(
        birth: Version,
        value: Value,
        lease: (u64, u64),
        attributes: Attributes,
        now_ms: u64,
    ) -> Self {
        let (base, fields) = whole(birth, value);
        let lease = Lease::new(birth, lease.0, lease.1);
        let touched = now_ms.min(Hlc::MS_MAX);
        let body = Body { base, fields, lease, touched, attributes, notes: BTreeMap::new() };
        Self { birth, version: birth, body: Some(body) }
    }

    /// The tombstone of the session with this birth, ended by the write `version`.
    pub fn ended(birth: Version, version: Version) -> Self {
        Self { birth, version, body: None }
    }

    /// Whether this is a tombstone.
    pub fn is_ended(&self) -> bool {
        self.body.is_none()
    }

    /// When the entry expires, in hybrid milliseconds; 0 = never. A tombstone's lifetime is its
    /// table's matter: see [`die_by`].
    pub fn deadline(&self) -> u64 {
        self.body.as_ref().map_or(0, Body::deadline)
    }

    /// Whether the session has expired at `now_ms`, in hybrid milliseconds.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        let deadline = self.deadline();
        deadline != 0 && deadline <= now_ms
    }

    /// Makes this the join of itself and `other`, and says whether that changed it.
    pub fn merge(&mut self, other: &Self) -> bool {
        self.merge_as(other, None)
    }

    /// As [`Entry::merge`], in a table whose values are joined: two strings of bytes that differ become
    /// what `join` makes of them, under the later of their versions. Where it says `None`, and of maps, the
    /// later one stays.
    ///
    /// It is a semilattice if `join` is one: see there.
    pub fn merge_by(&mut self, other: &Self, join: &mut Join<'_>) -> bool {
        self.merge_as(other, Some(join))
    }

    fn merge_as(&mut self, other: &Self, join: Option<&mut Join<'_>>) -> bool {
        if other.birth != self.birth {
            if other.birth > self.birth {
                *self = other.clone();
                return true;
            }
            return false;
        }
        match (&mut self.body, &other.body) {
            (None, Some(_)) => false,
            (Some(_), None) => {
                *self = other.clone();
                true
            }
            (None, None) => raise(&mut self.version, &other.version),
            (Some(mine), Some(theirs)) => {
                let newer = raise(&mut self.version, &other.version);
                mine.merge(theirs, join) | newer
            }
        }
    }

    /// Replaces the whole value. Like all writes it is a join: what is already there and newer stays.
    pub fn write_value(&mut self, version: Version, value: Value) {
        self.write_value_as(version, value, None);
    }

    /// Joins a value with what is there, in a table whose values are joined: see [`Entry::merge_by`].
    pub fn write_value_by(&mut self, version: Version, value: Value, join: &mut Join<'_>) {
        self.write_value_as(version, value, Some(join));
    }

    fn write_value_as(&mut self, version: Version, value: Value, join: Option<&mut Join<'_>>) {
        if let Some(body) = &mut self.body {
            let (base, fields) = whole(version, value);
            match join {
                Some(join) => _ = body.base.join(&base, join),
                None => body.base = base.max(std::mem::replace(&mut body.base, Base::ZERO)),
            }
            body.drop_fields_before_base();
            for (name, field) in fields {
                body.write_field(name, field);
            }
            raise(&mut self.version, &version);
        }
    }

    /// Sets a field, or deletes it if `value` is `None`.
    pub fn write_field(&mut self, version: Version, name: Vec<u8>, value: Option<Vec<u8>>) {
        self.write_field_until(version, name, value, 0);
    }

    /// As [`Entry::write_field`], with a deadline of its own, at most 2^48 − 1; 0 = it has none.
    pub fn write_field_until(
        &mut self,
        version: Version,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
        expire_at: u64,
    ) {
        if let Some(body) = &mut self.body {
            body.write_field(name, Field { version, value, expire_at: expire_at.min(Hlc::MS_MAX) });
            raise(&mut self.version, &version);
        }
    }

    /// Sets the deadlines, each at most 2^48 − 1.
    pub fn write_lease(&mut self, version: Version, idle: u64, expire_at: u64) {
        if let Some(body) = &mut self.body {
            raise(&mut body.lease, &Lease::new(version, idle, expire_at));
            raise(&mut self.version, &version);
        }
    }

    /// Pins the session to a node that is to hold a copy beside its homes, or undoes that.
    ///
    /// The last write of it counts, as of the deadlines; writes of the value leave it alone.
    pub fn write_pin(&mut self, version: Version, node: Option<NodeId>) {
        if let Some(body) = &mut self.body {
            let bytes = node.map_or_else(Vec::new, |node| node.bits().to_le_bytes()[..6].to_vec());
            let note = Note { version, bytes };
            raise_all(&mut body.notes, &BTreeMap::from([(PIN, note)]), |_| true);
            raise(&mut self.version, &version);
        }
    }

    /// Notes that the session is to end by this write. It is no tombstone, which would win whatever is written
    /// elsewhere: like any write it loses to a later one.
    pub fn propose_end(&mut self, version: Version) {
        if let Some(body) = &mut self.body {
            let note = Note { version, bytes: vec![1] };
            raise_all(&mut body.notes, &BTreeMap::from([(ENDING, note)]), |_| true);
            raise(&mut self.version, &version);
        }
    }

    /// Whether the last write proposed that the session end.
    pub fn is_ending(&self) -> bool {
        let note = self.body.as_ref().and_then(|body| body.notes.get(&ENDING));
        note.is_some_and(|note| note.version == self.version && !note.bytes.is_empty())
    }

    /// Moves the session to a ring; `digest` says what stands for all of an entry. `version` has to be later than
    /// that of the last move.
    pub fn move_to(&mut self, ring: u8, version: Version, digest: impl FnOnce(&Self) -> u64) {
        self.note_move(version, &[ring]);
        let digest = digest(self).to_le_bytes();
        let [a, b, c, d, e, f, g, h] = digest;
        self.note_move(version, &[ring, a, b, c, d, e, f, g, h]);
    }

    fn note_move(&mut self, version: Version, bytes: &[u8]) {
        if let Some(body) = &mut self.body {
            let note = Note { version, bytes: bytes.to_vec() };
            raise_all(&mut body.notes, &BTreeMap::from([(MOVED, note)]), |_| true);
        }
    }

    /// The ring that the session is on, as far as this copy knows; 0 = the innermost, where it was born. Of a tombstone
    /// too.
    pub fn ring(&self) -> u8 {
        self.moved().and_then(|note| note.bytes.first().copied()).unwrap_or(0)
    }

    /// The version of the last move; 0 = it never was.
    pub fn moved_at(&self) -> Version {
        self.moved().map_or(Version::ZERO, |note| note.version)
    }

    /// The digest of what was moved last.
    pub fn moved_digest(&self) -> Option<u64> {
        let bytes = self.moved()?.bytes.get(1..)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn moved(&self) -> Option<&Note> {
        self.body.as_ref()?.notes.get(&MOVED)
    }

    /// Judges the session. `version` has to be later than that of the last verdict. It is no write: whoever has seen
    /// the session's version sees it still.
    pub fn judge(&mut self, version: Version, verdict: Verdict) {
        if let Some(body) = &mut self.body {
            let note = Note { version, bytes: verdict.to_bytes().to_vec() };
            raise_all(&mut body.notes, &BTreeMap::from([(VERDICT, note)]), |_| true);
        }
    }

    /// The last verdict on the session, and its version.
    pub fn verdict(&self) -> Option<(Version, Verdict)> {
        let note = self.body.as_ref()?.notes.get(&VERDICT)?;
        Some((note.version, Verdict::of_bytes(&note.bytes)?))
    }

    /// Until when the session is kept away from its users at `now_ms`, both in hybrid milliseconds; `None` = it is not.
    pub fn slowed_until(&self, now_ms: u64) -> Option<u64> {
        self.verdict()?.1.slowed_until(now_ms)
    }

    /// Notes that this session was begun in place of another one, which is to end; `None` = that it has ended. `version` has
    /// to be later than that of the last such note. It is no write.
    pub fn note_replaced(&mut self, version: Version, replaced: Option<Replaced>) {
        if let Some(body) = &mut self.body {
            let bytes = replaced.map_or_else(Vec::new, |it| it.to_bytes().to_vec());
            let note = Note { version, bytes };
            raise_all(&mut body.notes, &BTreeMap::from([(REPLACES, note)]), |_| true);
        }
    }

    /// The session that is to end, since this one was begun in its place; `None` = there is none, or it has ended.
    pub fn replaces(&self) -> Option<Replaced> {
        Replaced::of_bytes(&self.body.as_ref()?.notes.get(&REPLACES)?.bytes)
    }

    /// The version of the last part that is no write: of a move, a verdict, or what becomes of another session; 0 = there
    /// is none.
    pub fn noted_at(&self) -> Version {
        let notes = self.body.iter().flat_map(|body| &body.notes);
        let no_writes = notes.filter(|(number, _)| is_no_write(**number));
        no_writes.map(|(_, note)| note.version).max().unwrap_or(Version::ZERO)
    }

    /// What is left of a session where it is no more: all but its value. It says where the session went, and takes
    /// part in merges as any copy that lacks something. Of a tombstone it is that.
    #[must_use]
    pub fn marker(&self) -> Self {
        let mut marker = self.clone();
        if let Some(body) = &mut marker.body {
            (body.base, body.fields) = (Base::ZERO, BTreeMap::new());
        }
        marker
    }

    /// Whether the value is not here: see [`Entry::marker`].
    pub fn is_marker(&self) -> bool {
        self.body
            .as_ref()
            .is_some_and(|body| body.base.version == Version::ZERO && body.fields.is_empty())
    }

    /// The node that the session is pinned to.
    pub fn pin(&self) -> Option<NodeId> {
        self.body.as_ref()?.pin()
    }

    /// Whether it is a session that more than its table's homes are to hold.
    pub fn is_placed(&self) -> bool {
        let is_placed = |body: &Body| body.attributes.replicas != 0 || body.pin().is_some();
        self.body.as_ref().is_some_and(is_placed)
    }

    /// Notes a use of the session at `now_ms`, and says whether that was news.
    pub fn touch(&mut self, now_ms: u64) -> bool {
        let now_ms = now_ms.min(Hlc::MS_MAX);
        self.body.as_mut().is_some_and(|body| raise(&mut body.touched, &now_ms))
    }

    /// Whether other nodes can take it: names, owner, notes and times are within their bounds, no
    /// field is older than the base, and nothing is newer than `version` (so that a stamp after
    /// `version` beats every part).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), &'static str> {
        self.body.as_ref().map_or(Ok(()), |body| body.check(self.version))
    }

    /// A hash of everything by which two copies could differ, for comparing copies without sending
    /// them: XXH3-64 of the key and the versions of all parts (what has one version has one content,
    /// since no two writes share one, but where values are joined: see [`Entry::digest_with_value`]). The time of last use counts in sixteenths of the idle time, so
    /// that a touch on its way between two homes does not look like a difference.
    ///
    /// Nodes compare these, so the bytes that are hashed are part of the protocol.
    ///
    /// # Panics
    /// If `key` is longer than a key may be.
    pub fn digest(&self, key: &[u8]) -> u64 {
        let body = self.body.as_ref();
        let head = body.map(|body| (body.base.version, &body.lease, body.touched));
        let plain = DigestBytes::new(key, self.birth, self.version, head);
        let parts = body.filter(|body| !body.notes.is_empty() || !body.fields.is_empty());
        let Some(Body { notes, fields, .. }) = parts else { return plain.digest() };
        let mut bytes = plain.before_counts().to_vec();
        bytes.push(notes.len() as u8);
        for (number, note) in notes {
            bytes.push(*number);
            bytes.extend_from_slice(&version_bytes(note.version));
        }
        bytes.extend_from_slice(&(fields.len() as u32).to_le_bytes());
        for (name, field) in fields {
            bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&version_bytes(field.version));
        }
        XxHash3_64::oneshot(&bytes)
    }
}

impl Entry {
    /// The digest in a table whose values are joined, where a copy that missed a write may have the same
    /// versions as one that did not: XXH3-64 of the value's bytes, seeded with [`Entry::digest`]. Of a
    /// tombstone it is that alone. Costs a pass over the value.
    ///
    /// # Panics
    /// If `key` is longer than a key may be.
    pub fn digest_with_value(&self, key: &[u8]) -> u64 {
        let digest = self.digest(key);
        self.body.as_ref().map_or(digest, |body| with_value(digest, &body.base.bytes))
    }
}

impl<C> Decode<C> for Entry {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let birth = Decode::decode(decoder)?;
        let version = Decode::decode(decoder)?;
        let entry = Self { birth, version, body: Decode::decode(decoder)? };
        entry.check().map_err(DecodeError::Other)?;
        Ok(entry)
    }
}

impl<'de, C> BorrowDecode<'de, C> for Entry {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

impl Body {
    /// When the session expires, in hybrid milliseconds; 0 = never.
    pub fn deadline(&self) -> u64 {
        deadline(self.lease.idle, self.lease.expire_at, self.touched)
    }

    /// The node that the session is pinned to.
    pub fn pin(&self) -> Option<NodeId> {
        let bytes: [u8; 6] = self.notes.get(&PIN)?.bytes.as_slice().try_into().ok()?;
        let [a, b, c, d, e, f] = bytes;
        Some(NodeId::from_bits(u64::from_le_bytes([a, b, c, d, e, f, 0, 0])))
    }

    /// Whether the value has fields: what has some was written, or fields after a string of bytes.
    pub fn has_fields(&self) -> bool {
        self.base.kind != Kind::Bytes || !self.fields.is_empty()
    }

    /// The value as an application sees it at `now_ms`: without deleted and expired fields.
    pub fn value(&self, now_ms: u64) -> Value {
        if !self.has_fields() {
            return Value::Bytes(self.base.bytes.clone());
        }
        let live = self.fields.iter().filter_map(|(name, field)| {
            let lives = field.expire_at == 0 || field.expire_at > now_ms;
            let value = field.value.as_ref().filter(|_| lives)?;
            Some((name.clone(), value.clone()))
        });
        Value::of_fields(self.base.kind, live.collect())
    }

    /// When fields expire on their own, or have, of those that do.
    pub fn field_deadlines(&self) -> FieldDeadlines {
        let own = self.fields.iter().filter(|(_, it)| it.expire_at != 0 && it.value.is_some());
        own.map(|(name, field)| (name.clone(), field.expire_at)).collect()
    }

    /// The bytes that count against a table's `max_value`.
    pub fn size(&self) -> usize {
        let fields = self.fields.iter();
        let sizes = fields.map(|(name, field)| field_size(name.len(), field.value.as_deref()));
        self.base.bytes.len() + sizes.sum::<usize>()
    }

    /// The join: of each part the greatest, of the fields those at least as new as the base. Dropping
    /// a field early is safe: the bases of later joins are only newer.
    fn merge(&mut self, other: &Self, join: Option<&mut Join<'_>>) -> bool {
        let mut changed = match join {
            Some(join) => self.base.join(&other.base, join),
            None => raise(&mut self.base, &other.base),
        };
        changed |= raise(&mut self.lease, &other.lease);
        changed |= raise(&mut self.touched, &other.touched);
        changed |= raise(&mut self.attributes, &other.attributes);
        changed |= raise_all(&mut self.notes, &other.notes, |_| true);
        changed |= self.drop_fields_before_base();
        let base = self.base.version;
        changed | raise_all(&mut self.fields, &other.fields, |field| field.version >= base)
    }

    fn drop_fields_before_base(&mut self) -> bool {
        let before = self.fields.len();
        self.fields.retain(|_, field| field.version >= self.base.version);
        self.fields.len() != before
    }

    fn write_field(&mut self, name: Vec<u8>, field: Field) {
        if field.version >= self.base.version
            && self.fields.get(&name).is_none_or(|mine| field > *mine)
        {
            self.fields.insert(name, field);
        }
    }

    fn check(&self, version: Version) -> Result<(), &'static str> {
        let mut fields = self.fields.values();
        if fields.any(|field| field.version < self.base.version || field.version > version) {
            return Err("a field older than its value, or newer than its entry");
        }
        let mut notes = self.notes.iter();
        if self.base.version.max(self.lease.version) > version
            || notes.any(|(number, note)| !is_no_write(*number) && note.version > version)
        {
            return Err("a part newer than its entry");
        }
        if self.base.kind != Kind::Bytes && !self.base.bytes.is_empty() {
            return Err("a map or set with bytes");
        }
        if self.fields.keys().any(|name| name.len() > FIELD_NAME_BYTES_MAX) {
            return Err("a field's name above 1 KiB");
        }
        if self.attributes.owner.len() > OWNER_BYTES_MAX {
            return Err("an owner above 255 bytes");
        }
        if self.notes.len() > NOTES_MAX
            || self.notes.values().any(|note| note.bytes.len() > NOTE_BYTES_MAX)
        {
            return Err("more than 5 notes, or one above 24 bytes");
        }
        let times = [self.touched, self.lease.idle, self.lease.expire_at].into_iter();
        if times.chain(self.fields.values().map(|field| field.expire_at)).any(|t| t > Hlc::MS_MAX) {
            return Err("a time above 2^48 - 1 ms");
        }
        Ok(())
    }
}

impl Replaced {
    fn to_bytes(self) -> [u8; 22] {
        let mut bytes = [0; 22];
        bytes[..8].copy_from_slice(&self.word.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.birth.hlc.bits().to_le_bytes());
        bytes[16..].copy_from_slice(&self.birth.node.bits().to_le_bytes()[..6]);
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 22] = bytes.try_into().ok()?;
        let number =
            |part: &[u8]| part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let birth = Version::new(
            Hlc::from_bits(number(&bytes[8..16])),
            NodeId::from_bits(number(&bytes[16..])),
        );
        Some(Self { word: number(&bytes[..8]), birth })
    }
}

impl Base {
    const ZERO: Self = Self { version: Version::ZERO, kind: Kind::Bytes, bytes: Vec::new() };

    /// Joins the values, and says whether that changed this one.
    fn join(&mut self, other: &Self, join: &mut Join<'_>) -> bool {
        let is_missing = |base: &Self| base.version == Version::ZERO;
        if (self.kind, other.kind) != (Kind::Bytes, Kind::Bytes)
            || self.bytes == other.bytes
            || is_missing(self)
            || is_missing(other)
        {
            return raise(self, other);
        }
        let Some(bytes) = join(&self.bytes, &other.bytes) else { return raise(self, other) };
        let version = self.version.max(other.version);
        let changed = (version, &bytes) != (self.version, &self.bytes);
        (self.version, self.bytes) = (version, bytes);
        changed
    }
}

impl Lease {
    pub(crate) fn new(version: Version, idle: u64, expire_at: u64) -> Self {
        Self { version, idle: idle.min(Hlc::MS_MAX), expire_at: expire_at.min(Hlc::MS_MAX) }
    }

    /// The time of last use as digests see it: in sixteenths of the idle time, 0 without one.
    pub(crate) fn step(&self, touched: u64) -> u64 {
        touched.checked_div(self.idle.div_ceil(16)).unwrap_or(0)
    }
}

impl Value {
    /// A value with these fields; what is of bytes becomes a map by them.
    pub fn of_fields(kind: Kind, fields: Fields) -> Self {
        match kind {
            Kind::Bytes | Kind::Map => Self::Map(fields),
            Kind::Set => Self::Set(fields),
            Kind::SortedSet => Self::SortedSet(fields),
        }
    }

    /// What kind of value it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Bytes(_) => Kind::Bytes,
            Self::Map(_) => Kind::Map,
            Self::Set(_) => Kind::Set,
            Self::SortedSet(_) => Kind::SortedSet,
        }
    }

    /// Its fields; `None` of a string of bytes.
    pub fn fields(&self) -> Option<&Fields> {
        match self {
            Self::Bytes(_) => None,
            Self::Map(fields) | Self::Set(fields) | Self::SortedSet(fields) => Some(fields),
        }
    }

    /// The bytes that count against a table's `max_value`.
    pub fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Map(fields) | Self::Set(fields) | Self::SortedSet(fields) => {
                fields.iter().map(|(name, value)| field_size(name.len(), Some(value))).sum()
            }
        }
    }
}

/// The earlier of the two deadlines, in hybrid milliseconds; 0 = neither is set.
pub fn deadline(idle: u64, expire_at: u64, touched: u64) -> u64 {
    match (idle, expire_at) {
        (0, cap) => cap,
        (idle, 0) => touched.saturating_add(idle),
        (idle, cap) => touched.saturating_add(idle).min(cap),
    }
}

/// When everything of this birth may be forgotten, in hybrid milliseconds: nothing that carries the
/// birth is accepted from then on. 0 = never, in tables without a cap on lifetimes.
pub fn die_by(birth: Hlc, lifetime_max_ms: u64) -> u64 {
    match lifetime_max_ms {
        0 => 0,
        cap => birth.ms().saturating_add(cap),
    }
}

/// At least what a field takes beside its name and value: 36 bytes on the wire, 27 in a record. So a
/// value within [`VALUE_BYTES_MAX`](crate::limits::VALUE_BYTES_MAX) fits both.
const FIELD_OVERHEAD_BYTES: usize = 40;

fn field_size(name_length: usize, value: Option<&[u8]>) -> usize {
    FIELD_OVERHEAD_BYTES + name_length + value.map_or(0, <[u8]>::len)
}

fn whole(version: Version, value: Value) -> (Base, BTreeMap<Vec<u8>, Field>) {
    let kind = value.kind();
    match value {
        Value::Bytes(bytes) => (Base { version, kind, bytes }, BTreeMap::new()),
        Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) => {
            let field = |value| Field { version, value: Some(value), expire_at: 0 };
            let fields = fields.into_iter().map(|(name, value)| (name, field(value))).collect();
            (Base { version, kind, bytes: Vec::new() }, fields)
        }
    }
}

/// Whether a note of this number may be later than its entry.
fn is_no_write(number: u8) -> bool {
    matches!(number, MOVED | VERDICT | REPLACES)
}

fn raise<T: Ord + Clone>(mine: &mut T, theirs: &T) -> bool {
    let newer = *theirs > *mine;
    if newer {
        mine.clone_from(theirs);
    }
    newer
}

fn raise_all<K: Ord + Clone, T: Ord + Clone>(
    mine: &mut BTreeMap<K, T>,
    theirs: &BTreeMap<K, T>,
    counts: impl Fn(&T) -> bool,
) -> bool {
    let mut changed = false;
    for (key, theirs) in theirs.iter().filter(|(_, theirs)| counts(theirs)) {
        match mine.get_mut(key) {
            Some(mine) => changed |= raise(mine, theirs),
            None => {
                mine.insert(key.clone(), theirs.clone());
                changed = true;
            }
        }
    }
    changed
}

/// The bytes that the digest of an entry without notes and fields is computed from, and those of others
/// begin with: see [`Entry::digest`]. Nothing is allocated.
pub(crate) struct DigestBytes {
    bytes: [u8; Self::SIZE_MAX],
    size: usize,
}

impl DigestBytes {
    /// A key's length, birth, version, whether it is a tombstone.
    const TOMBSTONE: usize = 4 + 16 + 16 + 1;
    /// The versions of base and lease, the last use.
    const BODY: usize = 16 + 16 + 8;
    /// The counts of notes and of fields.
    const COUNTS: usize = 1 + 4;
    const SIZE_MAX: usize = KEY_BYTES_MAX + Self::TOMBSTONE + Self::BODY + Self::COUNTS;

    /// Of an entry with these versions; `body` is the base's version, the lease and the last use of one
    /// that is no tombstone.
    pub(crate) fn new(
        key: &[u8],
        birth: Version,
        version: Version,
        body: Option<(Version, &Lease, u64)>,
    ) -> Self {
        let mut bytes = [0; Self::SIZE_MAX];
        bytes[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        bytes[4..][..key.len()].copy_from_slice(key);
        const REST: usize = DigestBytes::SIZE_MAX - KEY_BYTES_MAX - 4;
        let rest: &mut [u8; REST] =
            bytes[4 + key.len()..].first_chunk_mut().expect("a key is no longer than a key may be");
        rest[..16].copy_from_slice(&version_bytes(birth));
        rest[16..32].copy_from_slice(&version_bytes(version));
        let Some((base, lease, touched)) = body else {
            rest[32] = 1;
            return Self { bytes, size: Self::TOMBSTONE + key.len() };
        };
        rest[33..49].copy_from_slice(&version_bytes(base));
        rest[49..65].copy_from_slice(&version_bytes(lease.version));
        rest[65..73].copy_from_slice(&lease.step(touched).to_le_bytes());
        // The counts are 0.
        Self { bytes, size: Self::TOMBSTONE + key.len() + Self::BODY + Self::COUNTS }
    }

    /// The digest of an entry without notes and fields.
    pub(crate) fn digest(&self) -> u64 {
        XxHash3_64::oneshot(&self.bytes[..self.size])
    }

    /// What the digest of an entry with notes or fields begins with.
    fn before_counts(&self) -> &[u8] {
        &self.bytes[..self.size - Self::COUNTS]
    }
}

/// What a digest becomes where the value counts: see [`Entry::digest_with_value`].
pub(crate) fn with_value(digest: u64, value: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(digest, value)
}

fn version_bytes(version: Version) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&version.hlc.bits().to_le_bytes());
    bytes[8..].copy_from_slice(&version.node.bits().to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
