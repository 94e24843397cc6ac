//! Tests that need the inside: the protocol under loom, writers stopped after any store, and segments that change.

mod crash;
mod glance;
mod kill;
mod lane;
mod model_check;
mod take_over;

use crate::protocol::{Attempt, Glance};
use crate::table::Table;
use crate::words::Words;

/// Looks a key up as readers do.
fn look<W: Words>(table: &Table<W>, key: &[u8], value: &mut Vec<u8>) -> Attempt {
    let hash = table.hash(key);
    match table.glance(key, hash, value) {
        Glance::Hit(id, copied) => Attempt::Hit(id, copied),
        Glance::Miss => Attempt::Miss,
        Glance::Unclear => table.attempt(key, hash, value),
    }
}

/// Looks a key up as readers do, and the long way too, while nobody writes.
fn look_both_ways<W: Words>(table: &Table<W>, key: &[u8], value: &mut Vec<u8>) -> Attempt {
    let found = look(table, key, value);
    let mut attempted = Vec::new();
    let attempt = table.attempt(key, table.hash(key), &mut attempted);
    assert_eq!(found, attempt, "{key:?}");
    assert!(!matches!(found, Attempt::Hit(..)) || *value == attempted, "{key:?}");
    found
}

/// Runs a mutant under loom and wants it caught by this assertion of its model.
fn caught(by: &str, run: impl FnOnce() + std::panic::UnwindSafe) {
    let payload = std::panic::catch_unwind(run).expect_err("the mutant survived");
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(payload.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(message.contains(by), "caught by something else: {message:?}");
}
