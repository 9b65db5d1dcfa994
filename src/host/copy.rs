//! Copies a file or a tree with all its metadata, so that the final name never shows a part of it.
//!
//! The copying itself is coreutils' `cp -a --reflink=auto`: it keeps owners, modes, times, xattrs, ACLs, hard links and
//! holes, and shares extents where it can. A crash leaves a hidden `.NAME.standin-restore-*` beside the target, which
//! the next copy to the same target removes.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Lines of a child's error output kept for the message.
const STDERR_LINES: usize = 20;

/// Copies `source` to `target`, which must not exist.
pub fn whole(source: &Path, target: &Path) -> Result<()> {
    let hidden = copy_beside(source, target)?;
    renameat_with(CWD, &hidden, CWD, target, RenameFlags::NOREPLACE)
        .with_context(|| format!("name the copy {}", target.display()))?;
    sync_parent(target)
}

/// Copies `source` to `target`, in place of what is there: one moment the old, the next the new. What was there is
/// returned under its hidden name, for the caller to look at and remove.
pub fn over(source: &Path, target: &Path) -> Result<Option<Replaced>> {
    let hidden = copy_beside(source, target)?;
    let replaced = if target.symlink_metadata().is_ok() {
        renameat_with(CWD, &hidden, CWD, target, RenameFlags::EXCHANGE)
            .with_context(|| format!("exchange the copy with {}", target.display()))?;
        Some(Replaced { hidden })
    } else {
        std::fs::rename(&hidden, target)
            .with_context(|| format!("name the copy {}", target.display()))?;
        None
    };
    sync_parent(target)?;
    Ok(replaced)
}

/// What a copy took the place of.
pub struct Replaced {
    hidden: PathBuf,
}

impl Replaced {
    /// Whether anything in it was written or changed at or after `since_s` (seconds since 1970).
    pub fn touched_since(&self, since_s: i64) -> Result<bool> {
        let top = self
            .hidden
            .symlink_metadata()
            .with_context(|| format!("look at {}", self.hidden.display()))?;
        // The exchange itself moved the top's ctime; its mtime tells of content.
        if top.mtime() >= since_s {
            return Ok(true);
        }
        if !top.is_dir() {
            return Ok(false);
        }
        let mut dirs = vec![self.hidden.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in
                std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?
            {
                let path = entry
                    .with_context(|| format!("list {}", dir.display()))?
                    .path();
                let facts = path
                    .symlink_metadata()
                    .with_context(|| format!("look at {}", path.display()))?;
                if facts.ctime() >= since_s {
                    return Ok(true);
                }
                if facts.is_dir() {
                    dirs.push(path);
                }
            }
        }
        Ok(false)
    }

    pub fn remove(self) -> Result<()> {
        remove(&self.hidden)
    }
}

fn copy_beside(source: &Path, target: &Path) -> Result<PathBuf> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("copy to {}: not the path of a file", target.display());
    };
    std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".standin-restore-part");
    let hidden = parent.join(hidden);
    remove(&hidden)?;
    let output = Command::new("cp")
        .args(["-a", "--reflink=auto", "--no-target-directory", "--"])
        .arg(source)
        .arg(&hidden)
        .stdin(Stdio::null())
        .output()
        .context("start cp")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(STDERR_LINES)..].join("; ");
        // Best effort: the next copy to this target removes it too.
        let _ = remove(&hidden);
        bail!(
            "copy {} to {}: cp ended with {}: {last}",
            source.display(),
            target.display(),
            output.status
        );
    }
    sync_tree(&hidden)?;
    Ok(hidden)
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(facts) if facts.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    result.with_context(|| format!("remove {}", path.display()))
}

/// The data must be on disk before the name is.
fn sync_tree(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = std::fs::File::open(parent).with_context(|| format!("open {}", parent.display()))?;
    rustix::fs::syncfs(&dir).with_context(|| format!("sync {}", parent.display()))
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = std::fs::File::open(parent).with_context(|| format!("open {}", parent.display()))?;
    dir.sync_all()
        .with_context(|| format!("sync {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_refuses_what_exists_and_over_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("a"), dir.path().join("b/c"));
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "new").unwrap();
        whole(&source, &target).unwrap();
        assert_eq!(std::fs::read(target.join("file")).unwrap(), b"new");
        std::fs::write(target.join("file"), "old").unwrap();
        assert!(whole(&source, &target).is_err());
        assert_eq!(std::fs::read(target.join("file")).unwrap(), b"old");
        let replaced = over(&source, &target).unwrap().unwrap();
        assert!(replaced.touched_since(0).unwrap());
        assert!(!replaced.touched_since(i64::MAX).unwrap());
        replaced.remove().unwrap();
        assert_eq!(std::fs::read(target.join("file")).unwrap(), b"new");
        let left: Vec<_> = std::fs::read_dir(dir.path().join("b"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["c"]);
    }

    #[test]
    fn a_missing_source_says_what_cp_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = whole(&dir.path().join("none"), &dir.path().join("x")).unwrap_err();
        assert!(format!("{error:#}").contains("No such file"), "{error:#}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
