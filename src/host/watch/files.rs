//! Files that are watched: one by its path, several by a pattern, a directory with all that is in it.
//!
//! Promise: below the part of the path that has no pattern, every step is taken from the directory before it and follows no
//! link, so that whoever may write there cannot lead a reader elsewhere. A link is told as a link.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::value;
use crate::logic::drift::{Found, ITEMS_MAX, TEXT_BYTES_MAX, Value, fits};

/// Names that are looked at for one watch.
const NAMES_MAX: usize = 100_000;

/// Bytes that are read for one watch.
const READ_BYTES_MAX: u64 = 256 << 20;

/// How deep directories are followed.
const DEPTH_MAX: usize = 32;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Walk {
    found: Found,
    names: usize,
    bytes: u64,
}

/// Every file that fits a pattern.
pub fn look(pattern: &str) -> Found {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let wild = |part: &&str| part.contains(['*', '?']);
    // The last part is always looked for: it may be anything.
    let plain = parts.iter().take(parts.len().saturating_sub(1));
    let plain = plain.take_while(|part| !wild(part)).count();
    let base: PathBuf = Path::new("/").join(parts[..plain].iter().collect::<PathBuf>());
    let mut walk = Walk {
        found: Found::default(),
        names: 0,
        bytes: READ_BYTES_MAX,
    };
    // The part without a pattern is the admin's: its links are followed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(&base, flags, Mode::empty()) {
        Ok(dir) => walk.below(&dir, &base, &parts[plain..], 0),
        // Then there is no such file either.
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(error) => walk.problem(format!("open {}: {error}", base.display())),
    }
    walk.found
}

impl Walk {
    fn problem(&mut self, why: String) {
        self.found.problem.get_or_insert(why);
    }

    /// What fits the first of `parts` in a directory; everything, where there is none.
    fn below(&mut self, dir: &OwnedFd, at: &Path, parts: &[&str], depth: usize) {
        if depth > DEPTH_MAX {
            return self.problem(format!("look into {}: too deep", at.display()));
        }
        let (first, rest) = match parts.split_first() {
            Some((first, rest)) => (Some(*first), rest),
            None => (None, parts),
        };
        if let Some(name) = first.filter(|part| !part.contains(['*', '?'])) {
            return self.entry(dir, at, OsStr::new(name), rest, depth);
        }
        let listed = Dir::read_from(dir).map(|entries| entries.collect::<Vec<_>>());
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.problem(format!("list {}: {error}", at.display())),
        };
        for entry in entries {
            self.names += 1;
            if self.names > NAMES_MAX {
                return self.problem(format!("look at more than {NAMES_MAX} names: watch less"));
            }
            let Ok(entry) = entry else {
                return self.problem(format!("list {}", at.display()));
            };
            let name = entry.file_name().to_owned();
            if wanted(first, &name) {
                self.entry(dir, at, OsStr::from_bytes(name.to_bytes()), rest, depth);
            }
        }
    }

    /// One name in a directory.
    fn entry(&mut self, dir: &OwnedFd, at: &Path, name: &OsStr, rest: &[&str], depth: usize) {
        let path = at.join(name);
        let kind = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => FileType::from_raw_mode(facts.st_mode),
            Err(Errno::NOENT | Errno::NOTDIR) => return,
            Err(error) => {
                return self.item(&path, Value::Unreadable(format!("look at it: {error}")));
            }
        };
        match kind {
            FileType::Directory => match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
                Ok(inner) => self.below(&inner, &path, rest, depth + 1),
                Err(error) => self.problem(format!("open {}: {error}", path.display())),
            },
            // It is no directory, in which the rest could be.
            _ if !rest.is_empty() => {}
            FileType::Symlink => {
                let told = match rustix::fs::readlinkat(dir, name, Vec::new()) {
                    Ok(target) => {
                        Value::Text(format!("symbolic link to {}\n", target.to_string_lossy()))
                    }
                    Err(error) => Value::Unreadable(format!("read the link: {error}")),
                };
                self.item(&path, told);
            }
            FileType::RegularFile if self.found.items.len() >= ITEMS_MAX => self.found.more += 1,
            FileType::RegularFile => {
                let told = self.file(dir, name).unwrap_or_else(Value::Unreadable);
                self.item(&path, told);
            }
            _ => self.item(
                &path,
                Value::Unreadable("read it: it is no regular file".to_owned()),
            ),
        }
    }

    fn item(&mut self, path: &Path, value: Value) {
        if self.found.items.len() >= ITEMS_MAX {
            self.found.more += 1;
            return;
        }
        self.found
            .items
            .insert(path.to_string_lossy().into_owned(), value);
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<Value, String> {
        let told = |error: std::io::Error| format!("read it: {error}");
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty());
        let file = File::from(file.map_err(|error| told(error.into()))?);
        let facts = file.metadata().map_err(told)?;
        if !facts.is_file() {
            return Err("read it: it is no regular file".to_owned());
        }
        if facts.len() > self.bytes {
            return Err(format!(
                "read it: more than {} MiB of one watch",
                READ_BYTES_MAX >> 20
            ));
        }
        if facts.len() <= TEXT_BYTES_MAX as u64 {
            let mut bytes = Vec::new();
            file.take(TEXT_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(told)?;
            self.bytes = self.bytes.saturating_sub(bytes.len() as u64);
            return Ok(value(bytes));
        }
        let mut hasher = blake3::Hasher::new();
        // It may grow while it is read.
        let read = hasher
            .update_reader(file.take(self.bytes))
            .map_err(told)?
            .count();
        self.bytes = self.bytes.saturating_sub(read);
        Ok(Value::Hash {
            hash: hasher.finalize().to_hex().to_string(),
            bytes: read,
        })
    }
}

/// Whether a name in a directory is meant; hidden ones are not by `*`, as in a shell.
fn wanted(pattern: Option<&str>, name: &CStr) -> bool {
    let name = name.to_string_lossy();
    match pattern {
        _ if name == "." || name == ".." => false,
        None => true,
        Some(pattern) => {
            fits(pattern, &name) && (pattern.starts_with('.') || !name.starts_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_that_fit() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("a/conf.d/deep")).unwrap();
        std::fs::create_dir_all(at("b/conf.d")).unwrap();
        for (name, text) in [
            ("a/x.conf", "x"),
            ("a/.hidden", "h"),
            ("a/conf.d/y.conf", "y"),
            ("a/conf.d/deep/z", "z"),
            ("b/conf.d/y.conf", "b"),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        symlink("/etc/shadow", at("a/conf.d/leak.conf")).unwrap();
        symlink("/etc", at("a/etc")).unwrap();
        symlink("a", at("c")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("a/pipe"), Mode::RWXU).unwrap();
        std::fs::write(at("a/long"), vec![b'x'; TEXT_BYTES_MAX + 1]).unwrap();
        std::fs::write(at("a/bytes"), [0, 159]).unwrap();
        let check = |pattern: &str, expected: &[&str]| {
            let found = look(&format!("{}/{pattern}", root.display()));
            assert_eq!(found.problem, None);
            let line = |(path, value): (&String, &Value)| {
                let path = path.strip_prefix(&format!("{}/", root.display())).unwrap();
                let told = match value {
                    Value::Text(text) => text.trim_end().to_owned(),
                    Value::Hash { bytes, .. } => format!("{bytes} bytes"),
                    Value::Unreadable(why) => why.clone(),
                    Value::Secret { .. } => "secret".to_owned(),
                };
                format!("{path}: {told}")
            };
            let lines: Vec<String> = found.items.iter().map(line).collect();
            assert_eq!(lines, expected, "{pattern}");
        };
        check("a/x.conf", &["a/x.conf: x"]);
        check("a/none", &[]);
        check("none/none", &[]);
        check("a/x.conf/y", &[]);
        check("a/*.conf", &["a/x.conf: x"]);
        check(
            "*/conf.d/*.conf",
            &[
                "a/conf.d/leak.conf: symbolic link to /etc/shadow",
                "a/conf.d/y.conf: y",
                "b/conf.d/y.conf: b",
            ],
        );
        check(
            "a/conf.d",
            &[
                "a/conf.d/deep/z: z",
                "a/conf.d/leak.conf: symbolic link to /etc/shadow",
                "a/conf.d/y.conf: y",
            ],
        );
        check("a/.h*", &["a/.hidden: h"]);
        // The admin's own link on the way is followed, one that a pattern meets is not.
        check("c/x.conf", &["c/x.conf: x"]);
        check("?/x.conf", &["a/x.conf: x"]);
        check("a/*/hosts", &[]);
        check("a/etc", &["a/etc: symbolic link to /etc"]);
        check("a/pipe", &["a/pipe: read it: it is no regular file"]);
        check("a/long", &["a/long: 262145 bytes"]);
        check("a/bytes", &["a/bytes: 2 bytes"]);
        for number in 0..ITEMS_MAX + 3 {
            std::fs::write(at(&format!("b/{number}")), "").unwrap();
        }
        let found = look(&format!("{}/b", root.display()));
        assert_eq!((found.items.len(), found.more), (ITEMS_MAX, 4));
    }
}
