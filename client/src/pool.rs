//! Streams to nodes by address, opened when needed first, and who was silent lately.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::connection::{End, Link};

/// The streams of one client, but for the one to its host's node.
#[derive(Debug)]
pub(crate) struct Pool {
    streams_max: usize,
    state: Mutex<State>,
}

/// The lock is held while a stream is opened, so that only one is.
type Place = Arc<tokio::sync::Mutex<Option<Arc<Link>>>>;

#[derive(Debug, Default)]
struct State {
    /// With the number of its last use.
    places: BTreeMap<SocketAddr, (u64, Place)>,
    uses: u64,
    suspects: BTreeMap<Option<SocketAddr>, Suspect>,
}

#[derive(Debug)]
struct Suspect {
    until: Instant,
    pause: Duration,
}

impl Pool {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self { streams_max, state: Mutex::default() }
    }

    /// The open stream to `addr`, or the one that `open` makes by `deadline`.
    pub(crate) async fn link(
        &self,
        addr: SocketAddr,
        deadline: Instant,
        open: impl Future<Output = Result<Arc<Link>, End>>,
    ) -> Result<Arc<Link>, End> {
        let place = self.place(addr);
        let opened = timeout_at(deadline, async {
            let mut place = place.lock().await;
            if let Some(link) = place.as_ref().filter(|link| !link.is_closed()) {
                return Ok(link.clone());
            }
            let link = open.await?;
            *place = Some(link.clone());
            Ok(link)
        });
        opened.await.unwrap_or(Err(End::Silent))
    }

    /// Whether a node was silent lately, so that others should be asked first. Answers `false` to
    /// one caller at a time when the pause is over: that one finds out.
    pub(crate) fn avoid(&self, node: Option<SocketAddr>) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let Some(suspect) = state.suspects.get_mut(&node) else { return false };
        let avoid = suspect.until > now;
        if !avoid {
            suspect.until = now + suspect.pause;
        }
        avoid
    }

    /// Notes that a node did not answer. `None` is the host's node at its local socket.
    pub(crate) fn suspect(&self, node: Option<SocketAddr>) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.suspects.len() >= SUSPECTS_MAX {
            state.suspects.clear();
        }
        let pause = match state.suspects.get(&node) {
            Some(suspect) => (suspect.pause * 2).min(PAUSE_MAX),
            None => PAUSE,
        };
        state.suspects.insert(node, Suspect { until: now + pause, pause });
    }

    /// Notes that a node answered.
    pub(crate) fn trust(&self, node: Option<SocketAddr>) {
        self.lock().suspects.remove(&node);
    }

    fn place(&self, addr: SocketAddr) -> Place {
        let mut state = self.lock();
        state.uses += 1;
        let uses = state.uses;
        if let Some((used, place)) = state.places.get_mut(&addr) {
            *used = uses;
            return place.clone();
        }
        if state.places.len() >= self.streams_max {
            let oldest = state.places.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(addr, _)| *addr) {
                // Requests under way keep their stream alive until they are done.
                state.places.remove(&oldest);
            }
        }
        let place = Place::default();
        state.places.insert(addr, (uses, place.clone()));
        place
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long others are asked first: after the first silence, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);
const SUSPECTS_MAX: usize = 1_024;
