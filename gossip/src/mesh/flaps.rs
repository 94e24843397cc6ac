//! Whoever comes and goes: what a node knows of its own deaths, and for how long it stays away from
//! its slots for them.

use super::*;

/// The deaths of this node's lives that reached the others' views.
#[derive(Default)]
pub(super) struct Flaps {
    /// When this node learned of each, in [`Mesh::life_ms`], ascending.
    deaths: Vec<u64>,
    /// The highest incarnation that is known to have been declared dead.
    counted: u64,
    /// Until when `Up` is held back.
    until: Option<Duration>,
}

impl Mesh {
    /// When this node learned that it had been declared dead, as far as it counts: to be kept on disk,
    /// and given back to [`Mesh::remember_deaths`] by the next run. Milliseconds in the time that
    /// incarnations tell, ascending, at most [`DEATHS_MAX`].
    pub fn deaths(&self) -> &[u64] {
        &self.flaps.deaths
    }

    /// Takes note of what [`Mesh::deaths`] said in the run before, right after [`Mesh::new`].
    pub fn remember_deaths(&mut self, deaths: &[u64]) {
        self.flaps.deaths = deaths.to_vec();
        self.flaps.deaths.sort_unstable();
        self.forget_deaths();
    }

    /// Until when this node stays `Joining` although [`Mesh::set_status`] said `Up`, because it died
    /// again and again; `None` if it does not. It may be over before.
    pub fn held_back(&self) -> Option<Duration> {
        self.flaps.until
    }

    /// The present in the time that incarnations tell: milliseconds since 1970 as the clock showed
    /// them at the start.
    pub(super) fn life_ms(&self) -> u64 {
        let elapsed = self.now.saturating_sub(self.started).as_millis();
        self.first_incarnation.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Others have this node in their views as dead, at this incarnation.
    pub(super) fn note_own_death(&mut self, incarnation: u64) {
        if incarnation <= self.flaps.counted || self.config.flap_hold.is_zero() {
            return;
        }
        self.flaps.counted = incarnation;
        self.flaps.deaths.push(self.life_ms());
        self.forget_deaths();
        self.events.push_back(Event::DeathsChanged);
    }

    fn forget_deaths(&mut self) {
        let window = u64::try_from(self.config.flap_window.as_millis()).unwrap_or(u64::MAX);
        let since = self.life_ms().saturating_sub(window);
        self.flaps.deaths.retain(|at| *at >= since);
        let excess = self.flaps.deaths.len().saturating_sub(DEATHS_MAX);
        self.flaps.deaths.drain(..excess);
    }

    /// For how long a node that died as often stays `Joining`.
    fn penalty(&mut self) -> Duration {
        self.forget_deaths();
        let deaths = self.flaps.deaths.len() as u32;
        let Some(doublings) = deaths.checked_sub(2) else { return Duration::ZERO };
        let longer = self.config.flap_hold.saturating_mul(1 << doublings.min(16));
        longer.min(self.config.flap_hold_max)
    }

    /// `Up` is wanted: whether it has to wait.
    pub(super) fn must_wait(&mut self) -> bool {
        if self.flaps.until.is_some() {
            return true;
        }
        let penalty = self.penalty();
        if penalty.is_zero() || !self.may_wait() {
            return false;
        }
        tracing::debug!(me = %self.me.id, ?penalty, "died again and again: held back");
        self.counters.returns_held_back += 1;
        self.flaps.until = Some(self.now + penalty);
        true
    }

    /// Whether the others can do without this node: nearly all of them are up. When many come back at
    /// the same time, it was not they who flapped.
    fn may_wait(&self) -> bool {
        let known = self.others().filter(|member| member.status != Status::Left).count();
        let up = self.others().filter(|member| member.status == Status::Up).count();
        up > 0 && known - up <= known / 8
    }

    /// Becomes `Up` at last when it is time, or when it is needed.
    pub(super) fn on_held_back(&mut self) {
        let Some(until) = self.flaps.until else { return };
        if until <= self.now || !self.may_wait() {
            self.flaps.until = None;
            if self.me.status == Status::Joining && !self.has_left {
                self.me.status = Status::Up;
                self.revise();
            }
        }
    }

    /// This node was `Up`, and its last life was declared dead: it waits if it has to.
    pub(super) fn step_back(&mut self) {
        if self.me.status == Status::Up && self.must_wait() {
            self.me.status = Status::Joining;
        }
    }

    /// Another status than `Up` is wanted.
    pub(super) fn stop_waiting(&mut self) {
        self.flaps.until = None;
    }
}

/// Most deaths that are remembered.
pub const DEATHS_MAX: usize = 16;
