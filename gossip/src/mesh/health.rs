//! How far this node may trust its own judgement.

use super::*;

/// Local health as in Lifeguard (arXiv 1707.00788): 0 when all is well, growing when what goes wrong
/// points at this node itself. Its probes and suspicions take that many times longer, and once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    score: u8,
    max: u8,
}

impl Health {
    pub(super) fn new(max: u8) -> Self {
        Self { score: 0, max }
    }

    pub(super) fn score(self) -> u8 {
        self.score
    }

    /// By how much judgements are slowed.
    pub(super) fn factor(self) -> u32 {
        u32::from(self.score) + 1
    }

    pub(super) fn slowed(self, time: Duration) -> Duration {
        time * self.factor()
    }

    pub(super) fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(super) fn worsen(&mut self, by: usize) {
        let by = u8::try_from(by).unwrap_or(u8::MAX);
        self.score = self.score.saturating_add(by).min(self.max);
    }
}

/// Whether anybody hears this node: it asks those that it heard last, who are likely to be alive.
#[derive(Default)]
pub(super) struct Hearing {
    /// Who was heard last, the latest at the end.
    fresh: VecDeque<Peer>,
    number: u8,
    /// Who was asked, and has not answered.
    asked: Vec<Peer>,
    /// How many were asked.
    count: usize,
    at: Option<Duration>,
}

impl Mesh {
    /// A member was heard.
    pub(super) fn note_fresh(&mut self, src: Peer) {
        let fresh = &mut self.hearing.fresh;
        if fresh.back() == Some(&src) {
            return;
        }
        fresh.retain(|peer| peer.id != src.id);
        fresh.push_back(src);
        if fresh.len() > FRESH_MAX {
            fresh.pop_front();
        }
    }

    /// Pings those that were heard last, but for one: whether they answer in time says how far this
    /// node may judge others.
    pub(super) fn check_hearing(&mut self, but: Option<Peer>) {
        let pause = self.health.slowed(self.config.probe_rtt);
        if self.hearing.at.is_some_and(|at| self.now < at + pause) {
            return;
        }
        let hearing = &mut self.hearing;
        hearing.at = Some(self.now);
        // Drawn, so that old answers to pings of other kinds are no answers to these.
        hearing.number = self.rng.random();
        let fresh = hearing.fresh.iter().rev().filter(|peer| Some(**peer) != but);
        hearing.asked = fresh.take(CHECKED_MAX).copied().collect();
        hearing.count = hearing.asked.len();
        let number = hearing.number;
        for peer in hearing.asked.clone() {
            self.ping(Channel::Datagram, peer, number, None);
        }
    }

    /// Whether a member answers such a ping, and so most have: one might be a very old answer.
    pub(super) fn answers_check(&mut self, src: &Peer, number: u8) -> bool {
        let hearing = &mut self.hearing;
        if number != hearing.number {
            return false;
        }
        let before = hearing.asked.len();
        hearing.asked.retain(|peer| peer != src);
        let silent = hearing.asked.len();
        silent < before && 2 * silent < hearing.count
    }

    /// A probe has failed. Whoever heard us and answered speaks for us, and so against the member:
    /// unless most are silent, which single lost packets do not bring about.
    pub(super) fn judge_hearing(&mut self) {
        let hearing = &mut self.hearing;
        let silent = std::mem::take(&mut hearing.asked);
        let count = std::mem::take(&mut hearing.count);
        // Whoever is silent is asked again when it was heard again, and not before: it may be dead.
        hearing.fresh.retain(|peer| !silent.contains(peer));
        let silent = silent.len();
        if 2 * silent > count {
            self.health.worsen(silent);
        } else if count > 0 {
            self.health.improve();
        }
    }
}

/// Most members remembered as heard last.
const FRESH_MAX: usize = 8;
/// Most of them that are asked at a time.
const CHECKED_MAX: usize = 3;
