//! Decompresses pieces of file data that the kernel would not take as they are.
//!
//! Promise: no more than the stated length (at most 128 KiB) is allocated; data that does not decompress is refused.
//! Only zstd: streams hold compressed pieces only when the sender asked for them, and then zlib and lzo are rare.

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::fault::{Applied, refuse};
use crate::fs::btrfs::stream::Encoded;

/// BTRFS_ENCODED_IO_COMPRESSION_ZSTD
const ZSTD: u32 = 2;

/// The bytes of the file that the piece stands for.
pub(super) fn decoded(piece: &Encoded<'_>) -> Applied<Vec<u8>> {
    if piece.compression != ZSTD {
        return refuse(format!(
            "compression {} cannot be unpacked here; ask for a stream without compressed data",
            piece.compression
        ));
    }
    let (Ok(len), Ok(skip), Ok(file_len)) = (
        usize::try_from(piece.len),
        usize::try_from(piece.skip),
        usize::try_from(piece.file_len),
    ) else {
        return refuse("compressed piece is too long");
    };
    let Some(mut data) = unpack(piece.data, len) else {
        return refuse("compressed piece does not decompress");
    };
    // Shorter than stated means zeros at the end (linux/btrfs.h).
    data.resize(len, 0);
    data.truncate(skip + file_len);
    data.drain(..skip);
    Ok(data)
}

/// One frame; what follows it pads the piece to whole sectors. Longer than `len` is cut.
fn unpack(data: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new().ok()?;
    let mut output = Vec::with_capacity(len);
    let mut input = InBuffer::around(data);
    loop {
        let before = (input.pos(), output.len());
        let mut out = OutBuffer::around_pos(&mut output, before.1);
        let hint = decoder.run(&mut input, &mut out).ok()?;
        if hint == 0 || output.len() == len {
            return Some(output);
        }
        if (input.pos(), output.len()) == before {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(data: &[u8], len: u64, skip: u64, file_len: u64) -> Option<Vec<u8>> {
        decoded(&Encoded {
            path: b"f",
            offset: 0,
            file_len,
            len,
            skip,
            compression: ZSTD,
            encryption: 0,
            data,
        })
        .ok()
    }

    fn check(len: u64, skip: u64, file_len: u64, padding: usize) {
        let text: Vec<u8> = (0..10_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let mut packed = zstd::bulk::compress(&text, 3).unwrap();
        packed.resize(packed.len() + padding, 0);
        let mut expected = text.clone();
        expected.resize(text.len().max((skip + file_len) as usize), 0);
        let expected = expected[skip as usize..(skip + file_len) as usize].to_vec();
        assert_eq!(piece(&packed, len, skip, file_len), Some(expected));
    }

    #[test]
    fn pieces() {
        check(40_000, 0, 40_000, 0);
        check(40_000, 0, 40_000, 3000);
        check(40_960, 100, 40_860, 5);
        check(20_000, 4096, 15_000, 0);
    }

    #[test]
    fn rubbish() {
        assert_eq!(piece(b"not zstd at all", 4096, 0, 4096), None);
        assert_eq!(piece(b"", 4096, 0, 4096), None);
        let mut packed = zstd::bulk::compress(&[7; 100_000], 3).unwrap();
        packed.truncate(packed.len() / 2);
        assert_eq!(piece(&packed, 100_000, 0, 100_000), None);
    }
}
