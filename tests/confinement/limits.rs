//! Few bytes that ask for much: the reserve holds, and memory is bounded.

use rustix::fs::statvfs;
use standin::fs::Limits;
use standin::fs::btrfs::stream::{Cloned, Command, Encoded, Encoder};

use super::support::fixture::ready;
use super::support::receiving::LIMITS;
use super::{Ground, OWN, US, begun};

fn free(ground: &Ground) -> u64 {
    let space = statvfs(ground.target.path()).unwrap();
    space.f_bavail * space.f_frsize
}

/// With so much free above the reserve, now.
fn room(ground: &Ground, bytes: u64) -> Limits {
    let reserve = free(ground) - bytes;
    Limits { reserve, ..LIMITS }
}

/// Nothing is free above the reserve.
fn none(ground: &Ground) -> Limits {
    let reserve = free(ground) * 2;
    Limits { reserve, ..LIMITS }
}

const NO_ROOM: Option<&str> = Some("not enough space");

#[test]
fn one_command_cannot_take_the_reserve() {
    if !ready("one_command_cannot_take_the_reserve") {
        return;
    }
    let mut ground = Ground::new();
    let allocate = |len| Command::Fallocate {
        path: b"own",
        mode: 0,
        offset: 0,
        len,
    };
    let asks = |len| [&OWN[..], &[allocate(len)]].concat();
    let few = room(&ground, 100 << 20);
    ground.check_within(few, &asks(300 << 20), NO_ROOM);
    ground.check_within(few, &asks(1 << 62), NO_ROOM);
    ground.check_within(few, &asks(8 << 20), None);
    // Holes take nothing, nor does a size.
    let punch = Command::Fallocate {
        path: b"own",
        mode: 3,
        offset: 0,
        len: 1 << 50,
    };
    let huge = Command::Truncate {
        path: b"own",
        size: 1 << 62,
    };
    ground.check_within(few, &[&OWN[..], &[huge, punch]].concat(), None);
    // A clone that cannot share would be copied: here 2^61 zeros, to an odd place.
    let copy = Command::Clone(Cloned {
        path: b"other",
        offset: 1,
        len: 1 << 61,
        source: US,
        source_ctransid: 1,
        source_path: b"own",
        source_offset: 0,
    });
    let other = Command::Mkfile {
        path: b"other",
        inode: None,
    };
    ground.check_within(few, &[&OWN[..], &[huge, other, copy]].concat(), NO_ROOM);
}

/// Files by the thousand count, though they have no data and few bytes in the stream.
#[test]
fn many_files_cannot_take_the_reserve() {
    if !ready("many_files_cannot_take_the_reserve") {
        return;
    }
    let mut ground = Ground::new();
    let stream = |files: u32| {
        let mut stream = begun();
        for number in 0..files {
            let path = format!("f{number}");
            let path = path.as_bytes();
            stream.put(&Command::Mkfile { path, inode: None });
        }
        stream.put(&Command::End);
        stream.into_bytes()
    };
    let many = stream(20_000);
    assert!(many.len() < 2 << 20, "{} bytes", many.len());
    let limits = none(&ground);
    let (_, error) = ground.receive(limits, &many, "many files");
    let error = format!("{:#}", error.unwrap());
    assert!(error.contains("not enough space"), "{error}");
    let (_, error) = ground.receive(limits, &stream(1000), "few files");
    assert!(error.is_none(), "{error:?}");
}

fn bombs(offset: u64, count: u64, packed: &[u8]) -> Encoder {
    let mut stream = begun();
    OWN.iter().for_each(|command| {
        stream.put(command);
    });
    for number in 0..count {
        stream.put(&Command::EncodedWrite(Encoded {
            path: b"own",
            offset: offset + number * 131_072,
            file_len: 131_072,
            len: 131_072,
            skip: 0,
            compression: 2,
            encryption: 0,
            data: packed,
        }));
    }
    stream.put(&Command::End);
    stream
}

#[test]
fn bombs_cost_a_piece() {
    if !ready("bombs_cost_a_piece") {
        return;
    }
    let mut ground = Ground::new();
    let piece = zstd::bulk::compress(&vec![0; 131_072], 19).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 19).unwrap();
    let limits = none(&ground);
    // At an odd place the kernel does not take them as they are: they are unpacked here.
    for offset in [0, 1] {
        let stream = bombs(offset, 200, &piece);
        assert!(stream.bytes().len() < 100_000);
        let (_, error) = ground.receive(limits, stream.bytes(), "bombs");
        let error = format!("{:#}", error.unwrap());
        assert!(error.contains("not enough space"), "{error}");
    }
    let before = peak_kib();
    let stream = bombs(1, 100, &bomb);
    let (at, error) = ground.receive(LIMITS, stream.bytes(), "a bomb in each piece");
    assert!(error.is_none(), "{error:?}");
    let size = std::fs::metadata(at.join("own")).unwrap().len();
    assert_eq!(size, 1 + 100 * 131_072);
    let grown = peak_kib() - before;
    assert!(grown < 64 << 10, "{grown} KiB more at the peak");
}

/// Of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap()
}
