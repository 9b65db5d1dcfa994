//! One virtual machine: boots, runs what it is told, loses its power, is paused, restarted, set to another time.
//!
//! Promise: every wait has an end and says whose fault it was; what a machine did not flush is lost with its power (its disks
//! are fresh qcow2, whose tables stay in QEMU until the guest flushes); nothing outlives the value but what is kept on purpose.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::journal::{self, Journal, Line};
use super::port::{Port, Running, Said, Silence};
use super::qemu::{self, Plan};
use super::saved::Saved;
use super::wire::Wire;
use super::{Kind, TOOLS};
use crate::image::Image;
use crate::run::say;

/// Longest wait for a machine that starts: under emulation, with neighbours, on two busy cores.
const BOOT_LIMIT: Duration = Duration::from_secs(400);

/// How often a machine is switched on whose emulator fails.
const BOOTS_MAX: usize = 4;

/// For a program in a machine, where nothing else is said.
pub const LIMIT: Duration = Duration::from_secs(480);

/// Shortest and longest pause between two looks at something that is waited for.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Between two looks at what came out of a journal, which costs the machine nothing.
const HEAR_EVERY: Duration = Duration::from_millis(50);

/// Of a disk, in bytes; it takes room only where it is written.
const DISK_BYTES: u64 = 6 << 30;

/// What its files are called, after its name.
const ROOT: &str = "root.qcow2";
const JOURNAL: &str = "journal";
const MONITOR: &str = "monitor";
pub const STATE: &str = "state";

pub struct Machine {
    pub name: &'static str,
    /// What its first disk is to have.
    pub kind: Kind,
    pub number: u8,
    dir: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    disks: Vec<PathBuf>,
    wire: Wire,
    journal: Journal,
    power: Option<Power>,
    /// Where it was saved, and when, if it has not been woken from there yet.
    asleep: Option<(PathBuf, Timestamp)>,
    /// By how much its clock is behind that of this machine: what it slept.
    behind: SignedDuration,
}

/// While it is on.
struct Power {
    qemu: Child,
    port: Port,
}

impl Machine {
    /// Switched off, with a root of its own over the image and `disks` empty disks; or asleep, as `saved` has it.
    pub fn new(
        image: &Image,
        dir: &Path,
        kind: Kind,
        (name, number): (&'static str, u8),
        disks: usize,
        wire: &Wire,
        saved: Option<&Saved>,
    ) -> Machine {
        let mut machine = Machine {
            name,
            kind,
            number,
            dir: dir.to_owned(),
            kernel: image.kernel(),
            initrd: image.initrd(),
            disks: Vec::new(),
            wire: wire.clone(),
            journal: Journal::new(dir.join(format!("{name}.{JOURNAL}"))),
            power: None,
            asleep: None,
            behind: SignedDuration::ZERO,
        };
        let base = match saved {
            Some(saved) => (saved.file(name, ROOT), "qcow2"),
            None => (image.base(), "raw"),
        };
        create(Some(base), &machine.file(ROOT), None);
        for at in 0..disks {
            let disk = format!("disk{at}.qcow2");
            let base = saved.map(|saved| (saved.file(name, &disk), "qcow2"));
            create(base, &machine.file(&disk), Some(DISK_BYTES));
            machine.disks.push(machine.file(&disk));
        }
        if let Some(saved) = saved {
            // What it said before it slept.
            std::fs::copy(saved.file(name, JOURNAL), machine.file(JOURNAL)).unwrap();
            machine.asleep = Some((saved.file(name, STATE), saved.when));
        }
        machine
    }

    pub fn address(&self) -> String {
        format!("10.9.0.{}", self.number)
    }

    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    fn plan(&self) -> Plan<'_> {
        Plan {
            name: self.name,
            number: self.number,
            kernel: &self.kernel,
            initrd: &self.initrd,
            root: self.file(ROOT),
            tools: self.dir.join(TOOLS),
            disks: self.disks.clone(),
            agent: self.file("agent"),
            monitor: self.file(MONITOR),
            console: self.file("console"),
            journal: self.file(JOURNAL),
            wire: self.wire.socket(self.name),
            clock: Timestamp::now() - self.behind,
            saved: self.asleep.as_ref().map(|(state, _)| state.as_path()),
        }
    }

    /// Switches it on, and does not wait. From the thread that goes on using it: QEMU ends with that.
    pub fn switch_on(&mut self) {
        assert!(self.power.is_none(), "{} is on already", self.name);
        let socket = self.file("agent");
        let _ = std::fs::remove_file(&socket);
        let mut qemu = self.plan().start();
        let began = Instant::now();
        let port = loop {
            if let Some(port) = Port::connect(&socket) {
                break port;
            }
            let ended = qemu.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < BOOT_LIMIT,
                "{}: QEMU does not start: {ended:?}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        self.power = Some(Power { qemu, port });
        if let Some((_, when)) = self.asleep.take() {
            self.wake();
            self.behind = Timestamp::now().duration_since(when);
        }
    }

    /// It is in memory again; goes on where it was.
    fn wake(&self) {
        self.monitor_until("it is read from its file", "query-status", |answer| {
            answer["status"] != "inmigrate"
        });
        self.resume();
    }

    /// Stands still for good: what it is goes to a file, and its disks stay as they are now.
    #[track_caller]
    pub fn save(&mut self) {
        let monitor = self.file(MONITOR);
        let fast = json!({ "max-bandwidth": 8u64 << 30 });
        qemu::order(&monitor, "migrate-set-parameters", fast);
        let state = self.file(STATE);
        let uri = json!({ "uri": format!("file:{}", state.display()) });
        qemu::order(&monitor, "migrate", uri);
        self.monitor_until("it is saved", "query-migrate", |answer| {
            assert_ne!(answer["status"], "failed", "{answer}");
            answer["status"] == "completed"
        });
        qemu::order(&monitor, "quit", json!({}));
        let mut power = self.power.take().expect("a machine that is on");
        power.qemu.wait().unwrap();
    }

    #[track_caller]
    fn monitor_until(&self, what: &str, command: &str, is_so: impl Fn(&Value) -> bool) {
        self.wait_until_here(what, || {
            is_so(&qemu::order(&self.file(MONITOR), command, json!({})))
        });
    }

    /// Waits until all that starts by itself has started.
    #[track_caller]
    pub fn wait_ready(&self) {
        let words = ["systemctl", "is-system-running", "--wait"];
        let said = match self.begin(&words, b"", BOOT_LIMIT).end() {
            Ok(said) => said,
            Err(silence) => panic!(
                "{} does not come up: {silence:?}\n{}",
                self.name,
                self.trouble()
            ),
        };
        if said.text() != "running" {
            let failed = self
                .sh("systemctl list-units --failed --no-legend --plain")
                .text();
            let foreign = failed.lines().any(|unit| !unit.starts_with("standin"));
            assert!(
                !foreign,
                "{} is {}: {failed}\n{}",
                self.name,
                said.text(),
                self.trouble()
            );
        }
    }

    #[track_caller]
    pub fn boot(&mut self) {
        self.switch_on();
        self.come_up();
    }

    /// As [`Machine::wait_ready`], for a machine that was just switched on. QEMU itself may fail while a guest finds its devices,
    /// or lose a timer that the guest waits for: that is no news about what is tested here, and it is switched on again.
    #[track_caller]
    pub fn come_up(&mut self) {
        for _ in 1..BOOTS_MAX {
            let words = ["systemctl", "is-system-running", "--wait"];
            let why = match self.begin(&words, b"", BOOT_LIMIT).end().err() {
                Some(Silence::Off) => "ended by itself",
                Some(Silence::Late) if journal::stalls(&self.console()) => "stands still",
                _ => break,
            };
            say(format!("QEMU of {} {why}; it is started again", self.name));
            self.cut_power();
            self.switch_on();
        }
        self.wait_ready();
    }

    fn console(&self) -> String {
        let console = std::fs::read(self.file("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }

    /// Power is gone, from one instruction to the next.
    pub fn cut_power(&mut self) {
        let mut power = self.power.take().expect("a machine that is on");
        power.qemu.kill().unwrap();
        power.qemu.wait().unwrap();
    }

    /// As by its button: all that runs is stopped in order.
    #[track_caller]
    pub fn power_off(&mut self) {
        drop(self.begin(&["systemctl", "poweroff"], b"", LIMIT));
        let mut power = self.power.take().expect("a machine that is on");
        let began = Instant::now();
        while power.qemu.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < BOOT_LIMIT,
                "{} does not go down",
                self.name
            );
            std::thread::sleep(HEAR_EVERY);
        }
    }

    /// Keeps its disks as they are now, while it is off.
    pub fn copy_disks(&self) {
        assert!(self.power.is_none(), "{} is on", self.name);
        for disk in self.own_disks() {
            std::fs::copy(&disk, disk.with_extension("copy")).unwrap();
        }
    }

    /// Its disks are those that were kept.
    pub fn put_disks_back(&self) {
        assert!(self.power.is_none(), "{} is on", self.name);
        for disk in self.own_disks() {
            std::fs::copy(disk.with_extension("copy"), &disk).unwrap();
        }
    }

    fn own_disks(&self) -> Vec<PathBuf> {
        let mut disks = self.disks.clone();
        disks.push(self.file(ROOT));
        disks
    }

    /// In this scenario, or before it slept.
    pub fn was_on(&self) -> bool {
        self.file(JOURNAL).exists()
    }

    pub fn is_on(&self) -> bool {
        self.power.is_some()
    }

    /// As somebody at its keyboard would; it is ready again afterwards.
    #[track_caller]
    pub fn reboot(&self) {
        let boot = || self.sh("cat /proc/sys/kernel/random/boot_id").text();
        let before = boot();
        // Nobody waits for an answer: the agent may or may not live to give it.
        drop(self.begin(&["systemctl", "reboot"], b"", LIMIT));
        let began = Instant::now();
        loop {
            let words = ["cat", "/proc/sys/kernel/random/boot_id"];
            let patience = Duration::from_secs(5);
            let asked = self.begin(&words, b"", patience).end_within(patience);
            if asked.is_ok_and(|said| said.code == 0 && said.text() != before) {
                break;
            }
            assert!(
                began.elapsed() < BOOT_LIMIT,
                "{} does not reboot",
                self.name
            );
        }
        self.wait_ready();
    }

    /// It stands still, and none of its clocks goes on: it cannot notice.
    pub fn pause(&self) {
        qemu::order(&self.file(MONITOR), "stop", json!({}));
    }

    pub fn resume(&self) {
        qemu::order(&self.file(MONITOR), "cont", json!({}));
    }

    /// The cable is unplugged, and the machine sees it; or plugged in again.
    pub fn plug(&self, up: bool) {
        let link = json!({ "name": "n0", "up": up });
        qemu::order(&self.file(MONITOR), "set_link", link);
    }

    /// Sets its clocks to what this shell expression says, in seconds since 1970; also the one that survives a reboot.
    #[track_caller]
    pub fn set_clock(&self, seconds: &str) {
        self.sh(&format!(
            "date --set=@$(( {seconds} )); hwclock --utc --systohc"
        ))
        .ok();
    }

    /// Starts a program; the answer can be waited for later, or never come.
    pub fn begin(&self, argv: &[&str], stdin: &[u8], limit: Duration) -> Running {
        let power = self.power.as_ref().expect("a machine that is on");
        power.port.begin(argv, stdin, limit)
    }

    #[track_caller]
    pub fn run_for(&self, argv: &[&str], stdin: &[u8], limit: Duration) -> Said {
        let said = self.begin(argv, stdin, limit).end();
        said.unwrap_or_else(|silence| {
            let why = if silence == Silence::Off {
                "lost its power"
            } else {
                "is silent"
            };
            panic!(
                "{} {why} in: {}\n{}",
                self.name,
                argv.join(" "),
                self.trouble()
            )
        })
    }

    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Said {
        self.run_for(argv, b"", LIMIT)
    }

    /// By its shell, which stops at the first failure.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Said {
        self.run(&["bash", "-euo", "pipefail", "-c", script])
    }

    #[track_caller]
    pub fn put(&self, path: &str, text: &str) {
        let script = format!("mkdir -p \"$(dirname '{path}')\" && cat >'{path}'");
        self.run_for(&["sh", "-c", &script], text.as_bytes(), LIMIT)
            .ok();
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Vec<u8> {
        self.run(&["cat", path]).ok().out
    }

    /// Waits until a script in the machine ends with 0.
    #[track_caller]
    pub fn wait_until(&self, what: &str, script: &str) {
        self.wait_until_here(what, || self.sh(script).code == 0);
    }

    /// Waits for something that is seen from here.
    #[track_caller]
    pub fn wait_until_here(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        loop {
            let (looks, told) = (Instant::now(), self.journal.of_standin());
            if condition() {
                return;
            }
            let late = began.elapsed() > LIMIT;
            assert!(
                !late,
                "{}: gave up waiting until {what}\n{}",
                self.name,
                self.trouble()
            );
            // A look is a program in the machine, which slows down what is waited for: the next one comes when standin has said
            // something, or after three times what a look takes.
            let pause = (looks.elapsed() * 3).clamp(LOOK_PAUSE.0, LOOK_PAUSE.1);
            std::thread::sleep(LOOK_PAUSE.0);
            let paused = Instant::now();
            while paused.elapsed() < pause && self.journal.of_standin() == told {
                std::thread::sleep(HEAR_EVERY);
            }
        }
    }

    /// All it said in this scenario, in all its boots.
    pub fn journal(&self) -> Vec<Line> {
        self.journal.lines()
    }

    /// Waits until everything it said before has come out.
    pub fn flush_journal(&self) {
        let mark = format!("stage-mark-{}", self.journal().len());
        self.run(&["logger", "--tag", "stage", &mark]).ok();
        let began = Instant::now();
        while !self.journal().iter().any(|line| line.text == mark) {
            assert!(
                began.elapsed() < LIMIT,
                "{}: its journal is silent",
                self.name
            );
            std::thread::sleep(HEAR_EVERY);
        }
    }

    /// The end of what it said, for a message; and whether its kernel broke down.
    pub fn trouble(&self) -> String {
        let crash = journal::crash(&self.console());
        let crash = crash.map(|line| format!("THE GUEST'S KERNEL CRASHED: {line}\n"));
        let journal = self.journal();
        let ours = journal
            .iter()
            .filter(|line| line.from.starts_with("standin"));
        let ours: Vec<String> = ours.map(Line::to_string).collect();
        let from = ours.len().saturating_sub(25);
        let words = format!(
            "{}---- journal of {}:\n",
            crash.unwrap_or_default(),
            self.name
        );
        words + &ours[from..].join("\n")
    }

    /// A command that a person can type to look at its disks from within, after everything.
    pub fn console_command(&self) -> String {
        let words = self.plan().words(true);
        let quoted = words.iter().map(|word| format!("'{word}'"));
        let script = self.file("console-command");
        let text = format!(
            "#!/bin/sh\nexec {} {}\n",
            qemu::QEMU,
            quoted.collect::<Vec<_>>().join(" ")
        );
        std::fs::write(&script, text).unwrap();
        format!("sh {}", script.display())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.is_on() {
            self.cut_power();
        }
    }
}

/// A disk of its own, over another one (and its format) or empty.
fn create(base: Option<(PathBuf, &str)>, path: &Path, bytes: Option<u64>) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some((base, format)) = &base {
        command.args(["-F", format, "-b"]).arg(base);
    }
    command.arg(path);
    if base.is_none() {
        command.args(bytes.map(|bytes| bytes.to_string()));
    }
    let made = command.output().unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
