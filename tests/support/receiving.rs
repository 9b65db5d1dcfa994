//! Short ways to receive a stream, for tests.

use std::fs::File;
use std::path::{Path, PathBuf};

use standin::fs::btrfs::flags;
use standin::fs::btrfs::receive::{self, Applying, Coming, Place, Source};
use standin::fs::btrfs::scan::Scanner;
use standin::fs::btrfs::stream::{Command, Parser, Piece};
use standin::fs::{Incoming, Limits, Opened, Result};
use standin::logic::accept::{Accept, Treatment};
use standin::logic::manifest::LocalDataset;
use standin::logic::name::DatasetName;
use standin::logic::prefix::PrefixHash;
use standin::logic::transfer::{FileFlags, StreamIdentity};
use uuid::Uuid;

use super::fixture::run;

/// Limits that do not interfere.
pub const LIMITS: Limits = Limits {
    checkpoint_bytes: u64::MAX,
    checkpoint_every: std::time::Duration::from_secs(3600),
    reserve: 1 << 20,
    accept: KEEP,
};

/// Everything is taken over.
pub const KEEP: Accept = Accept {
    devices: Treatment::Keep,
    setuid: Treatment::Keep,
    security: Treatment::Keep,
    trusted: Treatment::Keep,
};

/// A staging place under `dir`.
pub fn place(dir: &Path, name: &str) -> Place {
    let place = Place {
        point_dir: dir.join(name),
        dataset: DatasetName::parse("data").unwrap(),
    };
    std::fs::create_dir_all(&place.point_dir).unwrap();
    place
}

pub fn hash(bytes: &[u8]) -> String {
    let mut hash = PrefixHash::default();
    hash.update(bytes);
    hash.value()
}

pub fn data_bytes(stream: &[u8]) -> u64 {
    let mut scanner = Scanner::new();
    scanner.push(stream);
    scanner.data_bytes()
}

pub fn uuid_of(path: &Path) -> Uuid {
    let info = libbtrfsutil::subvolume_info(path).unwrap();
    info.received_uuid().unwrap_or(info.uuid())
}

/// The snapshot that a full stream says it is of.
pub fn snapshot_of(stream: &[u8]) -> Uuid {
    let mut parser = Parser::new();
    let mut rest = stream;
    loop {
        let taken = parser.next(rest).unwrap();
        let piece = taken.step.map(|step| step.piece);
        if let Some(Piece::Command(Command::Subvol { uuid, .. })) = piece {
            return uuid;
        }
        rest = &rest[taken.used..];
    }
}

pub fn identity(snapshot: Uuid, base: Option<Uuid>, version: u32) -> StreamIdentity {
    StreamIdentity {
        snapshot,
        base,
        version,
    }
}

pub fn source(path: &Path) -> Source {
    Source {
        identity: uuid_of(path),
        path: path.to_owned(),
        ctransid: Some(libbtrfsutil::subvolume_info(path).unwrap().ctransid()),
        nested: Vec::new(),
    }
}

pub fn snapshot(of: &Path, at: &Path) {
    libbtrfsutil::CreateSnapshotOptions::new()
        .readonly(true)
        .create(of, at)
        .unwrap();
}

/// What `btrfs send` makes.
pub fn sent(base: Option<&Path>, snapshot: &Path, version: u32, more: &[&str]) -> Vec<u8> {
    let mut args = vec![
        "send".to_string(),
        "-q".into(),
        "--proto".into(),
        version.to_string(),
    ];
    args.extend(more.iter().map(ToString::to_string));
    if let Some(base) = base {
        args.extend(["-p".into(), base.display().to_string()]);
    }
    args.push(snapshot.display().to_string());
    run("btrfs", args)
}

/// What goes beside the stream.
pub fn flags(base: Option<&Path>, snapshot: &Path) -> FileFlags {
    let base = base.map(|base| File::open(base).unwrap());
    let found = flags::read(File::open(snapshot).unwrap(), base).unwrap();
    assert_eq!(found.left_out, 0);
    found.flags
}

/// Streams are applied by the program as a worker, and in the process of the tests where the target's name ends so.
pub fn applying() -> Applying {
    match option_env!("CARGO_BIN_EXE_standin") {
        Some(program) if !env!("CARGO_CRATE_NAME").ends_with("_here") => {
            Applying::Child(program.into())
        }
        // Fuzzing is no test target: no program was built for it.
        _ => Applying::Here,
    }
}

/// Opens a transfer without clone sources.
pub fn opened(
    place: &Place,
    identity: &StreamIdentity,
    base: Option<&Source>,
    flags: &FileFlags,
    data_bytes: u64,
    limits: Limits,
) -> Result<Opened> {
    let coming = Coming {
        identity,
        base,
        clones: &[],
        flags,
        data_bytes,
    };
    receive::open(&applying(), place, coming, limits)
}

pub fn open(
    place: &Place,
    identity: &StreamIdentity,
    base: Option<&Source>,
) -> Result<Box<dyn Incoming>> {
    open_within(LIMITS, place, identity, base)
}

pub fn open_within(
    limits: Limits,
    place: &Place,
    identity: &StreamIdentity,
    base: Option<&Source>,
) -> Result<Box<dyn Incoming>> {
    match opened(place, identity, base, &FileFlags::default(), 0, limits)? {
        Opened::Transfer(incoming) => Ok(incoming),
        Opened::Complete(_) => panic!("complete already"),
    }
}

/// Receives a whole stream in one go; gives where it lies.
pub fn receive(
    place: &Place,
    identity: &StreamIdentity,
    base: Option<&Source>,
    stream: &[u8],
) -> Result<(PathBuf, LocalDataset)> {
    let mut incoming = open(place, identity, base)?;
    incoming.write(stream)?;
    let local = incoming.finish(stream.len() as u64, &hash(stream))?;
    Ok((place.point_dir.join("data"), local))
}

/// The running workers that a process started.
pub fn workers_of(parent: u32) -> Vec<u32> {
    let number = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u32> {
        entry.ok()?.file_name().to_str()?.parse().ok()
    };
    let is_one = |pid: &u32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let mut fields = after.split(' ');
        let (state, ppid) = (fields.next(), fields.next());
        let verb = receive::VERB.as_bytes();
        state != Some("Z")
            && ppid == Some(parent.to_string().as_str())
            && read("cmdline").split(|byte| *byte == 0).nth(1) == Some(verb)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(number)
        .filter(is_one)
        .collect()
}
