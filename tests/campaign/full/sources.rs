//! The sender's side: a file whose checksum fails, a full disk, a full disk under the state database.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::stage::{Filler, Stage, disks, sync, write_synced};
use crate::case::Case;
use crate::support::cluster::{MIB, TestNode, noise};
use crate::support::fixture::run;

/// One file of the new point cannot be read: it is named, and the next point goes without it.
pub fn unreadable_file(case: &mut Case) {
    let mut stage = Stage::new(case, disks(512, 2048), "");
    stage.first_point();
    stage.grow(10 + case.below(20), 256);
    let live = stage.alder().live("files");
    let name = format!("d{}/victim", case.below(8));
    let bytes = noise(case.draw(), (1 + case.below(3)) as usize * MIB as usize);
    write_synced(&live.join(&name), &bytes).unwrap();
    stage.grow(5 + case.below(20), 256);
    sync(stage.alder());
    // Anywhere in the file, whole blocks.
    let at = case.below(bytes.len() as u64 / 4096 - 1) as usize * 4096;
    corrupt(stage.alder(), &bytes[at..at + 4096]);
    let said = stage.alder().run(&["run", "web"]);
    assert_ne!(said.code, 0, "{said:?}");
    let said = stage.wait_failed(&["cannot be read", &name]);
    assert!(said.contains("input/output error"), "{said}");
    assert!(!stage.replica()["retry_at"].is_null());
    assert_eq!(stage.birch().points(), ["1.1"]);
    // The other role on birch, and taking points here, go on.
    stage.birch().run(&["run", "own"]).ok();
    match case.chance(50) {
        true => fs::remove_file(live.join(&name)).unwrap(),
        false => write_synced(&live.join(&name), &noise(9, bytes.len())).unwrap(),
    }
    stage.alder().run(&["run", "web"]).ok();
    stage.judge_but("1.3", "1.2");
    case.count("files that could not be read");
}

/// Changes a block with this content wherever the image holds it, behind the filesystem's back.
fn corrupt(node: &TestNode, block: &[u8]) {
    let image = File::options()
        .read(true)
        .write(true)
        .open(node.disk.image())
        .unwrap();
    let mut found = 0;
    let mut piece = vec![0; 4 << 20];
    let mut offset = 0;
    // Holes are stepped over.
    while let Ok(data) = rustix::fs::seek(&image, rustix::fs::SeekFrom::Data(offset)) {
        offset = data / 4096 * 4096;
        let read = image.read_at(&mut piece, offset).unwrap();
        for (number, candidate) in piece[..read].chunks(4096).enumerate() {
            if candidate == block {
                image
                    .write_at(&[0xAA; 512], offset + number as u64 * 4096 + 1024)
                    .unwrap();
                found += 1;
            }
        }
        if read == 0 {
            break;
        }
        offset += read as u64;
    }
    assert!(found > 0, "the block is not in the image");
    // The loop device reads through the cache of this file; what is cached of the live file is not of its snapshot.
    image.sync_all().unwrap();
}

/// Not even a snapshot fits: said, nothing lost, and the next cycle works when there is room.
pub fn source_full(case: &mut Case) {
    let mut stage = Stage::new(case, disks(256, 2048), "");
    stage.first_point();
    stage.grow(1 + case.below(8), 64);
    let before = stage.alder().points();
    let filler = Filler::leaving(stage.alder(), 2 * MIB);
    let hoard = stage.alder().disk.path().join("hoard");
    fs::create_dir(&hoard).unwrap();
    let mut file = 0u64;
    // Inline files eat metadata until nothing goes.
    while fs::write(hoard.join(file.to_string()), vec![1; 1900]).is_ok() {
        file += 1;
    }
    let said = stage.alder().run(&["run", "web"]);
    if said.code != 0 {
        assert_eq!(said.code, 16, "{said:?}");
        assert!(
            said.err.contains("free") || said.out.contains("free"),
            "{said:?}"
        );
        assert_eq!(stage.alder().points(), before);
        case.count("points that could not be taken for want of space");
    } else {
        case.count("points taken from what the kernel keeps back");
    }
    for gone in (0..file).rev() {
        fs::remove_file(hoard.join(gone.to_string())).unwrap();
    }
    filler.remove(stage.alder());
    stage.alder().run(&["run", "web"]).ok();
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
}

/// The disk under alder's state database is full.
pub fn state_disk_full(case: &mut Case) {
    let mut stage = Stage::new(case, disks(1024, 1024), "");
    stage.first_point();
    let state = stage.alder().dir.join("state");
    stage.pair.alder.stop();
    let kept = stage.pair.alder.dir.join("kept");
    fs::rename(&state, &kept).unwrap();
    fs::create_dir(&state).unwrap();
    let _mounted = Mounted::tmpfs(&state);
    run(
        "cp",
        [
            "-a",
            &format!("{}/.", kept.display()),
            state.to_str().unwrap(),
        ],
    );
    stage.pair.alder.start();
    stage.pair.wait_linked();
    let filler = state.join("filler");
    let mut file = File::create(&filler).unwrap();
    let piece = vec![1; 4096];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    drop(file);
    stage.grow(3 + case.below(5), 128);
    // A small write may still fit in what the database has; many do not.
    let mut code = 0;
    for _ in 0..200 {
        let said = stage.alder().run(&["run", "web"]);
        code = said.code;
        if code != 0 {
            let told = format!("{}{}", said.out, said.err);
            assert!(
                told.contains("state database") && told.contains("full"),
                "{told}"
            );
            break;
        }
        stage.grow(1, 4);
    }
    assert_eq!(code, 16, "never failed\n{}", stage.alder().log());
    assert!(Command::new("true").status().unwrap().success());
    stage.alder().run(&["status"]).ok();
    fs::remove_file(&filler).unwrap();
    stage.alder().run(&["run", "web"]).ok();
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
    stage.pair.alder.stop();
    case.count("state databases on a full disk");
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: &std::path::Path) -> Mounted {
        run(
            "mount",
            [
                "-t",
                "tmpfs",
                "-o",
                "size=2M",
                "tmpfs",
                path.to_str().unwrap(),
            ],
        );
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
