//! Which of the sessions that are here were noticed for their heat.
//!
//! Uses are sampled rather than sessions: of all uses one in 64 has its session looked at, so that one is noticed by and
//! by in proportion to how much it is used, however many others there are. One with a heat of 300 is missed with a
//! chance of less than one in a hundred. Who asks has some of the table looked through besides ([`LOOKED`]), which
//! finds all in a small one, also after a restart.

use annulus_proto::{HalfLife, Key};

/// Sessions with their marks as they were seen last, the hottest first, which does not change while none is used. Those
/// that ended or cooled since stay until somebody asks, or a hotter one takes the place.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    listed: Vec<(Key, u64)>,
    /// Where looking through the table goes on.
    pub(super) cursor: u64,
}

/// One in so many uses has its session looked at.
const USES_PART: u32 = 64;
/// The most sessions that are listed.
const LISTED_MAX: usize = 64;
/// How much of the table is looked through each time that somebody asks: lines of the index, and entries.
pub(super) const LOOKED: usize = 2_048;

impl Noticed {
    /// A session was used so often at once, and has this mark now. `dither` is any number, another one each time.
    /// Costs a comparison but for one use in 64.
    pub(super) fn note_use(
        &mut self,
        key: &[u8],
        mark: u64,
        (uses, dither): (u32, u32),
        heat_at: (HalfLife, u64),
    ) {
        if dither % USES_PART < uses {
            self.offer(key, mark, heat_at);
        }
    }

    /// Lists a session, in place of the coolest one if there are others enough. Costs a comparison if it is cooler than
    /// that, as most are.
    pub(super) fn offer(&mut self, key: &[u8], mark: u64, (half_life, now_ms): (HalfLife, u64)) {
        let warmth = half_life.warmth(mark, now_ms);
        let is_cooler = |(_, listed): &(Key, u64)| half_life.warmth(*listed, now_ms) < warmth;
        let is_full = self.listed.len() == LISTED_MAX;
        if is_full && !self.listed.last().is_some_and(is_cooler) {
            return;
        }
        let key = match self.listed.iter().position(|(it, _)| it.as_bytes() == key) {
            Some(at) => self.listed.remove(at).0,
            None => {
                let Ok(key) = Key::new(key) else { return };
                self.listed.truncate(LISTED_MAX - 1);
                key
            }
        };
        let at = self.listed.partition_point(|it| !is_cooler(it));
        self.listed.insert(at, (key, mark));
    }

    /// Those that are listed. They are to be offered again, as they are now.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Key> + use<> {
        std::mem::take(&mut self.listed).into_iter().map(|(key, _)| key)
    }
}
