//! The archive: sessions that left their tables, in files of JSON lines that can be read back.
//!
//! One session is one line, an object with everything it takes to begin it again ([`write_line`]). The files of a table
//! are numbered, and the oldest goes when they have become too large together. Whoever reads one believes
//! nothing of it ([`Lines`]): a line may be cut off, since its node died, or be anything else.
//!
//! The lines are secrets: they hold keys and values. No error says what stands in one.

mod files;
mod line;
mod lines;

pub(crate) use files::Files;
pub use line::{LINE_BYTES_MAX, LineError, read_line, write_line};
pub use lines::Lines;

#[cfg(test)]
pub(crate) mod tests {
    use annulus_proto::{Hlc, Key, NodeId, Value, Version};

    use crate::core::{Overflowed, WhyLeft};

    /// A session that expired, born so many milliseconds after one second, with a value of 100 bytes.
    pub(crate) fn session(number: u64) -> Overflowed {
        let version = Version::new(Hlc::from_ms(1_000 + number), NodeId::from_bits(1));
        Overflowed {
            table: "sessions".to_owned(),
            key: Key::new(format!("key {number:06}")).unwrap(),
            value: Value::Bytes(vec![b'v'; 100]),
            owner: Vec::new(),
            replicas: 0,
            birth: version,
            version,
            idle_ms: 1,
            touched_ms: 2,
            deadline_ms: 3,
            why: WhyLeft::Expired,
        }
    }
}
