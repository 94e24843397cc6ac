//! Every scenario at a size that takes seconds, and the two that must be large.

use std::process::Command;
use std::time::Duration;

use annulus_mesh_sim::figures::Figures;
use annulus_mesh_sim::report::{Cell, Who};
use annulus_mesh_sim::scenarios::{SCENARIOS, Scenario};

fn cell(name: &str, nodes: usize, loss: f64, length: Duration) -> Cell {
    let scenario = Scenario::named(name).expect("a scenario");
    Cell { scenario, nodes, loss, seed: 1, seeds: 1, length, is_too_much_for_plain: false }
}

fn run(cell: &Cell, who: Who, seed: u64) -> Figures {
    println!("replay: {}", cell.replay(who, seed));
    cell.run(who, seed, false, &mut |_| {})
}

/// Runs a scenario, prints its figures, and panics at those that are not what was promised.
fn holds(cell: &Cell, seed: u64) {
    let figures = run(cell, Who::Ours, seed);
    for (measure, values) in &figures.rows {
        println!("  {}: {}", measure.what, measure.fold.of(values));
    }
    assert_eq!(figures.missed(), Vec::<String>::new());
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn a_thousand_nodes_at_5_percent_loss_err_about_nobody() {
    holds(&cell("peace", 1_000, 0.05, minutes(1)), 1);
}

#[test]
fn a_hundred_nodes_at_5_percent_loss_err_about_nobody_in_5_minutes() {
    holds(&cell("peace", 100, 0.05, minutes(5)), 2);
}

#[test]
fn a_hundred_nodes_at_30_percent_loss_err_about_nobody() {
    holds(&cell("peace", 100, 0.3, minutes(1)), 3);
}

#[test]
fn slow_nodes_harm_nobody_else() {
    holds(&cell("slow1", 100, 0.0, minutes(2)), 1);
    holds(&cell("slow8", 100, 0.05, minutes(2)), 1);
}

#[test]
fn nodes_that_stand_still_again_and_again_harm_nobody_else() {
    holds(&cell("paused", 100, 0.05, minutes(2)), 1);
}

#[test]
fn pairs_that_hear_nothing_one_way_harm_nobody() {
    holds(&cell("oneway", 100, 0.05, minutes(1)), 1);
}

#[test]
fn a_crash_is_known_in_time() {
    for (nodes, loss) in [(10, 0.0), (10, 0.05), (10, 0.3), (100, 0.05)] {
        holds(&cell("crash", nodes, loss, minutes(1)), 1);
    }
}

#[test]
fn crashes_that_come_together_move_rings_twice_at_most() {
    holds(&cell("together", 100, 0.05, minutes(1)), 1);
}

#[test]
fn a_joiner_knows_all_and_is_known_by_all_in_time() {
    for (nodes, loss) in [(10, 0.05), (100, 0.05)] {
        holds(&cell("join", nodes, loss, minutes(1)), 1);
    }
}

#[test]
fn all_that_boot_at_once_know_each_other_in_time() {
    for (nodes, loss) in [(2, 0.0), (10, 0.05), (100, 0.05)] {
        holds(&cell("boot", nodes, loss, minutes(1)), 1);
    }
}

#[test]
fn a_leave_is_known_in_time() {
    for (nodes, loss) in [(10, 0.05), (100, 0.05)] {
        holds(&cell("leave", nodes, loss, minutes(1)), 1);
    }
}

#[test]
fn whoever_restarts_is_back_for_good() {
    holds(&cell("restart", 10, 0.05, minutes(1)), 1);
}

#[test]
fn partitions_heal_in_time() {
    for name in ["split", "blackout", "isolated"] {
        for (nodes, loss) in [(10, 0.0), (100, 0.05)] {
            holds(&cell(name, nodes, loss, minutes(1)), 1);
        }
    }
}

/// Symptom: halves of ten that met again took 2.08 s to agree (seed 2; 2.01 s at 5 % loss, seed 4). Cause: each
/// node announced itself to three of those it had lost at once, every five seconds, so that all ten
/// could be between two announcements. Fix: it announces itself to one of them three times as often.
#[test]
fn halves_meet_again_in_time_whatever_the_phase_of_their_announcements() {
    for seed in 1..=8 {
        for (nodes, loss) in [(4, 0.0), (10, 0.0), (10, 0.05)] {
            holds(&cell("split", nodes, loss, minutes(1)), seed);
        }
    }
}

#[test]
fn whatever_happened_peace_brings_agreement() {
    for seed in 1..=6 {
        let nodes = [3, 5, 8, 12][seed as usize % 4];
        holds(&cell("chaos", nodes, 0.0, minutes(5)), seed);
    }
}

/// What counts as a mistake is counted: foca as it comes makes them.
#[test]
fn the_mistakes_of_foca_as_it_comes_are_seen() {
    let peace = run(&cell("peace", 100, 0.3, minutes(1)), Who::Plain, 1);
    assert!(peace.get("healthy nodes declared down") > Some(100.0));
    assert!(peace.get("healthy nodes made to renew") > Some(10.0));
    let blackout = run(&cell("blackout", 10, 0.0, minutes(1)), Who::Plain, 1);
    assert_eq!(blackout.get("views equal after healing"), Some(f64::INFINITY));
    let isolated = run(&cell("isolated", 100, 0.0, minutes(1)), Who::Plain, 1);
    assert!(isolated.get("healthy nodes made to renew") > Some(10.0));
    let slow = run(&cell("slow1", 100, 0.0, minutes(2)), Who::Plain, 1);
    assert!(slow.get("healthy nodes declared down") > Some(10.0));
    assert!(!peace.missed().is_empty() && !isolated.missed().is_empty());
}

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process_too() {
    for (name, who) in [("chaos", Who::Ours), ("crash", Who::Plain)] {
        let cell = cell(name, 8, 0.05, minutes(1));
        let trace = |seed| run(&cell, who, seed).trace;
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
        let line = cell.replay(who, 7);
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("annulus-simulate"));
        let output = Command::new(env!("CARGO_BIN_EXE_annulus-simulate")).args(words).output();
        let told = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
        let expected = format!("trace {:016x}", trace(7));
        assert!(told.contains(&expected), "{expected} is not in {told}");
    }
}

#[test]
fn every_scenario_can_be_run_by_its_name() {
    for scenario in SCENARIOS {
        let cell = cell(scenario.name, 5, 0.0, Duration::from_secs(5));
        let figures = run(&cell, Who::Ours, 1);
        assert!(!figures.rows.is_empty(), "{}", scenario.name);
        assert!(cell.replay(Who::Ours, 1).contains(scenario.name));
    }
}
