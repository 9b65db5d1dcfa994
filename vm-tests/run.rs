//! Runs scenarios one after the other: two emulated machines at a time are what two processors can carry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use crate::image::Image;
use crate::stage::{Stage, saved};
use crate::{GATE, Given, Play};

/// Of every scenario that throws dice, where none is given.
const SEED: u64 = 1;

pub enum Asked {
    /// As a test target among others.
    Target,
    List,
    /// These, and what is given to them.
    Play(Vec<Play>, Given),
    Wrong(String),
}

/// What the words of `scripts/vm` ask for; anything else is for the test runner.
pub fn asked(words: &[String]) -> Asked {
    match words.split_first() {
        Some((first, rest)) if first == "scenarios" => scenarios(rest).unwrap_or_else(Asked::Wrong),
        _ => Asked::Target,
    }
}

fn scenarios(words: &[String]) -> Result<Asked, String> {
    let (mut chosen, mut given) = (Vec::new(), given());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let number = words.next().and_then(|word| word.parse().ok());
            number.ok_or_else(|| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--list" => return Ok(Asked::List),
            "--count" => given.count = Some(number()?),
            "--seed" => given.seed = number()?,
            name => {
                let found = Play::all().into_iter().find(|play| play.name() == name);
                chosen.push(found.ok_or_else(|| format!("there is no scenario {name}"))?);
            }
        }
    }
    if chosen.is_empty() {
        chosen = Play::all();
    }
    Ok(Asked::Play(chosen, given))
}

fn given() -> Given {
    Given {
        seed: SEED,
        count: None,
    }
}

pub fn list() -> ExitCode {
    for play in Play::all() {
        println!("{:24} {}", play.name(), play.scenario.about);
    }
    ExitCode::SUCCESS
}

pub fn play(chosen: &[Play], given: Given) -> ExitCode {
    let image = match Image::find() {
        Ok(image) => image,
        Err(why) => {
            eprintln!("vm: {why}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for play in chosen {
        let name = play.name();
        println!("{name} ...");
        let began = Instant::now();
        let outcome = one(&image, *play, given);
        let took = began.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("{name}: passed, {took} s");
            }
            Err(why) => {
                println!("{name}: FAILED, {took} s\n{why}");
                failed.push(name);
            }
        }
    }
    saved::forget();
    if !failed.is_empty() {
        println!("failed: {}", failed.join(" "));
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// As one test for each scenario.
pub fn target() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let of_gate = |play: &Play| GATE.contains(&play.name().as_str());
    let trials = Play::all().into_iter().filter(of_gate).map(|play| {
        let test = format!("vm_{}", play.name());
        libtest_mimic::Trial::test(test.clone(), move || match Image::find() {
            _ if is_late() => {
                println!("SKIPPED {test}: no time is left for it (STANDIN_VM_UNTIL)");
                Ok(())
            }
            Ok(image) => one(&image, play, given()).map_err(Into::into),
            Err(why) => {
                println!("SKIPPED {test}: {why}");
                let must = std::env::var_os("CI").is_some();
                if must { Err(why.into()) } else { Ok(()) }
            }
        })
    });
    let arguments = libtest_mimic::Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let trials = trials.collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    saved::forget();
    conclusion.exit_code()
}

/// Whether the time is over by which scenarios may begin: `STANDIN_VM_UNTIL`, in seconds since 1970; not given: never.
fn is_late() -> bool {
    let until = std::env::var("STANDIN_VM_UNTIL").ok();
    let until = until.and_then(|until| until.parse::<i64>().ok());
    until.is_some_and(|until| jiff::Timestamp::now().as_second() > until)
}

/// Plays it to its end, and judges the journals; why it failed, and where its disks are.
fn one(image: &Image, play: Play, given: Given) -> Result<(), String> {
    let mut set = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let stage = set.insert(Stage::set(image, play, given));
        (play.scenario.play)(stage);
        stage.judge();
    }));
    played.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let kept = set.map(Stage::keep).unwrap_or_default();
        let again = format!("again: scripts/vm {} --seed {}", play.name(), given.seed);
        format!("{}\n{kept}\n{again}", said.unwrap_or_default())
    })
}
