//! The node: a core that decides without I/O, and the driver around it.
//!
//! [`run`] is a node in production: tokio's sockets, the system's clock, this host's files and
//! memory. [`embed`] is the same node in an application that has slots of its own ([`SlotSet`]), and
//! [`driver::run_on`] on any network, clock and host.

pub mod archive;
pub mod config;
pub mod core;
pub mod driver;

use std::panic::resume_unwind;
use std::pin::Pin;

use annulus_net::{SystemClock, TokioNet};
use tokio::signal::unix::{SignalKind, signal};

pub use core::{
    Overflow, OverflowTaker, Overflowed, SlotMember, SlotSetPolicy, ValueMerge, ValueMergeError,
    WhyLeft,
};
pub use driver::{
    GiveUp, NodeSettings, RECORD_SIZE_DEFAULT, Ready, Routing, RunError, SlotHolder, SlotOffer,
    SlotSet, SlotSetError, SlotsHandle, Storage, TableSettings, TakeUp,
};

/// The name and version of this software, as it presents itself.
pub const SOFTWARE: &str = concat!("annulus ", env!("CARGO_PKG_VERSION"));

/// Runs a node as [`run`] does, on a runtime of its own, and blocks.
///
/// The core runs on a worker thread, beside the streams. On the thread that blocks, each frame would
/// wake another thread, which was measured to cost a quarter of a request's time.
///
/// # Errors
/// [`RunError`], as [`run`], and if there can be no threads.
pub fn run_blocking(
    settings: NodeSettings,
    ready: impl FnOnce(&Ready) + Send + 'static,
) -> Result<(), RunError> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.enable_all().build().map_err(RunError::Threads)?;
    let ran = runtime.block_on(async { tokio::spawn(run(settings, ready)).await });
    ran.unwrap_or_else(|failed| resume_unwind(failed.into_panic()))
}

/// Runs a node until SIGTERM or SIGINT. `ready` is called once it serves.
///
/// # Errors
/// [`RunError`]: what kept it from starting, or made it give up its place.
pub async fn run(
    settings: NodeSettings,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    embed(settings, Vec::new(), stop, ready).await
}

/// Runs a node within an application, which holds the slots of these sets, until `stop` completes. `ready`
/// is called once it serves. Signals are the application's affair.
///
/// # Errors
/// [`RunError`]: what kept it from starting, or made it give up its place.
pub async fn embed(
    settings: NodeSettings,
    slot_sets: Vec<SlotSet>,
    stop: impl Future<Output = ()> + Send,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), RunError> {
    embed_boxed(settings, slot_sets, Box::pin(stop), Box::new(ready)).await
}

/// Generic over nothing, so that a node is compiled with this crate, and not once more with each program that runs one: that
/// took a minute and longer for each.
fn embed_boxed<'a>(
    settings: NodeSettings,
    slot_sets: Vec<SlotSet>,
    stop: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    ready: Box<dyn FnOnce(&Ready) + Send + 'a>,
) -> Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>> {
    Box::pin(async move {
        let fail = |source| RunError::DataDir { path: settings.data_dir.clone(), source };
        let host = driver::SystemHost::open(&settings).map_err(fail)?;
        let net = TokioNet::new().with_local_mode(settings.socket_mode);
        driver::embed_on(settings, net, SystemClock, host, slot_sets, stop, ready).await
    })
}
