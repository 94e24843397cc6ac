//! Slot sets: what an application that embeds the node holds slot by slot, and is told of as members come
//! and go.
//!
//! An application that is spread over nodes divides what it keeps into slots, and gives the node one
//! [`SlotSet`] of them. The node finds the homes of each slot, as it does for its own tables, and calls the
//! application's [`SlotHolder`]: take up this slot, get its contents from those that hold it; give that one
//! away; now it may go. What is in a slot, and how it gets from one process to another, is the application's
//! affair. In exchange for what it promises ([`SlotHolder`] says what) nothing is lost when slots change hands:
//! what was ever on as many processes as a slot has replicas is on as many at every moment, less those that
//! crashed since, under any disagreement of views and any loss of messages.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use annulus_proto::{Key, NodeId, SLOT_COUNT};
use annulus_slots::Attempt;
use tokio::sync::mpsc;

use super::inboxes::Inboxes;
use crate::core::{Input, SlotCall, SlotMember, SlotSaid, SlotSetPolicy};

/// An application that holds the slots of a set.
///
/// It is called by one task, for one thing after the other, in the order in which they follow. It must return
/// soon: what takes time it begins elsewhere, and says that it is done through the [`SlotsHandle`], now or
/// later, from any thread.
///
/// A slot is *held* from [`SlotHolder::take_up`] until [`SlotHolder::leave`]. Meanwhile the application stores
/// what it is to store there, and what it stores counts: it may acknowledge a write that as many
/// processes hold as it thinks necessary. After `leave` it stores nothing more for others; it may have to all the
/// same (something was deleted, say), and then calls [`SlotsHandle::changed`]. Whatever it has of a slot, until it has
/// dropped it, it gives to every process that asks for it.
pub trait SlotHolder: Send + Sync + 'static {
    /// Hold this slot from now on, get from each of its holders all that they have of it, merge it into what is
    /// here, and then say [`SlotsHandle::taken_up`]. Until then what is not here may be elsewhere: ask a
    /// holder before *absent* is said of anything. There may be no holders, and then there is nothing to get.
    ///
    /// It takes the place of an earlier call for this slot: other members may hold something, or one of
    /// them is gone.
    fn take_up(&self, slots: &SlotsHandle, slot: TakeUp);

    /// A member is to give a slot away that this process holds. Get from it all that it has *now*, and then say
    /// [`SlotsHandle::has_all`]. It takes the place of an earlier offer by this member for this slot.
    fn offered(&self, slots: &SlotsHandle, offer: SlotOffer);

    /// Take no more writes for this slot, from before this returns. What is there is still read, and given to
    /// whoever asks. If the slot is to be held again after all, [`SlotHolder::take_up`] says so.
    fn leave(&self, slots: &SlotsHandle, slot: u16);

    /// As many homes as the slot has replicas hold all that was here: drop it if [`GiveUp::holds`], and say
    /// whether it was dropped. Look, and drop, while nothing can change the slot: under the lock under which it is
    /// changed and [`SlotsHandle::changed`] is called.
    fn give_up(&self, slots: &SlotsHandle, slot: &GiveUp) -> bool;

    /// These slots have other homes now, or another one of them is their primary; [`SlotsHandle::homes`] tells.
    fn homes_changed(&self, slots: &SlotsHandle, changed: &[u16]) {
        let _ = (slots, changed);
    }
}

/// A slot that is to be taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeUp {
    slot: u16,
    holders: Vec<SlotMember>,
    task: u64,
}

impl TakeUp {
    /// Its number.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Who may hold some of it.
    pub fn holders(&self) -> &[SlotMember] {
        &self.holders
    }
}

/// A slot that a leaving holder offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotOffer {
    slot: u16,
    from: SlotMember,
    attempt: Attempt,
}

impl SlotOffer {
    /// Its number.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Who has it.
    pub fn from(&self) -> &SlotMember {
        &self.from
    }
}

/// A slot that may be dropped.
#[derive(Clone, Debug)]
pub struct GiveUp {
    slot: u16,
    changes: u64,
    shared: Arc<Shared>,
}

impl GiveUp {
    /// Its number.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Whether the slot was not changed since what the others have was made. If it was, they will be
    /// offered the rest, and this is asked again.
    pub fn holds(&self) -> bool {
        self.shared.changes_of(self.slot) == self.changes
    }
}

/// How an application talks to its node about the slots of a set. Clones are alike; none waits for anything.
///
/// What is said before the node runs, or after it has stopped, has no effect.
#[derive(Clone, Debug)]
pub struct SlotsHandle {
    shared: Arc<Shared>,
    said: mpsc::UnboundedSender<SlotSaid>,
}

struct Shared {
    /// By slot.
    slots: Vec<SharedSlot>,
    homes: RwLock<Vec<Vec<SlotMember>>>,
}

#[derive(Default)]
struct SharedSlot {
    changes: AtomicU64,
    /// Whether the node is about to look how many there are.
    is_told: AtomicBool,
}

impl Shared {
    fn changes_of(&self, slot: u16) -> u64 {
        let slot = self.slots.get(usize::from(slot));
        slot.map_or(0, |slot| slot.changes.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl SlotsHandle {
    /// Everything is here that the holders of a slot had.
    pub fn taken_up(&self, slot: &TakeUp) {
        self.say(SlotSaid::TakenUp { slot: slot.slot, task: slot.task });
    }

    /// Everything is here, and merged, that the leaving holder had when it was asked after this offer. The
    /// process must have held the slot since.
    pub fn has_all(&self, offer: &SlotOffer) {
        let SlotOffer { slot, ref from, attempt } = *offer;
        self.say(SlotSaid::Has { slot, from: from.node, attempt });
    }

    /// Something changed in a slot that is given away: all others get it before it is dropped here. Call it
    /// before whatever guards the slot lets go. Costs some nanoseconds, and nothing else while slots are held.
    pub fn changed(&self, slot: u16) {
        let Some(state) = self.shared.slots.get(usize::from(slot)) else { return };
        state.changes.fetch_add(1, Ordering::SeqCst);
        if !state.is_told.swap(true, Ordering::SeqCst) {
            // How often is looked up by whoever takes this in.
            self.say(SlotSaid::Changed { slot, changes: 0 });
        }
    }

    /// Nothing is here of a slot any more, or it cannot be taken up. Another home takes over, and this one is
    /// offered the slot again after a second, then two, four, and so on to a minute, until it
    /// has gone well for ten.
    ///
    /// It is a loss, as a crash is: of what was to be on so many processes there is one copy less for a while.
    pub fn fail_slot(&self, slot: u16) {
        self.say(SlotSaid::Failed { slot });
    }

    /// The homes of a slot, the primary first; none if there are too few members, or the slot does not exist.
    pub fn homes(&self, slot: u16) -> Vec<SlotMember> {
        let homes = self.shared.homes.read().unwrap_or_else(PoisonError::into_inner);
        homes.get(usize::from(slot)).cloned().unwrap_or_default()
    }

    /// The slots that a member is a home of, in ascending order.
    pub fn slots_of(&self, node: NodeId) -> Vec<u16> {
        let homes = self.shared.homes.read().unwrap_or_else(PoisonError::into_inner);
        let is_home = |homes: &Vec<SlotMember>| homes.iter().any(|member| member.node == node);
        (0..).zip(homes.iter()).filter(|(_, homes)| is_home(homes)).map(|(slot, _)| slot).collect()
    }

    /// How many slots there are.
    pub fn len(&self) -> u16 {
        self.shared.slots.len() as u16
    }

    /// Whether there are none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.shared.slots.is_empty()
    }

    /// The slot of a key: where the node would put it in a table, in as many parts as there are slots. Keys
    /// with the same part in braces are in the same slot.
    pub fn slot_of(&self, key: &Key) -> u16 {
        let place = u32::from(key.slot().index()) * u32::from(self.len());
        (place / u32::from(SLOT_COUNT)) as u16
    }

    fn say(&self, said: SlotSaid) {
        // An error means that there is no node any more.
        let _ = self.said.send(said);
    }
}

/// A slot set, for [`embed`](crate::embed).
pub struct SlotSet {
    policy: SlotSetPolicy,
    holder: Arc<dyn SlotHolder>,
    handle: SlotsHandle,
    said: mpsc::UnboundedReceiver<SlotSaid>,
}

/// What is wrong with a slot set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the slot set {name:?} cannot be: {why}")]
pub struct SlotSetError {
    name: String,
    why: &'static str,
}

impl SlotSet {
    /// A slot set that this application holds.
    ///
    /// # Errors
    /// [`SlotSetError`], if the policy is out of bounds.
    pub fn new(policy: SlotSetPolicy, holder: Arc<dyn SlotHolder>) -> Result<Self, SlotSetError> {
        if let Some(why) = policy.problem() {
            return Err(SlotSetError { name: policy.name, why });
        }
        let count = usize::from(policy.slots);
        let slots = (0..count).map(|_| SharedSlot::default()).collect();
        let shared = Arc::new(Shared { slots, homes: RwLock::new(vec![Vec::new(); count]) });
        let (sender, said) = mpsc::unbounded_channel();
        let handle = SlotsHandle { shared, said: sender };
        Ok(Self { policy, holder, handle, said })
    }

    /// How the application talks to the node.
    pub fn handle(&self) -> SlotsHandle {
        self.handle.clone()
    }

    pub(super) fn policy(&self) -> &SlotSetPolicy {
        &self.policy
    }

    /// The task that calls the application, and where to leave what it is to do.
    pub(super) fn task(
        self,
        set: usize,
        inboxes: Inboxes,
    ) -> (SlotSetTask, mpsc::UnboundedSender<SlotCall>) {
        let (sender, calls) = mpsc::unbounded_channel();
        let Self { holder, handle, said, .. } = self;
        (SlotSetTask { set, holder, handle, said, calls, inboxes }, sender)
    }
}

/// What calls an application, and passes on what it says.
pub(super) struct SlotSetTask {
    set: usize,
    holder: Arc<dyn SlotHolder>,
    handle: SlotsHandle,
    said: mpsc::UnboundedReceiver<SlotSaid>,
    calls: mpsc::UnboundedReceiver<SlotCall>,
    inboxes: Inboxes,
}

impl SlotSetTask {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                said = self.said.recv() => match said {
                    Some(said) => self.pass_on(said),
                    None => return,
                },
                call = self.calls.recv() => match call {
                    Some(call) => self.carry_out(call),
                    None => return,
                },
            }
        }
    }

    fn pass_on(&self, said: SlotSaid) {
        let said = match said {
            SlotSaid::Changed { slot, .. } => {
                let state = &self.handle.shared.slots[usize::from(slot)];
                // First, so that whoever changes it from now on tells of it anew.
                state.is_told.store(false, Ordering::SeqCst);
                SlotSaid::Changed { slot, changes: self.handle.shared.changes_of(slot) }
            }
            other => other,
        };
        // An error means that the node is stopping.
        let _ = self.inboxes.tell_core(0, Input::SlotSet { set: self.set, said });
    }

    fn carry_out(&self, call: SlotCall) {
        let (holder, handle) = (&self.holder, &self.handle);
        match call {
            SlotCall::TakeUp { slot, task, holders } => {
                holder.take_up(handle, TakeUp { slot, holders, task });
            }
            SlotCall::Offered { slot, from, attempt } => {
                holder.offered(handle, SlotOffer { slot, from, attempt });
            }
            SlotCall::Leave { slot, task } => {
                holder.leave(handle, slot);
                let changes = handle.shared.changes_of(slot);
                self.pass_on(SlotSaid::Left { slot, task, changes });
            }
            SlotCall::GiveUp { slot, task, changes } => {
                let shared = handle.shared.clone();
                let dropped = holder.give_up(handle, &GiveUp { slot, changes, shared });
                self.pass_on(SlotSaid::GaveUp { slot, task, dropped });
            }
            SlotCall::Homes(changed) => {
                let slots: Vec<u16> = changed.iter().map(|(slot, _)| *slot).collect();
                let mut homes = handle.shared.homes.write().unwrap_or_else(PoisonError::into_inner);
                for (slot, now) in changed {
                    homes[usize::from(slot)] = now;
                }
                drop(homes);
                holder.homes_changed(handle, &slots);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inboxes::Receivers;
    use super::*;

    /// Drops what it may, and does nothing else.
    struct Obedient;

    impl SlotHolder for Obedient {
        fn take_up(&self, handle: &SlotsHandle, slot: TakeUp) {
            handle.taken_up(&slot);
        }

        fn offered(&self, handle: &SlotsHandle, offer: SlotOffer) {
            handle.has_all(&offer);
        }

        fn leave(&self, handle: &SlotsHandle, slot: u16) {
            // Just before it takes no more.
            handle.changed(slot);
        }

        fn give_up(&self, _handle: &SlotsHandle, slot: &GiveUp) -> bool {
            slot.holds()
        }
    }

    fn policy(slots: u16) -> SlotSetPolicy {
        SlotSetPolicy {
            name: "set".to_owned(),
            slots,
            replicas: 2.try_into().unwrap(),
            members_min: 1,
            held: Vec::new(),
        }
    }

    fn task() -> (SlotSetTask, SlotsHandle, Receivers) {
        let (inboxes, receivers) = Inboxes::new(1);
        let set = SlotSet::new(policy(8), Arc::new(Obedient)).unwrap();
        let handle = set.handle();
        (set.task(0, inboxes).0, handle, receivers)
    }

    fn said(receivers: &mut Receivers) -> Option<SlotSaid> {
        match receivers.cores[0].first.urgent.try_recv() {
            Ok(Input::SlotSet { set: 0, said }) => Some(said),
            _ => None,
        }
    }

    #[test]
    fn a_slot_that_was_changed_since_is_not_dropped() {
        let (task, handle, mut receivers) = task();
        task.carry_out(SlotCall::Leave { slot: 3, task: 1 });
        assert_eq!(said(&mut receivers), Some(SlotSaid::Left { slot: 3, task: 1, changes: 1 }));
        let give_up = |changes| SlotCall::GiveUp { slot: 3, task: 2, changes };
        task.carry_out(give_up(1));
        let dropped = |dropped| Some(SlotSaid::GaveUp { slot: 3, task: 2, dropped });
        assert_eq!(said(&mut receivers), dropped(true));
        handle.changed(4);
        task.carry_out(give_up(1));
        assert_eq!(said(&mut receivers), dropped(true), "another one was changed");
        handle.changed(3);
        task.carry_out(give_up(1));
        assert_eq!(said(&mut receivers), dropped(false));
        task.carry_out(give_up(2));
        assert_eq!(said(&mut receivers), dropped(true));
    }

    #[test]
    fn changes_wait_together_until_they_are_told() {
        let (mut task, handle, mut receivers) = task();
        for changes in [3, 5] {
            while handle.shared.changes_of(7) < changes {
                handle.changed(7);
            }
            let waiting = task.said.try_recv().unwrap();
            assert!(task.said.try_recv().is_err(), "one for all of them");
            task.pass_on(waiting);
            assert_eq!(said(&mut receivers), Some(SlotSaid::Changed { slot: 7, changes }));
        }
        // What there is no slot for changes nothing.
        handle.changed(8);
        assert!(task.said.try_recv().is_err());
    }

    #[test]
    fn homes_are_those_that_were_told_last() {
        let (task, handle, _receivers) = task();
        let member = |id: u64| SlotMember {
            node: NodeId::from_bits(id),
            name: format!("n{id}"),
            addr: ([10, 0, 0, id as u8], 1).into(),
        };
        task.carry_out(SlotCall::Homes(vec![
            (0, vec![member(1)]),
            (7, vec![member(2), member(1)]),
        ]));
        assert_eq!(handle.homes(7), [member(2), member(1)]);
        assert_eq!(handle.slots_of(NodeId::from_bits(1)), [0, 7]);
        task.carry_out(SlotCall::Homes(vec![(7, Vec::new())]));
        assert_eq!(handle.slots_of(NodeId::from_bits(1)), [0]);
        assert_eq!((handle.homes(7), handle.homes(8)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn keys_are_spread_over_all_slots_in_the_order_of_the_nodes_own() {
        let set = SlotSet::new(policy(5), Arc::new(Obedient)).unwrap();
        let mut found: Vec<(u16, u16)> = (0..2_000)
            .map(|n| Key::new(format!("key {n}")).unwrap())
            .map(|key| (key.slot().index(), set.handle().slot_of(&key)))
            .collect();
        found.sort_unstable();
        assert!(found.is_sorted_by_key(|(_, slot)| *slot));
        assert_eq!((found[0].1, found.last().unwrap().1), (0, 4));
    }

    #[test]
    fn policies_out_of_bounds_are_refused() {
        let refused = |policy: SlotSetPolicy| SlotSet::new(policy, Arc::new(Obedient)).err();
        assert_eq!(refused(policy(SLOT_COUNT)), None);
        for wrong in [
            policy(0),
            policy(SLOT_COUNT + 1),
            SlotSetPolicy { name: String::new(), ..policy(1) },
            SlotSetPolicy { name: "n".repeat(64), ..policy(1) },
            SlotSetPolicy { replicas: 8.try_into().unwrap(), ..policy(1) },
            SlotSetPolicy { held: vec![1], ..policy(1) },
        ] {
            assert!(refused(wrong.clone()).is_some(), "{wrong:?}");
        }
    }
}
