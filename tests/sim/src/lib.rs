//! Deterministic simulations of the unmodified node under turmoil.
//!
//! [`run`] is one simulation: 3 to 7 hosts with a node each ([`host`], [`net`], [`clock`]), client
//! processes that start, read, change and end sessions through the real client library
//! ([`workload`]), a nemesis that follows a plan of faults ([`plan`]), and checks of everything the
//! clients saw and the hosts hold ([`check`]). First safety under faults; then everything is healed
//! and the cluster must converge within a budget of simulated time ([`cluster`]).
//!
//! [`plain`] is the third driver of hubs and cores: the same clients' habits, faults and checks without tokio,
//! for thousands of seeds.
//!
//! # Determinism
//! The same scenario and seed give the same [`trace`], byte for byte, in any process, as long as
//! there is **one simulation per process** (the order in which a crash drops tasks depends on
//! process-global task ids). Hence [`harness`], which runs each in a child process.
//!
//! # What it does not simulate
//! Crashes land on await points only, never inside a write to shared memory (`annulus-shm` has tests
//! of its own for that), and there are no threads: the scan runs inline.

#[allow(unexpected_cfgs, reason = "the flag is tokio's, and nobody declares it")]
const _: () = {
    // rustdoc gets other flags, and runs nothing.
    #[cfg(not(any(tokio_unstable, doc)))]
    compile_error!(
        "simulations need `--cfg tokio_unstable`, without which runs differ and panics in tasks \
         are swallowed; .cargo/config.toml sets it, unless RUSTFLAGS in the environment overrides it"
    );
};

pub mod check;
pub mod clock;
pub mod cluster;
pub mod copies;
pub mod habits;
pub mod harness;
pub mod history;
pub mod host;
pub mod linear;
pub mod net;
pub mod plain;
pub mod plan;
pub mod scenario;
pub mod snapshot;
pub mod trace;
pub mod workload;

pub use cluster::{Outcome, run};
pub use scenario::{Mutant, SCENARIOS, Scenario};
