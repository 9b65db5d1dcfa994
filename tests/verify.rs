//! Copies of a point compared between two real daemons: equal ones, and those that a disk has spoiled without a word.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::cluster::{MANUAL, Pair, TestNode, btrfs, fill, noise, wait};
use support::fixture;
use support::same::assert_same;

fn pair(name: &str, node: &str) -> Option<Pair> {
    fixture::ready(name).then(|| Pair::new(&["files"], node, MANUAL))
}

/// What `verify --json` said, whatever its exit code, which is the first.
fn verified(node: &TestNode, more: &[&str]) -> (i32, Value) {
    let said = node.run(&[&["verify", "web", "--json"], more].concat());
    assert!(!said.out.is_empty(), "{said:?}");
    let code = said.code;
    (code, said.json()["peers"][0].clone())
}

/// `path what` of everything that differs.
fn differences(one: &Value) -> Vec<String> {
    let all = one["datasets"]["files"]["differences"].as_array().unwrap();
    let text = |one: &Value| {
        let word = |key: &str| one[key].as_str().unwrap().to_owned();
        format!("{} {}", word("path"), word("what"))
    };
    let mut all: Vec<String> = all.iter().map(text).collect();
    all.sort();
    all
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Files of every kind that a stream carries.
fn furnish(live: &Path) {
    fill(live, 30, 30_000, 1);
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    fs::hard_link(live.join("d1/f1-1"), live.join("linked")).unwrap();
    std::os::unix::fs::symlink("d1/nowhere", live.join("link")).unwrap();
    run("mkfifo", &[&path("pipe")]);
    run("mknod", &[&path("device"), "c", "1", "3"]);
    run("chmod", &["4751", &path("d2/f1-2")]);
    run("chown", &["-R", "1234:2345", &path("d3")]);
    run(
        "touch",
        &["-d", "2001-02-03T04:05:06.789", &path("d4/f1-4")],
    );
    fs::write(live.join("names \u{1b}\n\"'"), "odd").unwrap();
    let hole = File::create(live.join("hole")).unwrap();
    hole.set_len(10 << 20).unwrap();
    hole.write_at(b"end", 9 << 20).unwrap();
    let value = rustix::fs::setxattr(
        live.join("d5"),
        "user.note",
        b"x",
        rustix::fs::XattrFlags::empty(),
    );
    value.unwrap();
    // Not in any copy, and no difference.
    btrfs(&["subvolume", "create", &path("d6/nested")]);
}

#[test]
fn equal_copies_and_what_was_read_before() {
    let Some(pair) = pair("equal_copies_and_what_was_read_before", "") else {
        return;
    };
    furnish(&pair.alder.live("files"));
    let written = Instant::now();
    // What changed just before a point is read each time.
    assert!(wait(|| written.elapsed() > Duration::from_secs(4)));
    pair.alder.run(&["run"]).ok();
    let (code, one) = verified(&pair.alder, &[]);
    assert_eq!((code, &one["equal"]), (0, &Value::Bool(true)), "{one}");
    let files = &one["datasets"]["files"];
    let read = files["read_bytes"].as_u64().unwrap();
    assert!(read > 900_000, "{files}");
    let (_, again) = verified(&pair.alder, &[]);
    assert_eq!(again["datasets"]["files"]["read_bytes"], 0, "{again}");
    let (_, full) = verified(&pair.alder, &["--full"]);
    assert_eq!(full["datasets"]["files"]["read_bytes"], read, "{full}");
    // The next point: only what changed is read.
    fs::write(pair.alder.live("files").join("d1/new"), noise(5, 7000)).unwrap();
    pair.alder.run(&["run"]).ok();
    let (code, next) = verified(&pair.alder, &["--peer", "birch"]);
    assert_eq!(code, 0, "{next}");
    assert_eq!(next["point"]["short"], "1.2");
    assert_eq!(next["datasets"]["files"]["read_bytes"], 7000, "{next}");
    // From the other side, and an older one.
    let (code, one) = verified(&pair.birch, &["--point", "1.1"]);
    assert_eq!((code, &one["equal"]), (0, &Value::Bool(true)), "{one}");
    let last = &pair.birch.role()["verified"][0];
    assert_eq!(
        (&last["equal"], &last["peer"]),
        (&Value::Bool(true), &Value::from("alder"))
    );
    let status = pair.alder.run(&["status"]).ok().out;
    assert!(status.contains("1.2 equal to birch's"), "{status}");

    let said = pair.alder.run(&["verify", "web", "--point", "1.7"]);
    assert_eq!(said.code, 17, "{said:?}");
}

/// Changes 512 bytes of a block with this content wherever the image holds it, behind the filesystem's back.
fn corrupt(node: &TestNode, file: &Path, block: &[u8]) {
    run("sync", &["-f", file.to_str().unwrap()]);
    let image = File::options()
        .read(true)
        .write(true)
        .open(node.disk.image());
    let image = image.unwrap();
    let (mut found, mut offset) = (0, 0);
    let mut piece = vec![0; 4 << 20];
    while let Ok(data) = rustix::fs::seek(&image, rustix::fs::SeekFrom::Data(offset)) {
        offset = data / 4096 * 4096;
        let read = image.read_at(&mut piece, offset).unwrap();
        for (number, candidate) in piece[..read].chunks(4096).enumerate() {
            if candidate == block {
                let at = offset + number as u64 * 4096 + 1024;
                image.write_at(&[0xAA; 512], at).unwrap();
                found += 1;
            }
        }
        if read == 0 {
            break;
        }
        offset += read as u64;
    }
    assert!(found > 0, "the block is not in the image");
    image.sync_all().unwrap();
    let file = File::open(file).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn what_a_disk_spoiled_is_named_and_mended() {
    let Some(pair) = pair("what_a_disk_spoiled_is_named_and_mended", "") else {
        return;
    };
    let live = pair.alder.live("files");
    fill(&live, 20, 30_000, 1);
    // Without checksums nothing but a comparison finds what has changed.
    fs::create_dir(live.join("plain")).unwrap();
    run("chattr", &["+C", live.join("plain").to_str().unwrap()]);
    let (silent, loud) = (noise(77, 1 << 20), noise(78, 1 << 20));
    fs::write(live.join("plain/silent"), &silent).unwrap();
    fs::write(live.join("d1/loud"), &loud).unwrap();
    pair.alder.run(&["run"]).ok();
    assert_eq!(verified(&pair.alder, &[]).0, 0);
    let copy = pair.birch.snapshot("1.1", "files");
    corrupt(
        &pair.birch,
        &copy.join("plain/silent"),
        &silent[8192..12288],
    );
    corrupt(&pair.birch, &copy.join("d1/loud"), &loud[8192..12288]);

    let (code, one) = verified(&pair.alder, &["--full"]);
    assert_eq!((code, &one["equal"]), (19, &Value::Bool(false)), "{one}");
    let expected = ["d1/loud unreadable-there", "plain/silent content"];
    assert_eq!(differences(&one), expected, "{one}");
    let advice = one["advice"][0].as_str().unwrap();
    let mend = "standin verify web --point 1.1 --peer alder --repair";
    assert!(advice.ends_with(&format!("on birch: {mend}")), "{one}");
    let warned = pair.alder.status()["warnings"].to_string();
    assert!(warned.contains("differed from birch's"), "{warned}");

    // On birch, as it says; unasked it does nothing.
    let words: Vec<&str> = mend.split(' ').skip(1).collect();
    let said = pair.birch.run(&[&words[..], &["--full"]].concat());
    assert_eq!(said.code, 15, "{said:?}");
    assert_eq!(pair.birch.points(), ["1.1"]);
    let said = pair.birch.run(&[&words[..], &["--full", "--yes"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(pair.birch.points(), ["1.1"]);
    let copy = pair.birch.snapshot("1.1", "files");
    assert_same(&copy, &pair.alder.snapshot("1.1", "files"), "mended");
    let (code, one) = verified(&pair.alder, &["--full"]);
    assert_eq!((code, &one["equal"]), (0, &Value::Bool(true)), "{one}");
    let points = pair.birch.run(&["points", "web", "--json"]).ok().json();
    let aside = &points["roles"][0]["aside"][0];
    assert_eq!(aside["why"], "differs from alder's copy", "{points}");
}

#[test]
fn killed_in_the_middle() {
    let Some(mut pair) = pair("killed_in_the_middle", "verify-rate = \"1MB/s\"") else {
        return;
    };
    let live = pair.alder.live("files");
    fill(&live, 40, 1 << 20, 3);
    pair.alder.run(&["run"]).ok();
    let slow = ["verify", "web", "--rate", "1MB/s"];
    for side in 0..2 {
        let mut going = pair.alder.command(&slow).spawn().unwrap();
        pair.alder.wait_for("both read", || {
            if going.try_wait().unwrap().is_some() {
                // What the peer holds is not known yet just after its start.
                going = pair.alder.command(&slow).spawn().unwrap();
            }
            // Nothing to read in a point that is not there: only whether somebody else reads.
            pair.alder.run(&["verify", "web", "--point", "9.9"]).code == 12
        });
        let node = if side == 0 {
            &mut pair.birch
        } else {
            &mut pair.alder
        };
        node.kill();
        assert_ne!(going.wait().unwrap().code(), Some(0));
        node.start();
        pair.wait_linked();
    }
    pair.birch.edit("verify-rate = \"1MB/s\"", "");
    pair.birch.run(&["reload"]).ok();
    let (code, one) = verified(&pair.alder, &[]);
    assert_eq!((code, &one["equal"]), (0, &Value::Bool(true)), "{one}");
}

#[test]
fn by_itself_when_it_is_due() {
    let Some(mut pair) = pair("by_itself_when_it_is_due", "") else {
        return;
    };
    fill(&pair.alder.live("files"), 5, 10_000, 1);
    pair.alder.run(&["run"]).ok();
    for node in [&pair.alder, &pair.birch] {
        node.edit("[role.web]\n", "[role.web]\nverify-every = \"1s\"\n");
    }
    pair.alder.stop();
    pair.alder.start_with(&[("STANDIN_HASTE", "100")]);
    pair.birch.run(&["reload"]).ok();
    let ended = |node: &TestNode| node.role()["verified"][0]["ended"].clone();
    pair.alder
        .wait_for("copies are compared", || ended(&pair.alder) != Value::Null);
    let first = ended(&pair.alder);
    pair.alder
        .wait_for("and again", || ended(&pair.alder) != first);
    assert_eq!(pair.alder.role()["verified"][0]["equal"], Value::Bool(true));
    // The node that stands in begins none.
    assert_eq!(ended(&pair.birch), Value::Null);
}
