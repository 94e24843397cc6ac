//! What happens to one input of a fuzzer: a segment that is not what its writer wrote, everything that a reader can be
//! asked about it, and the writer's successor. Nothing may panic, hang, or hand out more than the table's largest
//! value, and the ways to ask must agree. The libFuzzer target in `fuzz/` and the seeded test share this body.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus_shm::{
    Admission, HeapRegion, Lookup, PARTITIONS, Reader, Shards, TableOptions, Writer, create_shards,
    open_shards,
};
use twox_hash::XxHash3_64;

/// The input as changes of a valid segment: of its words at large, of what steers a lookup (maps, fingerprints,
/// sizes, links), or of everything behind the header, made of noise.
pub(crate) fn segment(input: &[u8]) {
    let original = original();
    let region = HeapRegion::new(SEGMENT_BYTES);
    let words: Vec<&AtomicU64> = region.words().collect();
    for (word, &value) in words.iter().zip(original) {
        word.store(value, Ordering::Relaxed);
    }
    let rest = input;
    let mut input = Input(input);
    let first = input.byte();
    if first.is_multiple_of(4) {
        let mut noise = input.number() | 1;
        let records = original[RECORDS_AT] as usize / 8;
        let from = [PAGE_WORDS, LINES, records, usize::midpoint(records, words.len())];
        let from = from[usize::from(input.byte() % 4)];
        for word in &words[from..] {
            // Marsaglia's xorshift64*.
            noise ^= noise >> 12;
            noise ^= noise << 25;
            noise ^= noise >> 27;
            word.store(noise.wrapping_mul(0x2545_f491_4f6c_dd1d), Ordering::Relaxed);
        }
    }
    while !input.0.is_empty() {
        change(&words, &mut input);
    }
    read_everything(&region);
    reopen(&region);
    if first.is_multiple_of(16) {
        shards(rest);
    }
}

/// The input as changes of the headers of a segment with several shards, each with the checksum that it then has, and of
/// words anywhere.
fn shards(input: &[u8]) {
    let region = HeapRegion::new(usize::from(SHARDS) * SEGMENT_BYTES);
    let options =
        TableOptions { segment_bytes: region.handle().len() as u64, shards: SHARDS, ..options() };
    let mut writers = create_shards(&region.handle(), &options).expect("fits");
    for number in 0..KEYS {
        let partition = partition_of(&key(number));
        let writer = &mut writers[usize::from(partition % SHARDS)];
        writer.set_freshness(partition, u64::MAX);
        // It may be full before the last.
        let _ = writer.put(&key(number), partition, &[number; 20], 0, 0);
    }
    drop(writers);
    let words: Vec<&AtomicU64> = region.words().collect();
    let mut input = Input(input);
    while !input.0.is_empty() {
        let (kind, place, value) = (input.byte(), input.number() as usize, input.number());
        let header = place % usize::from(SHARDS) * SEGMENT_BYTES / 8;
        let fixed = &words[header..header + CHECKSUM_AT];
        let old = fixed[kind as usize % CHECKSUM_AT].load(Ordering::Relaxed);
        match kind >> 5 {
            0 => words[place % words.len()].store(value, Ordering::Relaxed),
            1 => fixed[SHARD_AT].store(value & 0x7f_0000_007f, Ordering::Relaxed),
            2 => fixed[SHARD_AT].store(value, Ordering::Relaxed),
            3 => fixed[kind as usize % CHECKSUM_AT].store(value, Ordering::Relaxed),
            _ => {
                fixed[kind as usize % CHECKSUM_AT].store(old ^ 1 << (value % 64), Ordering::Relaxed)
            }
        }
        let bytes: Vec<u8> =
            fixed.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        words[header + CHECKSUM_AT].store(XxHash3_64::oneshot(&bytes), Ordering::Relaxed);
    }
    if let Ok(shards) = Shards::attach(region.handle(), partition_of) {
        let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut value = Vec::new();
        shards.get_many(&keys, 4, &mut value, &mut |at, lookup, value| {
            let mut alone = Vec::new();
            assert_eq!((shards.get(keys[at], 4, &mut alone), &alone[..]), (lookup, value));
        });
        let mut items = 0;
        assert_eq!(shards.scan(0, usize::MAX, 4, &mut |_, _| items += 1), 0);
        assert!(items <= words.len());
        assert_eq!(shards.scan(u64::MAX, 1, 4, &mut |_, _| panic!("beyond the end")), 0);
        let _ = (shards.stats(), shards.detached(), shards.owner_note(), shards.count());
    }
    if let Ok((writers, recovery)) = open_shards(&region.handle(), &options) {
        let entries: usize = writers.iter().map(|writer| writer.stats().entries).sum();
        assert_eq!(entries, recovery.entries);
    }
}

const SEGMENT_BYTES: usize = 192 << 10;
const RECORD_SIZE: u32 = 96;
const MAX_VALUE: usize = 3000;
const PAGE_WORDS: usize = 4096 / 8;
const LINES: usize = PAGE_WORDS + PARTITIONS;
/// The header's word for the offset of the records.
const RECORDS_AT: usize = 11;
/// The header's words for the shard and for the checksum, which covers all before it.
const SHARD_AT: usize = 12;
const CHECKSUM_AT: usize = 13;
const SHARDS: u16 = 3;
const KEYS: u8 = 100;

fn options() -> TableOptions {
    TableOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        record_size: RECORD_SIZE,
        max_value: MAX_VALUE as u32,
        ..TableOptions::new(1, 2)
    }
}

/// Keys of many lengths, the last ones longer than a record.
fn key(number: u8) -> Vec<u8> {
    vec![number; 1 + usize::from(number) * 2]
}

fn partition_of(key: &[u8]) -> u16 {
    key.first().copied().unwrap_or_default().into()
}

/// The words of a segment as a writer leaves it: both lines in use, chains, near copies, expired entries.
fn original() -> &'static [u64] {
    static WORDS: OnceLock<Vec<u64>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let region = HeapRegion::new(SEGMENT_BYTES);
        let mut writer = Writer::create(region.handle(), &options()).expect("fits");
        for partition in 0..20 {
            writer.set_freshness(partition, if partition == 0 { 5 } else { u64::MAX });
        }
        for number in 0..KEYS {
            let size = if number % 9 == 0 { 1200 } else { usize::from(number) / 3 };
            let near = if number % 5 == 0 { Admission::Near } else { Admission::Reserve };
            let times = (if number % 4 == 0 { 3 } else { 0 }, number.into());
            let partition = u16::from(number) % 20;
            // It may be full before the last.
            let _ = writer.put_as(near, &key(number), partition, &vec![number; size], times);
        }
        assert!(writer.stats().entries > 50 && writer.stats().blocks > 20);
        region.words().map(|word| word.load(Ordering::Relaxed)).collect()
    })
}

/// Makes one change to a segment.
fn change(words: &[&AtomicU64], input: &mut Input<'_>) {
    let original = original();
    let records = original[RECORDS_AT] as usize / 8;
    let (kind, place, value) = (input.byte(), input.number() as usize, input.number());
    let in_lines = LINES + place % (records - LINES);
    let line = LINES + place % ((records - LINES) / 8) * 8;
    let record_words = RECORD_SIZE as usize / 8;
    let count = (words.len() - records) / record_words;
    let record = records + place % count * record_words;
    // Numbers of two records, or none.
    let link = (value % (count as u64 + 2)) | ((value >> 32) << 32);
    match kind % 10 {
        // Anything anywhere; of the header, too.
        0 => words[place % words.len()].store(value, Ordering::Relaxed),
        1 => drop(words[place % words.len()].fetch_xor(1 << (value % 64), Ordering::Relaxed)),
        // All ways valid, or others, with and without an overflow bit; fingerprints of other ways.
        2 => words[line].store(value | 0xfff_ffff, Ordering::Relaxed),
        3 => drop(words[line].fetch_xor(value & 0x1fff_ffff, Ordering::Relaxed)),
        4 => words[in_lines]
            .store(original[LINES + value as usize % (records - LINES)], Ordering::Relaxed),
        // A record's stamp, and its sizes: any, and such as are possible.
        5 => drop(words[record].fetch_xor((value & 1) | (value << 32), Ordering::Relaxed)),
        6 => words[record + 3].store(value, Ordering::Relaxed),
        7 => words[record + 3]
            .store((value & 0x03ff_3fff) | ((value % 3001) << 40), Ordering::Relaxed),
        // The way to the first blocks, and on from them.
        8 => words[record + record_words - 1].store(link, Ordering::Relaxed),
        _ => words[record].store(1 | link << 32, Ordering::Relaxed),
    }
}

fn read_everything(region: &HeapRegion) {
    let Ok(reader) = Reader::attach(region.handle()) else { return };
    let keys: Vec<Vec<u8>> =
        (0..KEYS).map(key).chain([vec![], vec![1; 256], b"absent".to_vec()]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let now = 4;
    let (mut value, mut buffer) = (Vec::new(), [0xaa; MAX_VALUE + 8]);
    let mut found = Vec::new();
    for key in &keys {
        let lookup = reader.get(key, now, &mut value);
        match lookup {
            Lookup::Hit(hit) => assert_eq!(hit.value_size, value.len()),
            _ => assert!(value.is_empty()),
        }
        assert!(value.len() <= MAX_VALUE && value.capacity() <= 4 * MAX_VALUE);
        buffer.fill(0xaa);
        assert_eq!(reader.get_into(key, now, &mut buffer[..MAX_VALUE]), lookup);
        assert_eq!(buffer[..value.len()], value[..]);
        assert_eq!(buffer[MAX_VALUE..], [0xaa; 8], "nothing beyond");
        // Nobody walks a chain of which nothing is copied, so that this may be another answer.
        let _ = reader.get_into(key, now, &mut []);
        found.push((lookup, value.clone()));
    }
    let mut asked = 0;
    reader.get_many(&keys, now, &mut value, &mut |at, lookup, value| {
        assert_eq!(at, asked);
        assert_eq!((lookup, value), (found[at].0, &found[at].1[..]));
        asked += 1;
    });
    assert_eq!(asked, keys.len());
    scan(&reader, now, usize::MAX);
    scan(&reader, now, 1);
    let _ = (reader.stats(), reader.owner_note(), reader.writer_epoch(), reader.detached());
    let _ = (reader.clock_offset(), reader.instance());
}

/// A whole scan, a step of which looks at about `budget` entries.
fn scan(reader: &Reader, now: u64, budget: usize) {
    let (mut cursor, mut items) = (0, 0);
    loop {
        let next = reader.scan(cursor, budget, now, &mut |item, _| {
            assert!((1..=255).contains(&item.key.len()));
            assert!(item.value_size <= MAX_VALUE && usize::from(item.partition) < PARTITIONS);
            items += 1;
        });
        if next == 0 {
            break;
        }
        assert!(next > cursor, "it goes on");
        cursor = next;
    }
    assert!(items <= SEGMENT_BYTES / RECORD_SIZE as usize);
    assert_eq!(reader.scan(u64::MAX, budget, now, &mut |_, _| panic!("beyond the end")), 0);
}

/// What a successor of the writer does. It serves nothing that does not match its checksum.
fn reopen(region: &HeapRegion) {
    let Ok((mut writer, recovery)) = Writer::open(region.handle(), &options()) else { return };
    assert_eq!(writer.stats().entries, recovery.entries);
    let dropped = writer.verify(0, usize::MAX).dropped;
    assert_eq!(writer.stats().entries, recovery.entries - dropped);
    assert_eq!(writer.verify(0, usize::MAX).dropped, 0, "nothing damaged is left");
    let (mut entries, mut bytes, mut value) = (0, 0, Vec::new());
    writer.scan(0, usize::MAX, &mut |item| {
        writer.get(item.key, &mut value).expect("each is found by its key");
        assert_eq!(item.value_size, value.len());
        (entries, bytes) = (entries + 1, bytes + item.key.len() + value.len());
    });
    assert_eq!((entries, bytes as u64), (writer.stats().entries, writer.stats().bytes_live));
    writer.remove_expired(4, 50, &mut |item| item.key.len().is_multiple_of(2));
    writer.make_room(9, 4, &|mark| mark, &mut |_| true);
    for number in 0..KEYS {
        let size = usize::from(number) * 20;
        // It may be full of what was there.
        let _ = writer.put(&key(number), 3, &vec![number; size], 5, 0);
    }
    read_everything(region);
    for number in 0..KEYS {
        writer.remove(&key(number));
    }
    writer.scan(0, usize::MAX, &mut |item| {
        assert!((0..KEYS).all(|number| item.key != key(number)), "removed for good");
    });
}

/// Takes an input apart; what is missing is 0.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}
