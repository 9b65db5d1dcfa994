//! ZFS in place of btrfs under the nodes of a test: where `STANDIN_TEST_POOLS` names pools, which only a machine sets that is
//! there for tests. Each node has a dataset of its own, the nodes take turns with the pools.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::run;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A dataset in a pool, with all below it; destroyed when dropped.
pub struct Plot {
    pub name: String,
}

/// Whether nodes are on ZFS.
pub fn is_given() -> bool {
    std::env::var_os("STANDIN_TEST_POOLS").is_some()
}

impl Plot {
    /// None where no pools are given.
    pub fn new() -> Option<Plot> {
        let pools = std::env::var("STANDIN_TEST_POOLS").ok()?;
        let pools: Vec<&str> = pools.split_whitespace().collect();
        let pool = pools[NEXT.fetch_add(1, Ordering::Relaxed) % pools.len()];
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{pool}/n-{}", &unique[..8]);
        let options = ["create", "-o", "canmount=off", "-o", "mountpoint=none"];
        run("zfs", options.into_iter().chain([name.as_str()]));
        Some(Plot { name })
    }

    pub fn dataset(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    pub fn create(&self, name: &str, at: &Path) {
        let mountpoint = format!("mountpoint={}", at.display());
        let dataset = self.dataset(name);
        let words = ["create", "-o", "atime=off", "-o", &mountpoint, &dataset];
        run("zfs", words);
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} stays", self.name);
            return;
        }
        let _ = Command::new("zfs")
            .args(["destroy", "-R", &self.name])
            .status();
    }
}
