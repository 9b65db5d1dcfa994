//! What a directory of copies holds, in a file of its own in there.
//!
//! Promise: written beside and renamed; a directory without it is not ours, and nothing in it is touched.
//!
//! Copies keep the owner and mode of their databases here, and are readable by root alone themselves.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::logic::name::DatasetName;

/// Version of the format.
const VERSION: u32 = 1;

/// Largest index that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

pub const NAME: &str = "standin-sqlite.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub version: u32,
    pub files: Vec<Entry>,
}

/// One copy. It lies under the directory by the whole path of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: PathBuf,
    /// Where the database lies in a dataset of the role: which, and the path inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<(DatasetName, PathBuf)>,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    pub bytes: u64,
}

impl Entry {
    /// Where the copy is.
    pub fn copy(&self, dir: &Path) -> PathBuf {
        copy_of(dir, &self.path)
    }
}

pub fn copy_of(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap_or(path))
}

impl Default for Index {
    fn default() -> Index {
        Index {
            version: VERSION,
            files: Vec::new(),
        }
    }
}

impl Index {
    /// None where the directory has none. What it says is checked: it may come from another node.
    pub fn read(dir: &Path) -> Result<Option<Index>> {
        let path = dir.join(NAME);
        let shown = path.display();
        let facts = match path.symlink_metadata() {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
        };
        if !facts.is_file() || facts.len() > BYTES_MAX {
            bail!("read {shown}: it is no file, or too large");
        }
        let text = std::fs::read(&path).with_context(|| format!("read {shown}"))?;
        let index: Index =
            serde_json::from_slice(&text).with_context(|| format!("understand {shown}"))?;
        if index.version != VERSION {
            bail!(
                "understand {shown}: it is of version {}, this program knows {VERSION}",
                index.version
            );
        }
        let plain = |path: &Path| {
            let mut parts = path.components();
            parts.all(|part| !matches!(part, std::path::Component::ParentDir))
        };
        for entry in &index.files {
            let inside = entry.inside.as_ref().map(|(_, path)| path);
            let good = entry.path.is_absolute()
                && plain(&entry.path)
                && inside.is_none_or(|path| path.is_relative() && plain(path));
            if !good {
                bail!("believe {shown}: it names {}", entry.path.display());
            }
        }
        Ok(Some(index))
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let beside = dir.join(format!(".{NAME}.standin-new"));
        let writing = || -> Result<()> {
            let text = serde_json::to_vec_pretty(self)?;
            let mut options = std::fs::File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(dir)?.sync_all()?;
            Ok(())
        };
        writing().with_context(|| format!("write {}", path.display()))
    }
}
