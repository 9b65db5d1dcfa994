//! The parser against streams that are right, wrong in every way it knows, and rubbish.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::fs::FsError;

const MOMENT: Moment = Moment {
    seconds: -5,
    nanoseconds: 999_999_999,
};

/// One of each that `version` knows.
fn commands(version: u32, data: &[u8]) -> Vec<Command<'_>> {
    let path = b"dir/\xff name";
    let uuid = Uuid::from_u128(7);
    let base = Uuid::from_u128(8);
    let mut all = vec![
        Command::Subvol {
            path,
            uuid,
            ctransid: 9,
        },
        Command::Snapshot {
            path,
            uuid,
            ctransid: 9,
            base,
            base_ctransid: 3,
        },
        Command::Mkfile {
            path,
            inode: Some(257),
        },
        Command::Mkdir { path, inode: None },
        Command::Mknod {
            path,
            mode: 0o20644,
            device: 259,
        },
        Command::Mkfifo { path },
        Command::Mksock { path },
        Command::Symlink {
            path,
            target: b"../x",
        },
        Command::Rename {
            from: path,
            to: b"y",
        },
        Command::Link {
            path,
            existing: b"z",
        },
        Command::Unlink { path },
        Command::Rmdir { path },
    ];
    all.extend(facts_and_data(version, data));
    all
}

fn facts_and_data(version: u32, data: &[u8]) -> Vec<Command<'_>> {
    let path = b"dir/\xff name";
    let uuid = Uuid::from_u128(7);
    let mut all = vec![
        Command::SetXattr {
            path,
            name: b"user.a",
            value: b"",
        },
        Command::RemoveXattr {
            path,
            name: b"user.a",
        },
        Command::Write {
            path,
            offset: 4096,
            data,
        },
        Command::Clone(Cloned {
            path,
            offset: 1,
            len: 2,
            source: uuid,
            source_ctransid: 4,
            source_path: b"",
            source_offset: 5,
        }),
        Command::Truncate { path, size: 77 },
        Command::Chmod { path, mode: 0o4755 },
        Command::Chown {
            path: b"",
            uid: 1,
            gid: 2,
        },
        Command::Utimes {
            path,
            accessed: MOMENT,
            modified: MOMENT,
            changed: MOMENT,
        },
        Command::UpdateExtent {
            path,
            offset: 6,
            len: 7,
        },
    ];
    if version >= 2 {
        all.push(Command::Fallocate {
            path,
            mode: 3,
            offset: 8,
            len: 9,
        });
        all.push(Command::Fileattr { path, flags: 64 });
        all.push(Command::EncodedWrite(Encoded {
            path,
            offset: 0,
            file_len: 100,
            len: 4096,
            skip: 10,
            compression: 2,
            encryption: 0,
            data,
        }));
    }
    all.push(Command::End);
    all
}

/// What comes out, as text, and the bytes it came from; the last entry is the refusal, if any.
fn parsed(bytes: &[u8], cut: usize) -> Vec<String> {
    let mut parser = Parser::new();
    let mut seen = Vec::new();
    let mut raw = Vec::new();
    for mut piece in bytes.chunks(cut) {
        while !piece.is_empty() {
            match parser.next(piece) {
                Ok(taken) => {
                    if let Some(step) = taken.step {
                        raw.extend_from_slice(step.raw);
                        seen.push(format!("{:?}", step.piece));
                    }
                    piece = &piece[taken.used..];
                }
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
            assert!(parser.held_bytes() <= command_bytes_max(3));
        }
    }
    assert!(bytes.starts_with(&raw));
    assert_eq!(parser.offset(), raw.len() as u64);
    assert_eq!(parser.is_inside_unit(), raw.len() < bytes.len());
    seen
}

fn check_round_trip(version: u32, data: &[u8]) {
    let commands = commands(version, data);
    let mut stream = Encoder::new(version);
    let mut expected = vec![format!("{:?}", Piece::Header { version })];
    for command in &commands {
        stream.put(command);
        expected.push(format!("{:?}", Piece::Command(*command)));
    }
    let bytes = stream.into_bytes();
    for cut in [1, 2, 9, 10, 11, 17, 100, 1000, bytes.len()] {
        assert_eq!(
            parsed(&bytes, cut),
            expected,
            "version {version}, cut {cut}"
        );
    }
}

#[test]
fn what_is_written_is_read() {
    for version in 1..=3 {
        check_round_trip(version, b"some data");
        check_round_trip(version, b"");
        check_round_trip(version, &[9; 40_000]);
    }
    // Longer than any attribute with a length of its own.
    check_round_trip(2, &[9; 140_000]);
}

#[test]
fn every_command_has_its_number() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of(*kind as u16), Some(*kind));
    }
    assert_eq!(Kind::ALL.len(), 26);
    let known = commands(2, b"");
    for kind in Kind::ALL {
        let is_known = known.iter().any(|command| command.kind() == *kind);
        assert_eq!(is_known, *kind != Kind::EnableVerity, "{kind:?}");
    }
}

/// The stream is refused, at this offset and with these words, however it is cut.
fn check_refused(bytes: &[u8], at: u64, words: &str) {
    for cut in [1, 7, bytes.len()] {
        let last = parsed(bytes, cut).pop().unwrap_or_default();
        let place = format!("refused at byte {at},");
        assert!(
            last.contains(words) && last.contains(&place),
            "{words}: {last}"
        );
    }
}

/// One command with these attributes is refused.
fn check_command(version: u32, number: u16, attrs: &[(u16, &[u8])], words: &str) {
    let mut stream = Encoder::new(version);
    stream.raw(number, attrs);
    check_refused(stream.bytes(), 17, words);
}

#[test]
fn headers() {
    check_refused(b"btrfs_stream\0\x01\0\0\0", 0, "not a btrfs send stream");
    check_refused(&[0; 100], 0, "not a btrfs send stream");
    check_refused(Encoder::new(0).bytes(), 0, "version 0 is not known");
    check_refused(Encoder::new(4).bytes(), 0, "version 4 is not known");
}

#[test]
fn frames() {
    let mut stream = Encoder::new(1);
    stream.put(&Command::Mkfile {
        path: b"a",
        inode: None,
    });
    let good = stream.bytes().to_vec();
    for bit in 0..8 * (good.len() - 17) {
        let mut bad = good.clone();
        bad[17 + bit / 8] ^= 1 << (bit % 8);
        // A changed length may ask for more bytes than there are; then nothing comes out.
        let seen = parsed(&bad, bad.len());
        assert_eq!(
            seen.iter().filter(|line| line.contains("Mkfile")).count(),
            0
        );
    }
    let long = |version: u32, length: u32| {
        let mut bytes = Encoder::new(version).into_bytes();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[15, 0, 0, 0, 0, 0]);
        bytes
    };
    check_refused(&long(1, (64 << 10) - 9), 17, "beyond the bound");
    check_refused(&long(1, u32::MAX), 17, "beyond the bound");
    check_refused(&long(2, 300 << 10), 17, "beyond the bound");
    check_refused(&long(3, u32::MAX), 17, "beyond the bound");
    let mut stream = Encoder::new(1);
    stream.put(&Command::End).put(&Command::End);
    check_refused(stream.bytes(), 27, "bytes follow the end");
}

#[test]
fn attributes() {
    let framed = |version: u32, number: u16, payload: &[u8]| {
        let mut stream = Encoder::new(version);
        stream.framed(number, payload);
        stream.into_bytes()
    };
    check_command(2, 0, &[], "command number 0 is not known");
    check_command(2, 27, &[], "command number 27 is not known");
    check_command(1, 23, &[], "does not exist in version 1");
    check_command(2, 26, &[], "does not exist in version 2");
    check_command(
        1,
        3,
        &[(15, b"a"), (15, b"b")],
        "attribute 15 is there twice",
    );
    check_command(1, 3, &[(15, b"a"), (0, b"b")], "attribute number 0");
    check_command(1, 3, &[(15, &[b'a'; 4096])], "attribute 15 has 4096 bytes");
    check_command(
        1,
        17,
        &[(15, b"a"), (4, b"1234567")],
        "has 7 bytes instead of 8",
    );
    check_command(
        1,
        14,
        &[(15, b"a"), (13, b"")],
        "name of an extended attribute",
    );
    check_command(
        1,
        14,
        &[(15, b"a"), (13, b"a\0b")],
        "name of an extended attribute",
    );
    check_command(
        1,
        14,
        &[(15, b"a"), (13, &[b'a'; 256])],
        "attribute 13 has 256 bytes",
    );
    check_refused(&framed(1, 3, &[15]), 17, "cut short");
    check_refused(&framed(1, 3, &[15, 0, 2]), 17, "cut short");
    check_refused(
        &framed(1, 3, &[15, 0, 2, 0, b'a']),
        17,
        "longer than the command",
    );
}

#[test]
fn attributes_out_of_range() {
    let late = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0xca, 0x9a, 0x3b];
    check_command(
        1,
        20,
        &[(15, b"a"), (9, &[0; 12]), (10, &[0; 12]), (11, &late)],
        "not a time",
    );
    let (far, one) = (i64::MAX as u64, 1u64);
    check_command(
        1,
        15,
        &[(15, b"a"), (18, &far.to_le_bytes()), (19, b"x")],
        "beyond the largest file",
    );
    check_command(
        1,
        22,
        &[
            (15, b"a"),
            (18, &one.to_le_bytes()),
            (4, &u64::MAX.to_le_bytes()),
        ],
        "beyond the largest file",
    );
}

#[test]
fn missing_attributes() {
    for command in commands(2, b"data") {
        let mut whole = Encoder::new(2);
        whole.put(&command);
        let attrs = whole.bytes()[27..].to_vec();
        let mut cut = Vec::new();
        let mut rest = &attrs[..];
        while !rest.is_empty() {
            let number = u16::from_le_bytes([rest[0], rest[1]]);
            let end = match number {
                attr::DATA => rest.len(),
                _ => 4 + usize::from(u16::from_le_bytes([rest[2], rest[3]])),
            };
            cut.push((number, &rest[..end]));
            rest = &rest[end..];
        }
        for leave_out in 0..cut.len() {
            let number = cut[leave_out].0;
            if [attr::INO, attr::COMPRESSION, attr::ENCRYPTION].contains(&number) {
                continue;
            }
            let payload: Vec<u8> = (0..cut.len())
                .filter(|i| *i != leave_out)
                .flat_map(|i| cut[i].1.to_vec())
                .collect();
            let mut stream = Encoder::new(2);
            stream.framed(command.kind() as u16, &payload);
            check_refused(
                stream.bytes(),
                17,
                &format!("attribute {number} is missing"),
            );
        }
    }
}

#[test]
fn order_and_unknown_attributes_do_not_matter() {
    let mut stream = Encoder::new(2);
    stream.raw(
        17,
        &[
            (99, b"later"),
            (4, &8u64.to_le_bytes()),
            (3, b"?"),
            (15, b"p"),
        ],
    );
    let command = Piece::Command(Command::Truncate {
        path: b"p",
        size: 8,
    });
    assert_eq!(parsed(stream.bytes(), 5)[1], format!("{command:?}"));
}

#[test]
fn goes_on_where_it_stopped() {
    let mut stream = Encoder::new(2);
    stream.put(&Command::Mkfile {
        path: b"a",
        inode: None,
    });
    let offset = stream.bytes().len();
    stream.put(&Command::End);
    let mut parser = Parser::resume(2, offset as u64, false);
    let taken = parser.next(&stream.bytes()[offset..]).unwrap();
    assert_eq!(
        taken.step.map(|step| step.piece),
        Some(Piece::Command(Command::End))
    );
    assert!(parser.has_ended());
    let mut ended = Parser::resume(2, 1000, true);
    assert!(matches!(
        ended.next(b"x"),
        Err(FsError::BadStream { offset: 1000, .. })
    ));
}

proptest! {
    #[test]
    fn rubbish_is_no_danger(version in 0u32..5, bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 1usize..500) {
        parsed(&bytes, cut);
        let mut stream = Encoder::new(version).into_bytes();
        stream.extend(bytes);
        parsed(&stream, cut);
    }

    /// Framed and checksummed, so that the attributes are looked at.
    #[test]
    fn framed_rubbish_is_no_danger(
        version in 1u32..4,
        units in proptest::collection::vec((0u16..28, proptest::collection::vec((0u16..37, proptest::collection::vec(any::<u8>(), 0..20)), 0..10)), 0..20),
        cut in 1usize..500,
    ) {
        let mut stream = Encoder::new(version);
        for (number, attrs) in &units {
            let attrs: Vec<(u16, &[u8])> = attrs.iter().map(|(number, value)| (*number, value.as_slice())).collect();
            stream.raw(*number, &attrs);
        }
        parsed(stream.bytes(), cut);
    }

    /// A right stream with a few bytes changed and its checksums put right.
    #[test]
    fn mutated_streams_are_no_danger(
        version in 1u32..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in 1usize..500,
    ) {
        let mut stream = Encoder::new(version);
        for command in commands(version, b"0123456789") {
            let mut one = Encoder::new(version);
            one.put(&command);
            let mut payload = one.bytes()[27..].to_vec();
            for (place, byte) in &changes {
                if !payload.is_empty() {
                    let place = place.index(payload.len());
                    payload[place] ^= byte;
                }
            }
            stream.framed(command.kind() as u16, &payload);
        }
        parsed(stream.bytes(), cut);
        let mut bytes = stream.into_bytes();
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] ^= byte;
        }
        parsed(&bytes, cut);
    }
}
