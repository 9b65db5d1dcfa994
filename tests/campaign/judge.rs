//! What must hold of the two nodes of a course, at every moment and at the end of a round.
//!
//! Looked at with nobody's help: directories, read-only marks, manifests. Trees are compared by tar and find. What the
//! receiver says of its transfers is in `attempts`, with the relay's own count against it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::attempts::{self, Attempts};
use crate::case::Case;
use crate::course::{Course, question, remains, sequence};
use crate::support::cluster::TestNode;
use crate::support::proxy::{Proxy, Way};
use crate::support::same;

/// What was seen of the nodes so far.
pub struct Seen {
    interval: u64,
    keep: usize,
    /// Manifest of every point ever seen, by its sequence.
    manifests: BTreeMap<u64, String>,
    /// Points that were visible, by node.
    listed: BTreeMap<&'static str, Vec<u64>>,
    /// A round was finished: from then on both nodes have a point in common.
    shared: bool,
    /// What the newest connection had carried when the round began, and all connections.
    carried: [u64; 2],
    /// Bytes of birch's log when the round began.
    log: usize,
}

/// Lines of [node] for checkpoints so far apart.
pub fn interval_text(interval: u64) -> String {
    format!(
        "checkpoint = {{ bytes = \"{}KiB\", every = \"1h\" }}",
        interval >> 10
    )
}

impl Seen {
    pub fn new(interval: u64, keep: usize) -> Seen {
        Seen {
            interval,
            keep,
            manifests: BTreeMap::new(),
            listed: BTreeMap::new(),
            shared: false,
            carried: [0; 2],
            log: 0,
        }
    }

    pub fn begin(&mut self, link: &Proxy) {
        self.carried = [
            link.newest_carried(Way::ToTarget),
            link.carried(Way::ToTarget),
        ];
    }

    /// Names in the directory of points, oldest first.
    pub fn names(&self, node: &TestNode) -> Vec<String> {
        let entries = fs::read_dir(node.points_dir())
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_by_key(|name| sequence(name));
        names
    }

    /// Every visible point is whole, is what it was, and none that must stay has gone.
    fn visible(&mut self, node: &TestNode) -> Result<(), String> {
        let names = self.names(node);
        for name in &names {
            let dir = node.points_dir().join(name);
            match whole(&dir, node.name == "birch") {
                Ok(manifest) => self.remember(sequence(name), manifest, node)?,
                // Pruned while it was looked at.
                Err(_) if !dir.exists() => {}
                Err(why) => return Err(format!("{name} on {}: {why}", node.name)),
            }
        }
        let here: Vec<u64> = names.iter().map(|name| sequence(name)).collect();
        let listed = self.listed.entry(node.name).or_default();
        for sequence in &here {
            if !listed.contains(sequence) {
                listed.push(*sequence);
            }
        }
        listed.sort_unstable();
        let must_stay = &listed[listed.len().saturating_sub(self.keep)..];
        match must_stay.iter().find(|sequence| !here.contains(sequence)) {
            Some(gone) => Err(format!(
                "point 1.{gone} is gone from {}: {here:?}",
                node.name
            )),
            None => Ok(()),
        }
    }

    fn remember(&mut self, sequence: u64, manifest: String, node: &TestNode) -> Result<(), String> {
        let newest = self.manifests.keys().next_back().copied().unwrap_or(0);
        match self.manifests.get(&sequence) {
            Some(known) if *known == manifest => Ok(()),
            Some(known) => Err(format!(
                "two points are 1.{sequence}: {known} and {manifest}"
            )),
            None if sequence <= newest || node.name == "birch" => Err(format!(
                "1.{sequence} came to {} after 1.{newest} was seen",
                node.name
            )),
            None => {
                self.manifests.insert(sequence, manifest);
                Ok(())
            }
        }
    }
}

/// The manifest of a point whose parts are all there.
fn whole(dir: &Path, received: bool) -> Result<String, String> {
    let read = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).map_err(|e| format!("{name}: {e}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
        Ok::<_, String>((text, value))
    };
    let (text, manifest) = read(".manifest.json")?;
    let (_, local) = read(".local.json")?;
    let datasets = manifest["datasets"].as_object().ok_or("no datasets")?;
    for (dataset, facts) in datasets {
        let path = dir.join(dataset);
        let info = libbtrfsutil::subvolume_info(&path).map_err(|e| format!("{dataset}: {e}"))?;
        let read_only = libbtrfsutil::subvolume_read_only(&path).unwrap_or(false);
        let identity = if received {
            info.received_uuid()
        } else {
            Some(info.uuid())
        };
        let identity = identity.map(|uuid| uuid.to_string());
        if !read_only || identity.as_deref() != facts["identity"].as_str() {
            return Err(format!("{dataset} is writable, or {identity:?}"));
        }
        if local["datasets"][dataset].is_null() {
            return Err(format!("{dataset} has no local facts"));
        }
    }
    Ok(text)
}

impl Course {
    /// What must hold at every moment, whoever is dead.
    pub fn judge_now(&mut self) -> Result<(), String> {
        // First the standby: what it shows was taken before.
        let (names, theirs) = (
            self.seen.names(&self.pair.alder),
            self.seen.names(&self.pair.birch),
        );
        let judged = self
            .seen
            .visible(&self.pair.alder)
            .and_then(|()| self.seen.visible(&self.pair.birch));
        judged.map_err(|why| self.told(&why))?;
        self.judge_attempts()?;
        let common: Vec<&String> = names.iter().filter(|name| theirs.contains(name)).collect();
        if self.seen.shared && common.is_empty() {
            return Err(self.told("no base is left on both nodes"));
        }
        // The newest one: others may be pruned while they are compared.
        if let Some(name) = common.last().map(|name| (*name).clone()) {
            self.same_tree(&name)?;
        }
        Ok(())
    }

    /// What the logs tell of the transfers of this round.
    fn judge_attempts(&mut self) -> Result<Attempts, String> {
        let log = self.pair.birch.log();
        let attempts = attempts::read(&log[self.seen.log..], self.seen.interval);
        let attempts = attempts.map_err(|why| self.told(&why))?;
        for node in [&self.pair.alder, &self.pair.birch] {
            for word in [
                "start again from the first byte",
                "panicked",
                "damaged, taken as absent",
            ] {
                if node.log().contains(word) {
                    return Err(self.told(&format!("the log of {} says {word:?}", node.name)));
                }
            }
        }
        Ok(attempts)
    }

    /// What must hold when a round is over.
    pub fn judge_round(&mut self, case: &mut Case) -> Result<(), String> {
        self.seen.shared = true;
        self.judge_now()?;
        let names = self.seen.names(&self.pair.alder);
        for name in &names {
            self.same_tree(name)?;
        }
        let newest = names.last().cloned().unwrap_or_default();
        for dataset in &self.datasets {
            let live = self.pair.alder.live(dataset);
            let taken = self.pair.alder.points_dir().join(&newest).join(dataset);
            if let Some(difference) = same::difference(&live, &taken) {
                return Err(self.told(&format!("live {dataset} is not {newest}: {difference}")));
            }
            let standing = fs::read_dir(self.pair.birch.live(dataset)).unwrap().count();
            let canary = fs::read(self.pair.birch.live(dataset).join("canary"));
            if standing != 1 || canary.unwrap() != dataset.as_bytes() {
                return Err(self.told("the live place of the standby was touched"));
            }
        }
        self.judge_lists(&newest)?;
        self.judge_wire(case, &newest)?;
        let left = [remains(&self.pair.alder), remains(&self.pair.birch)].concat();
        if !left.is_empty() {
            return Err(self.told(&format!("remains: {left:?}")));
        }
        self.seen.log = self.pair.birch.log().len();
        Ok(())
    }

    /// The program lists what the disk shows, and pins the base.
    fn judge_lists(&mut self, newest: &str) -> Result<(), String> {
        let mut lists = Vec::new();
        for node in [&mut self.pair.alder, &mut self.pair.birch] {
            let said = question(node, &["points", "web", "--json"]).unwrap_or_default();
            let points = said["roles"][0]["points"].as_array().cloned();
            let points = points.unwrap_or_default();
            let names: Vec<String> = points
                .iter()
                .filter_map(|point| Some(point["name"].as_str()?.to_owned()))
                .collect();
            lists.push((node.name, names, points));
        }
        for (node, names, _) in &lists {
            let of = if *node == "alder" {
                &self.pair.alder
            } else {
                &self.pair.birch
            };
            if *names != self.seen.names(of) {
                return Err(self.told(&format!("{node} lists {names:?}")));
            }
        }
        let base = lists[0].2.iter().find(|point| {
            let pinned = point["pinned"].as_array();
            pinned.is_some_and(|pins| pins.iter().any(|pin| pin == "base of birch"))
        });
        match base.and_then(|base| base["name"].as_str()) {
            Some(base) if base == newest && lists[1].1.iter().any(|name| name == base) => Ok(()),
            base => Err(self.told(&format!("the base is {base:?}, the newest point {newest}"))),
        }
    }

    /// The relay's own count of the last connection against what the receiver says it began with. Whoever sends something
    /// twice and does not say so is found out here.
    fn judge_wire(&mut self, case: &mut Case, newest: &str) -> Result<(), String> {
        let attempts = self.judge_attempts()?;
        let point = format!("1.{}", sequence(newest));
        let path = self
            .pair
            .birch
            .points_dir()
            .join(newest)
            .join(".local.json");
        let local: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let mut whole = 0;
        let mut claimed = 0;
        for dataset in &self.datasets {
            let size = local["datasets"][dataset]["stream_bytes"].as_u64().unwrap();
            whole += size;
            let last = attempts.last(&format!("{dataset} of {point}"));
            let Some(last) = last.filter(|last| last.on_newest_link) else {
                continue;
            };
            claimed += size - last.from;
        }
        let mut carried = self.pair.link.newest_carried(Way::ToTarget);
        if attempts.links == 0 {
            carried -= self.seen.carried[0];
        }
        // Frames, records and heartbeats, offers with their lists of flags, other points that were sent before this one.
        let others = attempts.other_than(&point);
        let most = claimed + others + claimed / 50 + (256 << 10);
        if carried > most {
            return Err(self.told(&format!(
                "{carried} bytes went over the last connection, at most {most} were to go"
            )));
        }
        // Noise does not shrink, so nothing was applied that did not come, whatever the receiver says.
        let came = self.pair.link.carried(Way::ToTarget) - self.seen.carried[1];
        let applied = attempts.applied();
        if self.is_noise && applied > came + came / 20 {
            return Err(self.told(&format!("{applied} bytes were applied of {came} that came")));
        }
        case.count_more("KiB of streams", whole >> 10);
        case.count_more("KiB received again after a kill", attempts.again >> 10);
        Ok(())
    }

    fn same_tree(&self, name: &str) -> Result<(), String> {
        for dataset in &self.datasets {
            let [ours, theirs] = [&self.pair.alder, &self.pair.birch]
                .map(|node| node.points_dir().join(name).join(dataset));
            // Retention may have let it go a moment ago.
            if !ours.exists() || !theirs.exists() {
                continue;
            }
            if let Some(difference) = same::difference(&ours, &theirs) {
                return Err(self.told(&format!("{dataset} of {name} differs: {difference}")));
            }
        }
        Ok(())
    }
}
