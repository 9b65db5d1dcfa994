//! A stage for one scenario: machines on a wire of their own, in a directory of their own.
//!
//! Promise: when it is dropped nothing runs and nothing is left, unless [`Stage::keep`] said that somebody wants to look.
//! A line of a journal that complains, and that the scenario did not announce, is found by [`Stage::judge`].

pub mod journal;
pub mod machine;
pub mod port;
pub mod qemu;
pub mod wire;

use std::path::Path;

use tempfile::TempDir;

use crate::Given;
use crate::image::{self, Image};
use crate::random::Random;
use machine::Machine;
use wire::Wire;

pub struct Stage {
    pub wire: Wire,
    pub given: Given,
    pub dice: Random,
    machines: Vec<Machine>,
    announced: Vec<&'static str>,
    dir: TempDir,
}

impl Stage {
    /// Machines that are switched off, each with `disks` empty disks; `tests` are test targets they can run from /tools.
    pub fn set(
        image: &Image,
        machines: &[&'static str],
        disks: usize,
        tests: &[&str],
        given: Given,
    ) -> Stage {
        let dir = tempfile::Builder::new()
            .prefix("standin-vm-")
            .tempdir()
            .unwrap();
        image::tools(&dir.path().join("tools.img"), tests);
        qemu::probe(&image.kernel());
        let wire = Wire::new(dir.path());
        let machines = (1..).zip(machines);
        let machines = machines
            .map(|(number, name)| Machine::new(image, dir.path(), name, number, disks, &wire))
            .collect();
        let dice = Random::new(given.seed);
        Stage {
            wire,
            given,
            dice,
            machines,
            announced: Vec::new(),
            dir,
        }
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
            assert!(!lines.is_empty(), "{} has no journal", machine.name);
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
