//! Entries taken over from a segment that somebody changes meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::region::HeapRegion;
use crate::words::Mapped;
use crate::{TableOptions, Writer, header};

#[test]
fn keys_that_change_while_their_entries_are_taken_over_are_damage_and_no_panic() {
    let options = TableOptions { segment_bytes: 300 << 10, ..TableOptions::new(1, 2) };
    let region = || HeapRegion::new(options.segment_bytes as usize);
    for _ in 0..500 {
        let old = region();
        let mut writer = Writer::create(old.handle(), &options).expect("fits");
        for number in 0..50u64 {
            let key = (number << 32 | 0xfeed_beef).to_ne_bytes();
            writer.put(&key, 0, b"value", 0, 0).expect("room");
        }
        let is_key = |word: &&AtomicU64| word.load(Ordering::Relaxed) as u32 == 0xfeed_beef;
        let keys: Vec<&AtomicU64> = old.words().filter(is_key).collect();
        assert_eq!(keys.len(), 50);
        let mut new = Writer::create(region().handle(), &options).expect("fits");
        let (recovery, damaged, left_out) = std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    for key in &keys {
                        key.fetch_xor(1 << 63, Ordering::Relaxed);
                        key.fetch_xor(1 << 63, Ordering::Relaxed);
                    }
                }
            });
            let words = Mapped::new(old.handle());
            let facts = header::inspect(&words).expect("the header is valid");
            Writer::take_over(std::slice::from_mut(&mut new), &words, &facts)
        });
        assert_eq!(new.stats().entries + damaged + left_out, recovery.entries);
    }
}
