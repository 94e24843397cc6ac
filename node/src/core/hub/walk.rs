//! Pages of keys: what this node's cores have, and if so what all members have, put together.

use std::collections::BTreeMap;

use annulus_proto::codec::Header;
use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{Message, WalkRequest, Walked, WalkedKey};
use annulus_proto::{Key, Kind, Member, NodeId, Status};

use super::Hub;
use crate::core::calls::HubPurpose;
use crate::core::io::{Asker, Caller, HubOutput, Input, Now, Request};

/// The pages that are put together.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// By their tickets, which they share with all that waits for the cores.
    open: BTreeMap<u64, Walk>,
}

#[derive(Debug)]
struct Walk {
    asker: Asker,
    id: u64,
    waiting: usize,
    page: Page,
    rejected: Option<Message>,
}

/// What several have said of the same places.
#[derive(Debug)]
struct Page {
    /// Where it begins.
    from: u64,
    limit: usize,
    /// By their places.
    keys: BTreeMap<(u64, Key), Found>,
    /// All that have answered have said what they have before this.
    next: Option<u64>,
    silent: u16,
    write_homes: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    kind: Kind,
    /// How many hold it.
    copies: u8,
    /// How many would have to.
    wanted: u8,
}

/// Pages that may be put together at a time: each is some 600 KB at most, and asks all members.
const WALKS_MAX: usize = 64;

impl Hub {
    /// Asks all cores for their keys, and if so all members, too.
    pub(super) fn walk(
        &mut self,
        now: Now,
        (asker, caller, header): (Asker, Caller, Header),
        walk: WalkRequest,
    ) {
        if self.walks.open.len() >= WALKS_MAX {
            return self.refuse_as_busy(now, asker, header.id);
        }
        // What a node is asked by another one it does not ask others.
        let is_whole = walk.is_whole && matches!(caller, Caller::Client(_));
        let walk = WalkRequest { is_whole: false, ..walk };
        let me = self.mesh.me().id;
        let is_there = |member: &&Member| {
            is_whole && member.id != me && !matches!(member.status, Status::Down | Status::Left)
        };
        let others: Vec<Member> = self.mesh.view().iter().filter(is_there).cloned().collect();
        let ticket = self.gathers.next_ticket();
        let waiting = self.cores + others.len();
        let limit = usize::from(walk.limit).clamp(1, PAGE_ENTRIES_MAX);
        let (id, page) = (header.id, Page::new(walk.from, limit));
        self.walks.open.insert(ticket, Walk { asker, id, waiting, page, rejected: None });
        for member in others {
            let purpose = HubPurpose::Walk { ticket, node: member.id };
            self.call_for(now, member.addr, purpose, walk.clone());
        }
        let (asker, message) = (Asker::Hub { ticket }, walk.into());
        let input = Input::Request(Request { asker, caller, header, message });
        self.outputs.push_back(HubOutput::Cores(input));
    }

    /// Takes in what a core has, if it was asked for a page; else gives it back.
    pub(super) fn take_walked(
        &mut self,
        now: Now,
        ticket: u64,
        message: Message,
    ) -> Option<Message> {
        let Some(walk) = self.walks.open.get_mut(&ticket) else { return Some(message) };
        match message {
            Message::Walked(walked) => walk.page.add(walked),
            other => walk.rejected = Some(other),
        }
        self.go_on_with_walk(now, ticket);
        None
    }

    /// A member has answered; `None`: it did not.
    pub(super) fn on_walked(
        &mut self,
        now: Now,
        ticket: u64,
        node: NodeId,
        answer: Option<(NodeId, Message)>,
    ) {
        let Some(walk) = self.walks.open.get_mut(&ticket) else { return };
        match answer {
            Some((from, Message::Walked(walked))) if from == node && walk.page.suits(&walked) => {
                walk.page.add(walked);
            }
            _ => walk.page.silent = walk.page.silent.saturating_add(1),
        }
        self.go_on_with_walk(now, ticket);
    }

    fn go_on_with_walk(&mut self, now: Now, ticket: u64) {
        let Some(walk) = self.walks.open.get_mut(&ticket) else { return };
        walk.waiting -= 1;
        if walk.waiting > 0 {
            return;
        }
        let Some(walk) = self.walks.open.remove(&ticket) else { return };
        let answer = walk.rejected.unwrap_or_else(|| walk.page.walked().into());
        self.reply(now, walk.asker, walk.id, answer);
    }
}

impl Page {
    fn new(from: u64, limit: usize) -> Self {
        Self { from, limit, keys: BTreeMap::new(), next: None, silent: 0, write_homes: None }
    }

    /// Whether this is of the page that was asked for.
    fn suits(&self, walked: &Walked) -> bool {
        let is_in = |place: u64| place >= self.from && walked.next.is_none_or(|next| place < next);
        walked.next.is_none_or(|next| next > self.from)
            && walked.write_homes > 0
            && walked.keys.iter().all(|walked| is_in(walked.key.place()))
    }

    /// Adds what one more has said.
    fn add(&mut self, walked: Walked) {
        let Walked { keys, next, silent, write_homes } = walked;
        self.silent = self.silent.saturating_add(silent);
        self.write_homes = self.write_homes.into_iter().chain([write_homes]).min();
        for WalkedKey { key, kind, lacking } in keys {
            let none = Found { kind, copies: 0, wanted: 0 };
            let found = self.keys.entry((key.place(), key)).or_insert(none);
            found.copies = found.copies.saturating_add(1);
            found.wanted = found.wanted.max(lacking.saturating_add(1));
        }
        self.end_before(next);
        // What is at one place is not torn apart: a page begins at one.
        let beyond = self.keys.keys().nth(self.limit).map(|(place, _)| *place);
        let first = self.keys.keys().next().map(|(place, _)| *place);
        self.end_before(match beyond {
            Some(beyond) if first == Some(beyond) => Some(beyond + 1),
            beyond => beyond,
        });
    }

    fn end_before(&mut self, place: Option<u64>) {
        self.next = [self.next, place].into_iter().flatten().min();
        if let Some(next) = self.next {
            self.keys.retain(|(place, _), _| *place < next);
        }
    }

    fn walked(self) -> Walked {
        let lacking = |found: Found| found.wanted.saturating_sub(found.copies);
        // More than that are at one place if somebody means it.
        let keys = self.keys.into_iter().take(PAGE_ENTRIES_MAX);
        let keys = keys.map(|((_, key), found)| WalkedKey {
            key,
            kind: found.kind,
            lacking: lacking(found),
        });
        let write_homes = self.write_homes.unwrap_or(1);
        Walked { keys: keys.collect(), next: self.next, silent: self.silent, write_homes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(keys: &[&Key], next: Option<u64>) -> Walked {
        let key = |key: &&Key| WalkedKey { key: (*key).clone(), kind: Kind::Bytes, lacking: 1 };
        Walked { keys: keys.iter().map(key).collect(), next, silent: 0, write_homes: 2 }
    }

    fn in_order(count: usize) -> Vec<Key> {
        let key = |number: usize| Key::new(format!("key {number}")).expect("a key");
        let mut keys: Vec<Key> = (0..count).map(key).collect();
        keys.sort_unstable_by_key(Key::place);
        keys
    }

    fn listed(page: Page) -> (Vec<(Key, u8)>, Option<u64>) {
        let walked = page.walked();
        (walked.keys.into_iter().map(|it| (it.key, it.lacking)).collect(), walked.next)
    }

    #[test]
    fn a_page_ends_where_the_first_of_those_who_were_asked_has_ended() {
        let keys = in_order(4);
        let [a, b, c, d] = &keys[..] else { unreachable!() };
        let mut page = Page::new(0, 10);
        page.add(walked(&[a, c, d], None));
        page.add(walked(&[a, b], Some(c.place())));
        // What comes later is not of this page either.
        page.add(walked(&[b, c], None));
        let expected = vec![(a.clone(), 0), (b.clone(), 0)];
        assert_eq!(listed(page), (expected, Some(c.place())));
    }

    #[test]
    fn a_page_has_no_more_than_were_asked_for() {
        let keys = in_order(4);
        let [a, b, c, d] = &keys[..] else { unreachable!() };
        let mut page = Page::new(0, 2);
        page.add(walked(&[b, d], None));
        page.add(walked(&[a, c], None));
        let expected = vec![(a.clone(), 1), (b.clone(), 1)];
        assert_eq!(listed(page), (expected, Some(c.place())));
    }

    #[test]
    fn a_page_that_was_not_asked_for_is_none() {
        let keys = in_order(3);
        let [a, b, c] = &keys[..] else { unreachable!() };
        let page = Page::new(b.place(), 10);
        assert!(page.suits(&walked(&[b, c], None)));
        assert!(page.suits(&walked(&[b], Some(c.place()))));
        for wrong in [
            walked(&[a, b], None),
            walked(&[b, c], Some(c.place())),
            walked(&[], Some(b.place())),
            walked(&[], Some(0)),
            Walked { write_homes: 0, ..walked(&[b], None) },
        ] {
            assert!(!page.suits(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_last_page_says_so() {
        let keys = in_order(2);
        let mut page = Page::new(0, 2);
        page.add(walked(&[&keys[0]], None));
        page.add(walked(&[&keys[1]], None));
        assert_eq!(listed(page).1, None);
    }
}
