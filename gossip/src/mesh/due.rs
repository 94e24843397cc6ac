//! What becomes of deadlines.

use super::*;

impl Mesh {
    pub(super) fn on_swim_timer(&mut self, timer: Timer<Peer>) {
        match timer {
            Timer::SendIndirectProbe { .. } => self.on_indirect_due(timer),
            Timer::ProbeRandomMember(_) => self.on_probe_due(timer),
            // An error says that the timer is outdated.
            _ => drop(self.foca.handle_timer(timer, &mut self.effects)),
        }
    }

    /// Announces to whoever should be a member and is not, or else to anybody: two clusters of one
    /// name may each be content with itself.
    pub(super) fn on_announce_due(&mut self) {
        let active = self.foca.iter_members().map(|m| m.id().addr).collect::<BTreeSet<_>>();
        let known = self.peers().map(|(_, addr)| addr);
        let mut all = self.seeds.clone();
        all.extend(known.filter(|addr| !self.seeds.contains(addr)));
        let lost = all.iter().filter(|addr| !active.contains(addr)).copied().collect::<Vec<_>>();
        let mut pause = self.announce_after;
        let mut target = None;
        if lost.is_empty() {
            // Little is to be won, and each answer is as large as a packet may be.
            self.announce_after = self.config.announce_period;
            pause = CONTENT * self.announce_after;
            if !all.is_empty() {
                target = Some(all[self.rng.random_range(0..all.len())]);
            }
        } else {
            self.announce_cursor = self.announce_cursor.wrapping_add(1);
            target = Some(lost[self.announce_cursor % lost.len()]);
        }
        if let Some(to) = target {
            self.send_announce(to);
        }
        // One after the other: three at once would reach whoever is back no sooner than the first.
        let turns = if lost.len() > 1 { ANNOUNCE_TURNS } else { 1 };
        let after = self.jittered(pause / turns);
        self.announce_after = if self.presumed.is_empty() {
            (self.announce_after + self.announce_after / turns).min(self.config.announce_period)
        } else {
            ANNOUNCE_ALONE
        };
        if !self.has_exchanged {
            // Whoever was asked first may be slow; others are known by now.
            let members = self.foca.iter_members().map(|member| member.id().addr);
            let members = members.collect::<Vec<_>>();
            if !members.is_empty() {
                let with = members[self.rng.random_range(0..members.len())];
                self.ask_exchange(with);
            }
        }
        self.timers.set(self.now + after, Due::Announce);
    }

    pub(super) fn on_exchange_due(&mut self) {
        let after = self.jittered(self.config.exchange_period);
        self.timers.set(self.now + after, Due::Exchange);
        let one_in = (self.view.len() / EXCHANGE_MEMBERS).max(1);
        if self.rng.random_range(0..one_in) > 0 {
            return;
        }
        let active = self.others().filter(|m| m.status.is_active());
        let active = active.map(|m| self.addr_of(m)).collect::<Vec<_>>();
        if !active.is_empty() {
            let with = active[self.rng.random_range(0..active.len())];
            self.ask_exchange(with);
        }
    }

    pub(super) fn on_housekeeping(&mut self) {
        self.timers.set(self.now + HOUSEKEEPING, Due::Housekeeping);
        self.spread_load();
        self.on_held_back();
        let has_others = self.others().any(|m| m.status.is_active());
        if has_others && self.now >= self.heard_at + self.config.isolated_after {
            self.isolate();
            return;
        }
        self.confirm_presumed();
        if self.now >= self.reconcile_at {
            // It looks at each member: in a large cluster more rarely.
            self.reconcile_at = self.now + RECONCILE_PER_MEMBER * self.view.len() as u32;
            self.reconcile();
        }
    }

    fn spread_load(&mut self) {
        if self.now < self.load_at_soonest {
            return;
        }
        if let Some(load) = self.load.take() {
            let members = u32::try_from(self.view.len()).unwrap_or(u32::MAX);
            let period = self.config.load_period.max(LOAD_PERIOD_PER_MEMBER * members);
            self.load_at_soonest = self.now + period;
            self.me.load = load;
            self.me.revision = self.me.revision.saturating_add(1);
            self.view.merge(self.me.clone());
            self.spread_a_little(&self.me.clone());
        }
    }

    /// Makes foca probe whoever is active in the view, and the view follow foca's deaths: whatever
    /// was lost on the way between the two.
    fn reconcile(&mut self) {
        let swim = self.foca.iter_membership_state().map(|m| (*m.id(), m.state()));
        let mut swim = swim.collect::<Vec<_>>();
        swim.sort_unstable_by_key(|(peer, _)| peer.id);
        let (mut dead, mut unknown) = (Vec::new(), Vec::new());
        // Each second, over all members: nothing is copied but what has to be said.
        for member in self.others().filter(|m| m.status.is_active()) {
            let latest = self.held.get(&member.id).map_or(member, |held| &held.member);
            let known = swim.binary_search_by_key(&latest.id, |(peer, _)| peer.id);
            match known.map(|at| swim[at]) {
                Ok((peer, state)) if peer.incarnation >= latest.incarnation => {
                    if state == State::Down && !self.missing.contains_key(&peer.id) {
                        dead.push(peer);
                    }
                }
                _ => unknown.push(latest.clone()),
            }
        }
        for peer in dead {
            self.miss(&peer);
        }
        for member in unknown {
            self.tell_foca(&member, true);
        }
    }
}

/// How much time there is for each member between two looks at all of them.
const RECONCILE_PER_MEMBER: Duration = Duration::from_millis(10);
/// The largest cluster in which all members are exchanged every `exchange_period`.
const EXCHANGE_MEMBERS: usize = 16;
/// How many times longer the pause between announcements is while nobody is missing.
const CONTENT: u32 = 4;
const LOAD_PERIOD_PER_MEMBER: Duration = Duration::from_secs(4);
