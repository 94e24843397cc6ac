use proptest::prelude::*;

use super::*;
use crate::record::mark;

const MINUTE_MS: u64 = 60_000;
const NOW_MS: u64 = 1_700_000_000_000;

fn ten_minutes() -> HalfLife {
    HalfLife::new(Duration::from_secs(600))
}

/// Numbers that are spread evenly: multiples of the golden ratio.
fn dithers() -> impl Iterator<Item = u32> {
    (1_u32..).map(|n| n.wrapping_mul(2_654_435_769))
}

fn heat_at(half_life: HalfLife, mark: u64, now_ms: u64) -> f64 {
    power(half_life.steps(mark, now_ms)) as f64 / ONE as f64
}

/// The mean heat of many entries that are used alike.
fn mean_after(uses: &[(u64, u32)], asked_ms: u64) -> f64 {
    const ENTRIES: usize = 1_000;
    let mut dithers = dithers();
    let half_life = ten_minutes();
    let heats = (0..ENTRIES).map(|_| {
        let of_entry = uses.iter().fold(mark(NOW_MS), |mark, (at_ms, count)| {
            half_life.used(mark, *count, *at_ms, dithers.next().unwrap())
        });
        heat_at(half_life, of_entry, asked_ms)
    });
    heats.sum::<f64>() / ENTRIES as f64
}

fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 0.05, "{found} instead of {expected}");
}

#[test]
fn each_use_adds_one_however_it_is_counted() {
    // The touch that made the entry is one.
    assert_near(mean_after(&[], NOW_MS), 1.0);
    assert_near(mean_after(&[(NOW_MS, 99)], NOW_MS), 100.0);
    assert_near(mean_after(&[(NOW_MS, 1); 99], NOW_MS), 100.0);
    assert_near(mean_after(&[(NOW_MS, 1); 999], NOW_MS), 1_000.0);
}

#[test]
fn a_half_life_halves_it() {
    let at = |minutes| NOW_MS + minutes * MINUTE_MS;
    assert_near(mean_after(&[(NOW_MS, 63)], at(10)), 32.0);
    assert_near(mean_after(&[(NOW_MS, 63)], at(30)), 8.0);
    assert_near(mean_after(&[(NOW_MS, 63), (at(10), 32)], at(20)), 32.0);
}

#[test]
fn nothing_is_hotter_than_it_can_be() {
    let half_life = ten_minutes();
    let hot = (0..10_000).fold(mark(NOW_MS), |mark, _| half_life.used(mark, u32::MAX, NOW_MS, 0));
    assert_near(heat_at(half_life, hot, NOW_MS), (1_u64 << 40) as f64);
    let day_ms = 86_400_000;
    assert!(heat_at(half_life, hot, NOW_MS + 14 * day_ms) < 1.0);
}

#[test]
fn single_uses_count_however_hot_it_is() {
    let half_life = ten_minutes();
    let mut dithers = dithers();
    let hot = half_life.used(mark(NOW_MS), 1 << 20, NOW_MS, 0);
    let before = heat_at(half_life, hot, NOW_MS);
    let hotter =
        (0..1 << 20).fold(hot, |mark, _| half_life.used(mark, 1, NOW_MS, dithers.next().unwrap()));
    let after = heat_at(half_life, hotter, NOW_MS);
    assert!((1.7..2.3).contains(&(after / before)), "{before} {after}");
}

#[test]
fn what_was_counted_by_another_half_life_or_clock_makes_nothing_hot() {
    let day_ms = 86_400_000;
    let used = ten_minutes().used(mark(NOW_MS), 10, NOW_MS, 0);
    // Nor does what was used long ago.
    for days in [15, 20, 25] {
        assert!(heat_at(ten_minutes(), used, NOW_MS + days * day_ms) < 0.01, "{days}");
    }
    assert!(heat_at(ten_minutes(), used, NOW_MS - 30 * 60 * MINUTE_MS) <= 1.0);
    for minutes in [5, 11, 20, 60] {
        let other = HalfLife::new(Duration::from_secs(60 * minutes));
        assert!(heat_at(other, used, NOW_MS) <= 1.0, "{minutes}");
        // It counts on from there.
        let again = other.used(used, 9, NOW_MS, 0);
        assert!((9.0..11.0).contains(&heat_at(other, again, NOW_MS)), "{minutes}");
    }
}

#[test]
fn those_of_one_heat_go_by_their_last_touch() {
    let half_life = ten_minutes();
    let (older, newer) = (mark(NOW_MS), mark(NOW_MS + 1));
    assert!(half_life.warmth(older, NOW_MS + 20) < half_life.warmth(newer, NOW_MS + 20));
    let used = half_life.used(older, 3, NOW_MS + 10, 0);
    assert!(half_life.warmth(used, NOW_MS + 20) > half_life.warmth(newer, NOW_MS + 20));
}

proptest! {
    #[test]
    fn the_order_of_two_entries_stays_while_neither_is_used(
        first in 1..100_000_u32,
        second in 1..100_000_u32,
        apart_ms in 0..3_600_000_u64,
        later_ms in 0..1_000_000_000_u64,
        dither in any::<u32>(),
    ) {
        let half_life = ten_minutes();
        let used_ms = NOW_MS + apart_ms;
        let one = half_life.used(mark(NOW_MS), first, NOW_MS, dither);
        let other = half_life.used(mark(used_ms), second, used_ms, !dither);
        let order = |at_ms| half_life.warmth(one, at_ms).cmp(&half_life.warmth(other, at_ms));
        prop_assert_eq!(order(used_ms), order(used_ms + later_ms));
    }

    /// The segment may hold anything, and clocks may jump.
    #[test]
    fn any_mark_has_a_heat_and_keeps_its_touch(
        mark in any::<u64>(),
        uses in any::<u32>(),
        now_ms in any::<u64>(),
        dither in any::<u32>(),
        half_life_ms in any::<u64>(),
    ) {
        let half_life = HalfLife::new(Duration::from_millis(half_life_ms));
        half_life.warmth(mark, now_ms);
        let used = half_life.used(mark, uses, now_ms, dither);
        prop_assert_eq!(touched(used), touched(mark));
        prop_assert!(half_life.warmth(used, now_ms) >= half_life.warmth(mark, now_ms));
        prop_assert!(half_life.steps(used, now_ms) <= STEPS_MAX);
    }
}

#[test]
fn a_level_falls_by_sixteen_with_each_half_life_and_can_be_taken_from_another_home() {
    let half_life = ten_minutes();
    let mark = mark(NOW_MS);
    let at = |minutes: u64| NOW_MS + minutes * MINUTE_MS;
    assert_eq!(half_life.level(mark, at(0)), 0);
    assert_eq!(half_life.level(mark, at(10)), -16);
    assert_eq!(half_life.level_after(Duration::from_secs(600)), -16);
    assert_eq!(half_life.level_after(Duration::MAX), -i16::MAX);
    let hot = half_life.raised(mark, 32, at(10));
    assert_eq!(half_life.level(hot, at(10)), 32);
    assert_eq!(half_life.level(hot, at(30)), 0);
    assert_eq!(half_life.raised(hot, 31, at(10)), hot, "it was seen cooler elsewhere");
    assert_eq!(half_life.raised(mark, i16::MIN, at(0)), mark);
    let hottest = half_life.raised(mark, i16::MAX, at(0));
    assert_eq!(i32::from(half_life.level(hottest, at(0))), STEPS_MAX);
}

/// As many as there are sessions that are used in turn.
#[test]
fn every_part_of_the_dither_is_spread_evenly() {
    for part in [1, 2, 3, 610, 1_000, 1_024, 1_597, 2_584, 4_181] {
        let mut dither = Dither::default();
        let numbers: Vec<u32> = (0..1_000 * part).map(|_| dither.draw()).collect();
        let mean = numbers.iter().step_by(part).map(|it| f64::from(*it)).sum::<f64>() / 1_000.0;
        let mean = mean / f64::from(u32::MAX);
        assert!((0.45..0.55).contains(&mean), "{part}: {mean}");
    }
}

#[test]
fn a_level_is_a_heat_and_back() {
    assert_eq!([0, 16, 32, 160, -16].map(HalfLife::heat), [1, 2, 4, 1_024, 1]);
    assert_eq!(HalfLife::heat(-17), 0);
    for heat in [1, 2, 3, 10, 1_000, 1_024, 123_456, 1 << 30, 1 << 40] {
        let level = HalfLife::level_of(heat);
        assert!(HalfLife::heat(level) >= heat);
        assert!(level == 0 || HalfLife::heat(level - 1) < heat);
    }
    assert_eq!(HalfLife::level_of(0), HalfLife::level_of(1));
    assert_eq!(HalfLife::level_of(u64::MAX), HalfLife::level_of(1 << 40));
}
