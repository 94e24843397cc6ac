//! Keys and the slots they fall into.

use std::fmt;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use crc::{CRC_16_XMODEM, Crc, Table};

use crate::limits::KEY_BYTES_MAX;

/// The number of slots the key space is divided into, as in Redis Cluster.
pub const SLOT_COUNT: u16 = 16_384;

/// A session key: 1 to 255 bytes, any bytes.
///
/// Keys are bearer secrets. `Debug` shows a key's length and nothing else, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

/// Why some bytes are not a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes")]
    Empty,
    /// A key has at most 255 bytes.
    #[error("the key has {0} bytes; a key has 1 to {KEY_BYTES_MAX}")]
    TooLong(usize),
}

impl Key {
    /// Checks and copies `bytes`.
    ///
    /// # Errors
    /// [`KeyError`] when `bytes` is empty or longer than 255 bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        check(bytes).map(|()| Self(bytes.into()))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The slot this key falls into.
    pub fn slot(&self) -> Slot {
        Slot::of(&self.0)
    }

    /// What stands for this key where copies are compared: see [`Slot::word`].
    pub fn word(&self) -> u64 {
        self.slot().word(&self.0)
    }

    /// A short tag for logs and tables that tells keys apart without giving them away: eight hex
    /// digits of a hash keyed with `secret`, which must differ from cluster to cluster.
    pub fn tag(&self, secret: u64) -> String {
        let hash = twox_hash::XxHash3_64::oneshot_with_seed(secret, &self.0);
        format!("{:08x}", hash >> 32)
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

impl Encode for Key {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for Key {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        match check(&bytes) {
            Ok(()) => Ok(Self(bytes.into_boxed_slice())),
            Err(error) => Err(DecodeError::OtherString(error.to_string())),
        }
    }
}

fn check(key: &[u8]) -> Result<(), KeyError> {
    match key.len() {
        0 => Err(KeyError::Empty),
        1..=KEY_BYTES_MAX => Ok(()),
        length => Err(KeyError::TooLong(length)),
    }
}

impl<'de, C> BorrowDecode<'de, C> for Key {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

/// One of the 16384 partitions of the key space.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this index; `None` from 16384 on.
    #[inline]
    pub fn new(index: u16) -> Option<Self> {
        (index < SLOT_COUNT).then_some(Self(index))
    }

    /// The slot of a key: CRC-16/XMODEM of the key, or of what stands between its first `{` and the
    /// next `}` if that is not empty, modulo 16384 (the Redis Cluster specification's hash tags).
    pub fn of(key: &[u8]) -> Self {
        // Sixteen tables of 512 bytes: 16 bytes of the key at a time.
        static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);
        Self(CRC.checksum(hashed_part(key)) % SLOT_COUNT)
    }

    /// What stands for one of this slot's keys where copies are compared: the slot, and below it the lower 47 bits
    /// of the key's XXH3-64, 61 bits together. Few keys of a slot have one in common, if nobody means it.
    pub fn word(self, key: &[u8]) -> u64 {
        u64::from(self.0) << WORD_HASH_BITS
            | twox_hash::XxHash3_64::oneshot(key) & ((1 << WORD_HASH_BITS) - 1)
    }

    /// The slot of a key's word; `None` if no key has it.
    pub fn of_word(word: u64) -> Option<Self> {
        Self::new(u16::try_from(word >> WORD_HASH_BITS).ok()?)
    }

    /// 0 to 16383.
    #[inline]
    pub fn index(self) -> u16 {
        self.0
    }

    /// All slots in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT).map(Self)
    }
}

const WORD_HASH_BITS: u32 = 47;

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Encode for Slot {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for Slot {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let index = u16::decode(decoder)?;
        Self::new(index)
            .ok_or_else(|| DecodeError::OtherString(format!("slot {index} is not below 16384")))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Slot {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

fn hashed_part(key: &[u8]) -> &[u8] {
    // Most keys have none, and this looks at many bytes at a time, where `position` does not.
    if !key.contains(&b'{') {
        return key;
    }
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    match key[open + 1..].iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // The specification's check value and what `CLUSTER KEYSLOT` answers on Redis 7.
        assert_eq!(Slot::of(b"123456789").index(), 0x31C3);
        assert_eq!(Slot::of(b"foo").index(), 12_182);
        assert_eq!(Slot::of(b"").index(), 0);
    }

    #[test]
    fn a_tag_decides_the_slot_only_when_it_is_closed_and_not_empty() {
        assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"user1000"));
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot::of(b"{bar"));
        assert_eq!(Slot::of(b"foo{bar}{zap}"), Slot::of(b"bar"));
        assert_ne!(Slot::of(b"foo{}{bar}"), Slot::of(b"bar"));
        assert_ne!(Slot::of(b"foo{bar"), Slot::of(b"bar"));
    }

    #[test]
    fn a_keys_word_tells_its_slot() {
        let key = Key::new("{user1000}.following").unwrap();
        assert_eq!(Slot::of_word(key.word()), Some(key.slot()));
        let hash = twox_hash::XxHash3_64::oneshot(key.as_bytes());
        assert_eq!(key.word() << 17, hash << 17);
        assert_eq!(Slot::of_word(u64::from(SLOT_COUNT) << 47), None);
        assert_eq!(Slot::of_word(1 << 63), None);
    }

    #[test]
    fn keys_have_one_to_255_bytes_of_any_kind() {
        assert_eq!(Key::new([]), Err(KeyError::Empty));
        assert_eq!(Key::new([0; 256]), Err(KeyError::TooLong(256)));
        assert_eq!(Key::new([0xff; 255]).unwrap().as_bytes(), [0xff; 255]);
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        let key = Key::new("s3cret-session-id").unwrap();
        assert_eq!(format!("{key:?}"), "Key(17 bytes)");
        assert!(!key.tag(1).contains("s3cret"));
    }
}
