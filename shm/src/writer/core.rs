//! The writer over any kind of words.

use crate::layout::{
    DEADLINE, FREE_BESIDE_BLOCKS, KEY_MAX, LINE_WORDS, LineHeader, MARK, NONE, PARTITIONS, Place,
    RECORD_HEADER, RecordId, RecordShape, SHAPE, STAMP, payload_words, word,
};
use crate::protocol::NewRecord;
use crate::reader::Used;
use crate::region::filled_on_large_pages;
use crate::table::Table;
use crate::words::{Target as _, Words, prefetch_for_writing};
use crate::writer::wheel::{Filed, Links, Wheel};
use crate::writer::{
    Admission, ExpiredItem, Fate, Found, Full, Put, PutError, ScanItem, TableStats, Verified,
    WholeItem,
};

/// A table with the writer's private knowledge of it.
///
/// What decides over memory (valid maps, sizes, chains, lists) is read from here and never from the segment, so that
/// bytes changed by somebody else can spoil entries but not the structure.
///
/// Invariants: every line has a way that is free, so that an update always finds one beside the old record and one
/// store flips both; a line's overflow bit is set exactly when entries that belong to it live in their second line.
pub(crate) struct Core<W> {
    pub(crate) table: Table<W>,
    pub(crate) lines: Vec<KnownLine>,
    /// One per record; meaningful for the valid ones, and of those that are blocks what comes after them in their chain.
    pub(super) records: Vec<Known>,
    pub(super) wheel: Wheel,
    /// Records that are blocks.
    pub(crate) blocks: usize,
    /// The free ways that new entries may take for blocks: of each line those beyond [`FREE_BESIDE_BLOCKS`].
    spare: usize,
    /// The line where blocks are taken next.
    quarry: usize,
    /// The records of each partition, in no order, up to the highest partition that had any.
    pub(super) partitions: Vec<Vec<u32>>,
    pub(crate) entries: usize,
    pub(super) near_entries: usize,
    /// The records that near copies take, their blocks among them.
    pub(super) near_records: usize,
    pub(super) bytes_live: u64,
    /// The line where `sample` goes on.
    hand: usize,
}

/// What the writer knows of a line without looking.
#[derive(Clone, Copy, Default)]
pub(crate) struct KnownLine {
    /// Its header as last published.
    pub(crate) header: LineHeader,
    /// The ways that are blocks, none of them valid.
    pub(crate) blocks: u32,
    /// The entries with this as their first line that live in their second.
    pub(super) spilled: u32,
    /// The ways that hold near copies.
    pub(super) near: u32,
}

impl KnownLine {
    /// The ways that are neither valid nor blocks.
    fn free(&self) -> u32 {
        !(self.header.valid() | self.blocks) & LineHeader::VALID as u32
    }

    pub(crate) fn free_ways(&self) -> usize {
        self.free().count_ones() as usize
    }

    /// The lowest way that is free.
    pub(crate) fn free_way(&self) -> Option<usize> {
        ones(self.free()).next()
    }

    fn spare(&self) -> usize {
        self.free_ways().saturating_sub(FREE_BESIDE_BLOCKS)
    }
}

/// What the writer knows of a record without looking.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Its place in its partition's records; of a block, the record that it belongs to.
    place: u32,
    /// Its place in its list of the wheel.
    filed_at: u32,
    filed_list: u16,
    /// The partition, and [`Known::SECOND`].
    partition: u16,
    /// First block of its chain; of a block, the next one.
    chain: u32,
    /// Value size in the high 24 bits, key size in the low 8.
    sizes: u32,
}

const _: () = assert!(size_of::<Known>() == 20);

/// Lines that a search for a free way looks behind before it gives up.
const SEARCH_LINES: usize = 256;
/// Free ways that blocks leave in each line where they may use the reserve, or an update needs them.
const FREE_IN_NEED: usize = 1;
/// New entries leave a way to spare, beyond [`FREE_BESIDE_BLOCKS`], in one of so many lines in the mean.
const SPARSE: usize = 16;
/// Entries that a search for expired ones looks at before an insertion; the next goes on from there.
const EXPIRED_STEP: usize = 1_024;
/// Near copies of so many times the records that an insertion needs are dropped for it at most.
const NEAR_PART: usize = 4;
/// And of so many more, if others stand in the reserve.
const NEAR_STEP: usize = 1_024;
/// Near copies of which the coolest is dropped. Redis samples 5 keys, 10 for a ranking close to the true one.
const SAMPLE: usize = 16;
/// Records and lines that are asked for ahead of their use where many are read.
pub(super) const AHEAD: usize = 12;
/// How many lines of a record are asked for that is going to be read: those after them follow by themselves.
const PREFETCHED_LINES: usize = 4;
/// The same of one of which only the key is read.
const KEY_LINES: usize = 2;

impl Links for Vec<Known> {
    fn filed(&self, record: u32) -> Filed {
        let known = &self[record as usize];
        Filed { list: known.filed_list, at: known.filed_at }
    }

    fn set_filed(&mut self, record: u32, filed: Filed) {
        let known = &mut self[record as usize];
        (known.filed_list, known.filed_at) = (filed.list, filed.at);
    }
}

impl<W: Words> Core<W> {
    /// An empty table.
    pub(crate) fn new(table: Table<W>) -> Self {
        let geometry = table.geometry();
        Self {
            lines: vec![KnownLine::default(); geometry.buckets],
            records: filled_on_large_pages(Known::BLANK, geometry.records_count()),
            wheel: Wheel::new(),
            blocks: 0,
            spare: geometry.buckets * KnownLine::default().spare(),
            quarry: 0,
            partitions: Vec::new(),
            entries: 0,
            near_entries: 0,
            near_records: 0,
            bytes_live: 0,
            hand: 0,
            table,
        }
    }

    pub(crate) fn words(&self) -> &W {
        self.table.words()
    }

    pub(crate) fn put(
        &mut self,
        key: &[u8],
        partition: u16,
        value: &[u8],
        times: (u64, u64),
        admission: Admission,
    ) -> Result<Put, PutError> {
        assert!(usize::from(partition) < PARTITIONS, "a partition below {PARTITIONS}");
        let max = self.table.geometry().shape.max_value as usize;
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(PutError::KeyLength(key.len()));
        }
        if value.len() > max {
            return Err(PutError::ValueTooLarge { size: value.len(), max });
        }
        let place = self.table.geometry().place(self.table.hash(key));
        self.prefetch_candidates(place);
        self.prefetch_for_writing(place.first, key.len(), value.len());
        self.prefetch_partition(partition);
        // Here and not where it is stored: it takes as long as a part of a trip to memory.
        let checksum = Self::checksum((key, place), partition, value, admission);
        let old = self.find(key, place);
        if let Some(old) = old {
            self.prefetch_listed(old);
        }
        self.write((key, place), old, partition, (value, checksum), times, admission)
    }

    /// Puts a value in place of an entry that was found, and that nothing has moved since.
    pub(crate) fn replace(
        &mut self,
        key: &[u8],
        place: Place,
        old: RecordId,
        value: &[u8],
        times: (u64, u64),
        admission: Admission,
    ) -> Result<Put, PutError> {
        debug_assert_eq!(self.find(key, place), Some(old));
        let max = self.table.geometry().shape.max_value as usize;
        if value.len() > max {
            return Err(PutError::ValueTooLarge { size: value.len(), max });
        }
        let partition = self.shape(old).partition;
        let checksum = Self::checksum((key, place), partition, value, admission);
        self.write((key, place), Some(old), partition, (value, checksum), times, admission)
    }

    /// The checksum of what is to be put, in whichever line of its two.
    fn checksum(
        (key, place): (&[u8], Place),
        partition: u16,
        value: &[u8],
        admission: Admission,
    ) -> u64 {
        let shape = RecordShape {
            key_size: key.len() as u8,
            partition,
            second: false,
            near: admission == Admission::Near,
            value_size: value.len() as u32,
        };
        Table::<W>::checksum(place.hash, shape, value)
    }

    /// Writes what was admitted by its sizes, and makes it what readers find.
    fn write(
        &mut self,
        (key, place): (&[u8], Place),
        old: Option<RecordId>,
        partition: u16,
        (value, checksum): (&[u8], u64),
        (deadline, mark): (u64, u64),
        admission: Admission,
    ) -> Result<Put, PutError> {
        let needed = self.table.geometry().blocks_for(key.len(), value.len());
        let bucket = self.admit(needed, place, old, admission)?;
        let shape = RecordShape {
            key_size: key.len() as u8,
            partition,
            second: bucket != place.first,
            near: admission == Admission::Near,
            value_size: value.len() as u32,
        };
        let chain = match needed {
            0 => Vec::new(),
            _ if old.is_some() => self.take_blocks(needed, None, FREE_IN_NEED),
            _ if admission == Admission::Reserve => {
                self.take_blocks(needed, Some(bucket), FREE_IN_NEED)
            }
            _ => self.take_blocks(needed, Some(bucket), FREE_BESIDE_BLOCKS),
        };
        let times = (deadline, mark);
        self.place_record((key, place), old, (bucket, shape), (value, checksum), times, &chain);
        self.publish_counters();
        Ok(Put { replaced: old.is_some() })
    }

    /// Writes a record into a line's free way, with blocks that were taken for it, and makes it what readers find.
    fn place_record(
        &mut self,
        (key, place): (&[u8], Place),
        old: Option<RecordId>,
        (bucket, shape): (usize, RecordShape),
        (value, checksum): (&[u8], u64),
        (deadline, mark): (u64, u64),
        chain: &[u32],
    ) {
        let way = self.lines[bucket].free_way().expect("every line keeps a free way");
        let new = RecordId { bucket, way };
        debug_assert_ne!(Some(new), old);
        let record = NewRecord { key, value, checksum, shape, deadline, mark };
        self.table.write_record(new, &record, chain);
        self.table.set_tag(new, place.tag);
        match old {
            Some(old) => {
                self.flip(bucket, 1 << way, 1 << old.way);
                self.table.retire_record(old);
                self.succeed(old, new, shape, deadline, chain);
            }
            None => {
                self.adopt(new, shape, deadline, chain);
                if shape.second {
                    // Before the entry appears, or a reader that finds it gone from elsewhere would not look here.
                    self.spill(place.first);
                }
                self.flip(bucket, 1 << way, 0);
            }
        }
    }

    /// Asks for the record that a put into this line will write, more often than not, while the old one is looked for.
    fn prefetch_for_writing(&self, bucket: usize, key_size: usize, value_size: usize) {
        let Some(way) = self.lines[bucket].free_way() else { return };
        let id = RecordId { bucket, way };
        prefetch_for_writing(&self.records[id.number()]);
        let record = self.table.geometry().record(id);
        let words = RECORD_HEADER + payload_words(key_size, value_size);
        let lines = words.min(self.table.geometry().record_words).div_ceil(LINE_WORDS);
        for line in 0..lines {
            self.table.words().prefetch_for_writing(record + line * LINE_WORDS);
        }
    }

    /// Asks for what the search will look at in a key's first line.
    fn prefetch_candidates(&self, place: Place) {
        let tagged = self.table.line(place.first).tagged(place.tag);
        for way in ones(tagged & self.lines[place.first].header.valid()) {
            let id = RecordId { bucket: place.first, way };
            prefetch_for_writing(&self.records[id.number()]);
            self.table.words().prefetch_for_writing(self.table.geometry().record(id));
        }
    }

    /// Asks for what leads to a partition's list.
    fn prefetch_partition(&self, partition: u16) {
        if let Some(records) = self.partitions.get(usize::from(partition)) {
            prefetch_for_writing(records);
        }
    }

    /// Asks for where the lists have a record that is about to be replaced.
    fn prefetch_listed(&self, old: RecordId) {
        let known = &self.records[old.number()];
        let records = self.partitions.get(usize::from(known.partition & !Known::SECOND));
        if let Some(place) = records.and_then(|records| records.get(known.place as usize)) {
            prefetch_for_writing(place);
        }
        if let Some(place) = self.wheel.place(self.records.filed(old.number() as u32)) {
            prefetch_for_writing(place);
        }
    }

    /// Takes so many records for blocks. Each line keeps so many free ways at `least`, and that of a new entry one more than
    /// an update needs. The caller has seen that there are enough.
    ///
    /// Runs of neighbours where it can be, and yet lines alike full: of each what it has free beyond three quarters of
    /// the mean, from where the last call ended; and if that is not enough of all, more. That is a few lines for a chain, while
    /// one in [`SPARSE`] has a way to spare, or the reserve is whole.
    fn take_blocks(&mut self, needed: usize, entry: Option<usize>, least: usize) -> Vec<u32> {
        let mean = (self.records.len() - self.taken()) / self.lines.len();
        let mut kept = match self.room_for_blocks() >= needed {
            true => (mean * 3 / 4).max(FREE_BESIDE_BLOCKS),
            false => least,
        };
        let mut chain = Vec::with_capacity(needed);
        let mut looked = 0;
        while chain.len() < needed {
            if looked == self.lines.len() {
                assert!(kept > least, "the caller counted");
                kept = (kept * 3 / 4).max(least);
                looked = 0;
            }
            let bucket = self.quarry;
            let kept = if entry == Some(bucket) { kept.max(FREE_BESIDE_BLOCKS) } else { kept };
            let free = self.lines[bucket].free();
            let more = (free.count_ones() as usize).saturating_sub(kept).min(needed - chain.len());
            // The highest: records take the lowest.
            let skipped = free.count_ones() as usize - more;
            let mut taken = 0;
            for way in ones(free).skip(skipped) {
                taken |= 1 << way;
                chain.push(RecordId { bucket, way }.number() as u32);
            }
            if more > 0 {
                self.set_line(bucket, |line| line.blocks |= taken);
            }
            if chain.len() < needed {
                self.quarry = (bucket + 1) % self.lines.len();
                looked += 1;
            }
        }
        self.blocks += needed;
        chain
    }

    /// The line for a key's new record, if there is room for that and for so many blocks, and the caller may use it.
    fn admit(
        &mut self,
        needed: usize,
        place: Place,
        old: Option<RecordId>,
        admission: Admission,
    ) -> Result<usize, PutError> {
        let (taken, capacity) = (self.taken(), self.table.geometry().capacity());
        let full = PutError::Full(Full { needed: needed + 1, taken, capacity });
        if let Some(old) = old {
            // It takes the line's free way, and gives the old record and its blocks back. It must not fail where a smaller
            // one would do.
            return if needed <= capacity - taken { Ok(old.bucket) } else { Err(full) };
        }
        let may_use_reserve = admission == Admission::Reserve;
        let has_room = |core: &Self| match may_use_reserve {
            true => core.taken() + needed < capacity,
            false => core.has_room(needed + 1),
        };
        if !has_room(self) {
            return Err(full);
        }
        let bucket = self.line_with_room(place).ok_or(full)?;
        // What was moved may have taken a way that was spare.
        if has_room(self) { Ok(bucket) } else { Err(full) }
    }

    fn reserve_used(&self) -> usize {
        self.taken().saturating_sub(self.table.geometry().ordinary())
    }

    /// Records that an entry of these sizes takes, its blocks among them.
    pub(crate) fn records_for(&self, key_size: usize, value_size: usize) -> usize {
        1 + self.table.geometry().blocks_for(key_size, value_size)
    }

    /// Records that are taken, by entries and as blocks.
    fn taken(&self) -> usize {
        self.entries + self.blocks
    }

    pub(crate) fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Option<Found> {
        let (_, id) = self.seek(key, value, None)?;
        Some(self.found(id))
    }

    /// As [`get`](Self::get), with what [`replace`](Self::replace) and [`set_times_at`](Self::set_times_at) need. If
    /// `expected` bytes are to be put there, their memory is asked for meanwhile.
    pub(crate) fn seek(
        &self,
        key: &[u8],
        value: &mut Vec<u8>,
        expected: Option<usize>,
    ) -> Option<(Place, RecordId)> {
        value.clear();
        if key.is_empty() || key.len() > KEY_MAX {
            return None;
        }
        let place = self.table.geometry().place(self.table.hash(key));
        if let Some(size) = expected {
            self.prefetch_for_writing(place.first, key.len(), size);
        }
        let id = self.find(key, place)?;
        if expected.is_some() {
            self.prefetch_partition(self.shape(id).partition);
        }
        self.read_value(id, value);
        if expected.is_some() {
            self.prefetch_listed(id);
        }
        Some((place, id))
    }

    pub(crate) fn set_times(&mut self, key: &[u8], deadline: u64, mark: u64) -> bool {
        let Some(id) = self.find_key(key) else { return false };
        self.set_times_at(id, deadline, mark);
        true
    }

    pub(crate) fn change_mark(&mut self, key: &[u8], change: impl FnOnce(u64) -> u64) -> bool {
        let Some(id) = self.find_key(key) else { return false };
        let at = self.table.geometry().record(id) + MARK;
        self.table.words().store(at, change(self.table.words().load(at)));
        true
    }

    pub(crate) fn set_times_at(&mut self, id: RecordId, deadline: u64, mark: u64) {
        let record = self.table.geometry().record(id);
        self.table.words().store(record + DEADLINE, deadline);
        self.table.words().store(record + MARK, mark);
        self.wheel.file(&mut self.records, id.number() as u32, deadline);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some(id) = self.find_key(key) else { return false };
        self.remove_record(id);
        true
    }

    #[inline]
    pub(crate) fn partition_len(&self, partition: u16) -> usize {
        self.partitions.get(usize::from(partition)).map_or(0, Vec::len)
    }

    pub(crate) fn partition_keys(&self, partition: u16, visit: &mut dyn FnMut(ScanItem<'_>)) {
        let Some(records) = self.partitions.get(usize::from(partition)) else { return };
        let mut key = Vec::new();
        for (at, &number) in records.iter().enumerate() {
            if let Some(&ahead) = records.get(at + AHEAD) {
                self.prefetch_record(ahead, KEY_LINES);
            }
            self.visit(RecordId::from_number(number as usize), &mut key, visit);
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
        while bucket < self.lines.len() {
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
        if bucket >= self.lines.len() { 0 } else { bucket as u64 }
    }

    pub(crate) fn remove_expired(
        &mut self,
        now_hybrid_ms: u64,
        budget: usize,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> bool,
    ) -> usize {
        let (mut removed, mut buffers) = (0, Default::default());
        let mut waiting = self.wheel.waiting();
        for _ in 0..budget {
            let Some(number) = waiting.or_else(|| self.wheel.due(now_hybrid_ms)) else { break };
            let has_gone = self.settle(number, now_hybrid_ms, &mut buffers, &mut |item| {
                if decide(item) { Fate::Goes } else { Fate::Stays { until_ms: 0 } }
            });
            removed += usize::from(has_gone);
            waiting = waiting.and_then(|_| self.wheel.waiting());
        }
        removed
    }

    pub(crate) fn settle_expired(
        &mut self,
        now_hybrid_ms: u64,
        budget: usize,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> Fate,
    ) -> usize {
        let (mut removed, mut buffers) = (0, Default::default());
        for _ in 0..budget {
            let Some(number) = self.wheel.due(now_hybrid_ms) else { break };
            removed += usize::from(self.settle(number, now_hybrid_ms, &mut buffers, decide));
        }
        removed
    }

    /// Offers a record whose time seems to have come, if it has, and files it anew unless it goes. Returns whether it went.
    fn settle(
        &mut self,
        number: u32,
        now_hybrid_ms: u64,
        (key, value): &mut (Vec<u8>, Vec<u8>),
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> Fate,
    ) -> bool {
        let id = RecordId::from_number(number as usize);
        let Found { partition, deadline, mark } = self.found(id);
        if deadline != 0 && deadline <= now_hybrid_ms {
            self.read_key(id, key);
            self.read_value(id, value);
            let item = ExpiredItem { key, value, partition, deadline, mark };
            match decide(item) {
                Fate::Goes => {
                    self.remove_record(id);
                    return true;
                }
                Fate::Stays { until_ms } if until_ms > now_hybrid_ms => {
                    self.wheel.wait(&mut self.records, number, until_ms);
                    return false;
                }
                Fate::Stays { .. } => {}
            }
        }
        self.wheel.file_later(&mut self.records, number, deadline, now_hybrid_ms);
        false
    }

    pub(crate) fn make_room(
        &mut self,
        needed: usize,
        now_hybrid_ms: u64,
        heat: &dyn Fn(u64) -> u64,
        decide: &mut dyn FnMut(ExpiredItem<'_>) -> bool,
    ) -> usize {
        let expired = self.remove_expired(now_hybrid_ms, EXPIRED_STEP, decide);
        let (records, mut near) = (self.near_records, 0);
        // Not all that go are where they are of use. Those beyond are for others, who stand in the reserve.
        let most = NEAR_PART * needed + self.reserve_used().min(NEAR_STEP);
        // One goes in any case, if nothing did: there may be room, but not in the lines where it was looked for.
        while (expired + near == 0 || !self.has_room(needed))
            && records - self.near_records < most
            && self.drop_coolest_near(heat)
        {
            near += 1;
        }
        expired + near
    }

    /// Whether a new entry that takes so many records, its blocks among them, may have them without the reserve.
    fn has_room(&self, needed: usize) -> bool {
        self.taken() + needed <= self.table.geometry().ordinary()
            && (needed == 1 || needed <= self.room_for_blocks() + 1)
    }

    /// How many records new entries may take for blocks: some that could be had are left, or each would be searched for in
    /// many lines.
    fn room_for_blocks(&self) -> usize {
        self.spare.saturating_sub(self.lines.len() / SPARSE)
    }

    /// Drops the coolest of some near copies. Returns whether there were any.
    fn drop_coolest_near(&mut self, heat: &dyn Fn(u64) -> u64) -> bool {
        if self.near_entries == 0 {
            return false;
        }
        let mut sample = Vec::with_capacity(SAMPLE);
        self.sample(SAMPLE, |core, bucket| core.lines[bucket].near, |id, _| sample.push(id));
        let coolest = sample.into_iter().min_by_key(|&id| heat(self.found(id).mark));
        let coolest = coolest.expect("there are near copies, and all lines were looked at");
        self.remove_record(coolest);
        true
    }

    pub(crate) fn sample_homes(&mut self, count: usize, visit: &mut dyn FnMut(ScanItem<'_>)) {
        let mut key = Vec::new();
        let homes = |core: &Self, bucket: usize| {
            core.lines[bucket].header.valid() & !core.lines[bucket].near
        };
        self.sample(count, homes, |id, core| core.visit(id, &mut key, visit));
    }

    /// Visits about `count` of the ways that `of` gives for each line, going on where the last call ended. Neighbours
    /// in the table have nothing in common but their hash, so that any run of lines is a random sample.
    fn sample(
        &mut self,
        count: usize,
        of: impl Fn(&Self, usize) -> u32,
        mut visit: impl FnMut(RecordId, &Self),
    ) {
        let mut left = count;
        for _ in 0..self.lines.len() {
            let bucket = self.hand;
            self.hand = (self.hand + 1) % self.lines.len();
            for way in ones(of(self, bucket)) {
                visit(RecordId { bucket, way }, self);
                left = left.saturating_sub(1);
            }
            if left == 0 {
                break;
            }
        }
    }

    /// The mark of the record that a reader says it used, if that is still the same key's.
    pub(crate) fn used(&self, used: Used) -> Option<RecordId> {
        let number = used.record() as usize;
        let id = RecordId::from_number(number);
        let is_it = number < self.records.len()
            && self.lines[id.bucket].header.is_valid(id.way)
            && self.table.line(id.bucket).tagged(used.tag()) >> id.way & 1 == 1;
        is_it.then_some(id)
    }

    pub(crate) fn visit_used(&self, used: Used, visit: &mut dyn FnMut(ScanItem<'_>)) {
        if let Some(id) = self.used(used) {
            self.visit(id, &mut Vec::new(), visit);
        }
    }

    pub(crate) fn verify(&mut self, cursor: u64, budget: usize) -> Verified {
        let (mut checked, mut dropped) = (0, 0);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut bucket = usize::try_from(cursor).unwrap_or(usize::MAX);
        while bucket < self.lines.len() {
            if self.table.header(bucket) != self.lines[bucket].header {
                let header = self.lines[bucket].header;
                self.publish(bucket, header.valid(), header.overflow());
            }
            for id in self.live(bucket) {
                checked += 1;
                if !self.is_sound(id, &mut key, &mut value) {
                    self.remove_record(id);
                    dropped += 1;
                }
            }
            bucket += 1;
            if checked >= budget {
                break;
            }
        }
        Verified {
            next: if bucket >= self.lines.len() { 0 } else { bucket as u64 },
            checked,
            dropped,
        }
    }

    /// As [`verify`](Self::verify), of one partition; shows the sound entries to `visit`, with their values.
    pub(crate) fn verify_partition(
        &mut self,
        partition: u16,
        visit: &mut dyn FnMut(WholeItem<'_>),
    ) -> Verified {
        let (mut checked, mut dropped) = (0, 0);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        // From the end: what is dropped is replaced by the last one, which was checked before.
        for at in (0..self.partition_len(partition)).rev() {
            let records = &self.partitions[usize::from(partition)];
            let number = records[at];
            if let Some(ahead) = at.checked_sub(AHEAD) {
                let id = self.prefetch_record(records[ahead], PREFETCHED_LINES);
                self.table.words().prefetch(self.table.geometry().line(id.bucket));
            }
            let id = RecordId::from_number(number as usize);
            checked += 1;
            if self.is_sound(id, &mut key, &mut value) {
                let mark = self.found(id).mark;
                visit(WholeItem { key: &key, value: &value, mark });
            } else {
                self.remove_record(id);
                dropped += 1;
            }
        }
        Verified { next: 0, checked, dropped }
    }

    /// Asks for a record's first lines, and for what is known of it: records of a partition lie anywhere.
    fn prefetch_record(&self, number: u32, lines: usize) -> RecordId {
        let id = RecordId::from_number(number as usize);
        prefetch_for_writing(&self.records[id.number()]);
        prefetch_for_writing(&self.lines[id.bucket]);
        let (words, geometry) = (self.table.words(), self.table.geometry());
        for line in 0..lines.min(geometry.record_words.div_ceil(LINE_WORDS)) {
            words.prefetch(geometry.record(id) + line * LINE_WORDS);
        }
        id
    }

    pub(crate) fn stats(&self) -> TableStats {
        let geometry = self.table.geometry();
        let room = geometry.ordinary().saturating_sub(self.taken());
        TableStats {
            entries: self.entries,
            near_entries: self.near_entries,
            near_records: self.near_records,
            blocks: self.blocks,
            capacity_records: geometry.records_count(),
            reserve_records: geometry.reserve(),
            reserve_used: self.reserve_used(),
            room: if self.blocks == 0 { room } else { room.min(self.room_for_blocks()) },
            bytes_live: self.bytes_live,
            segment_bytes: geometry.shard_bytes(),
            load: self.taken() as f64 / geometry.records_count() as f64,
        }
    }

    pub(crate) fn set_freshness(&mut self, partition: u16, until_monotonic_ms: u64) {
        // Pairs with the first acquire fence in `end_copy`.
        self.table.words().release();
        self.table
            .words()
            .store(self.table.geometry().freshness + usize::from(partition), until_monotonic_ms);
    }

    #[inline]
    pub(crate) fn freshness(&self, partition: u16) -> u64 {
        self.table.words().load(self.table.geometry().freshness + usize::from(partition))
    }
}

// Finding and reading. Sizes come from private memory; keys, values and chains from the segment, walked with care.
impl<W: Words> Core<W> {
    fn find_key(&self, key: &[u8]) -> Option<RecordId> {
        if key.is_empty() || key.len() > KEY_MAX {
            return None;
        }
        self.find(key, self.table.geometry().place(self.table.hash(key)))
    }

    fn find(&self, key: &[u8], place: Place) -> Option<RecordId> {
        let first = self.find_in(place.first, key, place.tag);
        if first.is_some() || self.lines[place.first].spilled == 0 {
            return first;
        }
        self.find_in(self.table.geometry().second(place), key, place.tag)
    }

    pub(crate) fn find_in(&self, bucket: usize, key: &[u8], tag: u16) -> Option<RecordId> {
        let mut ways = self.table.line(bucket).tagged(tag) & self.lines[bucket].header.valid();
        while ways != 0 {
            let id = RecordId { bucket, way: ways.trailing_zeros() as usize };
            ways &= ways - 1;
            if usize::from(self.records[id.number()].sizes as u8) == key.len()
                && self.has_key(id, key)
            {
                return Some(id);
            }
        }
        None
    }

    /// Whether a record, whose key has this length, has this key.
    fn has_key(&self, id: RecordId, key: &[u8]) -> bool {
        let record = self.table.record(id);
        // The last word may be a link.
        if key.len().div_ceil(8) < record.inline.count() {
            return record.inline.begins_with(key);
        }
        self.table.walk(id, self.shape(id)).equal(key) == Some(true)
    }

    fn live(&self, bucket: usize) -> impl Iterator<Item = RecordId> + use<W> {
        ones(self.lines[bucket].header.valid()).map(move |way| RecordId { bucket, way })
    }

    /// What is known of a record without looking at the segment.
    pub(super) fn shape(&self, id: RecordId) -> RecordShape {
        let known = &self.records[id.number()];
        RecordShape {
            key_size: known.sizes as u8,
            partition: known.partition & !Known::SECOND,
            second: known.partition & Known::SECOND != 0,
            near: self.lines[id.bucket].near >> id.way & 1 == 1,
            value_size: known.sizes >> 8,
        }
    }

    pub(crate) fn found(&self, id: RecordId) -> Found {
        let record = self.table.geometry().record(id);
        Found {
            partition: self.shape(id).partition,
            deadline: self.table.words().load(record + DEADLINE),
            mark: self.table.words().load(record + MARK),
        }
    }

    fn visit(&self, id: RecordId, key: &mut Vec<u8>, visit: &mut dyn FnMut(ScanItem<'_>)) {
        self.read_key(id, key);
        let Found { partition, deadline, mark } = self.found(id);
        let RecordShape { value_size, near, .. } = self.shape(id);
        let value_size = value_size as usize;
        visit(ScanItem { key, partition, deadline, mark, value_size, near });
    }

    fn read_key(&self, id: RecordId, key: &mut Vec<u8>) {
        let shape = self.shape(id);
        // A chain that somebody else broke gives a part of it; `verify` drops the record.
        let _ = self.table.walk(id, shape).copy(shape.key_size.into(), key);
    }

    fn read_value(&self, id: RecordId, value: &mut Vec<u8>) {
        let shape = self.shape(id);
        let inline = self.table.record(id).inline;
        let (key_words, size) =
            (usize::from(shape.key_size).div_ceil(8), shape.value_size as usize);
        if key_words + size.div_ceil(8) <= inline.count() {
            let mut room = value.room(size).expect("a vector grows");
            inline.after(key_words).read(size, &mut room);
            let filled = room.done();
            return value.keep(filled);
        }
        value.clear();
        let mut walk = self.table.walk(id, shape);
        // As above.
        let _ = walk
            .skip_key(shape.key_size.into())
            .and_then(|()| walk.copy(shape.value_size as usize, value));
    }

    /// Whether a record is what it was, where its key says it is, and the only one of its key.
    fn is_sound(&self, id: RecordId, key: &mut Vec<u8>, value: &mut Vec<u8>) -> bool {
        self.read_key(id, key);
        self.read_value(id, value);
        let shape = self.shape(id);
        let record = self.table.geometry().record(id);
        let stamp = self.table.words().load(record + STAMP);
        let key_hash = self.table.hash(key);
        let place = self.table.geometry().place(key_hash);
        let line = if shape.second { self.table.geometry().second(place) } else { place.first };
        stamp & 1 == 0
            && self.table.words().load(record + SHAPE) == shape.pack()
            && stamp >> 32 == Table::<W>::checksum(key_hash, shape, value)
            && id.bucket == line
            && self.find(key, place) == Some(id)
    }
}

// Changing.
impl<W: Words> Core<W> {
    /// A line of this place with two free ways, of which an insertion may take one. Moves entries if it must, or blocks.
    fn line_with_room(&mut self, place: Place) -> Option<usize> {
        let lines = [place.first, self.table.geometry().second(place)];
        let is_roomy = |core: &Self, bucket: usize| core.lines[bucket].free_ways() >= 2;
        if let Some(bucket) = lines.into_iter().find(|&bucket| is_roomy(self, bucket)) {
            return Some(bucket);
        }
        self.move_entries(lines).or_else(|| self.move_blocks(lines))
    }

    /// Frees a way of one of these lines, both full, by writing an entry anew that has a block there, as an update would: the one with
    /// the fewest. Returns the line.
    fn move_blocks(&mut self, lines: [usize; 2]) -> Option<usize> {
        let free = self.table.geometry().capacity() - self.taken();
        let blocks = lines.into_iter().flat_map(|bucket| {
            ones(self.lines[bucket].blocks).map(move |way| RecordId { bucket, way })
        });
        let owners = blocks.map(|block| {
            let owner = self.records[block.number()].place;
            let shape = self.shape(RecordId::from_number(owner as usize));
            (self.records_of(shape) - 1, block.bucket, owner)
        });
        let mut owners: Vec<_> = owners.filter(|(needed, ..)| *needed <= free).collect();
        owners.sort_unstable();
        owners.dedup();
        let moved = owners.into_iter().find(|&(needed, bucket, owner)| {
            self.write_anew(RecordId::from_number(owner as usize), needed, bucket)
        });
        moved.map(|(_, bucket, _)| bucket)
    }

    /// Writes an entry anew with so many blocks, for which there is room, none of them in a line that is full. Returns whether it was sound.
    fn write_anew(&mut self, id: RecordId, needed: usize, full: usize) -> bool {
        let shape = self.shape(id);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let is_whole = self.is_sound(id, &mut key, &mut value)
            && (key.len(), value.len()) == (shape.key_size.into(), shape.value_size as usize);
        if !is_whole {
            return false;
        }
        let Found { deadline, mark, .. } = self.found(id);
        let place = self.table.geometry().place(self.table.hash(&key));
        let checksum = self.table.words().load(self.table.geometry().record(id) + STAMP) >> 32;
        let chain = self.take_blocks(needed, Some(full), FREE_IN_NEED);
        self.place_record(
            (&key, place),
            Some(id),
            (id.bucket, shape),
            (&value, checksum),
            (deadline, mark),
            &chain,
        );
        true
    }

    /// Moves an entry out of one of these lines, both full, and others to make room for it, if there is a way.
    fn move_entries(&mut self, lines: [usize; 2]) -> Option<usize> {
        // Breadth first, over lines: whose entry has its other line where? (Cuckoo hashing with buckets.)
        struct Step {
            bucket: usize,
            /// The step before, and the entry of its line that can move here.
            from: Option<(usize, RecordId)>,
        }
        let mut steps = Vec::from(lines.map(|bucket| Step { bucket, from: None }));
        let mut key = Vec::new();
        let mut at = 0;
        while at < steps.len().min(SEARCH_LINES) {
            for id in self.live(steps[at].bucket) {
                let Some(other) = self.other_line(id, &mut key) else { continue };
                if steps.iter().any(|step| step.bucket == other) {
                    continue;
                }
                steps.push(Step { bucket: other, from: Some((at, id)) });
                if self.lines[other].free_ways() >= 2 {
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

    /// The line where an entry could be too; `None` if its key was damaged.
    fn other_line(&self, id: RecordId, key: &mut Vec<u8>) -> Option<usize> {
        self.read_key(id, key);
        let place = self.table.geometry().place(self.table.hash(key));
        let (here, other) = match self.shape(id).second {
            false => (place.first, self.table.geometry().second(place)),
            true => (self.table.geometry().second(place), place.first),
        };
        (here == id.bucket).then_some(other)
    }

    /// Moves an entry to its other line, which has two free ways. Readers find it in one or the other at any time.
    pub(crate) fn relocate(&mut self, from: RecordId, bucket: usize) {
        let mut key = Vec::new();
        self.read_key(from, &mut key);
        let place = self.table.geometry().place(self.table.hash(&key));
        let to =
            RecordId { bucket, way: self.lines[bucket].free_way().expect("the caller looked") };
        let old = self.shape(from);
        let shape = RecordShape { second: bucket == self.table.geometry().second(place), ..old };
        debug_assert!(old.second != shape.second, "to its other line");
        // For a successor, should this process be killed while the entry is in both.
        let words = self.table.words();
        words.store(word!(moving), (from.number() as u64) << 32 | to.number() as u64);
        self.table.copy_record(from, to, shape);
        self.table.set_tag(to, place.tag);
        if shape.second {
            self.spill(place.first);
        }
        self.flip(to.bucket, 1 << to.way, 0);
        self.flip(from.bucket, 0, 1 << from.way);
        self.table.words().release();
        self.table.words().store(word!(moving), 0);
        self.table.retire_record(from);
        if old.second {
            self.unspill(place.first);
        }
        // The chain is the new record's from now on: nothing of it is free.
        let chain = self.records[from.number()].chain;
        let mut block = chain;
        while block != NONE {
            let known = &mut self.records[block as usize];
            known.place = to.number() as u32;
            block = known.chain;
        }
        self.unlink(from, old);
        self.link(to, shape, self.found(to).deadline, chain);
    }

    /// Removes a record.
    pub(super) fn remove_record(&mut self, id: RecordId) {
        let shape = self.shape(id);
        self.flip(id.bucket, 0, 1 << id.way);
        self.table.retire_record(id);
        if shape.second {
            // A key that was damaged may name another line, whose count is then one too low: a line may be looked at
            // in vain, or not at all, and entries that are not found come back from other homes.
            let mut key = Vec::new();
            self.read_key(id, &mut key);
            let place = self.table.geometry().place(self.table.hash(&key));
            if self.table.geometry().second(place) == id.bucket {
                self.unspill(place.first);
            }
        }
        self.forget(id);
        self.publish_counters();
    }

    /// Counts one more entry of `first` in its second line.
    fn spill(&mut self, first: usize) {
        self.lines[first].spilled += 1;
        if !self.lines[first].header.overflow() {
            self.publish(first, self.lines[first].header.valid(), true);
        }
    }

    fn unspill(&mut self, first: usize) {
        self.lines[first].spilled = self.lines[first].spilled.saturating_sub(1);
        if self.lines[first].spilled == 0 && self.lines[first].header.overflow() {
            self.publish(first, self.lines[first].header.valid(), false);
        }
    }

    fn flip(&mut self, bucket: usize, set: u32, clear: u32) {
        let header = self.lines[bucket].header;
        debug_assert!(header.valid() & set == 0 && header.valid() & clear == clear);
        self.publish(bucket, header.valid() & !clear | set, header.overflow());
    }

    pub(super) fn publish(&mut self, bucket: usize, valid: u32, overflow: bool) {
        let header = self.lines[bucket].header.next(valid, overflow);
        debug_assert!(valid & self.lines[bucket].blocks == 0, "a block is no entry");
        self.table.publish(bucket, header);
        self.set_line(bucket, |line| line.header = header);
        debug_assert!(self.lines[bucket].free_ways() >= 1, "every line keeps a free way");
    }

    /// Changes what is known of a line, and what follows from it.
    pub(super) fn set_line(&mut self, bucket: usize, change: impl FnOnce(&mut KnownLine)) {
        let line = &mut self.lines[bucket];
        self.spare -= line.spare();
        change(line);
        self.spare += line.spare();
    }

    /// Takes a record and its chain into the books.
    pub(super) fn adopt(&mut self, id: RecordId, shape: RecordShape, deadline: u64, chain: &[u32]) {
        let chain = self.thread(id, chain);
        self.link(id, shape, deadline, chain);
    }

    /// Takes a record and its chain into the books, but for the lists: [`list_all`](Self::list_all) makes these.
    ///
    /// `place` counts the records of the partition that were noted before.
    pub(super) fn note(&mut self, id: RecordId, shape: RecordShape, chain: &[u32], place: u32) {
        let chain = self.thread(id, chain);
        self.records[id.number()] = Known::new(place, shape, chain);
        self.count(id, shape);
    }

    /// Makes the lists of all records that were noted, so many of each partition: those of the partitions by a counting
    /// sort, since a million records taken in one by one would wait for memory a million times; and the wheel's.
    pub(super) fn list_all(&mut self, of_partition: &[u32], deadlines: &[(u32, u64)]) {
        let mut starts = Vec::with_capacity(of_partition.len());
        let mut end = 0;
        for &count in of_partition {
            starts.push(end as usize);
            end += count;
        }
        let mut sorted = filled_on_large_pages(0u32, end as usize);
        let rank = |known: &Known| {
            starts[usize::from(known.partition & !Known::SECOND)] + known.place as usize
        };
        for bucket in 0..self.lines.len() {
            for id in self.live(bucket) {
                sorted[rank(&self.records[id.number()])] = id.number() as u32;
            }
        }
        let lists = starts.iter().zip(of_partition);
        let list = |(&start, &count): (&usize, &u32)| sorted[start..][..count as usize].to_vec();
        self.partitions = lists.map(list).collect();
        self.wheel.file_all(&mut self.records, deadlines);
    }

    /// Takes a record and its chain out of the books. Its way is invalid by now, or the blocks could be reused
    /// under a reader that has no way to tell.
    pub(super) fn forget(&mut self, id: RecordId) {
        self.unlink(id, self.shape(id));
        self.free_chain(self.records[id.number()].chain);
    }

    /// Puts a record and its chain into the books in place of the one before it, which is forgotten: less to change
    /// than to take out the one and in the other.
    fn succeed(
        &mut self,
        old: RecordId,
        new: RecordId,
        shape: RecordShape,
        deadline: u64,
        chain: &[u32],
    ) {
        let before = self.shape(old);
        if before.partition != shape.partition {
            self.adopt(new, shape, deadline, chain);
            return self.forget(old);
        }
        let chain = self.thread(new, chain);
        let (from, to) = (old.number() as u32, new.number() as u32);
        let Known { place, chain: old_chain, .. } = self.records[old.number()];
        self.partitions[usize::from(shape.partition)][place as usize] = to;
        self.records[new.number()] = Known::new(place, shape, chain);
        self.wheel.replace(&mut self.records, from, to, deadline);
        self.count(new, shape);
        self.uncount(old, before);
        self.free_chain(old_chain);
    }

    /// Links the blocks of a record's chain, and returns the first.
    fn thread(&mut self, id: RecordId, chain: &[u32]) -> u32 {
        for (at, &block) in chain.iter().enumerate() {
            let known = &mut self.records[block as usize];
            known.chain = chain.get(at + 1).copied().unwrap_or(NONE);
            known.place = id.number() as u32;
        }
        chain.first().copied().unwrap_or(NONE)
    }

    fn free_chain(&mut self, mut block: u32) {
        while block != NONE {
            let RecordId { bucket, way } = RecordId::from_number(block as usize);
            self.set_line(bucket, |line| line.blocks &= !(1 << way));
            self.blocks -= 1;
            block = self.records[block as usize].chain;
        }
    }

    fn link(&mut self, id: RecordId, shape: RecordShape, deadline: u64, chain: u32) {
        let number = id.number() as u32;
        let partition = usize::from(shape.partition);
        if partition >= self.partitions.len() {
            self.partitions.resize_with(partition + 1, Vec::new);
        }
        let records = &mut self.partitions[partition];
        self.records[id.number()] = Known::new(records.len() as u32, shape, chain);
        records.push(number);
        self.wheel.file(&mut self.records, number, deadline);
        self.count(id, shape);
    }

    fn unlink(&mut self, id: RecordId, shape: RecordShape) {
        self.wheel.unfile(&mut self.records, id.number() as u32);
        let place = self.records[id.number()].place;
        let records = &mut self.partitions[usize::from(shape.partition)];
        records.swap_remove(place as usize);
        if let Some(&moved) = records.get(place as usize) {
            self.records[moved as usize].place = place;
        }
        self.uncount(id, shape);
    }

    fn count(&mut self, id: RecordId, shape: RecordShape) {
        self.entries += 1;
        self.bytes_live += shape.bytes();
        if shape.near {
            self.lines[id.bucket].near |= 1 << id.way;
            self.near_entries += 1;
            self.near_records += self.records_of(shape);
        }
    }

    fn uncount(&mut self, id: RecordId, shape: RecordShape) {
        self.entries -= 1;
        self.bytes_live -= shape.bytes();
        if shape.near {
            self.lines[id.bucket].near &= !(1 << id.way);
            self.near_entries -= 1;
            self.near_records -= self.records_of(shape);
        }
    }

    /// Records that an entry takes, its blocks among them.
    fn records_of(&self, shape: RecordShape) -> usize {
        self.records_for(shape.key_size.into(), shape.value_size as usize)
    }

    pub(super) fn publish_counters(&self) {
        let words = self.table.words();
        words.store(word!(entries), self.entries as u64);
        words.store(word!(bytes_live), self.bytes_live);
        words.store(word!(blocks_used), self.blocks as u64);
    }

    /// Recounts everything and compares it with the books and with the segment. For tests.
    #[cfg(test)]
    pub(crate) fn audit(&self) {
        let mut used = vec![0; self.lines.len()];
        let (mut entries, mut near, mut bytes, mut blocks) = (0, (0, 0), 0, 0);
        let mut spilled = vec![0; self.lines.len()];
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for bucket in 0..self.lines.len() {
            assert_eq!(self.table.header(bucket), self.lines[bucket].header, "published header");
            assert!(self.lines[bucket].free_ways() >= 1);
            assert_eq!(self.lines[bucket].header.valid() & self.lines[bucket].blocks, 0);
            for id in self.live(bucket) {
                assert!(self.is_sound(id, &mut key, &mut value), "record {id:?}");
                let place = self.table.geometry().place(self.table.hash(&key));
                let shape = self.shape(id);
                if shape.second {
                    spilled[place.first] += 1;
                }
                if shape.near {
                    near = (near.0 + 1, near.1 + self.records_of(shape));
                }
                let mut chain = Vec::new();
                self.table.walk(id, shape).blocks(&mut chain).expect("sound");
                let mut known = self.records[id.number()].chain;
                for block in chain {
                    assert_eq!(known, block);
                    let RecordId { bucket, way } = RecordId::from_number(block as usize);
                    assert_eq!(used[bucket] >> way & 1, 0, "one owner per block");
                    used[bucket] |= 1 << way;
                    let stamp = self.words().load(self.table.geometry().block(block) + STAMP);
                    assert_eq!(stamp & 1, 1, "a block is not live");
                    assert_eq!(self.records[block as usize].place as usize, id.number());
                    known = self.records[block as usize].chain;
                    blocks += 1;
                }
                assert_eq!(known, NONE);
                entries += 1;
                bytes += shape.bytes();
            }
        }
        let counted = (self.entries, (self.near_entries, self.near_records), self.bytes_live);
        assert_eq!((entries, near, bytes), counted);
        assert_eq!(self.words().load(word!(moving)), 0);
        for (line, &count) in self.lines.iter().zip(&spilled) {
            assert_eq!(line.spilled, count);
            assert_eq!(line.header.overflow(), count > 0);
        }
        assert!(self.lines.iter().map(|line| line.blocks).eq(used));
        assert_eq!(self.blocks, blocks);
        assert_eq!(self.spare, self.lines.iter().map(KnownLine::spare).sum::<usize>());
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

/// The places of the bits that are set.
pub(super) fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (at < 32).then_some(at)
    })
}

impl Known {
    const BLANK: Self =
        Self { place: 0, filed_at: 0, filed_list: 0, partition: 0, chain: NONE, sizes: 0 };
    /// In `partition`: that the record is in its key's second line.
    const SECOND: u16 = 1 << 15;

    /// Not filed yet.
    fn new(place: u32, shape: RecordShape, chain: u32) -> Self {
        Self {
            place,
            filed_at: Filed::NOT.at,
            filed_list: Filed::NOT.list,
            partition: shape.partition | if shape.second { Self::SECOND } else { 0 },
            chain,
            sizes: shape.value_size << 8 | u32::from(shape.key_size),
        }
    }
}

const _: () = assert!(PARTITIONS <= Known::SECOND as usize);
