//! What no honest node says, and nodes that are not set up as they should be.

use std::time::Duration;

use annulus_gossip::{Event, Guard, MeshConfig};
use annulus_mesh_sim::{Ours, World, secs};
use annulus_proto::{Member, Status};

type Sim = World<Ours>;

const YEAR_MS: u64 = 31_557_600_000;

/// Says to host 0 that host 3 is dead, at this incarnation.
fn forge(sim: &mut Sim, incarnation: u64) {
    let member = Member { incarnation, status: Status::Down, ..sim.mesh(3).me().clone() };
    sim.with_mesh(0, |mesh, now| mesh.merge(now, vec![member]));
}

#[test]
fn no_forged_incarnation_locks_a_node_out() {
    let booted = |guard| {
        let mut sim = Sim::new(5, 1);
        // Whoever dies that often would be held back.
        let flap_hold = Duration::ZERO;
        sim.settings.mesh = MeshConfig { without: guard, flap_hold, ..MeshConfig::default() };
        (0..5).for_each(|host| sim.start(host));
        sim.run_until(secs(10), |sim| sim.all_up() && sim.agrees());
        sim
    };
    let mut sim = booted(None);
    let now_ms = sim.mesh(0).me().incarnation;
    for ahead in [u64::MAX - now_ms, (1 << 62) - now_ms, 101 * YEAR_MS] {
        forge(&mut sim, now_ms + ahead);
        sim.run(secs(2));
        assert!(sim.all_up(), "not believed: {ahead} ms ahead");
    }
    assert_eq!(sim.mesh(0).counters().incarnations_refused, 3);
    // What is believed is outbid, at the very bound too: it moves on.
    for ahead in [YEAR_MS, 100 * YEAR_MS - 1, 100 * YEAR_MS] {
        forge(&mut sim, now_ms + ahead);
        let took = sim.run_until(secs(20), |sim| sim.all_up() && sim.agrees());
        println!("outbid after {took:?}");
        assert!(sim.mesh(3).me().incarnation > now_ms + ahead);
    }
    // A restart keeps it.
    sim.crash(3);
    sim.run(secs(20));
    sim.start(3);
    sim.run_until(secs(20), |sim| sim.all_up() && sim.agrees());
    // Without a bound that moves there is a highest number.
    let mut sim = booted(Some(Guard::IncarnationBound));
    forge(&mut sim, 1 << 62);
    assert_eq!(sim.until(secs(60), |sim| sim.all_up()), None);
}

#[test]
fn a_death_never_outlives_a_higher_incarnation() {
    let mut sim = Sim::booted(5, 2);
    sim.net.loss = 0.2;
    for _ in 0..3 {
        sim.crash(3);
        sim.run_until(secs(40), |sim| sim.all_say(3, Status::Down));
        let dead = sim.mesh(0).view().get(sim.hosts[3].id).cloned().expect("it is known");
        sim.start(3);
        sim.run_until(secs(60), |sim| sim.all_up() && sim.agrees());
        // Somebody who has slept through it all says it once more, to everybody.
        for host in [0, 1, 2, 4] {
            sim.with_mesh(host, |mesh, now| mesh.merge(now, vec![dead.clone()]));
        }
        for _ in 0..100 {
            sim.run(Duration::from_millis(50));
            assert!(sim.all_up() && sim.agrees());
        }
        assert!(sim.mesh(3).me().incarnation > dead.incarnation);
    }
}

#[test]
fn an_address_that_another_node_took_over_is_its_alone() {
    let mut sim = Sim::new(6, 3);
    (0..5).for_each(|host| sim.start(host));
    sim.run_until(secs(10), |sim| sim.all_up() && sim.agrees());
    // A new disk on the same host.
    sim.crash(4);
    let (before, after) = (sim.hosts[4].id, sim.hosts[5].id);
    sim.hosts[4].id = after;
    sim.hosts[4].saved = 0;
    sim.hosts[4].peers.clear();
    sim.start(4);
    let is_gone = |sim: &Sim| {
        sim.meshes()
            .all(|(_, mesh)| mesh.view().get(before).map(|m| m.status) == Some(Status::Down))
    };
    sim.run_until(secs(30), |sim| is_gone(sim) && sim.all_up() && sim.agrees());
    assert_eq!(sim.sum(|c| c.renewals), 0);
    assert_eq!(sim.count(|event| matches!(event, Event::IdInUse { .. })), 0);
}

#[test]
fn packets_up_to_the_limit_are_read_and_longer_ones_are_not() {
    let mut sim = Sim::booted(3, 4);
    let limit = sim.settings.mesh.packet_bytes_max;
    let from = sim.hosts[1].addr;
    sim.keep_packets = true;
    sim.run(secs(1));
    let packet = sim.kept.iter().find(|packet| packet[0] == 1).cloned().expect("foca's packets");
    let mut before = sim.mesh(0).counters();
    for (size, malformed) in [(limit - 1, 1), (limit, 1), (limit + 1, 1), (60_000, 1)] {
        // What follows a whole packet makes it malformed, however long it is.
        let mut packet = packet.clone();
        packet.resize(size, 0);
        sim.with_mesh(0, |mesh, now| mesh.handle_datagram(now, from, &packet));
        sim.with_mesh(0, |mesh, now| mesh.handle_stream_packet(now, &packet));
        let counters = sim.mesh(0).counters();
        let wrong = |c: annulus_gossip::Counters| c.packets_malformed + c.packets_misaddressed;
        assert_eq!(wrong(counters) - wrong(before), 2 * malformed, "{size} bytes");
        before = counters;
    }
    // None of those that are sent is longer, whatever there is to say.
    let mut sim = World::<Ours>::settled(200, 0, 5);
    sim.settings.mesh = MeshConfig::default();
    sim.keep_packets = true;
    (140..200).for_each(|host| sim.crash(host));
    sim.run(secs(12));
    let longest = sim.kept.iter().map(Vec::len).max().unwrap();
    println!("the longest of {} packets has {longest} bytes", sim.kept.len());
    assert!(longest > limit - 100 && longest <= limit);
}
