//! The host's load, out of `/proc`.

use std::fs;

use annulus_proto::Load;

/// The host's load, as far as it can be read; `before` is the processor time of the last call.
pub(super) fn measure_load(before: &mut (u64, u64)) -> Load {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |field: &str| -> u64 {
        let line = memory.lines().find(|line| line.starts_with(field));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let (total, available) = (kib("MemTotal:"), kib("MemAvailable:"));
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let idle = ticks.iter().skip(3).take(2).sum::<u64>();
    let now = (ticks.iter().sum::<u64>(), idle);
    let (all, idle) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    *before = now;
    Load {
        cpu_permille: permille(all.saturating_sub(idle), all),
        memory_permille: permille(total.saturating_sub(available), total),
        sessions: 0,
    }
}

fn permille(part: u64, whole: u64) -> u16 {
    u16::try_from((part * 1000).checked_div(whole).unwrap_or(0)).unwrap_or(1000)
}
