//! Asking nodes about themselves and the cluster.

use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::message::{
    Affinity, Events, EventsRequest, ExplainRequest, Explanation, HostLoad, HotSession, Hottest,
    HottestRequest, Judge, KeyChange, KeysReport, KeysRequest, List, ListRequest, LoadRequest,
    Members, MembersRequest, Message, NodeStatus, Order, Ordered, Owned, OwnedPlace, OwnedRequest,
    Peers, PeersRequest, Ping, Pinned, PinnedRequest, PlanRequest, RankRequest, Routes, Safety,
    SafetyRequest, Sentence, SessionReply, StatusRequest, Suspects, SuspectsRequest,
};
use annulus_proto::{Key, NodeId, RouteTable, Version};
use tokio::time::Instant;

use crate::client::Handle;
use crate::error::Error;
use crate::request::Whom;

/// One particular node ([`Client::node`](crate::Client::node)), or whichever answers
/// ([`Client::any_node`](crate::Client::any_node)).
///
/// Each operation is one request and one answer over a stream, within the client's timeout. A
/// particular node that cannot be connected to is reported at once, not retried.
///
/// # Errors
/// All operations: [`Error::NoNode`] when it could not be reached, [`Error::TimedOut`] when it did
/// not answer, [`Error::Disconnected`], [`Error::Rejected`] and [`Error::Protocol`] as they say.
/// Nothing here changes anything but [`NodeHandle::keys`], [`NodeHandle::order`] and [`NodeHandle::judge`],
/// and all of it may be repeated.
pub struct NodeHandle<N: Net = TokioNet, C: Clock = SystemClock> {
    handle: Arc<Handle<N, C>>,
    whom: Whom,
}

/// Asks, and takes the answer out of its message.
macro_rules! ask {
    ($self:ident, $request:expr, $kind:ident) => {
        match $self.handle.inner.ask($self.whom, $request.into()).await? {
            (Message::$kind(answer), _) => Ok(answer),
            (other, node) => Err(unexpected(&other, node, stringify!($kind))),
        }
    };
}

impl<N: Net, C: Clock> NodeHandle<N, C> {
    pub(crate) fn new(handle: Arc<Handle<N, C>>, addr: Option<SocketAddr>) -> Self {
        Self { handle, whom: addr.map_or(Whom::Any, Whom::Only) }
    }

    /// How the node is.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        ask!(self, StatusRequest {}, NodeStatus)
    }

    /// The members that it knows, the dead included.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn members(&self) -> Result<Members, Error> {
        ask!(self, MembersRequest {}, Members)
    }

    /// How it finds the other members: whether they answer it, with which view, and how far they are.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn peers(&self) -> Result<Peers, Error> {
        ask!(self, PeersRequest {}, Peers)
    }

    /// The homes of all slots as it sees them: some 50 KiB.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn routes(&self) -> Result<Routes, Error> {
        Ok(self.handle.inner.fetch_routes(self.whom).await?.as_sent().clone())
    }

    /// Whether it answers, and who it is.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn ping(&self) -> Result<NodeId, Error> {
        let pong = ask!(self, Ping {}, Pong)?;
        Ok(pong.node)
    }

    /// Sees to the keys of all nodes, through this one: over its local socket, as who runs the cluster.
    /// With `force` though a member does not answer or lacks the key. May be repeated. Takes up to some
    /// six seconds where members don't answer; give the client as much time.
    ///
    /// # Errors
    /// See [`NodeHandle`]. What was in the way at the nodes themselves stands in the report.
    pub async fn keys(&self, change: KeyChange, force: bool) -> Result<KeysReport, Error> {
        ask!(self, KeysRequest { change, force }, KeysReport)
    }

    /// Whether its process may be stopped now without harm. It asks every other member, which takes
    /// about a second if one of them does not answer.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn safety(&self) -> Result<Safety, Error> {
        ask!(self, SafetyRequest {}, Safety)
    }

    /// What happened on it since the event with this number (0 = all that it remembers): the oldest
    /// ones first, a page at a time. Costs one request; ask again for more.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn events(&self, after: u64) -> Result<Events, Error> {
        ask!(self, EventsRequest { after }, Events)
    }

    /// Has it do something, as who runs the cluster.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Refused`] says why it did not.
    pub async fn order(&self, order: Order) -> Result<(), Error> {
        match ask!(self, order, Ordered)? {
            Ordered::Done => Ok(()),
            Ordered::Refused(why) => Err(Error::Refused(why)),
            _ => Err(Error::Protocol { at: "a node".to_owned(), why: "an unknown answer".into() }),
        }
    }

    /// How busy its host is.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn host_load(&self) -> Result<HostLoad, Error> {
        ask!(self, LoadRequest {}, HostLoad)
    }

    /// The members that serve, the one in front whose host suits such a session best. It asks all of them,
    /// which takes about a second if one does not answer, and leaves out who does not.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn rank(&self, affinity: Affinity) -> Result<Vec<(NodeId, HostLoad)>, Error> {
        let ranked = ask!(self, RankRequest { affinity }, Ranked)?;
        Ok(ranked.nodes)
    }

    /// How slots would lie if the members were as supposed, by the members that it knows. Nothing changes.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn plan(&self, supposed: PlanRequest) -> Result<RouteTable, Error> {
        let routes = ask!(self, supposed, Routes)?;
        let protocol = |why: &str| Error::Protocol { at: "a node".to_owned(), why: why.to_owned() };
        RouteTable::new(routes).map_err(protocol)
    }

    /// A page of the live sessions that are pinned to a node, of those whose primary is this one: key, birth
    /// and size of each. `from` is where the page before said to go on, (0, `None`) at the beginning. As
    /// who runs the cluster.
    ///
    /// # Errors
    /// See [`NodeHandle`].
    pub async fn pinned(
        &self,
        table: &str,
        to: NodeId,
        (core, after): (u16, Option<Key>),
    ) -> Result<Pinned, Error> {
        ask!(self, PinnedRequest { table: table.to_owned(), to, core, after }, Pinned)
    }

    /// A page of the suspects that it is a home of: sessions that are used too much. `place` is where the page
    /// before said to go on, (0, `None`) at the beginning. As a monitor;
    /// [`Table::suspects`](crate::Table::suspects) lists those of the cluster.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Rejected`] for a table that it does not have, and without the role.
    pub async fn suspects(
        &self,
        table: &str,
        (core, after): (u16, Option<u64>),
    ) -> Result<Suspects, Error> {
        ask!(self, SuspectsRequest { table: table.to_owned(), core, after }, Suspects)
    }

    /// A page of the live sessions of an owner that it holds, on all rings. `place` is where the page before said to go
    /// on; [`Table::sessions_of`](crate::Table::sessions_of) lists those of the cluster.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Rejected`] for a table that it does not have, an owner of no or more than 255
    /// bytes, as a monitor or operator, and until the node has read what it holds.
    pub async fn owned(
        &self,
        table: &str,
        owner: &[u8],
        place: OwnedPlace,
    ) -> Result<Owned, Error> {
        let (table, owner) = (table.to_owned(), owner.to_vec());
        ask!(self, OwnedRequest { table, owner, place }, Owned)
    }

    /// The sessions of a table that it saw used most, the hottest first, `count` of them at most: those that it noticed,
    /// for one in 64 uses it looks at the session. So one with a heat of some hundreds is there for all but certain, and
    /// one that is used a few times only by chance, or where there are few. Costs a request for each core of the node.
    /// Each home counts what it hears of: the numbers of several nodes are not to be added up.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Rejected`] for a table that it does not have, and of a node that is older than this
    /// request.
    pub async fn hottest(&self, table: &str, count: u16) -> Result<Vec<HotSession>, Error> {
        let (mut all, mut core) = (Vec::new(), 0);
        loop {
            let request = HottestRequest { table: table.to_owned(), core, count };
            let Hottest { sessions, next } = ask!(self, request, Hottest)?;
            all.extend(sessions);
            match next {
                None => break,
                Some(next) if next > core => core = next,
                Some(_) => {
                    let why = "its cores come to no end".to_owned();
                    return Err(Error::Protocol { at: "a node".to_owned(), why });
                }
            }
        }
        all.sort_by_key(|session| (Reverse(session.heat), session.word));
        all.truncate(count.into());
        Ok(all)
    }

    /// Passes a sentence on a suspect that it is a home of: the session with this birth, whose key `word` stands
    /// for. As a monitor; [`Table::release`](crate::Table::release) and
    /// [`Table::end_suspect`](crate::Table::end_suspect) find its homes.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Absent`] if it knows of no such suspect, [`Error::Unavailable`], and
    /// [`Error::Rejected`] for a table that it does not have, and without the role. After [`Error::TimedOut`] it
    /// may have been done or not.
    pub async fn judge(
        &self,
        table: &str,
        word: u64,
        birth: Version,
        sentence: Sentence,
    ) -> Result<(), Error> {
        let judge = Judge { table: table.to_owned(), word, birth, patience_ms: 0, sentence };
        self.judge_until(judge, Instant::now() + self.handle.inner.settings.timeout).await
    }

    /// The same, until `deadline`.
    pub(crate) async fn judge_until(&self, judge: Judge, deadline: Instant) -> Result<(), Error> {
        match self.handle.inner.ask_until(self.whom, judge.into(), deadline).await? {
            (Message::SessionReply(SessionReply::Acknowledged(_)), _) => Ok(()),
            (other, node) => Err(unexpected(&other, node, "an acknowledgement")),
        }
    }

    /// Where it thinks a session lives, and with `ask_homes` what each home holds of it.
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Refused`] for a table that it does not have.
    pub async fn explain(
        &self,
        table: &str,
        key: &Key,
        ask_homes: bool,
    ) -> Result<Explanation, Error> {
        let request = ExplainRequest { table: table.to_owned(), key: key.clone(), ask_homes };
        ask!(self, request, Explanation)
    }

    /// A page of the live sessions that it holds, from `cursor` on (0 = from the beginning), at
    /// most `limit` (nodes give at most 1,024).
    ///
    /// # Errors
    /// See [`NodeHandle`]; [`Error::Refused`] for a table that it does not have.
    pub async fn list(&self, table: &str, cursor: u64, limit: u16) -> Result<List, Error> {
        ask!(self, ListRequest { table: table.to_owned(), cursor, limit }, List)
    }
}

/// A node answered a question that was not asked.
pub(crate) fn unexpected(answer: &Message, node: NodeId, expected: &str) -> Error {
    let why = format!("{} instead of {expected}", answer.name());
    Error::Protocol { at: node.to_string(), why }
}

impl<N: Net, C: Clock> Clone for NodeHandle<N, C> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), whom: self.whom }
    }
}

impl<N: Net, C: Clock> fmt::Debug for NodeHandle<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("whom", &self.whom).finish_non_exhaustive()
    }
}
