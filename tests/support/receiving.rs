//! Short ways to receive a stream, for tests.

use std::fs::File;
use std::path::{Path, PathBuf};

use standin::fs::btrfs::flags;
use standin::fs::btrfs::receive::{self, Place, Source};
use standin::fs::btrfs::scan::Scanner;
use standin::fs::{Incoming, Limits, Opened, Result};
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

pub fn open(
    place: &Place,
    identity: &StreamIdentity,
    base: Option<&Source>,
) -> Result<Box<dyn Incoming>> {
    match receive::open(place, identity, base, &[], &FileFlags::default(), 0, LIMITS)? {
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
