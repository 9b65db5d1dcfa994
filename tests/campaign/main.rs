//! Interruption campaigns: the same trouble again and again, at places a seed chooses, and a judgement after each.
//!
//!     cargo test --test campaign                       every kind, a short seeded run
//!     scripts/campaign KIND --count N --seed S         one kind, N cases with the seeds S, S+1, ...
//!     scripts/campaign KIND --seed S                   the one case with that seed, again, in full
//!
//! Promise: a case is a function of its seed as far as this machine allows (what is done, where, in which order; not the
//! scheduling); a failed case names its seed and the command that replays it; the last line is `N passed, M failed`. With
//! `--record` the run is written into docs/reliability.md.
//!
//! What is judged is never our own code's opinion alone: trees are compared by tar and find, filesystems by their audit.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod case;
mod course;
mod judge;
mod record;
mod run;
mod shots;

mod cuts;
mod full;
mod kills;
mod link;
mod moves;
mod tamper;

#[path = "../moves/ordeal.rs"]
#[allow(dead_code)]
mod ordeal;
#[path = "../moves/stage.rs"]
#[allow(dead_code)]
mod stage;
#[path = "../moves/verdict.rs"]
mod verdict;
#[path = "../moves/watch.rs"]
mod watch;

use case::Kind;

/// Every kind, in the order of the help text and the table.
const KINDS: [Kind; 6] = [
    kills::KIND,
    cuts::KIND,
    link::KIND,
    full::KIND,
    tamper::KIND,
    moves::KIND,
];

fn main() -> std::process::ExitCode {
    match run::asked(std::env::args().skip(1)) {
        run::Asked::Short => short(),
        run::Asked::Long(long) => run::long(&long),
        run::Asked::Wrong(why) => {
            eprintln!("{why}\n\n{}", run::usage());
            std::process::ExitCode::from(2)
        }
    }
}

/// As a test target among others: one test a kind.
fn short() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let judge = libtest_mimic::Trial::test("what_is_sent_twice_is_found", || {
        attempts::tested().map_err(Into::into)
    });
    let trials = KINDS.iter().map(|kind| {
        let test = format!("campaign_{}", kind.name);
        libtest_mimic::Trial::test(test.clone(), move || {
            if !support::fixture::ready(&test) {
                return Ok(());
            }
            let failed = run::short(kind);
            failed.map_or(Ok(()), |why| Err(why.into()))
        })
    });
    // One after the other: each has daemons of its own, and two cores.
    let arguments = libtest_mimic::Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let trials = trials.chain([judge]).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
