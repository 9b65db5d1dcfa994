//! The fuzz targets of tests/fuzz under libFuzzer; `scripts/fuzz` builds and runs this.
//!
//! One program for all of them: `FUZZ_TARGET` names the one to run. With `FUZZ_SEEDS` the seeds of the target are written
//! into that directory instead; with `FUZZ_LIST` the targets are listed: name, longest input, sentence; with `FUZZ_RECORD` a
//! run, told by further variables, is written into that file's table.
#![no_main]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../tests/support"]
mod support {
    #![allow(dead_code, clippy::unwrap_used, clippy::print_stdout)]
    pub mod audit;
    pub mod commands;
    pub mod fixture;
    pub mod random;
    pub mod receiving;
    pub mod reliability;
    pub mod tree;
}

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

use std::cell::RefCell;

use targets::bounds::Watched;
use targets::{State, Target};

#[global_allocator]
static ALLOCATOR: Watched = Watched;

thread_local! {
    static STATE: RefCell<Option<Box<dyn State>>> = const { RefCell::new(None) };
}

fn prepare() {
    if std::env::var_os("FUZZ_LIST").is_some() {
        for target in targets::ALL {
            println!("{} {} {}", target.name, target.bytes_max, target.what);
        }
        std::process::exit(0);
    }
    let target = chosen();
    if let Some(dir) = std::env::var_os("FUZZ_SEEDS") {
        let dir = std::path::PathBuf::from(dir);
        let seeds = (target.seeds)()
            .into_iter()
            .chain(targets::found(target.name));
        for (number, seed) in seeds.enumerate() {
            std::fs::write(dir.join(format!("seed.{number:04}")), seed).unwrap();
        }
        std::process::exit(0);
    }
    if let Some(file) = std::env::var_os("FUZZ_RECORD") {
        record(&target, std::path::Path::new(&file));
        std::process::exit(0);
    }
    STATE.set(Some((target.start)()));
}

fn record(target: &Target, file: &std::path::Path) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (inputs, failed) = (number("FUZZ_INPUTS"), number("FUZZ_FAILED"));
    let row = support::reliability::Row {
        name: &format!("fuzz {}", target.name),
        what: target.what,
        done: format!("{inputs} inputs, {} a second", number("FUZZ_RATE")),
        seeds: number("FUZZ_SEED").to_string(),
        passed: inputs.saturating_sub(failed),
        failed,
        minutes: number("FUZZ_SECONDS").div_ceil(60),
    };
    row.write(file).unwrap();
}

fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets::ALL.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, no target"))
}

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| {
    STATE.with_borrow_mut(|state| {
        if let Some(state) = state {
            state.run(data);
        }
    });
});
