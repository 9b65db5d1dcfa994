//! A receiver that is killed, at each of the places where it matters, leaves work that goes on or is complete.
//!
//! The process stops itself at a named place (`STANDIN_FREEZE`), is killed there, and another one goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use standin::fs::Opened;
use standin::fs::btrfs::receive;
use standin::logic::transfer::FileFlags;
use support::fixture::{Loop, ready};
use support::receiving::{LIMITS, hash, identity, opened, place, sent, snapshot, uuid_of};
use support::same::assert_same;
use support::tree::{Names, Tree};

/// Not a test of its own: what [`killed_anywhere`] starts, with a place to freeze at.
#[test]
fn killed_child() {
    let Some(dir) = std::env::var_os("STANDIN_TEST_CHILD").map(PathBuf::from) else {
        return;
    };
    let stream = std::fs::read(dir.join("stream")).unwrap();
    let text = std::fs::read(dir.join("identity")).unwrap();
    let identity = serde_json::from_slice(&text).unwrap();
    let outcome = opened(
        &place(&dir, "r"),
        &identity,
        None,
        &FileFlags::default(),
        0,
        LIMITS,
    );
    let Opened::Transfer(mut incoming) = outcome.unwrap() else {
        return;
    };
    let offset = incoming.standing().offset as usize;
    let rest = &stream[offset..];
    for piece in rest.chunks(rest.len() / 3 + 1) {
        incoming.write(piece).unwrap();
        incoming.checkpoint().unwrap();
    }
    incoming
        .finish(stream.len() as u64, &hash(&stream))
        .unwrap();
}

#[test]
fn killed_anywhere() {
    if !ready("killed_anywhere") {
        return;
    }
    let (from, to) = (Loop::new(1 << 30), Loop::new(1 << 30));
    let (live, taken) = (from.join("live"), from.join("s"));
    libbtrfsutil::create_subvolume(&live).unwrap();
    Tree::new(&live, 21, Names::Bytes).change(200);
    snapshot(&live, &taken);
    let stream = sent(None, &taken, 2, &[]);
    let identity = identity(uuid_of(&taken), None, 2);
    let dir = to.path().to_owned();
    std::fs::write(dir.join("stream"), &stream).unwrap();
    std::fs::write(dir.join("identity"), serde_json::to_vec(&identity).unwrap()).unwrap();
    for freeze in [
        "checkpoint-flushed",
        "checkpoint-state-written",
        "checkpoint-taken",
        "resume-cleared",
        "finish-moved",
        "finish-read-only",
        "finish-recorded",
    ] {
        // Twice: the second finds what the first left.
        for _ in 0..2 {
            kill_at(freeze, &dir);
        }
        let place = place(&dir, "r");
        let path = match opened(&place, &identity, None, &FileFlags::default(), 0, LIMITS).unwrap()
        {
            Opened::Complete(_) => {
                assert_eq!(freeze, "finish-recorded");
                place.point_dir.join("data")
            }
            Opened::Transfer(mut incoming) => {
                let standing = incoming.standing();
                assert_eq!(standing.prefix, hash(&stream[..standing.offset as usize]));
                incoming.write(&stream[standing.offset as usize..]).unwrap();
                incoming
                    .finish(stream.len() as u64, &hash(&stream))
                    .unwrap();
                place.point_dir.join("data")
            }
        };
        assert_same(&taken, &path, freeze);
        receive::discard(&place).unwrap();
        assert_eq!(
            std::fs::read_dir(place.point_dir.join(".work"))
                .unwrap()
                .count(),
            0
        );
    }
}

/// Runs the child until it has frozen there, and kills it.
fn kill_at(freeze: &str, dir: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_child", "--nocapture"])
        .env("STANDIN_TEST_CHILD", dir)
        .env("STANDIN_FREEZE", freeze)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    while !is_stopped() {
        if let Some(status) = child.try_wait().unwrap() {
            // A complete place is not opened again: the second child has nothing to do there.
            assert_eq!(freeze, "finish-recorded", "ended by itself: {status}");
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{freeze} is never reached"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
