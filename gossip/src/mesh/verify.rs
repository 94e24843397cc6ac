//! From a suspicion to foca's conclusion: the suspect is asked, and others whether they reach it.

use super::*;

/// A suspicion whose time is up.
pub(super) struct Verifying {
    suspect: Peer,
    incarnation: u16,
    /// Whoever was asked about it.
    peers: Vec<Peer>,
    has_voucher: bool,
}

/// A suspect of somebody else's that this node tries to reach.
pub(super) struct Asked {
    suspect: Peer,
    incarnation: u16,
    askers: Vec<Peer>,
    pings_left: u8,
}

impl Mesh {
    /// The time of a suspicion is up.
    pub(super) fn on_suspicion_due(&mut self, timer: Timer<Peer>, after: Duration, factor: u32) {
        let Timer::ChangeSuspectToDown { member_id: peer, incarnation, .. } = timer else { return };
        if self.verifying.get(&peer.id).is_some_and(|it| it.incarnation == incarnation) {
            return;
        }
        if !self.is_suspect(&peer, incarnation) && !self.lacks(Guard::StaleSuspicions) {
            // foca would tell a member that has refuted already to renew.
            self.counters.suspicions_refuted += 1;
            return;
        }
        let now_factor = self.health.factor();
        if now_factor > factor {
            // This node has come to trust itself less since.
            let more = after * (now_factor - factor);
            self.timers.set(self.now + more, Due::Suspicion { timer, after, factor: now_factor });
            return;
        }
        if self.is_unheard() {
            self.hold_back(timer);
            return;
        }
        let peers = self.verifiers(&peer);
        let has_voucher = false;
        let verifying = Verifying { suspect: peer, incarnation, peers, has_voucher };
        self.verifying.insert(peer.id, verifying);
        self.on_verify(timer, self.config.verify_pings);
    }

    /// Nobody answers this node: whom it suspects has as long again.
    fn hold_back(&mut self, timer: Timer<Peer>) {
        self.counters.deaths_held_back += 1;
        self.check_hearing(None);
        self.suspect_longer(timer, self.config.probe_period);
    }

    fn suspect_longer(&mut self, timer: Timer<Peer>, after: Duration) {
        let factor = self.health.factor();
        self.timers.set(self.now + after, Due::Suspicion { timer, after, factor });
    }

    /// Asks the suspect and the others once more, and tells it of the suspicion; or lets foca declare
    /// it down.
    pub(super) fn on_verify(&mut self, timer: Timer<Peer>, pings_left: u8) {
        let Timer::ChangeSuspectToDown { member_id: peer, incarnation, .. } = timer else { return };
        if !self.is_suspect(&peer, incarnation) && !self.lacks(Guard::StaleSuspicions) {
            self.verifying.remove(&peer.id);
            self.counters.suspicions_verified_away += 1;
            return;
        }
        if self.is_unheard() {
            self.verifying.remove(&peer.id);
            self.hold_back(timer);
            return;
        }
        if pings_left == 0 {
            let verifying = self.verifying.remove(&peer.id);
            if verifying.is_some_and(|verifying| verifying.has_voucher) {
                self.suspect_longer(timer, self.config.suspect_for);
                return;
            }
            self.trace_death(&peer);
            let _ = self.foca.handle_timer(timer, &mut self.effects);
            return;
        }
        self.ping_suspect(Channel::Datagram, peer, incarnation);
        let round = self.config.verify_pings - pings_left;
        if round == 0 && !self.lacks(Guard::Fallback) {
            self.ping_suspect(Channel::Stream, peer, incarnation);
        }
        if round.is_multiple_of(2) {
            self.ask_others(&peer, incarnation);
        }
        let at = self.now + self.config.probe_rtt;
        self.timers.set(at, Due::Verify { timer, pings_left: pings_left - 1 });
    }

    /// Pings a suspect and tells it of the suspicion: it refutes it, and its answer carries the
    /// refutation.
    fn ping_suspect(&mut self, channel: Channel, peer: Peer, incarnation: u16) {
        let suspicion = foca::Member::new(peer, incarnation, State::Suspect);
        self.ping(channel, peer, SUSPECT_NUMBER, Some(suspicion));
    }

    /// foca's own ping, with one piece of news or none.
    pub(super) fn ping(
        &mut self,
        channel: Channel,
        to: Peer,
        number: u8,
        news: Option<foca::Member<Peer>>,
    ) {
        let (src, message) = (*self.foca.identity(), Message::Ping(number));
        let header = Header { src, src_incarnation: self.refutations, dst: to, message };
        let mut packet = Vec::with_capacity(160);
        SwimCodec.encode_header(&header, &mut packet).expect("a vector takes every header");
        if let Some(news) = news {
            packet.extend_from_slice(&1u16.to_be_bytes());
            SwimCodec.encode_member(&news, &mut packet).expect("a vector takes every member");
        }
        self.transmit_over(channel, to.addr, wire::swim(self.view.digest(), &packet));
    }

    /// Some other members, drawn at random.
    fn verifiers(&mut self, suspect: &Peer) -> Vec<Peer> {
        let wanted = usize::from(self.config.verify_peers);
        let mut chosen = Vec::with_capacity(wanted);
        for (seen, member) in
            self.foca.iter_members().filter(|member| member.id() != suspect).enumerate()
        {
            if chosen.len() < wanted {
                chosen.push(*member.id());
            } else {
                let at = self.rng.random_range(0..=seen);
                if let Some(place) = chosen.get_mut(at) {
                    *place = *member.id();
                }
            }
        }
        chosen
    }

    fn ask_others(&mut self, suspect: &Peer, incarnation: u16) {
        let Some(verifying) = self.verifying.get(&suspect.id) else { return };
        let (from, suspect) = (*self.foca.identity(), *suspect);
        let packet = wire::doubt(self.view.digest(), &Doubt { from, suspect, incarnation });
        for peer in verifying.peers.clone() {
            self.transmit(peer.addr, packet.clone());
        }
    }

    /// Somebody asks whether this node reaches a suspect of its.
    pub(super) fn on_doubt(&mut self, doubt: Doubt) {
        let Doubt { from, suspect, incarnation } = doubt;
        if !self.is_known(&from) || suspect.id == self.me.id {
            self.counters.packets_misaddressed += 1;
            return;
        }
        let Some((known, state)) = self.swim_state(&suspect) else { return };
        if state == State::Down {
            return;
        }
        if known > incarnation {
            // It has refuted already.
            self.vouch(&from, suspect, known);
            return;
        }
        if let Some(asked) = self.asked.get_mut(&suspect.id) {
            if asked.askers.len() < ASKERS_MAX && !asked.askers.contains(&from) {
                asked.askers.push(from);
            }
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            return;
        }
        let pings_left = ASKED_PINGS;
        let asked = Asked { suspect, incarnation, askers: vec![from], pings_left };
        self.asked.insert(suspect.id, asked);
        if !self.lacks(Guard::Fallback) {
            self.ping_suspect(Channel::Stream, suspect, incarnation);
        }
        self.on_asked(suspect.id);
    }

    /// Pings somebody else's suspect, or gives up.
    pub(super) fn on_asked(&mut self, id: NodeId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        if asked.pings_left == 0 {
            self.asked.remove(&id);
            return;
        }
        asked.pings_left -= 1;
        let (suspect, incarnation) = (asked.suspect, asked.incarnation);
        self.ping_suspect(Channel::Datagram, suspect, incarnation);
        self.timers.set(self.now + self.config.probe_rtt, Due::Asked(id));
    }

    /// A member answered: whoever asked about it is told.
    pub(super) fn vouch_if_asked(&mut self, src: &Peer, src_incarnation: u16) {
        let Some(asked) = self.asked.get(&src.id).filter(|asked| asked.suspect == *src) else {
            return;
        };
        // Before it has heard of the suspicion its answer does not refute it.
        let refutes = src_incarnation > asked.incarnation;
        let askers = asked.askers.clone();
        if refutes {
            self.asked.remove(&src.id);
        }
        for asker in askers {
            self.vouch(&asker, *src, src_incarnation);
        }
    }

    fn vouch(&mut self, asker: &Peer, suspect: Peer, incarnation: u16) {
        let from = *self.foca.identity();
        let packet = wire::vouch(self.view.digest(), &Doubt { from, suspect, incarnation });
        self.transmit(asker.addr, packet);
    }

    /// A member that was asked reaches the suspect.
    pub(super) fn on_vouch(&mut self, vouch: Doubt) {
        let Some(verifying) = self.verifying.get_mut(&vouch.suspect.id) else { return };
        if verifying.suspect != vouch.suspect || !verifying.peers.contains(&vouch.from) {
            self.counters.packets_misaddressed += 1;
            return;
        }
        verifying.has_voucher = true;
        self.counters.vouches_heard += 1;
        self.note_answer(true);
        let refuted = foca::Member::new(vouch.suspect, vouch.incarnation, State::Alive);
        // It changes nothing unless the suspect has refuted. It fails only if a member could not be
        // encoded.
        let _ = self.foca.apply_many(std::iter::once(refuted), true, &mut self.effects);
    }

    fn is_suspect(&self, peer: &Peer, incarnation: u16) -> bool {
        self.swim_state(peer) == Some((incarnation, State::Suspect))
    }

    /// What foca holds of a member.
    fn swim_state(&self, peer: &Peer) -> Option<(u16, State)> {
        let known = self.foca.iter_membership_state().find(|member| member.id() == peer)?;
        Some((known.incarnation(), known.state()))
    }

    /// Whether this is an active member as it is known: nothing is sent on a stranger's word.
    fn is_known(&self, peer: &Peer) -> bool {
        let held = self.held.get(&peer.id).map(|held| &held.member);
        let known = held.or_else(|| self.view.get(peer.id));
        known.is_some_and(|known| known.status.is_active() && Peer::of(known) == *peer)
    }

    fn trace_death(&self, peer: &Peer) {
        tracing::debug!(me = %self.me.id, member = %peer.id, "nobody reaches it");
    }
}

/// The number of pings to suspects.
const SUSPECT_NUMBER: u8 = 0;
/// Most suspects of others that are tried at a time, and most members told about each.
const ASKED_MAX: usize = 64;
const ASKERS_MAX: usize = 8;
/// How often somebody else's suspect is pinged, every `probe_rtt`.
const ASKED_PINGS: u8 = 4;
