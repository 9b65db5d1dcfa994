//! A stream that is filled by our own readers is the kernel's, but for truncates that change nothing: over random trees, whole and incremental, in both
//! versions; and where filling gives up, the kernel's own stream goes on so that nobody sees it.
//!
//! The judge is `btrfs send`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Limits, Readable};
use standin::logic::manifest::{MANIFEST_VERSION, Manifest, Reason};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use standin::logic::point::{PointId, RoleId, Term};
use support::fixture::{Loop, ready, run};
use support::receiving::{applying, data_bytes, sent};
use support::tree::{Names, Tree};

/// What the program logs, to see when filling gave up.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Of this thread, from now on.
    fn watch() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || to.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn given_up(&self) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.matches("the kernel's own stream goes on").count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Most bytes taken at a time: the longest frame of a link.
const PIECE_BYTES_MAX: usize = 256 << 10;

struct Stage {
    disk: Loop,
    fs: Btrfs,
    term: Term,
    sequence: u64,
}

fn dataset() -> DatasetName {
    DatasetName::parse("data").unwrap()
}

impl Stage {
    fn new(mib: u64) -> Stage {
        let disk = Loop::new(mib << 20);
        let live = disk.join("data");
        run("btrfs", ["subvolume", "create", live.to_str().unwrap()]);
        let limits = Limits {
            reserve: 0,
            ..Limits::default()
        };
        let datasets = BTreeMap::from([(dataset(), live)]);
        let role = RoleName::parse("web").unwrap();
        let fs = Btrfs::new(role, datasets, limits)
            .unwrap()
            .applying(applying())
            .spooling(disk.path().to_owned());
        fs.prepare().unwrap();
        Stage {
            disk,
            fs,
            term: Term {
                epoch: 1,
                holder: NodeName::parse("alder").unwrap(),
                nonce: 1,
            },
            sequence: 0,
        }
    }

    fn live(&self) -> PathBuf {
        self.disk.join("data")
    }

    fn take(&mut self) -> PointId {
        self.sequence += 1;
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            role: RoleId(uuid::Uuid::from_u128(7)),
            role_name: RoleName::parse("web").unwrap(),
            point: PointId {
                term: self.term.clone(),
                sequence: self.sequence,
            },
            taken: "2026-11-20T12:00:00Z".parse().unwrap(),
            node: NodeName::parse("alder").unwrap(),
            reason: Reason::Asked,
            datasets: BTreeMap::new(),
            dumps: Vec::new(),
        };
        self.fs.snapshot(manifest).unwrap().manifest.point
    }

    fn path(&self, point: &PointId) -> Readable {
        self.fs.snapshot_path(&dataset(), point).unwrap()
    }

    /// The stream, read in pieces of `piece` bytes.
    fn filled(
        &self,
        base: Option<&PointId>,
        point: &PointId,
        version: u32,
        piece: usize,
    ) -> Vec<u8> {
        let mut stream = self.fs.send(&dataset(), base, point, version).unwrap();
        let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                got => all.extend_from_slice(&buffer[..got]),
            }
        }
        stream.finish().unwrap();
        all
    }

    /// The same from the commands that measuring kept, in pieces as they come.
    fn kept(&self, base: Option<&PointId>, point: &PointId, version: u32) -> Vec<u8> {
        let measured = self.fs.measure(&dataset(), base, point, version).unwrap();
        let mut stream = self.fs.send(&dataset(), base, point, version).unwrap();
        let mut all = Vec::new();
        loop {
            let piece = stream.piece(PIECE_BYTES_MAX).unwrap();
            assert!(piece.len() <= PIECE_BYTES_MAX);
            if piece.is_empty() {
                break;
            }
            all.extend_from_slice(&piece);
        }
        stream.finish().unwrap();
        assert_eq!(measured.data_bytes, data_bytes(&all));
        all
    }

    #[track_caller]
    fn same(
        &self,
        base: Option<&PointId>,
        point: &PointId,
        version: u32,
        piece: usize,
        what: &str,
    ) {
        let filled = self.filled(base, point, version, piece);
        let again = self.kept(base, point, version);
        assert!(filled == again, "{what}: not the same twice");
        let base = base.map(|base| self.path(base));
        let kernels = sent(base.as_deref(), &self.path(point), version, &[]);
        let (filled, kernels) = (without_truncates(&filled), without_truncates(&kernels));
        let differ = filled
            .iter()
            .zip(&kernels)
            .position(|(one, other)| one != other);
        let lengths = (filled.len(), kernels.len());
        assert!(
            differ.is_none() && filled.len() == kernels.len(),
            "{what}: differs at {differ:?} of {lengths:?}"
        );
    }
}

/// The stream but for what says again how long a file is: whether the kernel says it depends on holes that it wrote as zeros, and
/// those it did not write in the stream without data.
fn without_truncates(stream: &[u8]) -> Vec<u8> {
    let (header, mut rest) = stream.split_at(17);
    let mut kept = header.to_vec();
    while !rest.is_empty() {
        let payload = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let (command, others) = rest.split_at(10 + payload);
        if command[4..6] != [17, 0] {
            kept.extend_from_slice(command);
        }
        rest = others;
    }
    kept
}

#[test]
fn random_trees() {
    if !ready("random_trees") {
        return;
    }
    for seed in 1..=8 {
        let (log, _watching) = Log::watch();
        let mut stage = Stage::new(1024);
        let mut tree = Tree::new(&stage.live(), seed, Names::Bytes);
        tree.change(200);
        let mut points = vec![stage.take()];
        for _ in 0..5 {
            tree.change(120);
            points.push(stage.take());
        }
        for version in [1, 2] {
            let last = points.last().unwrap();
            stage.same(None, last, version, 100_000, &format!("seed {seed} whole"));
            for pair in points.windows(2) {
                let what = format!("seed {seed}, {} on {}, version {version}", pair[1], pair[0]);
                stage.same(Some(&pair[0]), &pair[1], version, 1 << 20, &what);
            }
            // Over several steps at once, and back.
            let (first, last) = (&points[0], &points[points.len() - 1]);
            stage.same(
                Some(first),
                last,
                version,
                65_536,
                &format!("seed {seed}, far"),
            );
            stage.same(
                Some(last),
                first,
                version,
                65_536,
                &format!("seed {seed}, back"),
            );
        }
        println!("seed {seed}: gave up {} times of 16", log.given_up());
        assert!(
            log.given_up() == 0,
            "seed {seed}: gave up {} times",
            log.given_up()
        );
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text.repeat(5000)).unwrap();
}

#[test]
fn names_that_others_had() {
    if !ready("names_that_others_had") {
        return;
    }
    let (log, _watching) = Log::watch();
    let mut stage = Stage::new(512);
    let top = stage.live();
    let at = |name: &str| top.join(name);
    for dir in ["a", "b", "a/deep"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    for name in ["a/x", "b/x", "a/deep/y", "one", "two"] {
        write(&at(name), name);
    }
    let first = stage.take();
    let rename = |from: &str, to: &str| std::fs::rename(at(from), at(to)).unwrap();
    // Files and directories change places, and what is in them changes too.
    rename("one", "three");
    rename("two", "one");
    rename("three", "two");
    rename("a", "c");
    rename("b", "a");
    rename("c", "b");
    rename("b/deep", "deep");
    rename("deep", "a/deep");
    for name in ["a/x", "b/x", "a/deep/y", "one", "two"] {
        write(&at(name), &format!("new {name}"));
    }
    std::fs::hard_link(at("one"), at("a/four")).unwrap();
    std::fs::remove_file(at("one")).unwrap();
    write(&at("one"), "another one");
    let second = stage.take();
    for version in [1, 2] {
        stage.same(Some(&first), &second, version, 1 << 20, "there");
        stage.same(Some(&second), &first, version, 1 << 20, "back");
        stage.same(None, &second, version, 1 << 20, "whole");
    }
    assert_eq!(log.given_up(), 0);
}

/// A stream with more changed names than are remembered: the beginning is filled, and the kernel goes on.
#[test]
fn the_kernel_goes_on() {
    if !ready("the_kernel_goes_on") {
        return;
    }
    let (log, _watching) = Log::watch();
    let mut stage = Stage::new(1024);
    let top = stage.live();
    write(&top.join("kept"), "kept");
    let first = stage.take();
    for number in 0..300 {
        write(&top.join(format!("file {number}")), "data");
    }
    for number in 0..60_000 {
        std::os::unix::fs::symlink("nowhere", top.join(format!("link {number}"))).unwrap();
    }
    let second = stage.take();
    stage.same(Some(&first), &second, 1, 1 << 20, "many names");
    // The second time the kernel made it from the beginning.
    assert_eq!(log.given_up(), 1);
}

/// More commands than have room in memory, kept once for two who measure at the same time.
#[test]
fn many_commands_are_kept() {
    if !ready("many_commands_are_kept") {
        return;
    }
    let (log, _watching) = Log::watch();
    let mut stage = Stage::new(1024);
    for dir in 0..40 {
        let dir = stage.live().join(dir.to_string());
        std::fs::create_dir(&dir).unwrap();
        for number in 0..500 {
            std::fs::write(dir.join(format!("file {number}")), vec![7; number]).unwrap();
        }
    }
    let point = stage.take();
    let fs = &stage.fs;
    std::thread::scope(|scope| {
        let measure = || fs.measure(&dataset(), None, &point, 2).unwrap();
        let measured = [scope.spawn(measure), scope.spawn(measure)].map(|one| one.join().unwrap());
        assert_eq!(measured[0], measured[1]);
        stage.same(None, &point, 2, 1 << 20, "many files");
    });
    assert_eq!(log.given_up(), 0);
}

/// A pass that was kept does not protect the snapshot, as the kernel's own stream does.
#[test]
fn changed_while_it_is_sent() {
    if !ready("changed_while_it_is_sent") {
        return;
    }
    let mut stage = Stage::new(512);
    write(&stage.live().join("file"), "text");
    let point = stage.take();
    let measured = stage.fs.measure(&dataset(), None, &point, 2).unwrap();
    let mut stream = stage.fs.send(&dataset(), None, &point, 2).unwrap();
    while !stream.piece(PIECE_BYTES_MAX).unwrap().is_empty() {}
    let path = stage.path(&point);
    let property = |value| {
        let path = path.to_str().unwrap();
        run("btrfs", ["property", "set", "-f", path, "ro", value]);
    };
    property("false");
    write(&path.join("file"), "other");
    property("true");
    let error = stream.finish().unwrap_err();
    assert!(
        format!("{error:#}").contains("changed meanwhile"),
        "{error:#}"
    );
    // It is not sent again either.
    assert!(stage.fs.send(&dataset(), None, &point, 2).is_err());
    drop(measured);
}

/// Nobody reads to the end: the threads end, and the point can be destroyed.
#[test]
fn dropped_in_the_middle() {
    if !ready("dropped_in_the_middle") {
        return;
    }
    let mut stage = Stage::new(1024);
    for number in 0..200 {
        std::fs::write(
            stage.live().join(number.to_string()),
            vec![number as u8; 1 << 20],
        )
        .unwrap();
    }
    let first = stage.take();
    write(&stage.live().join("more"), "more");
    stage.take();
    for pieces in [0, 1, 7, 60] {
        let mut stream = stage.fs.send(&dataset(), None, &first, 1).unwrap();
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..pieces {
            assert!(stream.read(&mut buffer).unwrap() > 0);
        }
        drop(stream);
    }
    stage.fs.destroy(&first).unwrap();
}
