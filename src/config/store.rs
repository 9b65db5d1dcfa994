//! Puts the configuration file on disk.
//!
//! Promise: whoever reads the path sees the whole old text or the whole new one, also after a power cut; mode and owner of a
//! replaced file stay. A crash here leaves at most a file named `.NAME.*.new` beside it, which nothing reads.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::error::{Code, Failure};

/// Mode of a new file. It holds no secrets, but who pairs with whom is nobody else's business.
const MODE_NEW: u32 = 0o600;

/// Replaces the text of an existing file. A symbolic link stays one: the file it names is replaced.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let path = fs::canonicalize(path).with_context(|| format!("find {}", path.display()))?;
    let old = fs::metadata(&path).with_context(|| format!("read mode of {}", path.display()))?;
    let (directory, new) = beside(&path)?;
    let mode = old.permissions().mode() & 0o7777;
    let result = write_new(&new, text, mode)
        .and_then(|file| {
            rustix::fs::fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(old.uid())),
                Some(rustix::fs::Gid::from_raw(old.gid())),
            )
            .context("set owner")
        })
        .and_then(|()| fs::rename(&new, &path).context("rename over the old file"));
    finish(result, &directory, &new).with_context(|| format!("replace {}", path.display()))
}

/// Makes a new file, and the directory it is in; refuses to touch one that is there.
pub fn create(path: &Path, text: &str) -> Result<()> {
    let (directory, new) = beside(path)?;
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // A link, unlike a rename, fails when the name is taken.
    let result = write_new(&new, text, MODE_NEW)
        .and_then(|_| fs::hard_link(&new, path).map_err(|error| taken(error, path)))
        .and_then(|()| fs::remove_file(&new).context("remove the temporary name"));
    finish(result, &directory, &new).with_context(|| format!("create {}", path.display()))
}

fn taken(error: std::io::Error, path: &Path) -> anyhow::Error {
    if error.kind() == ErrorKind::AlreadyExists {
        return Failure::new(Code::Refused, format!("{} exists already", path.display())).into();
    }
    anyhow::Error::from(error).context("name the file")
}

/// The directory of a path, and a fresh name in it.
fn beside(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let name = path
        .file_name()
        .and_then(OsStr::to_str)
        .with_context(|| format!("{} does not name a file", path.display()))?;
    let new = directory.join(format!(".{name}.{}.new", uuid::Uuid::new_v4().simple()));
    Ok((directory, new))
}

fn write_new(new: &Path, text: &str, mode: u32) -> Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .with_context(|| format!("create {}", new.display()))?;
    file.write_all(text.as_bytes()).context("write")?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .context("set mode")?;
    file.sync_all().context("sync")?;
    Ok(file)
}

fn finish(result: Result<()>, directory: &Path, new: &Path) -> Result<()> {
    if result.is_err() {
        // The failure itself is what the caller must hear of, not that its remains could not be removed.
        let _ = fs::remove_file(new);
        return result;
    }
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .context("sync the directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replacing_keeps_mode_and_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (
            directory.path().join("real.toml"),
            directory.path().join("link.toml"),
        );
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.toml", &link).unwrap();
        replace(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(directory.path()), ["link.toml", "real.toml"]);
    }

    #[test]
    fn replacing_needs_a_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(replace(&directory.path().join("none.toml"), "new").is_err());
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn creating_makes_the_directory_and_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("etc/standin.toml");
        create(&file, "first").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, MODE_NEW);
        let error = create(&file, "second").unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Refused);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        assert_eq!(names(&directory.path().join("etc")), ["standin.toml"]);
    }
}
