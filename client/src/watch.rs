//! Waiting for the homes of slots to change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::RouteTable;
use annulus_proto::message::{Message, Ping};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::client::Handle;
use crate::request::Whom;

/// Tells of each change of the homes of slots; see [`Client::watch_routes`](crate::Client::watch_routes).
///
/// Every answer of a node names the view that it was given from, so a client that is in use learns of a
/// change with its next answer. While somebody waits here, a node is asked once a second for nothing
/// else. Views that are gone again by then are not told of.
pub struct RouteWatch<N: Net = TokioNet, C: Clock = SystemClock> {
    handle: Arc<Handle<N, C>>,
    told: watch::Receiver<Option<Arc<RouteTable>>>,
    /// The view that was returned last.
    last: Option<u64>,
}

/// How often a node is asked whether its view is another one.
const PERIOD: Duration = Duration::from_secs(1);

impl<N: Net, C: Clock> RouteWatch<N, C> {
    pub(crate) fn new(handle: Arc<Handle<N, C>>) -> Self {
        let told = handle.inner.routes_told.subscribe();
        Self { handle, told, last: None }
    }

    /// The homes of all slots once they are others than those that this returned last; the first time
    /// as soon as they are known. Waits for as long as that takes, also while no node can be reached.
    /// May be dropped and called again.
    pub async fn changed(&mut self) -> Arc<RouteTable> {
        let last = self.last;
        loop {
            let is_news = |known: &Option<Arc<RouteTable>>| {
                known.as_ref().is_some_and(|routes| Some(routes.view()) != last)
            };
            let news = timeout(PERIOD, self.told.wait_for(is_news)).await;
            let news = news.ok().and_then(|known| known.ok()?.clone());
            if let Some(routes) = news {
                self.last = Some(routes.view());
                return routes;
            }
            // What the answer says does not matter, but its view, which is looked at with all answers.
            let _ = self.handle.inner.ask(Whom::Any, Message::Ping(Ping {})).await;
        }
    }
}

impl<N: Net, C: Clock> Clone for RouteWatch<N, C> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), told: self.told.clone(), last: self.last }
    }
}

impl<N: Net, C: Clock> fmt::Debug for RouteWatch<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteWatch").field("last", &self.last).finish_non_exhaustive()
    }
}
