//! What each node should hold.

use super::turns::Turns;
use super::{GROUPS, Site};

/// What a site gets of the first so many homes of all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// How many groups it holds at most.
    pub(super) groups_max: u16,
    /// What its turns' times are multiplied by: the more it should get, the less.
    pub(super) delay: u128,
}

/// The shares of the first `homes` homes.
///
/// The copies of a group are divided by weight, as far as no node can hold two of them and, while
/// there are enough zones, no zone either: what is above that goes to the others, by weight. With
/// fewer zones than homes each zone gets one copy at least.
pub(super) fn shares(sites: &[Site], zones: &[u64], homes: usize) -> Vec<Share> {
    let due = due(sites, zones, homes);
    let most = sites.iter().zip(&due).map(|(site, due)| groups_max(&site.turns, *due, homes));
    let shares = most.zip(delays(sites, zones, homes, &due));
    shares.map(|(groups_max, delay)| Share { groups_max, delay }).collect()
}

/// How many of a group's first `homes` copies each site should hold, on average: in units of 2^-32,
/// at most [`ONE`].
pub(super) fn due(sites: &[Site], zones: &[u64], homes: usize) -> Vec<u64> {
    let by_zone = homes <= zones.len();
    let capped = |level: u64, weight: u64| {
        ((u128::from(level) * u128::from(weight)) >> LEVEL_SHIFT).min(ONE.into()) as u64
    };
    let in_zone = |level: u64| {
        let mut due = vec![0; zones.len()];
        if by_zone {
            due.iter_mut().zip(zones).for_each(|(due, weight)| *due = capped(level, *weight));
        } else {
            sites.iter().for_each(|site| due[site.zone] += capped(level, site.weight.into()));
            due.iter_mut().for_each(|due| *due = (*due).max(ONE));
        }
        due
    };
    // The highest level at which no more is given away than there is.
    let (mut level, mut above) = (0, (ONE << LEVEL_SHIFT) + 1);
    while above - level > 1 {
        let middle = u64::midpoint(level, above);
        let fits = in_zone(middle).iter().sum::<u64>() <= homes as u64 * ONE;
        *if fits { &mut level } else { &mut above } = middle;
    }
    let zone_due = in_zone(level);
    let due = |site: &Site| {
        if by_zone || zone_due[site.zone] == ONE {
            part(zone_due[site.zone], site.weight, zones[site.zone])
        } else {
            capped(level, site.weight.into())
        }
    };
    sites.iter().map(due).collect()
}

/// More than a node's share by a tenth and up to two groups for primaries and second homes, by up to
/// 11 % for the rest, and by more where a share is few groups.
///
/// The last fraction of a group depends on the node. Were it the same for all, they would all give
/// away a group at the same time when there is one node more.
fn groups_max(turns: &Turns, due: u64, homes: usize) -> u16 {
    let share = due * u64::from(GROUPS);
    let slack = match homes {
        1 | 2 => (share / 10 + ONE).min(share / 4),
        // The root of `share` has 16 bits after the point.
        _ => (share / 100 * 11).max((share.isqrt() << 16) / 100 * 61).saturating_sub(ONE),
    };
    let most = (share + slack + u64::from(turns.dither)) >> 32;
    most.clamp(share.div_ceil(ONE), GROUPS.into()) as u16
}

/// What makes each site get what is due to it.
///
/// The race for the first home is weighted rendezvous, which is exact: times are divided by
/// weights. For more homes that would not be enough for heavy ones, as they cannot come twice. So
/// zones race at the rate of one draw that makes `m` draws find them as often as they are due, and
/// a node has its part of its zone's rate by weight. Then the best of a zone does what one node of
/// the zone's rate would do, and what a zone gains with a node, that node gets.
fn delays(sites: &[Site], zones: &[u64], homes: usize, due: &[u64]) -> Vec<u128> {
    let mut zone_due = vec![0; zones.len()];
    sites.iter().zip(due).for_each(|(site, due)| zone_due[site.zone] += due);
    // Divisions left a bit or two.
    let is_whole = |due: u64| due + (1 << 12) >= ONE;
    let draws = match homes.checked_sub(zones.len()) {
        None | Some(0) => homes - zone_due.iter().filter(|due| is_whole(**due)).count(),
        Some(more) => more,
    };
    let mut last = (0, 1);
    let mut rate = |due: u64| {
        if last.0 != due {
            let rate = if is_whole(due) { ONE << 20 } else { ONE - root(ONE - due, draws) };
            last = (due, rate.max(1));
        }
        u128::from(last.1)
    };
    let delay = |(site, due): (&Site, &u64)| {
        let (weight, zone) = (u128::from(site.weight), u128::from(zones[site.zone]));
        if homes == 1 {
            (1 << DELAY_SHIFT) / weight
        } else if homes <= zones.len() {
            (zone << DELAY_SHIFT) / (weight * rate(zone_due[site.zone]))
        } else {
            // What it does not get as one of the first homes, where they are others.
            let first = part(ONE, site.weight, zones[site.zone]);
            let rest = u128::from(due.saturating_sub(first)) << 32;
            (1 << DELAY_SHIFT) / rate((rest / u128::from((ONE - first).max(1))) as u64)
        }
    };
    sites.iter().zip(due).map(delay).collect()
}

fn part(whole: u64, weight: u16, of: u64) -> u64 {
    (u128::from(whole) * u128::from(weight) / u128::from(of)) as u64
}

/// The root of a fraction: the greatest `y` with `y^degree <= x`, both in units of 2^-32.
pub(super) fn root(x: u64, degree: usize) -> u64 {
    let (mut root, mut above) = (0, ONE + 1);
    while above - root > 1 {
        let middle = u64::midpoint(root, above);
        let power = (1..degree)
            .fold(middle, |power, _| ((u128::from(power) * u128::from(middle)) >> 32) as u64);
        *if power <= x { &mut root } else { &mut above } = middle;
    }
    root
}

/// A whole copy.
pub(super) const ONE: u64 = 1 << 32;
const LEVEL_SHIFT: u32 = 20;
const DELAY_SHIFT: u32 = 64;
