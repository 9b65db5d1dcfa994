//! What is received is the same as what was sent: random trees, full and incremental, every stream version, and with the
//! receiver dropped at random places and opened again.
//!
//! The streams come from `btrfs send`, the judgement from tar and find (tests/support/same.rs): neither is our code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};

use standin::fs::btrfs::receive::{self, Place, Source};
use standin::fs::{Incoming, Limits, Opened};
use standin::logic::transfer::{FileFlags, StreamIdentity};
use support::fixture::{Loop, ready, run};
use support::random::Random;
use support::receiving::{
    data_bytes, flags, hash, identity, opened, place, sent, snapshot, source, uuid_of,
};
use support::same::{assert_same, differs_from_progs, flags_differ, holes_differ};
use support::tree::{Names, Tree};

/// How streams are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    One,
    Two,
    TwoCompressed,
}

impl Stream {
    fn version(self) -> u32 {
        if self == Stream::One { 1 } else { 2 }
    }

    fn make(self, base: Option<&Path>, snapshot: &Path) -> Vec<u8> {
        let more: &[&str] = match self {
            Stream::TwoCompressed => &["--compressed-data"],
            Stream::One | Stream::Two => &[],
        };
        sent(base, snapshot, self.version(), more)
    }
}

/// How a stream reaches the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    /// Dropped at random places, in between and at the end, and opened again.
    Interrupted,
}

struct Target {
    path: PathBuf,
    random: Random,
    way: Way,
    resumed: usize,
}

impl Target {
    /// Receives and publishes; gives where it lies then.
    fn receive(
        &mut self,
        number: usize,
        stream: &[u8],
        identity: &StreamIdentity,
        base: Option<&Source>,
        flags: &FileFlags,
    ) -> PathBuf {
        let place = place(&self.path, &format!("staging.{number}"));
        let data_bytes = data_bytes(stream);
        let mut incoming = self.open(&place, identity, base, flags, data_bytes);
        loop {
            let offset = incoming.standing().offset as usize;
            assert_eq!(
                incoming.standing().prefix,
                hash(&stream[..offset]),
                "prefix at {offset}"
            );
            let stop = match self.way {
                Way::Interrupted if !self.random.one_in(4) => {
                    offset + self.random.below((stream.len() - offset) as u64 + 1) as usize
                }
                _ => stream.len(),
            };
            self.feed(&mut *incoming, &stream[offset..stop]);
            if stop == stream.len() && (self.way == Way::Straight || self.random.one_in(3)) {
                break;
            }
            let checkpoint = incoming.standing().checkpoint;
            drop(incoming);
            assert_eq!(receive::partial(&place).unwrap(), Some(Some(checkpoint)));
            incoming = self.open(&place, identity, base, flags, data_bytes);
            assert_eq!(incoming.standing().offset, checkpoint);
            self.resumed += usize::from(checkpoint > 0);
        }
        let local = incoming.finish(stream.len() as u64, &hash(stream)).unwrap();
        assert_eq!(local.data_bytes, Some(data_bytes));
        assert_eq!(receive::partial(&place).unwrap(), Some(None));
        match opened(&place, identity, base, flags, 0, Limits::default()).unwrap() {
            Opened::Complete(again) => assert_eq!(again, local),
            Opened::Transfer(_) => panic!("complete, but opened again"),
        }
        let point = self.path.join(format!("point.{number}"));
        std::fs::rename(&place.point_dir, &point).unwrap();
        let path = point.join("data");
        let info = libbtrfsutil::subvolume_info(&path).unwrap();
        assert_eq!(info.received_uuid(), Some(identity.snapshot));
        assert_eq!((info.uuid(), info.ctransid()), (local.uuid, local.ctransid));
        assert!(libbtrfsutil::subvolume_read_only(&path).unwrap());
        path
    }

    fn open(
        &mut self,
        place: &Place,
        identity: &StreamIdentity,
        base: Option<&Source>,
        flags: &FileFlags,
        data_bytes: u64,
    ) -> Box<dyn Incoming> {
        let limits = Limits {
            checkpoint_bytes: match self.way {
                Way::Straight => u64::MAX,
                Way::Interrupted => 50_000 + self.random.below(1_000_000),
            },
            reserve: 1 << 20,
            ..Limits::default()
        };
        match opened(place, identity, base, flags, data_bytes, limits).unwrap() {
            Opened::Transfer(incoming) => incoming,
            Opened::Complete(_) => panic!("complete before it began"),
        }
    }

    fn feed(&mut self, incoming: &mut dyn Incoming, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let cut = 1 + self.random.below(200_000) as usize;
            let (piece, rest) = bytes.split_at(cut.min(bytes.len()));
            incoming.write(piece).unwrap();
            bytes = rest;
            if self.way == Way::Interrupted && self.random.one_in(60) {
                incoming.checkpoint().unwrap();
            }
        }
    }
}

/// What `btrfs receive` makes of the stream.
fn received_by_progs(program: &str, target: &Loop, round: usize, stream: &[u8]) -> PathBuf {
    let file = target.join("stream");
    std::fs::write(&file, stream).unwrap();
    run(
        program,
        ["receive", "-q", "-f"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([file.as_os_str(), target.path().as_os_str()]),
    );
    target.join(&format!("snapshot.{round}"))
}

/// The btrfs-progs of this machine, and newer ones where scripts/newer-btrfs has fetched them.
fn judges() -> Vec<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_default().join(".cache");
    let newer = cache.unwrap_or_else(home);
    let newer = newer.join("standin/btrfs-progs/root/usr/bin/btrfs");
    let mut judges = vec!["btrfs".to_owned()];
    if newer.exists() {
        judges.push(newer.display().to_string());
    } else {
        println!("SKIPPED newer btrfs-progs: not fetched (scripts/newer-btrfs)");
    }
    judges
}

/// A full stream and `rounds` incremental ones.
fn check(name: &str, kind: Stream, way: Way, rounds: usize, seed: u64) {
    if !ready(name) {
        return;
    }
    // Other trees: `STANDIN_SEED=1000 cargo test --test same_tree`.
    let more = std::env::var("STANDIN_SEED").ok();
    let seed = seed + more.and_then(|more| more.parse().ok()).unwrap_or(0);
    let options = if kind == Stream::TwoCompressed {
        "noatime,compress-force=zstd"
    } else {
        "noatime"
    };
    let (from, to) = (
        Loop::with_options(4 << 30, options),
        Loop::with_options(4 << 30, options),
    );
    let live = from.join("live");
    libbtrfsutil::create_subvolume(&live).unwrap();
    let mut tree = Tree::new(&live, seed, Names::Bytes);
    if kind == Stream::TwoCompressed {
        tree = tree.without_growth();
    }
    let mut target = Target {
        path: to.path().to_owned(),
        random: Random::new(seed),
        way,
        resumed: 0,
    };
    let judges = judges();
    let judges = judges
        .iter()
        .map(|judge| (judge, Loop::with_options(4 << 30, options)));
    let judges: Vec<(&String, Loop)> = judges.collect();
    let mut base: Option<(PathBuf, Source)> = None;
    let mut flagged = 0;
    for round in 0..=rounds {
        tree.change(if round == 0 { 250 } else { 60 });
        let taken = from.join(&format!("snapshot.{round}"));
        snapshot(&live, &taken);
        let base_path = base.as_ref().map(|(path, _)| path.as_path());
        let identity = identity(uuid_of(&taken), base_path.map(uuid_of), kind.version());
        let stream = kind.make(base_path, &taken);
        let from_base = base.as_ref().map(|(_, source)| source);
        let flags = flags(base_path, &taken);
        flagged += usize::from(!flags.is_empty());
        let received = target.receive(round, &stream, &identity, from_base, &flags);
        let what = format!("{name}, seed {seed}, round {round}");
        assert_same(&taken, &received, &what);
        assert_eq!(flags_differ(&taken, &received), None, "{what}: flags");
        for (judge, disk) in &judges {
            let theirs = received_by_progs(judge, disk, round, &stream);
            let differs = differs_from_progs(&theirs, &received);
            assert_eq!(differs, None, "{what}: {judge} and ours");
            let holes = holes_differ(&theirs, &received);
            assert_eq!(holes, None, "{what}: {judge} and ours differ in holes");
        }
        base = Some((taken, source(&received)));
    }
    assert!(flagged > rounds / 2, "flags in {flagged} rounds");
    assert_eq!(
        way == Way::Interrupted,
        target.resumed > 0,
        "resumed {} times",
        target.resumed
    );
}

#[test]
fn version_1() {
    check("version_1", Stream::One, Way::Straight, 20, 1);
}

#[test]
fn version_2() {
    check("version_2", Stream::Two, Way::Straight, 20, 2);
}

#[test]
fn version_2_compressed() {
    check(
        "version_2_compressed",
        Stream::TwoCompressed,
        Way::Straight,
        20,
        3,
    );
}

#[test]
fn version_1_interrupted() {
    check("version_1_interrupted", Stream::One, Way::Interrupted, 8, 4);
}

#[test]
fn version_2_interrupted() {
    check(
        "version_2_interrupted",
        Stream::Two,
        Way::Interrupted,
        12,
        5,
    );
}
