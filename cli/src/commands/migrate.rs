//! `annulus migrate` and `evacuate`: where sessions are besides their homes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use annulus_client::{Affinity, Change, Error, Key, NodeId, Version};
use serde_json::json;
use tokio::task::JoinSet;

use super::session;
use crate::args::{EvacuateArgs, MigrateArgs};
use crate::cluster::Cluster;
use crate::exit::{Failed, NOT_YET};
use crate::output;

/// How often what could not be moved is tried again.
const ROUNDS: usize = 3;
/// How long apart progress is told.
const TELL: Duration = Duration::from_secs(1);

/// Pins a session to a node, or to none.
pub(crate) async fn migrate(cluster: &Cluster, args: &MigrateArgs) -> anyhow::Result<()> {
    let key = session::key(&args.key);
    let to = destination(cluster, args.to.to.as_deref(), args.to.affinity).await?;
    let done = match to {
        Some(node) => cluster.table.migrate(key, None, node).await?,
        None => cluster.table.undo_migration(key, None).await?,
    };
    if cluster.json {
        return output::json(&json!({ "pin": to, "version": done.version }));
    }
    match to {
        Some(node) => output::line(format!("pinned to {}", name_of(cluster, node).await)),
        None => output::line("pinned to no node"),
    }
}

/// The node that is meant; `None` if none is.
pub(crate) async fn destination(
    cluster: &Cluster,
    name: Option<&str>,
    affinity: Option<Affinity>,
) -> anyhow::Result<Option<NodeId>> {
    match (name, affinity) {
        (Some(name), _) => Ok(Some(cluster.member(name).await?.id)),
        (None, Some(affinity)) => {
            let ranked = cluster.client.any_node().rank(affinity).await?;
            match ranked.first() {
                Some((node, _)) => Ok(Some(*node)),
                None => Err(nobody()),
            }
        }
        (None, None) => Ok(None),
    }
}

fn nobody() -> anyhow::Error {
    let why = "no member that could take it has said how busy it is";
    Failed { code: crate::exit::UNAVAILABLE, why: why.to_owned() }.into()
}

async fn name_of(cluster: &Cluster, node: NodeId) -> String {
    let members = cluster.client.members().await;
    let members = members.map(|members| members.members).unwrap_or_default();
    let member = members.into_iter().find(|member| member.id == node);
    member.map_or_else(|| node.to_string(), |member| format!("{} ({node})", member.name))
}

/// Pins all sessions that are pinned to a node to others, or to none, and tells how far that is.
///
/// It may be interrupted at any time, and begun again: what was moved stays moved.
pub(crate) async fn evacuate(cluster: &Cluster, args: &EvacuateArgs) -> anyhow::Result<()> {
    let from = cluster.member(&args.member).await?.id;
    let to = destinations(cluster, from, args.affinity).await?;
    let mut course = Course::new(args.rate);
    for _ in 0..ROUNDS {
        let mut listed = pinned_to(cluster, from).await?;
        // A primary may hear of a change later than those that acknowledged it.
        listed.retain(|session| !course.done.contains(&session.key));
        if listed.is_empty() {
            break;
        }
        course.total = course.done.len() + listed.len();
        course.failed = None;
        let mut moves = JoinSet::new();
        for (number, session) in listed.into_iter().enumerate() {
            while moves.len() >= usize::from(args.concurrency) {
                course.note(moves.join_next().await)?;
            }
            let pin = (!to.is_empty()).then(|| to[number % to.len()]);
            if pin.is_some() {
                course.wait_for_turn(session.size).await;
            }
            let table = cluster.table.clone();
            moves.spawn(async move {
                let Pinned { key, birth, .. } = session;
                let moved = table.update(key.as_bytes(), Some(birth), Change::Pin(pin)).await;
                (key, moved.map(|_| ()))
            });
        }
        while !moves.is_empty() {
            course.note(moves.join_next().await)?;
        }
    }
    let moved = course.moved;
    if cluster.json {
        output::json(&json!({ "moved": moved, "bytes": course.bytes, "to": to }))?;
    } else {
        output::line(format!("{moved} sessions are not pinned to {} any more", args.member))?;
    }
    match course.failed {
        None => Ok(()),
        Some(error) => {
            let why = format!("some are still pinned to it, the last one since: {error}");
            Err(Failed { code: NOT_YET, why }.into())
        }
    }
}

/// A session that is pinned to the node in question.
struct Pinned {
    key: Key,
    birth: Version,
    size: u64,
}

/// The better half of the members by what they have to spare, so that none of them gets all.
async fn destinations(
    cluster: &Cluster,
    from: NodeId,
    affinity: Option<Affinity>,
) -> anyhow::Result<Vec<NodeId>> {
    let Some(affinity) = affinity else { return Ok(Vec::new()) };
    let ranked = cluster.client.any_node().rank(affinity).await?;
    let mut others: Vec<NodeId> =
        ranked.into_iter().map(|(node, _)| node).filter(|node| *node != from).collect();
    others.truncate(others.len().div_ceil(2));
    if others.is_empty() { Err(nobody()) } else { Ok(others) }
}

/// All that is pinned to a node, as the primaries know it.
async fn pinned_to(cluster: &Cluster, to: NodeId) -> anyhow::Result<Vec<Pinned>> {
    let mut all = Vec::new();
    for member in cluster.active_members().await? {
        let node = cluster.client.node(member.addr);
        let mut next = Some((0, None));
        while let Some(place) = next {
            let page = node.pinned(cluster.table.name(), to, place).await?;
            let sessions = page.sessions.into_iter();
            all.extend(sessions.map(|(key, birth, size)| Pinned { key, birth, size }));
            next = page.next;
        }
    }
    Ok(all)
}

/// A session, and whether it was moved.
type Moved = (Key, Result<(), Error>);

/// How far it is.
struct Course {
    began: Instant,
    told: Instant,
    rate: u64,
    total: usize,
    /// Those that are moved, or over.
    done: BTreeSet<Key>,
    moved: usize,
    bytes: u64,
    failed: Option<Error>,
}

impl Course {
    fn new(rate: u64) -> Self {
        let now = Instant::now();
        let (total, done, moved) = (0, BTreeSet::new(), 0);
        Self { began: now, told: now, rate, total, done, moved, bytes: 0, failed: None }
    }

    /// Waits until so many bytes may go.
    async fn wait_for_turn(&mut self, bytes: u64) {
        tokio::time::sleep(self.due().saturating_sub(self.began.elapsed())).await;
        self.bytes += bytes;
    }

    /// When, after the beginning, what went so far may have gone.
    fn due(&self) -> Duration {
        Duration::from_secs_f64(self.bytes as f64 / self.rate as f64)
    }

    fn note(&mut self, moved: Option<Result<Moved, tokio::task::JoinError>>) -> anyhow::Result<()> {
        let Some((key, moved)) = moved.transpose()? else { return Ok(()) };
        match moved {
            Ok(()) => self.moved += usize::from(self.done.insert(key)),
            // What is over needs no moving.
            Err(Error::Absent | Error::Ended | Error::Expired) => _ = self.done.insert(key),
            Err(error) => self.failed = Some(error),
        }
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            output::message(progress(self.done.len(), self.total, self.began.elapsed()));
        }
        Ok(())
    }
}

fn progress(done: usize, total: usize, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = match done {
        0 => "unknown".to_owned(),
        _ => output::span(Duration::from_secs_f64(total.saturating_sub(done) as f64 / rate)),
    };
    format!("{done} of {total} sessions moved, {rate:.0} a second, time left {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_rate_and_rest() {
        let after = Duration::from_secs(10);
        let text = progress(25, 100, after);
        assert_eq!(text, "25 of 100 sessions moved, 2 a second, time left 30s");
        assert!(progress(0, 100, after).ends_with("time left unknown"));
    }

    #[test]
    fn a_session_is_moved_once_and_one_that_is_over_is_not() {
        let mut course = Course::new(1);
        let key = |key: &str| Key::new(key.as_bytes()).expect("a key");
        for (name, outcome) in [("a", Ok(())), ("b", Err(Error::Ended)), ("a", Ok(()))] {
            course.note(Some(Ok((key(name), outcome)))).expect("it is noted");
        }
        course.note(Some(Ok((key("c"), Err(Error::TimedOut))))).expect("it is noted");
        assert_eq!((course.moved, course.done.len(), course.failed.is_some()), (1, 2, true));
    }

    #[test]
    fn no_more_bytes_go_than_the_rate_allows() {
        let mut course = Course::new(1 << 20);
        assert_eq!(course.due(), Duration::ZERO);
        course.bytes = 5 << 19;
        assert_eq!(course.due(), Duration::from_millis(2_500));
    }
}
