//! Copies for drills: writable, apart from everything, and gone without a trace whatever was done in them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stage::*;
use standin::fs::Filesystem;
use standin::logic::transfer::Kind;

/// The live datasets exist, and hold a file each.
pub fn copies_come_and_go(fs: &dyn Filesystem) {
    let first = take(fs, 2, 90);
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().canonicalize().unwrap().join("drill/shop");
    let id = &first.manifest.point;
    assert!(!fs.end_drill().unwrap(), "there was none");
    fs.drill(id, &at).unwrap();
    assert_eq!(fs.drill_mounts().unwrap().len(), fs.datasets().len());
    for (name, live) in fs.datasets() {
        let copy = at.join(name);
        let held = fs.snapshot_path(name, id).unwrap();
        same(&copy, &held);
        fs::write(copy.join("of the drill"), "x").unwrap();
        // On ZFS nothing can be nested by whoever works in the copy.
        if fs.kind() == Kind::Btrfs {
            let nested = copy.join("nested");
            for path in [nested.clone(), nested.join("deeper")] {
                must("btrfs", &["subvolume", "create", text(&path)]);
            }
        }
        for other in [live.as_path(), &held] {
            assert!(!other.join("of the drill").exists(), "{}", other.display());
        }
    }
    // The point is not held: it can go while the copy is used, and the copy stays.
    take(fs, 2, 91);
    fs.sweep().unwrap();
    fs.destroy(id).unwrap();
    let one = at.join(fs.datasets().keys().next().unwrap());
    assert!(one.join("of the drill").exists());
    // Somebody is in there when it goes.
    let mut inside = Command::new("sleep")
        .arg("1000")
        .current_dir(&one)
        .spawn()
        .unwrap();
    assert!(fs.end_drill().unwrap());
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert_eq!(fs.drill_mounts().unwrap(), Vec::<std::path::PathBuf>::new());
    assert!(!at.exists(), "the directories of its mounts are gone too");
    assert!(!fs.end_drill().unwrap());
    // What an earlier one left is in nobody's way.
    let second = crate::stage::id(2, 91);
    fs.drill(&second, &at).unwrap();
    fs.drill(&second, &at).unwrap();
    assert_eq!(fs.drill_mounts().unwrap().len(), fs.datasets().len());
    fs.end_drill().unwrap();
    fs.destroy(&second).unwrap();
    let error = said(fs.drill(&second, &at));
    assert!(error.contains("point 2.91"), "{error}");
}

fn same(one: &Path, other: &Path) {
    must("diff", &["-r", "--no-dereference", text(one), text(other)]);
}
