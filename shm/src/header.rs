//! The first page of a shard: written once, inspected by everybody who opens it.

use twox_hash::XxHash3_64;

use crate::layout::{
    BYTE_ORDER, FIXED_WORDS, Geometry, LAYOUT_VERSION, MAGIC, NOTE_WORDS, PAGE, STATE_RETIRED,
    Shape, TableOptions, word,
};
use crate::words::{Target as _, Words};

/// Why a segment cannot be opened or attached to. Its bytes are left as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Something else, or a segment whose creation was not finished.
    #[error("not a segment: it starts with {found:#018x} instead of {MAGIC:#018x}")]
    NotASegment {
        /// The first word.
        found: u64,
    },
    /// Made on a machine of the other byte order.
    #[error(
        "made on another architecture: its byte order word is {found:#018x} instead of {BYTE_ORDER:#018x}"
    )]
    OtherArchitecture {
        /// The byte order word.
        found: u64,
    },
    /// Made by another version of this program.
    #[error("layout version {found} instead of {expected}")]
    OtherVersion {
        /// Version in the header.
        found: u64,
        /// [`LAYOUT_VERSION`].
        expected: u64,
    },
    /// Made with other options.
    #[error("another layout: {found} instead of {expected}")]
    OtherLayout {
        /// What the header says.
        found: Shape,
        /// What the options ask for.
        expected: Shape,
    },
    /// Shorter than its header says, or than any header.
    #[error("truncated: {found} bytes instead of {expected}")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The header does not match its own checksum, or describes an impossible table.
    #[error("damaged header: {0}")]
    DamagedHeader(&'static str),
    /// A shard behind the first, whose header stands for itself, is wrong.
    #[error("shard {shard}: {why}")]
    Shard {
        /// Which; they are counted from 0.
        shard: u16,
        /// What is wrong with it.
        why: Box<OpenError>,
    },
    /// One shard was to be opened by itself, of a segment that has several.
    #[error("it has {0} shards, to be opened together")]
    SeveralShards(u16),
    /// Its writer gave it up.
    #[error("retired by its writer")]
    Retired,
    /// Its times belong to an earlier boot of this machine (readers only; a writer resets them).
    #[error("written before the last reboot and not reopened since")]
    OtherBoot,
    /// The options describe no table.
    #[error(transparent)]
    Options(#[from] crate::OptionsError),
    /// A writer needs memory that it may write.
    #[error("the region is read-only")]
    NotWritable,
}

/// What a valid header says.
pub(crate) struct Facts {
    pub(crate) geometry: Geometry,
    pub(crate) instance: u64,
    pub(crate) hash_seed: u64,
    /// Which of the segment's shards it is.
    pub(crate) shard: u16,
}

/// Writes the header of a new shard over zeroed words. `magic` goes last.
pub(crate) fn write<W: Words>(words: &W, geometry: &Geometry, options: &TableOptions, shard: u16) {
    let fixed = fixed_words(geometry, shard, (options.instance, options.hash_seed));
    for (at, value) in fixed.iter().enumerate().skip(1) {
        words.store(at, *value);
    }
    words.store(word!(checksum), checksum(&fixed));
    // Pairs with the acquire fence in `inspect`: who sees the magic sees the header.
    words.release();
    words.store(word!(magic), MAGIC);
}

/// Checks a shard's header as one checks a stranger's message.
pub(crate) fn inspect<W: Words>(words: &W) -> Result<Facts, OpenError> {
    let found = words.count() as u64 * 8;
    if found < PAGE {
        return Err(OpenError::Truncated { found, expected: PAGE });
    }
    let magic = words.load(word!(magic));
    // Pairs with the release fence in `write`.
    words.acquire();
    if magic != MAGIC {
        return Err(OpenError::NotASegment { found: magic });
    }
    let byte_order = words.load(word!(byte_order));
    if byte_order != BYTE_ORDER {
        return Err(OpenError::OtherArchitecture { found: byte_order });
    }
    let layout = words.load(word!(layout));
    if layout != LAYOUT_VERSION {
        return Err(OpenError::OtherVersion { found: layout, expected: LAYOUT_VERSION });
    }
    let fixed: [u64; FIXED_WORDS] = std::array::from_fn(|at| words.load(at));
    if checksum(&fixed) != words.load(word!(checksum)) {
        return Err(OpenError::DamagedHeader("its checksum does not match"));
    }
    let small = |at: usize| u32::try_from(fixed[at]).ok();
    let (shard, shards) = (fixed[word!(shard)] >> 32, fixed[word!(shard)] & u64::from(u32::MAX));
    let shape = (|| {
        Some(Shape {
            segment_bytes: fixed[word!(segment_bytes)],
            shards: u16::try_from(shards).ok()?,
            record_size: small(word!(record_size))?,
            max_value: small(word!(max_value))?,
            buckets: small(word!(buckets))?,
        })
    })();
    let (instance, hash_seed) = (fixed[word!(instance)], fixed[word!(hash_seed)]);
    let random = (instance, hash_seed);
    let geometry = shape
        .and_then(Geometry::new)
        .filter(|geometry| shard < shards && fixed_words(geometry, shard as u16, random) == fixed)
        .ok_or(OpenError::DamagedHeader("it describes no possible table"))?;
    let expected = geometry.shard_bytes();
    if found < expected {
        return Err(OpenError::Truncated { found, expected });
    }
    Ok(Facts { geometry, instance, hash_seed, shard: shard as u16 })
}

/// Whether the header is one of ours, of this version, so that its live words are where we think. Says nothing
/// about the rest.
pub(crate) fn is_ours<W: Words>(words: &W) -> bool {
    words.count() as u64 * 8 >= PAGE
        && words.load(word!(magic)) == MAGIC
        && words.load(word!(byte_order)) == BYTE_ORDER
        && words.load(word!(layout)) == LAYOUT_VERSION
}

/// Tells attached readers to leave.
pub(crate) fn retire<W: Words>(words: &W) {
    words.store(word!(state), STATE_RETIRED);
}

pub(crate) fn is_retired<W: Words>(words: &W) -> bool {
    words.load(word!(state)) == STATE_RETIRED
}

/// Stores the first 64 bytes of a note. For messages only: a reader may see half of an old one.
pub(crate) fn set_owner_note<W: Words>(words: &W, note: &str) {
    let mut bytes = [0; NOTE_WORDS * 8];
    let size = note.floor_char_boundary(bytes.len());
    bytes[..size].copy_from_slice(&note.as_bytes()[..size]);
    words.write(word!(owner_note), &bytes);
}

pub(crate) fn owner_note<W: Words>(words: &W) -> String {
    let mut bytes = Vec::new();
    let mut room = bytes.room(NOTE_WORDS * 8).expect("a vector grows");
    words.read(word!(owner_note), NOTE_WORDS * 8, &mut room);
    let filled = room.done();
    bytes.keep(filled);
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn fixed_words(
    geometry: &Geometry,
    shard: u16,
    (instance, hash_seed): (u64, u64),
) -> [u64; FIXED_WORDS] {
    let Shape { segment_bytes, shards, record_size, max_value, buckets } = geometry.shape;
    let mut fixed = [0; FIXED_WORDS];
    fixed[word!(magic)] = MAGIC;
    fixed[word!(layout)] = LAYOUT_VERSION;
    fixed[word!(byte_order)] = BYTE_ORDER;
    fixed[word!(segment_bytes)] = segment_bytes;
    fixed[word!(instance)] = instance;
    fixed[word!(hash_seed)] = hash_seed;
    fixed[word!(record_size)] = record_size.into();
    fixed[word!(max_value)] = max_value.into();
    fixed[word!(buckets)] = buckets.into();
    fixed[word!(freshness_at)] = geometry.freshness as u64 * 8;
    fixed[word!(lines_at)] = geometry.lines as u64 * 8;
    fixed[word!(records_at)] = geometry.records as u64 * 8;
    fixed[word!(shard)] = u64::from(shard) << 32 | u64::from(shards);
    fixed
}

fn checksum(fixed: &[u64; FIXED_WORDS]) -> u64 {
    let bytes: Vec<u8> = fixed.iter().flat_map(|word| word.to_ne_bytes()).collect();
    XxHash3_64::oneshot(&bytes)
}
