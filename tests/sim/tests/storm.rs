//! Storms with fixed seeds: whole nodes in a plain event loop.

use annulus_sim::Mutant;
use annulus_sim::plain::{Kind, weather, weather_all};

fn kind(name: &str) -> &'static Kind {
    Kind::named(name).expect("there is such a kind")
}

/// What all storms of a kind were made of together.
#[derive(Default)]
struct Sum {
    acknowledged: usize,
    let_go: usize,
    conditional: usize,
    ordered: usize,
}

/// No rule is broken with any of so many seeds.
#[track_caller]
fn weathers(name: &str, seeds: u64) -> Sum {
    let kind = kind(name);
    let mut failures = String::new();
    let mut sum = Sum::default();
    weather_all(kind, 1..=seeds, None, |weathered| {
        if !weathered.violations().is_empty() {
            failures.push_str(&weathered.report(kind));
        }
        if let Some(outcome) = weathered.outcome {
            sum.acknowledged += outcome.tally.acknowledged;
            sum.let_go += outcome.tally.let_go;
            sum.conditional += outcome.tally.conditional;
            sum.ordered += outcome.tally.ordered;
        }
        true
    });
    assert!(failures.is_empty(), "\n{failures}");
    // Nobody is to mistake empty storms for weathered ones.
    assert!(sum.acknowledged as u64 > 100 * seeds, "{} writes", sum.acknowledged);
    sum
}

#[test]
fn storms_break_no_rule_and_everything_is_even_after_them() {
    let sum = weathers("storm", 20);
    assert!(sum.let_go > 20, "{} copies let go", sum.let_go);
    assert!(sum.conditional > 200 && sum.ordered > 20, "{} in {}", sum.conditional, sum.ordered);
}

#[test]
fn storms_that_move_slots_leave_as_many_copies_as_there_were() {
    let sum = weathers("storm-moves", 10);
    assert!(sum.let_go > 100, "{} copies let go", sum.let_go);
    // Whoever decides hands over to others meanwhile, who decide in the same order.
    assert!(sum.conditional > 100 && sum.ordered > 10, "{} in {}", sum.conditional, sum.ordered);
}

#[test]
fn storms_of_restarts_with_clocks_set_back_break_no_rule() {
    let sum = weathers("storm-restarts", 10);
    assert!(sum.conditional > 100 && sum.ordered > 10, "{} in {}", sum.conditional, sum.ordered);
}

#[test]
fn hosts_that_lose_their_memory_lose_no_acknowledged_write() {
    weathers("storm-losses", 10);
}

#[test]
fn storms_of_an_applications_slots_lose_none_of_its_numbers() {
    let sum = weathers("storm-slots", 10);
    assert!(sum.let_go > 200, "{} copies and slots let go", sum.let_go);
}

#[test]
fn storms_in_which_sessions_cool_and_come_back_lose_none() {
    let sum = weathers("storm-rings", 12);
    assert!(sum.let_go > 12, "{} copies let go", sum.let_go);
}

#[test]
fn storms_in_which_sessions_come_back_late_lose_none() {
    weathers("storm-promotions", 8);
}

#[test]
fn the_same_seed_leaves_the_same_trace_in_another_thread() {
    for name in ["storm", "storm-moves", "storm-slots", "storm-rings"] {
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
fn nodes_that_drop_what_too_few_hold_further_out_are_caught() {
    is_caught(Mutant::DropUnheld);
}

#[test]
fn nodes_that_ask_no_rings_further_out_are_caught() {
    is_caught(Mutant::AskNoRings);
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
fn an_application_that_drops_what_changed_is_caught() {
    is_caught(Mutant::DropChangedSlots);
}

#[test]
fn receipts_of_those_who_drain_are_caught() {
    is_caught(Mutant::ReceiptsWhileDraining);
}

#[test]
fn majorities_of_the_living_are_caught() {
    is_caught(Mutant::CountTheLiving);
}
