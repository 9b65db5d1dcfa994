//! The kind `link`: a transfer over a line that is slow, far, lossy and cut again and again.
//!
//! Two daemons live in network namespaces of their own; between them lies the emulated line of tests/support/wire.rs. A
//! small point is there already; then some MiB that do not pack are written, a cycle is asked for, and the line misbehaves
//! as the seed says until the point is on the other side. Both daemons' `status --json` is sampled all along, together with
//! what the line itself saw, and judged afterwards (judge.rs). Trees are compared by tar and find.
//!
//! The standard line (seed 1, the short run): 2 Mbit/s, 150 ms each way (a round trip of 300 ms), 5 % of the packets lost
//! each way, and every 10 s a cut of 2 s. The others vary one thing each.

mod judge;
mod line;

use std::time::Duration;

use crate::case::{Case, Kind};
use crate::support::wire::{Quality, Way, has_congestion};

pub const KIND: Kind = Kind {
    name: "link",
    what: "A slow, lossy, cut line between two network namespaces; transfers finish and status tells the truth",
    short: 1,
    run,
};

/// What the seed chose.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: &'static str,
    /// The way of the data, and the way of the answers.
    pub there: Quality,
    pub back: Quality,
    /// TCP's congestion control on both nodes: `cubic` is what most machines have.
    pub congestion: &'static str,
    pub cuts: Cuts,
    /// What is transferred, in bytes.
    pub bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Cuts {
    pub ways: Vec<Way>,
    /// From the start of one to the start of the next.
    pub every: Duration,
    pub long: Duration,
    pub count: usize,
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// More cuts than any case lives to see.
const FOR_EVER: usize = 1000;

fn standard() -> Plan {
    let quality = Quality {
        rate: 2_000_000,
        delay: MS(150),
        jitter: MS(0),
        loss: 50,
        queue: 128 * 1024,
    };
    Plan {
        name: "standard",
        there: quality,
        back: quality,
        congestion: "cubic",
        cuts: Cuts {
            ways: vec![Way::There, Way::Back],
            every: MS(10_000),
            long: MS(2000),
            count: FOR_EVER,
        },
        bytes: 640 * 1024,
    }
}

/// One thing differs from the standard line, and its measure comes from the seed.
fn plan(case: &mut Case) -> Plan {
    let mut plan = standard();
    let variation = (case.seed - 1) % 7;
    if case.chance(50) && variation > 0 && has_congestion("bbr") {
        plan.congestion = "bbr";
        plan.bytes *= 4;
    }
    match variation {
        // The short run: half a minute.
        0 => plan.bytes = 448 * 1024,
        1 => {
            plan.name = "loss one way";
            let (there, back) = *case.pick(&[(100, 0), (0, 150), (30, 200)]);
            (plan.there.loss, plan.back.loss) = (there, back);
        }
        2 => {
            plan.name = "asymmetric rate";
            let (there, back) = *case.pick(&[(512_000, 8_000_000), (4_000_000, 128_000)]);
            (plan.there.rate, plan.back.rate) = (there, back);
            (plan.there.loss, plan.back.loss) = (10, 10);
        }
        3 => {
            plan.name = "jitter";
            let jitter = MS(50 + case.below(250));
            (plan.there.jitter, plan.back.jitter) = (jitter, jitter);
            (plan.there.loss, plan.back.loss) = (20, 20);
        }
        4 => {
            plan.name = "long cuts";
            plan.cuts.long = MS(22_000 + case.below(20_000));
            plan.cuts.every = MS(75_000);
            plan.cuts.count = 2;
            (plan.there.loss, plan.back.loss) = (10, 10);
        }
        5 => {
            plan.name = "one way black";
            plan.cuts.ways = vec![*case.pick(&[Way::There, Way::Back])];
            plan.cuts.long = MS(24_000 + case.below(16_000));
            plan.cuts.every = MS(75_000);
            plan.cuts.count = 1;
            (plan.there.loss, plan.back.loss) = (10, 10);
        }
        _ => {
            plan.name = "short cuts, often";
            plan.cuts.every = MS(4000);
            plan.cuts.long = MS(500 + case.below(1500));
            plan.there.loss = 20;
        }
    }
    plan
}

fn run(case: &mut Case) -> Result<(), String> {
    if let Some(why) = crate::support::wire::missing() {
        println!("SKIPPED campaign_link: {why}");
        let skippable = std::env::var_os("CI").is_none();
        return skippable
            .then_some(())
            .ok_or(format!("skipped in CI: {why}"));
    }
    let plan = plan(case);
    let mut nodes = line::Nodes::new(&plan, case.seed);
    let told = line::transfer(&mut nodes, &plan)?;
    let judged = judge::judge(&told, &plan)?;
    println!(
        "seed {}: {} ({}): {} KiB in {:.0} s, {:.2} bytes on the wire for each, {} links lost; {judged}",
        case.seed,
        plan.name,
        plan.congestion,
        plan.bytes / 1024,
        told.took.as_secs_f64(),
        told.cost(),
        told.losses(),
    );
    case.count("transfers over a bad line");
    case.count_more("cuts", told.cuts.len() as u64);
    case.count_more("looks at status", told.samples.len() as u64);
    case.count_more("links lost", told.losses() as u64);
    Ok(())
}
