//! Opening a segment that a writer left, whole or in the middle of anything.
//!
//! What a killed writer can leave is listed, store by store, in `docs/segment.md`: records that nobody can see, one
//! entry in both of its lines, an overflow bit without need. Everything else that is corrected here comes from
//! outside, and is treated like a stranger's message.

use crate::layout::{LineHeader, RecordId, RecordShape, SHAPE, STAMP, WAYS};
use crate::protocol::Table;
use crate::words::Words;
use crate::writer::{Core, Recovery};

/// A sound record.
struct Sound {
    shape: RecordShape,
    chain: Vec<u32>,
    first: usize,
    second: usize,
    tag: u16,
}

enum Unsound {
    Torn,
    Checksum,
    Misplaced,
}

impl<W: Words> Core<W> {
    /// Reads every record, keeps the sound ones, and corrects the lines that say otherwise.
    pub(crate) fn recover(table: Table<W>) -> (Self, Recovery) {
        let mut recovery = Recovery::default();
        let mut core = Self::new(table);
        core.free_blocks.clear();
        let mut used = vec![false; core.table.geometry.blocks];
        let mut dropped = Vec::new();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let found: Vec<LineHeader> =
            (0..core.headers.len()).map(|bucket| core.table.header(bucket)).collect();

        for (bucket, header) in found.iter().enumerate() {
            for way in (0..WAYS).filter(|&way| header.is_valid(way)) {
                let id = RecordId { bucket, way };
                let sound = match core.examine(id, &used, &mut key, &mut value) {
                    Ok(sound) => sound,
                    Err(why) => {
                        match why {
                            Unsound::Torn => recovery.dropped_torn += 1,
                            Unsound::Checksum => recovery.dropped_checksum += 1,
                            Unsound::Misplaced => recovery.dropped_misplaced += 1,
                        }
                        dropped.push(id);
                        continue;
                    }
                };
                let other = core
                    .find_in(sound.first, &key, sound.tag)
                    .or_else(|| core.find_in(sound.second, &key, sound.tag));
                if let Some(other) = other {
                    recovery.dropped_duplicate += 1;
                    let age = sound
                        .shape
                        .generation
                        .wrapping_sub(core.records[other.number()].shape().generation);
                    // Of two copies of the same write either will do.
                    if age == 0 || age > u16::MAX / 2 {
                        dropped.push(id);
                        continue;
                    }
                    core.disown(other, &mut used, &sound);
                    dropped.push(other);
                }
                // A copy of the same write shares its chain, and was let go above; anything else that shares a block
                // with an earlier record cannot be right.
                if sound.chain.iter().any(|&block| used[block as usize]) {
                    recovery.dropped_checksum += 1;
                    dropped.push(id);
                    continue;
                }
                for &block in &sound.chain {
                    used[block as usize] = true;
                }
                core.adopt(id, sound.shape, &sound.chain);
                core.headers[bucket] = LineHeader(core.headers[bucket].0 | 1 << way);
                if bucket != sound.first {
                    core.spilled[sound.first] += 1;
                }
            }
        }

        core.free_blocks =
            (0..used.len() as u32).rev().filter(|&block| !used[block as usize]).collect();
        for (bucket, header) in found.into_iter().enumerate() {
            let (valid, overflow) = (core.headers[bucket].valid(), core.spilled[bucket] > 0);
            core.headers[bucket] = header;
            if (header.valid(), header.overflow()) != (valid, overflow) {
                core.publish(bucket, valid, overflow);
                recovery.repaired_lines += 1;
            }
        }
        for id in dropped {
            core.table.retire_record(id);
        }
        core.publish_counters();
        recovery.entries = core.entries;
        (core, recovery)
    }

    /// Checks a published record; its key and value are then in the buffers.
    fn examine(
        &self,
        id: RecordId,
        used: &[bool],
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<Sound, Unsound> {
        let table = &self.table;
        let record = table.geometry.record(id);
        let stamp = table.words.load(record + STAMP);
        if stamp & 1 == 1 {
            return Err(Unsound::Torn);
        }
        let shape = RecordShape::unpack(table.words.load(record + SHAPE));
        if !shape.plausible(table.geometry.shape.max_value) {
            return Err(Unsound::Checksum);
        }
        key.clear();
        value.clear();
        let mut chain = Vec::new();
        let mut walk = table.walk(id, shape);
        walk.read(shape.key_size.into(), key)
            .and_then(|()| walk.read(shape.value_size as usize, value))
            .and_then(|()| table.walk(id, shape).blocks(&mut chain))
            .ok_or(Unsound::Checksum)?;
        let key_hash = table.hash(key);
        if stamp >> 32 != Table::<W>::checksum(key_hash, shape, value) {
            return Err(Unsound::Checksum);
        }
        let place = table.geometry.place(key_hash);
        let reachable = (id.bucket == place.first || id.bucket == place.second)
            && table.tagged(id.bucket, place.tag) >> id.way & 1 == 1;
        // A line without a free way is none of ours either.
        if !reachable || self.headers[id.bucket].free_ways() == 1 {
            return Err(Unsound::Misplaced);
        }
        debug_assert!(used.len() == table.geometry.blocks);
        Ok(Sound { shape, chain, first: place.first, second: place.second, tag: place.tag })
    }

    /// Lets an adopted record go in favour of a newer copy of the same key.
    fn disown(&mut self, id: RecordId, used: &mut [bool], newer: &Sound) {
        self.forget(id);
        for block in self.free_blocks.drain(..) {
            used[block as usize] = false;
        }
        self.headers[id.bucket] = LineHeader(self.headers[id.bucket].0 & !(1 << id.way));
        if id.bucket != newer.first {
            self.spilled[newer.first] -= 1;
        }
    }
}
