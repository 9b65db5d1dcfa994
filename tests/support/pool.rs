//! ZFS in place of btrfs under the nodes of a test: where `STANDIN_TEST_POOLS` names pools, which only a machine sets that is
//! there for tests. Each node has a dataset of its own, the nodes take turns with the pools. Where `STANDIN_TEST_KEY` names a file
//! that holds a passphrase, live data are encrypted with it.

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

fn key() -> Option<String> {
    std::env::var("STANDIN_TEST_KEY").ok()
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

    /// Lines of a dataset in the config of a node.
    pub fn place(&self, name: &str, at: &Path) -> String {
        let place = format!(
            "zfs = \"{}\"\npath = \"{}\"",
            self.dataset(name),
            at.display()
        );
        match key() {
            Some(key) => format!("{place}\nkey-file = \"{key}\""),
            None => place,
        }
    }

    pub fn create(&self, name: &str, at: &Path) {
        let mountpoint = format!("mountpoint={}", at.display());
        let dataset = self.dataset(name);
        let mut words = vec!["create", "-o", "atime=off", "-o", &mountpoint];
        let location = key().map(|key| format!("keylocation=file://{key}"));
        if let Some(location) = &location {
            words.extend(["-o", "encryption=on", "-o", "keyformat=passphrase"]);
            words.extend(["-o", location]);
        }
        words.push(&dataset);
        run("zfs", words);
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} stays", self.name);
            return;
        }
        // What is held is not destroyed.
        let release = "zfs list -H -r -t snapshot -o name \"$1\" | xargs -r zfs holds -H | while read -r snap tag _; do zfs release \"$tag\" \"$snap\"; done";
        let _ = Command::new("sh")
            .args(["-c", release, "sh", &self.name])
            .status();
        let _ = Command::new("zfs")
            .args(["destroy", "-R", &self.name])
            .status();
    }
}
