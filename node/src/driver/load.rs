//! The host's load, out of `/proc`.

use std::fs;

use annulus_proto::Load;
use annulus_proto::message::HostLoad;

/// Reads the host's load, and knows what it read before.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Processor time: all of it, and that without work.
    processor: (u64, u64),
    /// Bytes over the network.
    network: Option<u64>,
}

impl Meter {
    /// The host's load since the last call, about a second ago, as far as it can be read.
    pub(super) fn read(&mut self) -> (Load, HostLoad) {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (total, available) = (kib(&memory, "MemTotal:"), kib(&memory, "MemAvailable:"));
        let now = processor_time(&stat);
        let (all, idle) =
            (now.0.saturating_sub(self.processor.0), now.1.saturating_sub(self.processor.1));
        self.processor = now;
        let load = Load {
            cpu_permille: permille(all.saturating_sub(idle), all),
            memory_permille: match (total, available) {
                (Some(total), Some(available)) => permille(total.saturating_sub(available), total),
                _ => 0,
            },
            sessions: 0,
        };
        let text = |path| fs::read_to_string(path).ok();
        let host = HostLoad {
            cpu_permille: text("/proc/loadavg").and_then(|text| waiting(&text, processors(&stat))),
            memory_free: available.map(|kib| kib.saturating_mul(1024)),
            io_permille: text("/proc/pressure/io").and_then(|text| stalled(&text)),
            network_bytes: text("/proc/net/dev").and_then(|text| self.network(carried(&text))),
        };
        (load, host)
    }

    /// What went over the network since the last call, from how much it was so far.
    fn network(&mut self, bytes: u64) -> Option<u64> {
        let before = self.network.replace(bytes)?;
        Some(bytes.saturating_sub(before))
    }
}

fn kib(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// All ticks of the processors, and those without work.
fn processor_time(stat: &str) -> (u64, u64) {
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    (ticks.iter().sum(), ticks.iter().skip(3).take(2).sum())
}

fn processors(stat: &str) -> usize {
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(is_one).count()
}

/// Tasks that ran or waited to run, per processor, in thousandths.
fn waiting(loadavg: &str, processors: usize) -> Option<u32> {
    let load: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    (processors > 0).then(|| (load * 1000.0 / processors as f64) as u32)
}

/// For how much of the time some task waited for storage, in thousandths.
fn stalled(pressure: &str) -> Option<u32> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let percent = some.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?;
    percent.parse::<f64>().ok().map(|percent| (percent * 10.0) as u32)
}

/// Bytes that all interfaces but loopback have carried so far, both ways.
fn carried(dev: &str) -> u64 {
    let of_interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> =
            counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let (received, sent) = (counts.first()?, counts.get(8)?);
        (name.trim() != "lo").then(|| received.saturating_add(*sent))
    };
    dev.lines().filter_map(of_interface).sum()
}

fn permille(part: u64, whole: u64) -> u16 {
    u16::try_from((part * 1000).checked_div(whole).unwrap_or(0)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let stat = "cpu  10 0 20 60 10 0 0 0 0 0\ncpu0 5 0 10 30 5 0 0 0 0 0\n\
                    cpu1 5 0 10 30 5 0 0 0 0 0\nintr 1 2 3\nctxt 5\n";
        assert_eq!((processor_time(stat), processors(stat)), ((100, 70), 2));
        assert_eq!(waiting("1.50 0.70 0.60 2/300 12345\n", 2), Some(750));
        let pressure = "some avg10=2.57 avg60=0.10 avg300=0.00 total=12\n\
                        full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(stalled(pressure), Some(25));
        let dev = "Inter-|   Receive                            |  Transmit\n\
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes\n\
                   lo: 500 5 0 0 0 0 0 0 500 5 0 0 0 0 0 0\n\
                   eth0: 1000 5 0 0 0 0 0 0 200 5 0 0 0 0 0 0\n\
                   eth1:30 5 0 0 0 0 0 0 4 5 0 0 0 0 0 0\n";
        assert_eq!(carried(dev), 1234);
        assert_eq!(kib("MemTotal:  8 kB\nMemAvailable:   7 kB\n", "MemAvailable:"), Some(7));
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        assert_eq!(waiting("", 2), None);
        assert_eq!(waiting("0.5 0 0", 0), None);
        assert_eq!(stalled("full avg10=1.00\n"), None);
        assert_eq!(kib("MemTotal: 8 kB\n", "MemAvailable:"), None);
        assert_eq!(carried("nonsense"), 0);
    }
}
