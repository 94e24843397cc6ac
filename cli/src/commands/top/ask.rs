//! Asking the members, all at the same time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use annulus_client::{
    Client, Error, HotSession, Member, Members, NodeHandle, NodeId, NodeStatus, SuspectList,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::board::innermost;

/// What was answered, or that nothing was.
pub(super) enum Answer {
    /// Whom a node knows.
    Members(Result<Members, Error>),
    /// How a member is.
    Member(NodeId, Result<Box<Told>, Error>),
    /// The suspects of a table.
    Suspects(String, Result<SuspectList, Error>),
}

/// What a member told.
pub(super) struct Told {
    pub(super) status: NodeStatus,
    /// How long that took.
    pub(super) took: Duration,
    /// Its hottest sessions by table, of those tables of which it told any.
    pub(super) hottest: Vec<(String, Vec<HotSession>)>,
}

/// Questions that are under way: no more than one to each member, and of each kind.
pub(super) struct Asks {
    client: Client,
    limit: Duration,
    under_way: JoinSet<(Whom, Answer)>,
    asked: BTreeSet<Whom>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Anybody,
    Member(NodeId),
    HomesOf(String),
}

/// How long an answer may take, unless `--timeout` says less: who takes longer is shown as silent.
const LIMIT_MAX: Duration = Duration::from_secs(2);
/// How many of its hottest sessions a member is asked for, in each table.
const HOTTEST: u16 = 50;
/// The tables that are asked about: each is a question more to each member.
pub(super) const TABLES_MAX: usize = 16;

impl Asks {
    pub(super) fn new(client: Client, limit: Duration) -> Self {
        let (under_way, asked) = (JoinSet::new(), BTreeSet::new());
        Self { client, limit: limit.min(LIMIT_MAX), under_way, asked }
    }

    /// Asks for the members; who they are says whom to ask then.
    pub(super) fn begin_round(&mut self) {
        let (client, limit) = (self.client.clone(), self.limit);
        self.ask(
            Whom::Anybody,
            async move { Answer::Members(within(limit, client.members()).await) },
        );
    }

    /// Asks a member how it is, and which sessions it saw used most. `told_of_it` is who told that there is such a
    /// member: that one is asked in the way that it was reached before, which may be no more than its socket.
    pub(super) fn ask_member(&mut self, member: &Member, told_of_it: NodeId) {
        let id = member.id;
        let node = match id == told_of_it {
            true => self.client.any_node(),
            false => self.client.node(member.addr),
        };
        let limit = self.limit;
        self.ask(Whom::Member(id), async move {
            Answer::Member(id, tell(&node, id, limit).await.map(Box::new))
        });
    }

    /// Asks for the suspects of a table.
    pub(super) fn ask_for_suspects(&mut self, table: &str) {
        let (client, limit, table) = (self.client.clone(), self.limit, table.to_owned());
        self.ask(Whom::HomesOf(table.clone()), async move {
            let suspects = within(limit, client.table(&table).suspects()).await;
            Answer::Suspects(table, suspects)
        });
    }

    fn ask(&mut self, whom: Whom, answer: impl Future<Output = Answer> + Send + 'static) {
        if self.asked.insert(whom.clone()) {
            self.under_way.spawn(async move { (whom, answer.await) });
        }
    }

    /// The next answer. Waits for ever while nothing was asked. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Answer {
        match self.under_way.join_next().await {
            Some(answered) => {
                let (whom, answer) = answered.expect("nobody aborts it, and it does not panic");
                self.asked.remove(&whom);
                answer
            }
            None => std::future::pending().await,
        }
    }

    /// Whether all is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }
}

async fn tell(node: &NodeHandle, id: NodeId, limit: Duration) -> Result<Told, Error> {
    let asked = Instant::now();
    let status = within(limit, node.status()).await?;
    let took = asked.elapsed();
    if status.member.id != id {
        // Another one has its address, or stood in for it.
        return Err(Error::NoNode { tried: Vec::new() });
    }
    let mut hottest = Vec::new();
    for table in innermost(&status.tables).take(TABLES_MAX) {
        // One that does not know the question is shown without.
        if let Ok(sessions) = within(limit, node.hottest(&table.name, HOTTEST)).await {
            hottest.push((table.name.clone(), sessions));
        }
    }
    Ok(Told { status, took, hottest })
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, answer).await.unwrap_or(Err(Error::TimedOut))
}
