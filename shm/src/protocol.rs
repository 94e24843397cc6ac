//! How records are published and copied: the part of the table that several processes run at once.
//!
//! The writer's steps and the reader's, and the fences that pair, are argued in `docs/segment.md`. In short: a
//! record is written while its way is invalid and its sequence number odd; one store of the line's header makes
//! it visible and its predecessor invisible; a reader that copied a record believes the copy if, after it, the
//! way was valid and then the sequence number still the same.

use twox_hash::XxHash3_64;

use crate::layout::{
    DEADLINE, LINE_WORDS, LineHeader, MARK, NONE, Place, RECORD_HEADER, RecordId, RecordShape,
    SHAPE, STAMP, inline_words, payload_words,
};
use crate::table::{Line, Record, Table};
use crate::words::{Room, Target, Words};

/// What one try to look a key up gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The value is in the target, or its size is larger than what the target takes.
    Hit(RecordId, Copied),
    Miss,
    /// The writer was faster: try again.
    Changed,
    /// A record that may be the key's makes no sense.
    Damaged,
}

/// What a [`glance`](Table::glance) gave.
pub(crate) enum Glance {
    /// As [`Attempt::Hit`], with the value copied.
    Hit(RecordId, Copied),
    Miss,
    /// Anything else.
    Unclear,
}

/// A record's facts, copied with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The packed [`RecordShape`].
    pub(crate) shape: u64,
    pub(crate) deadline: u64,
    pub(crate) mark: u64,
    /// Until when the writer vouches for the record's partition, loaded while the record was published.
    pub(crate) fresh_until: u64,
}

/// A copy under way.
struct Begun<'w, W> {
    line: Line<'w, W>,
    record: Record<'w, W>,
    stamp: u64,
    /// The packed [`RecordShape`].
    shape: u64,
    deadline: u64,
    mark: u64,
}

/// A copy that was published as a whole at one instant after it was taken, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamped<T> {
    Valid(T),
    /// Published, but its sizes or its chain lead out of the segment.
    Malformed,
    Changed,
}

/// What a record is written from.
pub(crate) struct NewRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// As [`Table::checksum`] gives it.
    pub(crate) checksum: u64,
    pub(crate) shape: RecordShape,
    pub(crate) deadline: u64,
    pub(crate) mark: u64,
}

// What both sides use.
impl<W: Words> Table<W> {
    /// Relaxed; the caller places the fences.
    #[inline]
    pub(crate) fn header(&self, bucket: usize) -> LineHeader {
        self.line(bucket).header()
    }

    /// A walk over a record's payload: key, padded, then value. Follows the chain without believing it.
    #[inline]
    pub(crate) fn walk(&self, id: RecordId, shape: RecordShape) -> Walk<'_, W> {
        let record = self.geometry().record(id);
        let payload = payload_words(shape.key_size.into(), shape.value_size as usize);
        let inline = inline_words(self.geometry().record_words, payload);
        let beyond = payload - inline;
        let upcoming = if beyond > 0 { self.first_blocks(record) } else { [NONE; 2] };
        Walk { table: self, at: record + RECORD_HEADER, run: inline, upcoming, beyond }
    }

    /// The first two blocks of a record that has any, as its last word names them.
    #[inline]
    fn first_blocks(&self, record: usize) -> [u32; 2] {
        let link = self.words().load(record + self.geometry().record_words - 1);
        [link as u32, (link >> 32) as u32]
    }

    /// The checksum of a record's immutable parts, 32 bits.
    pub(crate) fn checksum(key_hash: u64, shape: RecordShape, value: &[u8]) -> u64 {
        let seed = key_hash ^ shape.lasting().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        XxHash3_64::oneshot_with_seed(seed, value) >> 32
    }
}

// The reader's side.
impl<W: Words> Table<W> {
    /// Looks a key with this hash up once, where all is as it mostly is: the first way with its fingerprint, in its first
    /// line or else its second, has the key; or it has no second line and no way of the first has its fingerprint.
    /// Otherwise it is unclear, and [`attempt`](Self::attempt) tells.
    ///
    /// Short on purpose: a processor has a few hundred instructions under way at once, and the fewer of them one lookup
    /// is, the earlier the next begins to wait for memory.
    #[inline(always)]
    pub(crate) fn glance(&self, key: &[u8], key_hash: u64, value: &mut impl Target) -> Glance {
        let place = self.geometry().place(key_hash);
        let line = self.line(place.first);
        let header = line.header();
        self.words().acquire(); // As in `attempt`.
        let mut bucket = place.first;
        let mut ways = line.tagged(place.tag) & header.valid();
        if ways == 0 && header.overflow() {
            // Of every eight keys in a nearly full table one is in its second line.
            bucket = self.geometry().second(place);
            let line = self.line(bucket);
            let header = line.header();
            self.words().acquire(); // As in `attempt`.
            ways = line.tagged(place.tag) & header.valid();
        }
        if ways != 0 {
            let id = RecordId { bucket, way: ways.trailing_zeros() as usize };
            return match self.copy_if_key(id, key, value) {
                Some(copied) => Glance::Hit(id, copied),
                None => Glance::Unclear,
            };
        }
        self.words().acquire(); // As in `not_found`.
        if header.overflow() || line.header() != header { Glance::Unclear } else { Glance::Miss }
    }

    /// Copies a record's value if the record is this key's, and the key does not reach its last word, which may be a
    /// link; if the value fits the target; and if the copy is good. Says nothing otherwise.
    #[inline(always)]
    fn copy_if_key(&self, id: RecordId, key: &[u8], value: &mut impl Target) -> Option<Copied> {
        let begun = self.begin_copy(id)?;
        let inline = &begun.record.inline;
        let size = RecordShape::value_size_of(begun.shape);
        let key_words = key.len().div_ceil(8);
        if !RecordShape::has_key_of(begun.shape, key.len())
            || size > self.geometry().shape.max_value as usize
            || key_words >= inline.count()
            || !inline.begins_with(key)
        {
            return None;
        }
        let beside = inline.after(key_words);
        if size <= beside.bytes() {
            let mut room = value.room(size)?;
            beside.read(size, &mut room);
            let filled = room.done();
            value.keep(filled);
        } else {
            self.copy_chained(id, begun.shape, value)?;
        }
        self.end_copy(id, &begun)
    }

    /// Copies a value that goes on in blocks. `None`: it does not fit the target, or the record makes no sense.
    #[inline(never)]
    fn copy_chained(&self, id: RecordId, shape: u64, value: &mut impl Target) -> Option<()> {
        let shape = RecordShape::unpack(shape, self.geometry().shape.max_value)?;
        let mut walk = self.walk(id, shape);
        walk.ask_for_first();
        walk.skip_key(shape.key_size.into())?;
        walk.copy(shape.value_size as usize, value)
    }

    /// Looks a key with this hash up once. After a hit `value` holds the value, after anything else it may hold
    /// rubbish.
    #[inline(never)]
    pub(crate) fn attempt(&self, key: &[u8], key_hash: u64, value: &mut impl Target) -> Attempt {
        let place = self.geometry().place(key_hash);
        let first = self.header(place.first);
        // Pairs with the release fence in `publish`: who sees a way valid sees its fingerprint and record, and who
        // sees a key gone from its first line sees it in its second.
        self.words().acquire();
        let mut damaged = false;
        let found = self.try_line(place.first, first, key, place.tag, value, &mut damaged);
        if let Some(attempt) = found {
            return attempt;
        }
        if !first.overflow() {
            return self.not_found(place, first, None, damaged);
        }
        let line = self.geometry().second(place);
        let second = self.header(line);
        self.words().acquire(); // As above.
        let found = self.try_line(line, second, key, place.tag, value, &mut damaged);
        found.unwrap_or_else(|| self.not_found(place, first, Some(second), damaged))
    }

    /// Nothing was found in what these lines held when their headers were read; that is an answer only if neither
    /// changed meanwhile.
    fn not_found(
        &self,
        place: Place,
        first: LineHeader,
        second: Option<LineHeader>,
        damaged: bool,
    ) -> Attempt {
        // Pairs with the release fences of the writer: who read anything that was stored after a flip sees the flip
        // here.
        self.words().acquire();
        if self.header(place.first) != first
            || second.is_some_and(|header| self.header(self.geometry().second(place)) != header)
        {
            Attempt::Changed
        } else if damaged {
            Attempt::Damaged
        } else {
            Attempt::Miss
        }
    }

    /// Looks a key up in one line. `None`: it is not there.
    fn try_line(
        &self,
        bucket: usize,
        header: LineHeader,
        key: &[u8],
        tag: u16,
        value: &mut impl Target,
        damaged: &mut bool,
    ) -> Option<Attempt> {
        let mut ways = self.line(bucket).tagged(tag) & header.valid();
        while ways != 0 {
            let id = RecordId { bucket, way: ways.trailing_zeros() as usize };
            ways &= ways - 1;
            let Some(begun) = self.begin_copy(id) else { return Some(Attempt::Changed) };
            let is_key = self.copy_value(id, begun.shape, key, value);
            let Some(copied) = self.end_copy(id, &begun) else { return Some(Attempt::Changed) };
            match is_key {
                Some(true) => return Some(Attempt::Hit(id, copied)),
                Some(false) => {}
                None => *damaged = true,
            }
        }
        None
    }

    /// Copies a record's value if it is this key's, and says whether it is. `None`: the record makes no sense.
    fn copy_value(
        &self,
        id: RecordId,
        shape: u64,
        key: &[u8],
        value: &mut impl Target,
    ) -> Option<bool> {
        let shape = RecordShape::unpack(shape, self.geometry().shape.max_value)?;
        if usize::from(shape.key_size) != key.len() {
            return Some(false);
        }
        let mut walk = self.walk(id, shape);
        walk.ask_for_first();
        if !walk.equal(key)? {
            return Some(false);
        }
        let size = shape.value_size as usize;
        if let Some(mut room) = value.room(size) {
            walk.read(size, &mut room)?;
            let filled = room.done();
            value.keep(filled);
        }
        Some(true)
    }

    /// Copies something out of a record by `copy`, which is handed the packed [`RecordShape`], not to be believed, and
    /// returns `None` where the record makes no sense.
    pub(crate) fn stamped<T>(
        &self,
        id: RecordId,
        copy: impl FnOnce(u64) -> Option<T>,
    ) -> Stamped<(T, Copied)> {
        let Some(begun) = self.begin_copy(id) else { return Stamped::Changed };
        let result = copy(begun.shape);
        let Some(copied) = self.end_copy(id, &begun) else { return Stamped::Changed };
        result.map_or(Stamped::Malformed, |result| Stamped::Valid((result, copied)))
    }

    /// Begins a copy of a record: what is loaded from here on is worth something if [`end_copy`](Self::end_copy) says so.
    /// `None`: it is not live.
    #[inline(always)]
    fn begin_copy(&self, id: RecordId) -> Option<Begun<'_, W>> {
        let (line, record) = (self.line(id.bucket), self.record(id));
        let stamp = record.header.load::<STAMP>();
        if stamp & 1 == 1 {
            return None;
        }
        // Pairs with the second release fence in `write_record`: an even number comes with all of its record.
        self.words().acquire();
        let (deadline, mark) = (record.header.load::<DEADLINE>(), record.header.load::<MARK>());
        let shape = record.header.load::<SHAPE>();
        Some(Begun { line, record, stamp, shape, deadline, mark })
    }

    /// Ends a copy, after all of it was loaded. `None`: the record was not published as it was copied.
    #[inline(always)]
    fn end_copy(&self, id: RecordId, begun: &Begun<'_, W>) -> Option<Copied> {
        let fresh_until = self.fresh_until(RecordShape::partition_of(begun.shape));
        // Pairs with the first release fence in `write_record`: who copied a word of a later record, or of a later
        // owner of a block, sees here that the way was invalid, or below that the number moved on. It pairs too with
        // the one in `set_freshness`: what the writer had applied when it vouched for the partition is seen below,
        // and if that ended this record, then the way is invalid.
        self.words().acquire();
        if !begun.line.header().is_valid(id.way) {
            return None;
        }
        // Pairs with the release fence in `publish`: who saw the way valid for a later record sees its number. So
        // this order (way, then number) tells that the way was valid *for this number*.
        self.words().acquire();
        let Begun { shape, deadline, mark, stamp, .. } = *begun;
        let copied = Copied { shape, deadline, mark, fresh_until };
        (begun.record.header.load::<STAMP>() == stamp).then_some(copied)
    }

    /// Asks for the memory that a lookup of this hash will begin with.
    #[inline]
    pub(crate) fn prefetch_line(&self, key_hash: u64) {
        let place = self.geometry().place(key_hash);
        self.words().prefetch(self.geometry().line(place.first));
    }

    /// Asks for the records that may be the key's, as far as the line is there.
    #[inline]
    pub(crate) fn prefetch_records(&self, key_hash: u64) {
        let place = self.geometry().place(key_hash);
        let line = self.line(place.first);
        let header = line.header();
        let mut ways = line.tagged(place.tag) & header.valid();
        if ways == 0 && header.overflow() {
            // Its second line: rare, and then half of the gain is gone.
            self.words().prefetch(self.geometry().line(self.geometry().second(place)));
        }
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            ways &= ways - 1;
            let record = self.geometry().record(RecordId { bucket: place.first, way });
            let lines = self.geometry().record_words.div_ceil(LINE_WORDS).min(PREFETCH_LINES);
            for line in 0..lines {
                self.words().prefetch(record + line * LINE_WORDS);
            }
        }
    }
}

/// Cache lines of a record that are asked for in advance: the processor follows a longer run by itself.
const PREFETCH_LINES: usize = 8;

// The writer's side. One thread of one process calls these.
impl<W: Words> Table<W> {
    /// Writes a record into an invalid way, and what does not fit into the blocks of `chain`: other records, in invalid
    /// ways, which nothing that is published uses. It stays invisible until [`publish`](Self::publish).
    pub(crate) fn write_record(&self, id: RecordId, new: &NewRecord<'_>, chain: &[u32]) {
        let record = self.geometry().record(id);
        // After the fence that followed the flip by which these records became free (`retire_record`).
        for (at, &block) in chain.iter().enumerate() {
            let block = self.geometry().block(block);
            let odd = next_odd(self.words().load(block + STAMP));
            let link = chain.get(at + 2).copied().unwrap_or(NONE);
            self.words().store(block + STAMP, odd | u64::from(link) << 32);
        }
        let odd = self.open_record(record);
        self.words().store(record + DEADLINE, new.deadline);
        self.words().store(record + MARK, new.mark);
        self.words().store(record + SHAPE, new.shape.pack());
        let payload = payload_words(new.key.len(), new.value.len());
        if let Some(&first) = chain.first() {
            let second = chain.get(1).copied().unwrap_or(NONE);
            let link = record + self.geometry().record_words - 1;
            self.words().store(link, u64::from(first) | u64::from(second) << 32);
        }
        let run = inline_words(self.geometry().record_words, payload);
        let mut pen = Pen { table: self, at: record + RECORD_HEADER, run, chain };
        pen.put(new.key);
        pen.put(new.value);
        debug_assert!(pen.chain.is_empty(), "the chain has as many blocks as the payload needs");
        self.close_record(record, odd, new.checksum);
    }

    /// Copies a live record into an invalid way of its other line. Both then share one chain, of which the caller frees
    /// nothing.
    pub(crate) fn copy_record(&self, from: RecordId, to: RecordId, shape: RecordShape) {
        let (from, to) = (self.geometry().record(from), self.geometry().record(to));
        let odd = self.open_record(to);
        for word in DEADLINE..self.geometry().record_words {
            self.words().store(to + word, self.words().load(from + word));
        }
        self.words().store(to + SHAPE, shape.pack());
        self.close_record(to, odd, self.words().load(from + STAMP) >> 32);
    }

    /// Marks an invalid record as not live, so that its bytes alone can never be taken for an entry again.
    pub(crate) fn retire_record(&self, id: RecordId) {
        let record = self.geometry().record(id);
        // After the flip that made it invalid; a reader that meets the odd number finds the flip when it tries again.
        self.words().release();
        self.words().store(record + STAMP, next_odd(self.words().load(record + STAMP)));
    }

    /// Sets the fingerprint of an invalid way.
    pub(crate) fn set_tag(&self, id: RecordId, tag: u16) {
        let at = self.geometry().line(id.bucket) + 1 + id.way / 4;
        let shift = id.way % 4 * 16;
        let word = self.words().load(at) & !(0xffff << shift) | u64::from(tag) << shift;
        self.words().store(at, word);
    }

    /// Stores a line's header: the one step that changes what readers find.
    pub(crate) fn publish(&self, bucket: usize, header: LineHeader) {
        // Pairs with the acquire fences in `glance`, `attempt` and `end_copy`.
        self.words().release();
        self.words().store(self.geometry().line(bucket), header.0);
    }

    fn open_record(&self, record: usize) -> u64 {
        let odd = next_odd(self.words().load(record + STAMP));
        self.words().store(record + STAMP, odd);
        // Pairs with the first acquire fence in `end_copy`. It also orders the flips that freed this way and these
        // blocks before their new contents.
        self.words().release();
        odd
    }

    fn close_record(&self, record: usize, odd: u64, checksum: u64) {
        // Pairs with the acquire fence in `begin_copy`.
        self.words().release();
        self.words()
            .store(record + STAMP, u64::from((odd as u32).wrapping_add(1)) | checksum << 32);
    }
}

fn next_odd(stamp: u64) -> u64 {
    u64::from((stamp as u32).wrapping_add(1) | 1)
}

/// Reads a payload in order, from the record and then from the chain of blocks.
pub(crate) struct Walk<'t, W> {
    table: &'t Table<W>,
    at: usize,
    /// Words left in this record or block.
    run: usize,
    /// The next two blocks. Each block names the one after the next, so that memory for two is under way at a time.
    upcoming: [u32; 2],
    /// Payload words beyond this record or block: bounds the walk, whatever the links say.
    beyond: usize,
}

impl<W: Words> Walk<'_, W> {
    /// Copies the next `size` bytes into `target`. `None` if the chain leads nowhere.
    pub(crate) fn copy(&mut self, size: usize, target: &mut impl Target) -> Option<()> {
        let mut room = target.room(size)?;
        let read = self.read(size, &mut room);
        let filled = room.done();
        target.keep(filled);
        read
    }

    /// Passes over a key.
    pub(crate) fn skip_key(&mut self, size: usize) -> Option<()> {
        let mut words = size.div_ceil(8);
        while words > 0 {
            words -= self.run(words)?.1;
        }
        Some(())
    }

    /// Whether the next bytes are these. `None` if the chain leads nowhere.
    #[inline]
    pub(crate) fn equal(&mut self, mut bytes: &[u8]) -> Option<bool> {
        while !bytes.is_empty() {
            let (at, words) = self.run(bytes.len().div_ceil(8))?;
            let (now, later) = bytes.split_at(bytes.len().min(words * 8));
            if !self.table.words().run(at, words).begins_with(now) {
                return Some(false);
            }
            bytes = later;
        }
        Some(true)
    }

    /// Copies the next `size` bytes, for which `room` has room. `None` if the chain leads nowhere.
    #[inline]
    pub(crate) fn read(&mut self, mut size: usize, room: &mut Room<'_>) -> Option<()> {
        while size > 0 {
            let (at, words) = self.run(size.div_ceil(8))?;
            let now = size.min(words * 8);
            self.table.words().read(at, now, room);
            size -= now;
        }
        Some(())
    }

    /// The blocks of the chain, appended to `out`. `None` if it leads nowhere.
    pub(crate) fn blocks(&mut self, out: &mut Vec<u32>) -> Option<()> {
        while self.beyond > 0 {
            out.push(self.enter_block()?);
        }
        Some(())
    }

    /// The next contiguous words, at most `want`.
    #[inline]
    fn run(&mut self, want: usize) -> Option<(usize, usize)> {
        if self.run == 0 {
            self.enter_block()?;
        }
        let (at, words) = (self.at, self.run.min(want));
        self.at += words;
        self.run -= words;
        Some((at, words))
    }

    fn enter_block(&mut self) -> Option<u32> {
        let [block, next] = self.upcoming;
        let geometry = self.table.geometry();
        if self.beyond == 0 || block as usize >= geometry.records_count() {
            return None;
        }
        let at = geometry.block(block);
        let after = (self.table.words().load(at + STAMP) >> 32) as u32;
        self.upcoming = [next, after];
        self.at = at + 1;
        self.run = self.beyond.min(geometry.block_payload());
        self.beyond -= self.run;
        if self.beyond > geometry.block_payload() {
            self.ask(after);
        }
        Some(block)
    }

    /// Asks for the first blocks of the chain, before the record's own part is read.
    fn ask_for_first(&self) {
        if self.beyond > 0 {
            self.ask(self.upcoming[0]);
        }
        if self.beyond > self.table.geometry().block_payload() {
            self.ask(self.upcoming[1]);
        }
    }

    fn ask(&self, block: u32) {
        let geometry = self.table.geometry();
        if (block as usize) < geometry.records_count() {
            let at = geometry.block(block);
            for line in 0..geometry.record_words.div_ceil(LINE_WORDS).min(PREFETCH_LINES) {
                self.table.words().prefetch(at + line * LINE_WORDS);
            }
        }
    }
}

/// Writes a payload in order, the counterpart of [`Walk`].
struct Pen<'t, W> {
    table: &'t Table<W>,
    at: usize,
    run: usize,
    chain: &'t [u32],
}

impl<W: Words> Pen<'_, W> {
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.run == 0 {
                let (&block, rest) =
                    self.chain.split_first().expect("the caller counted the blocks");
                self.chain = rest;
                self.at = self.table.geometry().block(block) + 1;
                self.run = self.table.geometry().block_payload();
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.run * 8));
            self.table.words().write(self.at, now);
            let words = now.len().div_ceil(8);
            self.at += words;
            self.run -= words;
            bytes = later;
        }
    }
}
