//! Flags that a stream does not carry arrive all the same: NOCOW, immutable and append-only, full and incremental, through
//! `fs::Filesystem` alone. The judgement is lsattr's.
#![allow(clippy::unwrap_used)]

#[path = "contract/stage.rs"]
mod stage;
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use stage::*;
use standin::fs::btrfs::Btrfs;
use standin::fs::btrfs::stream::{Cloned, Command, Encoder};
use standin::fs::{Filesystem, Incoming, Opened, Readable, Receipt};
use standin::logic::manifest::Stored;
use standin::logic::point::PointId;
use standin::logic::transfer::FileFlags;
use support::receiving::{LIMITS, hash, identity, opened, place};
use support::same::{assert_same, flags_differ};
use uuid::Uuid;

/// How a stream reaches the receiver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    /// Dropped again and again, and opened anew.
    Interrupted,
}

/// A live subvolume on one filesystem, its points sent to another, one on top of the other.
struct Pair {
    live: PathBuf,
    from: Btrfs,
    to: Btrfs,
    points: Vec<Stored>,
    way: Way,
    _disks: [Disk; 2],
}

impl Pair {
    fn new(way: Way) -> Pair {
        let disks = [Disk::new(512), Disk::new(512)];
        let live = disks[0].subvolume("web");
        let from = btrfs(&[("web", &live)]);
        let to = btrfs(&[("web", &disks[1].path().join("web"))]);
        from.prepare().unwrap();
        to.prepare().unwrap();
        Pair {
            live,
            from,
            to,
            points: Vec::new(),
            way,
            _disks: disks,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.live.join(name)
    }

    fn write(&self, name: &str, bytes: usize) {
        fs::write(self.path(name), vec![bytes as u8; bytes]).unwrap();
    }

    fn mkdir(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
    }

    /// A NOCOW file with something in it.
    fn table(&self, name: &str) {
        File::create_new(self.path(name)).unwrap();
        self.chattr("+C", &[name]);
        self.write(name, 300_000);
    }

    fn chattr(&self, how: &str, names: &[&str]) {
        for name in names {
            must("chattr", &[how, text(&self.path(name))]);
        }
    }

    /// Takes a point on top of the last one and sends it; gives its receipt and where it lies then.
    fn step(&mut self, what: &str) -> (Receipt, Readable) {
        let base = self.points.last().map(|point| point.manifest.point.clone());
        let sequence = base.as_ref().map_or(1, |base| base.sequence + 1);
        let point = take(&self.from, 1, sequence);
        self.points.push(point.clone());
        self.send(base.as_ref(), &point, what)
    }

    fn send(&self, base: Option<&PointId>, point: &Stored, what: &str) -> (Receipt, Readable) {
        let (web, id) = (dataset("web"), &point.manifest.point);
        let measured = self.from.measure(&web, base, id, 2).unwrap();
        assert_eq!(measured.identity.version, 2);
        let bytes = stream(&self.from, &web, base, id, 2);
        let receipt = Receipt {
            manifest: point.manifest.clone(),
            dataset: web.clone(),
            identity: measured.identity,
            base: base.cloned(),
            data_bytes: measured.data_bytes,
            flags: measured.flags,
            accept: standin::logic::accept::Accept::default(),
        };
        let mut incoming = self.open(&receipt);
        if self.way == Way::Interrupted {
            for part in 1..10 {
                let from = incoming.standing().offset as usize;
                let until = (bytes.len() * part / 10).max(from);
                incoming.write(&bytes[from..until]).unwrap();
                incoming.checkpoint().unwrap();
                let checkpoint = incoming.standing().checkpoint;
                drop(incoming);
                incoming = self.open(&receipt);
                assert_eq!(incoming.standing().offset, checkpoint);
            }
        }
        let from = incoming.standing().offset as usize;
        incoming.write(&bytes[from..]).unwrap();
        incoming.finish(bytes.len() as u64, &hash(&bytes)).unwrap();
        self.to.publish(&point.manifest, &node("alder")).unwrap();
        let shown = |fs: &Btrfs| fs.snapshot_path(&web, id).unwrap();
        let (sent, received) = (shown(&self.from), shown(&self.to));
        assert_same(&sent, &received, what);
        assert_eq!(flags_differ(&sent, &received), None, "{what}");
        (receipt, received)
    }

    fn open(&self, receipt: &Receipt) -> Box<dyn Incoming> {
        match self.to.receive(receipt).unwrap() {
            Opened::Transfer(incoming) => incoming,
            Opened::Complete(_) => panic!("nothing was received yet"),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // What a failed test leaves locked would be in nobody's way but that of the next reader.
        let _ = std::process::Command::new("chattr")
            .args(["-R", "-f", "-i", "-a"])
            .arg(&self.live)
            .status();
    }
}

fn letters(path: &Path) -> String {
    let text = must("lsattr", &["-d", text(path)]);
    text.split(' ').next().unwrap().replace('-', "")
}

fn check(at: &Path, expected: &[(&str, &str)]) {
    for (name, flags) in expected {
        assert_eq!(letters(&at.join(name)), *flags, "{name}");
    }
}

fn all_flags_of_new_files(way: Way) {
    let mut pair = Pair::new(way);
    pair.table("table");
    pair.mkdir("db");
    pair.chattr("+C", &["db"]);
    pair.mkdir("db/inner");
    pair.write("db/inner/rows", 700_000);
    pair.mkdir("plain");
    pair.write("plain/file", 5_000);
    fs::rename(pair.path("plain/file"), pair.path("db/moved in")).unwrap();
    pair.write("fixed", 100_000);
    pair.write("log", 100_000);
    pair.write("both", 10);
    pair.mkdir("shut");
    pair.write("shut/inside", 10);
    fs::hard_link(pair.path("fixed"), pair.path("shut/fixed too")).unwrap();
    pair.table("fixed table");
    pair.chattr("+i", &["fixed", "shut", "fixed table"]);
    pair.chattr("+a", &["log"]);
    pair.chattr("+ia", &["both"]);
    let expected = [
        ("table", "C"),
        ("db", "C"),
        ("db/inner", "C"),
        ("db/inner/rows", "C"),
        ("db/moved in", ""),
        ("plain", ""),
        ("fixed", "i"),
        ("log", "a"),
        ("both", "ia"),
        ("shut", "i"),
        ("shut/inside", ""),
        ("fixed table", "iC"),
    ];
    let (_, received) = pair.step("full");
    check(&received, &expected);
    let (receipt, received) = pair.step("nothing changed");
    assert!(receipt.flags.is_empty(), "{:?}", receipt.flags);
    check(&received, &expected);

    pair.table("db/inner/more");
    pair.write("db/inner/rows", 900_000);
    pair.table("plain/second table");
    pair.write("new fixed", 20);
    pair.chattr("+i", &["new fixed"]);
    pair.write("plain/new log", 20);
    pair.chattr("+a", &["plain/new log"]);
    let (receipt, received) = pair.step("new files on top");
    assert!(!receipt.flags.is_empty());
    check(&received, &expected);
    check(
        &received,
        &[
            ("db/inner/more", "C"),
            ("plain/second table", "C"),
            ("new fixed", "i"),
            ("plain/new log", "a"),
        ],
    );
}

#[test]
fn new_files() {
    if ready("new_files") {
        all_flags_of_new_files(Way::Straight);
    }
}

#[test]
fn new_files_interrupted() {
    if ready("new_files_interrupted") {
        all_flags_of_new_files(Way::Interrupted);
    }
}

/// The base on the receiver is as locked as the one at the source: that stands in the way of nothing.
#[test]
fn locked_files_change() {
    if !ready("locked_files_change") {
        return;
    }
    for way in [Way::Straight, Way::Interrupted] {
        let mut pair = Pair::new(way);
        let dirs = ["shut", "goes dir", "growing"];
        let files = ["grows", "goes", "moves", "shut/inside", "goes dir/file"];
        for name in dirs {
            pair.mkdir(name);
        }
        for name in files {
            pair.write(name, 200_000);
        }
        pair.write("log", 1000);
        pair.chattr("+i", &files);
        pair.chattr("+i", &["shut", "goes dir"]);
        pair.chattr("+a", &["log", "growing"]);
        pair.step("full");

        pair.chattr("-i", &["shut", "goes dir"]);
        pair.chattr("-i", &files);
        pair.chattr("-a", &["log"]);
        pair.write("grows", 400_000);
        fs::remove_file(pair.path("goes")).unwrap();
        fs::remove_dir_all(pair.path("goes dir")).unwrap();
        fs::rename(pair.path("moves"), pair.path("shut/moved")).unwrap();
        fs::rename(pair.path("shut/inside"), pair.path("outside")).unwrap();
        fs::hard_link(pair.path("outside"), pair.path("shut/again")).unwrap();
        pair.write("shut/new", 10);
        pair.write("log", 2000);
        pair.write("growing/new", 10);
        let locked = ["grows", "shut/moved", "outside", "shut/new", "shut"];
        pair.chattr("+i", &locked);
        pair.chattr("+a", &["log"]);
        let (_, received) = pair.step("changed under the locks");
        for name in locked {
            check(&received, &[(name, "i")]);
        }
        check(
            &received,
            &[
                ("shut/again", "i"),
                ("log", "a"),
                ("growing", "a"),
                ("growing/new", ""),
            ],
        );
        pair.chattr("-i", &["shut", "shut/moved"]);
        fs::rename(pair.path("shut/moved"), pair.path("free")).unwrap();
        let (_, received) = pair.step("locks gone");
        check(&received, &[("shut", ""), ("free", ""), ("outside", "i")]);
    }
}

/// New files appear in the top directory first: they must not inherit its flag.
#[test]
fn a_nocow_top_directory() {
    if !ready("a_nocow_top_directory") {
        return;
    }
    for way in [Way::Straight, Way::Interrupted] {
        let mut pair = Pair::new(way);
        pair.mkdir("old");
        pair.write("old/file", 10_000);
        pair.chattr("+C", &["."]);
        pair.write("table", 10_000);
        let (_, received) = pair.step("full");
        check(&received, &[(".", "C"), ("old/file", ""), ("table", "C")]);
        pair.write("old/second", 10_000);
        pair.write("second table", 10_000);
        let (_, received) = pair.step("on top");
        check(
            &received,
            &[(".", "C"), ("old/second", ""), ("second table", "C")],
        );
        pair.chattr("-C", &["."]);
        pair.write("plain", 10_000);
        let (_, received) = pair.step("without");
        check(&received, &[(".", ""), ("plain", ""), ("table", "C")]);
        pair.chattr("+C", &["."]);
        pair.write("third table", 10_000);
        pair.write("old/third", 10_000);
        let (_, received) = pair.step("with it again");
        check(
            &received,
            &[(".", "C"), ("old/third", ""), ("third table", "C")],
        );
    }
}

/// What a restore brings back is older than the base and not in it.
#[test]
fn files_that_a_restore_brings_back() {
    if !ready("files_that_a_restore_brings_back") {
        return;
    }
    let mut pair = Pair::new(Way::Straight);
    for number in 0..500 {
        pair.write(&format!("filler {number}"), 10);
    }
    pair.table("table");
    let (_, _) = pair.step("with it");
    fs::remove_file(pair.path("table")).unwrap();
    pair.step("without it");
    let (one, two) = (pair.points[0].clone(), pair.points[1].clone());
    pair.from
        .restore_live(
            &dataset("web"),
            &one.manifest.point,
            Some(&two),
            manifest(1, 3),
        )
        .unwrap();
    let back = take(&pair.from, 1, 4);
    let (receipt, received) = pair.send(Some(&two.manifest.point), &back, "brought back");
    assert!(!receipt.flags.is_empty());
    check(&received, &[("table", "C")]);
    // And now by the difference again.
    pair.points.push(back);
    pair.write("another", 10);
    let (receipt, _) = pair.step("after it");
    assert!(receipt.flags.is_empty());
}

/// A file that is linked into the tree only after the base was taken, though it is older.
#[test]
fn a_file_without_a_name_in_the_base() {
    if !ready("a_file_without_a_name_in_the_base") {
        return;
    }
    use rustix::fs::{AtFlags, CWD, IFlags, Mode, OFlags};
    let mut pair = Pair::new(Way::Straight);
    for number in 0..500 {
        pair.write(&format!("filler {number}"), 10);
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&pair.live, flags, Mode::from_raw_mode(0o600)).unwrap();
    rustix::fs::ioctl_setflags(&file, IFlags::NOCOW).unwrap();
    rustix::io::write(&file, &[7; 10_000]).unwrap();
    pair.step("nameless");
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let follow = AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(CWD, &name, CWD, pair.path("table"), follow).unwrap();
    let (_, received) = pair.step("named");
    check(&received, &[("table", "C")]);
}

/// A file that is NOCOW here cannot share with one that is not: it gets a copy.
#[test]
fn clones_into_nocow_files_are_copied() {
    if !ready("clones_into_nocow_files_are_copied") {
        return;
    }
    let disk = Disk::new(512);
    let uuid = Uuid::from_u128(5);
    let data: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    let mut stream = Encoder::new(2);
    stream
        .put(&Command::Subvol {
            path: b"s",
            uuid,
            ctransid: 9,
        })
        .put(&Command::Mkfile {
            path: b"plain",
            inode: Some(257),
        })
        .put(&Command::Write {
            path: b"plain",
            offset: 0,
            data: &data,
        })
        .put(&Command::Mkfile {
            path: b"table",
            inode: Some(258),
        })
        .put(&Command::Clone(Cloned {
            path: b"table",
            offset: 4096,
            len: 65_536,
            source: uuid,
            source_ctransid: 9,
            source_path: b"plain",
            source_offset: 8192,
        }))
        .put(&Command::End);
    let flags: FileFlags = serde_json::from_str(r#"{"nocow":[258,0]}"#).unwrap();
    let (place, id) = (place(disk.path(), "r"), identity(uuid, None, 2));
    let opened = opened(&place, &id, None, &flags, 0, LIMITS).unwrap();
    let Opened::Transfer(mut incoming) = opened else {
        panic!("nothing was received yet")
    };
    let bytes = stream.bytes();
    incoming.write(bytes).unwrap();
    incoming.finish(bytes.len() as u64, &hash(bytes)).unwrap();
    let received = place.point_dir.join("data");
    check(&received, &[("plain", ""), ("table", "C")]);
    let table = fs::read(received.join("table")).unwrap();
    assert_eq!(table[4096..], data[8192..8192 + 65_536]);
}
