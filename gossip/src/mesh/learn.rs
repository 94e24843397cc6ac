//! What becomes of records, and of foca's conclusions.

use super::*;

/// Where a record came from, and so whether it is to be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// foca passes it on already.
    Relayed,
    /// Pass it on a few times if it is new.
    Little,
    /// Pass it on if it is new.
    News,
    /// Pass it on only if it is a death: the rest is known to those who sent it.
    Deaths,
}

impl Mesh {
    /// Takes in a record, whoever it is about.
    pub(super) fn learn(&mut self, member: Member, spread: Spread) {
        if !self.is_believable(&member) {
            self.counters.members_refused += 1;
            return;
        }
        if member.id == self.me.id {
            self.learn_of_self(&member);
            return;
        }
        if let Some(before) = self.presumed.get(&member.id)
            && member.incarnation >= before.incarnation
        {
            if member.status.is_active() {
                self.lift(member.id);
            } else {
                // No presumption any more.
                self.presumed.remove(&member.id);
            }
        }
        let known = self.view.get(member.id).cloned();
        if known.as_ref().is_some_and(|known| self.holds(&member, known)) {
            self.hold(member, spread);
            return;
        }
        if known.as_ref().is_some_and(|known| self.waits_for_others(&member, known)) {
            self.queue_death(&member, spread);
            return;
        }
        self.take_up(member, spread);
    }

    /// Takes a record into the view.
    pub(super) fn take_up(&mut self, member: Member, spread: Spread) {
        let known = self.view.get(member.id).cloned();
        if !self.view.merge(member.clone()) {
            return;
        }
        if self.held.get(&member.id).is_some_and(|held| !beats(&held.member, &member)) {
            self.held.remove(&member.id);
        }
        self.unmet.remove(&member.id);
        self.facts.note(&member);
        let is_new_life = known.as_ref().is_none_or(|known| {
            known.incarnation != member.incarnation
                || known.status.is_active() != member.status.is_active()
        });
        let is_death = !member.status.is_active();
        if spread == Spread::News || (spread == Spread::Deaths && is_death && known.is_some()) {
            self.spread(&member);
        } else if spread == Spread::Little {
            self.spread_a_little(&member);
        }
        if is_new_life {
            self.tell_foca(&member, spread != Spread::Deaths);
        }
        self.notice(known.as_ref(), &member);
    }

    /// Reports what a changed record means.
    pub(super) fn notice(&mut self, known: Option<&Member>, member: &Member) {
        let id = member.id;
        let was_active = known.is_some_and(|known| known.status.is_active());
        let is_active = member.status.is_active();
        if is_active {
            if self.missing.get(&id).is_some_and(|missing| missing.incarnation < member.incarnation)
            {
                self.missing.remove(&id);
                self.counters.deaths_cancelled += 1;
            }
        } else {
            self.missing.remove(&id);
            self.verifying.remove(&id);
        }
        if !is_active || known.is_some_and(|known| known.addr != member.addr) {
            self.rtts.forget(id);
        }
        match (was_active, is_active) {
            (false, true) => self.events.push_back(Event::MemberUp(id)),
            (_, false) if known.is_none_or(|known| known.status != member.status) => {
                self.events.push_back(match member.status {
                    Status::Left => Event::MemberLeft(id),
                    _ => Event::MemberDown(id),
                });
            }
            _ => {}
        }
        let peer = |m: &Member| (m.status != Status::Left).then_some(m.addr);
        if known.and_then(peer) != peer(member) && !self.events.contains(&Event::PeersChanged) {
            self.events.push_back(Event::PeersChanged);
        }
        if member.status == Status::Down {
            self.announce_soon();
        }
    }

    /// Whether a record is kept from the view for a while: a restarted member is `Joining` until it
    /// exchanged views, and moving its slots away for that moment would help nobody.
    fn holds(&self, member: &Member, known: &Member) -> bool {
        member.status == Status::Joining
            && matches!(known.status, Status::Up | Status::Draining)
            && member.incarnation > known.incarnation
            && !self.config.down_after.is_zero()
    }

    fn hold(&mut self, member: Member, spread: Spread) {
        let now = self.now;
        let held = self.held.entry(member.id);
        let is_new = match held {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let until = now + self.config.down_after;
                vacant.insert(Held { member: member.clone(), until });
                true
            }
            std::collections::btree_map::Entry::Occupied(mut held) => {
                let is_new = beats(&member, &held.get().member);
                if is_new {
                    held.get_mut().member = member.clone();
                }
                is_new
            }
        };
        if !is_new {
            return;
        }
        self.facts.note(&member);
        if spread == Spread::News {
            self.spread(&member);
        }
        self.tell_foca(&member, spread != Spread::Deaths);
        if self.missing.get(&member.id).is_some_and(|m| m.incarnation < member.incarnation) {
            self.missing.remove(&member.id);
            self.counters.deaths_cancelled += 1;
        }
        if !self.events.contains(&Event::PeersChanged) {
            self.events.push_back(Event::PeersChanged);
        }
    }

    /// Lets foca know what the view knows.
    pub(super) fn tell_foca(&mut self, member: &Member, spread: bool) {
        let state = if member.status.is_active() { State::Alive } else { State::Down };
        let update = foca::Member::new(Peer::of(member), 0, state);
        // It fails only if a member could not be encoded.
        let _ = self.foca.apply_many(std::iter::once(update), spread, &mut self.effects);
    }

    /// Takes in what others say of this node.
    fn learn_of_self(&mut self, said: &Member) {
        if self.has_left {
            return;
        }
        let is_death = !said.status.is_active();
        if said.status == Status::Down && said.incarnation <= self.me.incarnation {
            self.note_own_death(said.incarnation);
        }
        if said.addr != self.me.addr && said.incarnation >= self.me.incarnation {
            self.meet_namesake(said);
            if self.has_rival() {
                return;
            }
        }
        let is_current = said.incarnation == self.me.incarnation;
        let is_final = is_death || said.revision == u32::MAX;
        if said.incarnation > self.me.incarnation || (is_current && is_final) {
            if is_current && is_death {
                self.step_back();
            }
            self.renew_above(said.incarnation);
        } else if is_current && beats(said, &self.me) {
            // An earlier life at this very incarnation, or a rival: ours must be the last word.
            self.me.revision = said.revision;
            self.revise();
        }
    }

    /// Begins a new life above `incarnation`.
    pub(super) fn renew_above(&mut self, incarnation: u64) {
        if incarnation > self.incarnation_max() || self.has_rival() {
            return;
        }
        let renewed = incarnation.max(self.me.incarnation) + 1;
        let peer = Peer { incarnation: renewed, ..Peer::of(&self.me) };
        // It fails if the identity is the same, which it is not.
        let _ = self.foca.change_identity(peer, &mut self.effects);
        // foca would wait for a packet that names the new identity before it probes again.
        let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        self.become_renewed(renewed);
    }

    fn become_renewed(&mut self, incarnation: u64) {
        tracing::debug!(me = %self.me.id, incarnation, "renewed");
        self.counters.renewals += 1;
        self.me.incarnation = incarnation;
        self.me.revision = 0;
        self.publish();
        self.forget_probes();
        self.health.worsen(1);
        self.events.push_back(Event::IncarnationRaised(incarnation));
        self.announce_soon();
    }

    pub(super) fn on_notification(&mut self, notification: OwnedNotification<Peer>) {
        match notification {
            OwnedNotification::MemberUp(peer) => {
                if self.missing.get(&peer.id).is_some_and(|m| m.incarnation <= peer.incarnation) {
                    self.missing.remove(&peer.id);
                    self.counters.deaths_cancelled += 1;
                }
                self.fit_to_size();
            }
            OwnedNotification::MemberDown(peer) => {
                self.verifying.remove(&peer.id);
                self.miss(&peer);
                self.fit_to_size();
            }
            // A node's next life; its facts follow as facts.
            OwnedNotification::Rename(_, _) => {}
            OwnedNotification::Active => self.note_answer(true),
            OwnedNotification::Idle => self.announce_soon(),
            OwnedNotification::Rejoin(peer) => {
                let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
                self.become_renewed(peer.incarnation);
            }
            OwnedNotification::Defunct => {
                if self.me.status != Status::Left {
                    self.renew_above(self.me.incarnation);
                }
            }
        }
    }

    /// Nobody answered for long enough: presumes all others down, for this node only, so that it
    /// goes on alone. foca begins anew: what it concluded about the others must not spread when they
    /// are met again.
    pub(super) fn isolate(&mut self) {
        tracing::debug!(me = %self.me.id, "nobody answers: all others presumed down");
        self.counters.isolations += 1;
        self.contact_at = None;
        self.heard_at = self.now;
        self.answered_at = self.now;
        let others = self.others().filter(|m| m.status.is_active()).cloned().collect::<Vec<_>>();
        for member in others {
            let id = member.id;
            self.view.replace(Member { status: Status::Down, ..member.clone() });
            self.events.push_back(Event::MemberDown(id));
            self.presumed.insert(id, member);
        }
        self.missing.clear();
        self.held.clear();
        self.forget_probes();
        let is_of_foca =
            |due: &Due| matches!(due, Due::Swim(_) | Due::Suspicion { .. } | Due::Verify { .. });
        self.timers.retain(|due| !is_of_foca(due));
        let rng = StdRng::seed_from_u64(self.rng.random());
        let config = swim_config(&self.config, 1);
        let peer = Peer::of(&self.me);
        let codec = BoundedCodec(self.bound.clone());
        self.foca = Foca::with_custom_broadcast(peer, config, rng, codec, self.facts.clone());
        self.publish();
        self.announce_soon();
    }

    /// Takes note that a member was heard, at this incarnation.
    pub(super) fn hear(&mut self, id: NodeId, incarnation: u64) {
        if self.presumed.is_empty() {
            return;
        }
        self.contact_at.get_or_insert(self.now);
        if self.presumed.get(&id).is_some_and(|before| incarnation >= before.incarnation) {
            self.lift(id);
        }
    }

    /// Takes back a presumption: the member lives, or others say so.
    fn lift(&mut self, id: NodeId) {
        let Some(before) = self.presumed.remove(&id) else {
            return;
        };
        self.view.replace(before.clone());
        self.events.push_back(Event::MemberUp(id));
        self.tell_foca(&before, false);
    }

    /// Contact is regained, and whoever was not heard of since is as dead as presumed.
    pub(super) fn confirm_presumed(&mut self) {
        let is_due = |at: Duration| self.now >= at + self.config.isolated_after;
        if self.presumed.is_empty() || !self.contact_at.is_some_and(is_due) {
            return;
        }
        for (id, _) in std::mem::take(&mut self.presumed) {
            if let Some(dead) = self.view.get(id).cloned() {
                self.tell_foca(&dead, true);
                self.spread(&dead);
            }
        }
    }

    /// Nothing that foca was about to find out is of use: it begins a new life.
    fn forget_probes(&mut self) {
        self.verifying.clear();
        self.asked.clear();
        self.hearing = Hearing::default();
        self.probe = None;
        self.refutations = 0;
    }

    fn fit_to_size(&mut self) {
        let config = swim_config(&self.config, self.foca.num_members() + 1);
        // It refuses changes that this is not one of.
        let _ = self.foca.set_config(config);
    }
}
