//! Commands of the send stream to make trouble with.

use standin::fs::btrfs::stream::{
    COMMAND_HEADER_BYTES, Cloned, Command, Encoded, HEADER_BYTES, Kind, Moment,
};
use uuid::Uuid;

/// As far as the lengths make sense.
pub fn put_checksums_right(bytes: &mut [u8]) {
    let mut at = HEADER_BYTES;
    while let Some(head) = bytes.get(at..at + COMMAND_HEADER_BYTES) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let end = at
            .saturating_add(COMMAND_HEADER_BYTES)
            .saturating_add(length);
        if end > bytes.len() {
            return;
        }
        bytes[at + 6..at + COMMAND_HEADER_BYTES].fill(0);
        // CRC32C with seed 0 and no final inversion (the kernel's crc32c() called with 0).
        let crc = !crc32c::crc32c_append(!0, &bytes[at..end]);
        bytes[at + 6..at + COMMAND_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

/// Every command once.
pub fn commands() -> Vec<Command<'static>> {
    let moment = Moment {
        seconds: 1_700_000_000,
        nanoseconds: 5,
    };
    let (uuid, path) = (Uuid::from_u128(0x5555), &b"d/f"[..]);
    let piece = Encoded {
        path,
        offset: 4096,
        file_len: 4000,
        len: 8192,
        skip: 96,
        compression: 2,
        encryption: 0,
        data: b"packed",
    };
    let cloned = Cloned {
        path,
        offset: 0,
        len: 4096,
        source: uuid,
        source_ctransid: 7,
        source_path: b"g",
        source_offset: 8192,
    };
    #[rustfmt::skip]
    let commands = vec![
        Command::Subvol { path, uuid, ctransid: 9 },
        Command::Snapshot { path, uuid, ctransid: 9, base: uuid, base_ctransid: 3 },
        Command::Mkfile { path, inode: Some(257) },
        Command::Mkdir { path: b"d", inode: None },
        Command::Mknod { path, mode: 0o20600, device: 259 },
        Command::Mkfifo { path },
        Command::Mksock { path },
        Command::Symlink { path, target: b"../x" },
        Command::Rename { from: path, to: b"n" },
        Command::Link { path, existing: b"n" },
        Command::Unlink { path },
        Command::Rmdir { path },
        Command::SetXattr { path, name: b"user.a", value: b"v" },
        Command::RemoveXattr { path, name: b"user.a" },
        Command::Write { path, offset: 0, data: b"some file data" },
        Command::Clone(cloned),
        Command::Truncate { path, size: 5 },
        Command::Chmod { path, mode: 0o4755 },
        Command::Chown { path, uid: 1000, gid: 100 },
        Command::Utimes { path, accessed: moment, modified: moment, changed: moment },
        Command::UpdateExtent { path, offset: 0, len: 1 << 30 },
        Command::Fallocate { path, mode: 3, offset: 0, len: 4096 },
        Command::Fileattr { path, flags: 64 },
        Command::EncodedWrite(piece),
        Command::EnableVerity { path },
        Command::End,
    ];
    assert_eq!(commands.len(), Kind::ALL.len());
    commands
}
