//! Paths whose meaning changes while the stream runs, and clones that reach too far.

use standin::fs::btrfs::stream::{Cloned, Command};

use super::support::fixture::ready;
use super::{Ground, OWN, US, all_data_on, all_on, clone_of};

fn mkdir(path: &[u8]) -> Command<'_> {
    Command::Mkdir { path, inode: None }
}

fn mkfile(path: &[u8]) -> Command<'_> {
    Command::Mkfile { path, inode: None }
}

fn write(path: &[u8]) -> Command<'_> {
    let data = b"data";
    Command::Write {
        path,
        offset: 0,
        data,
    }
}

fn rename<'a>(from: &'a [u8], to: &'a [u8]) -> Command<'a> {
    Command::Rename { from, to }
}

fn symlink<'a>(path: &'a [u8], target: &'a [u8]) -> Command<'a> {
    Command::Symlink { path, target }
}

/// A directory that was worked in becomes a link to the outside between two commands.
#[test]
fn directories_that_become_links() {
    if !ready("directories_that_become_links") {
        return;
    }
    let mut ground = Ground::new();
    let outside = ground.target.join("outside");
    let outside = outside.to_str().unwrap().as_bytes().to_vec();
    for target in [&outside[..], b"../../../outside", b"/", b"."] {
        let before = [mkdir(b"d"), mkfile(b"d/file"), write(b"d/file")];
        let moved = [rename(b"d", b"e"), symlink(b"d", target)];
        let replaced = [
            rename(b"d/file", b"file"),
            Command::Rmdir { path: b"d" },
            symlink(b"d", target),
        ];
        // Moved over it: an empty directory gives way to nothing but a directory.
        for change in [&moved[..], &replaced[..]] {
            for path in [&b"d/file"[..], b"d/new", b"d/own"] {
                for command in all_on(path) {
                    let commands = [&OWN[..], &before, change, &[command]].concat();
                    ground.check(&commands, Some(""));
                }
            }
        }
    }
}

/// What was open or known under a name is not what the name means after a rename.
#[test]
fn names_that_moved() {
    if !ready("names_that_moved") {
        return;
    }
    let mut ground = Ground::new();
    let tree = [
        mkdir(b"d"),
        mkdir(b"d/e"),
        mkfile(b"d/e/f"),
        write(b"d/e/f"),
    ];
    let away = [
        rename(b"d", b"x"),
        rename(b"d/e", b"x"),
        rename(b"d/e/f", b"x"),
    ];
    for change in away {
        for command in all_data_on(b"d/e/f") {
            let commands = [&OWN[..], &tree, &[change, command]].concat();
            ground.check(&commands, Some(""));
        }
    }
    // Under the new name everything goes on.
    ground.check(
        &[&tree[..], &[rename(b"d", b"x"), write(b"x/e/f")]].concat(),
        None,
    );
    ground.check(
        &[&tree[..], &[rename(b"d", b"d/e/d")]].concat(),
        Some("rename"),
    );
    ground.check(
        &[&tree[..], &[Command::Rmdir { path: b"d" }]].concat(),
        Some("remove directory"),
    );
    // A further name of a link leads no further than the link.
    let alias = [
        symlink(b"l", b"d"),
        Command::Link {
            path: b"m",
            existing: b"l",
        },
    ];
    for command in all_on(b"m/e") {
        ground.check(&[&OWN[..], &tree, &alias, &[command]].concat(), Some(""));
    }
}

#[test]
fn links_in_a_circle() {
    if !ready("links_in_a_circle") {
        return;
    }
    let mut ground = Ground::new();
    let circle = [
        symlink(b"a", b"b"),
        symlink(b"b", b"a"),
        symlink(b"c", b"c/c"),
    ];
    for path in [&b"a/x"[..], b"c/c", b"c/c/c/c"] {
        for command in all_on(path) {
            ground.check(&[&OWN[..], &circle, &[command]].concat(), Some(""));
        }
    }
}

fn cloned(offset: u64, len: u64, source_path: &[u8], source_offset: u64) -> Command<'_> {
    Command::Clone(Cloned {
        path: b"own",
        offset,
        len,
        source: US,
        source_ctransid: 1,
        source_path,
        source_offset,
    })
}

/// `own` holds 5,000 bytes.
#[test]
fn clones_that_reach_too_far() {
    if !ready("clones_that_reach_too_far") {
        return;
    }
    let mut ground = Ground::new();
    let other = [mkfile(b"other"), write(b"other")];
    let mut case = |command, words| {
        ground.check(&[&OWN[..], &other, &[command]].concat(), Some(words));
    };
    let ends = "ends before the range";
    case(cloned(8192, 8192, b"own", 0), ends);
    case(cloned(8192, 1, b"own", 5000), ends);
    case(cloned(0, 4096, b"other", 0), ends);
    case(cloned(0, 1, b"other", 1 << 62), ends);
    case(cloned(0, i64::MAX as u64, b"other", 0), ends);
    let itself = "onto itself";
    case(cloned(0, 4096, b"own", 1), itself);
    case(cloned(4096, 4096, b"own", 4095), itself);
    case(cloned(0, 4096, b"own", 0), itself);
    case(cloned(0, 4096, b"missing", 0), "stat");
    // Of a snapshot that does not exist, and of the base where there is none.
    let nil = clone_of(b"own", uuid::Uuid::nil(), b"other", 4096);
    case(nil, "not a snapshot of this dataset");
}
