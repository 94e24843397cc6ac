//! What the node tells about itself: status, members, routes, listings, explanations.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{
    Copy, CopyState, ExplainRequest, Explanation, Fetch, List, ListRequest, Listed, Members,
    Message, NodeStatus, Rejected, RouteNode, Routes, Served, TableStatus,
};
use annulus_proto::{Entry, Key, NodeId};

use super::calls::Purpose;
use super::io::{Asker, Now};
use super::{Core, Heard};

/// An explanation that waits for homes.
pub(super) struct Explain {
    asker: Asker,
    id: u64,
    explanation: Explanation,
    waiting: usize,
}

/// Explanations that may wait at a time.
const EXPLAINS_MAX: usize = 256;
/// Room for entries in one page of a listing, in bytes of keys and what stands beside them.
const PAGE_BYTES_MAX: usize = 256 << 10;
const LISTED_OVERHEAD_BYTES: usize = 64;

impl Core {
    pub(super) fn explain(&mut self, now: Now, asker: Asker, id: u64, request: ExplainRequest) {
        let Some(table) = self.table_named(&request.table) else {
            let why = format!("there is no table {:?} here", request.table);
            return self.reply(now, asker, id, Rejected::Malformed { why });
        };
        if self.explains.len() >= EXPLAINS_MAX {
            let why = "too many explanations wait for their homes; try again later".to_owned();
            return self.reply(now, asker, id, Rejected::Malformed { why });
        }
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let slot = request.key.slot();
        let homes = self.homes(table, slot);
        let served_from = match (homes.contains(&me), self.vouches(now, table, slot)) {
            (false, _) => Served::Homes,
            (true, false) => Served::HomesWhileSyncing,
            (true, true) => Served::Memory,
        };
        let own = self.tables[table].store.get(&request.key, now_ms);
        let synced = self.slot_state(table, slot).is_synced();
        let mut copies = Vec::new();
        for home in &homes {
            let Some(member) = self.mesh.view().get(*home) else { continue };
            let state = match (*home == me, request.ask_homes) {
                (_, false) => CopyState::NotAsked,
                (true, _) => copy_state(own.as_ref(), synced, now_ms),
                (false, _) => CopyState::Silent,
            };
            let (name, addr) = (member.name.clone(), member.addr);
            copies.push(Copy { node: *home, name, addr, state });
        }
        let view = self.mesh.view().digest();
        let explanation = Explanation { slot, view, node: me, served_from, homes: copies };
        self.pending_next += 1;
        let number = self.pending_next;
        let mut waiting = 0;
        if request.ask_homes {
            for home in homes.into_iter().filter(|home| *home != me) {
                let (table, key) = (request.table.clone(), request.key.clone());
                let call = self.call(now, home, Purpose::Explain(number), Fetch { table, key });
                waiting += usize::from(call.is_some());
            }
        }
        if waiting == 0 {
            return self.reply(now, asker, id, explanation);
        }
        self.explains.insert(number, Explain { asker, id, explanation, waiting });
    }

    pub(super) fn on_explain_answer(
        &mut self,
        now: Now,
        number: u64,
        node: Option<NodeId>,
        answer: Option<Message>,
    ) {
        let now_ms = self.time.now_ms(now);
        let Some(mut explain) = self.explains.remove(&number) else { return };
        explain.waiting -= 1;
        if let Some(Message::Fetched(fetched)) = answer {
            let mut copies = explain.explanation.homes.iter_mut();
            if let Some(copy) = copies.find(|copy| Some(copy.node) == node) {
                copy.state = copy_state(fetched.entry.as_ref(), fetched.synced, now_ms);
            }
        }
        if explain.waiting == 0 {
            self.reply(now, explain.asker, explain.id, explain.explanation);
        } else {
            self.explains.insert(number, explain);
        }
    }

    pub(super) fn list(&mut self, now: Now, request: &ListRequest) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            let why = format!("there is no table {:?} here", request.table);
            return Rejected::Malformed { why }.into();
        };
        let now_ms = self.time.now_ms(now);
        let limit = usize::from(request.limit).clamp(1, PAGE_ENTRIES_MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        // A cursor is a place in the index, and how many entries of that place were listed before:
        // the index is looked through in whole lines.
        let (mut place, mut listed) = (request.cursor >> 8, request.cursor & 0xff);
        loop {
            let mut found = Vec::new();
            let mut visit = |key: Key, entry: Entry| found.push((key, entry));
            let next = self.tables[table].store.list(place, 1, now_ms, &mut visit);
            for (key, entry) in found.into_iter().skip(listed as usize) {
                if entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    return List { entries, next: (place << 8) | listed }.into();
                }
                listed += 1;
                let Some(body) = entry.body.as_ref().filter(|_| !entry.is_expired(now_ms)) else {
                    continue;
                };
                bytes += key.as_bytes().len() + LISTED_OVERHEAD_BYTES;
                entries.push(Listed {
                    birth: entry.birth,
                    version: entry.version,
                    touched: body.touched,
                    deadline: entry.deadline(),
                    size: body.size() as u64,
                    key,
                });
            }
            (place, listed) = (next, 0);
            if place == 0 {
                return List { entries, next: 0 }.into();
            }
        }
    }

    pub(super) fn routes(&self) -> Routes {
        let node = |id: &NodeId| {
            let member = self.mesh.view().get(*id);
            let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
            RouteNode {
                id: *id,
                name: member.map(|member| member.name.clone()).unwrap_or_default(),
                addr: member.map_or(unknown, |member| member.addr),
            }
        };
        Routes {
            view: self.mesh.view().digest(),
            nodes: self.ring.nodes().iter().map(node).collect(),
            homes_per_slot: u8::try_from(self.ring.homes_per_slot()).unwrap_or(u8::MAX),
            homes: self.ring.home_indexes().to_vec(),
        }
    }

    pub(super) fn members(&self) -> Members {
        Members {
            node: self.id(),
            view: self.mesh.view().digest(),
            members: self.mesh.view().iter().cloned().collect(),
        }
    }

    pub(super) fn status(&self, now: Now) -> NodeStatus {
        let view = self.mesh.view().digest();
        let others = self.mesh.view().active().filter(|member| member.id != self.id());
        let others: Vec<NodeId> = others.map(|member| member.id).collect();
        let agrees =
            |id: &&NodeId| self.heard.get(id).is_some_and(|heard: &Heard| heard.view == view);
        let agreeing = others.iter().filter(agrees).count();
        let mut counters: BTreeMap<String, u64> =
            self.counters.iter().map(|(name, count)| (name.to_owned(), count)).collect();
        counters.extend(self.mesh_counters());
        counters.insert("calls_open".to_owned(), self.calls.len() as u64);
        counters.insert("requests_waiting".to_owned(), self.pending.len() as u64);
        if let Some(drift) = self.time.drift_ms() {
            counters.insert("clock_off_by_ms".to_owned(), drift.unsigned_abs());
        }
        NodeStatus {
            cluster: self.cluster.clone(),
            member: self.mesh.me().clone(),
            software: crate::SOFTWARE.to_owned(),
            uptime_ms: u64::try_from((now.monotonic - self.started).as_millis()).unwrap_or(0),
            view,
            active_members: others.len() as u32 + 1,
            agreeing_members: agreeing as u32 + 1,
            tables: (0..self.tables.len()).map(|table| self.table_status(table)).collect(),
            counters: counters.into_iter().collect(),
        }
    }

    fn mesh_counters(&self) -> impl Iterator<Item = (String, u64)> {
        let mesh = self.mesh.counters();
        let counts = [
            ("mesh_packets_in", mesh.packets_in),
            ("mesh_packets_out", mesh.packets_out),
            ("mesh_bytes_in", mesh.bytes_in),
            ("mesh_bytes_out", mesh.bytes_out),
            ("mesh_packets_malformed", mesh.packets_malformed),
            ("mesh_packets_misaddressed", mesh.packets_misaddressed),
            ("mesh_packets_stale", mesh.packets_stale),
            ("mesh_members_refused", mesh.members_refused),
            ("mesh_suspicions_refuted", mesh.suspicions_refuted),
            ("mesh_deaths_held_back", mesh.deaths_held_back),
            ("mesh_deaths_concluded", mesh.deaths_concluded),
            ("mesh_deaths_cancelled", mesh.deaths_cancelled),
            ("mesh_renewals", mesh.renewals),
            ("mesh_isolations", mesh.isolations),
            ("mesh_pauses", mesh.pauses),
        ];
        counts.into_iter().map(|(name, count)| (name.to_owned(), count))
    }

    fn table_status(&self, index: usize) -> TableStatus {
        let table = &self.tables[index];
        let (stats, policy) = (table.store.stats(), table.store.policy());
        TableStatus {
            name: policy.name.clone(),
            entries: stats.entries as u64,
            capacity: stats.capacity_records as u64,
            bytes: stats.bytes_live,
            segment_bytes: stats.segment_bytes,
            huge_bytes: table.huge_bytes,
            reserve_used: stats.reserve_used as u64,
            slots_home: table.slots.iter().filter(|state| state.home).count() as u32,
            slots_unsynced: self.slots_unsynced(index) as u32,
            hints: table.hints.len() as u64,
            replicas: policy.replicas.get(),
            write_homes: policy.write.count(policy.replicas.get().into()) as u8,
        }
    }
}

fn copy_state(entry: Option<&Entry>, synced: bool, now_ms: u64) -> CopyState {
    let Some(entry) = entry else { return CopyState::Absent { synced } };
    CopyState::Held {
        birth: entry.birth,
        version: entry.version,
        ended: entry.is_ended(),
        expired: entry.is_expired(now_ms),
        touched: entry.body.as_ref().map_or(0, |body| body.touched),
        deadline: entry.deadline(),
        size: entry.body.as_ref().map_or(0, |body| body.size() as u64),
    }
}
