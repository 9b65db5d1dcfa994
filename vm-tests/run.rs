//! Runs scenarios one after the other: two emulated machines at a time are what two processors can carry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use crate::image::Image;
use crate::stage::{Stage, saved};
use crate::{GATE, Given, SCENARIOS, Scenario};

/// Of every scenario that throws dice, where none is given.
const SEED: u64 = 1;

pub enum Asked {
    /// As a test target among others.
    Target,
    List,
    /// These, and what is given to them.
    Play(Vec<&'static Scenario>, Given),
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
                let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
                chosen.push(found.ok_or_else(|| format!("there is no scenario {name}"))?);
            }
        }
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.iter().collect();
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
    for scenario in &SCENARIOS {
        println!("{:20} {}", scenario.name, scenario.about);
    }
    ExitCode::SUCCESS
}

pub fn play(chosen: &[&Scenario], given: Given) -> ExitCode {
    let image = match Image::find() {
        Ok(image) => image,
        Err(why) => {
            eprintln!("vm: {why}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for scenario in chosen {
        println!("{} ...", scenario.name);
        let began = Instant::now();
        let outcome = one(&image, scenario, given);
        let took = began.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("{}: passed, {took} s", scenario.name);
            }
            Err(why) => {
                println!("{}: FAILED, {took} s\n{why}", scenario.name);
                failed.push(scenario.name);
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
    let of_gate = |scenario: &&Scenario| GATE.contains(&scenario.name);
    let trials = SCENARIOS.iter().filter(of_gate).map(|scenario| {
        let test = format!("vm_{}", scenario.name);
        libtest_mimic::Trial::test(test.clone(), move || match Image::find() {
            Ok(image) => one(&image, scenario, given()).map_err(Into::into),
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

/// Plays it to its end, and judges the journals; why it failed, and where its disks are.
fn one(image: &Image, scenario: &Scenario, given: Given) -> Result<(), String> {
    let mut set = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let stage = set.insert(Stage::set(image, scenario, given));
        (scenario.play)(stage);
        stage.judge();
    }));
    played.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let kept = set.map(Stage::keep).unwrap_or_default();
        let again = format!("again: scripts/vm {} --seed {}", scenario.name, given.seed);
        format!("{}\n{kept}\n{again}", said.unwrap_or_default())
    })
}
