//! The lock on the state directory: one daemon a node.
//!
//! Held by a descriptor, so it ends with the process however that ends; the file itself stays and means nothing.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Code, Failure};

/// Takes the lock, or says that another daemon holds it. Held until the returned file is dropped.
pub fn take(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            let what = format!("lock {}: another daemon works with it", state_dir.display());
            Err(Failure::new(Code::Locked, what)
                .hint("one daemon a node: `standin status` asks the one that runs")
                .into())
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(dir.path()).unwrap();
        let error = take(dir.path()).unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Locked);
        drop(held);
        take(dir.path()).unwrap();
    }
}
