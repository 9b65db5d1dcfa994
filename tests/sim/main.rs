//! A simulation of two and three nodes on the state machine of the product, with everything that goes wrong.
//!
//!     cargo test --test sim                          a short run over fixed seeds
//!     scripts/sim --seeds N --from S                 N seeds from S on
//!     scripts/sim --from S --trace                   one seed, every event of it
//!
//! Crashes of daemons and machines after every durable step, messages lost, delayed, doubled and reordered, cuts in one
//! direction, work that fails, records and disks rolled back to an older image, operators who promote and resume with true
//! and with false statements. After every event the properties are checked (`world::check`); at the end the trouble stops, an
//! operator resolves what is left, and the nodes must agree.
//!
//! Promise: a run is a function of its seed. The last line is `N passed, M failed`; a failing seed prints itself.
//! What is simulated is the data (`disk`), the network and the operator; the decisions are those of `standin::logic`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod dice;
mod disk;
mod model;
mod node;
mod operator;
mod plans;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Seeds of the short run.
const SHORT: u64 = 1000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "sim") {
        return long(&words[1..]);
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let crashes = libtest_mimic::Trial::test("every_plan_with_a_crash_at_every_place", || {
        let runs = plans::all()?;
        println!("{runs} runs");
        Ok(())
    });
    let model = libtest_mimic::Trial::test("every_order_of_two_nodes", || {
        let bounds = model::Bounds {
            crashes: 1,
            claims: 2,
            writes: 1,
            points: 1,
            mail: 2,
        };
        println!("{} states", model::search(bounds)?);
        Ok(())
    });
    let trial = libtest_mimic::Trial::test("seeds", || {
        let (_, failed) = seeds(1, SHORT, false);
        if failed == 0 {
            Ok(())
        } else {
            Err(format!("{failed} seeds failed").into())
        }
    });
    libtest_mimic::run(&arguments, vec![crashes, model, trial]).exit_code()
}

fn long(words: &[String]) -> ExitCode {
    let (mut count, mut from, mut trace) = (1, 1, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|value| value.parse().ok());
        let taken = match word.as_str() {
            "--seeds" => number().map(|n| count = n),
            "--from" => number().map(|n| from = n),
            "--trace" => {
                trace = true;
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            eprintln!("usage: scripts/sim [--seeds N] [--from S] [--trace]");
            return ExitCode::from(2);
        }
    }
    let (passed, failed) = seeds(from, count, trace);
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Runs seeds; how many passed and failed.
fn seeds(from: u64, count: u64, trace: bool) -> (u64, u64) {
    let mut failed = 0;
    for seed in from..from + count {
        let outcome = catch_unwind(AssertUnwindSafe(|| world::run(seed, trace)));
        let why = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => "it panicked".to_owned(),
        };
        println!("FAILED seed {seed}: {why}\nagain: scripts/sim --from {seed} --trace");
        failed += 1;
    }
    (count - failed, failed)
}
