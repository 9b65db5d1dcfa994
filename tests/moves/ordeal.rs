//! Nodes of one role under attack: daemons and machines that die at named places and at random moments while a verb runs, links
//! that are cut; then everything is healed as an operator would heal it, and judged.
//!
//! A daemon that stopped itself at a named place (`STANDIN_FREEZE`) is killed there; whoever died is started again a moment
//! later, unless it is held down. All the while a thread looks whether two nodes run the service at one moment.
//!
//! Shared by the tests of moves and the campaign of them. It deliberately does not know which trouble comes when.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Stage, home};
use crate::support::cluster::{MIB, Said, TestNode};
use crate::support::fixture::Loop;
use crate::watch::Watch;

/// Longest time from the end of the trouble until one node is active and all others stand in.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// A verb that takes longer is left alone; the daemon goes on.
const VERB_MOST: Duration = Duration::from_secs(45);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Limits and pauses of links and retries are divided by this.
const HASTE: &str = "5";

/// Something that happens to somebody at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// SIGKILL for the daemon; what it started lives on.
    Kill(&'static str),
    /// The machine: daemon, services, everything it started.
    Die(&'static str),
    /// Every link is reset and stays down.
    Cut,
    Mend,
}

pub struct Ordeal {
    pub stage: Stage,
    pub names: Vec<&'static str>,
    pub watch: Watch,
    /// Where daemons were killed that had stopped themselves.
    pub fallen: Vec<String>,
    /// With the daemon that stopped itself dies its machine.
    pub brutal: bool,
    /// How long the dead stay dead.
    pub dead_for: Duration,
    /// Stay dead until they are let go.
    held: BTreeSet<&'static str>,
    /// When a dead node starts again.
    risen_at: BTreeMap<&'static str, Instant>,
    /// The place at which the next daemon of a node stops itself.
    armed: BTreeMap<&'static str, String>,
    due: Vec<(Instant, Trouble)>,
    /// Points that were sent whole when everybody had nothing.
    wholes: usize,
}

impl Ordeal {
    /// Every node holds a point.
    pub fn new(names: &[&'static str], datasets: &[&str], role: &str) -> Ordeal {
        let nodes = names.iter().map(|name| {
            let mut node = TestNode::on(name, Loop::new(512 * MIB));
            node.env.push(("STANDIN_HASTE", HASTE.to_owned()));
            node
        });
        let stage = Stage::of(nodes.collect(), datasets, role, true);
        stage.wait_written(names[0], 3);
        let home_node = stage.node(names[0]);
        home_node.wait_for("every node holds a point", || {
            home_node.run(&["run", "--attach", "web"]).code == 0
        });
        let homes = stage.nodes.iter().map(|node| (node.name, home(node)));
        let mut ordeal = Ordeal {
            watch: Watch::over(homes.collect()),
            names: names.to_vec(),
            stage,
            fallen: Vec::new(),
            brutal: false,
            dead_for: Duration::from_millis(50),
            held: BTreeSet::new(),
            risen_at: BTreeMap::new(),
            armed: BTreeMap::new(),
            due: Vec::new(),
            wholes: 0,
        };
        ordeal.wholes = ordeal.sent_whole();
        ordeal
    }

    fn sent_whole(&self) -> usize {
        let logs = self.stage.nodes.iter().map(TestNode::log);
        logs.map(|log| log.matches(" whole to ").count()).sum()
    }

    /// Points that were sent whole since everybody had one.
    pub fn sent_whole_since(&self) -> usize {
        self.sent_whole() - self.wholes
    }

    /// Other than this one.
    pub fn others(&self, name: &str) -> Vec<&'static str> {
        let all = self.names.iter().copied();
        all.filter(|other| *other != name).collect()
    }

    /// The daemon of a node is started anew, and will stop itself at this place.
    pub fn arm(&mut self, name: &'static str, place: &str) {
        self.tick();
        self.armed.insert(name, place.to_owned());
        self.kill(name, false);
        self.risen_at.insert(name, Instant::now());
        self.tick();
    }

    pub fn later(&mut self, after: Duration, trouble: Trouble) {
        self.due.push((Instant::now() + after, trouble));
    }

    /// Dies, and stays dead.
    pub fn hold_down(&mut self, name: &'static str, machine: bool) {
        self.held.insert(name);
        self.kill(name, machine);
    }

    /// May start again, and stop itself at a place.
    pub fn let_go(&mut self, name: &'static str, place: Option<String>) {
        if let Some(place) = place {
            self.armed.insert(name, place);
        }
        self.held.remove(name);
        self.risen_at.insert(name, Instant::now());
        self.tick();
    }

    fn kill(&mut self, name: &'static str, machine: bool) {
        let node = self.stage.node_mut(name);
        if node.is_started() {
            node.kill();
        }
        if machine {
            slay(&node.dir);
            let _ = fs::remove_file(home(node).join("pid"));
        }
        let at = Instant::now() + self.dead_for;
        self.risen_at.insert(name, at);
    }

    pub fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill(name) => self.kill(name, false),
            Trouble::Die(name) => self.kill(name, true),
            Trouble::Cut => self.stage.relays.iter().for_each(|relay| relay.cut()),
            Trouble::Mend => self.stage.relays.iter().for_each(|relay| relay.mend()),
        }
    }

    /// What is due happens; who stopped itself is killed; who is dead long enough starts again.
    pub fn tick(&mut self) {
        let now = Instant::now();
        let (due, left) = self.due.drain(..).partition(|(at, _)| *at <= now);
        self.due = left;
        let due: Vec<(Instant, Trouble)> = due;
        due.into_iter()
            .for_each(|(_, trouble)| self.trouble(trouble));
        for name in self.names.clone() {
            let node = self.stage.node_mut(name);
            if node.is_started() && is_frozen(node.pid()) {
                let log = node.log();
                let place = log.rsplit("frozen place=\"").next().unwrap_or_default();
                let place = place.split('"').next().unwrap_or_default();
                self.fallen.push(place.to_owned());
                self.kill(name, self.brutal);
            }
            let due = self.risen_at.get(name).is_some_and(|at| *at <= now);
            let node = self.stage.node_mut(name);
            if due && !self.held.contains(name) && !node.is_started() {
                let place = self.armed.remove(name);
                let env: Vec<(&str, &str)> = place
                    .iter()
                    .map(|place| ("STANDIN_FREEZE", place.as_str()))
                    .collect();
                node.launch(&env);
                self.risen_at.remove(name);
            }
        }
    }

    /// Asks a node something, while trouble goes on. None: it is dead, or the answer takes too long.
    pub fn ask(&mut self, name: &str, args: &[&str]) -> Option<Said> {
        let node = self.stage.node(name);
        if !node.is_started() {
            return None;
        }
        let mut command = node.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id().to_string();
        let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
        let begun = Instant::now();
        let mut late = false;
        while !waiting.is_finished() {
            self.tick();
            if begun.elapsed() > VERB_MOST && !late {
                late = true;
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        let Output {
            status,
            stdout,
            stderr,
        } = waiting.join().unwrap();
        let code = status.code()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(stdout), text(stderr));
        Some(Said { code, out, err })
    }

    /// What a node says of itself.
    pub fn role(&mut self, name: &str) -> Option<Value> {
        let said = self.ask(name, &["status", "--json"])?;
        let status: Value = serde_json::from_str(&said.out).ok()?;
        Some(status["roles"][0].clone())
    }

    pub fn state(&mut self, name: &str) -> String {
        let role = self.role(name).unwrap_or_default();
        role["state"].as_str().unwrap_or("dead").to_owned()
    }

    /// Promotes, adding what the refusals ask for; `lying`: whatever it says. An honest operator says that a node is stopped
    /// when nothing runs on it. Whether it was promoted.
    pub fn promote(&mut self, name: &'static str, lying: bool) -> bool {
        let mut args = vec!["promote".to_owned(), "web".to_owned()];
        for _ in 0..6 {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            let Some(said) = self.ask(name, &words) else {
                return false;
            };
            if said.code == 0 {
                return true;
            }
            let before = args.len();
            for flag in ["--assert-stopped", "--accept-loss-after"] {
                for value in after(&said.err, flag) {
                    let dead = !self.names.contains(&value.as_str()) || self.is_dead(&value);
                    if dead || lying {
                        args.extend([flag.to_owned(), value]);
                    }
                }
            }
            if args.len() == before {
                return false;
            }
        }
        false
    }

    fn is_dead(&self, name: &str) -> bool {
        !self.stage.node(name).is_started() && self.held.contains(name) && !self.watch.runs(name)
    }

    /// As an operator would: starts what is down, mends the links, resolves what only a person can.
    pub fn heal(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        for name in std::mem::take(&mut self.held) {
            self.let_go(name, None);
        }
        let mut turn = 0;
        loop {
            self.tick();
            if begun.elapsed() > HEALED_WITHIN {
                return Err(self.told("it is not healed in time"));
            }
            std::thread::park_timeout(LOOK_EVERY * 10);
            if !self.due.is_empty() {
                continue;
            }
            self.trouble(Trouble::Mend);
            let states: Vec<(&'static str, String)> = self
                .names
                .clone()
                .into_iter()
                .map(|name| (name, self.state(name)))
                .collect();
            let having = |word: &str| -> Vec<&'static str> {
                let found = states.iter().filter(|(_, state)| state.starts_with(word));
                found.map(|(name, _)| *name).collect()
            };
            let (active, standing) = (having("active"), having("standby"));
            if active.len() == 1 && standing.len() + 1 == self.names.len() {
                if self.linked() {
                    return self.unpause();
                }
                continue;
            }
            turn += 1;
            let conflict = having("conflict");
            if !conflict.is_empty() {
                self.resolve(&conflict, &having("conflict (up)"), turn);
            }
            if standing.len() == self.names.len() {
                // Nobody took it up: whoever can, by hand.
                let name = self.names[turn % self.names.len()];
                self.promote(name, false);
            }
        }
    }

    /// Every node sees every other.
    fn linked(&mut self) -> bool {
        let names = self.names.clone();
        names.into_iter().all(|name| {
            let said = self.ask(name, &["status", "--json"]);
            let status = said.and_then(|said| serde_json::from_str::<Value>(&said.out).ok());
            let peers = status.unwrap_or_default()["peers"].clone();
            let peers = peers.as_array().cloned().unwrap_or_default();
            !peers.is_empty() && peers.iter().all(|peer| peer["linked"] == Value::Bool(true))
        })
    }

    fn unpause(&mut self) -> Result<(), String> {
        for name in self.names.clone() {
            let role = self.role(name).unwrap_or_default();
            if role["paused"] == Value::Bool(true) {
                self.ask(name, &["pause", "web", "--off"]);
            }
        }
        Ok(())
    }

    fn resolve(&mut self, conflict: &[&'static str], up: &[&'static str], turn: usize) {
        let all = [up, conflict, &self.names.clone()[..]].concat();
        let keep = all[(turn - 1) % all.len()];
        // First who gives way.
        let order = conflict.iter().filter(|name| **name != keep);
        for name in order.chain(&[keep]) {
            self.ask(name, &["resolve", "web", "--keep", keep]);
        }
    }

    pub fn active(&mut self) -> &'static str {
        let names = self.names.clone();
        let mut active = names
            .into_iter()
            .filter(|name| self.state(name) == "active");
        active.next().unwrap_or(self.names[0])
    }

    /// What went wrong, with every log.
    pub fn told(&mut self, what: &str) -> String {
        let mut text = format!("{what}; fallen at {:?}", self.fallen);
        for name in self.names.clone() {
            let state = self.state(name);
            let log = self.stage.node(name).log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(70)..];
            text += &format!("\n--- {name} is {state}\n{}", last.join("\n"));
        }
        text
    }
}

/// The words behind a flag in a hint.
fn after(text: &str, flag: &str) -> Vec<String> {
    let behind = text.split(flag).skip(1);
    let words = behind.filter_map(|rest| rest.split_whitespace().next());
    words.map(str::to_owned).collect()
}

/// Stopped itself: its first thread, and so all.
fn is_frozen(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next();
    state.is_some_and(|rest| rest.starts_with(" T"))
}

/// Kills everything that was started for a node: its directory is among the words of each.
fn slay(dir: &Path) {
    let dir = dir.to_str().unwrap().to_owned();
    let words = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let ours = |pid: &u32| {
        let words = words(*pid);
        let text = String::from_utf8_lossy(&words);
        text.contains(&dir) && *pid != std::process::id()
    };
    loop {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let found: Vec<u32> = pids.filter(ours).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                // Gone already is what was wanted.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Names in a directory; none where it is not there.
pub fn entries(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}
