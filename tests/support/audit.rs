//! Everything a filesystem holds, as facts to compare: what must not change is audited before and after.
//!
//! No link is followed and nothing but regular files is opened. Access times are left out: reading is no change.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Facts by path.
pub type Audit = BTreeMap<PathBuf, String>;

/// Of everything below `root` (and of itself), but for what `skip` says to leave out with all below it.
pub fn audit(root: &Path, skip: impl Fn(&Path) -> bool) -> Audit {
    let mut found = Audit::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if skip(&path) {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let facts = facts(&path, &meta);
        found.insert(path, facts);
    }
    found
}

fn facts(path: &Path, meta: &fs::Metadata) -> String {
    let content = if meta.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else if meta.is_file() {
        let mut hash = blake3::Hasher::new();
        let mut file = fs::File::open(path).unwrap();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                bytes => hash.update(&buffer[..bytes]),
            };
        }
        hash.finalize().to_string()
    } else {
        String::new()
    };
    format!(
        "mode {:o} owner {}:{} links {} device {} size {} modified {}.{} changed {}.{} attributes {:?} content {content}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.rdev(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        attributes(path),
    )
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0);
    let mut found: Vec<(String, Vec<u8>)> = names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect();
    found.sort();
    found
}

/// What differs, one line each; empty when nothing does.
pub fn differences(before: &Audit, after: &Audit) -> Vec<String> {
    let mut told = Vec::new();
    for (path, was) in before {
        match after.get(path) {
            None => told.push(format!("{} is gone", path.display())),
            Some(is) if is != was => {
                told.push(format!("{}:\n  was {was}\n  is  {is}", path.display()));
            }
            Some(_) => {}
        }
    }
    let new = after.keys().filter(|path| !before.contains_key(*path));
    told.extend(new.map(|path| format!("{} is new", path.display())));
    told
}

#[track_caller]
pub fn assert_unchanged(before: &Audit, after: &Audit, what: &str) {
    let told = differences(before, after);
    assert!(told.is_empty(), "{what}:\n{}", told.join("\n"));
}
