//! Every command with its attributes missing, doubled, too long, too short, out of order, and with unknown ones; commands
//! that do not exist; lengths at their extremes. Judged by the parser's word: what is wrong, in which command, at which byte.

use standin::fs::FsError;
use standin::fs::btrfs::stream::{
    COMMAND_HEADER_BYTES, Command, Encoder, HEADER_BYTES, Kind, Parser, attr, command_bytes_max,
};

use super::support::commands::{commands, put_checksums_right};

type Attrs = Vec<(u16, Vec<u8>)>;

/// What a command is made of.
fn taken_apart(version: u32, command: &Command<'_>) -> Attrs {
    let mut stream = Encoder::new(version);
    stream.put(command);
    let mut payload = &stream.bytes()[HEADER_BYTES + COMMAND_HEADER_BYTES..];
    let mut attrs = Attrs::new();
    while let Some((number, rest)) = payload.split_first_chunk::<2>() {
        let number = u16::from_le_bytes(*number);
        let (value, rest) = match rest.split_first_chunk::<2>() {
            Some((length, rest)) if number != attr::DATA || version < 2 => {
                rest.split_at(usize::from(u16::from_le_bytes(*length)))
            }
            _ => (rest, &[][..]),
        };
        attrs.push((number, value.to_vec()));
        payload = rest;
    }
    attrs
}

/// `words` is the reason it is refused for, none: it is accepted.
#[track_caller]
fn check(version: u32, kind: Kind, attrs: &Attrs, words: Option<&str>) {
    let mut stream = Encoder::new(version);
    // A good command before it, so that its offset is not that of the stream's first.
    stream.put(&Command::Mkfifo { path: b"before" });
    let offset = stream.bytes().len() as u64;
    let borrowed: Vec<(u16, &[u8])> = attrs.iter().map(|(n, v)| (*n, v.as_slice())).collect();
    stream.raw(kind as u16, &borrowed);
    let told = refusal(stream.bytes());
    match (told, words) {
        (None, None) => {}
        (Some((at, command, why)), Some(words)) => {
            assert_eq!((at, command.as_str()), (offset, kind.name()), "{why}");
            assert!(
                why.contains(words),
                "{kind:?} {attrs:?}: {why}, not: {words}"
            );
        }
        (told, words) => panic!("{kind:?} {attrs:?}: {told:?}, not {words:?}"),
    }
}

/// Offset, command and reason; none when all of it is read.
fn refusal(mut bytes: &[u8]) -> Option<(u64, String, String)> {
    let mut parser = Parser::new();
    while !bytes.is_empty() {
        match parser.next(bytes) {
            Ok(taken) => bytes = &bytes[taken.used..],
            Err(FsError::BadStream {
                offset,
                command,
                why,
            }) => return Some((offset, command, why)),
            Err(error) => panic!("{error}"),
        }
    }
    None
}

fn needs(kind: Kind) -> u32 {
    match kind {
        Kind::Fallocate | Kind::Fileattr | Kind::EncodedWrite => 2,
        Kind::EnableVerity => 3,
        _ => 1,
    }
}

/// Those a stream may leave out.
fn is_optional(number: u16) -> bool {
    matches!(number, attr::INO | attr::COMPRESSION | attr::ENCRYPTION)
}

fn is_bytes(number: u16) -> bool {
    matches!(
        number,
        attr::PATH
            | attr::PATH_TO
            | attr::PATH_LINK
            | attr::CLONE_PATH
            | attr::XATTR_NAME
            | attr::XATTR_DATA
            | attr::DATA
    )
}

/// Attributes a kernel writes that no reader needs.
fn is_unread(kind: Kind, number: u16) -> bool {
    kind == Kind::Utimes && number == attr::OTIME
}

fn each(mut case: impl FnMut(u32, Kind, &Attrs)) {
    for version in 1..=3 {
        for command in commands() {
            if command != Command::End && needs(command.kind()) <= version {
                case(version, command.kind(), &taken_apart(version, &command));
            }
        }
    }
}

#[test]
fn every_attribute_missing() {
    each(|version, kind, attrs| {
        for at in 0..attrs.len() {
            let mut less = attrs.clone();
            let (number, _) = less.remove(at);
            let words = format!("attribute {number} is missing");
            let optional = is_optional(number) || is_unread(kind, number);
            check(version, kind, &less, (!optional).then_some(&words));
        }
        check(version, kind, &Attrs::new(), Some("is missing"));
    });
}

#[test]
fn every_attribute_doubled() {
    each(|version, kind, attrs| {
        for (number, value) in attrs {
            // Data without a length swallow what follows: its second one must come first.
            if *number == attr::DATA && version >= 2 {
                continue;
            }
            let mut more = attrs.clone();
            more.insert(0, (*number, value.clone()));
            let words = format!("attribute {number} is there twice");
            check(version, kind, &more, Some(&words));
        }
    });
}

#[test]
fn every_attribute_of_another_size() {
    each(|version, kind, attrs| {
        for at in 0..attrs.len() {
            let number = attrs[at].0;
            if is_bytes(number) {
                continue;
            }
            let whole = attrs[at].1.clone();
            for size in [0, whole.len() - 1, whole.len() + 1, 4096] {
                let mut other = attrs.clone();
                other[at].1.resize(size, 0);
                check(
                    version,
                    kind,
                    &other,
                    Some(&format!("attribute {number} has {size} bytes")),
                );
            }
        }
    });
}

#[test]
fn paths_and_names_too_long() {
    each(|version, kind, attrs| {
        for at in 0..attrs.len() {
            let number = attrs[at].0;
            let most = match number {
                attr::PATH | attr::PATH_TO | attr::PATH_LINK | attr::CLONE_PATH => 4095,
                attr::XATTR_NAME => 255,
                _ => continue,
            };
            for (size, fits) in [(most, true), (most + 1, false), (60_000, false)] {
                let mut other = attrs.clone();
                other[at].1 = vec![b'x'; size];
                let words = format!("attribute {number} has {size} bytes");
                check(version, kind, &other, (!fits).then_some(&words));
            }
        }
    });
}

#[test]
fn any_order_and_unknown_attributes() {
    each(|version, kind, attrs| {
        let mut turned = attrs.clone();
        turned.reverse();
        let data_first = version >= 2 && attrs.iter().any(|(number, _)| *number == attr::DATA);
        check(version, kind, &turned, data_first.then_some("is missing"));
        let mut more = attrs.clone();
        more.insert(0, (999, vec![7; 100]));
        check(version, kind, &more, None);
        more[0].0 = 0;
        check(version, kind, &more, Some("attribute number 0"));
        // One of another command is known, and not asked for.
        more[0] = (attr::VERITY_SALT, vec![1]);
        check(version, kind, &more, None);
    });
}

#[test]
fn commands_that_do_not_exist() {
    for version in 1..=3 {
        for number in [0, 27, 28, 255, 256, u16::MAX] {
            let mut stream = Encoder::new(version);
            stream.framed(number, b"");
            let (offset, command, why) = refusal(stream.bytes()).unwrap();
            assert_eq!((offset, command), (17, format!("number {number}")));
            assert!(why.contains("is not known"), "{why}");
        }
        for command in commands() {
            if needs(command.kind()) > version {
                let attrs = taken_apart(version, &command);
                check(
                    version,
                    command.kind(),
                    &attrs,
                    Some("does not exist in version"),
                );
            }
        }
    }
}

#[test]
fn lengths_at_their_extremes() {
    for version in 1..=3 {
        let most = command_bytes_max(version);
        for payload in [
            most - COMMAND_HEADER_BYTES + 1,
            1 << 24,
            0x7fff_ffff,
            0xffff_ffff,
        ] {
            let mut stream = Encoder::new(version).into_bytes();
            stream.extend_from_slice(&(payload as u32).to_le_bytes());
            stream.extend_from_slice(&[3, 0, 0, 0, 0, 0]);
            let (offset, command, why) = refusal(&stream).unwrap();
            assert_eq!((offset, command.as_str()), (17, "mkfile"));
            assert!(why.contains("beyond the bound"), "{why}");
        }
        // The inner length says more than there is.
        for length in [1, 2, 0xff, 0xffff] {
            let mut stream = Encoder::new(version);
            stream.framed(
                Kind::Unlink as u16,
                &[15, 0, length as u8, (length >> 8) as u8],
            );
            let (_, _, why) = refusal(stream.bytes()).unwrap();
            assert!(why.contains("longer than the command"), "{why}");
        }
        for cut in 1..4 {
            let mut stream = Encoder::new(version);
            stream.framed(Kind::Unlink as u16, &[15, 0, 0, 0][..cut]);
            assert!(refusal(stream.bytes()).is_some());
        }
    }
    let mut damaged = Encoder::new(2);
    damaged.put(&Command::Unlink { path: b"a" });
    let mut damaged = damaged.into_bytes();
    *damaged.last_mut().unwrap() ^= 1;
    let (offset, _, why) = refusal(&damaged).unwrap();
    assert_eq!((offset, why.as_str()), (17, "checksum does not match"));
    put_checksums_right(&mut damaged);
    assert!(refusal(&damaged).is_none());
}

/// Offsets and lengths whose sum is beyond what a file can have.
#[test]
fn sizes_beyond_any_file() {
    for version in [1, 2] {
        for command in commands() {
            let kind = command.kind();
            if needs(kind) > version {
                continue;
            }
            for (at, (number, _)) in taken_apart(version, &command).iter().enumerate() {
                let is_place = matches!(
                    *number,
                    attr::FILE_OFFSET | attr::SIZE | attr::CLONE_OFFSET | attr::CLONE_LEN
                );
                if !is_place {
                    continue;
                }
                for value in [1 << 63, u64::MAX] {
                    let mut attrs = taken_apart(version, &command);
                    attrs[at].1 = u64::to_le_bytes(value).to_vec();
                    check(version, kind, &attrs, Some("beyond the largest file"));
                }
            }
        }
    }
}
