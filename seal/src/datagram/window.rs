//! Which counters of a sender were seen: a sliding window (RFC 6479).

/// The counters seen of one sender in one epoch. What comes late is taken as long as it is among
/// the last [`Window::SPAN`]; older ones nobody can tell apart any more.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// One above the highest counter seen.
    next: u64,
    /// A ring of bits, of which the word of `next - 1` is the newest.
    seen: [u64; WORDS],
}

/// What a window says of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Never,
    Before,
    /// It is below the window.
    TooOld,
}

const WORDS: usize = 32;
const BITS: u64 = u64::BITS as u64;

impl Window {
    /// How far below the highest counter one may be: a word less than there are, as the newest is
    /// partly ahead.
    pub(super) const SPAN: u64 = (WORDS as u64 - 1) * BITS;

    /// Nothing was seen.
    pub(super) fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }

    /// Whether it was seen, without remembering anything: the tag may not be checked yet.
    pub(super) fn look(&self, counter: u64) -> Seen {
        if counter >= self.next {
            return Seen::Never;
        }
        if self.next - 1 - counter >= Self::SPAN {
            return Seen::TooOld;
        }
        let (word, bit) = place(counter);
        if self.seen[word] & bit == 0 { Seen::Never } else { Seen::Before }
    }

    /// Remembers it. Only for what [`Window::look`] has never seen, and whose tag is good.
    pub(super) fn note(&mut self, counter: u64) {
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / BITS;
            let ahead = (counter / BITS - newest).min(WORDS as u64);
            for step in 1..=ahead {
                self.seen[((newest + step) % WORDS as u64) as usize] = 0;
            }
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / BITS % WORDS as u64) as usize, 1 << (counter % BITS))
}

const _: () = assert!(Window::SPAN >= 1_024);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_does_what_a_set_of_all_counters_would(
            jumps in prop::collection::vec(
                prop_oneof![-2_100i64..2_100, -70i64..70, 0i64..3, Just(100_000i64)], 1..400),
            start in prop_oneof![Just(0u64), 0u64..5_000],
        ) {
            let mut window = Window::new();
            let mut all = BTreeSet::new();
            let mut counter = start;
            for jump in jumps {
                counter = counter.saturating_add_signed(jump);
                let highest = all.last().copied();
                let expected = if highest.is_some_and(|top: u64| counter + Window::SPAN <= top) {
                    Seen::TooOld
                } else if all.contains(&counter) {
                    Seen::Before
                } else {
                    Seen::Never
                };
                prop_assert_eq!(window.look(counter), expected);
                if expected == Seen::Never {
                    window.note(counter);
                    all.insert(counter);
                    prop_assert_eq!(window.look(counter), Seen::Before);
                }
            }
        }
    }
}
