//! How much an entry is used, as one number: each use adds one to its heat, and time halves it.
//!
//! What is stored is not the heat but when it was or will be one, its *level* h, so that `heat = 2^((h - now) /
//! half_life)`. Nothing has to be written as time goes on, and the order of two entries does not change while neither is
//! used, for 2,048 half-lives (decision 17 says what comes then). This is exponential decay with one weight for frequency and recency as in LRFU (Lee, Choi, Kim, Noh, Min, Cho,
//! Kim: *LRFU: A Spectrum of Policies that Subsumes the Least Recently Used and Least Frequently Used Policies*, IEEE
//! Transactions on Computers 50(12), 2001).
//!
//! A level takes the upper 16 bits of a record's [mark](crate::record::mark), in sixteenths of a half-life, modulo 2^16. A
//! use of something hot changes it by less than that: then it is raised with the chance that makes the mean right, as in
//! Morris's counters (*Counting Large Numbers of Events in Small Registers*, CACM 21(10), 1978).

use std::time::Duration;

use crate::record::{level, touched, with_level};

/// How long an entry that is not used takes to lose half of its heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfLife {
    /// A sixteenth of it, in milliseconds.
    unit_ms: u64,
}

/// Levels for each half-life.
const STEPS: i32 = 16;
/// Of heat, in fixed point.
const ONE: u64 = 1 << 16;
/// The greatest heat: 2^40 uses.
const STEPS_MAX: i32 = 40 * STEPS;

/// `2^(i/16)`, in fixed point.
const POWERS: [u64; STEPS as usize] = [
    65_536, 68_438, 71_468, 74_632, 77_936, 81_386, 84_990, 88_752, 92_682, 96_785, 101_070,
    105_545, 110_218, 115_098, 120_194, 125_515,
];

/// Numbers without a pattern that uses may have, too, and the same ones in any run: what chances are drawn by.
#[derive(Clone, Debug, Default)]
pub struct Dither(u32);

impl Dither {
    /// A count, mixed as MurmurHash3 does at its end (Appleby, public domain).
    pub fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        let mixed = (self.0 ^ self.0 >> 16).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
        mixed ^ mixed >> 16
    }
}

impl HalfLife {
    /// Of at least 16 ms, in steps of as much.
    pub fn new(half_life: Duration) -> Self {
        let ms = u64::try_from(half_life.as_millis()).unwrap_or(u64::MAX);
        Self { unit_ms: (ms / STEPS as u64).max(1) }
    }

    /// The mark after so many uses at `now_ms`, in hybrid milliseconds. `dither` is to be any number, another one
    /// each time.
    #[must_use]
    pub fn used(self, mark: u64, uses: u32, now_ms: u64, dither: u32) -> u64 {
        if uses == 0 {
            return mark;
        }
        let heat = power(self.steps(mark, now_ms)) + u64::from(uses) * ONE;
        let now = (now_ms / self.unit_ms) as u16;
        let level = now.wrapping_add_signed(steps_of(heat, dither) as i16);
        // 0 says that no use was counted.
        with_level(mark, level.max(1))
    }

    /// What orders entries, the coolest first: by their heat at `now_ms`, and those of one heat by their last touch.
    pub fn warmth(self, mark: u64, now_ms: u64) -> u64 {
        let steps = self.steps(mark, now_ms);
        ((steps - i32::from(i16::MIN)) as u64) << 48 | touched(mark)
    }

    /// The [level](HalfLife::level) of what is as [warm](HalfLife::warmth) as that.
    pub fn level_of_warmth(warmth: u64) -> i16 {
        let steps = i32::try_from(warmth >> 48).expect("16 bits") + i32::from(i16::MIN);
        i16::try_from(steps).expect("16 bits")
    }

    /// How hot it is at `now_ms`, in sixteenths of a half-life: 0 of one that was used once, just then; 16 more for
    /// twice the heat.
    pub fn level(self, mark: u64, now_ms: u64) -> i16 {
        let steps = self.steps(mark, now_ms).clamp(i16::MIN.into(), i16::MAX.into());
        i16::try_from(steps).expect("it was just brought within bounds")
    }

    /// The heat of what is at this [level](HalfLife::level), in uses, rounded: 1 of one that was used once, just then.
    pub fn heat(level: i16) -> u64 {
        (power(level.into()) + ONE / 2) / ONE
    }

    /// The least [level](HalfLife::level) of what is as hot as so many uses, one at least.
    pub fn level_of(heat: u64) -> i16 {
        let heat = heat.clamp(1, 1 << (STEPS_MAX / STEPS));
        let (mut low, mut high) = (0, STEPS_MAX as i16);
        while low < high {
            let middle = i16::midpoint(low, high);
            match Self::heat(middle) < heat {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// The mark of what is at least as hot as this [level](HalfLife::level) says: another home's count takes the place
    /// of this one's, if it is higher.
    #[must_use]
    pub fn raised(self, mark: u64, level: i16, now_ms: u64) -> u64 {
        if i32::from(level) <= self.steps(mark, now_ms) {
            return mark;
        }
        let level = i32::from(level).min(STEPS_MAX) as i16;
        let now = (now_ms / self.unit_ms) as u16;
        with_level(mark, now.wrapping_add_signed(level).max(1))
    }

    /// The [level](HalfLife::level) of one that was used once, so long ago. 2,047 half-lives are as many as there are.
    pub fn level_after(self, time: Duration) -> i16 {
        let steps = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / self.unit_ms;
        -i16::try_from(steps).unwrap_or(i16::MAX)
    }

    /// How far the level is ahead of the present. Where no use was counted there was one, the last touch, and so there
    /// was where the level is ahead of any that there can be: then it is of long ago, of a clock that went back
    /// since, or of another half-life.
    fn steps(self, mark: u64, now_ms: u64) -> i32 {
        let now = now_ms / self.unit_ms;
        let by_touch = ((touched(mark) / self.unit_ms) as i64).saturating_sub(now as i64);
        let by_touch = by_touch.clamp(i16::MIN.into(), 0) as i32;
        match level(mark) {
            0 => by_touch,
            level => match i32::from(level.wrapping_sub(now as u16) as i16) {
                // One more, where 0 stands for what was not counted.
                counted if counted > STEPS_MAX + 1 => by_touch,
                counted => counted.min(STEPS_MAX).max(by_touch),
            },
        }
    }
}

/// `2^(steps/16)`, in fixed point; 0 below 2^-16.
fn power(steps: i32) -> u64 {
    let steps = steps.min(STEPS_MAX);
    let of_step = POWERS[steps.rem_euclid(STEPS) as usize];
    match steps.div_euclid(STEPS) {
        whole @ 0.. => of_step << whole,
        whole => of_step.checked_shr(whole.unsigned_abs()).unwrap_or(0),
    }
}

/// How many steps make this heat, which is one at least: one of the two numbers next to it, by the chance that makes the
/// mean right.
fn steps_of(heat: u64, dither: u32) -> i32 {
    let whole = heat.ilog2() - ONE.ilog2();
    let rest = heat >> whole;
    let step = POWERS.partition_point(|power| *power <= rest) - 1;
    let (from, to) = (POWERS[step], POWERS.get(step + 1).copied().unwrap_or(2 * ONE));
    let (beyond, step_size) = (heat - (from << whole), (to - from) << whole);
    let is_raised = (u128::from(dither) * u128::from(step_size)) >> 32 < u128::from(beyond);
    (whole as i32 * STEPS + step as i32 + i32::from(is_raised)).min(STEPS_MAX)
}

#[cfg(test)]
mod tests;
