//! What becomes of deadlines.

use super::*;

impl Mesh {
    pub(super) fn on_swim_timer(&mut self, timer: Timer<Peer>) {
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            let (peer, incarnation) = (*member_id, *incarnation);
            if self.verifying.get(&peer.id) == Some(&incarnation) {
                return;
            }
            if !self.is_suspect(&peer, incarnation) {
                // foca would tell a member that has refuted already to renew.
                self.counters.suspicions_refuted += 1;
                return;
            }
            if self.is_unheard() {
                self.counters.deaths_held_back += 1;
                self.timers.set(self.now + self.config.probe_period, Due::Swim(timer));
                return;
            }
            self.verifying.insert(peer.id, incarnation);
            self.on_verify(timer, self.config.verify_pings);
            return;
        }
        // An error says that the timer is outdated.
        let _ = self.foca.handle_timer(timer, &mut self.effects);
    }

    /// Asks a suspect once more, and tells it of the suspicion; or lets foca declare it down.
    pub(super) fn on_verify(&mut self, timer: Timer<Peer>, pings_left: u8) {
        let Timer::ChangeSuspectToDown { member_id: peer, incarnation, .. } = timer else {
            return;
        };
        if !self.is_suspect(&peer, incarnation) {
            self.verifying.remove(&peer.id);
            self.counters.suspicions_verified_away += 1;
            return;
        }
        if self.is_unheard() {
            self.verifying.remove(&peer.id);
            self.counters.deaths_held_back += 1;
            self.timers.set(self.now + self.config.probe_period, Due::Swim(timer));
            return;
        }
        if pings_left == 0 {
            self.verifying.remove(&peer.id);
            let _ = self.foca.handle_timer(timer, &mut self.effects);
            return;
        }
        // foca's own ping, with the suspicion in its list of news: the suspect refutes it, and its
        // answer carries the refutation.
        let src = *self.foca.identity();
        let message = Message::Ping(0);
        let header = Header { src, src_incarnation: 0, dst: peer, message };
        let suspicion = foca::Member::new(peer, incarnation, State::Suspect);
        let mut packet = Vec::with_capacity(160);
        SwimCodec.encode_header(&header, &mut packet).expect("a vector takes every header");
        packet.extend_from_slice(&1u16.to_be_bytes());
        SwimCodec.encode_member(&suspicion, &mut packet).expect("a vector takes every member");
        self.transmit(peer.addr, wire::swim(self.view.digest(), &packet));
        let at = self.now + self.config.probe_rtt;
        self.timers.set(at, Due::Verify { timer, pings_left: pings_left - 1 });
    }

    /// Sends an unanswered ping again.
    pub(super) fn on_repeat(&mut self, number: u8) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number) else {
            return;
        };
        if probe.repeats == 0 {
            return;
        }
        probe.repeats -= 1;
        let packet = wire::swim(self.view.digest(), &probe.ping);
        let to = probe.to.addr;
        self.transmit(to, packet);
        self.timers.set(self.now + self.config.probe_rtt / 2, Due::Repeat(number));
    }

    fn is_suspect(&self, peer: &Peer, incarnation: u16) -> bool {
        let mut members = self.foca.iter_membership_state();
        members.any(|member| {
            member.id() == peer
                && member.incarnation() == incarnation
                && member.state() == State::Suspect
        })
    }

    /// Announces to whoever should be a member and is not, or else to anybody: two clusters of one
    /// name may each be content with itself.
    pub(super) fn on_announce_due(&mut self) {
        let active = self.foca.iter_members().map(|m| m.id().addr).collect::<BTreeSet<_>>();
        let known = self.peers();
        let mut all = self.seeds.clone();
        all.extend(known.iter().filter(|addr| !self.seeds.contains(addr)));
        let lost = all.iter().filter(|addr| !active.contains(addr)).copied().collect::<Vec<_>>();
        let mut targets = Vec::new();
        if lost.is_empty() {
            self.announce_after = self.config.announce_period;
            if !all.is_empty() {
                targets.push(all[self.rng.random_range(0..all.len())]);
            }
        } else {
            for _ in 0..ANNOUNCE_TARGETS.min(lost.len()) {
                self.announce_cursor = self.announce_cursor.wrapping_add(1);
                targets.push(lost[self.announce_cursor % lost.len()]);
            }
        }
        for to in targets {
            self.send_announce(to);
        }
        let after = self.jittered(self.announce_after);
        self.announce_after = (self.announce_after * 2).min(self.config.announce_period);
        self.timers.set(self.now + after, Due::Announce);
    }

    pub(super) fn on_exchange_due(&mut self) {
        let active = self.others().filter(|m| m.status.is_active());
        let active = active.map(|m| self.addr_of(m)).collect::<Vec<_>>();
        if !active.is_empty() {
            let with = active[self.rng.random_range(0..active.len())];
            self.ask_exchange(with);
        }
        let after = self.jittered(self.config.exchange_period);
        self.timers.set(self.now + after, Due::Exchange);
    }

    pub(super) fn on_housekeeping(&mut self) {
        self.timers.set(self.now + HOUSEKEEPING, Due::Housekeeping);
        self.spread_load();
        let has_others = self.others().any(|m| m.status.is_active());
        if has_others && self.now >= self.answered_at + self.config.isolated_after {
            self.isolate();
            return;
        }
        self.confirm_presumed();
        self.reconcile();
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
            self.revise();
        }
    }

    /// Makes foca probe whoever is active in the view, and the view follow foca's deaths: whatever
    /// was lost on the way between the two.
    fn reconcile(&mut self) {
        let mut swim = BTreeMap::new();
        for member in self.foca.iter_membership_state() {
            swim.insert(member.id().id, (*member.id(), member.state()));
        }
        let latest =
            |member: &Member| self.held.get(&member.id).map_or(member, |held| &held.member).clone();
        let active = self.others().filter(|m| m.status.is_active()).map(latest).collect::<Vec<_>>();
        for member in active {
            match swim.get(&member.id) {
                Some((peer, State::Down)) if peer.incarnation >= member.incarnation => {
                    if !self.missing.contains_key(&member.id) {
                        let peer = *peer;
                        self.miss(&peer);
                    }
                }
                Some((peer, _)) if peer.incarnation >= member.incarnation => {}
                _ => self.tell_foca(&member, true),
            }
        }
    }

    /// Says goodbye to everybody, for what it is worth.
    pub(super) fn on_farewell(&mut self, left: u8) {
        let active = self.others().filter(|m| m.status.is_active());
        let active = active.map(|m| self.addr_of(m)).collect::<Vec<_>>();
        let packet = wire::facts(self.view.digest(), &[&self.me]);
        for to in active {
            self.transmit(to, packet.clone());
        }
        if left > 1 {
            let at = self.now + FAREWELL / u32::from(FAREWELLS);
            self.timers.set(at, Due::Farewell(left - 1));
        }
    }
}

const LOAD_PERIOD_PER_MEMBER: Duration = Duration::from_millis(100);
