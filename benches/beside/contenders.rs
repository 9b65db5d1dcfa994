//! Who is measured: each carries what is new in a subvolume to another filesystem, and keeps what it needs for the next time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::gauge::{Group, Reading};
use crate::ground;
use crate::nodes::{Node, Role};
use crate::support::address::free_address;
use crate::support::fixture::{Loop, run};

/// The contenders, by the words of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// `btrfs send | btrfs receive`, no network.
    Pipe,
    /// The same with compressed extents as they lie on disk (protocol 2).
    Pipe2,
    /// `btrfs send | zstd -3 | ssh | zstd -d | btrfs receive`.
    ZstdSsh,
    /// btrbk over ssh to this machine.
    Btrbk,
    /// Two daemons over TLS on loopback.
    Standin,
}

/// One contender at work on a subvolume of its own.
pub struct Contender<'a> {
    pub who: Who,
    source: &'a Path,
    /// What is replicated.
    pub live: PathBuf,
    taken: u32,
    // In this order they end: processes, the filesystems they used, the group they were in.
    nodes: Vec<Node>,
    ssh: Option<Ssh>,
    destinations: Vec<Loop>,
    group: Group,
}

impl<'a> Contender<'a> {
    /// With a writable copy of `pristine`, which lies on the filesystem at `source`, and new filesystems to fill.
    pub fn new(
        who: Who,
        source: &'a Path,
        pristine: &Path,
        destinations: Vec<Loop>,
    ) -> Contender<'a> {
        let live = source.join("live");
        ground::copy(pristine, &live);
        fs::create_dir(source.join("taken")).unwrap();
        let mut contender = Contender {
            group: Group::new("contender"),
            who,
            source,
            live,
            destinations,
            taken: 0,
            ssh: None,
            nodes: Vec::new(),
        };
        match who {
            Who::Pipe | Who::Pipe2 => {}
            Who::ZstdSsh | Who::Btrbk => contender.ssh = Some(Ssh::start(&contender.group)),
            Who::Standin => contender.nodes = contender.standin(),
        }
        rustix::fs::sync();
        // Everybody finds the source on disk, not in memory.
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        contender
    }

    fn standin(&self) -> Vec<Node> {
        let all: Vec<String> = (1..=self.destinations.len())
            .map(|n| format!("birch{n}"))
            .collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let web = |live: PathBuf| {
            [Role {
                name: "web".to_owned(),
                live,
            }]
        };
        let alder = Node::start(
            &self.group,
            "alder",
            None,
            &names,
            &web(self.live.clone()),
            &[],
        );
        let mut nodes = vec![alder];
        for (name, disk) in names.iter().zip(&self.destinations) {
            fs::create_dir(disk.join("srv")).unwrap();
            let live = disk.join("srv/data");
            let birch = Node::start(&self.group, name, None, &["alder"], &web(live), &[]);
            nodes[0].pair_with(&birch);
            nodes.push(birch);
        }
        for node in &nodes {
            node.wait_linked();
        }
        nodes
    }

    /// Takes a snapshot and has it everywhere.
    pub fn go(&mut self) -> Reading {
        self.taken += 1;
        let tops: Vec<&Path> = self.destinations.iter().map(Loop::path).collect();
        match self.who {
            Who::Pipe => self.group.measure(&tops, || self.pipe("", "cat", &tops)),
            Who::Pipe2 => {
                let flags = "--proto 2 --compressed-data";
                self.group.measure(&tops, || self.pipe(flags, "cat", &tops))
            }
            Who::ZstdSsh => {
                let ssh = self.ssh.as_ref().unwrap();
                let through = format!(
                    "zstd -q -3 | {}/ssh root@127.0.0.1 zstd -q -d",
                    ssh.dir.path().display()
                );
                self.group.measure(&tops, || self.pipe("", &through, &tops))
            }
            Who::Btrbk => self.group.measure(&tops, || self.btrbk(&tops)),
            Who::Standin => self
                .group
                .measure(&tops, || self.nodes[0].cycle(&self.group)),
        }
    }

    fn pipe(&self, flags: &str, through: &str, tops: &[&Path]) {
        let (source, n) = (self.source.display(), self.taken);
        let parent = match n {
            1 => String::new(),
            _ => format!("-p {source}/taken/{}", n - 1),
        };
        let mut script = format!(
            "set -e -o pipefail\nbtrfs subvolume snapshot -r {} {source}/taken/{n} >/dev/null\n",
            self.live.display()
        );
        for top in tops {
            let through = match through {
                "cat" => String::new(),
                other => format!("{other} |"),
            };
            script += &format!(
                "btrfs -q send {flags} {parent} {source}/taken/{n} | {through} btrfs -q receive {}\n",
                top.display()
            );
        }
        let mut shell = self.group.command("bash");
        succeed(shell.args(["-c", &script]));
    }

    fn btrbk(&self, tops: &[&Path]) {
        let ssh = self.ssh.as_ref().unwrap();
        let conf = ssh.dir.path().join("btrbk.conf");
        let mut text = format!(
            "timestamp_format long-iso\nsnapshot_preserve_min all\ntarget_preserve_min all\nsnapshot_create onchange\n\
             snapshot_dir taken\nlockfile {}/lock\nssh_identity {}/key\nssh_user root\nvolume {}\n",
            ssh.dir.path().display(),
            ssh.dir.path().display(),
            self.source.display(),
        );
        text += "  subvolume live\n";
        for top in tops {
            text += &format!("    target ssh://127.0.0.1{}\n", top.display());
        }
        fs::write(&conf, text).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.group.command("btrbk");
        command.args(["-q", "-c"]).arg(&conf).arg("run");
        // Its ssh is one that knows the port and the key of the server made for it.
        succeed(command.env("PATH", format!("{}:{path}", ssh.dir.path().display())));
    }

    /// What the newest snapshot on each destination holds.
    pub fn received(&self) -> Vec<String> {
        let newest = |top: &Path| match self.who {
            Who::Pipe | Who::Pipe2 | Who::ZstdSsh => top.join(self.taken.to_string()),
            Who::Btrbk => {
                let mut names: Vec<PathBuf> = fs::read_dir(top)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect();
                names.sort();
                names.pop().unwrap()
            }
            Who::Standin => Node::newest(top, "web"),
        };
        let tops = self.destinations.iter();
        tops.map(|disk| ground::digest(&newest(disk.path())))
            .collect()
    }

    /// Ends all of it, and removes what it left at the source.
    pub fn end(self) {
        let source = self.source.to_owned();
        drop(self);
        let script = "cd \"$1\" && for s in taken/* .standin/*/*/*; do \
                      if btrfs subvolume show \"$s\" >/dev/null 2>&1; then btrfs -q subvolume delete \"$s\"; fi; done; \
                      btrfs -q subvolume delete live; rm -rf taken .standin";
        let args = [
            "-c".as_ref(),
            script.as_ref(),
            "sh".as_ref(),
            source.as_os_str(),
        ];
        run("sh", args);
    }
}

fn succeed(command: &mut std::process::Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An ssh server on this machine, with keys and a port of its own, and an `ssh` that goes to it.
pub struct Ssh {
    pub dir: tempfile::TempDir,
    server: Child,
}

impl Ssh {
    pub fn start(group: &Group) -> Ssh {
        let dir = tempfile::Builder::new()
            .prefix("standin-bench-")
            .tempdir()
            .unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for key in ["key", "host"] {
            run(
                "ssh-keygen",
                ["-q", "-t", "ed25519", "-N", "", "-f", &at(key)],
            );
        }
        fs::copy(at("key.pub"), at("known")).unwrap();
        let port = free_address().port();
        fs::create_dir_all("/run/sshd").unwrap();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n",
            at("host"),
            at("known"),
        );
        fs::write(at("sshd.conf"), server).unwrap();
        let client = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -p {port} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n",
            at("key")
        );
        fs::write(at("ssh"), client).unwrap();
        run("chmod", ["755", &at("ssh")]);
        let mut command = group.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &at("sshd.conf")]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command.spawn().unwrap();
        let ssh = Ssh { dir, server };
        let up = || run_quietly(ssh.dir.path().join("ssh").to_str().unwrap());
        let began = std::time::Instant::now();
        while !up() {
            assert!(
                began.elapsed().as_secs() < 30,
                "the ssh server does not answer"
            );
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        ssh
    }
}

fn run_quietly(ssh: &str) -> bool {
    let mut command = std::process::Command::new(ssh);
    command
        .args(["root@127.0.0.1", "true"])
        .stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
