//! Machines as nodes of standin, installed and paired as README.md tells a person to.

use std::time::Duration;

use serde_json::Value;

use crate::stage::Stage;
use crate::stage::machine::Machine;
use crate::stage::port::Said;
use crate::writer;

/// Where data live, on the first disk.
pub const LIVE: &str = "/srv/web";

/// For verbs that move data.
pub const LONG: Duration = Duration::from_secs(480);

impl Machine {
    /// The program and its units, from the disk with the programs of this build.
    #[track_caller]
    pub fn install(&self) {
        self.sh("install -m 755 /tools/standin /usr/local/bin/")
            .ok();
        self.install_units();
    }

    #[track_caller]
    pub fn install_units(&self) {
        self.sh(
            "install -m 644 /tools/standin.service /tools/standin-run@.service /tools/standin-run@.timer /etc/systemd/system/
             systemctl daemon-reload",
        )
        .ok();
    }

    /// A btrfs on the first disk at /srv, at every boot.
    #[track_caller]
    pub fn make_filesystem(&self) {
        self.sh("mkfs.btrfs -q -f /dev/disk/by-id/virtio-disk0
             echo '/dev/disk/by-id/virtio-disk0 /srv btrfs noatime 0 0' >>/etc/fstab
             systemctl daemon-reload
             mount /srv")
            .ok();
    }

    /// A verb of the program.
    #[track_caller]
    pub fn standin(&self, words: &[&str]) -> Said {
        let words = [&["standin"][..], words].concat();
        self.run_for(&words, b"", LONG)
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.standin(&["status", "--json"]).ok().json()
    }

    /// What this node says of its part in the role; empty while the daemon does not answer.
    #[track_caller]
    pub fn role(&self) -> Value {
        let said = self.standin(&["status", "--json"]);
        if said.code != 0 {
            return Value::Null;
        }
        said.json()["roles"][0].clone()
    }

    #[track_caller]
    pub fn wait_linked(&self) {
        self.wait_until(
            "its link is up",
            "standin status --json | python3 -c 'import json, sys; p = json.load(sys.stdin)[\"peers\"]; sys.exit(not p or not all(x[\"linked\"] for x in p))'",
        );
    }

    /// Whatever it is doing as that: "waking" is also "waking (then services)".
    #[track_caller]
    pub fn wait_state(&self, state: &str) {
        self.wait_until(
            &format!("it is {state}"),
            &format!("standin status --json | python3 -c 'import json, sys; s = json.load(sys.stdin)[\"roles\"][0][\"state\"]; sys.exit(s.split(\" \")[0] != \"{state}\")'"),
        );
    }

    /// `epoch.sequence` of every point, as listed.
    #[track_caller]
    pub fn points(&self) -> Vec<String> {
        let said = self.standin(&["points", "web", "--json"]).ok().json();
        let points = said["roles"][0]["points"].as_array().unwrap().clone();
        let shorts = points.iter().map(|point| point["short"].as_str().unwrap());
        shorts.map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn wait_point(&self, short: &str) {
        let script = format!("ls -d /srv/.standin/web/*Z.{short}/web");
        self.wait_until(&format!("{short} is here"), &script);
    }

    /// What a point holds, told by find and tar: names, owners, modes, times, links, attributes, data.
    #[track_caller]
    pub fn fingerprint(&self, short: &str) -> String {
        let script = format!(
            "cd /srv/.standin/web/*Z.{short}/web
             {{ find . -printf '%p\\t%y %m %U:%G %s links %n at %T@ -> %l\\n' | LC_ALL=C sort
                tar --sort=name --numeric-owner --acls --xattrs '--xattrs-include=*' --format=posix \
                    --pax-option=delete=atime,delete=ctime --warning=none -cf - . | sha256sum; }} | sha256sum"
        );
        self.run_for(&["bash", "-euo", "pipefail", "-c", &script], b"", LONG)
            .ok()
            .text()
    }

    /// Changes the live data: `files` new ones of `kib` each that do not compress, one of them rewritten at each call.
    #[track_caller]
    pub fn write(&self, name: &str, files: usize, kib: usize) {
        let script = format!(
            "cd {LIVE}; mkdir -p {name} same
             for n in $(seq {files}); do head -c {kib}K /dev/urandom >{name}/$n; done
             head -c {kib}K /dev/urandom >same/$(( RANDOM % 4 )); ln -f {name}/1 same/link; rm -f same/gone; echo {name} >same/gone"
        );
        self.sh(&script).ok();
    }
}

/// The configuration of a node as `standin init` wrote it, and the role; `more` are further lines of [role.web].
#[track_caller]
pub fn add_role(machine: &Machine, peers: &[&str], more: &str) {
    let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
    let text = format!(
        "\n[role.web]\nhome = \"alder\"\npeers = [{}]\nkeep = {{ last = 100 }}\n{more}\n[role.web.dataset.web]\nbtrfs = \"{LIVE}\"\n",
        peers.join(", ")
    );
    let words = ["sh", "-c", "cat >>/etc/standin/standin.toml"];
    machine.run_for(&words, text.as_bytes(), LONG).ok();
}

/// Keys of [node].
#[track_caller]
pub fn add_to_node(machine: &Machine, lines: &str) {
    machine
        .sh(&format!(
            "sed -i 's|^\\[node\\]$|[node]\\n{lines}|' /etc/standin/standin.toml"
        ))
        .ok();
}

#[track_caller]
pub fn pair(inviting: &Machine, accepting: &Machine) {
    let address = format!("{}:7321", inviting.name);
    let said = inviting.standin(&["pair", "invite", "--address", &address, "--json"]);
    let said = said.ok().json();
    let line = said["line"].as_str().unwrap();
    accepting.standin(&["pair", "accept", line]).ok();
}

/// alder and birch with all that the scenarios have in common: installed, paired, enabled, and stopped.
#[track_caller]
pub fn prepare(stage: &mut Stage) {
    stage.announce(STOPPED);
    stage.boot();
    stage.everywhere(set_up);
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.sh(&format!("btrfs -q subvolume create {LIVE}")).ok();
    pair(alder, birch);
    stage.everywhere(Machine::wait_linked);
    stage.everywhere(|machine| {
        machine.sh("systemctl stop standin; sync").ok();
    });
}

/// A machine with a filesystem, the daemon, and the service that the scenarios have.
#[track_caller]
pub fn set_up(machine: &Machine) {
    writer::install(machine);
    machine.install();
    machine.make_filesystem();
    machine.standin(&["init"]).ok();
    machine.sh("systemctl enable --now standin").ok();
}

/// alder, at home and active in web, and birch: linked. `node`: further lines of [node]; `more` as in [`add_role`].
#[track_caller]
pub fn two(stage: &mut Stage, node: &str, more: &str) {
    stage.everywhere(|machine| {
        let (peer, state) = match machine.name {
            "alder" => ("birch", "active"),
            _ => ("alder", "standby"),
        };
        add_to_node(machine, node);
        add_role(machine, &[peer], more);
        machine.sh("systemctl start standin").ok();
        machine.wait_linked();
        machine.wait_state(state);
        // What was typed so far: files that nobody flushed are half there after a power cut, and no fault of standin.
        machine.sh("sync").ok();
    });
}

/// Lines of [role.web]: points when asked, and the service of `writer`.
pub const WITH_WRITER: &str = "every = \"manual\"\nservices = [\"writer.service\"]";

/// Words with which journals complain when a node is out of reach: its link, and what was to go over it.
pub const PEER_IS_AWAY: [&str; 8] = [
    "link to alder is down",
    "link to birch is down",
    "link to cedar is down",
    "could not exchange with alder: the other side hung up",
    "could not exchange with birch: the other side hung up",
    "could not reach",
    "could not send",
    "could not store",
];

/// What nodes say of one that has come back and is not done with what it did before.
pub const RETURNS: &str = "takes nothing of role web now: it is fencing";

/// What a node says when the daemon of its peer was stopped by a person, or by a machine that goes down in order.
pub const STOPPED: &str = "closed the link: the daemon stopped";
