//! A stage for one scenario: machines on a wire of their own, in a directory of their own.
//!
//! Promise: when it is dropped nothing runs and nothing is left, unless [`Stage::keep`] said that somebody wants to look.
//! A line of a journal that complains, and that the scenario did not announce, is found by [`Stage::judge`].

pub mod journal;
pub mod machine;
pub mod port;
pub mod qemu;
pub mod saved;
pub mod wire;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::image::{self, Image};
use crate::nodes;
use crate::random::Random;
use crate::{Given, Play};
use machine::Machine;
use saved::Saved;
use wire::Wire;

/// The disk with the programs of this build.
pub const TOOLS: &str = "tools.img";

/// Those that scenarios find ready.
pub const MACHINES: [&str; 2] = ["alder", "birch"];

/// How a scenario finds its machines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Switched off, with nothing on their disks.
    Off,
    /// As [`saved`] has them: on, installed, paired, with the daemons stopped.
    Ready,
}

/// What data of roles lie on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Btrfs,
    Zfs,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Btrfs, Kind::Zfs];
}

pub struct Stage {
    pub kind: Kind,
    pub wire: Wire,
    pub given: Given,
    pub dice: Random,
    machines: Vec<Machine>,
    announced: Vec<&'static str>,
    /// Why it cannot be played here, where a scenario says so.
    pub skipped: Option<&'static str>,
    dir: TempDir,
    saved: Option<Arc<Saved>>,
}

impl Stage {
    /// The machines of a scenario, as it wants to find them.
    #[track_caller]
    pub fn set(image: &Image, play: Play, given: Given) -> Stage {
        let Play { scenario, kind } = play;
        qemu::probe(&image.kernel());
        let saved = (scenario.start == Start::Ready).then(|| Saved::get(image, kind, given));
        let dir = tempfile::Builder::new()
            .prefix("standin-vm-")
            .tempdir()
            .unwrap();
        let tools = dir.path().join(TOOLS);
        match &saved {
            Some(saved) => std::os::unix::fs::symlink(saved.path().join(TOOLS), tools).unwrap(),
            None => image::tools(&tools, scenario.tests),
        }
        let wire = Wire::new(dir.path());
        let machines = scenario.machines.iter().copied().zip(1..);
        let from = saved.as_deref();
        let machines = machines
            .map(|who| Machine::new(image, dir.path(), kind, who, scenario.disks, &wire, from))
            .collect();
        let dice = Random::new(given.seed);
        let mut stage = Stage {
            kind,
            wire,
            given,
            dice,
            machines,
            announced: Vec::new(),
            skipped: None,
            dir,
            saved,
        };
        if stage.saved.is_some() {
            stage.announce(nodes::STOPPED);
            stage.machines.iter_mut().for_each(Machine::switch_on);
        }
        stage
    }

    /// All machines into files, in one moment; where they are, and when that was.
    #[track_caller]
    pub fn save(mut self) -> (TempDir, Timestamp) {
        self.judge();
        self.machines.iter().for_each(Machine::pause);
        let when = Timestamp::now();
        self.machines.iter_mut().for_each(Machine::save);
        self.machines.clear();
        (self.dir, when)
    }

    /// Switches all machines on, and waits for them together.
    #[track_caller]
    pub fn boot(&mut self) {
        self.machines.iter_mut().for_each(Machine::switch_on);
        self.machines.iter_mut().for_each(Machine::come_up);
    }

    #[track_caller]
    pub fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub fn machine_mut(&mut self, name: &str) -> &mut Machine {
        let found = self
            .machines
            .iter_mut()
            .find(|machine| machine.name == name);
        found.unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The same on all machines at once.
    #[track_caller]
    pub fn everywhere(&self, act: impl Fn(&Machine) + Sync) {
        // What they say is of this scenario.
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let act = &act;
        std::thread::scope(|scope| {
            let begin = |machine| {
                let thread = std::thread::Builder::new().name(name.clone());
                let begun = thread.spawn_scoped(scope, move || act(machine));
                begun.expect("a thread can be started")
            };
            let begun: Vec<_> = self.machines.iter().map(begin).collect();
            for one in begun {
                if let Err(panic) = one.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// From here on journals may complain with these words: what the scenario does is meant to be noticed.
    pub fn announce(&mut self, words: &'static str) {
        self.announced.push(words);
    }

    /// Panics with every complaint of a journal that was not announced.
    #[track_caller]
    pub fn judge(&self) {
        let mut found = Vec::new();
        for machine in &self.machines {
            if machine.is_on() {
                machine.flush_journal();
            }
            let lines = machine.journal();
            assert!(
                !lines.is_empty() || !machine.was_on(),
                "{} has no journal",
                machine.name
            );
            let complaints = lines.iter().filter(|line| line.is_complaint());
            let news = complaints
                .filter(|line| !self.announced.iter().any(|words| line.text.contains(words)));
            found.extend(news.map(|line| format!("{}: {line}", machine.name)));
        }
        assert!(found.is_empty(), "not announced:\n{}", found.join("\n"));
    }

    /// Everything is switched off; disks, journals and consoles stay. Says how to look at them.
    pub fn keep(mut self) -> String {
        let commands: Vec<String> = self.machines.iter().map(Machine::console_command).collect();
        self.machines.clear();
        if let Some(saved) = &self.saved {
            saved.keep();
        }
        let dir = self.dir.keep();
        format!(
            "its disks and journals are in {}\na console (root, no password; Ctrl-A X ends it):\n  {}",
            dir.display(),
            commands.join("\n  ")
        )
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}
