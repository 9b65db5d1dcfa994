//! Encrypted data on ZFS: kept by a node that cannot read them, which is given the key when it has to take over.
//!
//! alder's live filesystem is encrypted. birch stores its points as they come, without the key: nothing it has can be opened
//! there. Asked to take the role, it refuses before anything is touched, and alder goes on; so it does with a wrong key. Then a
//! person puts the right one there: the role goes to birch, its data are readable, and by failback home again; both times as
//! differences, still encrypted. Without the key at home the failback is refused, and birch goes on. At the end alder loses its
//! power, birch takes over as soon as its key is where it was, not before, and alder comes back with no key loaded, though the
//! file is there: what it had not sent is in a fork.

use crate::nodes::{self, LIVE};
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "encrypted",
    about: "encrypted data on a standby without the key; refused without it, taken over with it, failed back",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: &[Kind::Zfs],
    play,
};

const KEY: &str = "/etc/standin/web.key";
const PASSPHRASE: &str = "a passphrase of some length";

fn play(stage: &mut Stage) {
    stage.announce("could not open");
    let alder = stage.machine("alder");
    put_key(alder);
    // The fewest rounds there may be: to load a key takes an emulated machine ten seconds with as many as are usual.
    let options = "-o encryption=on -o keyformat=passphrase -o pbkdf2iters=100000";
    alder
        .sh(&format!(
            "zfs destroy tank/web; zfs create {options} -o keylocation=file://{KEY} -o mountpoint={LIVE} tank/web"
        ))
        .ok();
    let key_file = format!("key-file = \"{KEY}\"");
    nodes::two_of(stage, "", nodes::WITH_WRITER, &key_file);
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    writer::wait_written(alder, 5);
    for short in ["1.1", "1.2"] {
        writer::wait_written(alder, 2);
        alder.standin(&["run", "web"]).ok();
        birch.wait_until(
            "the point is there",
            &format!("zfs list -Ht snapshot -o name -r tank | grep 'Z\\.{short}$'"),
        );
    }
    cannot_be_read(birch);

    let handover = ["handover", "web", "--to", "birch"];
    refused(alder, &handover);
    cannot_be_read(birch);
    put(birch, "another passphrase");
    refused(alder, &handover);
    cannot_be_read(birch);

    put_key(birch);
    alder.standin(&["handover", "web", "--to", "birch"]).ok();
    birch.wait_state("active");
    alder.wait_state("standby");
    writer::wait_written(birch, 5);
    let root = "zfs get -Hpo value encryption,keystatus tank/web | paste -sd ' '";
    assert_eq!(birch.sh(root).ok().text(), "aes-256-gcm available");
    birch.standin(&["run", "web"]).ok();
    take_key(alder);
    refused(birch, &["failback", "web"]);
    put_key(alder);
    birch.standin(&["failback", "web"]).ok();
    alder.wait_state("active");
    birch.wait_state("standby");
    writer::wait_written(alder, 5);
    only_one_whole(stage);
    comes_back(stage);
}

/// The role stays with the node that plays it, for want of a key.
#[track_caller]
fn refused(plays: &Machine, verb: &[&str]) {
    says_key(plays, verb);
    plays.wait_state("active");
    writer::wait_written(plays, 3);
}

/// It is refused, and told why.
#[track_caller]
fn says_key(machine: &Machine, verb: &[&str]) {
    let said = machine.standin(verb);
    assert_ne!(said.code, 0, "{}", said.text());
    let words = format!("{}{}", said.text(), said.errors());
    assert!(words.contains("key"), "it says what is missing: {words}");
}

/// alder loses its power with records that nobody else has. At boot nobody loads its key, so what was promised last can be in the
/// log of a filesystem that is not mounted when the daemon starts. It is in a fork when alder stands in for birch.
#[track_caller]
fn comes_back(stage: &mut Stage) {
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.announce("fork");
    let alder = stage.machine("alder");
    alder.standin(&["run", "web"]).ok();
    // The daemon is started by hand after the boot: what it finds can be looked at before.
    alder.sh("systemctl disable standin && sync").ok();
    writer::wait_written(alder, 10);
    stage.machine_mut("alder").cut_power();
    let birch = stage.machine("birch");
    let last = birch.points().pop().expect("the points that were sent");
    let accepted = ["--assert-stopped", "alder", "--accept-loss-after", &last];
    let promote = [&["promote", "web"][..], &accepted].concat();
    take_key(birch);
    says_key(birch, &promote);
    birch.wait_state("standby");
    put_key(birch);
    birch.standin(&promote).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 3);
    stage.machine_mut("alder").boot();
    let alder = stage.machine("alder");
    let found = "zfs get -Hpo value mounted,keystatus tank/web | paste -sd ' '";
    assert_eq!(alder.sh(found).ok().text(), "no unavailable");
    alder.sh("systemctl enable --now standin").ok();
    alder.wait_state("standby");
    let forked = writer::assert_kept(stage, "birch");
    assert!(forked > 0, "what was written after the point is in a fork");
}

#[track_caller]
fn only_one_whole(stage: &Stage) {
    for machine in stage.machines() {
        let lines = machine.journal();
        let whole = lines.iter().filter(|line| line.text.contains(" whole to "));
        let first = usize::from(machine.name == "alder");
        assert_eq!(whole.count(), first, "sent whole by {}", machine.name);
    }
}

#[track_caller]
fn put_key(machine: &Machine) {
    put(machine, PASSPHRASE);
}

#[track_caller]
fn put(machine: &Machine, passphrase: &str) {
    machine.put(KEY, passphrase);
    machine.sh(&format!("chmod 600 {KEY}")).ok();
}

/// The file; what ZFS has loaded stays so.
#[track_caller]
fn take_key(machine: &Machine) {
    machine.sh(&format!("rm {KEY}")).ok();
}

/// Everything it received is encrypted, and no key is loaded for it; its snapshots cannot be mounted.
#[track_caller]
fn cannot_be_read(machine: &Machine) {
    let script = "zfs list -Hpr -o name,encryption,keystatus tank/.standin/web | awk '$2 != \"off\" { print $3 }' | sort -u";
    assert_eq!(machine.sh(script).ok().text(), "unavailable");
    let mount = "at=$(mktemp -d); zfs list -Ht snapshot -o name -r tank/.standin/web | grep 'Z.1.1$' | head -n 1 | xargs -I % mount -t zfs -o ro % $at";
    assert_ne!(machine.sh(mount).code, 0, "it was mounted without a key");
}
