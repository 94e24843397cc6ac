//! The guards around foca, each beside what happens without it.

use std::time::Duration;

use annulus_gossip::{Event, Guard, MeshConfig};
use annulus_mesh_sim::{Ours, World, secs};
use annulus_proto::Status;

type Sim = World<Ours>;

/// A cluster that has run for a while, whose nodes have this configuration.
fn cluster(count: usize, seed: u64, config: MeshConfig) -> Sim {
    let mut sim = Sim::new(count, seed);
    sim.settings.mesh = config;
    // Otherwise whatever is sent to a host may be answered by what the mesh was to find out.
    sim.settings.exchanges_on_sight = false;
    (0..count).for_each(|host| sim.start(host));
    sim.run_until(secs(30), |sim| sim.agrees() && sim.all_up());
    sim.run(secs(5));
    sim
}

fn without(guard: Guard) -> MeshConfig {
    MeshConfig { without: Some(guard), ..MeshConfig::default() }
}

/// foca, and of what is around it the very least.
fn bare() -> MeshConfig {
    MeshConfig { ping_repeats: 0, ..MeshConfig::default() }
}

#[test]
fn a_suspicion_that_was_refuted_makes_nobody_renew() {
    let renewals = |guard| {
        let mut sim = cluster(10, 1, MeshConfig { without: guard, ..bare() });
        sim.net.loss = 0.3;
        sim.run(secs(120));
        sim.sum(|c| c.renewals)
    };
    assert_eq!(renewals(None), 0);
    let without = renewals(Some(Guard::StaleSuspicions));
    println!("without: {without} renewals");
    assert!(without > 0);
}

#[test]
fn pings_that_are_repeated_suspect_nobody() {
    let suspicions = |config| {
        let mut sim = cluster(10, 2, config);
        sim.net.loss = 0.3;
        sim.run(secs(120));
        sim.sum(|c| c.probes_failed)
    };
    let (with, without) = (suspicions(MeshConfig::default()), suspicions(bare()));
    println!("{with} probes failed, {without} without repeats");
    assert!(with * 20 < without);
}

#[test]
fn a_node_that_only_streams_reach_is_not_declared_down() {
    let deaths = |config| {
        let mut sim = cluster(10, 3, config);
        sim.net.streams_only = [4].into();
        sim.run(secs(60));
        let down = Event::MemberDown(sim.hosts[4].id);
        (sim.sum(|c| c.probes_failed), sim.count(|event| *event == down))
    };
    assert_eq!(deaths(MeshConfig::default()), (0, 0));
    let without = deaths(without(Guard::Fallback));
    println!("without: {without:?} probes failed, deaths");
    assert!(without.1 > 0);
}

/// A cluster whose news travel slowly, with one host cut off until somebody is about to declare it
/// down; who that is.
fn doubted(seed: u64, verify_peers: u8, until: Option<Duration>) -> (Sim, usize) {
    let gossip_period = secs(60);
    let config = MeshConfig { verify_peers, verify_pings: 5, gossip_period, ..Default::default() };
    let mut sim = cluster(10, seed, config);
    sim.net.cut = [1].into();
    let judge = |sim: &Sim| {
        sim.meshes().find(|(_, mesh)| mesh.counters().deaths_reported > 0).map(|(host, _)| host)
    };
    match until {
        Some(until) => sim.run(until - sim.now),
        None => drop(sim.run_until(secs(20), |sim| judge(sim).is_some())),
    }
    let judge = judge(&sim).unwrap_or(0);
    (sim, judge)
}

#[test]
fn others_vouch_for_a_member_that_this_node_does_not_reach() {
    let deaths = |verify_peers| {
        let mut deaths = 0;
        for seed in 0..10 {
            let (sim, judge) = doubted(seed, verify_peers, None);
            // The same once more, and shortly before the end all but the judge reach it again.
            let back = sim.now - Duration::from_millis(120);
            let (mut sim, _) = doubted(seed, verify_peers, Some(back));
            sim.net.heal();
            sim.net.one_way = [(judge, 1), (1, judge)].into();
            sim.run(Duration::from_millis(200));
            deaths += sim.sum(|c| c.deaths_reported.min(1));
        }
        deaths
    };
    let (with, without) = (deaths(3), deaths(0));
    println!("{with} of 10 are declared down, {without} without");
    assert_eq!(with, 0);
    assert!(without >= 5);
}

#[test]
fn a_slow_node_stretches_its_judgements_and_recovers() {
    let figures = |health_max| {
        let mut sim = cluster(20, 5, MeshConfig { health_max, ..MeshConfig::default() });
        sim.net.inbound.insert(7, secs(12));
        sim.run(secs(30));
        let mesh = sim.mesh(7);
        let of_slow = (mesh.counters().probes_failed, mesh.health());
        let others = sim.meshes().filter(|(host, _)| *host != 7);
        let of_others = others.map(|(_, mesh)| mesh.health()).max();
        sim.net.inbound.clear();
        sim.run(secs(60));
        let after = sim.meshes().map(|(_, mesh)| mesh.health()).max();
        (of_slow, of_others, after)
    };
    let ((with, health), of_others, after) = figures(8);
    let ((without, none), _, _) = figures(0);
    println!("{with} probes of a slow node failed, {without} without local health");
    assert!(with * 4 < without);
    assert_eq!((health, none), (8, 0));
    assert!(of_others < Some(3), "{of_others:?}");
    assert_eq!(after, Some(0));
}

#[test]
fn a_slow_node_that_hears_old_answers_declares_nobody_down() {
    let deaths = |guard| {
        let config = MeshConfig { without: guard, health_max: 0, ..MeshConfig::default() };
        let mut sim = cluster(20, 6, config);
        sim.net.inbound.insert(7, secs(6));
        sim.run(secs(30));
        let others = sim.meshes().filter(|(host, _)| *host != 7);
        others.map(|(_, mesh)| mesh.counters().renewals).sum::<u64>()
    };
    assert_eq!(deaths(None), 0);
    let without = deaths(Some(Guard::TimelyAnswers));
    println!("without: {without} healthy nodes had to renew");
    assert!(without > 0);
}

#[test]
fn most_of_a_cluster_may_die_and_the_rest_sees_it() {
    let mut sim = cluster(20, 7, MeshConfig::default());
    (2..20).for_each(|host| sim.crash(host));
    let took = sim.run_until(secs(120), |sim| sim.all_up() && sim.agrees());
    println!("18 of 20 are gone from all views after {took:?}");
    assert!(took < secs(40));
}

#[test]
fn deaths_that_come_together_move_slots_once() {
    let epochs = |config| {
        let mut sim = cluster(40, 8, config);
        let before = sim.now;
        (30..40).for_each(|host| sim.crash(host));
        sim.run(secs(30));
        assert!(sim.all_up() && sim.agrees());
        let changes = |host: usize| {
            let events = sim.hosts[host].events.iter();
            let is_change = |event: &Event| matches!(event, Event::ViewChanged { .. });
            events.filter(|(at, event)| *at > before && is_change(event)).count()
        };
        (0..30).map(changes).max().unwrap()
    };
    let (with, without) = (epochs(MeshConfig::default()), epochs(without(Guard::Together)));
    println!("{with} views of each node, {without} without");
    assert!(with <= 2);
    assert!(without > 4);
}

#[test]
fn a_leave_is_known_even_if_no_datagram_of_it_arrives() {
    let took = |config: MeshConfig| {
        let mut sim = cluster(30, 9, config);
        sim.net.streams_only = [12].into();
        sim.with_mesh(12, |mesh, now| mesh.leave(now));
        let took = sim.until(secs(2), |sim| sim.all_say(12, Status::Left));
        sim.crash(12);
        took
    };
    let with = took(MeshConfig::default());
    println!("known after {with:?}");
    assert!(with.is_some_and(|took| took <= Duration::from_millis(500)));
    assert_eq!(took(without(Guard::LeaveStreams)), None);
}

/// Crashes for good enough and comes back, so many times; how often it was up again 5 s after a start.
fn flaps(sim: &mut Sim, times: usize) -> usize {
    let mut ups = 0;
    for _ in 0..times {
        sim.crash(3);
        sim.run_until(secs(30), |sim| sim.all_say(3, Status::Down));
        sim.start(3);
        sim.run(secs(5));
        ups += usize::from(sim.all_say(3, Status::Up));
    }
    ups
}

#[test]
fn whoever_comes_and_goes_is_held_back_for_longer_and_longer() {
    let mut sim = cluster(10, 10, MeshConfig { flap_hold: Duration::ZERO, ..Default::default() });
    assert_eq!(flaps(&mut sim, 5), 5, "without");
    let mut sim = cluster(10, 10, MeshConfig::default());
    assert_eq!(flaps(&mut sim, 5), 1, "once is an accident");
    let until = sim.mesh(3).held_back().expect("it is visible");
    assert!(until > sim.now + secs(60) && until < sim.now + secs(80), "{until:?}");
    assert_eq!(sim.mesh(3).me().status, Status::Joining);
    assert_eq!(sim.mesh(3).deaths().len(), 5);
    // All agree on that, and it ends by itself.
    assert!(sim.agrees() && sim.all_say(3, Status::Joining));
    sim.run_until(secs(90), |sim| sim.all_up() && sim.agrees());
    assert!(sim.now > until);
    // What was long ago counts no more.
    sim.run(secs(600));
    assert_eq!(flaps(&mut sim, 1), 1);
    assert_eq!(sim.mesh(3).deaths().len(), 1);
}

#[test]
fn a_flapping_node_that_is_needed_is_not_held_back() {
    let mut sim = cluster(10, 11, MeshConfig::default());
    flaps(&mut sim, 4);
    assert!(sim.mesh(3).held_back().is_some());
    // Two others fail: now it is more than nearly all that are up.
    sim.crash(8);
    sim.crash(9);
    sim.run_until(secs(20), |sim| sim.all_say(3, Status::Up) && sim.all_up());
    assert_eq!(sim.mesh(3).held_back(), None);
}

#[test]
fn halves_that_part_again_and_again_hold_few_back() {
    let mut sim = cluster(10, 12, MeshConfig::default());
    for _ in 0..3 {
        sim.net.group = (0..5).map(|host| (host, 1)).collect();
        sim.run(secs(60));
        sim.net.heal();
        // Nobody knows who it was that flapped: those who come last wait, and they are few.
        let up = |sim: &Sim| (0..10).filter(|host| sim.all_say(*host, Status::Up)).count();
        let took = sim.run_until(secs(10), |sim| sim.agrees() && up(sim) >= 8);
        println!("healed after {took:?}");
        sim.run_until(secs(60), |sim| sim.all_up() && sim.agrees());
    }
    assert!(sim.meshes().all(|(_, mesh)| mesh.deaths().len() >= 2));
}

#[test]
fn a_restart_loses_none_of_the_deaths() {
    let mut sim = cluster(5, 13, MeshConfig::default());
    flaps(&mut sim, 2);
    let deaths = sim.mesh(3).deaths().to_vec();
    assert_eq!(deaths.len(), 2);
    assert!(sim.hosts[3].events.iter().any(|(_, event)| *event == Event::DeathsChanged));
    sim.crash(3);
    sim.start(3);
    assert_eq!(sim.mesh(3).deaths(), deaths);
}

#[test]
fn round_trips_are_measured_and_told() {
    let mut sim = cluster(10, 14, MeshConfig::default());
    sim.net.inbound.insert(6, Duration::from_millis(30));
    sim.run(secs(60));
    let rtt = |of: usize| sim.mesh(0).rtt(sim.hosts[of].id).expect("it was measured");
    for near in [1, 2, 3] {
        let rtt = rtt(near);
        assert!(rtt.smoothed >= Duration::from_millis(1), "{rtt:?}");
        assert!(rtt.smoothed <= Duration::from_millis(4), "{rtt:?}");
        assert!(rtt.samples > 10 && rtt.measured_at > sim.now - secs(10));
    }
    let far = rtt(6).smoothed;
    assert!(far > Duration::from_millis(25) && far < Duration::from_millis(40), "{far:?}");
    assert_eq!(sim.mesh(0).rtts().count(), 9);
    // What has no answer has no round trip.
    sim.crash(6);
    sim.run_until(secs(20), |sim| sim.all_say(6, Status::Down));
    assert_eq!(sim.mesh(0).rtt(sim.hosts[6].id), None);
}

#[test]
fn far_members_are_not_asked_again_before_they_can_answer() {
    // One host answers after 60 ms: half a `probe_rtt` is too early for it.
    let mut sim = cluster(2, 15, MeshConfig::default());
    sim.net.inbound.insert(1, Duration::from_millis(60));
    sim.run(secs(60));
    let before = sim.mesh(0).counters().packets_out;
    sim.run(secs(60));
    // 4 probes a second, as many answers, and little else.
    let packets = sim.mesh(0).counters().packets_out - before;
    println!("{packets} packets in a minute");
    assert!(packets < 60 * 9, "{packets}");
}
