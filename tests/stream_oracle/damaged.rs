//! Streams with something wrong: both parsers accept or refuse each command alike, but for the differences named here.
//!
//! Ours refuses more, on purpose: what a kernel never writes is not guessed at. Theirs refuses what ours has no need of.

use btrfs_stream::{StreamError, StreamReader};
use standin::fs::FsError;
use standin::fs::btrfs::stream::{Encoder, Parser, Piece};

use super::{ours, theirs};
use crate::mutate::Mutator;
use crate::support::commands::{commands, put_checksums_right};

const CASES: usize = 40_000;

/// Reasons for which ours alone refuses a command.
const OURS_ALONE: [&str; 8] = [
    // Theirs takes the last one.
    "is there twice",
    // Theirs takes the first bytes, and any size for what is optional.
    "instead of",
    // Theirs knows no bounds: paths, names, ...
    "attribute ",
    "name of an extended attribute",
    "is not a time",
    "beyond the largest file",
    "not inside the decompressed data",
    // Theirs takes every command in every version.
    "does not exist in version",
];

/// Whether theirs alone refuses a command for this reason.
fn theirs_alone(error: &StreamError) -> bool {
    match error {
        // Names need not be text, and of fs-verity nothing but its presence is read.
        StreamError::InvalidAttribute { name, detail } => {
            detail.contains("UTF-8") || name.starts_with("verity")
        }
        StreamError::MissingAttribute(name) => name.starts_with("verity"),
        // Attributes of a newer kernel have a length and are skipped.
        StreamError::InvalidTlvType(number) => *number > 36,
        _ => false,
    }
}

/// What became of a stream that both read.
#[derive(Debug, Default)]
struct Tally {
    commands: usize,
    refused_by_both: usize,
    ours_alone: usize,
    theirs_alone: usize,
}

fn check(stream: &[u8], tally: &mut Tally) {
    let mut parser = Parser::new();
    let Ok(mut reader) = StreamReader::new(stream) else {
        let refused = parser.next(stream);
        assert!(
            !matches!(refused, Ok(taken) if taken.step.is_some()),
            "{stream:?}"
        );
        return;
    };
    let mut rest = stream;
    while !rest.is_empty() {
        let taken = match parser.next(rest) {
            Ok(taken) => taken,
            Err(FsError::BadStream { why, .. }) => {
                // Theirs makes room for the stated length, up to 4 GiB, before it looks; and it goes on after the end.
                if why.contains("beyond the bound") || why.contains("bytes follow the end") {
                    return;
                }
                match reader.next_command() {
                    Err(_) => tally.refused_by_both += 1,
                    Ok(their) => {
                        tally.ours_alone += 1;
                        let named = OURS_ALONE.iter().any(|words| why.contains(words));
                        let missing = why.contains("is missing");
                        assert!(named && !missing, "{why}, but theirs reads {their:?}");
                    }
                }
                return;
            }
            Err(error) => panic!("{error}"),
        };
        rest = &rest[taken.used..];
        match taken.step.map(|step| step.piece) {
            Some(Piece::Header { version }) => assert_eq!(version, reader.version()),
            Some(Piece::Command(command)) => match reader.next_command() {
                Ok(Some(their)) => {
                    tally.commands += 1;
                    // Theirs takes a zero byte off the end of a name.
                    let (our, their) = (ours(&command), theirs(&their));
                    assert!(our == their || our.contains('\0'), "{our}\n{their}");
                }
                Ok(None) => panic!("theirs ended before {command:?}"),
                Err(error) => {
                    tally.theirs_alone += 1;
                    assert!(theirs_alone(&error), "{error}, but ours reads {command:?}");
                    return;
                }
            },
            // Cut inside a unit.
            None => assert!(reader.next_command().is_err()),
        }
    }
}

#[test]
fn damaged_streams() {
    let mut seeds = Vec::new();
    for version in 1..=3 {
        let mut all = Encoder::new(version);
        for command in commands() {
            all.put(&command);
            let mut one = Encoder::new(version);
            one.put(&command).put(&command);
            seeds.push(one.into_bytes());
        }
        seeds.push(all.into_bytes());
    }
    let mut mutator = Mutator::new(11, seeds);
    let mut tally = Tally::default();
    for case in 0..CASES {
        let mut stream = mutator.input();
        if case % 8 != 0 {
            put_checksums_right(&mut stream);
        }
        check(&stream, &mut tally);
    }
    println!("{CASES} streams: {tally:?}");
    let few = [tally.commands, tally.refused_by_both, tally.ours_alone];
    assert!(few.iter().all(|count| *count > CASES / 200), "{tally:?}");
}
