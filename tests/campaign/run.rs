//! Runs cases one after the other, says how it goes, and what failed first.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::KINDS;
use crate::case::{Case, Kind};
use crate::record;

/// Between two lines about the progress.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The first seed where none is given, and of the short runs.
const FIRST_SEED: u64 = 1;

pub enum Asked {
    Short,
    Long(Long),
    Wrong(String),
}

pub struct Long {
    pub kind: Kind,
    pub count: u64,
    pub seed: u64,
    pub record: Option<PathBuf>,
}

/// What became of many cases.
#[derive(Default)]
pub struct Outcome {
    pub passed: u64,
    pub failed: u64,
    pub first_failure: Option<(u64, String)>,
    pub tally: BTreeMap<&'static str, u64>,
    pub places: BTreeMap<&'static str, u64>,
    pub took: Duration,
}

pub fn usage() -> String {
    let kinds = KINDS.map(|kind| format!("  {:8} {}", kind.name, kind.what));
    format!(
        "usage: scripts/campaign KIND [--count N] [--seed S] [--record FILE]\n\n{}",
        kinds.join("\n")
    )
}

/// A kind as the first word asks for a long run; anything else is for the test runner.
pub fn asked(mut words: impl Iterator<Item = String>) -> Asked {
    let Some(first) = words.next() else {
        return Asked::Short;
    };
    if first == "campaign" {
        return match words.next() {
            Some(name) => long_of(&name, words).map_or_else(Asked::Wrong, Asked::Long),
            None => Asked::Wrong("which kind?".to_owned()),
        };
    }
    Asked::Short
}

fn long_of(name: &str, mut words: impl Iterator<Item = String>) -> Result<Long, String> {
    let kind = KINDS.iter().find(|kind| kind.name == name);
    let kind = *kind.ok_or_else(|| format!("no kind is called {name}"))?;
    let mut long = Long {
        kind,
        count: 1,
        seed: FIRST_SEED,
        record: None,
    };
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{word} wants a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--count" => long.count = number()?,
            "--seed" => long.seed = number()?,
            "--record" => long.record = Some(PathBuf::from(&value)),
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(long)
}

/// The short run of a kind; why it failed.
pub fn short(kind: &Kind) -> Option<String> {
    let outcome = many(kind, FIRST_SEED, kind.short);
    outcome
        .first_failure
        .map(|(seed, why)| failure(kind, seed, &why))
}

pub fn long(long: &Long) -> ExitCode {
    let kind = &long.kind;
    println!(
        "{}: {}\nseeds {} to {}",
        kind.name,
        kind.what,
        long.seed,
        long.seed + long.count - 1
    );
    let outcome = many(kind, long.seed, long.count);
    let minutes = outcome.took.as_secs_f64() / 60.0;
    for (what, times) in &outcome.tally {
        let rate = *times as f64 / minutes;
        println!("  {times:>8} {what} ({rate:.1} a minute)");
    }
    for (place, times) in &outcome.places {
        println!("  {times:>8} at {place}");
    }
    if let Some((seed, why)) = &outcome.first_failure {
        println!("{}", failure(kind, *seed, why));
    }
    if let Some(file) = &long.record {
        record::write(file, kind, long.seed, &outcome).unwrap();
    }
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    ExitCode::from(u8::from(outcome.failed > 0))
}

fn failure(kind: &Kind, seed: u64, why: &str) -> String {
    format!(
        "FAILED {} with seed {seed}: {why}\nagain: scripts/campaign {} --seed {seed}",
        kind.name, kind.name
    )
}

fn many(kind: &Kind, seed: u64, count: u64) -> Outcome {
    let begun = Instant::now();
    let mut said = begun;
    let mut outcome = Outcome::default();
    for seed in seed..seed + count {
        let mut case = Case::new(seed);
        let ended = catch_unwind(AssertUnwindSafe(|| (kind.run)(&mut case)));
        let ended = ended.unwrap_or_else(|panic| Err(words_of(&*panic)));
        for (what, times) in case.tally {
            *outcome.tally.entry(what).or_default() += times;
        }
        for (place, times) in case.places {
            *outcome.places.entry(place).or_default() += times;
        }
        match ended {
            Ok(()) => outcome.passed += 1,
            Err(why) => {
                println!("{}", failure(kind, seed, &why));
                outcome.failed += 1;
                outcome.first_failure.get_or_insert((seed, why));
            }
        }
        if said.elapsed() >= LINE_EVERY {
            said = Instant::now();
            let done = outcome.passed + outcome.failed;
            let left = begun.elapsed().mul_f64((count - done) as f64 / done as f64);
            println!(
                "{done} of {count} cases, {} failed, {} s to go",
                outcome.failed,
                left.as_secs()
            );
        }
    }
    outcome.took = begun.elapsed();
    outcome
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}
