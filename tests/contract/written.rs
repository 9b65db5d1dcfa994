//! How much was written since a point: about what was written, by whatever way live data and the point are related.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::stage::*;
use super::support::random::Random;
use standin::fs::Filesystem;
use standin::logic::manifest::Stored;

const KIB: u64 = 1 << 10;

fn write(path: &Path, bytes: u64, seed: u64) {
    let data = Random::new(seed).bytes(usize::try_from(bytes).unwrap());
    fs::write(path, data).unwrap();
}

#[test]
fn what_was_written_since_a_point() {
    if !ready("what_was_written_since_a_point") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    let role = btrfs(&[("web", &web)]);
    let since = |point: &Stored| role.written_since(&point.manifest.point).unwrap();
    #[track_caller]
    fn about(found: Option<u64>, expected: u64) {
        let found = found.expect("known");
        // Whole blocks, of every file.
        let most = expected + expected / 10 + 64 * KIB;
        assert!(
            (expected..=most).contains(&found),
            "{found}, not {expected}"
        );
    }
    write(&web.join("old"), 8192 * KIB, 1);
    let first = take(&role, 1, 1);
    about(since(&first), 0);
    write(&web.join("new"), 1024 * KIB, 2);
    write(&web.join("small"), 100, 3);
    about(since(&first), 1024 * KIB);
    // The same place again counts once; what is gone does not count.
    write(&web.join("new"), 1024 * KIB, 4);
    about(since(&first), 1024 * KIB);
    let second = take(&role, 1, 2);
    about(since(&second), 0);
    about(since(&first), 1024 * KIB);
    fs::remove_file(web.join("new")).unwrap();
    about(since(&first), 0);
    fs::set_permissions(web.join("old"), fs::Permissions::from_mode(0o600)).unwrap();
    about(since(&second), 0);

    // What is live is a copy of the point; of others it is not known how they are related.
    let spare = manifest(1, 3);
    role.restore_live(&dataset("web"), &first.manifest.point, Some(&second), spare)
        .unwrap();
    about(since(&first), 0);
    write(&web.join("later"), 512 * KIB, 5);
    about(since(&first), 512 * KIB);
    assert_eq!(since(&second), None);
    role.destroy(&second.manifest.point).unwrap();
    assert_eq!(since(&second), None);
}
