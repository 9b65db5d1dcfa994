//! The kind `moves`: a role moves between two or three nodes while a service writes, and daemons and machines die, at named
//! places of the move and at random moments, links are cut, operators make mistakes; after each sequence all is healed and judged.

use std::time::Duration;

use crate::case::{Case, Kind};
use crate::ordeal::{Ordeal, Trouble};

pub const KIND: Kind = Kind {
    name: "moves",
    what: "A role moves between nodes that die at named places and random moments; one node plays it, no record is lost, no two serve at once",
    short: 2,
    run,
};

/// Where a daemon may stop itself: the record of the role, and every place of a move.
const PLACES: [&str; 33] = [
    "role-recorded",
    "move-live",
    "move-delivered",
    "move-kept",
    "move-retired",
    "move-forked",
    "retire-intended",
    "retire-unmounted",
    "retire-moved",
    "restore-intended",
    "restore-exchanged",
    "restore-carried",
    "fork-described",
    "fork-part-moved",
    "fork-marked",
    "fork-hidden",
    "fork-half-gone",
    "sequence-recorded",
    "point-begun",
    "point-taken",
    "point-shown",
    "cycle-taken",
    "cycle-sent",
    "sending-recorded",
    "sent-uncommitted",
    "committed-unrecorded",
    "committed-recorded",
    "offer-base-recorded",
    "publish-gathered",
    "publish-shown",
    "commit-published",
    "commit-unanswered",
    "trash-emptying",
];

/// Those that every move passes.
const OFTEN: usize = 12;

fn run(case: &mut Case) -> Result<(), String> {
    let names = match case.chance(45) {
        true => &["alder", "birch"][..],
        false => &["alder", "birch", "cedar"],
    };
    let datasets = match case.chance(30) {
        true => &["db"][..],
        false => &[],
    };
    let every = *case.pick(&["1s", "1s", "manual"]);
    let role = format!("every = \"{every}\"\nkeep = {{ last = 100 }}");
    let mut ordeal = Ordeal::new(names, datasets, &role);
    let ended = course(case, &mut ordeal);
    for place in &ordeal.fallen {
        let known = PLACES.iter().find(|known| *known == place);
        case.count_at(known.ok_or("a daemon stopped itself at no place that is known here")?);
    }
    case.count_more("kills at named places", ordeal.fallen.len() as u64);
    case.count_more("looks at who serves", ordeal.watch.looks());
    ended?;
    let (written, forked) = ordeal.records()?;
    case.count_more("records on disk", written as u64);
    case.count_more("of them in forks", forked as u64);
    Ok(())
}

fn course(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    for _ in 0..2 + case.below(3) {
        ordeal.brutal = case.chance(40);
        ordeal.dead_for = Duration::from_millis(case.below(700));
        match case.below(100) {
            0..40 => planned(case, ordeal)?,
            40..70 => after_a_death(case, ordeal)?,
            70..80 => restarts(case, ordeal)?,
            80..90 => paused(case, ordeal),
            _ => mistaken(case, ordeal)?,
        }
        ordeal.judge()?;
        ordeal.watch.mute(false);
        case.count("sequences");
    }
    Ok(())
}

/// Draws what goes wrong in what comes next.
fn trouble(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    let name = *case.pick(&ordeal.names.clone());
    match case.below(100) {
        0..15 => {}
        15..60 => {
            let place = place(case);
            ordeal.arm(name, &place);
            // It may come to that place on its way up.
            ordeal.heal()?;
        }
        60..85 => {
            let machine = case.chance(40);
            let trouble = match machine {
                true => Trouble::Die(name),
                false => Trouble::Kill(name),
            };
            case.count(match machine {
                true => "machines that died at random moments",
                false => "daemons killed at random moments",
            });
            ordeal.later(Duration::from_millis(case.below(2500)), trouble);
        }
        _ => {
            let at = Duration::from_millis(case.below(2000));
            ordeal.later(at, Trouble::Cut);
            let long = Duration::from_millis(case.below(3000));
            ordeal.later(at + long, Trouble::Mend);
            case.count("cuts of all links");
        }
    }
    Ok(())
}

fn place(case: &mut Case) -> String {
    let among = if case.chance(65) { OFTEN } else { PLACES.len() };
    let place = PLACES[case.below(among as u64) as usize];
    let most = if place == "role-recorded" { 9 } else { 2 };
    format!("{place}:{}", 1 + case.below(most))
}

fn planned(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    trouble(case, ordeal)?;
    let active = ordeal.active();
    let to = *case.pick(&ordeal.others(active));
    let home = ordeal.names[0];
    let verb = match active != home && case.chance(50) {
        true => vec!["failback", "web"],
        false => vec!["handover", "web", "--to", to],
    };
    let said = ordeal.ask(active, &verb);
    case.count(match said.is_some_and(|said| said.code == 0) {
        true => "hand-overs that went through",
        false => "hand-overs that were cut short",
    });
    Ok(())
}

/// The active machine dies, another node is promoted, the dead one returns.
fn after_a_death(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    trouble(case, ordeal)?;
    let dead = ordeal.active();
    let to = *case.pick(&ordeal.others(dead));
    ordeal.hold_down(dead, true);
    let done = ordeal.promote(to, false);
    case.count(match done {
        true => "promotions",
        false => "promotions that were cut short",
    });
    let place = case.chance(60).then(|| place(case));
    ordeal.let_go(dead, place);
    Ok(())
}

fn restarts(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    trouble(case, ordeal)?;
    for name in ordeal.names.clone() {
        let trouble = match case.below(3) {
            0 => continue,
            1 => Trouble::Kill(name),
            _ => Trouble::Die(name),
        };
        ordeal.later(Duration::from_millis(case.below(1500)), trouble);
        case.count("restarts");
    }
    Ok(())
}

/// Paused on a node: nothing moves there by mistake, and the role goes on where it is.
fn paused(case: &mut Case, ordeal: &mut Ordeal) {
    let active = ordeal.active();
    let to = *case.pick(&ordeal.others(active));
    let name = if case.chance(50) { active } else { to };
    ordeal.ask(name, &["pause", "web"]);
    if case.chance(50) {
        ordeal.trouble(Trouble::Die(name));
    }
    ordeal.ask(active, &["handover", "web", "--to", to]);
    case.count("moves under a pause");
}

/// An operator says of a node that serves that it is stopped; or two do, of each other.
fn mistaken(case: &mut Case, ordeal: &mut Ordeal) -> Result<(), String> {
    let active = ordeal.active();
    let others = ordeal.others(active);
    if others.len() > 1 && case.chance(50) {
        // Each alone, each with what is true at that moment; but nobody tells the one of the other.
        let (one, two) = (others[0], others[1]);
        ordeal.hold_down(active, true);
        ordeal.hold_down(two, true);
        ordeal.promote(one, false);
        ordeal.hold_down(one, true);
        ordeal.watch.mute(true);
        ordeal.let_go(two, None);
        awake(ordeal, two)?;
        ordeal.promote(two, false);
        case.count("two claims of one epoch");
        return Ok(());
    }
    ordeal.watch.mute(true);
    ordeal.trouble(Trouble::Cut);
    for name in others {
        ordeal.promote(name, true);
    }
    case.count("promotions beside a node that served");
    if case.chance(50) {
        let name = *case.pick(&ordeal.names.clone());
        ordeal.trouble(Trouble::Die(name));
    }
    Ok(())
}

/// Waits until a daemon answers.
fn awake(ordeal: &mut Ordeal, name: &'static str) -> Result<(), String> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if ordeal.role(name).is_some() {
            return Ok(());
        }
        ordeal.tick();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Err(ordeal.told(&format!("{name} does not start")))
}
