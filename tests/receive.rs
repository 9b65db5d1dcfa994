//! The rules of receiving one dataset: what is refused and how, and what is carried that `btrfs receive` loses.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use standin::fs::btrfs::receive::{self, Place, Source};
use standin::fs::{FsError, Limits, Opened};
use standin::logic::transfer::FileFlags;
use support::fixture::{Loop, ready, run};
use support::receiving::*;
use support::same::assert_same;
use support::tree::clone;

/// A live subvolume with something in it.
fn live(on: &Loop) -> PathBuf {
    let live = on.join("live");
    libbtrfsutil::create_subvolume(&live).unwrap();
    std::fs::create_dir(live.join("dir")).unwrap();
    std::fs::write(live.join("dir/file"), vec![5; 300_000]).unwrap();
    live
}

/// Takes snapshots of a live subvolume and sends them to another filesystem, one on top of the other.
struct Chain {
    from: Loop,
    to: Loop,
    live: PathBuf,
    taken: Vec<PathBuf>,
    received: Vec<PathBuf>,
}

impl Chain {
    fn new(from_options: &str, to_options: &str) -> Chain {
        let from = Loop::with_options(1 << 30, from_options);
        Chain {
            live: live(&from),
            from,
            to: Loop::with_options(1 << 30, to_options),
            taken: Vec::new(),
            received: Vec::new(),
        }
    }

    fn base(&self) -> Option<Source> {
        self.received.last().map(|path| source(path))
    }

    /// The next snapshot's stream and identity.
    fn next(&mut self, version: u32) -> (Vec<u8>, standin::logic::transfer::StreamIdentity) {
        let taken = self.from.join(&format!("s{}", self.taken.len()));
        snapshot(&self.live, &taken);
        let base = self.taken.last().cloned();
        let stream = sent(base.as_deref(), &taken, version, &[]);
        let identity = identity(uuid_of(&taken), base.as_deref().map(uuid_of), version);
        self.taken.push(taken);
        (stream, identity)
    }

    fn place(&self) -> Place {
        place(self.to.path(), &format!("r{}", self.taken.len()))
    }

    /// Snapshot, send, receive, compare.
    fn step(&mut self, what: &str) -> PathBuf {
        let (stream, identity) = self.next(2);
        let base = self.base();
        let (path, _) = receive(&self.place(), &identity, base.as_ref(), &stream).unwrap();
        self.received.push(path.clone());
        assert_same(self.taken.last().unwrap(), &path, what);
        path
    }
}

fn flags(path: &Path) -> String {
    let text = String::from_utf8(run("lsattr", ["-d".as_ref(), path.as_os_str()])).unwrap();
    text.split(' ').next().unwrap().replace('-', "")
}

#[test]
fn the_top_directory_passes_nothing_on() {
    if !ready("the_top_directory_passes_nothing_on") {
        return;
    }
    let mut chain = Chain::new("noatime", "noatime");
    let live = chain.live.clone();
    let top = live.as_os_str();
    run(
        "setfacl",
        ["-d".as_ref(), "-m".as_ref(), "u:1234:rwx".as_ref(), top],
    );
    run(
        "setfattr",
        [
            "-n".as_ref(),
            "btrfs.compression".as_ref(),
            "-v".as_ref(),
            "zstd".as_ref(),
            top,
        ],
    );
    std::fs::create_dir(live.join("dir/below")).unwrap();
    std::fs::write(live.join("dir/below/plain"), b"x").unwrap();
    chain.step("full");
    std::fs::write(live.join("dir/below/other"), b"x").unwrap();
    chain.step("below, the top as it was");
    std::fs::write(live.join("new"), b"inherits").unwrap();
    chain.step("in the top itself");
    run("setfacl", ["-k".as_ref(), top]);
    chain.step("default ACL removed");
    std::fs::write(live.join("dir/below/third"), b"x").unwrap();
    run(
        "setfattr",
        ["-x".as_ref(), "btrfs.compression".as_ref(), top],
    );
    chain.step("compression removed");
}

#[test]
fn locked_files_of_the_base() {
    if !ready("locked_files_of_the_base") {
        return;
    }
    let mut chain = Chain::new("noatime", "noatime");
    let live = chain.live.clone();
    let file = |name: &str| live.join(name);
    for name in ["grows", "goes", "moves", "dir/stays"] {
        std::fs::write(file(name), b"first").unwrap();
    }
    chain.step("full");
    let all = ["grows", "goes", "moves", "dir/stays", "dir"];
    let chattr = |how: &str, names: &[&str]| {
        for name in names {
            run("chattr", [how.as_ref(), file(name).as_os_str()]);
        }
    };
    chattr("+i", &all);
    let received = chain.step("locked");
    for name in all {
        assert!(flags(&received.join(name)).contains('i'), "{name}");
    }
    chattr("-i", &all);
    std::fs::write(file("grows"), b"second").unwrap();
    std::fs::remove_file(file("goes")).unwrap();
    std::fs::rename(file("moves"), file("dir/moved")).unwrap();
    std::fs::write(file("dir/new"), b"new").unwrap();
    chattr("+i", &["grows", "dir/moved", "dir/stays", "dir"]);
    let received = chain.step("changed under the lock");
    for name in ["grows", "dir/moved", "dir/stays", "dir"] {
        assert!(flags(&received.join(name)).contains('i'), "{name}");
    }
    chattr("-i", &["grows", "dir/moved", "dir/stays", "dir"]);
    chattr("+a", &["grows"]);
    chattr("+d", &["dir/stays"]);
    let received = chain.step("append-only");
    assert_eq!(flags(&received.join("dir/stays")), "d");
    assert_eq!(flags(&received.join("grows")), "a");
    assert_eq!(flags(&received.join("dir")), "");
    chattr("-a", &["grows"]);
}

#[test]
fn nocow_and_compression() {
    if !ready("nocow_and_compression") {
        return;
    }
    let mut chain = Chain::new("noatime", "noatime");
    let live = chain.live.clone();
    std::fs::create_dir(live.join("cow")).unwrap();
    File::create(live.join("empty")).unwrap();
    run(
        "setfattr",
        [
            "-n".as_ref(),
            "btrfs.compression".as_ref(),
            "-v".as_ref(),
            "zstd".as_ref(),
            live.join("dir").as_os_str(),
        ],
    );
    chain.step("full");
    run(
        "chattr",
        [
            "+C".as_ref(),
            live.join("cow").as_os_str(),
            live.join("empty").as_os_str(),
        ],
    );
    run("chattr", ["+d".as_ref(), live.join("dir").as_os_str()]);
    let received = chain.step("flags");
    assert_eq!(flags(&received.join("cow")), "C");
    assert_eq!(flags(&received.join("empty")), "C");
    assert!(flags(&received.join("dir")).contains('d'));
}

#[test]
fn clones_that_cannot_be_shared_are_copied() {
    if !ready("clones_that_cannot_be_shared_are_copied") {
        return;
    }
    // Everything written without copy-on-write and checksums cannot share with what was written with them.
    let mut chain = Chain::new("noatime", "noatime");
    let live = chain.live.clone();
    let original = std::fs::read(live.join("dir/file")).unwrap();
    chain.step("full");
    run(
        "mount",
        [
            "-o".as_ref(),
            "remount,nodatacow".as_ref(),
            chain.to.path().as_os_str(),
        ],
    );
    let (from, to) = (
        File::open(live.join("dir/file")).unwrap(),
        File::create(live.join("copy")).unwrap(),
    );
    assert!(clone(&to, 0, &from, 0, 299_008));
    to.write_all_at(b"end", 300_000).unwrap();
    let received = chain.step("shared at the source only");
    assert_eq!(
        std::fs::read(received.join("copy")).unwrap()[..299_008],
        original[..299_008]
    );
    assert!(flags(&received.join("copy")).contains('C'));
}

#[test]
fn compressed_pieces_are_unpacked_where_they_must_be() {
    if !ready("compressed_pieces_are_unpacked_where_they_must_be") {
        return;
    }
    let from = Loop::with_options(1 << 30, "noatime,compress-force=zstd");
    let to = Loop::with_options(1 << 30, "noatime,nodatacow");
    let live = live(&from);
    let mut random = support::random::Random::new(11);
    for number in 0..40 {
        let length = random.below(300_000) as usize;
        std::fs::write(live.join(number.to_string()), random.bytes(length)).unwrap();
    }
    let taken = from.join("s");
    snapshot(&live, &taken);
    let stream = sent(None, &taken, 2, &["--compressed-data"]);
    let (path, _) = receive(
        &place(to.path(), "r"),
        &identity(uuid_of(&taken), None, 2),
        None,
        &stream,
    )
    .unwrap();
    assert_same(&taken, &path, "unpacked");
}

#[test]
fn bases_that_are_not_what_they_should_be() {
    if !ready("bases_that_are_not_what_they_should_be") {
        return;
    }
    let mut chain = Chain::new("noatime", "noatime");
    let received = chain.step("full");
    std::fs::write(chain.live.join("more"), b"more").unwrap();
    let (_, identity) = chain.next(2);
    let place = chain.place();
    let check = |base: Option<&Source>, words: &str| {
        let error = open(&place, &identity, base).err().unwrap();
        assert!(
            matches!(error.downcast_ref(), Some(FsError::BadBase { .. })),
            "{error:#}"
        );
        assert!(error.to_string().contains(words), "{error:#}");
    };
    let good = source(&received);
    check(None, "not held here");
    check(
        Some(&Source {
            path: chain.to.join("nowhere"),
            ..good.clone()
        }),
        "cannot be read",
    );
    check(
        Some(&Source {
            ctransid: Some(1),
            ..good.clone()
        }),
        "was changed",
    );
    let other = chain.to.join("other");
    libbtrfsutil::create_subvolume(&other).unwrap();
    check(
        Some(&Source {
            path: other.clone(),
            ..good.clone()
        }),
        "is writable",
    );
    libbtrfsutil::set_subvolume_read_only(&other, true).unwrap();
    check(
        Some(&Source {
            path: other,
            ..good.clone()
        }),
        "not ",
    );
    assert!(open(&place, &identity, Some(&good)).is_ok());
    // Made writable, changed and made read-only again: it still has its identity.
    libbtrfsutil::set_subvolume_read_only(&received, false).unwrap();
    std::fs::write(received.join("tampered"), b"x").unwrap();
    libbtrfsutil::set_subvolume_read_only(&received, true).unwrap();
    libbtrfsutil::sync(&received).unwrap();
    check(Some(&good), "was changed");
}

#[test]
fn endings() {
    if !ready("endings") {
        return;
    }
    let mut chain = Chain::new("noatime", "noatime");
    let (stream, identity) = chain.next(2);
    let (place, bytes, whole) = (chain.place(), stream.len() as u64, hash(&stream));
    let check = |fed: &[u8], bytes: u64, hash: &str, words: &str| {
        let mut incoming = open(&place, &identity, None).unwrap();
        incoming.restart().unwrap();
        incoming.write(fed).unwrap();
        let error = incoming.finish(bytes, hash).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(FsError::BadStream { .. })),
            "{error:#}"
        );
        assert!(error.to_string().contains(words), "{error:#}");
        assert!(receive::complete(&place).is_none());
    };
    check(&[], 0, &hash(&[]), "before its end");
    check(&stream[..stream.len() - 1], bytes, &whole, "before its end");
    check(
        &stream[..stream.len() - 10],
        bytes - 10,
        &hash(&stream[..stream.len() - 10]),
        "before its end",
    );
    check(&stream, bytes + 1, &whole, "bytes came");
    check(&stream, bytes, &hash(b"other"), "hash differs");

    // Another identity clears the place, whatever lies in it.
    let mut incoming = open(&place, &identity, None).unwrap();
    assert!(matches!(
        open(&place, &identity, None).err().unwrap().downcast_ref(),
        Some(FsError::Busy(_))
    ));
    assert!(receive::discard(&place).is_err());
    incoming.write(&stream[..stream.len() / 2]).unwrap();
    incoming.checkpoint().unwrap();
    let checkpoint = incoming.standing().checkpoint;
    assert!(checkpoint > 0);
    drop(incoming);
    assert_eq!(receive::partial(&place).unwrap(), Some(Some(checkpoint)));
    let mut other = identity.clone();
    other.version = 1;
    assert_eq!(open(&place, &other, None).unwrap().standing().offset, 0);
    assert_eq!(receive::partial(&place).unwrap(), Some(Some(0)));
    let (_, local) = receive(&place, &identity, None, &stream).unwrap();
    assert_eq!(receive::complete(&place), Some(local));
    receive::discard(&place).unwrap();
    receive::discard(&place).unwrap();
    assert_eq!(receive::partial(&place).unwrap(), None);
    assert!(!place.point_dir.join("data").exists());
}

#[test]
fn no_space() {
    if !ready("no_space") {
        return;
    }
    let from = Loop::new(1 << 30);
    let to = Loop::new(256 << 20);
    let live = live(&from);
    for number in 0..6u8 {
        let noise = support::random::Random::new(u64::from(number)).bytes(50 << 20);
        std::fs::write(live.join(format!("large{number}")), noise).unwrap();
    }
    let taken = from.join("s");
    snapshot(&live, &taken);
    let stream = sent(None, &taken, 2, &[]);
    let identity = identity(uuid_of(&taken), None, 2);
    let place = place(to.path(), "r");
    let limits = |reserve: u64| Limits {
        checkpoint_bytes: 32 << 20,
        reserve,
        ..LIMITS
    };
    let is_full = |error: anyhow::Error| {
        assert!(
            matches!(error.downcast_ref(), Some(FsError::NoSpace { .. })),
            "{error:#}"
        );
    };
    let limited = |bytes: u64, reserve: u64| {
        opened(
            &place,
            &identity,
            None,
            &FileFlags::default(),
            bytes,
            limits(reserve),
        )
    };
    is_full(limited(data_bytes(&stream), 1 << 20).err().unwrap());
    assert!(limited(0, 1 << 30).is_ok(), "nothing to come needs no room");

    // The sender was wrong about the size: stopped in time by the reserve, with a checkpoint; without one by the disk.
    for reserve in [64 << 20, 0] {
        let Opened::Transfer(mut incoming) = limited(0, reserve).unwrap() else {
            panic!("complete")
        };
        let offset = incoming.standing().offset as usize;
        let error = stream[offset..]
            .chunks(1 << 20)
            .find_map(|piece| incoming.write(piece).err());
        is_full(error.unwrap());
        assert!(incoming.write(&[0]).is_err());
        let standing = incoming.standing();
        assert!(standing.checkpoint > 16 << 20, "{standing:?}");
        if reserve > 0 {
            assert_eq!(standing.checkpoint, standing.offset);
        }
        drop(incoming);
        let kept = receive::partial(&place).unwrap();
        assert_eq!(kept, Some(Some(standing.checkpoint)));
    }
}
