//! Runs scenarios: one after the other, or some at a time. Two emulated machines are what two processors can carry, but much of
//! a scenario is waiting for what takes its time on any machine: a silence that has to be noticed, a line that is slow.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::image::Image;
use crate::stage::{Stage, saved};
use crate::{GATE, Given, Play};

/// Set to anything, disks and journals of scenarios that passed are kept too.
const KEEP: &str = "STANDIN_VM_KEEP";

/// Of every scenario that throws dice, where none is given.
const SEED: u64 = 1;

pub enum Asked {
    /// As a test target among others.
    Target,
    List,
    /// These, what is given to them, and how many at once.
    Play(Vec<Play>, Given, usize),
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
    let (mut chosen, mut given, mut at_once) = (Vec::new(), given(), 1);
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
            "--at-once" => at_once = number()?.max(1) as usize,
            name => {
                let found = Play::all().into_iter().find(|play| play.name() == name);
                chosen.push(found.ok_or_else(|| format!("there is no scenario {name}"))?);
            }
        }
    }
    if chosen.is_empty() {
        chosen = Play::all();
    }
    Ok(Asked::Play(chosen, given, at_once))
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

pub fn play(chosen: &[Play], given: Given, at_once: usize) -> ExitCode {
    let image = match Image::find() {
        Ok(image) => image,
        Err(why) => {
            eprintln!("vm: {why}");
            return ExitCode::FAILURE;
        }
    };
    let left: Mutex<VecDeque<Play>> = Mutex::new(chosen.iter().copied().collect());
    let (failed, skipped) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    // Not held while it plays.
    let next = || left.lock().unwrap().pop_front();
    thread::scope(|scope| {
        for _ in 0..at_once.min(chosen.len()) {
            scope.spawn(|| {
                while let Some(play) = next() {
                    match shown(&image, play, given) {
                        Outcome::Passed => {}
                        Outcome::Skipped => _ = skipped.fetch_add(1, Ordering::Relaxed),
                        Outcome::Failed => failed.lock().unwrap().push(play.name()),
                    }
                }
            });
        }
    });
    saved::forget();
    let failed = failed.into_inner().unwrap();
    if !failed.is_empty() {
        println!("failed: {}", failed.join(" "));
    }
    let skipped = skipped.into_inner();
    let passed = chosen.len() - failed.len() - skipped;
    print!("{passed} passed, {} failed", failed.len());
    match skipped {
        0 => println!(),
        _ => println!(", {skipped} skipped"),
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

enum Outcome {
    Passed,
    Skipped,
    Failed,
}

/// Plays it in a thread of its name, and says how it went.
fn shown(image: &Image, play: Play, given: Given) -> Outcome {
    let name = play.name();
    println!("{name} ...");
    let began = Instant::now();
    let played = thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.clone());
        let played = thread.spawn_scoped(scope, || one(image, play, given));
        played.expect("a thread can be started").join()
    });
    let played = played.unwrap_or_else(|_| Err("the stage itself failed".to_owned()));
    let took = began.elapsed().as_secs();
    match played {
        Ok(None) => {
            println!("{name}: passed, {took} s");
            Outcome::Passed
        }
        Ok(Some(why)) => {
            println!("SKIPPED {name}: {why}");
            Outcome::Skipped
        }
        Err(why) => {
            println!("{name}: FAILED, {took} s\n{why}");
            Outcome::Failed
        }
    }
}

/// A word in between, with the name of the scenario: others may be played at the same time.
pub fn say(text: impl std::fmt::Display) {
    let thread = thread::current();
    println!("  {}: {text}", thread.name().unwrap_or_default());
}

/// As one test for each scenario.
pub fn target() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let of_gate = |play: &Play| GATE.contains(&play.name().as_str());
    let trials = Play::all().into_iter().filter(of_gate).map(|play| {
        let test = format!("vm_{}", play.name());
        libtest_mimic::Trial::test(test.clone(), move || match Image::find() {
            Ok(_) if is_late() => {
                println!("SKIPPED {test}: no time is left for it (STANDIN_VM_UNTIL)");
                Ok(())
            }
            Ok(image) => match one(&image, play, given())? {
                None => Ok(()),
                Some(why) => skip(&test, why.to_owned()),
            },
            Err(why) => skip(&test, why),
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

/// What cannot be played here; in CI it must.
fn skip(test: &str, why: String) -> Result<(), libtest_mimic::Failed> {
    println!("SKIPPED {test}: {why}");
    let must = std::env::var_os("CI").is_some();
    if must { Err(why.into()) } else { Ok(()) }
}

/// Whether the time is over by which scenarios may begin: `STANDIN_VM_UNTIL`, in seconds since 1970; not given: never.
fn is_late() -> bool {
    let until = std::env::var("STANDIN_VM_UNTIL").ok();
    let until = until.and_then(|until| until.parse::<i64>().ok());
    until.is_some_and(|until| jiff::Timestamp::now().as_second() > until)
}

/// Plays it to its end, and judges the journals; why it could not be played. Or why it failed, and where its disks are.
fn one(image: &Image, play: Play, given: Given) -> Result<Option<&'static str>, String> {
    let mut set = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let stage = set.insert(Stage::set(image, play, given));
        (play.scenario.play)(stage);
        stage.judge();
        stage.skipped
    }));
    if played.is_ok() && std::env::var_os(KEEP).is_some() {
        say(set.take().map(Stage::keep).unwrap_or_default());
    }
    played.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let kept = set.map(Stage::keep).unwrap_or_default();
        let again = format!("again: scripts/vm {} --seed {}", play.name(), given.seed);
        format!("{}\n{kept}\n{again}", said.unwrap_or_default())
    })
}
