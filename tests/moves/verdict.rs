//! What must hold of nodes that were healed: judged from disks and state databases, not by what a verb says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use standin::logic::line::Line;
use standin::logic::point::PointId;

use crate::ordeal::{Ordeal, entries};
use crate::stage::FILES;
use crate::support::cluster::TestNode;
use crate::support::same;

/// What follows from the last cycle has to be on every disk by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// A cycle that was cut by late trouble is asked for again.
const CYCLES_MOST: usize = 6;

impl Ordeal {
    /// One is active and serves, all others follow its line and hold its newest point, nothing is left half done.
    pub fn judge(&mut self) -> Result<&'static str, String> {
        let active = self.cycled()?;
        let begun = Instant::now();
        // Cycles go on: it is about the points up to this one, and one that came after it.
        let (_, newest) = known(self.stage.node(active))?;
        let newest = newest.ok_or("the active node has no point")?;
        while let Err(why) = self.settled(active, &newest) {
            if begun.elapsed() > SETTLED_WITHIN {
                return Err(self.told(&why));
            }
            self.tick();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.writes(active)?;
        if self.sent_whole_since() > 0 {
            return Err(self.told("a point was sent whole to a node that had one"));
        }
        for name in self.names.clone() {
            let log = self.stage.node(name).log();
            for word in ["panicked", "ended early", "damaged, taken as absent"] {
                if log.contains(word) {
                    return Err(self.told(&format!("the log of {name} says {word:?}")));
                }
            }
        }
        match self.watch.twice().as_slice() {
            [] => Ok(active),
            twice => Err(self.told(&format!(
                "the service ran on {} at one moment, {} times",
                twice[0],
                twice.len()
            ))),
        }
    }

    /// A cycle reaches everybody. Trouble that was armed may come only now: then it is healed once more.
    fn cycled(&mut self) -> Result<&'static str, String> {
        let mut last = None;
        for _ in 0..CYCLES_MOST {
            self.heal()?;
            let active = self.active();
            let said = self.ask(active, &["run", "--attach", "web"]);
            if said.as_ref().is_some_and(|said| said.code == 0) {
                // It may have moved once more, when somebody fell in the cycle.
                self.heal()?;
                if self.active() == active {
                    return Ok(active);
                }
            }
            last = said;
        }
        Err(self.told(&format!("no cycle reaches everybody: {last:?}")))
    }

    fn settled(&mut self, active: &str, newest: &PointId) -> Result<(), String> {
        let (line, _) = known(self.stage.node(active))?;
        let all = points(self.stage.node(active))?.into_iter();
        let mut common: Vec<PointId> = all.map(|(_, point)| point).collect();
        for node in &self.stage.nodes {
            let name = node.name;
            let (theirs, _) = known(node)?;
            if theirs != line {
                return Err(format!(
                    "the line of {name} is {theirs:?}, that of {active} {line:?}"
                ));
            }
            let points = points(node)?;
            if let Some(off) = points.iter().find(|(_, point)| !line.contains(point)) {
                return Err(format!("{} on {name} is not of the line {line:?}", off.0));
            }
            common.retain(|point| points.iter().any(|(_, theirs)| theirs == point));
            let left: Vec<String> = [".staging/web", ".trash"]
                .into_iter()
                .flat_map(|room| entries(&node.disk.path().join(".standin").join(room)))
                .collect();
            let over = |name: &String| rank_of(name).is_none_or(|rank| rank <= newest.rank());
            let left: Vec<String> = left.into_iter().filter(over).collect();
            if !left.is_empty() {
                return Err(format!("{left:?} is left on {name}"));
            }
            let live = node.live(FILES).join("records").exists();
            if live != (name == active) {
                return Err(format!("live data on {name}: {live}"));
            }
        }
        let last = common.iter().max_by_key(|point| point.rank());
        match last.filter(|last| last.rank() >= newest.rank()) {
            Some(last) => self.same_trees(active, last),
            None => Err(format!(
                "nobody but {active} holds {newest} or what came after it: all have {last:?}"
            )),
        }
    }

    fn same_trees(&self, active: &str, newest: &PointId) -> Result<(), String> {
        let dir = |node: &TestNode| -> Result<_, String> {
            let found = points(node)?.into_iter().find(|(_, point)| point == newest);
            let (name, _) = found.ok_or("no such point")?;
            Ok(node.points_dir().join(name).join(FILES))
        };
        let ours = dir(self.stage.node(active))?;
        for node in &self.stage.nodes {
            if let Some(difference) = same::difference(&ours, &dir(node)?) {
                return Err(format!("{newest} on {} differs: {difference}", node.name));
            }
        }
        Ok(())
    }

    /// The service of the active node, and of no other, writes.
    fn writes(&mut self, active: &'static str) -> Result<(), String> {
        if self
            .names
            .iter()
            .any(|name| *name != active && self.watch.runs(name))
        {
            return Err(self.told("the service runs on a node that stands in"));
        }
        self.stage.wait_written(active, 2);
        Ok(())
    }

    /// Ends everything: every record that was on disk is in the line or in a fork, none twice in the line.
    pub fn records(mut self) -> Result<(usize, usize), String> {
        let active = self.judge()?;
        let records = self.stage.records(active);
        if let Err(why) = records.judged() {
            return Err(self.told(&why));
        }
        Ok((records.written.len(), records.forked()))
    }
}

/// Of the point whose staging has this name; none for anything else.
fn rank_of(name: &str) -> Option<(u64, u64)> {
    let mut parts = name.rsplit('.');
    let sequence = parts.next()?.parse().ok()?;
    Some((parts.next()?.parse().ok()?, sequence))
}

/// The line that a node remembers, and its newest point of it.
fn known(node: &TestNode) -> Result<(Line, Option<PointId>), String> {
    let path = node.dir.join("state/state.sqlite");
    let database = rusqlite::Connection::open(path).map_err(|e| e.to_string())?;
    let query = "SELECT line FROM role WHERE name = 'web'";
    let text: String = database
        .query_row(query, [], |row| row.get(0))
        .map_err(|e| format!("the line of {}: {e}", node.name))?;
    let line: Line = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let newest = points(node)?.into_iter().map(|(_, point)| point);
    let newest = newest
        .filter(|point| line.contains(point))
        .max_by_key(PointId::rank);
    Ok((line, newest))
}

/// The directories of points, and what their manifests say.
fn points(node: &TestNode) -> Result<Vec<(String, PointId)>, String> {
    let dir = node.points_dir();
    let names = entries(&dir)
        .into_iter()
        .filter(|name| !name.starts_with('.'));
    names
        .map(|name| Ok((name.clone(), point(&dir.join(name))?)))
        .collect()
}

fn point(dir: &Path) -> Result<PointId, String> {
    let text = fs::read_to_string(dir.join(".manifest.json"));
    let text = text.map_err(|e| format!("{}: {e}", dir.display()))?;
    let manifest: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    serde_json::from_value(manifest["point"].clone()).map_err(|e| e.to_string())
}
