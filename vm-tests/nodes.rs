//! Machines as nodes of standin, installed and paired as README.md tells a person to.

use std::time::Duration;

use serde_json::Value;

use crate::stage::machine::Machine;
use crate::stage::port::Said;
use crate::stage::{Kind, Stage};
use crate::writer;

/// Where data live, on the first disk.
pub const LIVE: &str = "/srv/web";

/// How much daemons log (`info`, `debug`), where that is not as the unit has it: for who looks for something.
const LOG: &str = "STANDIN_VM_LOG";

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
        if let Ok(level) = std::env::var(LOG) {
            let drop_in = format!("[Service]\nEnvironment=RUST_LOG={level}\n");
            self.put("/etc/systemd/system/standin.service.d/log.conf", &drop_in);
        }
        self.sh(
            "install -m 644 /tools/standin.service /tools/standin-run@.service /tools/standin-run@.timer /etc/systemd/system/
             systemctl daemon-reload",
        )
        .ok();
    }

    /// On the first disk, at every boot: a btrfs at /srv, or the pool tank.
    #[track_caller]
    pub fn make_filesystem(&self) {
        let script = match self.kind {
            Kind::Btrfs => {
                "mkfs.btrfs -q -f /dev/disk/by-id/virtio-disk0
                 echo '/dev/disk/by-id/virtio-disk0 /srv btrfs noatime 0 0' >>/etc/fstab
                 systemctl daemon-reload
                 mount /srv"
            }
            // As Debian's packages leave it, which the image has not.
            Kind::Zfs => {
                "echo zfs >/etc/modules-load.d/zfs.conf
                 echo options zfs zfs_arc_max=67108864 >/etc/modprobe.d/zfs.conf
                 rm -f /etc/systemd/system/systemd-udev-settle.service
                 systemctl daemon-reload
                 systemctl -q enable zfs-import-cache zfs-mount zfs-import.target zfs.target
                 modprobe zfs
                 zpool create -f -o cachefile=/etc/zfs/zpool.cache -O mountpoint=none -O atime=off -O xattr=sa -O acltype=posix \
                     tank /dev/disk/by-id/virtio-disk0"
            }
        };
        self.sh(script).ok();
    }

    /// The dataset that a role is to be about.
    #[track_caller]
    pub fn make_live(&self) {
        let script = match self.kind {
            Kind::Btrfs => format!("btrfs -q subvolume create {LIVE}"),
            Kind::Zfs => format!("zfs create -o mountpoint={LIVE} tank/web"),
        };
        self.sh(&script).ok();
    }

    /// Free bytes where points are received.
    #[track_caller]
    pub fn free(&self) -> u64 {
        let script = match self.kind {
            Kind::Btrfs => "df --output=avail -B1 /srv | tail -n 1",
            Kind::Zfs => "zpool sync tank; zfs get -Hpo value available tank",
        };
        let said = self.sh(script).ok().text();
        said.trim().parse().expect("a number of bytes")
    }

    /// Other programs have room on the same disk.
    #[track_caller]
    pub fn write_elsewhere(&self) {
        let write = "head -c 64M /dev/urandom >/srv/of-others; sync -f /srv; rm /srv/of-others";
        let script = match self.kind {
            Kind::Btrfs => write.to_owned(),
            Kind::Zfs => format!(
                "zfs create -o mountpoint=/srv tank/others; {write}; zfs destroy tank/others"
            ),
        };
        self.sh(&script).ok();
    }

    /// Takes this much of the free room, by something that is not standin's; `None` gives it back.
    #[track_caller]
    pub fn fill(&self, bytes: Option<u64>) {
        let script = match (self.kind, bytes) {
            (Kind::Btrfs, Some(bytes)) => format!("fallocate -l {bytes} /srv/filler; sync -f /srv"),
            (Kind::Btrfs, None) => "rm /srv/filler; btrfs filesystem sync /srv".to_owned(),
            (Kind::Zfs, Some(bytes)) => {
                format!(
                    "zfs create -o mountpoint=none -o reservation={bytes} tank/filler; zpool sync tank"
                )
            }
            (Kind::Zfs, None) => "zfs destroy tank/filler; zpool sync tank".to_owned(),
        };
        self.sh(&script).ok();
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
        self.wait_status("its link is up", |status| {
            let peers = status["peers"].as_array();
            peers.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["linked"] == true))
        });
    }

    /// Whatever it is doing as that: "waking" is also "waking (then services)".
    #[track_caller]
    pub fn wait_state(&self, state: &str) {
        self.wait_status(&format!("it is {state}"), |status| {
            let now = status["roles"][0]["state"].as_str();
            now.and_then(|now| now.split(' ').next()) == Some(state)
        });
    }

    /// Its answer is read here: another program that reads it there would take an emulated machine longer than the answer.
    #[track_caller]
    pub fn wait_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.wait_until_here(what, || {
            let said = self.standin(&["status", "--json"]);
            said.code == 0 && is_so(&said.json())
        });
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
        let script = match self.kind {
            Kind::Btrfs => format!("ls -d /srv/.standin/web/*Z.{short}/web"),
            // The snapshot may be there before all of its point is.
            Kind::Zfs => format!("standin points web | grep -qw {short}; {}", snapshot(short)),
        };
        self.wait_until(&format!("{short} is here"), &script);
    }

    /// What a point holds, told by find and tar: names, owners, modes, times, links, attributes, data.
    #[track_caller]
    pub fn fingerprint(&self, short: &str) -> String {
        let into = match self.kind {
            Kind::Btrfs => format!("cd /srv/.standin/web/*Z.{short}/web"),
            Kind::Zfs => format!(
                "at=$(mktemp -d); mount -t zfs -o ro \"$({})\" \"$at\"; trap 'cd /; umount \"$at\"' EXIT; cd \"$at\"",
                snapshot(short)
            ),
        };
        let script = format!(
            "{into}
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

/// What prints the name of a point's snapshot, and fails where there is none.
fn snapshot(short: &str) -> String {
    format!(
        "zfs list -Ht snapshot -o name -r tank | grep '@standin_.*Z\\.{}$' | head -n 1 | grep .",
        short.replace('.', "\\.")
    )
}

/// The configuration of a node as `standin init` wrote it, and the role; `more` are further lines of [role.web].
#[track_caller]
pub fn add_role(machine: &Machine, peers: &[&str], more: &str) {
    add_role_of(machine, peers, more, "");
}

/// The same; `dataset` are further lines of its dataset.
#[track_caller]
pub fn add_role_of(machine: &Machine, peers: &[&str], more: &str, dataset: &str) {
    let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
    let text = format!(
        "\n[role.web]\nhome = \"alder\"\npeers = [{}]\nkeep = {{ last = 100 }}\n{more}\n[role.web.dataset.web]\n{}\n{dataset}\n",
        peers.join(", "),
        match machine.kind {
            Kind::Btrfs => format!("btrfs = \"{LIVE}\""),
            Kind::Zfs => format!("zfs = \"tank/web\"\npath = \"{LIVE}\""),
        },
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
    alder.make_live();
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
    two_of(stage, node, more, "");
}

/// The same; `dataset` as in [`add_role_of`].
#[track_caller]
pub fn two_of(stage: &mut Stage, node: &str, more: &str, dataset: &str) {
    stage.everywhere(|machine| {
        let (peer, state) = match machine.name {
            "alder" => ("birch", "active"),
            _ => ("alder", "standby"),
        };
        add_to_node(machine, node);
        add_role_of(machine, &[peer], more, dataset);
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
pub const PEER_IS_AWAY: [&str; 10] = [
    "link to alder is down",
    "link to birch is down",
    "link to cedar is down",
    "could not exchange with alder: the other side hung up",
    "could not exchange with birch: the other side hung up",
    "could not reach",
    "could not use the link to",
    ", checkpoint kept: ",
    "could not send",
    "could not store",
];

/// What a node says when the daemon of its peer was stopped by a person, or by a machine that goes down in order.
pub const STOPPED: &str = "closed the link: the daemon stopped";
