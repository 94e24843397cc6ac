//! The writer over any kind of words.

use crate::layout::{
    DEADLINE, KEY_MAX, LineHeader, MARK, NONE, PARTITIONS, Place, RecordId, RecordShape, STAMP,
    WAYS, word,
};
use crate::protocol::{NewRecord, Table};
use crate::words::Words;
use crate::writer::{ExpiredItem, Found, Full, Put, PutError, ScanItem, TableStats, Verified};

/// A table with the writer's private knowledge of it.
///
/// What decides over memory (valid maps, sizes, chains, lists) is read from here and never from the segment, so that
/// bytes changed by somebody else can spoil entries but not the structure.
///
/// Invariants: every line has a way that is free, so that an update always finds one beside the old record and one
/// store flips both; `spilled[b]` counts the entries with `b` as their first line that live in their second, and the
/// overflow bit of `b` is set exactly when it is not 0.
pub(crate) struct Core<W> {
    pub(crate) table: Table<W>,
    /// The line headers as last published.
    pub(crate) headers: Vec<LineHeader>,
    pub(super) spilled: Vec<u32>,
    /// One per record; meaningful for the valid ones.
    pub(super) records: Vec<Known>,
    /// The block after each block.
    pub(super) links: Vec<u32>,
    pub(super) free_blocks: Vec<u32>,
    /// First record and length of each partition's list.
    pub(super) partitions: Vec<List>,
    pub(crate) entries: usize,
    pub(super) bytes_live: u64,
    /// The line where `remove_expired` goes on.
    sweep: usize,
}

/// What the writer knows of a record without looking.
#[derive(Clone, Copy)]
pub(super) struct Known {
    next: u32,
    previous: u32,
    /// First block of its chain.
    chain: u32,
    /// Value size in the high 24 bits, key size in the low 8.
    sizes: u32,
    partition: u16,
    generation: u16,
}

#[derive(Clone, Copy)]
pub(super) struct List {
    first: u32,
    count: u32,
}

/// Lines that a search for a free way looks behind before it gives up.
const SEARCH_LINES: usize = 64;

impl Known {
    pub(super) fn shape(&self) -> RecordShape {
        RecordShape {
            key_size: self.sizes as u8,
            partition: self.partition,
            generation: self.generation,
            value_size: self.sizes >> 8,
        }
    }
}

impl<W: Words> Core<W> {
    /// An empty table.
    pub(crate) fn new(table: Table<W>) -> Self {
        let geometry = &table.geometry;
        let blank = Known {
            next: NONE,
            previous: NONE,
            chain: NONE,
            sizes: 0,
            partition: 0,
            generation: 0,
        };
        Self {
            headers: vec![LineHeader::default(); geometry.buckets],
            spilled: vec![0; geometry.buckets],
            records: vec![blank; geometry.records_count()],
            links: vec![NONE; geometry.blocks],
            free_blocks: (0..geometry.blocks as u32).rev().collect(),
            partitions: vec![List { first: NONE, count: 0 }; PARTITIONS],
            entries: 0,
            bytes_live: 0,
            sweep: 0,
            table,
        }
    }

    pub(crate) fn words(&self) -> &W {
        &self.table.words
    }

    pub(crate) fn put(
        &mut self,
        key: &[u8],
        partition: u16,
        value: &[u8],
        deadline: u64,
        mark: u64,
    ) -> Result<Put, PutError> {
        assert!(usize::from(partition) < PARTITIONS, "a partition below {PARTITIONS}");
        let max = self.table.geometry.shape.max_value as usize;
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(PutError::KeyLength(key.len()));
        }
        if value.len() > max {
            return Err(PutError::ValueTooLarge { size: value.len(), max });
        }
        let (needed, free) =
            (self.table.geometry.blocks_for(key.len(), value.len()), self.free_blocks.len());
        if needed > free {
            return Err(PutError::Full(Full::Blocks { needed, free }));
        }
        let key_hash = self.table.hash(key);
        let place = self.table.geometry.place(key_hash);
        let old = self.find(key, place);
        let bucket = match old {
            Some(old) => old.bucket,
            None => self.make_room(place).ok_or(PutError::Full(Full::Records {
                entries: self.entries,
                capacity: self.table.geometry.records_count(),
            }))?,
        };
        let generation = old.map_or(0, |old| self.records[old.number()].generation.wrapping_add(1));
        let shape = RecordShape {
            key_size: key.len() as u8,
            partition,
            generation,
            value_size: value.len() as u32,
        };
        let way = self.headers[bucket].free_way().expect("every line keeps a free way");
        let new = RecordId { bucket, way };

        let chain = self.free_blocks.split_off(free - needed);
        self.table.write_record(
            new,
            &NewRecord { key, key_hash, value, shape, deadline, mark },
            &chain,
        );
        self.table.set_tag(new, place.tag);
        self.adopt(new, shape, &chain);
        match old {
            Some(old) => {
                self.flip(bucket, 1 << way, 1 << old.way);
                self.table.retire_record(old);
                self.forget(old);
            }
            None => {
                if bucket == place.second {
                    // Before the entry appears, or a reader that finds it gone from elsewhere would not look here.
                    self.spill(place.first);
                }
                self.flip(bucket, 1 << way, 0);
            }
        }
        self.publish_counters();
        Ok(Put { replaced: old.is_some() })
    }

    pub(crate) fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Option<Found> {
        value.clear();
        let id = self.find_key(key)?;
        self.read_value(id, value);
        Some(self.found(id))
    }

    pub(crate) fn set_times(&mut self, key: &[u8], deadline: u64, mark: u64) -> bool {
        let Some(id) = self.find_key(key) else { return false };
        let record = self.table.geometry.record(id);
        self.table.words.store(record + DEADLINE, deadline);
        self.table.words.store(record + MARK, mark);
        true
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some(id) = self.find_key(key) else { return false };
        let place = self.table.geometry.place(self.table.hash(key));
        self.remove_record(id, Some(place));
        true
    }

    pub(crate) fn partition_len(&self, partition: u16) -> usize {
        self.partitions.get(usize::from(partition)).map_or(0, |list| list.count as usize)
    }

    pub(crate) fn partition_keys(&self, partition: u16, visit: &mut dyn FnMut(ScanItem<'_>)) {
        let Some(list) = self.partitions.get(usize::from(partition)) else { return };
        let mut key = Vec::new();
        let mut number = list.first;
        while number != NONE {
            self.visit(RecordId::from_number(number as usize), &mut key, visit);
            number = self.records[number as usize].next;
        }
    }

    pub(crate) fn scan(
        &self,
        cursor: u64,
        budget: usize,
        visit: &mut dyn FnMut(ScanItem<'_>),
    ) -> u64 {
        let mut key = Vec::new();
        let mut visited = 0;
        let mut bucket = usize::try_from(cursor).unwrap_or(usize::MAX);
        while bucket < self.headers.len() {
            for id in self.live(bucket) {
                self.visit(id, &mut key, visit);
                visited += 1;
            }
            visited += 1;
            bucket += 1;
            if visited >= budget {
                break;
            }
        }
        if bucket >= self.headers.len() { 0 } else { bucket as u64 }
    }

    pub(crate) fn remove_expired(
        &mut self,
        now_hybrid_ms: u64,
        budget: usize,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> bool,
    ) -> usize {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (mut removed, mut visited) = (0, 0);
        for _ in 0..self.headers.len() {
            for id in self.live(self.sweep) {
                visited += 1;
                let Found { partition, deadline, mark } = self.found(id);
                if deadline == 0 || now_hybrid_ms < deadline {
                    continue;
                }
                self.read_key(id, &mut key);
                value.clear();
                self.read_value(id, &mut value);
                if decide(ExpiredItem { key: &key, value: &value, partition, deadline, mark }) {
                    let place = self.table.geometry.place(self.table.hash(&key));
                    self.remove_record(id, Some(place));
                    removed += 1;
                }
            }
            visited += 1;
            self.sweep = (self.sweep + 1) % self.headers.len();
            if visited >= budget {
                break;
            }
        }
        removed
    }

    pub(crate) fn verify(&mut self, cursor: u64, budget: usize) -> Verified {
        let (mut checked, mut dropped) = (0, 0);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut bucket = usize::try_from(cursor).unwrap_or(usize::MAX);
        while bucket < self.headers.len() {
            if self.table.header(bucket) != self.headers[bucket] {
                let header = self.headers[bucket];
                self.publish(bucket, header.valid(), header.overflow());
            }
            for id in self.live(bucket) {
                checked += 1;
                let (sound, place) = self.is_sound(id, &mut key, &mut value);
                if !sound {
                    self.remove_record(id, place);
                    dropped += 1;
                }
            }
            bucket += 1;
            if checked >= budget {
                break;
            }
        }
        Verified {
            next: if bucket >= self.headers.len() { 0 } else { bucket as u64 },
            checked,
            dropped,
        }
    }

    pub(crate) fn stats(&self) -> TableStats {
        let geometry = &self.table.geometry;
        TableStats {
            entries: self.entries,
            capacity_records: geometry.records_count(),
            bytes_live: self.bytes_live,
            pool_blocks_used: geometry.blocks - self.free_blocks.len(),
            pool_blocks: geometry.blocks,
            segment_bytes: geometry.shape.segment_bytes,
            load: self.entries as f64 / geometry.records_count() as f64,
        }
    }

    pub(crate) fn set_freshness(&mut self, partition: u16, until_monotonic_ms: u64) {
        // Pairs with the acquire fence in `Reader::get`.
        self.table.words.release();
        self.table
            .words
            .store(self.table.geometry.freshness + usize::from(partition), until_monotonic_ms);
    }

    pub(crate) fn freshness(&self, partition: u16) -> u64 {
        self.table.words.load(self.table.geometry.freshness + usize::from(partition))
    }
}

// Finding and reading. Sizes come from private memory; keys, values and chains from the segment, walked with care.
impl<W: Words> Core<W> {
    fn find_key(&self, key: &[u8]) -> Option<RecordId> {
        if key.is_empty() || key.len() > KEY_MAX {
            return None;
        }
        self.find(key, self.table.geometry.place(self.table.hash(key)))
    }

    fn find(&self, key: &[u8], place: Place) -> Option<RecordId> {
        let first = self.find_in(place.first, key, place.tag);
        if first.is_some() || self.spilled[place.first] == 0 {
            return first;
        }
        self.find_in(place.second, key, place.tag)
    }

    pub(crate) fn find_in(&self, bucket: usize, key: &[u8], tag: u16) -> Option<RecordId> {
        let mut ways = self.table.tagged(bucket, tag) & self.headers[bucket].valid();
        while ways != 0 {
            let id = RecordId { bucket, way: ways.trailing_zeros() as usize };
            ways &= ways - 1;
            let shape = self.records[id.number()].shape();
            if usize::from(shape.key_size) == key.len()
                && self.table.walk(id, shape).equal(key) == Some(true)
            {
                return Some(id);
            }
        }
        None
    }

    fn live(&self, bucket: usize) -> impl Iterator<Item = RecordId> + use<W> {
        let header = self.headers[bucket];
        (0..WAYS).filter(move |&way| header.is_valid(way)).map(move |way| RecordId { bucket, way })
    }

    fn found(&self, id: RecordId) -> Found {
        let record = self.table.geometry.record(id);
        Found {
            partition: self.records[id.number()].partition,
            deadline: self.table.words.load(record + DEADLINE),
            mark: self.table.words.load(record + MARK),
        }
    }

    fn visit(&self, id: RecordId, key: &mut Vec<u8>, visit: &mut dyn FnMut(ScanItem<'_>)) {
        self.read_key(id, key);
        let Found { partition, deadline, mark } = self.found(id);
        let value_size = self.records[id.number()].shape().value_size as usize;
        visit(ScanItem { key, partition, deadline, mark, value_size });
    }

    fn read_key(&self, id: RecordId, key: &mut Vec<u8>) {
        key.clear();
        let shape = self.records[id.number()].shape();
        // A chain that somebody else broke gives a part of it; `verify` drops the record.
        let _ = self.table.walk(id, shape).read(shape.key_size.into(), key);
    }

    fn read_value(&self, id: RecordId, value: &mut Vec<u8>) {
        let shape = self.records[id.number()].shape();
        let mut walk = self.table.walk(id, shape);
        let mut key = Vec::with_capacity(KEY_MAX + 1);
        // As above.
        let _ = walk
            .read(shape.key_size.into(), &mut key)
            .and_then(|()| walk.read(shape.value_size as usize, value));
    }

    /// Whether a record is what it was, and where its key says it may be.
    fn is_sound(
        &self,
        id: RecordId,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> (bool, Option<Place>) {
        self.read_key(id, key);
        value.clear();
        self.read_value(id, value);
        let shape = self.records[id.number()].shape();
        let record = self.table.geometry.record(id);
        let stamp = self.table.words.load(record + STAMP);
        let key_hash = self.table.hash(key);
        let place = self.table.geometry.place(key_hash);
        let intact = stamp & 1 == 0
            && self.table.words.load(record + crate::layout::SHAPE) == shape.pack()
            && stamp >> 32 == Table::<W>::checksum(key_hash, shape, value);
        let tagged = self.table.tagged(id.bucket, place.tag) >> id.way & 1 == 1;
        (intact && tagged, intact.then_some(place))
    }
}

// Changing.
impl<W: Words> Core<W> {
    /// A line of this place with two free ways, of which an insertion may take one. Moves entries if it must.
    fn make_room(&mut self, place: Place) -> Option<usize> {
        let roomy = |core: &Self, bucket: usize| core.headers[bucket].free_ways() >= 2;
        for bucket in [place.first, place.second] {
            if roomy(self, bucket) {
                return Some(bucket);
            }
        }
        if self.entries >= self.headers.len() * (WAYS - 1) {
            return None;
        }
        // Breadth first, over lines: whose entry has its other line where? (Cuckoo hashing with buckets.)
        struct Step {
            bucket: usize,
            /// The step before, and the entry of its line that can move here.
            from: Option<(usize, RecordId)>,
        }
        let mut steps = vec![
            Step { bucket: place.first, from: None },
            Step { bucket: place.second, from: None },
        ];
        let mut key = Vec::new();
        let mut at = 0;
        while at < steps.len().min(SEARCH_LINES) {
            for id in self.live(steps[at].bucket) {
                self.read_key(id, &mut key);
                let its = self.table.geometry.place(self.table.hash(&key));
                let other = match id.bucket {
                    bucket if bucket == its.first => its.second,
                    bucket if bucket == its.second => its.first,
                    _ => continue, // Its key was damaged.
                };
                if steps.iter().any(|step| step.bucket == other) {
                    continue;
                }
                steps.push(Step { bucket: other, from: Some((at, id)) });
                if roomy(self, other) {
                    // From the end of the path: each move makes the room for the one before it.
                    let mut step = steps.len() - 1;
                    while let Some((before, id)) = steps[step].from {
                        self.relocate(id, steps[step].bucket);
                        step = before;
                    }
                    return Some(steps[step].bucket);
                }
            }
            at += 1;
        }
        None
    }

    /// Moves an entry to its other line, which has two free ways. Readers find it in one or the other at any time.
    pub(crate) fn relocate(&mut self, from: RecordId, bucket: usize) {
        let mut key = Vec::new();
        self.read_key(from, &mut key);
        let place = self.table.geometry.place(self.table.hash(&key));
        let to =
            RecordId { bucket, way: self.headers[bucket].free_way().expect("the caller looked") };
        self.table.copy_record(from, to);
        self.table.set_tag(to, place.tag);
        let known = self.records[from.number()];
        self.records[to.number()] = known;
        if bucket == place.second {
            self.spill(place.first);
        }
        self.flip(to.bucket, 1 << to.way, 0);
        self.flip(from.bucket, 0, 1 << from.way);
        self.table.retire_record(from);
        if from.bucket == place.second {
            self.unspill(place.first);
        }
        // The list goes through the new record; the chain is the new record's already.
        self.unlink(from);
        self.link(to);
    }

    /// Removes a record. `place` is its key's, if the key can be believed.
    pub(super) fn remove_record(&mut self, id: RecordId, place: Option<Place>) {
        self.flip(id.bucket, 0, 1 << id.way);
        self.table.retire_record(id);
        match place {
            Some(place) if id.bucket != place.first => self.unspill(place.first),
            _ => {} // A damaged key leaves an overflow bit set at worst: one more line to look at.
        }
        self.forget(id);
        self.publish_counters();
    }

    /// Counts one more entry of `first` in its second line.
    fn spill(&mut self, first: usize) {
        self.spilled[first] += 1;
        if !self.headers[first].overflow() {
            self.publish(first, self.headers[first].valid(), true);
        }
    }

    fn unspill(&mut self, first: usize) {
        self.spilled[first] = self.spilled[first].saturating_sub(1);
        if self.spilled[first] == 0 && self.headers[first].overflow() {
            self.publish(first, self.headers[first].valid(), false);
        }
    }

    fn flip(&mut self, bucket: usize, set: u32, clear: u32) {
        let header = self.headers[bucket];
        debug_assert!(header.valid() & set == 0 && header.valid() & clear == clear);
        self.publish(bucket, header.valid() & !clear | set, header.overflow());
    }

    pub(super) fn publish(&mut self, bucket: usize, valid: u32, overflow: bool) {
        let header = self.headers[bucket].next(valid, overflow);
        debug_assert!(header.free_ways() >= 1, "every line keeps a free way");
        self.table.publish(bucket, header);
        self.headers[bucket] = header;
    }

    /// Takes a record and its chain into the books.
    pub(super) fn adopt(&mut self, id: RecordId, shape: RecordShape, chain: &[u32]) {
        for pair in chain.windows(2) {
            self.links[pair[0] as usize] = pair[1];
        }
        if let Some(&last) = chain.last() {
            self.links[last as usize] = NONE;
        }
        self.records[id.number()] = Known {
            next: NONE,
            previous: NONE,
            chain: chain.first().copied().unwrap_or(NONE),
            sizes: shape.value_size << 8 | u32::from(shape.key_size),
            partition: shape.partition,
            generation: shape.generation,
        };
        self.link(id);
        self.entries += 1;
        self.bytes_live += shape.bytes();
    }

    /// Takes a record and its chain out of the books. Its way is invalid by now, or the blocks could be reused
    /// under a reader that has no way to tell.
    pub(super) fn forget(&mut self, id: RecordId) {
        self.unlink(id);
        let known = self.records[id.number()];
        let mut block = known.chain;
        while block != NONE {
            self.free_blocks.push(block);
            block = self.links[block as usize];
        }
        self.entries -= 1;
        self.bytes_live -= known.shape().bytes();
    }

    fn link(&mut self, id: RecordId) {
        let number = id.number() as u32;
        let list = &mut self.partitions[usize::from(self.records[id.number()].partition)];
        let first = std::mem::replace(&mut list.first, number);
        list.count += 1;
        self.records[id.number()].next = first;
        self.records[id.number()].previous = NONE;
        if first != NONE {
            self.records[first as usize].previous = number;
        }
    }

    fn unlink(&mut self, id: RecordId) {
        let Known { next, previous, partition, .. } = self.records[id.number()];
        let list = &mut self.partitions[usize::from(partition)];
        list.count -= 1;
        match previous {
            NONE => list.first = next,
            previous => self.records[previous as usize].next = next,
        }
        if next != NONE {
            self.records[next as usize].previous = previous;
        }
    }

    pub(super) fn publish_counters(&self) {
        let words = &self.table.words;
        words.store(word!(entries), self.entries as u64);
        words.store(word!(bytes_live), self.bytes_live);
        words.store(
            word!(blocks_used),
            (self.table.geometry.blocks - self.free_blocks.len()) as u64,
        );
    }

    /// Recounts everything and compares it with the books and with the segment. For tests.
    #[cfg(test)]
    pub(crate) fn audit(&self) {
        let mut used = vec![false; self.links.len()];
        let (mut entries, mut bytes, mut blocks) = (0, 0, 0);
        let mut spilled = vec![0; self.spilled.len()];
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for bucket in 0..self.headers.len() {
            assert_eq!(self.table.header(bucket), self.headers[bucket], "published header");
            assert!(self.headers[bucket].free_ways() >= 1);
            for id in self.live(bucket) {
                let (sound, place) = self.is_sound(id, &mut key, &mut value);
                assert!(sound, "record {id:?}");
                let place = place.expect("sound");
                assert_eq!(self.find(&key, place), Some(id), "each key once");
                if bucket != place.first {
                    assert_eq!(bucket, place.second);
                    spilled[place.first] += 1;
                }
                let shape = self.records[id.number()].shape();
                let mut chain = Vec::new();
                self.table.walk(id, shape).blocks(&mut chain).expect("sound");
                let mut known = self.records[id.number()].chain;
                for block in chain {
                    assert_eq!(known, block);
                    assert!(
                        !std::mem::replace(&mut used[block as usize], true),
                        "one owner per block"
                    );
                    known = self.links[block as usize];
                    blocks += 1;
                }
                assert_eq!(known, NONE);
                entries += 1;
                bytes += shape.bytes();
            }
        }
        assert_eq!((entries, bytes), (self.entries, self.bytes_live));
        assert_eq!(spilled, self.spilled);
        for (bucket, count) in spilled.iter().enumerate() {
            assert_eq!(self.headers[bucket].overflow(), *count > 0);
        }
        assert_eq!(blocks + self.free_blocks.len(), self.links.len());
        assert!(
            self.free_blocks
                .iter()
                .all(|&block| !std::mem::replace(&mut used[block as usize], true))
        );
        let listed: usize = (0..PARTITIONS as u16)
            .map(|partition| {
                let mut count = 0;
                self.partition_keys(partition, &mut |item| {
                    assert_eq!(item.partition, partition);
                    count += 1;
                });
                assert_eq!(count, self.partition_len(partition));
                count
            })
            .sum();
        assert_eq!(listed, entries);
        assert_eq!(self.words().load(word!(entries)), entries as u64);
        assert_eq!(self.words().load(word!(bytes_live)), bytes);
        assert_eq!(self.words().load(word!(blocks_used)), blocks as u64);
    }
}

impl RecordShape {
    fn bytes(self) -> u64 {
        u64::from(self.key_size) + u64::from(self.value_size)
    }
}
