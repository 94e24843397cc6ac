//! A table with one session of every kind, as a node would have written it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use annulus_proto::{Attributes, Entry, Hlc, NodeId, Slot, Value, Verdict, Version, record};
use annulus_shm::{TableOptions, Writer, open_or_create, shard_of};

/// The hybrid time that the table's sessions began at, and that its clock shows at least.
pub(crate) const BEGAN_MS: u64 = 1_700_000_000_000;
/// How long after that `KEY_LIVE` expires: longer than any machine has been up.
pub(crate) const LIFETIME_MS: u64 = 1 << 46;
/// The node in the versions and the name of the segment.
pub(crate) const NODE: u64 = 0x0123_4567_89ab;
/// The table's file: `annulus-CLUSTER-NODE-TABLE`.
pub(crate) const FILE: &str = "annulus-test-0123456789ab-sessions";

/// The writers of a table's shards.
pub(crate) struct Writers(pub(crate) Vec<Writer>);

impl Writers {
    /// The writer of the key's shard, and its slot.
    fn of(&mut self, key: &[u8]) -> (&mut Writer, u16) {
        let slot = Slot::of(key).index();
        let shard = shard_of(slot, self.0.len() as u16);
        (&mut self.0[usize::from(shard)], slot)
    }
}

/// A table of 8 MiB in four shards with a session of each kind: see `fill`.
pub(crate) fn table(directory: &Path, file: &str) -> (Writers, PathBuf) {
    let path = directory.join(file);
    let options = TableOptions { shards: 4, ..TableOptions::new(1, 2) };
    let mut writers = Writers(open_or_create(&path, &options).expect("a table").writers);
    // The hybrid clock is the monotonic one and this.
    writers.0.iter_mut().for_each(|writer| writer.set_clock_offset(BEGAN_MS));
    fill(&mut writers);
    (writers, path)
}

fn fill(writers: &mut Writers) {
    let bytes = |value: &[u8]| session(Value::Bytes(value.to_vec()));
    put(writers, b"bytes", &bytes(b"value"));
    put(writers, b"empty", &bytes(b""));
    put(writers, b"\0key\xff", &bytes(b"\0\xff"));
    put(writers, b"large", &bytes(&[b'x'; 50_000]));
    put(writers, b"map", &map());
    put(writers, b"ended", &Entry::ended(version(0), version(1)));
    put(writers, b"slowed", &judged(b"hot", BEGAN_MS + LIFETIME_MS));
    put(writers, b"cooled", &judged(b"cool", BEGAN_MS));
    put(writers, b"stale", &bytes(b"not vouched for"));
    let (writer, slot) = writers.of(b"stale");
    writer.set_freshness(slot, 0);
    vouch(writers, b"nobody");
    for (key, record, deadline) in [
        (&b"expired"[..], &record_of(&bytes(b"late"))[..], BEGAN_MS),
        (b"damaged", b"\xff no record", 0),
        (b"moved", &record_of(&bytes(b"elsewhere").marker()), 0),
    ] {
        vouch(writers, key);
        let (writer, slot) = writers.of(key);
        writer.put(key, slot, record, deadline, 0).expect("there is room");
    }
}

/// Puts an entry as a node does, and vouches for its slot.
pub(crate) fn put(writers: &mut Writers, key: &[u8], entry: &Entry) {
    vouch(writers, key);
    let touched = entry.body.as_ref().map_or(0, |body| body.touched);
    let ((writer, slot), mark) = (writers.of(key), record::mark(touched));
    writer.put(key, slot, &record_of(entry), entry.deadline(), mark).expect("there is room");
}

/// A session with this value, begun at [`BEGAN_MS`].
pub(crate) fn session(value: Value) -> Entry {
    Entry::start(version(0), value, (0, BEGAN_MS + LIFETIME_MS), Attributes::default(), BEGAN_MS)
}

/// A session that is kept away from its users until then.
fn judged(value: &[u8], until: u64) -> Entry {
    let mut entry = session(Value::Bytes(value.to_vec()));
    entry.judge(version(1), Verdict::Suspect { until });
    entry
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

fn vouch(writers: &mut Writers, key: &[u8]) {
    let (writer, slot) = writers.of(key);
    writer.set_freshness(slot, u64::MAX);
}
