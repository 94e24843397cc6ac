//! Storms with fixed seeds: whole nodes in a plain event loop.

use annulus_sim::Mutant;
use annulus_sim::plain::{Kind, weather, weather_all};

/// How many seeds each kind of storm has here.
const SEEDS: u64 = 100;

fn kind(name: &str) -> &'static Kind {
    Kind::named(name).expect("there is such a kind")
}

#[track_caller]
fn weathers(name: &str) {
    let kind = kind(name);
    let mut failures = String::new();
    let (mut acknowledged, mut let_go, mut conditional, mut ordered) = (0, 0, 0, 0);
    weather_all(kind, 1..=SEEDS, None, |weathered| {
        if !weathered.violations().is_empty() {
            failures.push_str(&weathered.report(kind));
        }
        if let Some(outcome) = weathered.outcome {
            acknowledged += outcome.tally.acknowledged;
            let_go += outcome.tally.let_go;
            conditional += outcome.tally.conditional;
            ordered += outcome.tally.ordered;
        }
        true
    });
    assert!(failures.is_empty(), "\n{failures}");
    // Nobody is to mistake empty storms for weathered ones.
    let seeds = SEEDS as usize;
    assert!(acknowledged > 50 * seeds, "{acknowledged} writes");
    assert!(let_go > seeds, "{let_go} copies let go");
    assert!(conditional > 10 * seeds && ordered > seeds, "{conditional} conditional, {ordered}");
}

#[test]
fn a_hundred_storms_break_no_rule_and_everything_is_even_after_them() {
    weathers("storm");
}

#[test]
fn a_hundred_storms_that_move_slots_break_no_rule_and_everything_is_even_after_them() {
    weathers("storm-moves");
}

#[test]
fn the_same_seed_leaves_the_same_trace_in_another_thread() {
    for name in ["storm", "storm-moves"] {
        let run = |seed: u64| {
            let here = weather(kind(name), seed, None).outcome;
            here.expect("it does not panic").trace
        };
        let first = run(7);
        let again = std::thread::spawn(move || run(7)).join().expect("it does not panic");
        assert_eq!(first, again);
        assert_ne!(first, run(8));
    }
}

/// Of a mutant the rule that it breaks, and the first seed with which it does.
#[track_caller]
fn is_caught(mutant: Mutant) {
    let row = Mutant::IN_STORMS.iter().find(|(other, ..)| *other == mutant);
    let (_, _, name, rule, seed) = row.expect("it is among them");
    let kind = kind(name);
    let found = weather(kind, *seed, Some(mutant));
    let broken: Vec<&str> = found.violations().iter().map(|it| it.rule).collect();
    assert!(broken.contains(rule), "{}", found.report(kind));
    let sound = weather(kind, *seed, None);
    assert!(sound.violations().is_empty(), "{}", sound.report(kind));
}

#[test]
fn nodes_that_let_go_by_table_are_caught() {
    is_caught(Mutant::LetGoByTable);
}

#[test]
fn receipts_of_nodes_that_drain_themselves_are_caught() {
    is_caught(Mutant::ReceiptsWhileDraining);
}

#[test]
fn nodes_that_ignore_births_are_caught() {
    is_caught(Mutant::IgnoreBirths);
}

#[test]
fn hints_that_count_as_copies_are_caught() {
    is_caught(Mutant::CountHints);
}

#[test]
fn tombstones_that_go_too_early_are_caught() {
    is_caught(Mutant::DropTombstones);
}

#[test]
fn clocks_that_are_not_on_disk_are_caught() {
    is_caught(Mutant::ForgetfulClock);
}

#[test]
fn majorities_of_the_living_are_caught() {
    is_caught(Mutant::CountTheLiving);
}
