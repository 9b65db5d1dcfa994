//! A stream from a hostile peer changes nothing but the subvolume it is received into, and reads nothing it was not given.
//!
//! Every case is one crafted stream on a real filesystem; an audit of the rest of the filesystem is compared before and after.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod crafted;
mod limits;
mod policy;

use std::path::{Path, PathBuf};

use standin::fs::btrfs::stream::{Cloned, Command, Encoded, Encoder, Moment};
use standin::fs::{FsError, Incoming, Limits};
use support::audit::{Audit, assert_unchanged, audit};
use support::fixture::{Loop, ready};
use support::receiving::{
    LIMITS, hash, identity, open, open_within, place, receive, snapshot, uuid_of,
};
use uuid::Uuid;

const US: Uuid = Uuid::from_u128(0x5555);
const MOMENT: Moment = Moment {
    seconds: 1,
    nanoseconds: 2,
};

struct Ground {
    target: Loop,
    /// Subvolumes a stream must not read: a writable one, and a received one.
    live: PathBuf,
    received: PathBuf,
    cases: usize,
}

impl Ground {
    fn new() -> Ground {
        let target = Loop::new(1 << 30);
        let outside = target.join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), b"untouched").unwrap();
        let live = target.join("live");
        libbtrfsutil::create_subvolume(&live).unwrap();
        std::fs::write(live.join("secret"), vec![7; 8192]).unwrap();
        let mut stream = begun();
        stream.put(&Command::Mkfile {
            path: b"secret",
            inode: None,
        });
        stream.put(&Command::Write {
            path: b"secret",
            offset: 0,
            data: &[9; 8192],
        });
        stream.put(&Command::End);
        let other = Uuid::from_u128(0x7777);
        let bytes = replaced(stream.bytes(), other);
        let place = place(target.path(), "foreign");
        let (received, _) = receive(&place, &identity(other, None, 2), None, &bytes).unwrap();
        Ground {
            target,
            live,
            received,
            cases: 0,
        }
    }

    /// All of the filesystem but the staging places of the cases.
    fn rest(&self) -> Audit {
        let staging = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("case.")
        };
        let mut found = audit(self.target.path(), staging);
        // The places of the cases lie in it.
        found.remove(self.target.path());
        found
    }

    /// Receives these commands after a proper beginning; `words` says why they are refused, none: they are not.
    fn check(&mut self, commands: &[Command<'_>], words: Option<&str>) {
        self.check_within(LIMITS, commands, words);
    }

    /// The same with other limits. Gives where it was received.
    fn check_within(
        &mut self,
        limits: Limits,
        commands: &[Command<'_>],
        words: Option<&str>,
    ) -> PathBuf {
        let mut stream = begun();
        for command in commands {
            stream.put(command);
        }
        stream.put(&Command::End);
        let what = format!("{commands:.300?}");
        let (path, error) = self.receive(limits, stream.bytes(), &what);
        match (error, words) {
            (None, None) => {}
            (None, Some(words)) => panic!("{what} was taken, not refused: {words}"),
            (Some(error), None) => panic!("{what}: {error:#}"),
            (Some(error), Some(words)) => {
                let last = commands
                    .last()
                    .map_or("end", |command| command.kind().name());
                named(&error, last);
                assert!(
                    format!("{error:#}").contains(words),
                    "{what}: {error:#}, not: {words}"
                );
            }
        }
        path
    }

    /// Receives a stream in a place of its own: where it would be, and the error. The rest of the filesystem is the same
    /// afterwards.
    fn receive(
        &mut self,
        limits: Limits,
        stream: &[u8],
        what: &str,
    ) -> (PathBuf, Option<anyhow::Error>) {
        let before = self.rest();
        self.cases += 1;
        let place = place(self.target.path(), &format!("case.{}", self.cases));
        let outcome =
            open_within(limits, &place, &identity(US, None, 2), None).and_then(|mut incoming| {
                incoming.write(stream)?;
                incoming.finish(stream.len() as u64, &hash(stream))
            });
        assert_unchanged(&before, &self.rest(), what);
        (place.point_dir.join("data"), outcome.err())
    }
}

/// A refusal says where in the stream, and which command.
fn named(error: &anyhow::Error, last: &str) {
    match error.downcast_ref() {
        Some(FsError::BadStream {
            offset, command, ..
        }) => {
            assert!(*offset >= 17, "{error:#}");
            assert_eq!(command, last, "{error:#}");
        }
        Some(FsError::NoSpace { .. }) => {}
        _ => panic!("{error:#}"),
    }
}

fn begun() -> Encoder {
    let mut stream = Encoder::new(2);
    stream.put(&Command::Subvol {
        path: b"../../x",
        uuid: US,
        ctransid: 1,
    });
    stream
}

/// The same stream of another snapshot.
fn replaced(bytes: &[u8], uuid: Uuid) -> Vec<u8> {
    let mut parser = standin::fs::btrfs::stream::Parser::new();
    let mut out = Encoder::new(2);
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = parser.next(rest).unwrap();
        if let Some(standin::fs::btrfs::stream::Piece::Command(command)) =
            taken.step.map(|step| step.piece)
        {
            match command {
                Command::Subvol { path, ctransid, .. } => out.put(&Command::Subvol {
                    path,
                    uuid,
                    ctransid,
                }),
                command => out.put(&command),
            };
        }
        rest = &rest[taken.used..];
    }
    out.into_bytes()
}

/// Every command that names a place, with this path.
fn all_on(path: &[u8]) -> Vec<Command<'_>> {
    let names = vec![
        Command::Mkfile { path, inode: None },
        Command::Mkdir { path, inode: None },
        Command::Mknod {
            path,
            mode: 0o20600,
            device: 259,
        },
        Command::Mkfifo { path },
        Command::Mksock { path },
        Command::Symlink { path, target: b"t" },
        Command::Rename {
            from: path,
            to: b"n",
        },
        Command::Rename {
            from: b"own",
            to: path,
        },
        Command::Link {
            path,
            existing: b"own",
        },
        Command::Link {
            path: b"n",
            existing: path,
        },
        Command::Unlink { path },
        Command::Rmdir { path },
        Command::SetXattr {
            path,
            name: b"user.a",
            value: b"v",
        },
        Command::RemoveXattr {
            path,
            name: b"user.a",
        },
    ];
    [names, all_data_on(path)].concat()
}

fn all_data_on(path: &[u8]) -> Vec<Command<'_>> {
    vec![
        Command::Write {
            path,
            offset: 0,
            data: b"overwritten",
        },
        Command::Truncate { path, size: 0 },
        Command::Chmod { path, mode: 0o777 },
        Command::Chown {
            path,
            uid: 1,
            gid: 1,
        },
        Command::Utimes {
            path,
            accessed: MOMENT,
            modified: MOMENT,
            changed: MOMENT,
        },
        Command::Fallocate {
            path,
            mode: 0,
            offset: 0,
            len: 4096,
        },
        Command::Fileattr { path, flags: 64 },
        clone_of(path, US, b"own", 4096),
        clone_of(b"own", US, path, 4096),
        Command::EncodedWrite(Encoded {
            path,
            offset: 0,
            file_len: 4096,
            len: 4096,
            skip: 0,
            compression: 2,
            encryption: 0,
            data: b"x",
        }),
    ]
}

fn clone_of<'a>(path: &'a [u8], source: Uuid, source_path: &'a [u8], len: u64) -> Command<'a> {
    Command::Clone(Cloned {
        path,
        offset: 0,
        len,
        source,
        source_ctransid: 1,
        source_path,
        source_offset: 0,
    })
}

const OWN: [Command<'static>; 2] = [
    Command::Mkfile {
        path: b"own",
        inode: None,
    },
    Command::Write {
        path: b"own",
        offset: 0,
        data: &[1; 5000],
    },
];

#[test]
fn paths_that_leave() {
    if !ready("paths_that_leave") {
        return;
    }
    let mut ground = Ground::new();
    let outside = ground.target.join("outside/file");
    let absolute = outside.to_str().unwrap().as_bytes().to_vec();
    let paths: [&[u8]; 7] = [
        b"../../../outside/file",
        b"own/../../../../outside/file",
        b"./own",
        b"own/",
        b"/",
        b"a\0b",
        &absolute,
    ];
    for path in paths {
        for command in all_on(path) {
            ground.check(&[&OWN[..], &[command]].concat(), Some(""));
        }
    }
}

#[test]
fn links_that_lead_outside() {
    if !ready("links_that_lead_outside") {
        return;
    }
    let mut ground = Ground::new();
    let outside = ground.target.join("outside");
    let file = ground.target.join("outside/file");
    let (outside, file) = (
        outside.to_str().unwrap().as_bytes(),
        file.to_str().unwrap().as_bytes(),
    );
    for (target, path) in [
        (outside, &b"link/file"[..]),
        (outside, b"link/new"),
        (b"../../../../outside", b"link/file"),
        (b"/proc/self/root", b"link/etc/passwd"),
        (b".", b"link/own"),
    ] {
        let link = Command::Symlink {
            path: b"link",
            target,
        };
        for command in all_on(path) {
            ground.check(&[&OWN[..], &[link, command]].concat(), Some(""));
        }
    }
    // The link itself at the end of the path: its content is out of reach, what is the link's own is not.
    let link = Command::Symlink {
        path: b"link",
        target: file,
    };
    for command in all_on(b"link") {
        let is_own = matches!(
            command,
            Command::Unlink { .. }
                | Command::Rename { .. }
                | Command::Link {
                    existing: b"link",
                    ..
                }
                | Command::Chown { .. }
                | Command::Utimes { .. }
                | Command::Fileattr { .. }
        );
        ground.check(
            &[&OWN[..], &[link, command]].concat(),
            (!is_own).then_some(""),
        );
    }
}

#[test]
fn sources_that_were_not_given() {
    if !ready("sources_that_were_not_given") {
        return;
    }
    let mut ground = Ground::new();
    let copy = ground.target.join("copy");
    snapshot(&ground.live, &copy);
    for path in [ground.live.clone(), ground.received.clone(), copy] {
        let command = clone_of(b"own", uuid_of(&path), b"secret", 4096);
        ground.check(
            &[&OWN[..], &[command]].concat(),
            Some("not a snapshot of this dataset"),
        );
    }
    ground.check(
        &[
            &OWN[..],
            &[clone_of(b"own", US, b"../foreign/data/secret", 4096)],
        ]
        .concat(),
        Some("dot component"),
    );
}

#[test]
fn what_must_not_be_opened() {
    if !ready("what_must_not_be_opened") {
        return;
    }
    let mut ground = Ground::new();
    let nodes = [
        Command::Mkfifo { path: b"node" },
        Command::Mksock { path: b"node" },
        // The console: opening it for writing would have effects.
        Command::Mknod {
            path: b"node",
            mode: 0o20600,
            device: 0x501,
        },
        Command::Mkdir {
            path: b"node",
            inode: None,
        },
    ];
    for node in nodes {
        for command in [
            Command::Write {
                path: b"node",
                offset: 0,
                data: b"x",
            },
            Command::Truncate {
                path: b"node",
                size: 0,
            },
            clone_of(b"own", US, b"node", 4096),
        ] {
            ground.check(
                &[&OWN[..], &[node, command]].concat(),
                Some("not a regular file"),
            );
        }
    }
    ground.check(
        &[Command::Mknod {
            path: b"n",
            mode: 0o100644,
            device: 0,
        }],
        Some("not that of a device"),
    );
}

#[test]
fn rules_of_the_stream() {
    if !ready("rules_of_the_stream") {
        return;
    }
    let mut ground = Ground::new();
    ground.check(&OWN, None);
    ground.check(
        &[Command::Subvol {
            path: b"x",
            uuid: US,
            ctransid: 1,
        }],
        Some("second subvolume"),
    );
    ground.check(
        &[Command::UpdateExtent {
            path: b"own",
            offset: 0,
            len: 1,
        }],
        Some("no file data"),
    );
    ground.check(
        &[&OWN[..], &[clone_of(b"own", US, b"own", 4096)]].concat(),
        Some("onto itself"),
    );
    ground.check(
        &[&OWN[..], &[clone_of(b"own", US, b"own", 0)]].concat(),
        Some("clones nothing"),
    );
    ground.check(
        &[
            &OWN[..],
            &[Command::Fallocate {
                path: b"own",
                mode: 8,
                offset: 0,
                len: 1,
            }],
        ]
        .concat(),
        Some("mode 8"),
    );
    ground.check(
        &[
            &OWN[..],
            &[Command::Chown {
                path: b"own",
                uid: u64::from(u32::MAX),
                gid: 0,
            }],
        ]
        .concat(),
        Some("owner"),
    );
    let mut piece = Encoded {
        path: b"own",
        offset: 0,
        file_len: 4096,
        len: 4096,
        skip: 0,
        compression: 2,
        encryption: 1,
        data: b"x",
    };
    ground.check(
        &[&OWN[..], &[Command::EncodedWrite(piece)]].concat(),
        Some("encrypted"),
    );
    piece.encryption = 0;
    piece.len = 1 << 30;
    ground.check(
        &[&OWN[..], &[Command::EncodedWrite(piece)]].concat(),
        Some("too long"),
    );
}

/// The error of these bytes, which may be told when they are waited for.
fn refused(incoming: &mut dyn Incoming, bytes: &[u8]) -> anyhow::Error {
    let taken = incoming.write(bytes);
    taken.and_then(|()| incoming.checkpoint()).unwrap_err()
}

/// Before, and instead of, the subvolume's name.
#[test]
fn beginnings() {
    if !ready("beginnings") {
        return;
    }
    let ground = Ground::new();
    let case = |number: usize, commands: &[Command<'_>], words: &str| {
        let mut stream = Encoder::new(2);
        for command in commands {
            stream.put(command);
        }
        let place = place(ground.target.path(), &format!("first.{number}"));
        let mut incoming = open(&place, &identity(US, None, 2), None).unwrap();
        let error = refused(incoming.as_mut(), stream.bytes());
        assert!(error.to_string().contains(words), "{error:#}");
        assert!(incoming.write(b"x").is_err() && incoming.checkpoint().is_err());
    };
    let base = Uuid::from_u128(3);
    case(
        1,
        &[Command::Mkfile {
            path: b"a",
            inode: None,
        }],
        "before the subvolume is named",
    );
    case(
        2,
        &[Command::Subvol {
            path: b"a",
            uuid: base,
            ctransid: 1,
        }],
        "not of",
    );
    case(
        3,
        &[Command::Snapshot {
            path: b"a",
            uuid: US,
            ctransid: 1,
            base,
            base_ctransid: 1,
        }],
        "not of none",
    );
    let version_1 = Encoder::new(1);
    let place = place(ground.target.path(), "version");
    let mut incoming = open(&place, &identity(US, None, 2), None).unwrap();
    let error = refused(incoming.as_mut(), version_1.bytes());
    assert!(error.to_string().contains("version 1, not 2"), "{error:#}");
}
