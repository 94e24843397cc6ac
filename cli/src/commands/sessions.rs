//! `annulus sessions`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use annulus_client::{Error, Listed, NodeId, OwnedSession, OwnedSessions, RouteNode, Routes, Slot};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::SessionsArgs;
use crate::cluster::Cluster;
use crate::exit::{Failed, UNAVAILABLE};
use crate::output::{self, Rows};

/// Prints a page of live sessions.
pub(crate) async fn run(cluster: &Cluster, args: &SessionsArgs) -> anyhow::Result<()> {
    if let Some(owner) = &args.owner {
        return owned(cluster, args, owner.as_bytes()).await;
    }
    if args.all {
        return all(cluster, args).await;
    }
    let cursor = args.cursor.as_deref().map_or(Ok(0), plain_cursor)?;
    let page = if args.local {
        local(cluster, args, cursor)?
    } else {
        node(cluster, args, cursor).await?
    };
    print(cluster, args, &page)
}

/// A page of sessions, and the node that was asked about each.
struct Page {
    sessions: Vec<(Option<NodeId>, Listed)>,
    next: Option<String>,
}

/// The most entries a node gives at once.
const NODE_PAGE_MAX: u32 = 1_024;

fn local(cluster: &Cluster, args: &SessionsArgs, cursor: u64) -> anyhow::Result<Page> {
    let page = cluster.table.list_local(cursor, args.limit as usize)?;
    let sessions = page.entries.into_iter().map(|listed| (None, listed)).collect();
    Ok(Page { sessions, next: next(page.next) })
}

async fn node(cluster: &Cluster, args: &SessionsArgs, cursor: u64) -> anyhow::Result<Page> {
    let contact = cluster.client.contact();
    let id = contact.as_ref().map(|contact| contact.node);
    let mut sessions = Vec::new();
    let mut cursor = cursor;
    loop {
        let page = cluster.table.list(cursor, page_size(args, sessions.len())).await?;
        sessions.extend(page.entries.into_iter().map(|listed| (id, listed)));
        cursor = page.next;
        if cursor == 0 || sessions.len() >= args.limit as usize {
            return Ok(Page { sessions, next: next(cursor) });
        }
        // A cursor is of use at its own node only.
        if cluster.client.contact().map(|contact| contact.node) != id {
            return Err(Error::TimedOut.into());
        }
    }
}

fn page_size(args: &SessionsArgs, have: usize) -> u16 {
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    let wanted = args.limit.saturating_sub(have).clamp(1, NODE_PAGE_MAX);
    u16::try_from(wanted).expect("at most 1,024")
}

/// Lists every session once: each slot at the first of its homes that answers, node by node in the
/// order of their ids. A cursor names the node and the place there.
async fn all(cluster: &Cluster, args: &SessionsArgs) -> anyhow::Result<()> {
    let routes = cluster.client.routes().await?;
    let listers = Listers::find(cluster, &routes).await?;
    let (from, mut cursor) = args.cursor.as_deref().map_or(Ok((None, 0)), node_cursor)?;
    let mut sessions = Vec::new();
    let mut next = None;
    let later = |id: &NodeId| from.is_none_or(|from| *id >= from);
    'nodes: for (id, node) in listers.nodes.iter().filter(|(id, _)| later(id)) {
        if from != Some(*id) {
            cursor = 0;
        }
        let handle = cluster.client.node(node.addr);
        loop {
            if sessions.len() >= args.limit as usize {
                next = Some(format!("{id}:{cursor}"));
                break 'nodes;
            }
            let limit = page_size(args, sessions.len());
            let page = handle.list(cluster.table.name(), cursor, limit).await?;
            let mine =
                page.entries.into_iter().filter(|listed| listers.lists(*id, &listed.key.slot()));
            sessions.extend(mine.map(|listed| (Some(*id), listed)));
            cursor = page.next;
            if cursor == 0 {
                break;
            }
        }
    }
    print(cluster, args, &Page { sessions, next })?;
    if listers.silent == 0 && listers.uncovered == 0 {
        return Ok(());
    }
    let why = format!(
        "{} homes did not answer; {} slots have no other and are not listed",
        listers.silent, listers.uncovered
    );
    // The list is whole as long as each slot has a home that answered.
    if listers.uncovered == 0 {
        output::message(format!("annulus: warning: {why}"));
        return Ok(());
    }
    Err(Failed { code: UNAVAILABLE, why }.into())
}

/// Which node lists which slot.
struct Listers {
    nodes: BTreeMap<NodeId, RouteNode>,
    /// By slot; `None` where no home answers.
    by_slot: Vec<Option<NodeId>>,
    silent: usize,
    uncovered: usize,
}

impl Listers {
    async fn find(cluster: &Cluster, routes: &Routes) -> anyhow::Result<Self> {
        let mut asked = JoinSet::new();
        for node in &routes.nodes {
            let handle = cluster.client.node(node.addr);
            let node = node.clone();
            asked.spawn(async move { handle.ping().await.is_ok().then_some(node) });
        }
        let mut nodes = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            if let Some(node) = answer? {
                nodes.insert(node.id, node);
            }
        }
        Ok(Self::new(routes, nodes))
    }

    fn new(routes: &Routes, nodes: BTreeMap<NodeId, RouteNode>) -> Self {
        let id = |home: &u16| routes.nodes[usize::from(*home)].id;
        let homes = routes.homes.chunks(usize::from(routes.homes_per_slot).max(1));
        let by_slot: Vec<_> =
            homes.map(|homes| homes.iter().map(id).find(|id| nodes.contains_key(id))).collect();
        let uncovered = by_slot.iter().filter(|lister| lister.is_none()).count();
        let silent = routes.nodes.len() - nodes.len();
        Self { nodes, by_slot, silent, uncovered }
    }

    fn lists(&self, node: NodeId, slot: &Slot) -> bool {
        self.by_slot.get(usize::from(slot.index())) == Some(&Some(node))
    }
}

/// Lists the sessions of one owner, the last used first.
async fn owned(cluster: &Cluster, args: &SessionsArgs, owner: &[u8]) -> anyhow::Result<()> {
    let OwnedSessions { mut sessions, silent, is_complete, .. } =
        cluster.table.sessions_of(owner).await?;
    sessions.sort_by(|OwnedSession { listed: one, .. }, OwnedSession { listed: other, .. }| {
        (other.touched, &one.key).cmp(&(one.touched, &other.key))
    });
    let found = sessions.len();
    sessions.truncate(args.limit as usize);
    let sessions = sessions.into_iter().map(|session| (None, session.listed)).collect();
    print(cluster, args, &Page { sessions, next: None })?;
    if found > args.limit as usize {
        output::message(format!("{found} in all: --limit {found} shows them"));
    }
    if is_complete {
        return Ok(());
    }
    let why = format!("{} members did not answer, so that some may be missing", silent.len());
    Err(Failed { code: UNAVAILABLE, why }.into())
}

fn print(cluster: &Cluster, args: &SessionsArgs, page: &Page) -> anyhow::Result<()> {
    let Page { sessions, next } = page;
    if cluster.json {
        let sessions = sessions.iter().map(|(node, listed)| {
            let mut document = json!({
                "tag": cluster.tag(listed),
                "slot": listed.key.slot(),
                "birth": listed.birth,
                "version": listed.version,
                "touched_ms": listed.touched,
                "deadline_ms": listed.deadline,
                "size": listed.size,
            });
            if let Some(node) = node {
                document["node"] = json!(node);
            }
            if args.keys {
                document["key"] = output::json_bytes(listed.key.as_bytes());
            }
            document
        });
        let sessions: Vec<_> = sessions.collect();
        return output::json(&json!({ "sessions": sessions, "next": next }));
    }
    let now_ms = output::now_ms();
    let key = if args.keys { "KEY" } else { "TAG" };
    let mut rows = Rows::new(&[key, ">SLOT", ">SIZE", ">BORN", ">LAST USE", ">EXPIRES IN", "NODE"]);
    for (node, listed) in sessions {
        rows.push([
            if args.keys { output::show_bytes(listed.key.as_bytes()) } else { cluster.tag(listed) },
            listed.key.slot().to_string(),
            output::bytes(listed.size),
            output::since(listed.birth.hlc.ms(), now_ms),
            output::since(listed.touched, now_ms),
            output::until(listed.deadline, now_ms),
            node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
        ]);
    }
    rows.print()?;
    if let Some(next) = next {
        output::message(format!("more follow: --cursor {next}"));
    }
    Ok(())
}

fn next(cursor: u64) -> Option<String> {
    (cursor != 0).then(|| cursor.to_string())
}

fn plain_cursor(text: &str) -> anyhow::Result<u64> {
    text.parse().map_err(|_| wrong_cursor("the page before, with the same options"))
}

fn node_cursor(text: &str) -> anyhow::Result<(Option<NodeId>, u64)> {
    let parsed = text
        .split_once(':')
        .and_then(|(node, cursor)| Some((Some(NodeId::parse(node)?), cursor.parse().ok()?)));
    parsed.ok_or_else(|| wrong_cursor("the page before, with --all"))
}

fn wrong_cursor(from: &str) -> anyhow::Error {
    Failed::usage(format!("--cursor takes what {from}, printed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_listed_by_its_first_home_that_answers() {
        let node = |id: u16| RouteNode {
            id: NodeId::from_bits(id.into()),
            name: format!("n{id}"),
            addr: ([127, 0, 0, 1], 7000 + id).into(),
        };
        let routes = Routes {
            view: 1,
            nodes: vec![node(1), node(2), node(3)],
            homes_per_slot: 2,
            homes: vec![0, 1, 1, 2, 0, 0],
        };
        let answering = [node(2), node(3)].map(|node| (node.id, node));
        let listers = Listers::new(&routes, BTreeMap::from(answering));
        let slot = |index| Slot::new(index).expect("a slot");
        let id = |bits| NodeId::from_bits(bits);
        assert!(listers.lists(id(2), &slot(0)) && !listers.lists(id(1), &slot(0)));
        assert!(listers.lists(id(2), &slot(1)) && !listers.lists(id(3), &slot(1)));
        assert_eq!((listers.silent, listers.uncovered), (1, 1));
    }

    #[test]
    fn cursors_are_what_was_printed() {
        let id = NodeId::from_bits(0xab);
        let parsed = node_cursor(&format!("{id}:17")).expect("a cursor");
        assert_eq!(parsed, (Some(id), 17));
        assert_eq!(plain_cursor("17").expect("a cursor"), 17);
        for wrong in ["", "17", ":17", "ab:17", "0000000000ab:x"] {
            assert!(node_cursor(wrong).is_err(), "{wrong}");
        }
        assert!(plain_cursor("x").is_err());
    }
}
