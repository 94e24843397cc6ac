//! A table with one session of every kind, as a node would have written it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use annulus_proto::{Attributes, Entry, Hlc, NodeId, Slot, Value, Version, record};
use annulus_shm::{TableOptions, Writer, open_or_create};

/// The hybrid time that the table's sessions began at, and that its clock shows at least.
pub(crate) const BEGAN_MS: u64 = 1_700_000_000_000;
/// How long after that `KEY_LIVE` expires: longer than any machine has been up.
pub(crate) const LIFETIME_MS: u64 = 1 << 46;
/// The node in the versions and the name of the segment.
pub(crate) const NODE: u64 = 0x0123_4567_89ab;
/// The table's file: `annulus-CLUSTER-NODE-TABLE`.
pub(crate) const FILE: &str = "annulus-test-0123456789ab-sessions";

/// A table of 8 MiB with a session of each kind: see `fill`.
pub(crate) fn table(directory: &Path, file: &str) -> (Writer, PathBuf) {
    let path = directory.join(file);
    let mut opened = open_or_create(&path, &TableOptions::new(1, 2)).expect("a table");
    let mut writer = opened.writers.remove(0);
    // The hybrid clock is the monotonic one and this.
    writer.set_clock_offset(BEGAN_MS);
    fill(&mut writer);
    (writer, path)
}

fn fill(writer: &mut Writer) {
    let bytes = |value: &[u8]| session(Value::Bytes(value.to_vec()));
    put(writer, b"bytes", &bytes(b"value"));
    put(writer, b"empty", &bytes(b""));
    put(writer, b"\0key\xff", &bytes(b"\0\xff"));
    put(writer, b"large", &bytes(&[b'x'; 50_000]));
    put(writer, b"map", &map());
    put(writer, b"ended", &Entry::ended(version(0), version(1)));
    put(writer, b"stale", &bytes(b"not vouched for"));
    writer.set_freshness(Slot::of(b"stale").index(), 0);
    vouch(writer, b"nobody");
    for (key, record, deadline) in [
        (&b"expired"[..], &record_of(&bytes(b"late"))[..], BEGAN_MS),
        (b"damaged", b"\xff no record", 0),
    ] {
        vouch(writer, key);
        writer.put(key, Slot::of(key).index(), record, deadline, 0).expect("there is room");
    }
}

/// Puts an entry as a node does, and vouches for its slot.
pub(crate) fn put(writer: &mut Writer, key: &[u8], entry: &Entry) {
    vouch(writer, key);
    let touched = entry.body.as_ref().map_or(0, |body| body.touched);
    let (slot, mark) = (Slot::of(key).index(), record::mark(touched));
    writer.put(key, slot, &record_of(entry), entry.deadline(), mark).expect("there is room");
}

/// A session with this value, begun at [`BEGAN_MS`].
pub(crate) fn session(value: Value) -> Entry {
    Entry::start(version(0), value, (0, BEGAN_MS + LIFETIME_MS), Attributes::default(), BEGAN_MS)
}

/// Fields of which one was deleted and one has expired.
fn map() -> Entry {
    let fields = [("cart", "3"), ("gone", "x"), ("user", "ada")];
    let fields = fields.map(|(name, value)| (name.into(), value.into()));
    let mut entry = session(Value::Map(BTreeMap::from(fields)));
    entry.write_field(version(1), b"gone".to_vec(), None);
    entry.write_field(version(2), b"late".to_vec(), Some(b"x".to_vec()));
    let body = entry.body.as_mut().expect("it is live");
    body.fields.get_mut(&b"late"[..]).expect("just written").expire_at = BEGAN_MS;
    entry
}

pub(crate) fn version(counter: u64) -> Version {
    Version::new(Hlc::from_bits(BEGAN_MS << 16 | counter), NodeId::from_bits(NODE))
}

fn record_of(entry: &Entry) -> Vec<u8> {
    let mut record = Vec::new();
    record::write(entry, &mut record);
    record
}

fn vouch(writer: &mut Writer, key: &[u8]) {
    writer.set_freshness(Slot::of(key).index(), u64::MAX);
}
