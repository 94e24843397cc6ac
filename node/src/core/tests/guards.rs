//! What nothing else in these tests would notice to be gone: each guard is looked at by itself.

use annulus_proto::SLOT_COUNT;
use annulus_proto::message::{Fetch, PeerState, Peers, PeersRequest, SketchRequest, Sketches};

use super::*;

/// Has the first node have as many cores as there are at most.
const THREE_CORES: u64 = 2;

/// The node that is not the first one of two or more.
const OTHER: NodeId = NodeId::from_bits(2);

fn header(view: u64) -> Header {
    Header { id: 9, view, hlc: annulus_proto::Hlc::ZERO }
}

fn from_other(message: impl Into<Message>) -> HubInput {
    let (asker, caller) = (Asker::Stream(PEER_STREAMS + 1), Caller::Node(OTHER));
    HubInput::Request(Request { asker, caller, header: header(0), message: message.into() })
}

fn after(now: Now, passed: Duration) -> Now {
    let wall_ms = now.wall_ms + passed.as_millis() as u64;
    Now { monotonic: now.monotonic + passed, wall_ms }
}

impl World {
    /// A node alone, of one core, that holds a session under `key`.
    fn alone_with_a_session(policy: TablePolicy) -> Self {
        let mut world = Self::of_single_cores(1, 1, policy);
        world.run_for(Duration::from_millis(300));
        world.acknowledged(0, "key", start(bytes("one")));
        world
    }

    pub(super) fn whole(&mut self) -> &mut Whole {
        self.nodes[0].whole.as_mut().unwrap()
    }

    /// What the first node's hub has to say of what happens to it now.
    fn hub_says(&mut self, now: Now, input: HubInput) -> Vec<HubOutput> {
        let hub = &mut self.whole().hub;
        hub.handle(now, input);
        std::iter::from_fn(|| hub.poll_output()).collect()
    }

    /// Whether the first node's core does at once what is submitted to it.
    fn does_at_once(&mut self, now: Now, role: Role, key: &str, operation: &Operation) -> bool {
        let mut room = Vec::new();
        let submission = Submission {
            table: 0,
            key: key.as_bytes(),
            sequence: 1,
            call: 0,
            patience_ms: 2_000,
            action: Submission::action(operation, &mut room).expect("no read"),
        };
        let slot = Key::new(key).unwrap().slot();
        self.core(0, key).submit(now, (3, role), slot, &submission).is_some()
    }

    fn touches_at_once(&mut self) -> bool {
        let now = self.present(0);
        self.does_at_once(now, Role::Development, "key", &Operation::Touch { birth: None })
    }
}

#[test]
fn no_two_writes_of_a_node_bear_the_same_version() {
    let mut world = World::new(1, THREE_CORES);
    world.run_for(Duration::from_millis(300));
    assert_eq!(world.whole().cores.len(), CORES_MAX);
    let mut versions = BTreeSet::new();
    // All at one instant: nothing but the cores' parts of it tells them apart.
    for number in 0..100 {
        let key = format!("key {number}");
        let started = world.acknowledged(0, &key, start(bytes("one")));
        assert!(versions.insert(started.version), "{number}: {started:?}");
        let (answer, at_once) = world.ask_through_a_lane(&key, write(None, bytes("two")));
        let Answer::Acknowledged(written) = answer else { panic!("{answer:?}") };
        assert!(at_once && versions.insert(written.version), "{number}: {written:?}");
    }
}

#[test]
fn a_node_that_is_held_for_dead_is_not_in_contact_whatever_it_sends() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    world.kill(1);
    world.run_until("it is held for dead", Duration::from_secs(30), |world| {
        let mut views = world.whole().cores.iter().map(|core| &core.standing.view);
        views.all(|view| view.get(OTHER).unwrap().status == Status::Down)
    });
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    for core in &mut world.whole().cores {
        let lives = NodeId::from_bits(3);
        let heard = |node| Input::Heard { node, header: header(0), asked: now.monotonic };
        core.handle(now, heard(OTHER));
        assert!(!core.is_in_contact(now, OTHER));
        core.handle(now, heard(lives));
        assert!(core.is_in_contact(now, lives));
    }
}

#[test]
fn what_an_earlier_run_vouched_for_is_trusted_no_longer_than_a_run_may_say() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    let later = world.now.as_millis() as u64 + 5_000;
    for core in &mut world.whole().cores {
        // Of other cores' slots, too: there may have been more or fewer of them.
        for slot in Slot::all() {
            let until = if slot.index() % 2 == 0 { u64::MAX } else { later };
            core.tables[0].store.set_freshness(slot, until);
        }
    }
    world.kill(0);
    world.isolate(0);
    world.start(0);
    let latest = (world.now + world.policy.stale_max).as_millis() as u64;
    for core in &world.whole().cores {
        for slot in Slot::all() {
            let until = if slot.index() % 2 == 0 { latest } else { later };
            let until = if core.owns(slot) { until } else { 0 };
            assert_eq!(core.tables[0].store.freshness(slot), until, "slot {slot}");
        }
    }
    // While it meets nobody that ends by itself, and nothing prolongs it: not even that it serves alone.
    world.run_until("it serves alone", Duration::from_secs(5), |world| world.whole().is_up());
    world.run_for(Duration::from_secs(1));
    let of_all = |world: &mut World| {
        let cores = world.whole().cores.iter();
        let words =
            cores.flat_map(|core| core.slots().map(|it| core.tables[0].store.freshness(it)));
        words.collect::<BTreeSet<u64>>()
    };
    assert_eq!(of_all(&mut world), [later, latest].into());
}

/// An end that was acknowledged without this node shows two beats after it is in contact: so the word that
/// an earlier run gave goes as soon as anybody is met.
#[test]
fn whoever_is_met_ends_what_an_earlier_run_vouched_for() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    for number in 0..40 {
        world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
    }
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    for number in 0..40 {
        world.acknowledged(1, &format!("key {number}"), Operation::End { birth: None });
    }
    // Nobody is heard yet: this host is answered as one that is cut off. Others can ask elsewhere.
    world.isolate(0);
    world.start(0);
    let nowhere = Failure::Unavailable { answered: 0, needed: 1, homes: 0 };
    assert_eq!(world.fails(0, "key 7", Operation::Get), nowhere);
    world.asker = Asker::Local(0);
    assert_eq!(world.value(0, "key 7"), bytes("one"));
    assert_eq!(world.counter(0, "reads_of_homes"), 0);
    world.cut.clear();
    world.run_until("it meets the others", Duration::from_secs(5), |world| {
        world.whole().cores.iter().all(|core| core.standing.view.active().count() > 2)
    });
    for number in 0..40 {
        let key = format!("key {number}");
        let slot = Key::new(&key).unwrap().slot();
        let core = world.core(0, &key);
        assert!(core.slot_state(0, slot).is_synced() || core.tables[0].store.freshness(slot) == 0);
        assert_eq!(world.fails(0, &key, Operation::Get), Failure::Ended, "{key}");
    }
}

#[test]
fn what_an_earlier_run_vouched_for_is_not_answered_with_past_its_time() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    world.acknowledged(0, "key", start(bytes("one")));
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    world.isolate(0);
    world.now += world.policy.stale_max;
    world.queue.clear();
    world.asker = Asker::Local(0);
    world.start(0);
    let failure = world.fails(0, "key", Operation::Get);
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure:?}");
}

/// The clock that readers have from the earlier run says what has expired, until somebody confirms another.
#[test]
fn a_clock_set_back_over_a_restart_brings_nothing_back() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    world.acknowledged(0, "brief", start_idle(bytes("one"), 500));
    world.acknowledged(0, "long", start(bytes("one")));
    world.run_for(Duration::from_millis(700));
    let offsets = |world: &mut World| {
        let cores = world.whole().cores.iter();
        cores.map(|core| core.tables[0].store.readers_ms(0)).collect::<Vec<_>>()
    };
    let before = offsets(&mut world);
    world.kill(0);
    world.isolate(0);
    world.nodes[0].skew_ms = -3_600_000;
    world.asker = Asker::Local(0);
    world.start(0);
    world.run_for(Duration::from_secs(1));
    assert_eq!(offsets(&mut world), before);
    let failure = world.fails(0, "brief", Operation::Get);
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure:?}");
    assert_eq!(world.value(0, "long"), bytes("one"));
    // Ahead, too, nothing is said to have expired.
    world.kill(0);
    world.nodes[0].skew_ms = 3 * 3_600_000;
    world.start(0);
    let failure = world.fails(0, "long", Operation::Get);
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure:?}");
}

impl World {
    /// Three nodes, the last of which is out of reach and misses so many writes through the first.
    fn with_hints(writes: usize) -> Self {
        let mut world = Self::new(3, THREE_CORES);
        world.settle();
        world.isolate(2);
        for number in 0..writes {
            world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
        }
        world.run_until("they are hints", Duration::from_secs(3), |world| {
            world.whole().hints() == writes
        });
        world
    }
}

#[test]
fn hints_are_on_disk_a_moment_later_and_there_again_after_a_restart_with_other_cores() {
    let mut world = World::with_hints(20);
    world.run_for(Duration::from_millis(150));
    assert_eq!(world.hint_records(0), 20);
    assert_eq!(world.counter(0, "hints_saved"), 20);
    world.kill(0);
    // Another node's memory, as it were: its shards are another number.
    world.reboot(0);
    world.nodes[0].regions = world.regions(2);
    world.start(0);
    assert_eq!((world.whole().hints(), world.counter(0, "hints_restored")), (20, 20));
    assert_eq!(world.whole().cores.len(), 2);
    world.run_until("it meets the others", Duration::from_secs(5), |world| world.whole().is_up());
    assert_eq!(world.whole().hints(), 20, "one that was not met is not gone");
    world.cut.clear();
    world.settle();
    world.run_until("they are delivered", Duration::from_secs(10), |world| {
        world.whole().hints() == 0 && world.hint_records(0) == 0
    });
}

#[test]
fn a_disk_that_takes_nothing_costs_no_hint_and_is_tried_again() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    world.nodes[0].has_disk = false;
    world.isolate(2);
    for number in 0..20 {
        world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
    }
    world.run_for(Duration::from_secs(4));
    assert_eq!((world.whole().hints(), world.hint_records(0)), (20, 0));
    let failures = world.counter(0, "disk_failures");
    assert!((3..=15).contains(&failures), "three cores, each second: {failures}");
    let failing = |core: &Core| core.report().counters.contains(&("disk_failing".to_owned(), 1));
    assert!(world.whole().cores.iter().all(failing));
    world.nodes[0].has_disk = true;
    world.run_for(Duration::from_millis(1_500));
    assert_eq!(world.hint_records(0), 20);
    assert!(!world.whole().cores.iter().any(failing));
    world.nodes[0].has_disk = false;
    // Even so it can stop.
    world.request(0, "one more", start(bytes("one")));
    world.run_for(Duration::from_millis(1_500));
    world.input(0, Arrived::Hub(HubInput::Stop { leave: false }));
    world.run_until("it has stopped", Duration::from_secs(2), |world| world.whole().has_stopped);
}

#[test]
fn a_node_that_stops_has_its_hints_on_disk() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    world.isolate(2);
    world.acknowledged(0, "key", start(bytes("one")));
    world.input(0, Arrived::Hub(HubInput::Stop { leave: false }));
    world.run_until("it has stopped", Duration::from_secs(3), |world| world.whole().has_stopped);
    assert_eq!(world.hint_records(0), 1);
}

#[test]
fn a_home_that_is_back_gets_its_hints_no_faster_than_it_may() {
    let mut world = World::with_hints(300);
    // 300 of some 140 bytes each; three cores have a third of the rate each.
    for core in &mut world.whole().cores {
        core.settings.hints_rate = 9_000.try_into().unwrap();
        core.paces.clear();
    }
    world.cut.clear();
    let delivered = |world: &World| world.counter(0, "hints_delivered");
    world.run_until("the first arrive", Duration::from_secs(10), |world| delivered(world) > 0);
    world.run_for(Duration::from_secs(2));
    let so_far = delivered(&world);
    assert!((90..=210).contains(&so_far), "{so_far} of some 140 bytes in two seconds");
    world.run_until("all arrive", Duration::from_secs(10), |world| delivered(world) == 300);
}

#[test]
fn hints_without_room_or_too_old_have_their_slots_compared_and_no_others() {
    for too_old in [false, true] {
        let mut world = World::new(3, THREE_CORES);
        world.settle();
        world.isolate(2);
        for core in &mut world.whole().cores {
            let (room, age) = if too_old { (1 << 20, 2) } else { (400, 3_600) };
            core.tables[0].hints = Hints::new(room, Duration::from_secs(age));
        }
        for number in 0..40 {
            world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
        }
        // Not so long that it is held for dead, and so long that nobody tries to reach it any more.
        world.run_for(Duration::from_secs(6));
        let marked: u64 =
            world.whole().cores.iter().map(|core| core.tables[0].hints.slots_marked()).sum();
        let lost = 40 - world.whole().hints() as u64;
        assert_eq!((marked, lost == 40), (lost, too_old), "no two keys share a slot");
        let name = if too_old { "hints_too_old" } else { "hints_overflowed" };
        assert_eq!(world.counter(0, name), lost);
        let before = world.counter(0, "syncs_for_lost_hints");
        world.cut.clear();
        world.run_until("all arrive", Duration::from_secs(5), |world| {
            (0..40).all(|number| world.copy(2, &format!("key {number}")).is_some())
        });
        world.run_until("they are compared", Duration::from_secs(5), |world| {
            world.whole().cores.iter().all(|core| core.tables[0].hints.slots_marked() == 0)
        });
        let compared = world.counter(0, "syncs_for_lost_hints") - before;
        // Once more where the other, which lacks what it missed, was to compare first.
        assert!((1..=6).contains(&compared), "by each core once or twice: {compared}");
    }
}

/// Other nodes' slots are looked at once this one knows its own.
#[test]
fn nothing_is_compared_before_all_of_what_an_earlier_run_left_was_read() {
    let mut world = World::of_single_cores(2, 1, TablePolicy::default());
    world.settle();
    for number in 0..3_000 {
        world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
    }
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    world.start(0);
    let unread = |world: &mut World| world.whole().cores[0].tables[0].store.unread_slots();
    let left = unread(&mut world);
    assert!(left > 0, "three steps and not one");
    let now = world.present(0);
    let all: Vec<Slot> = Slot::all().collect();
    let question = SketchRequest {
        table: "sessions".to_owned(),
        cut_ms: 0,
        slots: annulus_proto::SlotSet::new(&all, 1),
        sizes: vec![SLOT_COUNT],
        symbols: 1,
    };
    let answer = world.whole().cores[0].sketches(NodeId::from_bits(9), &question);
    assert!(matches!(answer, Message::Rejected(_)), "{answer:?}");
    // A slot is read when it is needed.
    let key = Key::new("key 2999").unwrap();
    let entry = world.whole().cores[0].tables[0].store.get(&key, now.wall_ms);
    assert!(entry.is_some() && unread(&mut world) >= left - 1);
    assert_eq!(world.counter(0, "syncs_started"), 0);
    world.settle();
    assert_eq!(unread(&mut world), 0);
    for number in 0..3_000 {
        let slot = Key::new(format!("key {number}")).unwrap().slot();
        let held = [0, 1].map(|node| {
            let whole = world.nodes[node].whole.as_ref().unwrap();
            whole.cores[0].tables[0].store.slot_sketch(slot)
        });
        assert_eq!(held[0], held[1], "key {number}");
    }
    assert_eq!(world.counter(0, "sync_entries_fetched"), 0, "it has all that there is");
}

#[test]
fn a_member_that_was_silent_for_too_long_is_compared_with_before_this_node_vouches() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    let now = world.present(0);
    let stale = world.policy.stale_max;
    for core in &mut world.whole().cores {
        let heard = |at: Now| Input::Heard { node: OTHER, header: header(0), asked: at.monotonic };
        core.handle(now, heard(now));
        let in_time = after(now, stale.checked_sub(Duration::from_millis(1)).unwrap());
        core.handle(in_time, heard(in_time));
        assert_eq!(core.slots_unsynced(0), 0);
        let too_late = after(in_time, stale);
        core.handle(too_late, heard(too_late));
        assert_eq!(core.slots_unsynced(0), core.slots().count(), "three nodes are all homes");
        assert!(core.slots().all(|slot| !core.vouches(too_late, 0, slot)));
    }
}

#[test]
fn what_answers_the_hub_is_a_sign_of_life_for_every_core() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    world.run_for(Duration::from_secs(1));
    let now = after(world.present(0), Duration::from_secs(1));
    let notice = Notice::OtherView(OTHER);
    let says = world.hub_says(now, HubInput::Notice { core: 0, notice });
    let call = says.into_iter().find_map(|output| match output {
        HubOutput::Call(ask) if matches!(ask.message, Message::Exchange(_)) => Some(ask.header.id),
        _ => None,
    });
    let later = after(now, Duration::from_millis(30));
    let message = Exchange { members: Vec::new(), reply: false }.into();
    let answered = Answered { node: OTHER, header: header(0), message };
    let outcome = Outcome { call: call.expect("it asks"), result: Ok(answered) };
    let says = world.hub_says(later, HubInput::Outcome(outcome));
    let heard = says.into_iter().find_map(|output| match output {
        HubOutput::Cores(Input::Heard { node, asked, .. }) => Some((node, asked)),
        _ => None,
    });
    assert_eq!(heard, Some((OTHER, now.monotonic)), "not when it was answered");
}

/// Packets can be held back, and requests: that something arrives now says nothing of when it was sent,
/// nor what its sender's clock shows.
#[test]
fn what_a_node_says_unasked_is_no_sign_of_life_and_sets_no_clock() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    let sealed = |from| HubInput::Gossip { node: Some(OTHER), from, packet: vec![0; 20] };
    let plain = |from| HubInput::Gossip { node: None, from, packet: vec![0; 20] };
    let over_stream = HubInput::StreamGossip { node: OTHER, packet: vec![0; 20] };
    let question = from_other(compare_slots(0..0));
    world.isolate(1);
    // What was under way has arrived.
    world.run_for(Duration::from_secs(1));
    let before = world.now;
    for input in [sealed(World::addr(1)), plain(World::addr(1)), over_stream, question] {
        world.input(0, Arrived::Hub(input));
        world.run_for(Duration::from_millis(10));
    }
    let (table, key) = ("sessions".to_owned(), Key::new("key").unwrap());
    let fetch = Fetch { table, key, under: None };
    let (asker, caller) = (Asker::Stream(PEER_STREAMS + 1), Caller::Node(OTHER));
    let now = world.present(0);
    let long_ago = annulus_proto::Hlc::from_ms(now.wall_ms - 3_600_000);
    let header = Header { hlc: long_ago, ..header(0) };
    for core in &mut world.whole().cores {
        let message = fetch.clone().into();
        core.handle(now, Input::Request(Request { asker, caller, header, message }));
        assert!(core.heard[&OTHER].at < before);
        assert_eq!(core.time.drift_ms(), None);
    }
}

#[test]
fn only_what_is_plain_is_done_at_once() {
    let mut world = World::alone_with_a_session(TablePolicy::default());
    assert!(world.touches_at_once());
    let slot = Key::new("key").unwrap().slot();
    let plain = world.core(0, "key").standing.clone();
    let as_it_stands = |world: &mut World, standing: &Standing| {
        world.core(0, "key").standing = Arc::new(standing.clone());
        world.touches_at_once()
    };

    let by_misfortune = Standing { alone_by_misfortune: true, ..(*plain).clone() };
    assert!(!as_it_stands(&mut world, &by_misfortune), "others may hold more");

    let mut other = plain.view.get(plain.me).unwrap().clone();
    (other.id, other.addr) = (OTHER, World::addr(1));
    let both = plain.view.iter().cloned().chain([other]).collect();
    let mut presuming = (*plain).clone();
    presuming.rings[0].quorum = Arc::new(annulus_gossip::Ring::build(&both, 0, 3));
    assert!(!as_it_stands(&mut world, &presuming), "the other home may live");

    assert!(as_it_stands(&mut world, &plain));
    let sources = |world: &mut World, sources: BTreeSet<NodeId>| {
        world.core(0, "key").tables[0].slots[usize::from(slot.index())].sources = sources;
    };
    sources(&mut world, [OTHER].into());
    assert!(!world.touches_at_once(), "the slot is not in sync");
    sources(&mut world, BTreeSet::new());
    assert!(world.touches_at_once());

    let (now, touch) = (world.present(0), Operation::Touch { birth: None });
    let end = Operation::End { birth: None };
    assert!(!world.does_at_once(now, Role::Monitor, "key", &touch));
    assert!(!world.does_at_once(now, Role::Worker, "key", &end));
    assert!(world.does_at_once(now, Role::Worker, "key", &touch));

    world.core(0, "key").handle(now, Input::Stop);
    assert!(!world.touches_at_once(), "the node is stopping");
}

#[test]
fn nothing_is_done_at_once_past_the_last_day_of_a_birth() {
    let lifetime_max = Duration::from_secs(60);
    let mut world =
        World::alone_with_a_session(TablePolicy { lifetime_max, ..TablePolicy::default() });
    let now = world.present(0);
    // From a node whose table knows no cap: its copies have no deadline of their own.
    let mut entry = world.copy(0, "key").unwrap();
    let lease = &mut entry.body.as_mut().unwrap().lease;
    (lease.idle, lease.expire_at) = (0, 0);
    let other = Key::new("other").unwrap();
    let core = world.core(0, "other");
    core.merge(now, 0, &other, &entry, Admission::Ordinary).unwrap();
    core.handle(now, Input::Ceiling(u64::MAX));
    let touch = Operation::Touch { birth: None };
    let in_time = after(now, lifetime_max / 2);
    assert!(world.does_at_once(in_time, Role::Development, "other", &touch));
    let too_late = after(now, lifetime_max);
    assert!(!world.does_at_once(too_late, Role::Development, "other", &touch));
}

#[test]
fn a_node_has_stopped_once_all_its_cores_have_answered_and_not_before() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    // Only one of three cores has anything to wait for, and waits as long as it may.
    world.isolate(0);
    let under_way = world.request(0, "key", start(bytes("one")));
    world.input(0, Arrived::Hub(HubInput::Stop { leave: false }));
    while !world.replies.contains_key(&under_way) {
        assert!(!world.whole().has_stopped);
        world.step();
    }
    world.run_until("it has stopped", Duration::from_secs(1), |world| world.whole().has_stopped);
}

#[test]
fn a_comparison_is_answered_with_the_view_that_all_cores_saw() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    let now = world.present(0);
    let mut view_after = |views: [u64; 3]| {
        let asked = from_other(compare_slots(0..3));
        let ticket = |output: HubOutput| match output {
            HubOutput::Cores(Input::Request(request)) => match request.asker {
                Asker::Hub { ticket } => Some(ticket),
                other => panic!("{other:?} asks"),
            },
            _ => None,
        };
        let ticket = world.hub_says(now, asked).into_iter().find_map(ticket).unwrap();
        let mut replies = Vec::new();
        for (core, view) in views.into_iter().enumerate() {
            let mut sketches = Vec::new();
            annulus_sketch::Sketch::new(1).write(&mut sketches);
            let message = Sketches { sketches }.into();
            let notice = Notice::Part { ticket, header: header(view), message };
            replies.extend(world.hub_says(now, HubInput::Notice { core, notice }));
        }
        match &replies[..] {
            [HubOutput::Reply(reply)] => reply.header.view,
            other => panic!("one reply, not {other:?}"),
        }
    };
    assert_eq!(view_after([5, 5, 5]), 5);
    // Of no view, if they saw different ones.
    for views in [[6, 5, 5], [5, 6, 5], [5, 5, 6]] {
        assert_eq!(view_after(views), 0);
    }
}

#[test]
fn a_member_agrees_if_whichever_core_heard_of_it_last_says_so() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    let (now, view) = (world.present(0), world.view(0).digest());
    let mut agreeing_after = |heard: [(u64, u64); 3]| {
        let asked = world.hub_says(now, from_other(StatusRequest {}));
        let ticket = asked.iter().find_map(|output| match output {
            HubOutput::Cores(Input::Report { ticket }) => Some(*ticket),
            _ => None,
        });
        let ticket = ticket.expect("all cores are asked");
        let mut replies = Vec::new();
        for (core, (at, view)) in heard.into_iter().enumerate() {
            // Later than whatever the hub has seen itself.
            let heard = vec![(OTHER, Duration::from_secs(10_000 + at), view)];
            let report = CoreReport { heard, ..CoreReport::default() };
            let notice = Notice::Report { ticket, report };
            replies.extend(world.hub_says(now, HubInput::Notice { core, notice }));
        }
        match &replies[..] {
            [HubOutput::Reply(Reply { message: Message::NodeStatus(status), .. })] => {
                status.agreeing_members
            }
            other => panic!("a status, not {other:?}"),
        }
    };
    assert_eq!(agreeing_after([(1, 0), (3, view), (2, 0)]), 2);
    assert_eq!(agreeing_after([(1, view), (2, view), (3, 0)]), 1);
    assert_eq!(agreeing_after([(3, view), (2, 0), (1, 0)]), 2);
}

#[test]
fn all_slots_are_vouched_for_by_and_by_and_none_any_more_at_once() {
    let mut world = World::of_single_cores(3, 41, TablePolicy::default());
    world.settle();
    world.run_for(Duration::from_secs(2));
    let now = world.present(0);
    let core = &mut world.whole().cores[0];
    let words = |core: &Core| -> Vec<u64> {
        core.slots().map(|slot| core.tables[0].store.freshness(slot)).collect()
    };
    let soon_ms = now.monotonic.as_millis() as u64 + 5_000;
    assert!(words(core).iter().all(|until| *until > soon_ms));
    // A slot that comes to be in sync behind a pass is done by the one after it.
    core.begin_freshness_again();
    core.extend_freshness_on(now);
    let first = core.slots().next().unwrap();
    core.tables[0].store.set_freshness(first, 0);
    core.begin_freshness_again();
    while core.freshness.is_under_way() {
        core.extend_freshness_on(now);
    }
    assert!(words(core).iter().all(|until| *until > soon_ms));
    // The others held it for dead, and kept nothing for it.
    let plain = core.standing.clone();
    let (revivals, generation) = (plain.revivals + 1, plain.generation + 1);
    let revived = Standing { revivals, generation, ..(*plain).clone() };
    core.handle(now, Input::Standing(Arc::new(revived)));
    assert!(words(core).iter().all(|until| *until == 0));
}

#[test]
fn a_node_that_has_met_the_others_by_itself_is_alone_by_misfortune_no_more() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    world.run_for(Duration::from_secs(3));
    world.kill(0);
    world.start(0);
    let misfortune = |world: &mut World| {
        let cores = &world.whole().cores;
        cores.iter().filter(|core| core.standing.alone_by_misfortune).count()
    };
    assert_eq!(misfortune(&mut world), CORES_MAX);
    world.run_until("misfortune is over", Duration::from_secs(10), |world| {
        let by_others = |to: usize, arrived: &Arrived| {
            let Arrived::Request(request) = arrived else { return false };
            to == 0 && matches!(request.message, Message::Exchange(_))
        };
        world.queue.retain(|_, (to, arrived)| !by_others(*to, arrived));
        misfortune(world) == 0
    });
}

#[test]
fn a_presumed_death_that_turns_out_to_be_one_is_waited_for_no_more() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    world.kill(1);
    world.run_until("it is presumed dead", Duration::from_secs(60), |world| {
        world.whole().cores.iter().all(|core| core.standing.presumed.contains(&OTHER))
    });
    world.add(3);
    let view = |world: &mut World| world.whole().cores[0].standing.view.active().count();
    world.run_until("another is met", Duration::from_secs(30), |world| view(world) == 2);
    world.run_until("that is the end of it", Duration::from_secs(60), |world| {
        world.whole().hub.presumed().count() == 0
    });
    world.run_for(Duration::from_millis(500));
    for core in &world.whole().cores {
        assert!(core.standing.presumed.is_empty());
        assert!(!core.standing.innermost().quorum.nodes().contains(&OTHER));
    }
    // Of two homes that decide one is dead: they count it.
    world.even_out();
}

#[test]
fn nothing_waits_for_a_node_that_died() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    world.kill(1);
    for number in 0..30 {
        world.acknowledged(0, &format!("key {number}"), start(bytes("one")));
    }
    let hints = |core: &Core| core.tables[0].hints.len();
    assert!(world.whole().cores.iter().all(|core| hints(core) > 0));
    world.run_until("it is held for dead", Duration::from_secs(30), |world| {
        world.view(0).get(OTHER).unwrap().status == Status::Down
    });
    world.run_for(Duration::from_millis(100));
    for core in &world.whole().cores {
        assert_eq!((hints(core), core.heard.contains_key(&OTHER)), (0, false));
    }
}

#[test]
fn nothing_waits_for_a_node_that_left() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    // Nothing reaches it that it might answer.
    world.cut.insert((0, 1));
    let hinted = Key::new("key").unwrap();
    for core in &mut world.whole().cores {
        assert!(core.tables[0].hints.add(OTHER, &hinted, 1));
    }
    world.input(1, Arrived::Hub(HubInput::Stop { leave: true }));
    // Sooner than calls to it are given up, which finds out, too.
    world.run_until("it has left", Duration::from_millis(500), |world| {
        !world.view(0).get(OTHER).unwrap().status.is_active()
    });
    world.run_for(Duration::from_millis(10));
    for core in &world.whole().cores {
        assert_eq!(core.tables[0].hints.len(), 0);
    }
}

#[test]
fn views_are_exchanged_with_a_node_that_a_core_saw_to_have_another() {
    let mut world = World::new(2, THREE_CORES);
    world.settle();
    let now = after(world.present(0), Duration::from_secs(1));
    let other_view = world.view(0).digest() ^ 1;
    for number in 0..CORES_MAX {
        let core = &mut world.whole().cores[number];
        let mut says = |view| {
            let asked = now.monotonic;
            core.handle(now, Input::Heard { node: OTHER, header: header(view), asked });
            let said: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
            said.contains(&Output::Notice(Notice::OtherView(OTHER)))
        };
        assert!(!says(other_view ^ 1) && says(other_view));
    }
    let notice = Notice::OtherView(OTHER);
    let said = world.hub_says(now, HubInput::Notice { core: 1, notice });
    let asks = |output: &HubOutput| match output {
        HubOutput::Call(ask) => matches!(ask.message, Message::Exchange(_)),
        _ => false,
    };
    assert_eq!(said.iter().filter(|output| asks(output)).count(), 1);
}

#[test]
fn a_read_is_passed_on_to_the_nearest_home_and_a_write_to_the_primary() {
    let mut world = World::new(5, THREE_CORES);
    world.settle();
    let node = world.outsider("key");
    let now = world.present(node);
    let slot = Key::new("key").unwrap().slot();
    let core = world.core(node, "key");
    let homes = core.homes(0, slot);
    let asked = |core: &mut Core, operation: Operation| {
        let request = RequestId { client: 1, sequence: 0 };
        let (table, key) = ("sessions".to_owned(), Key::new("key").unwrap());
        let message =
            SessionRequest { table, key, request, hops: 0, patience_ms: 100, operation }.into();
        let (asker, caller) = (Asker::Stream(0), Caller::Client(Role::Development));
        let request = Request { asker, caller, header: header(0), message };
        core.handle(now, Input::Request(request));
        let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
        let to = outputs.into_iter().find_map(|output| match output {
            Output::Call(ask) if matches!(ask.message, Message::SessionRequest(_)) => Some(ask.to),
            _ => None,
        });
        let member = core.standing.view.iter().find(|member| Some(member.addr) == to);
        member.expect("it was passed on").id
    };
    // Nothing was measured, or all are equally far: the ring's order.
    assert_eq!(asked(core, Operation::Get), homes[0]);
    let far = |steps: [u8; 3]| {
        let proximity = homes.iter().copied().zip(steps).collect();
        Input::Proximity(Arc::new(proximity))
    };
    core.handle(now, far([2, 2, 2]));
    assert_eq!(asked(core, Operation::Get), homes[0]);
    core.handle(now, far([7, 3, 0]));
    assert_eq!(asked(core, Operation::Get), homes[2]);
    assert_eq!(asked(core, Operation::Touch { birth: None }), homes[0]);
}

#[test]
fn a_node_tells_how_it_finds_the_others() {
    let mut world = World::new(3, THREE_CORES);
    world.settle();
    world.kill(1);
    world.run_until("it is held for dead", Duration::from_secs(30), |world| {
        world.view(0).get(OTHER).unwrap().status == Status::Down
    });
    world.run_for(Duration::from_secs(12));
    let now = world.present(0);
    let says = world.hub_says(now, from_other(PeersRequest {}));
    let peers = says.into_iter().find_map(|output| match output {
        HubOutput::Reply(Reply { message: Message::Peers(peers), .. }) => Some(peers),
        _ => None,
    });
    let Peers { node, view, local_health, peers } = peers.expect("an answer");
    assert_eq!((node, local_health), (NodeId::from_bits(1), 0));
    let [dead, alive] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!((dead.node, dead.state), (OTHER, PeerState::Down));
    assert_eq!((alive.node, alive.state), (NodeId::from_bits(3), PeerState::Alive));
    assert_eq!(alive.view, view);
    let rtt = alive.rtt.expect("it was measured");
    // The world's packets take up to two milliseconds, each way.
    assert!(rtt.samples > 3 && (1..8_000).contains(&rtt.smoothed_us), "{rtt:?}");
    let step = rtt.step();
    for core in &world.whole().cores {
        // It may have changed since they were told.
        let known = core.proximity.get(&alive.node).expect("the cores were told");
        assert!(known.abs_diff(step) <= 1 && !core.proximity.contains_key(&OTHER));
    }
}

#[test]
fn a_node_that_joins_asks_all_it_remembers_and_few_at_a_time() {
    const PEERS: u16 = 300;
    let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_800_000_000_000 };
    let peer = |n: u16| SocketAddr::from(([10, 9, (n >> 8) as u8, n as u8], 7_946));
    let me = Member {
        id: NodeId::from_bits(77),
        incarnation: now.wall_ms,
        revision: 0,
        status: Status::Joining,
        addr: World::addr(0),
        name: "n".to_owned(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    };
    let known = |n: u16| KnownMember {
        id: 100 + u64::from(n),
        incarnation: 1,
        name: format!("n{n}"),
        addr: peer(n),
    };
    let members = (1..PEERS).map(known).collect();
    // One as an earlier build kept it.
    let state = NodeState { id: 77, members, peers: vec![peer(0)], ..NodeState::default() };
    let start = HubStart {
        settings: CoreSettings::default(),
        mesh: MeshConfig::default(),
        cluster: "test".to_owned(),
        me,
        state,
        joins_others: true,
        cores: 1,
        tables: vec!["sessions".to_owned()],
        homes_max: vec![3],
        seed: 5,
    };
    let mut hub = Hub::new(start, now);
    hub.handle(now, HubInput::Seeds(Vec::new()));
    let (mut asked, mut open) = (BTreeSet::new(), VecDeque::new());
    loop {
        for output in std::iter::from_fn(|| hub.poll_output()) {
            if let HubOutput::Call(ask) = output {
                assert!(asked.insert(ask.to), "{} was asked twice", ask.to);
                open.push_back(ask.header.id);
            }
        }
        assert!(open.len() <= 32, "{} at a time", open.len());
        let Some(call) = open.pop_front() else { break };
        let outcome = Outcome { call, result: Err(NoAnswer { sent: false }) };
        hub.handle(now, HubInput::Outcome(outcome));
    }
    assert_eq!(asked.len(), usize::from(PEERS));
}
