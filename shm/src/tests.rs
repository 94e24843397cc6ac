//! Tests that need the inside: the protocol under loom, writers stopped after any store, and segments that change.

mod crash;
mod kill;
mod lane;
mod model_check;
mod take_over;

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
