//! Two nodes on disks of chosen sizes, a second role that lives on birch's filesystem, fillers, and the judgement.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::case::Case;
use crate::support::cluster::{MIB, OFTEN, Pair, TestNode, btrfs, fill, noise, wait};
use crate::support::fixture::{Loop, run};
use crate::support::same::assert_same;

/// What receiving leaves free on birch, in MiB.
pub const RESERVE: u64 = 128;

pub struct Stage {
    pub pair: Pair,
    seed: u64,
    /// Bytes of birch's own live data.
    own: Vec<u8>,
}

/// MiB of alder's and birch's disks.
pub fn disks(alder: u64, birch: u64) -> [Loop; 2] {
    [alder, birch].map(|mib| Loop::new(mib * MIB))
}

impl Stage {
    /// `role` are further lines of [role.web].
    pub fn new(case: &mut Case, disks: [Loop; 2], role: &str) -> Stage {
        let keep = match role.contains("keep =") {
            true => "",
            false => "keep = { last = 100 }\n",
        };
        let role = format!("every = \"manual\"\nreserve = \"{RESERVE}MiB\"\n{keep}{role}");
        let pair = Pair::on(disks, &["files"], OFTEN, &role);
        let seed = case.draw();
        let stage = Stage {
            pair,
            seed,
            own: noise(seed ^ 1, 3 * MIB as usize),
        };
        stage.second_role();
        stage
    }

    /// A role of birch's own on the same filesystem.
    fn second_role(&self) {
        let birch = self.birch();
        let live = birch.live("own");
        btrfs(&["subvolume", "create", live.to_str().unwrap()]);
        write_synced(&live.join("data"), &self.own).unwrap();
        let section = format!(
            "[role.own]\nhome = \"birch\"\nevery = \"manual\"\nkeep = {{ last = 3 }}\n[role.own.dataset.own]\nbtrfs = \"{}\"\n",
            live.display()
        );
        let text = fs::read_to_string(birch.config_path()).unwrap() + &section;
        fs::write(birch.config_path(), text).unwrap();
        birch.run(&["reload"]).ok();
    }

    pub fn alder(&self) -> &TestNode {
        &self.pair.alder
    }

    pub fn birch(&self) -> &TestNode {
        &self.pair.birch
    }

    /// New files of noise in alder's live data: `files` of `kib` each.
    pub fn grow(&mut self, files: u64, kib: u64) {
        self.seed += 1000;
        let live = self.alder().live("files");
        fill(&live, files as usize, (kib << 10) as usize, self.seed);
    }

    /// A point that birch holds before anything goes wrong.
    pub fn first_point(&mut self) {
        self.grow(8, 64);
        self.alder().run(&["run", "web"]).ok();
        self.pair.wait_stored("1.1");
    }

    /// Alder's transfers take at least so long as so many MiB a second mean.
    pub fn slow(&self, mib_per_s: u64) {
        let limit = format!("[peer.birch]\nbandwidth = \"{mib_per_s}MiB/s\"\n");
        self.alder().edit("[peer.birch]\n", &limit);
        self.alder().run(&["reload"]).ok();
    }

    /// What status says of birch on alder.
    pub fn replica(&self) -> Value {
        self.alder().role()["replicas"][0].clone()
    }

    pub fn said_nothing_of_absence(&self) -> bool {
        self.replica()["absent"].is_null() || self.alder().run(&["prune", "web"]).code != 0
    }

    /// Waits until alder waits for space on birch, and gives the sentence.
    #[track_caller]
    pub fn wait_waiting(&self) -> String {
        let mut said = String::new();
        self.alder().wait_for("status says what is waited for", || {
            said = text(&self.replica()["waiting"]);
            !said.is_empty()
        });
        let shown = self.alder().run(&["status"]).ok().out;
        assert!(shown.contains("waiting for space on birch"), "{shown}");
        assert!(
            said.contains("free above the reserve of 128.0 MiB"),
            "{said}"
        );
        said
    }

    /// Waits until the newest attempt towards birch failed with all these words.
    #[track_caller]
    pub fn wait_failed(&self, words: &[&str]) -> String {
        let mut said = String::new();
        let found = wait(|| {
            said = text(&self.replica()["last_error"]);
            words.iter().all(|word| said.contains(word))
        });
        assert!(found, "{words:?} not in {said:?}\n{}", self.alder().log());
        said
    }

    /// Other roles on birch's filesystem can still write what the reserve is for: nearly all of it.
    pub fn own_role_writes(&self, mib: u64) {
        let file = self.birch().live("own").join("written");
        let written = write_synced(&file, &noise(7, (mib * MIB) as usize));
        assert!(written.is_ok(), "{mib} MiB of the reserve: {written:?}");
        fs::remove_file(&file).unwrap();
        sync(self.birch());
    }

    /// The trouble is over: birch gets `short` without being asked, and everything is as it should be.
    #[track_caller]
    pub fn judge(&self, short: &str) {
        self.judge_but(short, "");
    }

    /// The same, where alder's own copy of one point cannot be read.
    #[track_caller]
    pub fn judge_but(&self, short: &str, damaged: &str) {
        self.pair.wait_stored(short);
        for held in self.birch().points() {
            if held != damaged && self.alder().points().contains(&held) {
                let [ours, theirs] =
                    [self.alder(), self.birch()].map(|node| node.snapshot(&held, "files"));
                assert_same(&ours, &theirs, &format!("files of {held}"));
            }
        }
        let own = fs::read(self.birch().live("own").join("data")).unwrap();
        assert!(own == self.own, "live data of another role changed");
        self.birch().run(&["run", "own"]).ok();
        self.birch().wait_for("staging and trash are empty", || {
            self.birch().leftovers().is_empty()
        });
        self.alder().wait_for("nothing is waited for", || {
            let replica = self.replica();
            replica["waiting"].is_null()
                && replica["retry_at"].is_null()
                && replica["last_error"].is_null()
        });
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub fn sync(node: &TestNode) {
    run(
        "btrfs",
        ["filesystem", "sync", node.disk.path().to_str().unwrap()],
    );
}

/// Free bytes as df tells them.
pub fn free(node: &TestNode) -> u64 {
    let found = rustix::fs::statvfs(node.disk.path()).unwrap();
    found.f_bavail * found.f_frsize
}

/// A file that takes all space of the node's filesystem but `left` bytes; it costs no time.
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    pub fn leaving(node: &TestNode, left: u64) -> Filler {
        sync(node);
        let path = node.disk.path().join("filler");
        for part in 0.. {
            let much = free(node).saturating_sub(left);
            if much < MIB {
                break;
            }
            assert!(part < 50, "{} free cannot be filled to {left}", free(node));
            let file = fs::create_dir_all(&path)
                .and_then(|()| File::create(path.join(part.to_string())))
                .unwrap();
            // Another chunk may have been allocated meanwhile: the next part is smaller.
            let _ = rustix::fs::fallocate(
                &file,
                rustix::fs::FallocateFlags::empty(),
                0,
                if part < 5 { much } else { much / 2 },
            );
            sync(node);
        }
        Filler { path }
    }

    pub fn remove(self, node: &TestNode) {
        fs::remove_dir_all(&self.path).unwrap();
        sync(node);
    }
}
