//! What stands in for the peers where they were not built: nothing.

use super::Bench;
use super::data::Requests;
use super::hits::Subjects;
use crate::sample::Rounds;

/// Built with `--features peers`, this holds maps and a database.
pub(super) struct Peers;

/// Built with `--features peers`, this holds a map of values of different sizes.
pub(super) struct Boxed;

pub(super) const NAMES: &str = "std HashMap (built without the feature \"peers\")";

impl Peers {
    pub(super) fn fill(_: &Bench<'_>) -> anyhow::Result<Self> {
        Ok(Self)
    }

    pub(super) fn add_to<'a>(&'a self, _: &mut Subjects<'a>, _: &'a Requests) {}

    pub(super) fn put(&self, _: &Requests, _: usize, _: &mut Rounds) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Boxed {
    pub(super) fn fill(_: u64) -> Self {
        Self
    }

    pub(super) fn add_to<'a>(&'a self, _: &mut Subjects<'a>, _: &'a Requests) {}
}

pub(super) fn papaya_alone(_: u64, _: &Requests, _: usize) -> anyhow::Result<Option<f64>> {
    Ok(None)
}
