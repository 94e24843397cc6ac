//! The homes of slots, for who embeds a node.

use std::fmt;
use std::sync::Arc;

use annulus_proto::RouteTable;
use tokio::sync::watch;

use crate::core::Standing;

/// The homes of all slots as a node sees them. Clones follow the node each for itself.
#[derive(Clone)]
pub struct Routing {
    standing: watch::Receiver<Arc<Standing>>,
    /// The view that was returned last.
    last: Option<u64>,
}

impl Routing {
    pub(super) fn new(standing: watch::Receiver<Arc<Standing>>) -> Self {
        Self { standing, last: None }
    }

    /// The homes of all slots now. Costs some 100 KB.
    pub fn table(&self) -> RouteTable {
        self.standing.borrow().routes()
    }

    /// The homes of all slots once the node's view is another one than that of those which this returned
    /// last; the first time at once. `None` when the node has stopped. May be dropped and called again.
    pub async fn changed(&mut self) -> Option<RouteTable> {
        let last = self.last;
        let is_news = |standing: &Arc<Standing>| Some(standing.view_digest()) != last;
        let standing = self.standing.wait_for(is_news).await.ok()?;
        self.last = Some(standing.view_digest());
        Some(standing.routes())
    }
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routing").field("last", &self.last).finish_non_exhaustive()
    }
}
