//! Another key for a session.

use annulus_net::{Clock, Net};
use annulus_proto::message::{Acknowledged, Change, Operation};
use annulus_proto::{Attributes, Key, Replaced, Version};

use crate::error::Error;
use crate::table::Table;

/// A session that has another key now; see [`Table::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// What began or changed the session under the new key last.
    pub begun: Acknowledged,
    /// Whether the one under the old key is known to have ended. If not, the nodes end it, some ten seconds after the other
    /// one began, or as soon as they can.
    pub has_ended: bool,
}

/// How often what was changed meanwhile is taken over, before the old session is ended whatever else becomes of it.
const ROUNDS: usize = 8;

/// See [`Table::rotate`] and [`Table::rotate_for`].
pub(crate) async fn rotate<N: Net, C: Clock>(
    table: &Table<N, C>,
    (old, birth): (Key, Option<Version>),
    new: Key,
    owner: Option<Vec<u8>>,
) -> Result<Rotated, Error> {
    let read = table.fetch(&old).await?.session;
    if birth.is_some_and(|birth| birth != read.birth) {
        return Err(Error::Ended);
    }
    let (birth, mut seen, mut value) = (read.birth, read.version, read.value.clone());
    let owner = owner.unwrap_or(read.attributes.owner);
    let operation = Operation::StartInstead {
        replaced: Replaced { word: old.word(), birth },
        value: read.value,
        idle: read.idle,
        expire_at: read.expire_at,
        attributes: Attributes { owner, ..read.attributes },
    };
    let mut begun = table.write(new.clone(), operation).await?;
    for round in 0..=ROUNDS {
        let ended = match round {
            ROUNDS => table.end(&old, Some(birth)).await,
            _ => table.end_if(&old, seen).await,
        };
        match ended {
            Ok(_) => return Ok(Rotated { begun, has_ended: true }),
            Err(Error::Conflict { .. }) => {}
            Err(Error::Ended | Error::Absent | Error::Expired) => break,
            Err(_) => return Ok(Rotated { begun, has_ended: false }),
        }
        // It was changed since it was read.
        match table.fetch(&old).await.map(|read| read.session) {
            Ok(now) if now.birth == birth => {
                seen = now.version;
                if now.value != value {
                    value = now.value;
                    let change = Change::Value(value.clone());
                    begun = table.update(&new, Some(begun.birth), change).await?;
                }
            }
            Ok(_) | Err(Error::Ended | Error::Absent | Error::Expired) => break,
            Err(_) => return Ok(Rotated { begun, has_ended: false }),
        }
    }
    // Its user has logged out meanwhile, which holds for the other one, too.
    match table.end(&new, Some(begun.birth)).await {
        Ok(_) | Err(Error::Ended | Error::Absent | Error::Expired) => Err(Error::Ended),
        Err(error) => Err(error),
    }
}
