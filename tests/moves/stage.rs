//! Nodes of one role, all paired with each other, each with a service that writes numbered records to the live data and notes
//! elsewhere which of them are on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::cluster::{MIB, TestNode};
use crate::support::pool;
use crate::support::proxy::Proxy;

pub const FILES: &str = "files";

pub struct Stage {
    pub nodes: Vec<TestNode>,
    /// The links, where every byte between two nodes goes through a relay.
    pub relays: Vec<Proxy>,
}

/// What was written where, after everything.
pub struct Records {
    /// Each record that a service noted as on disk.
    pub written: Vec<String>,
    /// Those in the live data of the active node, in order.
    pub line: Vec<String>,
    /// Those in forks, by node.
    pub forks: BTreeMap<String, Vec<String>>,
}

impl Stage {
    /// `role` are further lines of [role.web]; `datasets` beside `files`.
    pub fn new(names: &[&'static str], datasets: &[&str], role: &str) -> Stage {
        let nodes = names.iter().map(|name| TestNode::new(name, 1024 * MIB));
        Stage::of(nodes.collect(), datasets, role, false)
    }

    /// The same of nodes that were made before, the home first; `relayed`: links can be cut.
    pub fn of(mut nodes: Vec<TestNode>, datasets: &[&str], role: &str, relayed: bool) -> Stage {
        let names: Vec<&'static str> = nodes.iter().map(|node| node.name).collect();
        let mut relays = Vec::new();
        for at in 0..nodes.len() {
            let peers: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| *name != names[at])
                .collect();
            configure(&nodes[at], &peers, datasets, role);
        }
        let home = &nodes[0];
        for dataset in datasets.iter().chain(&[FILES]) {
            home.create_live(dataset);
        }
        for node in &mut nodes {
            node.make_key();
            node.start();
        }
        for inviting in 0..nodes.len() {
            for accepting in inviting + 1..nodes.len() {
                let (host, guest) = (&nodes[inviting], &nodes[accepting]);
                if relayed {
                    relays.push(Proxy::to(host.address));
                }
                let relay = relayed.then(|| relays.last()).flatten();
                pair(host, guest, relay);
            }
        }
        let stage = Stage { nodes, relays };
        stage.wait_linked();
        stage
    }

    pub fn node(&self, name: &str) -> &TestNode {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    pub fn node_mut(&mut self, name: &str) -> &mut TestNode {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .unwrap()
    }

    #[track_caller]
    pub fn wait_linked(&self) {
        for node in self.nodes.iter().filter(|node| node.is_started()) {
            node.wait_for("its links are up", || {
                let status = node.status();
                let peers = status["peers"].as_array().unwrap();
                let up = peers
                    .iter()
                    .filter(|peer| peer["linked"] == Value::Bool(true));
                up.count() + 1 == self.nodes.iter().filter(|node| node.is_started()).count()
            });
        }
    }

    #[track_caller]
    pub fn wait_state(&self, name: &str, state: &str) {
        let node = self.node(name);
        node.wait_for(&format!("it is {state}"), || node.role()["state"] == state);
    }

    /// Who is active, as each node that runs sees itself.
    pub fn active(&self) -> Vec<&'static str> {
        let up = self.nodes.iter().filter(|node| node.is_started());
        let active = up.filter(|node| node.role()["state"] == "active");
        active.map(|node| node.name).collect()
    }

    /// The machine dies: daemon and services, at once.
    pub fn die(&mut self, name: &str) {
        let node = self.node_mut(name);
        node.kill();
        let pid = home(node).join("pid");
        if let Ok(pid) = fs::read_to_string(&pid) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
        let _ = fs::remove_file(pid);
    }

    /// Waits until the service of a node has written `count` more records.
    #[track_caller]
    pub fn wait_written(&self, name: &str, count: usize) {
        let node = self.node(name);
        let written = || lines(&home(node).join("written")).len();
        let before = written();
        node.wait_for("records are written", || written() >= before + count);
    }

    /// What is in forks now. The line is looked at when nobody writes any more.
    pub fn forks(&self) -> BTreeMap<String, Vec<String>> {
        let all = self.nodes.iter();
        all.map(|node| (node.name.to_owned(), forked(node)))
            .collect()
    }

    /// Stops everything, and looks where every record is.
    pub fn records(&mut self, active: &str) -> Records {
        let forks = self.forks();
        self.end();
        let written = self.nodes.iter();
        Records {
            written: written
                .flat_map(|node| lines(&home(node).join("written")))
                .collect(),
            line: lines(&self.node(active).live(FILES).join("records")),
            forks,
        }
    }

    /// Stops every daemon and service.
    pub fn end(&mut self) {
        for name in self.nodes.iter().map(|node| node.name).collect::<Vec<_>>() {
            if self.node(name).is_started() {
                self.die(name);
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end();
    }
}

/// Through a relay, when there is one: then only the accepting side dials.
fn pair(inviting: &TestNode, accepting: &TestNode, relay: Option<&Proxy>) {
    let address = relay.map(|relay| relay.address.to_string());
    let mut invite = vec!["pair", "invite", "--json"];
    if let Some(address) = &address {
        invite.extend(["--address", address]);
    }
    let attempt = || {
        let said = inviting.run(&invite).ok().json();
        accepting.run(&["pair", "accept", said["line"].as_str().unwrap()])
    };
    match pool::is_given() {
        // An answer within ten seconds is not to be had from an emulated machine each time.
        true => accepting.wait_for("it is paired", || attempt().code == 0),
        false => drop(attempt().ok()),
    }
    if relay.is_some() {
        inviting.edit(&format!("address = \"{}\"\n", accepting.address), "");
        inviting.run(&["reload"]).ok();
    }
}

/// Where the service of a node keeps what is no live data.
pub fn home(node: &TestNode) -> PathBuf {
    node.dir.join("service")
}

fn configure(node: &TestNode, peers: &[&str], datasets: &[&str], role: &str) {
    fs::create_dir_all(node.disk.path().join("srv")).unwrap();
    fs::create_dir_all(home(node)).unwrap();
    let mut all = vec![FILES];
    all.extend(datasets);
    // Pools are given where the whole machine is emulated: a cycle takes seconds.
    let role = match pool::is_given() {
        true => role.replace("every = \"1s\"", "every = \"20s\""),
        false => role.to_owned(),
    };
    node.configure(peers[0], &all, "", &role);
    let mut text = fs::read_to_string(node.config_path()).unwrap();
    let quoted: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
    text = text.replace(
        &format!("peers = [\"{}\"]", peers[0]),
        &format!("peers = [{}]\nservices = [\"writer\"]", quoted.join(", ")),
    );
    for peer in &peers[1..] {
        text += &format!("[peer.{peer}]\n");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/moves/service.sh");
    let (live, home) = (node.live(FILES), home(node));
    let verb = |verb: &str| {
        format!(
            "{verb} = [\"{script}\", \"{verb}\", \"{}\", \"{}\", \"{}\"]\n",
            live.display(),
            home.display(),
            node.name
        )
    };
    text += "[role.web.service.writer]\n";
    for word in ["start", "stop", "health"] {
        text += &verb(word);
    }
    fs::write(node.config_path(), text).unwrap();
}

pub fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The records in the forks of a node: of each fork its newest point, whose file holds those of all before.
fn forked(node: &TestNode) -> Vec<String> {
    let said = node.run(&["fork", "list", "web", "--json"]).ok().json();
    let mut records = Vec::new();
    for fork in said["roles"][0]["forks"].as_array().unwrap() {
        let name = fork["name"].as_str().unwrap();
        let target = node.dir.join(format!("fork-{name}"));
        let shown = target.to_str().unwrap();
        node.run(&["fork", "export", "web", name, shown]).ok();
        records.extend(lines(&target.join(FILES).join("records")));
        fs::remove_dir_all(&target).unwrap();
    }
    records
}

impl Records {
    pub fn forked(&self) -> usize {
        self.forks.values().map(Vec::len).sum()
    }

    /// Every record that was on disk is in the line or in a fork; in the line none is twice.
    #[track_caller]
    pub fn whole(&self) {
        if let Err(why) = self.judged() {
            panic!("{why}");
        }
    }

    pub fn judged(&self) -> Result<(), String> {
        let mut sorted = self.line.clone();
        sorted.sort();
        let count = sorted.len();
        sorted.dedup();
        if sorted.len() != count {
            return Err("a record is in the line twice".to_owned());
        }
        let kept = |record: &String| {
            sorted.binary_search(record).is_ok()
                || self.forks.values().any(|fork| fork.contains(record))
        };
        let lost: Vec<&String> = self.written.iter().filter(|record| !kept(record)).collect();
        if !lost.is_empty() || self.written.is_empty() {
            return Err(format!(
                "{} of {} records are lost: {lost:?}",
                lost.len(),
                self.written.len()
            ));
        }
        Ok(())
    }
}
