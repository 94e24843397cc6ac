//! The sessions of one owner: listed, and ended at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use annulus_net::{Clock, Net};
use annulus_proto::message::{OwnedPlace, OwnedSession};
use annulus_proto::{Key, NodeId, Version};
use tokio::task::JoinSet;

use crate::client::Handle;
use crate::error::Error;
use crate::everybody;
use crate::node::NodeHandle;
use crate::table::Table;

/// The sessions of an owner; see [`Table::sessions_of`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedSessions {
    /// Each of them once, by their keys, as the copy that knows most shows it.
    pub sessions: Vec<OwnedSession>,
    /// Active members that did not answer.
    pub silent: Vec<NodeId>,
    /// Whether so few were silent that none of what was acknowledged is missing.
    pub is_complete: bool,
    /// How many homes hold what was acknowledged, at least.
    write_homes: u8,
}

/// How many sessions are ended at a time.
const ENDS_AT_A_TIME: usize = 64;

impl OwnedSessions {
    fn merge(said: Vec<(Vec<OwnedSession>, u8)>, silent: Vec<NodeId>) -> Self {
        let write_homes = said.iter().map(|(_, homes)| *homes).min().unwrap_or(0);
        let mut merged: BTreeMap<Key, OwnedSession> = BTreeMap::new();
        for session in said.into_iter().flat_map(|(sessions, _)| sessions) {
            let version = |it: &OwnedSession| (it.listed.birth, it.listed.version);
            let rank = |it: &OwnedSession| (version(it), it.listed.touched);
            let key = session.listed.key.clone();
            let known = merged.entry(key).or_insert_with(|| session.clone());
            // Of what is on another ring, the copy there says how large it is.
            let size = known.listed.size.max(session.listed.size);
            let is_same = version(known) == version(&session);
            if rank(&session) > rank(known) {
                *known = session;
            }
            if is_same {
                known.listed.size = size;
            }
        }
        let is_complete = silent.len() < usize::from(write_homes);
        Self { sessions: merged.into_values().collect(), silent, is_complete, write_homes }
    }
}

/// See [`Table::sessions_of`].
pub(crate) async fn list<N: Net, C: Clock>(
    handle: &Arc<Handle<N, C>>,
    table: &str,
    told_by: Option<SocketAddr>,
    owner: &[u8],
) -> Result<OwnedSessions, Error> {
    let (table, owner) = (table.to_owned(), owner.to_vec());
    let ask = move |node: NodeHandle<N, C>| {
        let (table, owner) = (table.clone(), owner.clone());
        async move { all_of(&node, &table, &owner).await }
    };
    let (said, silent) = everybody::ask(handle, told_by, ask).await?;
    Ok(OwnedSessions::merge(said, silent))
}

/// All that a node holds of an owner, and how many homes a write takes.
async fn all_of<N: Net, C: Clock>(
    node: &NodeHandle<N, C>,
    table: &str,
    owner: &[u8],
) -> Result<(Vec<OwnedSession>, u8), Error> {
    let (mut all, mut place, mut write_homes) = (Vec::new(), OwnedPlace::default(), u8::MAX);
    loop {
        let page = node.owned(table, owner, place).await?;
        all.extend(page.sessions);
        write_homes = write_homes.min(page.write_homes);
        match page.next {
            None => return Ok((all, write_homes)),
            Some(next) if next > place => place = next,
            Some(_) => {
                let why = "its pages of somebody's sessions come to no end".to_owned();
                return Err(Error::Protocol { at: "a node".to_owned(), why });
            }
        }
    }
}

/// See [`Table::end_sessions_of`].
pub(crate) async fn end<N: Net, C: Clock>(
    table: &Table<N, C>,
    owner: &[u8],
    except: Option<Key>,
) -> Result<usize, Error> {
    let mut owned = table.sessions_of(owner).await?;
    owned.sessions.retain(|session| Some(&session.listed.key) != except.as_ref());
    end_all(table, owned).await
}

/// See [`Table::limit_sessions_of`].
pub(crate) async fn limit<N: Net, C: Clock>(
    table: &Table<N, C>,
    owner: &[u8],
    most: usize,
    begun: Option<Version>,
) -> Result<usize, Error> {
    let mut owned = table.sessions_of(owner).await?;
    owned.sessions = beyond(owned.sessions, most, begun);
    end_all(table, owned).await
}

/// Those that are too many, of those that were born before this one.
pub(crate) fn beyond(
    mut sessions: Vec<OwnedSession>,
    most: usize,
    begun: Option<Version>,
) -> Vec<OwnedSession> {
    let all = sessions.len();
    sessions.retain(|session| begun.is_none_or(|begun| session.listed.birth < begun));
    let kept = most.saturating_sub(all - sessions.len()).min(sessions.len());
    sessions.sort_by_key(|session| Reverse((session.listed.touched, session.listed.birth)));
    sessions.split_off(kept)
}

/// Ends all of these, however many fail.
async fn end_all<N: Net, C: Clock>(
    table: &Table<N, C>,
    owned: OwnedSessions,
) -> Result<usize, Error> {
    let OwnedSessions { sessions, silent, is_complete, write_homes } = owned;
    let mut left = sessions.into_iter();
    let (mut under_way, mut ended, mut failed) = (JoinSet::new(), 0, None);
    loop {
        while under_way.len() < ENDS_AT_A_TIME
            && let Some(session) = left.next()
        {
            let table = table.clone();
            let (key, birth) = (session.listed.key, session.listed.birth);
            under_way.spawn(async move { table.end(&key, Some(birth)).await });
        }
        let Some(done) = under_way.join_next().await else { break };
        match done.expect("nobody aborts it, and it does not panic") {
            Ok(_) => ended += 1,
            Err(Error::Absent | Error::Ended | Error::Expired) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) => Err(error),
        None if !is_complete => {
            let silent = u8::try_from(silent.len()).unwrap_or(u8::MAX);
            Err(Error::Unavailable {
                answered: write_homes.saturating_sub(silent),
                needed: 1,
                homes: write_homes,
            })
        }
        None => Ok(ended),
    }
}
