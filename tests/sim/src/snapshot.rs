//! What all nodes said of themselves at one time, and what keeps it from being as it should.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_client::{NodeStatus, Routes, Status, TableStatus};
use annulus_proto::{Key, NodeId};

use crate::check;
use crate::host::Holding;
use crate::plan::Contacts;

/// What all nodes said of themselves; `None` of one that did not answer.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the first was asked.
    pub began: Duration,
    /// What each said, by its number.
    pub nodes: BTreeMap<usize, Option<(NodeStatus, Routes)>>,
}

impl Snapshot {
    /// What keeps the cluster from being formed, or `entirely` from being healed as well; nothing is said of
    /// what the nodes hold.
    #[must_use]
    pub fn unmet(&self, contacts: &Contacts, entirely: bool) -> Vec<String> {
        let up = contacts.up();
        let mut unmet = Vec::new();
        if !self.nodes.keys().eq(up) {
            unmet.push("not everybody was asked yet".to_owned());
        }
        let mut views = BTreeSet::new();
        for (node, answer) in &self.nodes {
            let name = format!("n{}", node + 1);
            let Some((status, routes)) = answer else {
                unmet.push(format!("{name} does not answer"));
                continue;
            };
            views.extend([status.view, routes.view]);
            let may_drain = contacts.draining().contains(node);
            let is_draining = status.member.status == Status::Draining;
            if status.member.status != Status::Up && !(may_drain && is_draining) {
                unmet.push(format!("{name} is {:?}", status.member.status));
            }
            let (active, agreeing) = (status.active_members, status.agreeing_members);
            if (active as usize, agreeing as usize) != (up.len(), up.len()) {
                unmet.push(format!("{name} knows {active} members, {agreeing} agree"));
            }
            for table in &status.tables {
                if table.slots_unsynced > 0 {
                    unmet.push(format!("{name} has {} slots not in sync", table.slots_unsynced));
                }
                if entirely && table.slots_leaving > table.slots_short {
                    unmet.push(format!("{name} has {} slots to give away", table.slots_leaving));
                }
                if table.hints > 0 {
                    unmet.push(format!("{name} has {} hints", table.hints));
                }
            }
        }
        if views.len() > 1 {
            unmet.push(format!("{} views", views.len()));
        }
        unmet
    }

    /// Whether a node said that it drains, and has given away what others can take.
    #[must_use]
    pub fn is_drained(&self, node: usize) -> bool {
        let Some(Some((status, _))) = self.nodes.get(&node) else { return false };
        let has_none =
            |table: &TableStatus| table.slots_home == 0 && table.slots_leaving == table.slots_short;
        status.member.status == Status::Draining && status.tables.iter().all(has_none)
    }

    /// Whether a node said that it drains and keeps nothing any more, not even for want of others who would.
    #[must_use]
    pub fn keeps_nothing(&self, node: usize) -> bool {
        let Some(Some((status, _))) = self.nodes.get(&node) else { return false };
        let has_none = |table: &TableStatus| table.slots_home + table.slots_leaving == 0;
        status.member.status == Status::Draining && status.tables.iter().all(has_none)
    }

    /// The homes of each key, as any node says that answered.
    #[must_use]
    pub fn homes(&self, keys: &[String]) -> Vec<Vec<usize>> {
        let answers: Vec<_> =
            self.nodes.iter().filter_map(|(node, it)| Some((*node, it.as_ref()?))).collect();
        let Some((_, (_, routes))) = answers.first() else { return Vec::new() };
        let ids: BTreeMap<NodeId, usize> =
            answers.iter().map(|(node, (status, _))| (status.member.id, *node)).collect();
        let per_slot = usize::from(routes.homes_per_slot);
        let of_key = |key: &String| {
            let Ok(key) = Key::new(key) else { return Vec::new() };
            let from = usize::from(key.slot().index()) * per_slot;
            let homes = routes.homes.get(from..from + per_slot).unwrap_or_default();
            let id = |index: &u16| routes.nodes.get(usize::from(*index)).map(|node| node.id);
            homes.iter().filter_map(id).filter_map(|id| ids.get(&id).copied()).collect()
        };
        keys.iter().map(of_key).collect()
    }
}

/// The keys of which the homes hold different things.
#[must_use]
pub fn differences(keys: &[String], homes: &[Vec<usize>], holdings: &[Holding]) -> Vec<String> {
    let mut found = Vec::new();
    for (key, homes) in homes.iter().enumerate() {
        let Ok(name) = Key::new(&keys[key]) else { continue };
        let mut held = homes.iter().map(|home| holdings[*home].get(&name));
        let first = held.next().flatten();
        if !held.all(|other| check::is_equal(first, other, name.as_bytes())) {
            found.push(format!("the homes of k{key} differ"));
        }
    }
    found
}
