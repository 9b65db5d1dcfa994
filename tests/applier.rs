//! The process that applies streams: what it may and sees, what it costs in memory, and what its end does to a transfer.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use standin::error::{Code, Failure};
use standin::fs::btrfs::receive::VERB;
use standin::fs::btrfs::stream::{Command, Encoder};
use standin::fs::{FsError, Incoming};
use support::cluster::{MANUAL, MIB, OFTEN, Pair, fill, same_on_both};
use support::fixture::{Loop, ready};
use support::random::Random;
use support::receiving::{
    hash, identity, open, place, receive, sent, snapshot, source, uuid_of, workers_of,
};
use support::same::assert_same;
use uuid::Uuid;

const US: Uuid = Uuid::from_u128(0x5555);

/// Longest wait for any condition.
const PATIENCE: Duration = Duration::from_secs(60);

/// CAP_CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, LINUX_IMMUTABLE 9, MKNOD 27, SETFCAP 31 (linux/capability.h).
const CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 27 | 1 << 31;

/// The worker that fills the place of this name.
fn worker(place: &str) -> u32 {
    let tree = format!("/{place}/.work/data/tree ");
    let mine = workers_of(std::process::id());
    let found = mine.into_iter().find(|pid| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        mounts.is_ok_and(|mounts| mounts.contains(&tree))
    });
    found.unwrap_or_else(|| panic!("nobody works in {place}"))
}

fn status(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// A stream of one file of noise, to be cut anywhere.
fn stream(bytes: usize) -> Vec<u8> {
    let noise = Random::new(5).bytes(100_000);
    let mut stream = Encoder::new(2);
    stream.put(&Command::Subvol {
        path: b"s",
        uuid: US,
        ctransid: 7,
    });
    stream.put(&Command::Mkfile {
        path: b"noise",
        inode: None,
    });
    for number in 0..bytes / noise.len() {
        stream.put(&Command::Write {
            path: b"noise",
            offset: (number * noise.len()) as u64,
            data: &noise,
        });
    }
    stream.put(&Command::End);
    stream.into_bytes()
}

/// Where descriptors lead, by number.
fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = std::fs::read_link(entry.path()).unwrap();
            (number, target.display().to_string())
        })
        .collect()
}

#[test]
fn what_a_worker_may_and_sees() {
    if !ready("what_a_worker_may_and_sees") {
        return;
    }
    let disk = Loop::new(1 << 30);
    let bytes = stream(3 << 20);
    let place = place(disk.path(), "evidence");
    let mut incoming = open(&place, &identity(US, None, 2), None).unwrap();
    incoming.write(&bytes[..bytes.len() / 2]).unwrap();
    let pid = worker("evidence");
    let status = status(pid);
    for (name, expected) in [
        ("CapInh", 0),
        ("CapPrm", CAPABILITIES),
        ("CapEff", CAPABILITIES),
        ("CapBnd", CAPABILITIES),
        ("CapAmb", 0),
    ] {
        let found = u64::from_str_radix(&status[name], 16).unwrap();
        assert_eq!(found, expected, "{name}");
    }
    for (name, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Threads", "1")] {
        assert_eq!(status[name], expected, "{name}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mounts: Vec<Vec<&str>> = mounts
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(mounts[0][3..5], ["/evidence/.work/data/tree", "/"]);
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(
            mounts[0][5].split(',').any(|found| found == option),
            "{mounts:?}"
        );
    }
    // Two ends of the wire, the null device, the log, the tree and the file being written.
    let open = descriptors(pid);
    assert!(open[&0].starts_with("socket:"), "{open:?}");
    assert_eq!(open[&1], "/dev/null");
    assert!(open[&2].starts_with("pipe:"), "{open:?}");
    for (number, target) in open.range(3..) {
        let known = target.starts_with("socket:") || target == "/" || target == "/noise";
        assert!(known, "{number} leads to {target}");
    }
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment, b"JOURNAL_STREAM=applier\0", "nothing of ours");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    assert!(core.contains(" 0 "), "{core}");
    incoming.write(&bytes[bytes.len() / 2..]).unwrap();
    incoming.finish(bytes.len() as u64, &hash(&bytes)).unwrap();
    assert!(
        !workers_of(std::process::id()).contains(&pid),
        "it outlives its stream"
    );
}

/// Ended by somebody, it takes neither the daemon with it nor what its checkpoint holds.
#[test]
fn a_worker_that_is_killed() {
    if !ready("a_worker_that_is_killed") {
        return;
    }
    let disk = Loop::new(1 << 30);
    let bytes = stream(4 << 20);
    let (place, identity) = (place(disk.path(), "killed"), identity(US, None, 2));
    let mut incoming = open(&place, &identity, None).unwrap();
    incoming.write(&bytes[..bytes.len() / 2]).unwrap();
    incoming.checkpoint().unwrap();
    let checkpoint = incoming.standing().checkpoint;
    assert!(checkpoint > 0);
    kill(worker("killed"));
    let error = ended(incoming.as_mut(), &bytes[bytes.len() / 2..]);
    assert!(
        matches!(error.downcast_ref(), Some(FsError::ApplierEnded(why)) if why.contains("signal 9")),
        "{error:#}"
    );
    assert_eq!(Failure::code_of(&error), Code::Interrupted, "{error:#}");
    assert!(incoming.write(&[0]).is_err() && incoming.checkpoint().is_err());
    drop(incoming);

    let mut incoming = open(&place, &identity, None).unwrap();
    assert_eq!(incoming.standing().offset, checkpoint);
    kill(worker("killed"));
    let error = incoming
        .checkpoint()
        .and_then(|()| incoming.write(&bytes))
        .unwrap_err();
    assert!(error.downcast_ref::<FsError>().is_some(), "{error:#}");
    incoming.restart().unwrap();
    incoming.write(&bytes).unwrap();
    incoming.finish(bytes.len() as u64, &hash(&bytes)).unwrap();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The error of the first write that fails.
fn ended(incoming: &mut dyn Incoming, bytes: &[u8]) -> anyhow::Error {
    let mut pieces = bytes.chunks(10_000);
    pieces
        .find_map(|piece| incoming.write(piece).err())
        .unwrap()
}

/// What asks a daemon to end is heard by its children too (systemd tells the whole control group): they leave it to the
/// daemon, which takes a checkpoint with their help.
#[test]
fn a_worker_waits_for_the_daemon() {
    if !ready("a_worker_waits_for_the_daemon") {
        return;
    }
    let disk = Loop::new(1 << 30);
    let bytes = stream(2 << 20);
    let place = place(disk.path(), "asked");
    let mut incoming = open(&place, &identity(US, None, 2), None).unwrap();
    incoming.write(&bytes[..bytes.len() / 2]).unwrap();
    let pid = rustix::process::Pid::from_raw(worker("asked") as i32).unwrap();
    for signal in [
        rustix::process::Signal::TERM,
        rustix::process::Signal::INT,
        rustix::process::Signal::HUP,
    ] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    incoming.checkpoint().unwrap();
    assert_eq!(incoming.standing().checkpoint, incoming.standing().offset);
    drop(incoming);
    let stat = format!("/proc/{}", pid.as_raw_nonzero());
    assert!(!Path::new(&stat).exists(), "it outlives its transfer");
}

/// A large stream, and many directories, in little memory.
#[test]
fn memory_is_bounded() {
    if !ready("memory_is_bounded") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let bytes = stream(400 << 20);
    let mut more = Encoder::new(2);
    for number in 0..20_000 {
        let path = format!("directory number {number} with a name of some length");
        more.put(&Command::Mkdir {
            path: path.as_bytes(),
            inode: None,
        });
        more.put(&Command::Mkfile {
            path: format!("{path}/file").as_bytes(),
            inode: None,
        });
    }
    let more = more.into_bytes();
    let place = place(disk.path(), "memory");
    let mut incoming = open(&place, &identity(US, None, 2), None).unwrap();
    let end = bytes.len() - 10;
    for piece in bytes[..end].chunks(256 << 10) {
        incoming.write(piece).unwrap();
    }
    incoming.write(&more[17..]).unwrap();
    incoming.checkpoint().unwrap();
    let peak = &status(worker("memory"))["VmHWM"];
    let kib: u64 = peak.split(' ').next().unwrap().parse().unwrap();
    println!(
        "peak memory of the applier: {kib} KiB, stream {} bytes",
        end + more.len()
    );
    assert!(kib < 32 << 10, "{kib} KiB");
}

/// Clones from the base and attributes that take CAP_SYS_ADMIN go through the daemon, and arrive.
#[test]
fn what_a_worker_must_ask_for() {
    if !ready("what_a_worker_must_ask_for") {
        return;
    }
    let (from, to) = (Loop::new(1 << 30), Loop::new(1 << 30));
    let live = from.join("live");
    libbtrfsutil::create_subvolume(&live).unwrap();
    let set = |name: &str, path: &Path| {
        let path = path.as_os_str();
        let words = [
            "-h".as_ref(),
            "-n".as_ref(),
            name.as_ref(),
            "-v".as_ref(),
            "v".as_ref(),
            path,
        ];
        support::fixture::run("setfattr", words);
    };
    std::fs::write(live.join("original"), Random::new(3).bytes(1 << 20)).unwrap();
    std::os::unix::fs::symlink("nowhere", live.join("link")).unwrap();
    std::fs::create_dir(live.join("dir")).unwrap();
    for name in ["original", "link", "dir", ""] {
        set("trusted.one", &live.join(name));
        set("security.two", &live.join(name));
    }
    let first = from.join("first");
    snapshot(&live, &first);
    let stream = sent(None, &first, 2, &[]);
    let id = identity(uuid_of(&first), None, 2);
    let (base, _) = receive(&place(to.path(), "first"), &id, None, &stream).unwrap();
    assert_same(&first, &base, "full");

    let (original, copy) = (live.join("original"), live.join("copy"));
    support::fixture::run(
        "cp",
        [
            "--reflink=always".as_ref(),
            original.as_os_str(),
            copy.as_os_str(),
        ],
    );
    support::fixture::run(
        "setfattr",
        [
            "-h".as_ref(),
            "-x".as_ref(),
            "trusted.one".as_ref(),
            live.join("link").as_os_str(),
        ],
    );
    let second = from.join("second");
    snapshot(&live, &second);
    let stream = sent(Some(&first), &second, 2, &[]);
    let id = identity(uuid_of(&second), Some(uuid_of(&first)), 2);
    let place = place(to.path(), "second");
    let (path, _) = receive(&place, &id, Some(&source(&base)), &stream).unwrap();
    assert_same(&second, &path, "on top of it");
    assert!(stream.len() < 1 << 20, "the copy is a clone in the stream");
    let shared = support::fixture::run(
        "btrfs",
        [
            "filesystem".as_ref(),
            "du".as_ref(),
            "--raw".as_ref(),
            "-s".as_ref(),
            path.join("copy").as_os_str(),
        ],
    );
    let shared = String::from_utf8(shared).unwrap();
    let figures: Vec<&str> = shared.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(
        figures[..3],
        ["1048576", "0", "1048576"],
        "total, exclusive, shared: {shared}"
    );
}

#[test]
fn the_verb_is_not_for_people() {
    let said = Process::new(env!("CARGO_BIN_EXE_standin"))
        .arg(VERB)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(Code::Usage as i32));
    let words = String::from_utf8(said.stderr).unwrap();
    assert!(words.contains("this verb is for the daemon"), "{words}");
    assert!(words.contains("hint: "), "{words}");
    let help = Process::new(env!("CARGO_BIN_EXE_standin"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains(VERB));
}

/// The daemon's own worker: confined like the others, and no more than a transfer is lost with it.
#[test]
fn a_daemon_goes_on_without_its_worker() {
    if !ready("a_daemon_goes_on_without_its_worker") {
        return;
    }
    let pair = Pair::new(&["files"], OFTEN, MANUAL);
    fill(&pair.alder.live("files"), 60, MIB as usize, 50);
    // Slow enough to have a middle.
    pair.alder
        .edit("[peer.birch]\n", "[peer.birch]\nbandwidth = \"16MiB/s\"\n");
    pair.alder.run(&["reload"]).ok();
    pair.wait_linked();
    let mut run = pair.alder.command(&["run", "web"]).spawn().unwrap();
    let done = |transfer: serde_json::Value| transfer["done_bytes"].as_u64().unwrap();
    pair.birch.wait_for("the transfer has a middle", || {
        pair.birch
            .transfer()
            .is_some_and(|transfer| done(transfer) > 16 * MIB)
    });
    let workers = workers_of(pair.birch.pid());
    assert_eq!(workers.len(), 1);
    let found = u64::from_str_radix(&status(workers[0])["CapEff"], 16).unwrap();
    assert_eq!(found, CAPABILITIES);
    kill(workers[0]);
    assert!(!run.wait().unwrap().success());
    let log = pair.birch.log();
    assert!(log.contains("it was ended by signal 9"), "{log}");
    pair.alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.1");
    let log = pair.alder.log();
    assert!(log.contains("resume files of"), "{log}");
    same_on_both(&pair, "1.1", &["files"]);
    assert_eq!(workers_of(pair.birch.pid()), [0; 0]);
}

/// A daemon that is killed takes its workers along.
#[test]
fn no_worker_outlives_its_daemon() {
    if !ready("no_worker_outlives_its_daemon") {
        return;
    }
    let disk = Loop::new(1 << 30);
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "waiting_child", "--nocapture"])
        .env("STANDIN_TEST_CHILD", disk.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = disk.join("is-ready");
    until("the child receives", || ready.exists());
    let workers = workers_of(child.id());
    assert_eq!(workers.len(), 1);
    // Stopped, it cannot see that the wire is closed: the kernel must end it.
    let pid = rustix::process::Pid::from_raw(workers[0] as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let stat = format!("/proc/{}/stat", workers[0]);
    until("the worker ends", || match std::fs::read_to_string(&stat) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    });
}

/// Not a test of its own: what [`no_worker_outlives_its_daemon`] starts.
#[test]
fn waiting_child() {
    let Some(dir) = std::env::var_os("STANDIN_TEST_CHILD").map(PathBuf::from) else {
        return;
    };
    let bytes = stream(1 << 20);
    // Opened on a thread that ends: the worker belongs to the process.
    let opening = dir.clone();
    let opened = std::thread::spawn(move || {
        open(&place(&opening, "waits"), &identity(US, None, 2), None).unwrap()
    });
    let mut incoming = opened.join().unwrap();
    incoming.write(&bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(dir.join("is-ready"), b"").unwrap();
    loop {
        std::thread::park_timeout(PATIENCE);
    }
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}
