//! Two real nodes on this machine: each with a loop btrfs, a config, a daemon and a control socket of its own.
//!
//! Everything goes through the program as a user would type it. Waiting is always for a condition, with a deadline.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::address::free_address;
use super::fixture::Loop;
use super::pool::{self, Plot};
use super::proxy::Proxy;
use super::same::assert_same;

/// Longest wait for any condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestNode {
    pub name: &'static str,
    pub address: SocketAddr,
    pub dir: PathBuf,
    pub disk: Loop,
    /// Where its datasets are, in place of the disk.
    pub plot: Option<Plot>,
    /// What every daemon of this node finds in its environment.
    pub env: Vec<(&'static str, String)>,
    /// Words in front of the daemon's command, such as those that put it into a network namespace; none: none.
    pub inside: Vec<String>,
    daemon: Option<Child>,
}

/// What a run of the program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Said {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

impl TestNode {
    pub fn new(name: &'static str, disk_bytes: u64) -> TestNode {
        TestNode::on(name, Loop::new(disk_bytes))
    }

    pub fn on(name: &'static str, disk: Loop) -> TestNode {
        let dir = tempfile::Builder::new()
            .prefix("standin-node-")
            .tempdir()
            .unwrap()
            .keep();
        let node = TestNode {
            name,
            address: free_address(),
            dir,
            disk,
            plot: Plot::new(),
            env: Vec::new(),
            inside: Vec::new(),
            daemon: None,
        };
        fs::create_dir(node.dir.join("state")).unwrap();
        node
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.join("standin.toml")
    }

    /// Where a dataset lives.
    pub fn live(&self, dataset: &str) -> PathBuf {
        self.disk.path().join("srv").join(dataset)
    }

    /// Where the role's points are.
    pub fn points_dir(&self) -> PathBuf {
        self.disk.path().join(".standin/web")
    }

    /// Writes the config: node and role; `extra_role` are further lines of [role.web].
    pub fn configure(&self, peer: &str, datasets: &[&str], extra_node: &str, extra_role: &str) {
        let mut text = format!(
            "[node]\nname = \"{}\"\nlisten = \"{}\"\nstate-dir = \"{}\"\ncontrol = \"{}\"\nreserve = \"32MiB\"\n{extra_node}\n",
            self.name,
            self.address,
            self.dir.join("state").display(),
            self.dir.join("run/control.sock").display(),
        );
        text += &format!("[peer.{peer}]\n");
        text += &format!("[role.web]\nhome = \"alder\"\npeers = [\"{peer}\"]\n{extra_role}\n");
        for dataset in datasets {
            let live = self.live(dataset);
            let place = match &self.plot {
                None => format!("btrfs = \"{}\"", live.display()),
                Some(plot) => plot.place(dataset, &live),
            };
            text += &format!("[role.web.dataset.{dataset}]\n{place}\n");
        }
        fs::write(self.config_path(), text).unwrap();
    }

    /// Makes the live copy of a dataset.
    pub fn create_live(&self, dataset: &str) {
        let live = self.live(dataset);
        match &self.plot {
            None => btrfs(&["subvolume", "create", live.to_str().unwrap()]),
            Some(plot) => plot.create(dataset, &live),
        }
    }

    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config_path()).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(self.config_path(), text.replacen(from, to, 1)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
        command
            .arg("--config")
            .arg(self.config_path())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// `serve`, inside of whatever it is to run in. The control socket is a path: the other verbs need not follow.
    fn daemon_command(&self) -> Command {
        let plain = self.command(&["serve"]);
        let Some((first, rest)) = self.inside.split_first() else {
            return plain;
        };
        let mut command = Command::new(first);
        command.args(rest).arg(plain.get_program());
        command.args(plain.get_args()).stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Said {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(args).output().unwrap();
        Said {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    #[track_caller]
    pub fn start_with(&mut self, env: &[(&str, &str)]) {
        self.launch(env);
        self.wait_for("the daemon answers", || {
            self.run(&["status", "--json"]).code == 0
        });
    }

    /// Starts the daemon and waits for nothing: it may stop itself at a named place before it answers.
    #[track_caller]
    pub fn launch(&mut self, env: &[(&str, &str)]) {
        assert!(self.daemon.is_none());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut command = self.daemon_command();
        command
            .envs(self.env.iter().map(|(name, value)| (*name, value.as_str())))
            .envs(env.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Whether a daemon was started and has neither been killed nor stopped from here.
    pub fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// How the daemon ended, when it has; it may be started again after that.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let ended = self.daemon.as_mut()?.try_wait().unwrap()?;
        self.daemon = None;
        Some(ended)
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a started daemon").id()
    }

    /// SIGKILL: nothing is tidied up.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a started daemon");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> i32 {
        self.signal("TERM");
        let mut daemon = self.daemon.take().expect("a started daemon");
        daemon.wait().unwrap().code().unwrap_or(-1)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Peak resident memory of the daemon so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        peak_kib(self.pid()).unwrap()
    }

    /// The processes that speak with peers in the daemon's place.
    pub fn workers(&self) -> Vec<u32> {
        let parent = format!("PPid:\t{}", self.pid());
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            read("status").is_ok_and(|status| status.lines().any(|line| line == parent))
                && read("cmdline").is_ok_and(|line| line.contains("link-worker"))
        };
        pids.filter(ours).collect()
    }

    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).ok().json()
    }

    pub fn role(&self) -> Value {
        self.status()["roles"][0].clone()
    }

    /// The running transfer of a direction, if any.
    pub fn transfer(&self) -> Option<Value> {
        self.status()["transfers"]
            .as_array()
            .unwrap()
            .first()
            .cloned()
    }

    /// `epoch.sequence` of every point, oldest first.
    pub fn points(&self) -> Vec<String> {
        let said = self.run(&["points", "web", "--json"]).ok().json();
        let points = said["roles"][0]["points"].as_array().unwrap().clone();
        points
            .iter()
            .map(|point| point["short"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The directory of a dataset of a point.
    #[track_caller]
    pub fn snapshot(&self, short: &str, dataset: &str) -> PathBuf {
        let found = fs::read_dir(self.points_dir())
            .unwrap()
            .flatten()
            .find(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .ends_with(&format!("Z.{short}"))
            });
        found
            .unwrap_or_else(|| panic!("{} holds no {short}", self.name))
            .path()
            .join(dataset)
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        if !wait(condition) {
            panic!(
                "{}: gave up waiting until {what}\nits log:\n{}",
                self.name,
                self.log()
            );
        }
    }

    /// Everything under staging and trash, relative.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for room in [".staging", ".trash"] {
            walk(&self.disk.path().join(".standin").join(room), &mut found);
        }
        found
    }
}

/// Peak resident memory of a process so far, in KiB; none when it is gone.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// True as soon as the condition holds, false after [`PATIENCE`].
pub fn wait(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    // Pools are given where the whole machine is emulated.
    let patience = PATIENCE * if pool::is_given() { 15 } else { 1 };
    while begun.elapsed() < patience {
        if condition() {
            return true;
        }
        // Between two looks at the condition, not in place of one.
        std::thread::park_timeout(Duration::from_millis(50));
    }
    false
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            self.kill();
        }
        // Of a drill that a test left in the middle.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(&self.dir)) {
            let _ = Command::new("umount").args(["-l", point]).status();
        }
        if std::thread::panicking() {
            eprintln!(
                "---- log of {} ({}):\n{}",
                self.name,
                self.log_path().display(),
                self.log()
            );
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Two paired nodes with one role: alder is home, birch stands in; alder dials birch through the proxy.
pub struct Pair {
    pub alder: TestNode,
    pub birch: TestNode,
    pub link: Proxy,
}

pub const MIB: u64 = 1 << 20;

impl Pair {
    /// `role` are further lines of [role.web] on both nodes.
    pub fn new(datasets: &[&str], node: &str, role: &str) -> Pair {
        let disks = [Loop::new(2048 * MIB), Loop::new(2048 * MIB)];
        Pair::on(disks, datasets, node, role)
    }

    /// On disks of the caller's, alder's first.
    pub fn on(disks: [Loop; 2], datasets: &[&str], node: &str, role: &str) -> Pair {
        let [alder, birch] = disks;
        let alder = TestNode::on("alder", alder);
        let birch = TestNode::on("birch", birch);
        Pair::of(alder, birch, datasets, node, role)
    }

    /// The same, of nodes that were made before.
    pub fn of(
        mut alder: TestNode,
        mut birch: TestNode,
        datasets: &[&str],
        node: &str,
        role: &str,
    ) -> Pair {
        alder.configure("birch", datasets, node, role);
        birch.configure("alder", datasets, node, role);
        let link = Proxy::to(birch.address);
        for node in [&alder, &birch] {
            fs::create_dir_all(node.disk.path().join("srv")).unwrap();
        }
        for dataset in datasets {
            alder.create_live(dataset);
        }
        for node in [&mut alder, &mut birch] {
            node.make_key();
            node.start();
        }
        // birch invites under the proxy's address, so alder dials through it.
        let address = link.address.to_string();
        let said = birch
            .run(&["pair", "invite", "--address", &address, "--json"])
            .ok()
            .json();
        alder
            .run(&["pair", "accept", said["line"].as_str().unwrap()])
            .ok();
        let pair = Pair { alder, birch, link };
        // alder listens too, but every byte between the two shall pass the proxy.
        pair.birch
            .edit(&format!("address = \"{}\"\n", pair.alder.address), "");
        pair.birch.run(&["reload"]).ok();
        pair.wait_linked();
        pair
    }

    #[track_caller]
    pub fn wait_linked(&self) {
        let linked = |node: &TestNode| node.status()["peers"][0]["linked"] == Value::Bool(true);
        self.alder.wait_for("the link is up", || {
            linked(&self.alder) && linked(&self.birch)
        });
    }

    /// Waits until birch holds the point.
    #[track_caller]
    pub fn wait_stored(&self, short: &str) {
        self.birch.wait_for(&format!("{short} is stored"), || {
            self.birch.points().contains(&short.to_owned())
        });
    }
}

impl TestNode {
    /// The node key, as `init` makes it.
    pub fn make_key(&self) {
        let key = self.dir.join("state/node.key");
        if !key.exists() {
            standin::peer::identity::Identity::create(&key).unwrap();
        }
    }
}

/// Runs btrfs-progs.
#[track_caller]
pub fn btrfs(args: &[&str]) {
    let output = Command::new("btrfs").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "btrfs {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Small checkpoints, so that a transfer has several.
pub const OFTEN: &str = "checkpoint = { bytes = \"4MiB\", every = \"1s\" }";
pub const MANUAL: &str = "every = \"manual\"\nkeep = { last = 100 }";

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    data
}

pub fn fill(dir: &Path, files: usize, bytes: usize, seed: u64) {
    for file in 0..files {
        let sub = dir.join(format!("d{}", file % 10));
        fs::create_dir_all(&sub).unwrap();
        fs::write(
            sub.join(format!("f{seed}-{file}")),
            noise(seed + file as u64, bytes),
        )
        .unwrap();
    }
}

pub fn same_on_both(pair: &Pair, short: &str, datasets: &[&str]) {
    for dataset in datasets {
        let (ours, theirs) = (
            pair.alder.snapshot(short, dataset),
            pair.birch.snapshot(short, dataset),
        );
        assert_same(&ours, &theirs, &format!("{dataset} of {short}"));
    }
}
