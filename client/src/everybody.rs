//! Questions that every member is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use annulus_net::{Clock, Net};
use annulus_proto::NodeId;
use tokio::task::JoinSet;

use crate::client::Handle;
use crate::error::Error;
use crate::node::NodeHandle;

/// Asks all active members at the same time; who they are says the node at `told_by`, or any. Returns what they said,
/// in the order of their ids, and who said nothing.
///
/// # Errors
/// If no member answered: why; what a node says of itself rather than that another one is not there.
pub(crate) async fn ask<N: Net, C: Clock, T, F>(
    handle: &Arc<Handle<N, C>>,
    told_by: Option<SocketAddr>,
    question: impl Fn(NodeHandle<N, C>) -> F,
) -> Result<(Vec<T>, Vec<NodeId>), Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let members = NodeHandle::new(handle.clone(), told_by).members().await?.members;
    let mut asked = JoinSet::new();
    for member in members.into_iter().filter(|member| member.status.is_active()) {
        let answer = question(NodeHandle::new(handle.clone(), Some(member.addr)));
        asked.spawn(async move { (member.id, answer.await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (member, said) = answer.expect("nobody aborts it, and it does not panic");
        answers.insert(member, said);
    }
    let (mut all, mut silent, mut why) = (Vec::new(), Vec::new(), None);
    for (member, said) in answers {
        match said {
            Ok(said) => all.push(said),
            Err(error) => {
                silent.push(member);
                let is_word = matches!(error, Error::Rejected { .. });
                if why.is_none() || is_word {
                    why = Some(error);
                }
            }
        }
    }
    match why {
        Some(error) if all.is_empty() => Err(error),
        _ => Ok((all, silent)),
    }
}
