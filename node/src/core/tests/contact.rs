//! Signs of life: who is asked for them, how often, and who learns of them.

use annulus_proto::Hlc;
use annulus_proto::message::{Ping, Pong};

use super::*;

fn id(number: u64) -> NodeId {
    NodeId::from_bits(number)
}

/// The first node of a world of its own, of three cores, and so many more in its view, which do nothing.
fn among(others: u64) -> World {
    let mut world = World::new(1, 2);
    let member = |number: u64| Member {
        id: id(number),
        incarnation: START_WALL_MS,
        revision: 0,
        status: Status::Up,
        addr: SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], 7946)),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    };
    let members = (2..2 + others).map(member).collect();
    let message = Exchange { members, reply: false }.into();
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    let (asker, caller) = (Asker::Stream(PEER_STREAMS), Caller::Node(id(2)));
    let request = Request { asker, caller, header, message };
    world.input(0, Arrived::Hub(HubInput::Request(request)));
    world
}

/// The pings of one node by whom they are for, while it runs for a time in which the others answer
/// pings at once, and nothing else.
fn pings(world: &mut World, time: Duration) -> BTreeMap<NodeId, u32> {
    let mut whole = world.nodes[0].whole.take().unwrap();
    let by_addr: BTreeMap<SocketAddr, NodeId> =
        whole.hub.view().iter().map(|member| (member.addr, member.id)).collect();
    let end = world.now + time;
    let mut pings = BTreeMap::new();
    while world.now < end {
        world.now = whole.poll_timeout().max(world.now);
        let now = world.present(0);
        whole.handle_timeout(now);
        while let Some(sent) = whole.poll_output() {
            let Sent::Call(Ask { to, header, message: Message::Ping(Ping {}) }) = sent else {
                continue;
            };
            let node = by_addr[&to];
            *pings.entry(node).or_default() += 1;
            let answer = Answered { node, header, message: Pong { node }.into() };
            let outcome = Outcome { call: header.id, result: Ok(answer) };
            whole.take_in(now, Arrived::Outcome(outcome));
        }
    }
    world.nodes[0].whole = Some(whole);
    pings
}

#[test]
fn of_a_hundred_nodes_those_are_asked_for_signs_of_life_that_share_slots_and_the_others_in_turn() {
    let mut world = among(99);
    world.run_for(Duration::from_millis(100));
    let partners = world.whole().cores[0].standing.partners.clone();
    let (mut of_partners, mut of_others) = (0, 0);
    let counted = pings(&mut world, Duration::from_secs(10));
    println!("{} partners; pings in 10 s: {}", partners.len(), counted.values().sum::<u32>());
    assert!((35..60).contains(&partners.len()), "{}", partners.len());
    for (node, count) in counted {
        if partners.contains(&node) {
            // Every 0.8 s, and by all three cores together.
            assert!((10..=13).contains(&count), "{node}: {count}");
            of_partners += 1;
        } else {
            assert_eq!(count, 1, "{node}");
            of_others += 1;
        }
    }
    assert_eq!(of_partners, partners.len());
    assert!((10..=13).contains(&of_others), "{of_others}");
    let whole = world.whole();
    for core in &whole.cores {
        assert!(partners.iter().all(|node| core.heard[node].at > Duration::ZERO));
    }
}

#[test]
fn what_one_core_hears_is_a_sign_of_life_for_all_and_saves_a_ping() {
    let mut world = among(2);
    let other = id(2);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let header = Header { id: 9, view: 0, hlc: Hlc::ZERO };
    let whole = world.whole();
    let mut relayed = |asked| {
        let notice = Notice::Heard { node: other, header, asked };
        whole.hub.handle(now, HubInput::Notice { core: 1, notice });
        let outputs: Vec<HubOutput> = std::iter::from_fn(|| whole.hub.poll_output()).collect();
        outputs.into_iter().any(|output| {
            matches!(output, HubOutput::Cores(Input::Heard { node, asked: at, .. }) if node == other && at == asked)
        })
    };
    assert!(relayed(now.monotonic));
    // They need not hear of every answer.
    assert!(!relayed(now.monotonic + SHARE_AFTER / 2));
    assert!(relayed(now.monotonic + SHARE_AFTER));
    // No ping of the node that a core hears of again and again.
    let mut silent = 0;
    for round in 0..20 {
        let asked = world.now;
        let notice = Notice::Heard { node: other, header, asked };
        world.input(0, Arrived::Hub(HubInput::Notice { core: 1, notice }));
        let counted = pings(&mut world, Duration::from_millis(500));
        assert!(round < 2 || !counted.contains_key(&other), "{counted:?}");
        silent += counted.get(&id(3)).copied().unwrap_or_default();
    }
    assert!((10..=14).contains(&silent), "{silent}");
}

#[test]
fn a_core_tells_of_its_partners_answers_now_and_then() {
    let mut world = World::new(2, 2);
    world.settle();
    world.run_for(Duration::from_secs(2));
    let now = world.present(0);
    let core = &mut world.whole().cores[0];
    while core.poll_output().is_some() {}
    let mut told = |asked| {
        let number = core.call(now, id(2), Purpose::Ping, Ping {}).unwrap();
        let mut call = core.calls.close(number).unwrap();
        call.asked = asked;
        let number = core.calls.open(call);
        let header = Header { id: number, view: 0, hlc: Hlc::ZERO };
        let answered = Answered { node: id(2), header, message: Pong { node: id(2) }.into() };
        core.handle(now, Input::Outcome(Outcome { call: number, result: Ok(answered) }));
        let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
        outputs.into_iter().any(|output| {
            matches!(output, Output::Notice(Notice::Heard { node, asked: at, .. }) if node == id(2) && at == asked)
        })
    };
    assert!(told(now.monotonic + SHARE_AFTER));
    assert!(!told(now.monotonic + SHARE_AFTER + SHARE_AFTER / 2));
    assert!(told(now.monotonic + 2 * SHARE_AFTER));
}

#[test]
fn of_whom_it_shares_no_slot_with_a_node_expects_nothing_and_misses_nothing() {
    let mut world = among(99);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let stale = world.policy.stale_max;
    let core = &mut world.whole().cores[0];
    let partners = core.standing.partners.clone();
    let stranger = *core.companions.iter().find(|node| !partners.contains(node)).unwrap();
    let partner = *partners.first().unwrap();
    for (node, is_missed) in [(stranger, false), (partner, true)] {
        let heard = |at: Now| {
            let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
            Input::Heard { node, header, asked: at.monotonic }
        };
        core.handle(now, heard(now));
        core.tables[0].slots.iter_mut().for_each(|state| state.sources.clear());
        let late = Now { monotonic: now.monotonic + 2 * stale, ..now };
        core.handle(late, heard(late));
        let is_to_be_compared_with = |state: &SlotState| state.sources.contains(&node);
        assert_eq!(core.tables[0].slots.iter().any(is_to_be_compared_with), is_missed, "{node}");
    }
}

#[test]
fn a_new_partner_has_not_been_silent_before_it_was_one() {
    let mut world = among(99);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let stale = world.policy.stale_max;
    let core = &mut world.whole().cores[0];
    let stranger =
        *core.companions.iter().find(|node| !core.standing.partners.contains(node)).unwrap();
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    core.handle(now, Input::Heard { node: stranger, header, asked: now.monotonic });
    let late = Now { monotonic: now.monotonic + 2 * stale, ..now };
    let mut standing = (*core.standing).clone();
    standing.partners.insert(stranger);
    core.handle(late, Input::Standing(Arc::new(standing)));
    core.tables[0].slots.iter_mut().for_each(|state| state.sources.clear());
    core.handle(late, Input::Heard { node: stranger, header, asked: late.monotonic });
    assert!(core.tables[0].slots.iter().all(|state| state.sources.is_empty()));
}

#[test]
fn hints_for_a_node_that_is_no_partner_are_delivered_once_it_gives_a_sign_of_life() {
    let mut world = among(99);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let core = &mut world.whole().cores[0];
    let stranger =
        *core.companions.iter().find(|node| !core.standing.partners.contains(node)).unwrap();
    while core.poll_output().is_some() {}
    core.hint(0, stranger, &Key::new("key").unwrap());
    let mut asked = |at: Now| {
        core.deliver_hints(at);
        let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
        let pings = outputs.iter().filter(
            |output| matches!(output, Output::Call(ask) if matches!(ask.message, Message::Ping(_))),
        );
        pings.count()
    };
    assert_eq!(asked(now), 1);
    assert_eq!(asked(now), 0, "it has some time to answer");
    let later = Now { monotonic: now.monotonic + PING_AFTER, ..now };
    assert_eq!(asked(later), 1);
}

#[test]
fn whoever_did_not_answer_lately_is_asked_last() {
    let mut world = among(99);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let core = &mut world.whole().cores[0];
    let stranger =
        *core.companions.iter().find(|node| !core.standing.partners.contains(node)).unwrap();
    assert!(!core.is_doubtful(now, stranger), "there is no reason to doubt it");
    let call = core.call(now, stranger, Purpose::Ping, Ping {}).unwrap();
    core.handle(now, Input::Outcome(Outcome { call, result: Err(NoAnswer { sent: true }) }));
    assert!(core.is_doubtful(now, stranger));
    let later = |after: Duration| Now { monotonic: now.monotonic + after, ..now };
    assert!(!core.is_doubtful(later(DOUBT), stranger), "it has another chance");
    let soon = later(Duration::from_secs(1));
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    core.handle(soon, Input::Heard { node: stranger, header, asked: soon.monotonic });
    assert!(!core.is_doubtful(soon, stranger), "it answered since");
}

#[test]
fn an_exchange_is_a_sign_of_life_of_who_answered_and_not_of_whom_was_asked() {
    let mut world = among(2);
    world.run_for(Duration::from_millis(100));
    let now = world.present(0);
    let whole = world.whole();
    let notice = Notice::OtherView(id(2));
    whole.hub.handle(now, HubInput::Notice { core: 0, notice });
    let call = std::iter::from_fn(|| whole.hub.poll_output()).find_map(|output| match output {
        HubOutput::Call(ask) if matches!(ask.message, Message::Exchange(_)) => Some(ask.header.id),
        _ => None,
    });
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    let message = Exchange { members: Vec::new(), reply: false }.into();
    let answered = Answered { node: id(3), header, message };
    let outcome = Outcome { call: call.expect("it asks"), result: Ok(answered) };
    whole.hub.handle(now, HubInput::Outcome(outcome));
    let heard: Vec<NodeId> = std::iter::from_fn(|| whole.hub.poll_output())
        .filter_map(|output| match output {
            HubOutput::Cores(Input::Heard { node, .. }) => Some(node),
            _ => None,
        })
        .collect();
    assert_eq!(heard, [id(3)]);
}

#[test]
fn a_ping_that_another_node_answers_is_a_sign_of_life_of_nobody() {
    let mut world = among(2);
    let whole = world.nodes[0].whole.as_mut().unwrap();
    let now = Now { monotonic: world.now + Duration::from_secs(2), wall_ms: START_WALL_MS };
    whole.hub.handle_timeout(now);
    let ping = std::iter::from_fn(|| whole.hub.poll_output()).find_map(|output| match output {
        HubOutput::Call(ask) if matches!(ask.message, Message::Ping(_)) => Some(ask),
        _ => None,
    });
    let ping = ping.expect("somebody is silent");
    let asked = whole.hub.view().iter().find(|member| member.addr == ping.to).unwrap().id;
    let other = if asked == id(2) { id(3) } else { id(2) };
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    for node in [other, asked] {
        let answered = Answered { node, header, message: Pong { node: asked }.into() };
        let outcome = Outcome { call: ping.header.id, result: Ok(answered) };
        whole.hub.handle(now, HubInput::Outcome(outcome));
        let tells = |output| matches!(output, HubOutput::Cores(Input::Heard { .. }));
        assert!(!std::iter::from_fn(|| whole.hub.poll_output()).any(tells), "{node}");
    }
    assert_eq!(whole.hub.count("answers_of_others"), 1);
}
