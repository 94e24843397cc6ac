//! What becomes of packets.

use super::*;

impl Mesh {
    pub(super) fn on_swim(&mut self, digest: u64, channel: Channel, body: &[u8]) {
        let mut rest = body;
        let Ok(header) = SwimCodec.decode_header(&mut rest) else {
            self.counters.packets_malformed += 1;
            return;
        };
        let Header { src, dst, .. } = header;
        if src.id == self.me.id || dst != *self.foca.identity() {
            self.counters.packets_misaddressed += 1;
            // A foreign packet for a later life of ours than this one: the clock was set back.
            if dst.id == self.me.id
                && dst.addr == self.me.addr
                && dst.incarnation > self.me.incarnation
            {
                self.renew_above(dst.incarnation);
            }
            return;
        }
        if !is_plausible(&src) || !self.bound.allows(src.incarnation) {
            self.counters.packets_malformed += 1;
            return;
        }
        if self.is_corrected(&src) {
            return;
        }
        if self.is_overfull(&header, rest) {
            self.counters.packets_overfull += 1;
            return;
        }
        if header.message == Message::TurnUndead {
            // One such packet per round trip could make us renew for ever.
            if self.now < self.undead_at_soonest || self.has_rival() {
                return;
            }
            self.undead_at_soonest = self.now + UNDEAD;
        }
        self.hear(src.id, src.incarnation);
        self.note_fresh(src);
        let answer = self.answer(&src, &header.message, channel);
        match &header.message {
            Message::Ack(number) => {
                let answers_check = self.answers_check(&src, *number);
                self.note_answer(answers_check || matches!(answer, Some(Answer::InTime(_))));
                self.vouch_if_asked(&src, header.src_incarnation);
            }
            // Somebody who was asked for the probe under way answers in time, whatever it found.
            Message::ForwardedAck { .. } => self.note_answer(answer.is_some()),
            Message::Feed => self.note_answer(false),
            _ => {}
        }
        self.asker = (channel == Channel::Stream).then_some(src);
        if self.foca.handle_data(body, &mut self.effects).is_err() {
            self.counters.packets_malformed += 1;
        }
        if let Some(answer) = answer {
            self.end_probe(header.src_incarnation, &answer);
        }
        self.settle();
        self.asker = None;
        self.compare(digest, src.addr);
    }

    pub(super) fn on_announce(&mut self, member: Member) {
        if !self.is_believable(&member) {
            self.counters.packets_malformed += 1;
            return;
        }
        if member.id == self.me.id {
            self.counters.packets_misaddressed += 1;
            self.meet_namesake(&member);
            return;
        }
        let src = Peer::of(&member);
        if self.is_corrected(&src) || (self.view.get(src.id).is_none() && self.is_full()) {
            return;
        }
        self.hear(src.id, src.incarnation);
        self.tell_of_death(&src);
        self.learn(member, Spread::News);
        // foca only takes an announcement that names us, and the announcer knew but our address.
        let dst = *self.foca.identity();
        let header = Header { src, src_incarnation: 0, dst, message: Message::Announce };
        let mut packet = Vec::with_capacity(128);
        SwimCodec.encode_header(&header, &mut packet).expect("a vector takes every header");
        if self.foca.handle_data(&packet, &mut self.effects).is_err() {
            self.counters.packets_malformed += 1;
        }
    }

    pub(super) fn on_facts(&mut self, from: Option<SocketAddr>, members: Vec<Member>) {
        let renewals = self.counters.renewals;
        for member in members {
            self.learn(member, Spread::News);
        }
        if self.counters.renewals > renewals
            && let Some(from) = from
        {
            // Whoever told us why it cannot hear us may hear us now.
            self.settle();
            self.send_announce(from);
        }
    }

    pub(super) fn on_claim(&mut self, claim: Claim) {
        let Claim { member, nonce, answer } = claim;
        self.counters.packets_misaddressed += 1;
        if member.id != self.me.id || member.addr == self.me.addr || !self.is_believable(&member) {
            return;
        }
        if !answer {
            let claim = Claim { member: self.me.clone(), nonce, answer: true };
            self.transmit(member.addr, wire::claim(self.view.digest(), &claim));
            self.meet_namesake(&member);
            return;
        }
        // An answer to our nonce proves that the other lives now.
        if self.challenge.is_none_or(|(ours, _)| ours != nonce) {
            return;
        }
        let reported = self.rival_at.is_some_and(|at| self.now < at + RIVAL);
        if !reported {
            self.rival_at = Some(self.now);
            let (addr, incarnation) = (member.addr, member.incarnation);
            tracing::debug!(me = %self.me.id, %addr, incarnation, "another node bears this id");
            self.events.push_back(Event::IdInUse { addr, incarnation });
        }
    }

    /// Somebody at another address bears our id: an earlier life of ours, or a rival. Asks it.
    pub(super) fn meet_namesake(&mut self, namesake: &Member) {
        if namesake.addr == self.me.addr {
            return;
        }
        if self.challenge.is_some_and(|(_, at)| self.now < at + CHALLENGE) {
            return;
        }
        let nonce = self.rng.random();
        self.challenge = Some((nonce, self.now));
        let claim = Claim { member: self.me.clone(), nonce, answer: false };
        self.transmit(namesake.addr, wire::claim(self.view.digest(), &claim));
    }

    /// Whether a rival was proven alive not long ago: outbidding each other would have no end.
    pub(super) fn has_rival(&self) -> bool {
        self.rival_at.is_some_and(|at| self.now < at + 2 * RIVAL)
    }

    /// Whether the sender is outdated by what the view knows. It is told so: one packet, and it can
    /// jump over what is held against it.
    fn is_corrected(&mut self, src: &Peer) -> bool {
        let Some(known) = self.view.get(src.id) else {
            return false;
        };
        let is_dead = known.incarnation == src.incarnation
            && !known.status.is_active()
            && !self.presumed.contains_key(&src.id);
        if known.incarnation <= src.incarnation && !is_dead {
            return false;
        }
        self.counters.packets_stale += 1;
        let at = self.corrected.get(&src.id);
        if at.is_none_or(|at| self.now >= *at + CORRECTION) {
            let packet = wire::facts(self.view.digest(), &[known]);
            self.corrected.insert(src.id, self.now);
            self.transmit(src.addr, packet);
        }
        true
    }

    /// Tells a node that is back that its last life was declared dead here: it is about to replace
    /// what says so.
    fn tell_of_death(&mut self, src: &Peer) {
        if let Some(known) = self.view.get(src.id)
            && known.status == Status::Down
            && known.incarnation < src.incarnation
            && !self.presumed.contains_key(&src.id)
        {
            let packet = wire::facts(self.view.digest(), &[known]);
            self.transmit(src.addr, packet);
        }
    }

    fn is_full(&self) -> bool {
        self.foca.iter_membership_state().len() >= MEMBERS_MAX
    }

    /// Whether foca's list is full and the packet names somebody who is not in it. foca itself
    /// knows no bound.
    fn is_overfull(&self, header: &Header<Peer>, mut rest: &[u8]) -> bool {
        // The most members that one packet can name.
        let room = self.config.packet_bytes_max / 8;
        if self.foca.iter_membership_state().len() + room < MEMBERS_MAX {
            return false;
        }
        let knows = |id: NodeId| {
            id == self.me.id || self.foca.iter_membership_state().any(|m| m.id().id == id)
        };
        if !knows(header.src.id) {
            return true;
        }
        if header.message == Message::Broadcast || rest.len() < 2 {
            return false;
        }
        let count = rest.get_u16();
        (0..count)
            .any(|_| SwimCodec.decode_member(&mut rest).is_ok_and(|member| !knows(member.id().id)))
    }

    /// Compares the sender's view with ours. News take a while, so only a digest that was about for
    /// longer, and not ours, is worth an exchange. It is remembered by itself and not by its
    /// sender: in a large cluster the same two seldom meet, and agreeing with one says nothing
    /// about the others.
    fn compare(&mut self, digest: u64, with: SocketAddr) {
        if !self.has_exchanged {
            self.ask_exchange(with);
            return;
        }
        if digest == self.view.digest() {
            return;
        }
        let now = self.now;
        self.foreign.retain(|_, (_, last)| now < *last + FOREIGN_KEPT);
        if self.foreign.len() >= FOREIGN_MAX {
            self.foreign.clear();
        }
        let (first, last) = self.foreign.entry(digest).or_insert((now, now));
        *last = now;
        let is_settled = now >= self.digest_at + DISAGREEMENT && now >= *first + DISAGREEMENT;
        if is_settled || now >= *first + 5 * DISAGREEMENT {
            self.ask_exchange(with);
        }
    }
}

/// Whether a peer in a packet could be a member.
fn is_plausible(peer: &Peer) -> bool {
    peer.addr.port() != 0 && !peer.addr.ip().is_unspecified()
}
