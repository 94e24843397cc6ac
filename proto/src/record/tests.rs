use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::arbitrary::{few_entries, version, wide_entries};
use crate::fuzz_bodies;

fn record_of(entry: &Entry) -> (Vec<u8>, u64) {
    let mut record = Vec::new();
    write(entry, &mut record);
    (record, mark(entry.body.as_ref().map_or(0, |body| body.touched)))
}

fn read(record: &[u8], mark: u64) -> Result<Entry, Malformed> {
    View::parse(record)?.entry(mark)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn an_entry_reads_back_what_was_written(
        entry in prop_oneof![wide_entries(), few_entries()],
        heat in any::<u16>(),
        before in vec(any::<u8>(), 0..3),
    ) {
        let (record, mark) = record_of(&entry);
        prop_assert_eq!(read(&record, mark | u64::from(heat) << 48), Ok(entry.clone()));
        let mut appended = before.clone();
        write(&entry, &mut appended);
        prop_assert_eq!(appended, [before, record].concat());
    }

    #[test]
    fn a_view_agrees_with_the_entry(entry in prop_oneof![wide_entries(), few_entries()]) {
        let (record, mark) = record_of(&entry);
        let view = View::parse(&record).unwrap();
        prop_assert_eq!(view.birth, entry.birth);
        prop_assert_eq!(view.version, entry.version);
        prop_assert_eq!(view.ended, entry.is_ended());
        prop_assert_eq!(touched(mark), entry.body.as_ref().map_or(0, |body| body.touched));
        match &entry.body {
            None => prop_assert_eq!(view.bytes(), None),
            Some(body) => {
                prop_assert_eq!(view.lease, body.lease);
                let bytes = (!body.has_fields()).then_some(body.base.bytes.as_slice());
                prop_assert_eq!(view.bytes(), bytes);
                let value = body.size();
                let overhead = record.len().saturating_sub(value);
                prop_assert!(overhead <= OVERHEAD_BYTES_MAX + 9, "{overhead}");
            }
        }
    }

    #[test]
    fn a_digest_of_a_view_is_the_entrys_whatever_the_host_notes_in_the_mark(
        entry in prop_oneof![wide_entries(), few_entries()],
        used in any::<u16>(),
        touched_ms in 0..=Hlc::MS_MAX,
        key in vec(any::<u8>(), 1..=255),
    ) {
        let (record, mark) = record_of(&entry);
        let view = View::parse(&record).unwrap();
        let used = mark | u64::from(used) << 48;
        prop_assert_eq!(view.digest(&key, used), Ok(entry.digest(&key)));
        let with_value = view.with_value(entry.digest(&key));
        prop_assert_eq!(with_value, Ok(entry.digest_with_value(&key)));
        prop_assert_eq!(view.deadline(used), entry.deadline());
        let other = view.entry(touched_ms).unwrap();
        let digests = (entry.digest(&key), other.digest(&key));
        let change = (digests.0 != digests.1).then_some(digests);
        prop_assert_eq!(view.digest_change(&key, used, touched_ms), Ok(change));
    }

    #[test]
    fn what_a_view_becomes_is_what_the_entry_becomes(
        entry in prop_oneof![wide_entries(), few_entries()],
        bytes in vec(any::<u8>(), 0..40),
        later in 1..1_000u64,
        node in any::<u64>(),
    ) {
        let (record, mark) = record_of(&entry);
        let view = View::parse(&record).unwrap();
        let mut again = Vec::new();
        view.write(&mut again);
        prop_assert_eq!(&again, &record);
        let hlc = Hlc::from_bits(entry.version.hlc.bits().saturating_add(later));
        let version = Version::new(hlc, NodeId::from_bits(node));
        prop_assume!(version > entry.version);
        let mut ended = Vec::new();
        View::tombstone(entry.birth, version).write(&mut ended);
        prop_assert_eq!(read(&ended, 0), Ok(Entry::ended(entry.birth, version)));
        if !view.ended {
            let mut written = Vec::new();
            view.with_bytes(version, &bytes).write(&mut written);
            let mut expected = entry.clone();
            expected.write_value(version, crate::Value::Bytes(bytes));
            prop_assert_eq!(read(&written, mark), Ok(expected));
        }
    }

    #[test]
    fn the_fields_in_place_are_those_of_the_entry(
        entry in prop_oneof![wide_entries(), few_entries()],
        stop in any::<proptest::sample::Index>(),
    ) {
        let (record, _) = record_of(&entry);
        let body = entry.body.as_ref().filter(|body| body.has_fields());
        let fields = View::parse(&record).unwrap().map().unwrap();
        prop_assert_eq!(fields.is_some(), body.is_some());
        let (Some(mut left), Some(body)) = (fields, body) else { return Ok(()) };
        let stop = stop.index(body.fields.len() + 1);
        for (place, (name, field)) in body.fields.iter().enumerate() {
            if place == stop {
                left = Fields::resume(left.rest());
            }
            let view = left.next_field().unwrap().expect("as many as the entry has");
            prop_assert_eq!(view.name, name);
            prop_assert_eq!(view.value, field.value.as_deref());
            prop_assert_eq!((view.version, view.expire_at), (field.version, field.expire_at));
        }
        prop_assert_eq!(left.next_field(), Ok(None));
    }

    #[test]
    fn a_record_that_is_cut_short_is_an_error_or_a_shorter_value(entry in few_entries()) {
        let (record, mark) = record_of(&entry);
        for length in 0..record.len() {
            if let Ok(shorter) = read(&record[..length], mark) {
                let whole = entry.body.as_ref().expect("a tombstone has no end to cut off");
                let body = shorter.body.expect("what is cut off is the end of the value");
                prop_assert!(!whole.has_fields() && whole.base.bytes.starts_with(&body.base.bytes));
            }
        }
    }
}

#[test]
fn damaged_records_and_random_bytes_never_panic() {
    let mut runner = TestRunner::deterministic();
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..10_000 {
        let entry = wide_entries().new_tree(&mut runner).unwrap().current();
        let (record, mark) = record_of(&entry);
        let good = [&mark.to_le_bytes()[..], &record].concat();
        fuzz_bodies::record(&good);
        for _ in 0..10 {
            let mut bad = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bad.len());
                bad[at] ^= 1 << rng.random_range(0..8);
            }
            fuzz_bodies::record(&bad);
            bad.truncate(rng.random_range(0..bad.len()));
            fuzz_bodies::record(&bad);
        }
    }
    for _ in 0..100_000 {
        let mut bytes = vec![0; rng.random_range(0..200)];
        rng.fill(&mut bytes[..]);
        if let Some(format) = bytes.get_mut(8) {
            *format = FORMAT;
        }
        fuzz_bodies::record(&bytes);
    }
}

#[test]
fn records_are_what_they_always_were() {
    let birth = version(0x0102_0304_0506, 0xa1a2_a3a4_a5a6);
    let attributes = Attributes { replicas: 2, owner: b"ada".to_vec() };
    let value = crate::Value::Bytes(b"value".into());
    let plain = Entry::start(birth, value.clone(), (0, 0), Attributes::default(), 1);
    let mut rich = Entry::start(birth, value, (60_000, 1 << 40), attributes, 1);
    let later = version(0x0102_0304_0507, 1);
    rich.write_field(later, b"f".to_vec(), Some(b"v".to_vec()));
    rich.write_field(later, b"g".to_vec(), None);
    let body = rich.body.as_mut().unwrap();
    body.fields.get_mut(b"f".as_slice()).unwrap().expire_at = 5;
    body.notes.insert(9, Note { version: birth, bytes: b"n".to_vec() });
    let ended = Entry::ended(birth, later);
    const BIRTH: &str = "0000060504030201a6a5a4a3a2a1";
    const LATER: &str = "0000070504030201010000000000";
    let expected = [
        (plain, format!("0100{BIRTH}76616c7565")),
        (ended, format!("0105{BIRTH}{LATER}")),
        (
            rich,
            format!(
                "01ee{BIRTH}{LATER}{BIRTH}60ea000000000000000000010203616461\
                 0109{BIRTH}016e\
                 000500000076616c7565\
                 02000000\
                 010002{LATER}050000000000010000006676\
                 010001{LATER}0000000067"
            ),
        ),
    ];
    for (entry, hex) in expected {
        let (record, mark) = record_of(&entry);
        let written: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, hex);
        assert_eq!(read(&record, mark), Ok(entry));
    }
}

#[test]
fn what_contradicts_itself_is_malformed() {
    let entry = Entry::ended(version(1, 1), version(2, 1));
    let (tombstone, _) = record_of(&entry);
    let wrong = |at: usize, byte: u8| {
        let mut record = tombstone.clone();
        record[at] = byte;
        read(&record, 0)
    };
    assert_eq!(read(&tombstone, 0), Ok(entry));
    assert_eq!(wrong(0, 2), Err(Malformed("another format")));
    assert_eq!(wrong(1, ENDED), Err(Malformed("a tombstone with a body")));
    assert_eq!(wrong(1, ENDED | VERSION | FIELDS), Err(Malformed("a tombstone with a body")));
    assert_eq!(read(&[], 0), Err(Malformed("cut short")));

    let fields = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
    let value = crate::Value::Map(fields.into());
    let entry = Entry::start(version(1, 1), value, (0, 0), Attributes::default(), 0);
    let (record, _) = record_of(&entry);
    let first_name = record.iter().position(|&byte| byte == b'a').unwrap();
    let mut unordered = record.clone();
    unordered[first_name] = b'b';
    assert_eq!(read(&unordered, 0), Err(Malformed("not in ascending order")));
    let mut trailing = record.clone();
    trailing.push(0);
    assert_eq!(read(&trailing, 0), Err(Malformed("bytes after the last field")));
    let mut kind = record;
    kind[16] = 4;
    assert_eq!(read(&kind, 0), Err(Malformed("an unknown kind of value")));
}
