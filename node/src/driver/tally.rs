//! Counts of what the driver's tasks noticed, until the hub takes them.

use std::sync::{Mutex, PoisonError};

use crate::core::Counters;

/// Counts that any task adds to.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counters>);

impl Tally {
    /// Counts one more.
    pub(super) fn add(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(name);
    }

    /// Counts so many more.
    pub(super) fn add_many(&self, name: &'static str, count: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add_many(name, count);
    }

    /// Takes all counts; they begin anew.
    pub(super) fn take(&self) -> Counters {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
