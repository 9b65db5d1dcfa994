//! The two nodes of a case, with what is known of them so far: a course of rounds, each a change, a cycle and its trouble.
//!
//! A round is over when the standby shows the newest point of the active node, both have nothing left to do, and staging and
//! trash are empty. Waiting is for conditions; a daemon that stopped itself at a named place, or ended, is told apart first,
//! because nothing else may be asked of it.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::case::Case;
use crate::judge::{Seen, interval_text};
use crate::support::cluster::{MIB, Pair, TestNode, noise};
use crate::support::tree::{Names, Tree};

/// Longest wait for the end of a round, or for the next trouble in it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A cycle that ended before it took its point is asked for again after this time, as a schedule would.
const ASK_AGAIN: Duration = Duration::from_millis(400);

/// A point that was taken gets to the standby by the link's return alone; after this time without trouble it is asked for,
/// and counted.
const STUCK: Duration = Duration::from_secs(20);

/// The limits of links, and the pauses between two attempts to dial, are divided by this.
const HASTE: u32 = 10;

/// What the waiting ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The round is over.
    Done,
    /// A daemon has ended or stopped itself.
    Fell,
    /// What was armed has happened.
    Fired,
}

/// How a daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Runs,
    Frozen,
    Ended,
}

pub struct Course {
    pub pair: Pair,
    pub datasets: Vec<&'static str>,
    /// Points that each node keeps.
    pub keep: usize,
    /// Everything written is noise: no transfer is shorter on the wire than its stream.
    pub is_noise: bool,
    pub seen: Seen,
    /// Set by what was armed.
    pub fired: std::sync::Arc<std::sync::atomic::AtomicBool>,
    pub round: u64,
    seed: u64,
    /// The newest sequence before this round.
    before: u64,
    cycle: Option<Child>,
    asked: Instant,
}

impl Course {
    /// Two fresh nodes, drawn from the case.
    pub fn new(case: &mut Case) -> Course {
        let datasets = case.pick(&[&["files"][..], &["files", "db"]]).to_vec();
        let interval = *case.pick(&[256 << 10, 512 << 10, 1 << 20]);
        let keep = *case.pick(&[2, 3, 100]);
        let mut alder = TestNode::new("alder", 1024 * MIB);
        let mut birch = TestNode::new("birch", 1024 * MIB);
        for node in [&mut alder, &mut birch] {
            node.env.push(("STANDIN_HASTE", HASTE.to_string()));
            let log = "info,standin::daemon::receiving=trace";
            node.env.push(("RUST_LOG", log.to_owned()));
        }
        if case.chance(40) {
            birch
                .env
                .push(("STANDIN_STREAM_VERSION_MAX", "1".to_owned()));
            case.count("cases with streams of version 1");
        }
        let role = format!(
            "every = \"manual\"\nkeep = {{ last = {keep} }}\nkeep-standby = {{ last = {keep} }}"
        );
        let often = interval_text(interval);
        let pair = Pair::of(alder, birch, &datasets, &often, &role);
        for dataset in &datasets {
            // What stands at the live place of a standby is nobody's business.
            fs::create_dir(pair.birch.live(dataset)).unwrap();
            fs::write(pair.birch.live(dataset).join("canary"), dataset).unwrap();
        }
        Course {
            seen: Seen::new(interval, keep),
            pair,
            datasets,
            keep,
            is_noise: case.chance(50),
            fired: Default::default(),
            round: 0,
            seed: case.seed,
            before: 0,
            cycle: None,
            asked: Instant::now(),
        }
    }

    /// Changes the live data; gives about how many bytes.
    pub fn change(&mut self, case: &mut Case) -> u64 {
        self.round += 1;
        let most = if self.round == 1 { 8 * MIB } else { 5 * MIB };
        let mut total = 0;
        for dataset in self.datasets.clone() {
            let live = self.pair.alder.live(dataset);
            if !self.is_noise {
                let times = 20 + case.below(80) as usize;
                Tree::new(&live, case.draw(), Names::Bytes)
                    .without_growth()
                    .change(times);
            }
            let mut left = (MIB + case.below(most)) / self.datasets.len() as u64;
            total += left;
            let mut number = 0;
            while left > 0 {
                let size = (1 + case.below(MIB)).min(left);
                left -= size;
                // A directory of that name may have come to be by chance.
                let file = live.join(format!("noise-{}-{number}", self.round));
                let _ = fs::write(file, noise(case.draw(), size as usize));
                number += 1;
            }
        }
        total
    }

    /// Starts the round's cycle.
    pub fn begin(&mut self) {
        self.seen.begin(&self.pair.link);
        self.before = self.newest(&self.pair.alder);
        self.ask();
    }

    /// In the middle of a round: a newer point, while an older one may be half sent.
    pub fn go_on(&mut self, case: &mut Case) {
        let newest = self.newest(&self.pair.alder);
        if newest <= self.before {
            // It may be taken at this moment: what it holds of the change nobody could tell.
            return;
        }
        self.change(case);
        self.before = newest;
        self.ask();
        case.count("points taken while one was half sent");
    }

    fn ask(&mut self) {
        self.end_cycle();
        let mut command = self.pair.alder.command(&["run", "web"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.cycle = Some(command.spawn().unwrap());
        self.asked = Instant::now();
    }

    fn is_cycle_over(&mut self) -> bool {
        match &mut self.cycle {
            Some(cycle) => cycle.try_wait().unwrap().is_some(),
            None => true,
        }
    }

    fn end_cycle(&mut self) {
        if let Some(mut cycle) = self.cycle.take() {
            // The client; the daemon goes on.
            let _ = cycle.kill();
            cycle.wait().unwrap();
        }
    }

    fn newest(&self, node: &TestNode) -> u64 {
        let names = self.seen.names(node);
        names.iter().map(|name| sequence(name)).max().unwrap_or(0)
    }

    /// Waits until the round is over, a daemon fell, or what was armed has happened.
    pub fn wait(&mut self, case: &mut Case) -> Result<Turn, String> {
        let begun = Instant::now();
        loop {
            let fired = self.fired.swap(false, std::sync::atomic::Ordering::SeqCst);
            if fired || self.fallen() {
                self.asked = Instant::now();
                return Ok(if fired { Turn::Fired } else { Turn::Fell });
            }
            if let Some(turn) = self.look()? {
                return Ok(turn);
            }
            self.ask_again(case);
            if begun.elapsed() > PATIENCE {
                return Err(self.told("the round does not end"));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn fallen(&mut self) -> bool {
        let pair = &mut self.pair;
        [&mut pair.alder, &mut pair.birch]
            .into_iter()
            .any(|node| life(node) != Life::Runs)
    }

    /// Done, when everything is settled.
    fn look(&mut self) -> Result<Option<Turn>, String> {
        let newest = self.newest(&self.pair.alder);
        if newest <= self.before || self.newest(&self.pair.birch) != newest {
            return Ok(None);
        }
        let (alder, birch) = (&self.pair.alder, &self.pair.birch);
        let is_pruned = |node| self.seen.names(node).len() <= self.keep;
        if !is_pruned(birch) || !remains(alder).is_empty() || !remains(birch).is_empty() {
            return Ok(None);
        }
        if !is_pruned(alder) {
            // A cycle prunes at its end: what the base was then is pruned by the next one.
            if self.is_cycle_over() {
                self.ask();
            }
            return Ok(None);
        }
        let pair = &mut self.pair;
        for node in [&mut pair.alder, &mut pair.birch] {
            let Some(status) = question(node, &["status", "--json"]) else {
                return Ok(None);
            };
            let role = &status["roles"][0];
            let behind = role["replicas"][0]["behind"].as_u64().unwrap_or(0);
            let busy = status["transfers"].as_array().is_none_or(|t| !t.is_empty());
            if busy || behind > 0 || !role["phase"].is_null() {
                return Ok(None);
            }
        }
        // What was being sent when somebody was killed is forgotten once the standby says that it has it.
        let points = question(&mut self.pair.alder, &["points", "web", "--json"]);
        if points.is_none_or(|points| points.to_string().contains("half sent")) {
            return Ok(None);
        }
        self.end_cycle();
        Ok(Some(Turn::Done))
    }

    /// The next cycle, where this one has failed and the link's return did not bring the standby up to date.
    fn ask_again(&mut self, case: &mut Case) {
        let over = self.is_cycle_over();
        let is_taken = self.newest(&self.pair.alder) > self.before;
        let pause = if is_taken { STUCK } else { ASK_AGAIN };
        if over && self.asked.elapsed() > pause {
            if is_taken {
                case.count("cycles asked for again although the point was taken");
            }
            self.ask();
        }
    }

    /// What went wrong, with both logs.
    pub fn told(&self, what: &str) -> String {
        let end = |node: &TestNode| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().filter(|l| !l.contains(" applied ")).collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        format!(
            "{what} (seed {}, round {}, alder {:?} {:?}, birch {:?} {:?})\n--- alder\n{}\n--- birch\n{}",
            self.seed,
            self.round,
            self.seen.names(&self.pair.alder),
            remains(&self.pair.alder),
            self.seen.names(&self.pair.birch),
            remains(&self.pair.birch),
            end(&self.pair.alder),
            end(&self.pair.birch)
        )
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        self.end_cycle();
    }
}

/// The sequence in the name of a point.
pub fn sequence(name: &str) -> u64 {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.parse().unwrap_or(0)
}

/// How the daemon of a node is. A stopped child of it counts as the daemon itself.
pub fn life(node: &mut TestNode) -> Life {
    if !node.is_started() {
        return Life::Ended;
    }
    let pid = node.pid();
    let stopped = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" T"))
    };
    if stopped(pid) || family(pid).into_iter().any(stopped) {
        return Life::Frozen;
    }
    let zombie =
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    if zombie { Life::Ended } else { Life::Runs }
}

/// The children of a process.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let Ok(thread) = thread else { continue };
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|c| c.parse::<u32>().ok()),
        );
    }
    found
}

/// What a verb prints, as JSON; none when it fails, or the daemon falls while it is asked.
pub fn question(node: &mut TestNode, args: &[&str]) -> Option<Value> {
    let mut command = node.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let output = child.wait_with_output().unwrap();
            return status
                .success()
                .then(|| serde_json::from_slice(&output.stdout).ok())?;
        }
        if life(node) != Life::Runs {
            let _ = child.kill();
            child.wait().unwrap();
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// What is in the staging of the role and in the trash, directories too.
pub fn remains(node: &TestNode) -> Vec<String> {
    let mut found = Vec::new();
    for room in [".staging/web", ".trash"] {
        let dir = node.disk.path().join(".standin").join(room);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            found.push(format!("{room}/{}", entry.file_name().to_string_lossy()));
        }
    }
    found
}
