//! How many sessions an owner may have.
//!
//! Nobody keeps a list for all ([`super::owned`]), so whoever coordinates a start asks all nodes whose table has a limit
//! ([`OwnerLimit`]): before the start, if one more is refused; or after it was acknowledged, if those that were used longest
//! ago end in its place. Each round of questions is a *count*. A core has one count of an owner at a time. What comes in
//! while it is under way is for the next one, since this one need not see what was acknowledged meanwhile. So two that begin
//! one after the other are counted right, and those that begin at the same time through several cores may be too many.
//!
//! The cores of this node are asked as other nodes are, but through the hub ([`Between`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::message::{
    Failure, Message, Operation, Owned, OwnedPlace, OwnedRequest, SessionReply,
};
use annulus_proto::{Attributes, Entry, Key, NodeId, Replaced, Version};

use super::Core;
use super::calls::Purpose;
use super::coordinator::{Pending, Stage};
use super::io::{Between, Caller, Notice, Now};
use super::merging::name_among_clients;
use super::settings::{OverLimit, OwnerLimit, Partition};

/// The counts of a core.
#[derive(Debug, Default)]
pub(super) struct OwnerCounts {
    next: u64,
    counts: BTreeMap<u64, Count>,
}

/// What the nodes said of an owner's sessions so far, and what it is for.
#[derive(Debug)]
struct Count {
    /// The table, by its place.
    table: usize,
    owner: Vec<u8>,
    /// What this count is for, and what the next one will be.
    sake: Sake,
    next_sake: Sake,
    /// Who has not told all yet, and where the page begins that it was asked for.
    asked: BTreeMap<NodeId, OwnedPlace>,
    /// How many did not answer.
    silent: usize,
    /// How many homes hold what was acknowledged, at least.
    write_homes: u8,
    /// What was found, by what stands for its key: each once, as the latest copy shows it.
    found: BTreeMap<u64, Found>,
    /// When those that have not answered are gone on without.
    deadline: Duration,
    /// What is to be ended yet, the last one first, how many are being ended, and how many have been.
    to_end: Vec<(Key, Version)>,
    ending: usize,
    ended: usize,
}

/// What a count is for.
#[derive(Debug, Default)]
struct Sake {
    /// Requests that wait for it.
    starts: Vec<u64>,
    /// The latest session that has begun.
    begun: Option<Version>,
    /// What sessions were begun in place of: it ends of itself.
    replaced: Vec<Replaced>,
}

#[derive(Debug)]
struct Found {
    key: Key,
    birth: Version,
    version: Version,
    touched: u64,
}

/// A count of one of this node's cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountId {
    core: usize,
    number: u64,
}

/// What a core that counts has to say to others of its node, and they to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Which sessions of an owner does the core hold where this page begins?
    List(CountId, Arc<OwnedRequest>),
    /// These.
    Listed(CountId, OwnedPlace, Arc<Message>),
    /// This session is one too many.
    End {
        /// For which count.
        count: CountId,
        /// The table, by its place.
        table: usize,
        /// The session.
        key: Key,
        /// Its birth.
        birth: Version,
    },
    /// It was ended, or was there no more.
    Ended(CountId, Ended),
}

/// What became of a session that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has ended.
    Now,
    /// It had ended, or expired.
    Before,
    /// It may live on.
    Perhaps,
}

/// How many owners' sessions a core counts at a time. Beyond that what is too many stays until the owner's next start.
const COUNTS_MAX: usize = 256;
/// How many sessions a count looks at, some 100 bytes each: more than any limit. Of an owner with more the rest is for
/// another count.
const FOUND_MAX: usize = 2_048;
/// How many sessions that were begun in place of others a count knows of. Those have mostly ended when it begins.
const REPLACED_MAX: usize = 64;
/// How many sessions are ended at a time for one owner.
const ENDS_AT_A_TIME: usize = 16;
/// How long a count may take, and an end.
const COUNT_FOR: Duration = Duration::from_secs(10);
const END_PATIENCE_MS: u32 = 2_000;

// What is found of an owner reaches beyond any limit, with the session that begins and the one that it replaces.
const _: () = assert!(OwnerLimit::SESSIONS_MAX as usize + 2 < FOUND_MAX);

impl Core {
    /// Lets a request pass, unless it begins a session whose owner may have too many by then: that one waits for a count.
    pub(super) fn let_pass_owner(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
    ) -> Option<Box<Pending>> {
        if pending.is_counted || self.limit_of(&pending, OverLimit::Refuse).is_none() {
            return Some(pending);
        }
        let (table, key) = (pending.table, &pending.request.key);
        let now_ms = self.time.now_ms(now);
        let is_live = |entry: Entry| !entry.is_ended() && !entry.is_expired(now_ms);
        if pending.request.operation.is_conditional()
            && self.tables[table].store.get(key, now_ms).is_some_and(is_live)
        {
            // Nothing will begin.
            return Some(pending);
        }
        let owner = owner_of(&pending).to_vec();
        if self.has_no_room_to_count(table, &owner) {
            self.counters.add("owner_limit_put_off");
            let why = "too many sessions begin that would have to be counted; try again later";
            self.finish(now, id, pending, Err(Failure::Refused(why.to_owned())));
            return None;
        }
        pending.stage = Stage::BeingCounted;
        self.pending.insert(id, pending);
        let sake = Sake { starts: vec![id], ..Sake::default() };
        self.count_owned(now, table, owner, sake);
        None
    }

    /// A session was begun and acknowledged: has those of its owner ended that are too many now.
    pub(super) fn limit_owner(&mut self, now: Now, pending: &Pending, birth: Version) {
        if self.limit_of(pending, OverLimit::EndOldest).is_none() {
            return;
        }
        let owner = owner_of(pending).to_vec();
        if self.has_no_room_to_count(pending.table, &owner) {
            return self.counters.add("owner_limit_put_off");
        }
        let replaced = replaced_by(pending).into_iter().collect();
        let sake = Sake { begun: Some(birth), replaced, ..Sake::default() };
        self.count_owned(now, pending.table, owner, sake);
    }

    /// What another core that counts has to say, or this one to itself.
    pub(super) fn on_counting(&mut self, now: Now, counting: Counting) {
        match counting {
            Counting::List(count, request) => {
                if usize::from(request.place.core) == self.number {
                    let caller = Caller::Node(self.id());
                    let page = Arc::new(self.list_owned(now, caller, &request));
                    self.say(Counting::Listed(count, request.place, page));
                }
            }
            Counting::Listed(count, place, page) => {
                if count.core == self.number {
                    let page = Arc::unwrap_or_clone(page);
                    self.on_owned(now, (count.number, place), self.id(), Some(page));
                }
            }
            Counting::End { count, table, key, birth } => {
                if self.owns(key.slot()) {
                    let operation = Operation::End { birth: Some(birth) };
                    let (id, pending) = self.open_own(now, table, key, operation, END_PATIENCE_MS);
                    self.route(now, id, pending.for_a_count(count));
                }
            }
            Counting::Ended(count, ended) => {
                if count.core == self.number {
                    self.on_one_less(now, count.number, ended);
                }
            }
        }
    }

    /// A page of what a node holds of an owner, or that there will be none.
    pub(super) fn on_owned(
        &mut self,
        now: Now,
        (number, place): (u64, OwnedPlace),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let Some(count) = self.owner_counts.counts.get_mut(&number) else { return };
        if count.asked.get(&node) != Some(&place) {
            return;
        }
        count.asked.remove(&node);
        let next = match answer {
            Some(Message::Owned(page)) if page.next.is_none_or(|next| next > place) => {
                count.take_in(page)
            }
            // It cannot tell, or not yet, or its pages come to no end.
            _ => {
                count.silent += 1;
                None
            }
        };
        match next {
            Some(next) if !count.is_full() => self.ask_for_owned(now, number, node, next),
            _ => self.judge_count(now, number),
        }
    }

    /// A session that was to end for the sake of a count has ended, or not.
    pub(super) fn on_end_for_count(
        &mut self,
        count: CountId,
        outcome: &Result<SessionReply, Failure>,
    ) {
        let failure = match outcome {
            Ok(SessionReply::Failed(failure)) | Err(failure) => Some(failure),
            Ok(_) => None,
        };
        let ended = match failure {
            None => Ended::Now,
            Some(Failure::Absent | Failure::Ended | Failure::Expired) => Ended::Before,
            Some(_) => Ended::Perhaps,
        };
        self.say(Counting::Ended(count, ended));
    }

    /// Goes on without those that take too long to answer.
    pub(super) fn give_counts_up(&mut self, now: Now) {
        let counts = &mut self.owner_counts.counts;
        let over = counts.iter_mut().filter(|(_, count)| count.deadline <= now.monotonic);
        let mut late = Vec::new();
        for (number, count) in over {
            count.silent += count.asked.len();
            count.asked.clear();
            late.push(*number);
        }
        for number in late {
            self.judge_count(now, number);
        }
    }

    /// The limit that a request may run into by which this is done.
    fn limit_of(&self, pending: &Pending, over: OverLimit) -> Option<OwnerLimit> {
        let limit = self.tables[pending.table].store.policy().owner_limit;
        limit.filter(|limit| limit.over == over && !owner_of(pending).is_empty())
    }

    fn has_no_room_to_count(&self, table: usize, owner: &[u8]) -> bool {
        let counts = &self.owner_counts;
        counts.counts.len() >= COUNTS_MAX && counts.find(table, owner).is_none()
    }

    /// Counts an owner's sessions, once the count is done that is under way.
    fn count_owned(&mut self, now: Now, table: usize, owner: Vec<u8>, sake: Sake) {
        if let Some(number) = self.owner_counts.find(table, &owner)
            && let Some(count) = self.owner_counts.counts.get_mut(&number)
        {
            return count.next_sake.join(sake);
        }
        self.counters.add("owner_limit_counts");
        let nodes: Vec<NodeId> = self.standing.view.active().map(|member| member.id).collect();
        let first = OwnedPlace::default();
        let others = nodes.iter().filter(|node| **node != self.id());
        let everybody = others.copied().chain([self.id()]);
        let count = Count {
            table,
            owner,
            sake,
            next_sake: Sake::default(),
            asked: everybody.map(|node| (node, first)).collect(),
            silent: 0,
            write_homes: u8::MAX,
            found: BTreeMap::new(),
            deadline: now.monotonic + COUNT_FOR,
            to_end: Vec::new(),
            ending: 0,
            ended: 0,
        };
        let asked: Vec<NodeId> = count.asked.keys().copied().collect();
        let number = self.owner_counts.open(count);
        for node in asked {
            self.ask_for_owned(now, number, node, first);
        }
    }

    /// Asks a node for a page.
    fn ask_for_owned(&mut self, now: Now, number: u64, node: NodeId, place: OwnedPlace) {
        let Some(count) = self.owner_counts.counts.get_mut(&number) else { return };
        let policy = self.tables[count.table].store.policy();
        let table = name_among_clients(&policy.name).to_owned();
        let request = OwnedRequest { table, owner: count.owner.clone(), place };
        count.asked.insert(node, place);
        if node == self.id() {
            let count = CountId { core: self.number, number };
            self.say(Counting::List(count, Arc::new(request)));
        } else if self.call(now, node, Purpose::CountOwned { number, place }, request).is_none() {
            self.on_owned(now, (number, place), node, None);
        }
    }

    /// Does what a count is for once enough is known.
    fn judge_count(&mut self, now: Now, number: u64) {
        let Some(count) = self.owner_counts.counts.get(&number) else { return };
        let policy = self.tables[count.table].store.policy();
        let Some(limit) = policy.owner_limit else { return };
        let is_enough = match limit.over {
            OverLimit::Refuse => count.is_complete() || count.found.len() >= limit.most() + 2,
            OverLimit::EndOldest => false,
        };
        if !count.asked.is_empty() && !count.is_full() && !is_enough {
            return;
        }
        match limit.over {
            OverLimit::Refuse => self.refuse_beyond(now, number, limit),
            OverLimit::EndOldest => self.end_beyond(now, number, limit),
        }
    }

    /// Lets as many of those begin that wait as the owner may have.
    fn refuse_beyond(&mut self, now: Now, number: u64, limit: OwnerLimit) {
        let Some(count) = self.owner_counts.counts.remove(&number) else { return };
        let policy = self.tables[count.table].store.policy();
        let is_strict = policy.partition == Partition::Refuse;
        let why = format!(
            "the owner has as many sessions as table {:?} allows, which is {} \
             (owner_sessions_max); end one of them first",
            name_among_clients(&policy.name),
            limit.sessions_max
        );
        let is_complete = count.is_complete();
        let mut let_in = 0;
        for &id in &count.sake.starts {
            // Its patience may be over.
            let Some(mut pending) = self.pending.remove(&id) else { continue };
            if count.others(&pending) + let_in >= limit.most() {
                self.counters.add("owner_limit_refused");
                self.finish(now, id, pending, Err(Failure::Refused(why.clone())));
                continue;
            }
            if !is_complete {
                self.counters.add("owner_limit_unknown");
                if is_strict {
                    let homes = count.write_homes;
                    let answered =
                        homes.saturating_sub(u8::try_from(count.silent).unwrap_or(u8::MAX));
                    let failure = Failure::Unavailable { answered, needed: 1, homes };
                    self.finish(now, id, pending, Err(failure));
                    continue;
                }
            }
            let_in += 1;
            pending.is_counted = true;
            pending.stage = Stage::Done;
            self.route(now, id, pending);
        }
        self.count_again(now, count);
    }

    /// Has those ended that are too many.
    fn end_beyond(&mut self, now: Now, number: u64, limit: OwnerLimit) {
        let Some(count) = self.owner_counts.counts.get_mut(&number) else { return };
        if count.ending > 0 || !count.to_end.is_empty() {
            // Its ends are answered, if late: by then it is gone.
            let left = count.ending + count.to_end.len();
            self.counters.add_many("owner_limit_put_off", left as u64);
            if let Some(count) = self.owner_counts.counts.remove(&number) {
                self.count_again(now, count);
            }
            return;
        }
        count.asked.clear();
        count.to_end = count.beyond(limit.most());
        // Each takes as long as it takes the others: the last ones are not begun, if it takes much longer.
        let rounds = u32::try_from(count.to_end.len() / ENDS_AT_A_TIME + 1).unwrap_or(u32::MAX);
        count.deadline = now.monotonic + COUNT_FOR.saturating_mul(rounds);
        self.go_on_ending(now, number);
    }

    fn go_on_ending(&mut self, now: Now, number: u64) {
        let id = CountId { core: self.number, number };
        let Some(count) = self.owner_counts.counts.get_mut(&number) else { return };
        let table = count.table;
        let room = ENDS_AT_A_TIME.saturating_sub(count.ending).min(count.to_end.len());
        let begun = count.to_end.split_off(count.to_end.len() - room);
        count.ending += begun.len();
        let is_done = count.ending == 0;
        for (key, birth) in begun {
            self.say(Counting::End { count: id, table, key, birth });
        }
        if is_done && let Some(mut count) = self.owner_counts.counts.remove(&number) {
            if count.is_full() && count.ended > 0 {
                // There may be more.
                let sake = std::mem::take(&mut count.sake);
                count.next_sake.join(sake);
            }
            self.count_again(now, count);
        }
    }

    /// A session has ended for the sake of a count, or not.
    fn on_one_less(&mut self, now: Now, number: u64, ended: Ended) {
        match ended {
            Ended::Now => self.counters.add("owner_limit_ended"),
            Ended::Before => {}
            Ended::Perhaps => self.counters.add("owner_limit_put_off"),
        }
        let Some(count) = self.owner_counts.counts.get_mut(&number) else { return };
        count.ending = count.ending.saturating_sub(1);
        count.ended += usize::from(ended != Ended::Perhaps);
        self.go_on_ending(now, number);
    }

    /// Begins with the next count of the owner, if it is for anything.
    fn count_again(&mut self, now: Now, count: Count) {
        let Count { table, owner, next_sake, .. } = count;
        if !next_sake.starts.is_empty() || next_sake.begun.is_some() {
            self.count_owned(now, table, owner, next_sake);
        }
    }

    fn say(&mut self, counting: Counting) {
        self.notify(Notice::Between(Between::Count(counting)));
    }
}

impl OwnerCounts {
    fn open(&mut self, count: Count) -> u64 {
        self.next += 1;
        self.counts.insert(self.next, count);
        self.next
    }

    fn find(&self, table: usize, owner: &[u8]) -> Option<u64> {
        let is_it = |count: &Count| count.table == table && count.owner == owner;
        self.counts.iter().find(|(_, count)| is_it(count)).map(|(number, _)| *number)
    }
}

impl Count {
    /// Takes in a page. Returns where the next one begins.
    fn take_in(&mut self, page: Owned) -> Option<OwnedPlace> {
        self.write_homes = self.write_homes.min(page.write_homes);
        for listed in page.sessions.into_iter().map(|session| session.listed) {
            let word = listed.key.word();
            if self.is_full() && !self.found.contains_key(&word) {
                continue;
            }
            let found = self.found.entry(word).or_insert_with(|| Found {
                key: listed.key,
                birth: listed.birth,
                version: listed.version,
                touched: listed.touched,
            });
            let theirs = (listed.birth, listed.version, listed.touched);
            if theirs > (found.birth, found.version, found.touched) {
                (found.birth, found.version, found.touched) = theirs;
            }
        }
        page.next
    }

    fn is_full(&self) -> bool {
        self.found.len() >= FOUND_MAX
    }

    /// Whether so many have told all that none of what was acknowledged can be missing.
    fn is_complete(&self) -> bool {
        self.write_homes != u8::MAX
            && self.asked.len() + self.silent < usize::from(self.write_homes)
    }

    /// How many of the owner's sessions there are beside the one that this would begin, which takes the place of
    /// whatever is under its key, and of what it is to replace.
    fn others(&self, pending: &Pending) -> usize {
        let key = pending.request.key.word();
        let replaced = replaced_by(pending);
        let is_other = |(word, found): &(&u64, &Found)| {
            let is_replaced = |it: Replaced| it.word == **word && it.birth == found.birth;
            **word != key && !replaced.is_some_and(is_replaced)
        };
        self.found.iter().filter(is_other).count()
    }

    /// The sessions that are too many, the one used longest ago last. Neither the one that has begun is among them nor a
    /// later one, though they count. If not all were found these are too many all the same: what is not among the last
    /// used of some is not among those of all.
    fn beyond(&self, most: usize) -> Vec<(Key, Version)> {
        let is_replaced = |word: u64, found: &Found| {
            self.sake.replaced.contains(&Replaced { word, birth: found.birth })
        };
        let begun = self.sake.begun;
        let is_earlier = |found: &Found| begun.is_none_or(|begun| found.birth < begun);
        let counted = self.found.iter().filter(|(word, found)| !is_replaced(**word, found));
        let (mut earlier, later): (Vec<&Found>, Vec<&Found>) =
            counted.map(|(_, found)| found).partition(|found| is_earlier(found));
        earlier.sort_by_key(|found| Reverse((found.touched, found.birth)));
        let kept = most.saturating_sub(later.len()).min(earlier.len());
        earlier[kept..].iter().map(|found| (found.key.clone(), found.birth)).collect()
    }
}

impl Sake {
    fn join(&mut self, other: Self) {
        self.starts.extend(other.starts);
        self.begun = self.begun.max(other.begun);
        self.replaced.extend(other.replaced);
        let forgotten = self.replaced.len().saturating_sub(REPLACED_MAX);
        self.replaced.drain(..forgotten);
    }
}

/// Whose session a request would begin; nobody's if it begins none.
fn owner_of(pending: &Pending) -> &[u8] {
    match &pending.request.operation {
        Operation::Start { attributes: Attributes { owner, .. }, .. }
        | Operation::StartIfAbsent { attributes: Attributes { owner, .. }, .. }
        | Operation::StartInstead { attributes: Attributes { owner, .. }, .. } => owner,
        _ => &[],
    }
}

/// The session that a request would begin another one in place of.
fn replaced_by(pending: &Pending) -> Option<Replaced> {
    match pending.request.operation {
        Operation::StartInstead { replaced, .. } => Some(replaced),
        _ => None,
    }
}
