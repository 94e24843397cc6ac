//! From foca's conclusions to deaths in the view.

use super::*;

/// A member that foca declared down, and the view has not yet.
pub(super) struct Missing {
    pub(super) incarnation: u64,
    pub(super) due: Duration,
}

impl Mesh {
    /// foca declared a member down: the view follows after `down_after`.
    pub(super) fn miss(&mut self, peer: &Peer) {
        let is_active = self
            .view
            .get(peer.id)
            .is_some_and(|known| known.status.is_active() && known.incarnation <= peer.incarnation);
        if !is_active || peer.id == self.me.id {
            return;
        }
        tracing::debug!(member = %peer.id, incarnation = peer.incarnation, "death reported");
        self.counters.deaths_reported += 1;
        let due = self.now + self.config.down_after;
        let missing = Missing { incarnation: peer.incarnation, due };
        self.missing.entry(peer.id).or_insert(missing).incarnation = peer.incarnation;
        self.announce_soon();
    }

    /// Whether a record is a death that others concluded, while deaths that this node knows of are
    /// about to reach the view as well: it goes with them.
    pub(super) fn waits_for_others(&self, member: &Member, known: &Member) -> bool {
        let is_death = member.status == Status::Down
            && known.status.is_active()
            && member.incarnation >= known.incarnation;
        is_death && {
            let soon = self.now + TOGETHER;
            let others = self.missing.iter().filter(|(id, _)| **id != member.id);
            !self.lacks(Guard::Together) && others.map(|(_, m)| m.due).any(|due| due <= soon)
        }
    }

    /// A death that others concluded is due, as far as it is concerned.
    pub(super) fn queue_death(&mut self, member: &Member, spread: Spread) {
        if spread != Spread::Relayed {
            self.facts.note(member);
            self.spread(member);
        }
        let (incarnation, due) = (member.incarnation, self.now);
        let missing = self.missing.entry(member.id).or_insert(Missing { incarnation, due });
        missing.incarnation = missing.incarnation.max(incarnation);
        missing.due = missing.due.min(due);
    }

    /// When deaths reach the view: the first one waits for those that are due not long after it, so
    /// that what fails together moves slots once.
    pub(super) fn deaths_due(&self) -> Option<Duration> {
        let first = self.missing.values().map(|missing| missing.due).min()?;
        if self.lacks(Guard::Together) {
            return Some(first);
        }
        let due = self.missing.values().map(|missing| missing.due);
        due.filter(|due| *due <= first + TOGETHER).max()
    }

    /// Carries over into the view what was held from it for long enough.
    pub(super) fn conclude(&mut self) {
        let now = self.now;
        if self.deaths_due().is_some_and(|due| due <= now) {
            let dead = self.missing.extract_if(.., |_, missing| missing.due <= now);
            let dead = dead.map(|(id, missing)| (id, missing.incarnation)).collect::<Vec<_>>();
            for (id, incarnation) in dead {
                // The life that died may not have reached the view, or may be held from it.
                let held = self.held.get(&id).map(|held| held.member.clone());
                let latest = held.or_else(|| self.view.get(id).cloned());
                if let Some(known) = latest.filter(|m| m.incarnation <= incarnation) {
                    tracing::debug!(member = %id, incarnation, "death concluded");
                    self.counters.deaths_concluded += 1;
                    self.take_up(Member { status: Status::Down, ..known }, Spread::News);
                }
            }
        }
        let ripe = self.held.extract_if(.., |_, held| held.until <= now);
        for (_, held) in ripe.collect::<Vec<_>>() {
            let known = self.view.get(held.member.id).cloned();
            if self.view.merge(held.member.clone()) {
                self.notice(known.as_ref(), &held.member);
            }
        }
    }
}

/// How long a death that is due waits for others that are not yet.
const TOGETHER: Duration = Duration::from_secs(2);
