//! The receiver's disk has no room: from the start, midway, or for metadata alone.

use std::fs;

use super::stage::{Filler, RESERVE, Stage, disks, free, sync};
use crate::case::Case;
use crate::support::cluster::MIB;
use crate::support::fixture::run;

/// The size of the stream says that it will not fit: refused before a byte is sent.
pub fn refused_early(case: &mut Case) {
    let mut stage = Stage::new(case, disks(2048, 1024), "");
    stage.first_point();
    let mib = 40 + case.below(60);
    stage.grow(mib, 1024);
    // Room for a part of it, or less than the reserve.
    let room = case.below(mib) * MIB;
    let left = if case.chance(30) {
        RESERVE * MIB / 2
    } else {
        RESERVE * MIB + room
    };
    let filler = Filler::leaving(stage.birch(), left);
    let said = stage.alder().run(&["run", "web", "--json"]);
    assert_eq!(said.code, 16, "{said:?}");
    let said = stage.wait_waiting();
    let needed = format!("{:.1} MiB needed", mib as f64);
    assert!(said.contains(&needed), "{needed} in {said}");
    let partial = stage.birch().leftovers();
    assert!(
        !partial
            .iter()
            .any(|path| path.to_string_lossy().contains("ckpt."))
    );
    stage.own_role_writes(40);
    filler.remove(stage.birch());
    stage.judge("1.2");
    case.count("transfers refused before they began");
}

/// Somebody else writes while a transfer runs: it stops above the reserve, at a checkpoint.
pub fn filled_midway(case: &mut Case) {
    let mut stage = Stage::new(case, disks(2048, 1024), "");
    stage.first_point();
    let mib = 80 + case.below(60);
    stage.grow(mib, 1024);
    let rate = 15 + case.below(20);
    stage.slow(rate);
    let (begin, leave) = (mib / 10 + case.below(mib / 3), 8 + case.below(mib / 4));
    let alder = stage.alder();
    let mut child = alder.command(&["run", "web"]).spawn().unwrap();
    let begun = || {
        let transfer = alder.transfer();
        transfer.is_some_and(|transfer| transfer["done_bytes"].as_u64().unwrap() > begin * MIB)
    };
    alder.wait_for("a part is sent", begun);
    let filler = Filler::leaving(stage.birch(), (RESERVE + leave) * MIB);
    assert_eq!(child.wait().unwrap().code(), Some(16));
    let said = stage.wait_waiting();
    assert!(said.contains("needed"), "{said}");
    sync(stage.birch());
    let least = (RESERVE - 40) * MIB;
    assert!(
        free(stage.birch()) >= least,
        "{} left of the reserve",
        free(stage.birch())
    );
    let checkpoint = |path: &std::path::PathBuf| path.to_string_lossy().contains("ckpt.");
    assert!(
        stage.birch().leftovers().iter().any(checkpoint),
        "a checkpoint is kept"
    );
    stage.own_role_writes(RESERVE - 60);
    filler.remove(stage.birch());
    stage.judge("1.2");
    assert!(stage.alder().log().contains("resume files of 1.2 to birch"));
    case.count("transfers stopped at the reserve");
}

/// All chunks are allocated and metadata is nearly used up: df shows room, but small files have none.
pub fn metadata_exhausted(case: &mut Case) {
    let mut stage = Stage::new(case, disks(1024, 256), "");
    stage
        .birch()
        .edit("reserve = \"128MiB\"", "reserve = \"16MiB\"");
    stage.birch().run(&["reload"]).ok();
    stage.grow(2, 8);
    stage.alder().run(&["run", "web"]).ok();
    stage.pair.wait_stored("1.1");
    // Inline files: their data is metadata.
    let live = stage.alder().live("files");
    let files = 6000 + case.below(4000);
    for file in 0..files {
        fs::write(live.join(format!("small{file}")), vec![file as u8; 1900]).unwrap();
    }
    let filler = Filler::leaving(stage.birch(), 20 * MIB);
    let hoard = stage.birch().disk.path().join("hoard");
    fs::create_dir(&hoard).unwrap();
    let left = MetadataLeft::of(&stage);
    let mut hoarded = 0u64;
    while left.bytes() > 9 * MIB {
        for _ in 0..500 {
            fs::write(hoard.join(hoarded.to_string()), vec![1; 1900]).unwrap();
            hoarded += 1;
        }
        sync(stage.birch());
    }
    let said = stage.alder().run(&["run", "web"]);
    assert_eq!(said.code, 16, "{said:?}\n{}", left.bytes());
    stage
        .alder()
        .wait_for("it is waited for", || !stage.replica()["waiting"].is_null());
    // The other role still can, whatever little it is.
    let own = stage.birch().live("own");
    for file in 0..100 {
        fs::write(own.join(format!("new{file}")), [7; 1000]).unwrap();
    }
    sync(stage.birch());
    fs::remove_dir_all(&hoard).unwrap();
    filler.remove(stage.birch());
    stage.judge("1.2");
    case.count("transfers stopped for want of metadata");
}

/// What the kernel says is left for metadata in birch's chunks.
struct MetadataLeft(String);

impl MetadataLeft {
    fn of(stage: &Stage) -> MetadataLeft {
        let path = stage.birch().disk.path();
        let shown = run("btrfs", ["filesystem", "show", path.to_str().unwrap()]);
        let shown = String::from_utf8(shown).unwrap();
        let fsid = shown.split("uuid: ").nth(1).unwrap();
        let fsid = fsid.split_whitespace().next().unwrap();
        MetadataLeft(format!("/sys/fs/btrfs/{fsid}/allocation/metadata"))
    }

    fn bytes(&self) -> u64 {
        let number = |name: &str| -> u64 {
            let text = fs::read_to_string(format!("{}/{name}", self.0)).unwrap();
            text.trim().parse().unwrap()
        };
        number("total_bytes").saturating_sub(number("bytes_used") + number("bytes_may_use"))
    }
}
