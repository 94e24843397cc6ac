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

#[cfg(test)]
mod tests {
    use annulus_proto::codec::Header;
    use annulus_proto::message::{Order, Role};
    use annulus_proto::{Hlc, Load, Member, NodeId, Status};

    use super::*;
    use crate::core::{Asker, Caller, Hub, HubInput, HubStart, Now, Request};

    #[test]
    fn each_view_is_told_once_the_first_one_at_once_and_no_more_after_the_end() {
        let now = Now { monotonic: std::time::Duration::from_secs(1), wall_ms: 1 };
        let me = Member {
            id: NodeId::from_bits(1),
            incarnation: 1,
            revision: 0,
            status: Status::Joining,
            addr: ([127, 0, 0, 1], 7).into(),
            name: "n1".to_owned(),
            zone: String::new(),
            weight: 100,
            rings: 1,
            door: None,
            load: Load::default(),
        };
        let mut hub = Hub::new(HubStart::of(me), now);
        let (sender, receiver) = watch::channel(hub.standing());
        let mut routing = Routing::new(receiver);
        let threads = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        threads.block_on(async {
            let first = routing.changed().await.expect("it runs");
            assert_eq!((first.nodes().len(), first.homes_per_slot()), (1, 1));
            assert_eq!(routing.table(), first);
            let header = Header { id: 1, view: 0, hlc: Hlc::ZERO };
            let (asker, caller) = (Asker::Stream(0), Caller::Client(Role::Operator));
            let message = Order::Weigh(Some(7)).into();
            hub.handle(now, HubInput::Request(Request { asker, caller, header, message }));
            sender.send_replace(hub.standing());
            let second = routing.changed().await.expect("it runs");
            assert_ne!(second.view(), first.view());
            // The same once more is no news.
            sender.send_replace(hub.standing());
            drop(sender);
            assert_eq!(routing.changed().await, None);
            assert_eq!(routing.table(), second, "what was known last");
        });
    }
}
