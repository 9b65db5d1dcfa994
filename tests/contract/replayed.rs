//! What `fsync` had promised before a crash, and the kernel's log brings back, was written: nobody drops it with the live copy.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::stage::*;
use super::support::fixture::{self, Loop};
use standin::fs::{Filesystem, Touch};

/// A filesystem as a crash leaves it: as its disk is now, mounted again.
fn crashed(disk: Loop) -> Loop {
    let after = disk.image().with_extension("crashed");
    // Everything that was flushed is in the file; what is only in memory is not.
    fs::copy(disk.image(), &after).unwrap();
    disk.mounted_anew(|image| fs::rename(&after, image).unwrap())
}

fn promise(path: &Path, text: &str) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_a_log_brought_back_was_written() {
    if !ready("what_a_log_brought_back_was_written") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Loop::in_image(Some(&dir.path().join("image")), 256 << 20, "noatime");
    let web = disk.join("web");
    fixture::run("btrfs", ["subvolume", "create", text(&web)]);
    promise(&web.join("records"), "one\n");
    let at = |disk: &Loop| btrfs(&[("web", &disk.join("web"))]);
    let role = at(&disk);
    let first = take(&role, 1, 1);
    drop(role);

    // Nothing was written: a crash alone is no change.
    let disk = crashed(disk);
    assert!(!at(&disk).changed(&first).unwrap());
    promise(&disk.join("web/records"), "two\n");
    let disk = crashed(disk);
    let records = fs::read_to_string(disk.join("web/records")).unwrap();
    assert_eq!(records, "one\ntwo\n", "the log was read");

    let role = at(&disk);
    assert!(role.changed(&first).unwrap());
    let mut watch = role.watch(&first).unwrap();
    assert_eq!(watch.look(), Touch::Changed);
    drop(watch);
    let retired = role
        .retire_live(&dataset("web"), Some(&first), manifest(1, 2))
        .unwrap();
    assert!(retired.late_writes, "it is kept");
    assert_eq!(listed(&role), [(1, 1), (1, 2)]);
}
