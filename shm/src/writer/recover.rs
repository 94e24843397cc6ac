//! Opening a segment that a writer left, whole or in the middle of anything.
//!
//! What a killed writer can leave is listed, store by store, in `docs/segment.md`: records that nobody can see, one
//! entry in both of its lines, an overflow bit without need. Everything else that is corrected here comes from
//! outside, and is treated like a stranger's message.
//!
//! One pass over the lines and the records' headers: contents are not read, but for the keys of entries in their second
//! line. Whether contents are what was written is for `verify` to tell, afterwards and in steps.

use crate::layout::{
    DEADLINE, LINE_WORDS, LineHeader, PARTITIONS, RecordId, RecordShape, SHAPE, STAMP, WAYS, word,
};
use crate::table::Table;
use crate::words::Words;
use crate::writer::Recovery;
use crate::writer::core::{Core, ones};

/// A record that can be served.
struct Sound {
    shape: RecordShape,
    deadline: u64,
    /// Its key's first line, if it is in its second.
    first: Option<usize>,
}

enum Unsound {
    Torn,
    Malformed,
    Misplaced,
}

impl<W: Words> Core<W> {
    /// Looks at every record's header, keeps the sound ones, and corrects the lines that say otherwise.
    pub(crate) fn recover(table: Table<W>) -> (Self, Recovery) {
        let mut recovery = Recovery::default();
        let mut core = Self::new(table);
        core.finish_move(&mut recovery);
        // Once: what says which records are free is not read again from where somebody else may change it.
        for bucket in 0..core.lines.len() {
            let found = core.table.header(bucket);
            core.set_line(bucket, |line| line.header = found);
        }
        let (mut chain, mut key) = (Vec::new(), Vec::new());
        let mut of_partition = vec![0u32; PARTITIONS];
        let mut deadlines = Vec::with_capacity(core.records.len());
        for bucket in 0..core.lines.len() {
            core.prefetch_headers(bucket + 1);
            let found = core.lines[bucket].header;
            let mut valid = found.valid();
            if valid == LineHeader::VALID as u32 {
                // A line without a free way is none of ours. Its last record is as good as any other to go.
                valid &= !(1 << (WAYS - 1));
                recovery.dropped_misplaced += 1;
            }
            for way in ones(valid) {
                let id = RecordId { bucket, way };
                chain.clear();
                match core.examine(id, &mut chain, &mut key) {
                    Ok(sound) => {
                        let place = &mut of_partition[usize::from(sound.shape.partition)];
                        core.note(id, sound.shape, &chain, *place);
                        *place += 1;
                        if sound.deadline != 0 {
                            deadlines.push((id.number() as u32, sound.deadline));
                        }
                        if let Some(first) = sound.first {
                            core.lines[first].spilled += 1;
                        }
                    }
                    Err(why) => {
                        valid &= !(1 << way);
                        match why {
                            Unsound::Torn => recovery.dropped_torn += 1,
                            Unsound::Malformed => recovery.dropped_malformed += 1,
                            Unsound::Misplaced => recovery.dropped_misplaced += 1,
                        }
                    }
                }
            }
            if valid != found.valid() {
                core.publish(bucket, valid, found.overflow());
                recovery.repaired_lines += 1;
                for way in ones(found.valid() & !valid) {
                    core.table.retire_record(RecordId { bucket, way });
                }
            }
        }
        core.list_all(&of_partition, &deadlines);
        for bucket in 0..core.lines.len() {
            let (header, overflow) = (core.lines[bucket].header, core.lines[bucket].spilled > 0);
            if header.overflow() != overflow {
                core.publish(bucket, header.valid(), overflow);
                recovery.repaired_lines += 1;
            }
        }
        // The last writer may have been killed between a flip and the fence after it: what its readers still copy is not
        // written over before they can see the flip.
        core.table.words().release();
        core.publish_counters();
        recovery.entries = core.entries;
        (core, recovery)
    }

    /// Ends a move that was cut in two while its entry was in both lines.
    fn finish_move(&mut self, recovery: &mut Recovery) {
        let words = self.table.words();
        let moving = words.load(word!(moving));
        if moving == 0 {
            return;
        }
        let records = self.table.geometry().records_count();
        let (from, to) = ((moving >> 32) as usize, moving as u32 as usize);
        if from < records && to < records && from != to {
            let (from, to) = (RecordId::from_number(from), RecordId::from_number(to));
            let header = self.table.header(from.bucket);
            let both = header.is_valid(from.way) && self.table.header(to.bucket).is_valid(to.way);
            if both && self.is_copy(from, to) {
                let valid = header.valid() & !(1 << from.way);
                self.set_line(from.bucket, |line| line.header = header);
                self.publish(from.bucket, valid, header.overflow());
                self.table.retire_record(from);
                recovery.dropped_duplicate += 1;
            }
        }
        self.table.words().release();
        self.table.words().store(word!(moving), 0);
    }

    /// Whether these are the two copies of one move, as far as their headers tell.
    fn is_copy(&self, from: RecordId, to: RecordId) -> bool {
        let facts = |id| {
            let record = self.table.geometry().record(id);
            let shape = self.table.words().load(record + SHAPE);
            let shape = RecordShape::unpack(shape, self.table.geometry().shape.max_value);
            let checksum = self.table.words().load(record + STAMP) >> 32;
            shape.map(|shape| (shape.lasting(), shape.second, checksum))
        };
        match (facts(from), facts(to)) {
            (Some(from), Some(to)) => from.0 == to.0 && from.1 != to.1 && from.2 == to.2,
            _ => false,
        }
    }

    /// Asks for a line's records.
    fn prefetch_headers(&self, bucket: usize) {
        let geometry = self.table.geometry();
        if bucket < geometry.buckets {
            for way in 0..WAYS {
                let record = geometry.record(RecordId { bucket, way });
                const { assert!(LINE_WORDS > SHAPE, "a record's header is in one cache line") };
                self.table.words().prefetch(record);
            }
        }
    }

    /// Checks a published record's header and chain; takes its blocks. `key` is scratch memory.
    fn examine(
        &mut self,
        id: RecordId,
        chain: &mut Vec<u32>,
        key: &mut Vec<u8>,
    ) -> Result<Sound, Unsound> {
        let table = &self.table;
        let record = table.geometry().record(id);
        if table.words().load(record + STAMP) & 1 == 1 {
            return Err(Unsound::Torn);
        }
        let max_value = table.geometry().shape.max_value;
        let shape = RecordShape::unpack(table.words().load(record + SHAPE), max_value)
            .ok_or(Unsound::Malformed)?;
        let first = if shape.second {
            let read = table.walk(id, shape).copy(shape.key_size.into(), key);
            read.ok_or(Unsound::Malformed)?;
            let place = table.geometry().place(table.hash(key));
            if table.geometry().second(place) != id.bucket {
                return Err(Unsound::Misplaced);
            }
            Some(place.first)
        } else {
            None
        };
        if table.geometry().blocks_for(shape.key_size.into(), shape.value_size as usize) > 0 {
            table.walk(id, shape).blocks(chain).ok_or(Unsound::Malformed)?;
        }
        let deadline = table.words().load(record + DEADLINE);
        for (at, &block) in chain.iter().enumerate() {
            if !self.claim(block) {
                chain[..at].iter().for_each(|&block| self.unclaim(block));
                return Err(Unsound::Malformed);
            }
        }
        Ok(Sound { shape, deadline, first })
    }

    /// Takes a record for a block, which has one owner and is not live; its line keeps a free way.
    fn claim(&mut self, block: u32) -> bool {
        let RecordId { bucket, way } = RecordId::from_number(block as usize);
        let stamp = self.table.words().load(self.table.geometry().block(block) + STAMP);
        let taken = self.lines[bucket].header.valid() | self.lines[bucket].blocks;
        let is_free = taken >> way & 1 == 0 && taken.count_ones() as usize + 1 < WAYS;
        if is_free && stamp & 1 == 1 {
            self.set_line(bucket, |line| line.blocks |= 1 << way);
            self.blocks += 1;
            return true;
        }
        false
    }

    fn unclaim(&mut self, block: u32) {
        let RecordId { bucket, way } = RecordId::from_number(block as usize);
        self.set_line(bucket, |line| line.blocks &= !(1 << way));
        self.blocks -= 1;
    }
}
