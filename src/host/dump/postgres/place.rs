//! Makes a copy of a data directory one that a server can start from: label and map of a backup, links to where the copy's
//! own tablespaces and log lie, and no pid file.
//!
//! Promise: nothing outside of the copy is touched, whatever links a hostile copy holds: the kernel resolves every path beneath
//! the dataset. Each file is written beside, synced and renamed. Done again it does the same; where a server has recovered with
//! the label already (it is called backup_label.old then) the label is not placed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};

use crate::error::{Code, Failure};
use crate::logic::dump::postgres::{LABEL, MAP, PLACES, Place, Places, tablespace_map};
use crate::logic::dump::{Found, KEPT_BYTES_MAX};
use crate::logic::name::DatasetName;

/// Name under which a file or link is made before it is renamed.
const NEW: &str = "standin-new";

/// Where a server leaves a label that it has used.
const USED: &str = "backup_label.old";

/// See the head. What was done, a sentence each.
pub fn place(found: &Found, datasets: &BTreeMap<DatasetName, PathBuf>) -> Result<Vec<String>> {
    let Some(text) = found.keeps.get(PLACES) else {
        bail!("find in the point where the data directory of PostgreSQL lies");
    };
    let places: Places =
        serde_json::from_str(text).context("read where the data directory of PostgreSQL lies")?;
    if !whole(&places, datasets)? {
        return Ok(Vec::new());
    }
    let dir = Directory::open(&places.data, datasets)?;
    let mut done = Vec::new();
    let shown = dir.path.display().to_string();
    if let Some(label) = found.keeps.get(LABEL) {
        if dir.read(USED)?.as_deref() == Some(label.as_bytes()) {
            done.push(format!(
                "a server has recovered {shown} from its backup already"
            ));
            return Ok(done);
        }
    }
    if dir.remove("postmaster.pid")? {
        done.push(format!("removed postmaster.pid from {shown}"));
    }
    let mut spaces = BTreeMap::new();
    for (id, at) in &places.tablespaces {
        spaces.insert(*id, target(at, datasets)?);
    }
    let tablespaces = dir.below("pg_tblspc")?;
    for (id, to) in &spaces {
        if tablespaces.link(&id.to_string(), to)? {
            done.push(format!("tablespace {id} is at {}", to.display()));
        }
    }
    if let Some(at) = &places.wal {
        let to = target(at, datasets)?;
        if dir.link("pg_wal", &to)? {
            done.push(format!("the log of {shown} is at {}", to.display()));
        }
    }
    if let Some(label) = found.keeps.get(LABEL) {
        if found.keeps.contains_key(MAP) {
            let spaces = spaces.iter().map(|(id, path)| (*id, path.as_path()));
            let map = tablespace_map(spaces).context("tell PostgreSQL the paths of tablespaces")?;
            dir.write(MAP, &map)?;
        }
        // Last: with it, the rest is used.
        dir.write(LABEL, label)?;
        done.push(format!("wrote {LABEL} into {shown}"));
    }
    Ok(done)
}

/// Whether the copy holds the server's data; false where it holds nothing of them. A part of them cannot be used.
fn whole(places: &Places, datasets: &BTreeMap<DatasetName, PathBuf>) -> Result<bool> {
    let all = places.tablespaces.values().chain(&places.wal);
    let all: BTreeSet<&DatasetName> = all.chain([&places.data]).map(|at| &at.dataset).collect();
    let here = all.iter().filter(|name| datasets.contains_key(**name));
    match here.count() {
        0 => Ok(false),
        count if count == all.len() => Ok(true),
        _ => {
            let names: Vec<&str> = all.iter().map(|name| name.as_str()).collect();
            let what = format!(
                "make a whole server of a part of its datasets: its data lie in {}",
                names.join(", ")
            );
            let hint = "bring all of them back from one point";
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
    }
}

fn target(at: &Place, datasets: &BTreeMap<DatasetName, PathBuf>) -> Result<PathBuf> {
    let live = datasets
        .get(&at.dataset)
        .with_context(|| format!("find the dataset {}, which PostgreSQL needs", at.dataset))?;
    at.under(live)
        .with_context(|| format!("use the path {} of a point", at.path.display()))
}

/// A directory of the copy.
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Of the file PG_VERSION: the server's user.
    owner: (Uid, Gid),
}

impl Directory {
    fn open(at: &Place, datasets: &BTreeMap<DatasetName, PathBuf>) -> Result<Directory> {
        let path = target(at, datasets)?;
        let opening = || format!("open the data directory {} of PostgreSQL", path.display());
        let live = datasets.get(&at.dataset).map_or(Path::new("/"), |p| p);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(live, flags, Mode::empty()).with_context(opening)?;
        let inside = match at.path.as_os_str().is_empty() {
            true => Path::new("."),
            false => &at.path,
        };
        let fd = beneath(&top, inside).with_context(opening)?;
        let facts = rustix::fs::statat(&fd, "PG_VERSION", AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("find PG_VERSION in {}", path.display()))?;
        let owner = owner(&facts);
        Ok(Directory { fd, path, owner })
    }

    fn below(&self, name: &str) -> Result<Directory> {
        let path = self.path.join(name);
        let opening = || format!("open {}", path.display());
        let fd = beneath(&self.fd, Path::new(name)).with_context(opening)?;
        Ok(Directory {
            fd,
            owner: self.owner,
            path,
        })
    }

    fn at(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// A small file; none where there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
            file => std::fs::File::from(file.with_context(|| format!("open {}", self.at(name)))?),
        };
        let mut bytes = Vec::new();
        let mut file = file.take(KEPT_BYTES_MAX as u64);
        file.read_to_end(&mut bytes)
            .with_context(|| format!("read {}", self.at(name)))?;
        Ok(Some(bytes))
    }

    fn remove(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("remove {}", self.at(name))),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let writing = || format!("write {}", self.at(name));
        self.remove(NEW)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&self.fd, NEW, flags, mode).with_context(writing)?;
        rustix::fs::fchown(&fd, Some(self.owner.0), Some(self.owner.1)).with_context(writing)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(text.as_bytes()).with_context(writing)?;
        file.sync_all().with_context(writing)?;
        rustix::fs::renameat(&self.fd, NEW, &self.fd, name).with_context(writing)?;
        rustix::fs::fsync(&self.fd).with_context(writing)
    }

    /// Makes a link lead to `to`; false where it does already. What is a directory there is left alone, and an error.
    fn link(&self, name: &str, to: &Path) -> Result<bool> {
        let linking = || format!("link {} to {}", self.at(name), to.display());
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(is) if Path::new(&*is.to_string_lossy()) == to => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(linking),
        }
        self.remove(NEW)?;
        rustix::fs::symlinkat(to, &self.fd, NEW).with_context(linking)?;
        let (uid, gid) = (Some(self.owner.0), Some(self.owner.1));
        rustix::fs::chownat(&self.fd, NEW, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(linking)?;
        rustix::fs::renameat(&self.fd, NEW, &self.fd, name).with_context(linking)?;
        rustix::fs::fsync(&self.fd).with_context(linking)?;
        Ok(true)
    }
}

fn owner(facts: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(facts.st_uid), Gid::from_raw(facts.st_gid))
}

fn beneath(top: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(top, path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LABELLED: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";

    fn copy() -> (tempfile::TempDir, BTreeMap<DatasetName, PathBuf>, Found) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("main/15");
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir(dir.path().join("space")).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("postmaster.pid"), "1\n").unwrap();
        symlink("/live/space", data.join("pg_tblspc/16384")).unwrap();
        symlink("/live/wal", data.join("pg_wal")).unwrap();
        let datasets = ["main", "space"]
            .map(|name| (DatasetName::parse(name).unwrap(), dir.path().join(name)));
        let at = |dataset: &str, path: &str| Place {
            dataset: DatasetName::parse(dataset).unwrap(),
            path: PathBuf::from(path),
        };
        let places = Places {
            data: at("main", "15"),
            wal: Some(at("space", "wal")),
            tablespaces: BTreeMap::from([(16384, at("space", ""))]),
        };
        let keeps = [
            (PLACES, serde_json::to_string(&places).unwrap()),
            (LABEL, LABELLED.to_owned()),
            (MAP, "16384 /live/space\n".to_owned()),
        ];
        let keeps = keeps.map(|(name, text)| (name.to_owned(), text)).into();
        let found = Found {
            keeps,
            ..Found::default()
        };
        (dir, datasets.into(), found)
    }

    #[test]
    fn a_copy_gets_its_own_links_and_label() {
        let (dir, datasets, found) = copy();
        let data = dir.path().join("main/15");
        for done in [4, 1] {
            assert_eq!(place(&found, &datasets).unwrap().len(), done);
            assert_eq!(fs::read_to_string(data.join(LABEL)).unwrap(), LABELLED);
            let space = dir.path().join("space");
            let map = format!("16384 {}\n", space.display());
            assert_eq!(fs::read_to_string(data.join(MAP)).unwrap(), map);
            assert_eq!(fs::read_link(data.join("pg_tblspc/16384")).unwrap(), space);
            assert_eq!(
                fs::read_link(data.join("pg_wal")).unwrap(),
                space.join("wal")
            );
            assert!(!data.join("postmaster.pid").exists());
        }
        // A server has started from it.
        fs::rename(data.join(LABEL), data.join(USED)).unwrap();
        place(&found, &datasets).unwrap();
        assert!(!data.join(LABEL).exists());
    }

    #[test]
    fn parts_of_a_server() {
        let (_dir, mut datasets, found) = copy();
        let space = DatasetName::parse("space").unwrap();
        datasets.remove(&space);
        let error = place(&found, &datasets).unwrap_err().to_string();
        assert!(error.contains("its data lie in main, space"), "{error}");
        datasets.clear();
        assert_eq!(place(&found, &datasets).unwrap(), [] as [String; 0]);
    }

    #[test]
    fn links_of_a_hostile_copy_lead_nowhere() {
        let check = |spoil: fn(&Path), part: &str| {
            let (dir, datasets, found) = copy();
            spoil(dir.path());
            let error = format!("{:#}", place(&found, &datasets).unwrap_err());
            assert!(error.contains(part), "{error}");
            assert!(!dir.path().join("outside").join(LABEL).exists());
        };
        check(
            |dir| {
                fs::rename(dir.join("main/15"), dir.join("outside")).unwrap();
                symlink(dir.join("outside"), dir.join("main/15")).unwrap();
            },
            "open the data directory",
        );
        check(
            |dir| fs::remove_file(dir.join("main/15/PG_VERSION")).unwrap(),
            "find PG_VERSION",
        );
        let (dir, datasets, found) = copy();
        let data = dir.path().join("main/15");
        fs::write(dir.path().join("victim"), "whole").unwrap();
        for name in [LABEL, MAP, NEW, USED] {
            symlink(dir.path().join("victim"), data.join(name)).unwrap();
        }
        place(&found, &datasets).unwrap();
        let victim = fs::read_to_string(dir.path().join("victim")).unwrap();
        assert_eq!(victim, "whole");
        assert!(data.join(LABEL).symlink_metadata().unwrap().is_file());
    }
}
