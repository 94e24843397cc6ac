//! Segments with arbitrary bytes: readers and writers answer something, and come to an end.

use std::sync::atomic::{AtomicU64, Ordering};

use annulus_shm::{
    HeapRegion, Lookup, OpenError, PARTITIONS, Reader, Shards, TableOptions, Writer, create_shards,
    open_shards,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What the fuzz target runs.
#[path = "../fuzz_bodies.rs"]
mod fuzz_bodies;

fn options() -> TableOptions {
    TableOptions {
        segment_bytes: 512 << 10,
        record_size: 96,
        max_value: 8192,
        ..TableOptions::new(1, 2)
    }
}

fn key(number: u8) -> Vec<u8> {
    vec![number; 1 + usize::from(number)]
}

fn filled() -> (HeapRegion, Writer) {
    let region = HeapRegion::new(options().segment_bytes as usize);
    let mut writer = Writer::create(region.handle(), &options()).expect("fits");
    for partition in 0..16 {
        writer.set_freshness(partition, u64::MAX);
    }
    for number in 0..100 {
        let size = if number % 10 == 0 { 3000 } else { usize::from(number) };
        writer.put(&key(number), u16::from(number) % 16, &vec![number; size], 0, 0).expect("room");
    }
    (region, writer)
}

/// A copy, as damaged bytes must not reach the original.
fn copy(region: &HeapRegion) -> HeapRegion {
    let copy = HeapRegion::new(options().segment_bytes as usize);
    for (from, to) in region.words().zip(copy.words()) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    copy
}

/// Everything that a reader can ask for.
fn read_everything(region: &HeapRegion) {
    let Ok(reader) = Reader::attach(region.handle()) else { return };
    let mut value = Vec::new();
    for number in 0..120 {
        let lookup = reader.get(&key(number), 0, &mut value);
        assert!(value.len() <= 8192);
        assert!(matches!(lookup, Lookup::Hit(_)) || value.is_empty());
    }
    let mut items = 0;
    reader.scan(0, usize::MAX, 0, &mut |_, _| items += 1);
    assert!(items <= 512 << 10);
    let _ = (reader.stats(), reader.owner_note(), reader.writer_epoch(), reader.detached());
}

/// Everything that a writer can do.
fn write_everything(writer: &mut Writer) {
    let mut value = Vec::new();
    for number in 0..120 {
        writer.get(&key(number), &mut value);
        writer.set_times(&key(number), 1, 2);
        let size = usize::from(number) * 20;
        // It may be full of what others wrote.
        let _ = writer.put(&key(number), 3, &vec![1; size], 5, 0);
        if number % 3 == 0 {
            writer.remove(&key(number));
        }
    }
    writer.scan(0, usize::MAX, &mut |_| {});
    writer.partition_keys(3, &mut |_| {});
    writer.remove_expired(100, 50, &mut |item| item.key[..1] < [60][..]);
    writer.verify(0, usize::MAX);
    assert_eq!(writer.verify(0, usize::MAX).dropped, 0, "nothing damaged is left");
}

#[test]
fn random_bytes_are_no_segment() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        let region = HeapRegion::new(options().segment_bytes as usize);
        region.words().for_each(|word| word.store(rng.random(), Ordering::Relaxed));
        assert!(Reader::attach(region.handle()).is_err());
        assert!(Writer::open(region.handle(), &options()).is_err());
    }
    for size in [0, 8, 64, 4096 - 64, 4096] {
        let region = HeapRegion::new(size);
        assert!(Reader::attach(region.handle()).is_err());
        assert!(Writer::open(region.handle(), &options()).is_err());
    }
}

#[test]
fn random_bytes_behind_a_valid_header_are_survived() {
    let (original, _) = filled();
    let mut rng = StdRng::seed_from_u64(2);
    for round in 0..60 {
        let region = copy(&original);
        // From here on everything: freshness and lines too, or only records, or only the later ones.
        let from = [512, 512 + 16384, 512 + 16384 + 500, 45_000][round % 4];
        for word in region.words().skip(from) {
            word.store(rng.random(), Ordering::Relaxed);
        }
        if round % 2 == 0 {
            for word in region.words().skip(512).take(16384) {
                word.store(u64::MAX, Ordering::Relaxed);
            }
        }
        read_everything(&region);
        let (mut writer, _) =
            Writer::open(region.handle(), &options()).expect("the header is valid");
        write_everything(&mut writer);
        read_everything(&region);
    }
}

#[test]
fn flipped_bits_are_survived_and_wrong_values_are_dropped_by_verification() {
    let (original, _) = filled();
    let mut rng = StdRng::seed_from_u64(3);
    let words = original.words().count();
    let mut dropped_by_partitions = 0;
    for round in 0..300 {
        let region = copy(&original);
        for _ in 0..rng.random_range(1..200) {
            let at = if round % 2 == 0 {
                rng.random_range(0..words)
            } else {
                rng.random_range(16896..19000)
            };
            let word = region.words().nth(at).expect("within");
            word.fetch_xor(1 << rng.random_range(0..64), Ordering::Relaxed);
        }
        read_everything(&region);
        let Ok((mut writer, _)) = Writer::open(region.handle(), &options()) else { continue };
        if round % 3 == 0 {
            let mut dropped = 0;
            for partition in 0..PARTITIONS as u16 {
                let verified = writer.verify_partition(partition, &mut |item| {
                    let number = item.key[0];
                    assert_eq!(item.key, key(number), "it is shown what is sound alone");
                    assert!(item.value.iter().all(|byte| *byte == number));
                });
                dropped += verified.dropped;
                let left = writer.partition_len(partition);
                assert_eq!(verified.checked - verified.dropped, left);
            }
            dropped_by_partitions += dropped;
            assert_eq!(writer.verify(0, usize::MAX).dropped, 0, "nothing damaged is left");
        }
        writer.verify(0, usize::MAX);
        let mut value = Vec::new();
        for number in 0..100 {
            if writer.get(&key(number), &mut value).is_some() {
                let size = if number % 10 == 0 { 3000 } else { usize::from(number) };
                assert_eq!(value, vec![number; size], "what is left is right");
            }
        }
        write_everything(&mut writer);
        read_everything(&region);
    }
    assert!(dropped_by_partitions > 50, "{dropped_by_partitions} were dropped");
}

#[test]
fn writer_survives_a_segment_that_changes_under_it() {
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..60 {
        let (region, mut writer) = filled();
        for word in region.words().skip(512 + 16384) {
            if rng.random_ratio(1, 4) {
                word.store(rng.random(), Ordering::Relaxed);
            }
        }
        read_everything(&region);
        write_everything(&mut writer);
        read_everything(&region);
        let (mut writer, _) =
            Writer::open(region.handle(), &options()).expect("the header is valid");
        write_everything(&mut writer);
    }
}

#[test]
fn endless_chain_is_damaged_and_not_followed() {
    let (region, _) = filled();
    // Every block links to record 0, and then to none.
    let records_at =
        region.words().nth(11).expect("the header's records_at").load(Ordering::Relaxed);
    let stamps = || region.words().skip(records_at as usize / 8).step_by(96 / 8);
    for stamp in stamps().filter(|stamp| stamp.load(Ordering::Relaxed) & 1 == 1) {
        stamp.fetch_and(u64::from(u32::MAX), Ordering::Relaxed);
    }
    read_everything(&region);
    for stamp in stamps().filter(|stamp| stamp.load(Ordering::Relaxed) & 1 == 1) {
        stamp.fetch_or(u64::from(u32::MAX) << 32, Ordering::Relaxed);
    }
    let reader = Reader::attach(region.handle()).expect("the header is valid");
    let mut value = Vec::new();
    assert_eq!(reader.get(&key(10), 0, &mut value), Lookup::Damaged);
}

/// A filled segment of three shards, changed by one who can compute checksums.
struct Forged(HeapRegion);

impl Forged {
    const SHARDS: u16 = 3;
    const SHARD_BYTES: usize = 512 << 10;
    /// Header words: the size, the instance, the seed, the number of shards and which it is, the checksum.
    const SEGMENT_BYTES_AT: usize = 3;
    const INSTANCE_AT: usize = 4;
    const SEED_AT: usize = 5;
    const SHARD_AT: usize = 12;
    const CHECKSUM_AT: usize = 13;

    fn options() -> TableOptions {
        let segment_bytes = u64::from(Self::SHARDS) * Self::SHARD_BYTES as u64;
        TableOptions { segment_bytes, shards: Self::SHARDS, ..options() }
    }

    fn new() -> Self {
        let region = HeapRegion::new(Self::options().segment_bytes as usize);
        let mut writers = create_shards(&region.handle(), &Self::options()).expect("fits");
        for number in 0..100 {
            let partition = partition_of(&key(number));
            let writer = &mut writers[usize::from(partition % Self::SHARDS)];
            writer.set_freshness(partition, u64::MAX);
            writer.put(&key(number), partition, &[number; 50], 0, 0).expect("room");
        }
        Self(region)
    }

    fn header(&self, shard: u16) -> Vec<&AtomicU64> {
        self.0.words().skip(usize::from(shard) * Self::SHARD_BYTES / 8).take(512).collect()
    }

    /// Sets a word of a shard's header, and the checksum that it then has.
    fn set(&self, shard: u16, at: usize, value: u64) -> &Self {
        let header = self.header(shard);
        header[at].store(value, Ordering::Relaxed);
        let fixed = header[..Self::CHECKSUM_AT].iter();
        let bytes: Vec<u8> =
            fixed.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        let checksum = twox_hash::XxHash3_64::oneshot(&bytes);
        header[Self::CHECKSUM_AT].store(checksum, Ordering::Relaxed);
        self
    }

    /// Why it cannot be opened: for readers and for a writer the same.
    fn refused(&self) -> OpenError {
        let why = Shards::attach(self.0.handle(), partition_of).err().expect("refused");
        let writer = open_shards(&self.0.handle(), &Self::options()).err();
        assert_eq!(writer.as_ref(), Some(&why));
        assert!(Reader::attach(self.0.handle()).is_err());
        why
    }
}

fn partition_of(key: &[u8]) -> u16 {
    key.first().copied().unwrap_or_default().into()
}

#[test]
fn headers_of_shards_that_contradict_each_other_are_refused() {
    assert!(Shards::attach(Forged::new().0.handle(), partition_of).is_ok());
    let place = |shard: u64, shards: u64| shard << 32 | shards;
    let of_shard = |why: OpenError| match why {
        OpenError::Shard { shard, why } => (shard, matches!(*why, OpenError::DamagedHeader(_))),
        other => panic!("{other}"),
    };
    for (shard, other) in [(1, 0), (1, 2), (2, 1)] {
        let forged = Forged::new();
        let why = forged.set(shard, Forged::SHARD_AT, place(other, 3)).refused();
        assert_eq!(of_shard(why), (shard, true), "another's number");
    }
    for shards in [0, 1, 2, 4, 64, 65, 1 << 16, u32::MAX.into()] {
        let forged = Forged::new();
        let why = forged.set(2, Forged::SHARD_AT, place(0, shards)).refused();
        // With fewer shards it would be longer than its place.
        assert_eq!(of_shard(why), (2, ![1, 2].contains(&shards)), "another count");
        if shards != 1 {
            let why = Forged::new().set(0, Forged::SHARD_AT, place(0, shards)).refused();
            assert_ne!(why, OpenError::Retired);
        }
    }
    for shard in [1, 2, 3, u32::MAX.into()] {
        let why = Forged::new().set(0, Forged::SHARD_AT, place(shard, 3)).refused();
        assert!(matches!(why, OpenError::DamagedHeader(_)), "{why}");
    }
    for at in [Forged::INSTANCE_AT, Forged::SEED_AT] {
        assert_eq!(of_shard(Forged::new().set(1, at, 77).refused()), (1, true));
    }
    // More shards than the file has bytes for, and a file cut short between two.
    let forged = Forged::new();
    forged.set(0, Forged::SEGMENT_BYTES_AT, 64 * Forged::SHARD_BYTES as u64);
    let why = forged.set(0, Forged::SHARD_AT, place(0, 64)).refused();
    assert!(matches!(why, OpenError::Truncated { .. }), "{why}");
    let (whole, cut) = (Forged::new(), HeapRegion::new(2 * Forged::SHARD_BYTES + 4096));
    for (from, to) in whole.0.words().zip(cut.words()) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    let (found, expected) = (cut.handle().len() as u64, Forged::options().segment_bytes);
    assert_eq!(Forged(cut).refused(), OpenError::Truncated { found, expected });
}

#[test]
fn forged_headers_of_any_shard_are_refused_or_read_without_harm() {
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..300 {
        let forged = Forged::new();
        for _ in 0..rng.random_range(1..4) {
            let (shard, at) = (rng.random_range(0..Forged::SHARDS), rng.random_range(3..13));
            let old = forged.header(shard)[at].load(Ordering::Relaxed);
            let value = match rng.random_range(0..4) {
                0 => rng.random(),
                1 => old ^ 1 << rng.random_range(0..64),
                2 => old.wrapping_add(4096),
                _ => rng.random_range(0..70),
            };
            forged.set(shard, at, value);
        }
        if let Ok(shards) = Shards::attach(forged.0.handle(), partition_of) {
            let mut value = Vec::new();
            for number in 0..120 {
                shards.get(&key(number), 0, &mut value);
            }
            shards.scan(0, usize::MAX, 0, &mut |_, _| {});
            let _ = (shards.stats(), shards.detached(), shards.owner_note());
        }
        let _ = open_shards(&forged.0.handle(), &Forged::options());
    }
}

#[test]
fn readers_of_ten_thousand_segments_that_no_writer_wrote_survive_them() {
    let mut rng = StdRng::seed_from_u64(5);
    fuzz_bodies::segment(&[1]);
    for _ in 0..10_000 {
        let mut input = vec![0; rng.random_range(1..400)];
        rng.fill(&mut input[..]);
        fuzz_bodies::segment(&input);
    }
}

#[test]
fn expired_entry_whose_chain_is_broken_is_not_offered_with_the_value_of_another() {
    let (region, mut writer) = filled();
    let (whole, broken) = ([200; 70], [201; 200]);
    writer.put(&whole, 0, b"value", 5, 0).expect("room");
    // The key goes on in blocks, and the way there is lost.
    writer.put(&broken, 0, b"other", 5, 0).expect("room");
    let start = u64::from_ne_bytes([201; 8]);
    let at = region.words().position(|word| word.load(Ordering::Relaxed) == start);
    // 96 bytes: a header of 4 words, 7 of the key, a link.
    let link = region.words().nth(at.expect("stored") + 7).expect("within");
    link.store(u64::MAX, Ordering::Relaxed);
    let mut offered = Vec::new();
    writer.remove_expired(1 << 20, 10, &mut |item| {
        offered.push((item.key.len(), item.value.to_vec()));
        false
    });
    writer.remove_expired(1 << 21, 10, &mut |item| {
        offered.push((item.key.len(), item.value.to_vec()));
        true
    });
    assert_eq!(offered.len(), 4);
    let wrong = offered.iter().find(|(key, value)| *key != whole.len() && !value.is_empty());
    assert_eq!(wrong, None);
}
