//! TCP as far as membership feels it: loss makes what is said late, a partition makes it fail.
//!
//! A flight is one message on its way. It is sent, and sent again at growing intervals for as long
//! as somebody waits for it. What is left out: congestion beyond slow start, and retransmissions
//! that were not needed.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::net::Net;

/// IPv4 and TCP headers, without options.
pub(crate) const SEGMENT_HEADERS: usize = 40;
/// What a segment carries: 1500 less headers and timestamps.
const SEGMENT_BYTES: usize = 1_448;
/// Linux: the first retransmission of a SYN, doubled each time.
const SYN_AGAIN: Duration = Duration::from_secs(1);
/// Linux: the least time before data is sent again, doubled each time. On a LAN it is this.
const DATA_AGAIN: Duration = Duration::from_millis(200);
/// The first window (RFC 6928), in segments; doubled each round trip.
const WINDOW: usize = 10;
/// So many segments must arrive behind a lost one for it to be sent again at once (RFC 5681).
const FAST: usize = 3;

/// What becomes of one attempt.
pub(crate) enum Attempt {
    /// All of it is there so much later.
    Arrives(Duration),
    /// To be tried again so much later.
    Again(Duration),
}

/// Opening: a SYN and its answer. Both must get through.
pub(crate) fn connect(
    net: &Net,
    rng: &mut StdRng,
    from: usize,
    to: usize,
    is_there: bool,
    attempt: u32,
) -> Attempt {
    let there = net.carry(rng, from, to).filter(|_| is_there);
    let back = net.carry(rng, to, from);
    match there.zip(back) {
        Some((there, back)) => Attempt::Arrives(there + back),
        None => Attempt::Again(SYN_AGAIN * 2_u32.saturating_pow(attempt)),
    }
}

/// What is sent to a host that is not there is sent again, later and later.
pub(crate) fn again(attempt: u32) -> Attempt {
    Attempt::Again(DATA_AGAIN * 2_u32.saturating_pow(attempt))
}

/// One message of so many bytes. What was lost of it is sent again after a round trip if enough
/// follows it, after [`DATA_AGAIN`] if not; of what cannot arrive at all, the whole is tried again.
pub(crate) fn send(
    net: &Net,
    rng: &mut StdRng,
    from: usize,
    to: usize,
    bytes: usize,
    attempt: u32,
) -> Attempt {
    if !net.reaches(from, to) {
        return again(attempt);
    }
    let segments = segments(bytes);
    if segments == 1 {
        return net.carry(rng, from, to).map_or_else(|| again(attempt), Attempt::Arrives);
    }
    let latency = net.travel(rng, to);
    let round_trip = latency + net.travel(rng, from);
    let (mut took, mut left, mut window) = (Duration::ZERO, segments, WINDOW);
    while left > 0 {
        let flying = window.min(left);
        let mut worst = Duration::ZERO;
        for behind in (0..flying).rev() {
            let mut tries = 0;
            while net.loss > 0.0 && rng.random_bool(net.loss) {
                tries += 1;
            }
            let late = match tries {
                0 => Duration::ZERO,
                1 if behind >= FAST => round_trip,
                // The timer doubles: 1 + 2 + 4 … of it.
                _ => DATA_AGAIN * (2_u32.saturating_pow(tries.min(16)) - 1),
            };
            worst = worst.max(late);
        }
        left -= flying;
        window = if worst.is_zero() { window * 2 } else { WINDOW };
        took += worst + if left > 0 { round_trip } else { Duration::ZERO };
    }
    Attempt::Arrives(took + latency)
}

/// Bytes on the wire for one attempt at a message: by its sender, and for its acknowledgements
/// (one for two segments) by its receiver.
pub(crate) fn wire_bytes(bytes: usize) -> (u64, u64) {
    let segments = segments(bytes);
    let sent = bytes + segments * SEGMENT_HEADERS;
    let acknowledged = segments.div_ceil(2) * SEGMENT_HEADERS;
    (sent as u64, acknowledged as u64)
}

fn segments(bytes: usize) -> usize {
    bytes.div_ceil(SEGMENT_BYTES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn arrivals(loss: f64, bytes: usize) -> Vec<Duration> {
        let net = Net { loss, ..Net::default() };
        let mut rng = StdRng::seed_from_u64(1);
        let mut times = Vec::new();
        for _ in 0..1_000 {
            let (mut waited, mut attempt) = (Duration::ZERO, 0);
            times.push(loop {
                match send(&net, &mut rng, 0, 1, bytes, attempt) {
                    Attempt::Arrives(after) => break waited + after,
                    Attempt::Again(after) => waited += after,
                }
                attempt += 1;
            });
        }
        times.sort_unstable();
        times
    }

    #[test]
    fn without_loss_a_message_takes_a_latency_and_a_large_one_some_round_trips() {
        let small = arrivals(0.0, 100);
        assert!(small[0] >= Duration::from_micros(500) && small[999] <= Duration::from_millis(2));
        // 60 kB are 42 segments: windows of 10, 20 and 12.
        let large = arrivals(0.0, 60_000);
        assert!(
            large[0] >= Duration::from_micros(2_500) && large[999] <= Duration::from_millis(10)
        );
    }

    #[test]
    fn loss_makes_a_message_late_and_loses_none() {
        let times = arrivals(0.3, 100);
        let late = times.iter().filter(|time| **time >= DATA_AGAIN).count();
        assert!((250..350).contains(&late), "{late}");
        let twice = times.iter().filter(|time| **time >= 3 * DATA_AGAIN).count();
        assert!((60..130).contains(&twice), "{twice}");
    }

    #[test]
    fn what_cannot_get_through_is_tried_again_later_and_later() {
        let mut net = Net::default();
        net.one_way.insert((1, 0));
        let mut rng = StdRng::seed_from_u64(2);
        for attempt in 0..4 {
            let Attempt::Again(after) = connect(&net, &mut rng, 0, 1, true, attempt) else {
                panic!("the answer cannot get through");
            };
            assert_eq!(after, SYN_AGAIN * 2_u32.pow(attempt));
        }
        assert!(matches!(send(&net, &mut rng, 0, 1, 10, 0), Attempt::Arrives(_)));
        assert!(
            matches!(send(&net, &mut rng, 1, 0, 10, 2), Attempt::Again(a) if a == 4 * DATA_AGAIN)
        );
        assert!(matches!(connect(&net, &mut rng, 0, 2, false, 0), Attempt::Again(_)));
    }
}
