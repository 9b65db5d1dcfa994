//! standin, as it is used: a daemon for each node, paired over TLS, told by `standin run` to take a point and send it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use standin::peer::identity::Identity;

use crate::gauge::Group;
use crate::support::address::free_address;

/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(120);

/// One node.
pub struct Node {
    pub name: String,
    pub address: String,
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

/// A role in the config of a node.
pub struct Role {
    pub name: String,
    /// Where its one dataset lives.
    pub live: PathBuf,
}

impl Node {
    /// Its config names all `peers`; `inside` are words in front of the daemon's command.
    pub fn start(
        group: &Group,
        name: &str,
        listen: Option<String>,
        peers: &[&str],
        roles: &[Role],
        inside: &[String],
    ) -> Node {
        let dir = tempfile::Builder::new()
            .prefix("standin-bench-")
            .tempdir()
            .unwrap();
        let mut node = Node {
            name: name.to_owned(),
            address: listen.unwrap_or_else(|| free_address().to_string()),
            dir,
            daemon: None,
        };
        let at = |file: &str| node.dir.path().join(file).display().to_string();
        let mut text = format!(
            "[node]\nname = \"{name}\"\nlisten = \"{}\"\nstate-dir = \"{}\"\ncontrol = \"{}\"\nreserve = \"32MiB\"\n",
            node.address,
            at("state"),
            at("control.sock"),
        );
        for peer in peers {
            text += &format!("[peer.{peer}]\n");
        }
        let quoted: Vec<String> = match name {
            "alder" => peers.iter().map(|peer| format!("\"{peer}\"")).collect(),
            _ => vec!["\"alder\"".to_owned()],
        };
        for role in roles {
            text += &format!(
                "[role.{}]\nhome = \"alder\"\npeers = [{}]\nevery = \"manual\"\nkeep = {{ last = 1000 }}\n[role.{}.dataset.data]\nbtrfs = \"{}\"\n",
                role.name,
                quoted.join(", "),
                role.name,
                role.live.display(),
            );
        }
        fs::create_dir(at("state")).unwrap();
        fs::write(node.config(), text).unwrap();
        Identity::create(&node.dir.path().join("state/node.key")).unwrap();
        let mut words: Vec<String> = inside.to_vec();
        words.extend([env!("CARGO_BIN_EXE_standin"), "--config"].map(str::to_owned));
        words.push(node.config().display().to_string());
        words.push("serve".to_owned());
        let log = fs::File::create(at("log")).unwrap();
        let mut command = group.command(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        node.daemon = Some(command.spawn().unwrap());
        node.wait("its daemon answers", || node.ask(&["status"]).is_some());
        node
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("standin.toml")
    }

    fn command(&self, program: &mut Command, args: &[&str]) -> Option<Value> {
        program
            .arg("--config")
            .arg(self.config())
            .arg("--json")
            .args(args);
        let output = program.stdin(Stdio::null()).output().unwrap();
        let value = serde_json::from_slice(&output.stdout).ok();
        value.filter(|_| output.status.success())
    }

    pub fn ask(&self, args: &[&str]) -> Option<Value> {
        self.command(&mut Command::new(env!("CARGO_BIN_EXE_standin")), args)
    }

    /// `standin run`, in the group: until every peer holds the point.
    pub fn cycle(&self, group: &Group) {
        let mut program = group.command(env!("CARGO_BIN_EXE_standin"));
        let said = self.command(&mut program, &["run"]);
        assert!(
            said.is_some(),
            "a cycle failed on {}:\n{}",
            self.name,
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            let more = began.elapsed() < PATIENCE;
            assert!(
                more,
                "{}: gave up waiting until {what}\n{}",
                self.name,
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn pair_with(&self, other: &Node) {
        let said = other.ask(&["pair", "invite"]).expect("an invitation");
        self.ask(&["pair", "accept", said["line"].as_str().unwrap()])
            .expect("paired");
    }

    /// Until links to all peers are up.
    pub fn wait_linked(&self) {
        self.wait("its links are up", || {
            let status = self.ask(&["status"]).unwrap_or_default();
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            peers.iter().all(|peer| peer["linked"] == Value::Bool(true))
        });
    }

    /// The newest snapshot of the role on the filesystem mounted at `top`.
    pub fn newest(top: &Path, role: &str) -> PathBuf {
        let points = fs::read_dir(top.join(".standin").join(role)).unwrap();
        let mut names: Vec<PathBuf> = points.map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.join("data").is_dir());
        names.sort();
        names.pop().expect("a point").join("data")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        let _ = daemon.wait();
    }
}
