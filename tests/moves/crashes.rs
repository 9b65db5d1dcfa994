//! The daemon dies once at every place of a move, on either node; then it starts again, and all must come to rest.
//!
//! Each place is reached: a place that no move passes any more fails the test.

use crate::MANUAL;
use crate::ordeal::Ordeal;
use crate::support::fixture;

/// Of the records that the giving node writes in a hand-over, after those of its start, which is waking up.
const GIVES: std::ops::RangeInclusive<usize> = 6..=12;

/// The same of the taking one, which stands in when it starts.
const TAKES: std::ops::RangeInclusive<usize> = 1..=4;

/// Of a node that was promoted; of one that returns.
const RISES: std::ops::RangeInclusive<usize> = 1..=4;
const RETURNS: std::ops::RangeInclusive<usize> = 1..=6;

/// Named places, and records by their numbers.
fn places(named: &[&str], numbered: std::ops::RangeInclusive<usize>) -> Vec<String> {
    let named = named.iter().map(ToString::to_string);
    named
        .chain(numbered.map(|at| format!("role-recorded:{at}")))
        .collect()
}

/// The daemon of `name` dies at the place while `verb` runs on the active node.
#[track_caller]
fn dies_at(
    ordeal: &mut Ordeal,
    name: &'static str,
    place: &str,
    verb: &mut dyn FnMut(&mut Ordeal),
) {
    let before = ordeal.fallen.len();
    ordeal.arm(name, place);
    ordeal.heal().unwrap();
    verb(ordeal);
    ordeal.judge().unwrap();
    let fallen = &ordeal.fallen[before..];
    let place = place.split(':').next().unwrap();
    assert_eq!(fallen, [place], "{name} did not come to {place}");
}

fn handover(ordeal: &mut Ordeal) {
    let from = ordeal.active();
    let to = ordeal.others(from)[0];
    ordeal.ask(from, &["handover", "web", "--to", to]);
}

/// A hand-over for each place, there and back, in which the one who gives or the one who takes dies.
fn handovers(places: Vec<String>, gives: bool) {
    let mut ordeal = Ordeal::new(&["alder", "birch"], &[], MANUAL);
    for place in places {
        let from = ordeal.active();
        let name = if gives { from } else { ordeal.others(from)[0] };
        dies_at(&mut ordeal, name, &place, &mut handover);
    }
    let (_, forked) = ordeal.records().unwrap();
    assert_eq!(forked, 0, "a hand-over loses nothing, wherever it dies");
}

#[test]
fn who_hands_over_dies_at_every_place() {
    if !fixture::ready("who_hands_over_dies_at_every_place") {
        return;
    }
    let named = [
        "point-begun",
        "point-taken",
        "point-shown",
        "sending-recorded",
        "sent-uncommitted",
        "committed-unrecorded",
        "committed-recorded",
        "move-delivered",
        "retire-intended",
        "retire-moved",
        "move-retired",
    ];
    handovers(places(&named, GIVES), true);
}

#[test]
fn who_takes_over_dies_at_every_place() {
    if !fixture::ready("who_takes_over_dies_at_every_place") {
        return;
    }
    let named = [
        "publish-gathered",
        "publish-shown",
        "commit-published",
        "commit-unanswered",
        "restore-intended",
        "restore-exchanged",
        "move-live",
    ];
    handovers(places(&named, TAKES), false);
}

#[test]
fn who_is_promoted_dies_at_every_place() {
    if !fixture::ready("who_is_promoted_dies_at_every_place") {
        return;
    }
    let mut ordeal = Ordeal::new(&["alder", "birch"], &[], MANUAL);
    let named = ["restore-intended", "restore-exchanged", "move-live"];
    for place in places(&named, RISES) {
        let (dead, to) = pair(&mut ordeal);
        dies_at(&mut ordeal, to, &place, &mut |ordeal| {
            ordeal.hold_down(dead, true);
            ordeal.promote(to, false);
            ordeal.let_go(dead, None);
        });
    }
    ordeal.records().unwrap();
}

#[test]
fn who_returns_dies_at_every_place() {
    if !fixture::ready("who_returns_dies_at_every_place") {
        return;
    }
    let mut ordeal = Ordeal::new(&["alder", "birch"], &[], MANUAL);
    let named = [
        "move-kept",
        "retire-intended",
        "retire-moved",
        "move-retired",
        "fork-described",
        "fork-part-moved",
        "move-forked",
    ];
    for place in places(&named, RETURNS) {
        let (dead, to) = pair(&mut ordeal);
        let before = ordeal.fallen.len();
        ordeal.stage.wait_written(dead, 5);
        ordeal.hold_down(dead, true);
        assert!(ordeal.promote(to, false));
        ordeal.let_go(dead, Some(place.clone()));
        ordeal.judge().unwrap();
        let name = place.split(':').next().unwrap();
        let fallen = &ordeal.fallen[before..];
        assert_eq!(fallen, [name], "{dead} did not come to {place}");
    }
    let (_, forked) = ordeal.records().unwrap();
    assert!(forked > 0, "what the dead had alone is a fork");
}

/// Who dies, and who is promoted.
fn pair(ordeal: &mut Ordeal) -> (&'static str, &'static str) {
    let dead = ordeal.active();
    (dead, ordeal.others(dead)[0])
}
