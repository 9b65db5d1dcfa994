//! Two daemons on a wire, the trouble of a plan, and everything that was said and seen meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Plan;
use crate::support::cluster::{MANUAL, MIB, TestNode, btrfs, fill, noise};
use crate::support::same::assert_same;
use crate::support::wire::{ADDRESSES, Quality, Seen, WAYS, Way, Wire};

/// No case takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at both daemons.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Alder is end 0 and sends; birch is end 1. The daemons end before the wire.
pub struct Nodes {
    pub alder: TestNode,
    pub birch: TestNode,
    pub wire: Arc<Wire>,
}

impl Nodes {
    /// Paired over a good line, with one small point on both; then the line is as the plan says.
    pub fn new(plan: &Plan, seed: u64) -> Nodes {
        let wire = Arc::new(Wire::new(Quality::default(), seed));
        wire.congestion(plan.congestion);
        let mut alder = TestNode::new("alder", 1024 * MIB);
        let mut birch = TestNode::new("birch", 1024 * MIB);
        for (end, node) in [&mut alder, &mut birch].into_iter().enumerate() {
            node.inside = wire.inside(end);
            node.address = format!("{}:7321", ADDRESSES[end]).parse().unwrap();
        }
        // Checkpoints as often as a line of this kind needs them; the rest as delivered.
        let often = "checkpoint = { bytes = \"1MiB\", every = \"5s\" }";
        alder.configure("birch", &["files"], often, MANUAL);
        birch.configure("alder", &["files"], often, MANUAL);
        for node in [&mut alder, &mut birch] {
            fs::create_dir_all(node.disk.path().join("srv")).unwrap();
            node.make_key();
        }
        btrfs(&["subvolume", "create", alder.live("files").to_str().unwrap()]);
        alder.start();
        birch.start();
        let said = birch.run(&["pair", "invite", "--json"]).ok().json();
        let line = said["line"].as_str().unwrap().to_owned();
        alder.run(&["pair", "accept", &line]).ok();
        let nodes = Nodes { alder, birch, wire };
        nodes.alder.wait_for("the link is up", || {
            linked(&nodes.alder.status()) && linked(&nodes.birch.status())
        });
        fill(&nodes.alder.live("files"), 5, 1000, seed);
        nodes.alder.run(&["run"]).ok();
        nodes.wire.set(Way::There, plan.there);
        nodes.wire.set(Way::Back, plan.back);
        nodes
    }

    fn node(&self, end: usize) -> &TestNode {
        [&self.alder, &self.birch][end]
    }
}

pub fn linked(status: &Value) -> bool {
    status["peers"][0]["linked"] == true
}

/// One look at one daemon.
pub struct Sample {
    /// 0: alder, 1: birch.
    pub end: usize,
    /// Before the question and after the answer.
    pub asked: Instant,
    pub told: Instant,
    pub status: Value,
    /// What the wire had seen when the answer was there: There, Back.
    pub seen: [Seen; 2],
    /// Whether the point was on birch's disk when alder's answer was there.
    pub stored: bool,
}

pub struct Cut {
    pub from: Instant,
    /// None: still cut at the end.
    pub to: Option<Instant>,
}

pub struct Told {
    pub point: String,
    /// The point both had before.
    pub base: String,
    pub begun: Instant,
    pub took: Duration,
    pub samples: Vec<Sample>,
    pub cuts: Vec<Cut>,
    /// What the wire saw before and after.
    pub seen: ([Seen; 2], [Seen; 2]),
    pub bytes: usize,
}

impl Told {
    /// Bytes alder sent, for each byte of the files.
    pub fn cost(&self) -> f64 {
        let (before, after) = &self.seen;
        (after[0].sent - before[0].sent) as f64 / self.bytes as f64
    }

    /// How often a link was seen to go down, on either side.
    pub fn losses(&self) -> usize {
        let mut losses = 0;
        for end in [0, 1] {
            let of_end = self.samples.iter().filter(|sample| sample.end == end);
            let states: Vec<bool> = of_end.map(|sample| linked(&sample.status)).collect();
            losses += states.windows(2).filter(|two| two[0] && !two[1]).count();
        }
        losses
    }
}

/// Writes the data, asks for a cycle, makes trouble and looks, until birch holds the point; compares the trees.
pub fn transfer(nodes: &mut Nodes, plan: &Plan) -> Result<Told, String> {
    let base = nodes.alder.points().pop().unwrap();
    let live = nodes.alder.live("files");
    for part in 0..4 {
        let data = noise(part as u64 + 77, plan.bytes / 4);
        fs::write(live.join(format!("part{part}")), data).unwrap();
    }
    let seen = || WAYS.map(|way| nodes.wire.seen(way));
    let (begun, before) = (Instant::now(), seen());
    let over = Arc::new(AtomicBool::new(false));
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let trouble = {
        let (wire, plan, over, cuts) =
            (nodes.wire.clone(), plan.clone(), over.clone(), cuts.clone());
        std::thread::spawn(move || trouble(&wire, &plan, &over, &cuts))
    };
    // It ends as the line lets it; what it says is not judged, what came of it is.
    let mut asked = nodes.alder.command(&["run", "--json"]);
    asked.stdout(std::process::Stdio::null());
    asked.stderr(std::process::Stdio::null());
    let mut asked = asked.spawn().unwrap();
    let looked = look_until_stored(nodes, &base, begun);
    let (took, after) = (begun.elapsed(), seen());
    over.store(true, Ordering::SeqCst);
    trouble.join().unwrap();
    WAYS.into_iter().for_each(|way| nodes.wire.mend(way));
    let (samples, point) = match looked {
        Ok(looked) => looked,
        Err(why) => {
            let _ = asked.kill();
            let _ = asked.wait();
            let logs = [0, 1].map(|end| format!("{}:\n{}", end, nodes.node(end).log()));
            return Err(format!("{why}\n{}", logs.join("\n")));
        }
    };
    asked.wait().unwrap();
    let (ours, theirs) = (
        nodes.alder.snapshot(&point, "files"),
        nodes.birch.snapshot(&point, "files"),
    );
    assert_same(&ours, &theirs, &point);
    let cuts = std::mem::take(&mut *cuts.lock().unwrap());
    Ok(Told {
        point,
        base,
        begun,
        took,
        samples,
        cuts,
        seen: (before, after),
        bytes: plan.bytes,
    })
}

/// Looks at both daemons, and at birch's disk, until the point is there; then once more, when alder knows it, too.
fn look_until_stored(
    nodes: &Nodes,
    base: &str,
    begun: Instant,
) -> Result<(Vec<Sample>, String), String> {
    let mut samples = Vec::new();
    let mut point = None;
    loop {
        let round = Instant::now();
        let mut known = false;
        for end in [0, 1] {
            let asked = Instant::now();
            let status = nodes.node(end).status();
            if end == 0 && point.is_none() {
                let newest = status["roles"][0]["newest"]["short"].as_str().unwrap();
                point = (newest != base).then(|| newest.to_owned());
            }
            let told = Instant::now();
            let stored = point.as_deref().is_some_and(|point| on_disk(nodes, point));
            known |= end == 0 && stored && status["roles"][0]["replicas"][0]["behind"] == 0;
            samples.push(Sample {
                end,
                asked,
                told,
                status,
                seen: WAYS.map(|way| nodes.wire.seen(way)),
                stored,
            });
        }
        if let (true, Some(point)) = (known, point.clone()) {
            return Ok((samples, point));
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("not stored within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY.saturating_sub(round.elapsed()));
    }
}

fn on_disk(nodes: &Nodes, point: &str) -> bool {
    let entries = fs::read_dir(nodes.birch.points_dir());
    let ending = format!("Z.{point}");
    entries
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().ends_with(&ending))
}

fn trouble(wire: &Wire, plan: &Plan, over: &AtomicBool, cuts: &Mutex<Vec<Cut>>) {
    let begun = Instant::now();
    // False when it is over before.
    let until = |at: Instant| {
        while Instant::now() < at && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        !over.load(Ordering::SeqCst)
    };
    // The first comes while the transfer is young.
    let mut from = begun + Duration::from_secs(3);
    for _ in 0..plan.cuts.count {
        if !until(from) {
            return;
        }
        plan.cuts.ways.iter().for_each(|way| wire.cut(*way));
        let cut = Cut {
            from: Instant::now(),
            to: None,
        };
        cuts.lock().unwrap().push(cut);
        if !until(from + plan.cuts.long) {
            return;
        }
        plan.cuts.ways.iter().for_each(|way| wire.mend(*way));
        if let Some(cut) = cuts.lock().unwrap().last_mut() {
            cut.to = Some(Instant::now());
        }
        from += plan.cuts.every;
    }
}
