//! The first record of a ZFS stream, read before any of it reaches `zfs receive`.
//!
//! `zfs receive` believes what a stream says of itself: a package (`send -R`, `-p`) may bring properties, further datasets and
//! deletions. Only a plain stream of one snapshot is taken, of the very guids that were offered.
//!
//! Format: `dmu_replay_record_t` with `drr_begin` (include/sys/zfs_ioctl.h of OpenZFS 2.1 to 2.3): type and payload length
//! (u32 each), magic, version info, creation time (u64 each), type and flags (u32 each), to-guid and from-guid (u64 each), then
//! the name; 312 bytes in all, in the byte order of the sender.
//!
//! Promise: pure; reads [`BYTES`] bytes, never more.

/// Length of the record.
pub const BYTES: usize = 312;

/// DMU_BACKUP_MAGIC
const MAGIC: u64 = 0x2_f5ba_cbac;
/// DMU_SUBSTREAM: one snapshot; the other kind is a package.
const SUBSTREAM: u64 = 1;
/// DMU_BACKUP_FEATURE_RESUMING, among the features (bits 2 to 31 of the version info).
const RESUMING: u64 = 1 << 20;
/// DMU_BACKUP_FEATURE_RAW
const RAW: u64 = 1 << 24;
/// DMU_BACKUP_FEATURE_REDACTED
const REDACTED: u64 = 1 << 21;
/// DMU_OST_ZFS
const FILESYSTEM: u32 = 2;
/// DRR_FLAG_CLONE: its base lay in another dataset at the source.
const CLONE: u32 = 1;

/// What a stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub to: u64,
    /// 0 for a full stream.
    pub from: u64,
    pub clone: bool,
    pub raw: bool,
    pub resuming: bool,
}

/// Reads it; the error is half a sentence about the stream.
pub fn read(record: &[u8; BYTES]) -> Result<Header, String> {
    let eight = |at: usize| -> [u8; 8] { std::array::from_fn(|i| record[at + i]) };
    let four = |at: usize| -> [u8; 4] { std::array::from_fn(|i| record[at + i]) };
    let little = match eight(8) {
        magic if u64::from_le_bytes(magic) == MAGIC => true,
        magic if u64::from_be_bytes(magic) == MAGIC => false,
        _ => return Err("is no ZFS stream".to_owned()),
    };
    let long = |at| match little {
        true => u64::from_le_bytes(eight(at)),
        false => u64::from_be_bytes(eight(at)),
    };
    let short = |at| match little {
        true => u32::from_le_bytes(four(at)),
        false => u32::from_be_bytes(four(at)),
    };
    let version = long(16);
    if short(0) != 0 || version & 3 != SUBSTREAM {
        return Err("is a package of streams (send -R or -p)".to_owned());
    }
    let features = (version >> 2) & 0x3fff_ffff;
    if features & REDACTED != 0 {
        return Err("is redacted".to_owned());
    }
    if short(32) != FILESYSTEM {
        return Err("is not of a filesystem".to_owned());
    }
    Ok(Header {
        to: long(40),
        from: long(48),
        clone: short(36) & CLONE != 0,
        raw: features & RAW != 0,
        resuming: features & RESUMING != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u64, features: u64, object: u32, flags: u32) -> [u8; BYTES] {
        let mut record = [0; BYTES];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(8, &MAGIC.to_le_bytes());
        put(16, &(kind | features << 2).to_le_bytes());
        put(32, &object.to_le_bytes());
        put(36, &flags.to_le_bytes());
        put(40, &7_u64.to_le_bytes());
        put(48, &5_u64.to_le_bytes());
        record
    }

    #[test]
    fn one_snapshot_only() {
        let header = read(&record(1, RAW, 2, 1)).unwrap();
        let expected = Header {
            to: 7,
            from: 5,
            clone: true,
            raw: true,
            resuming: false,
        };
        assert_eq!(header, expected);
        assert!(read(&record(1, RESUMING, 2, 0)).unwrap().resuming);
        for (record, why) in [
            (record(2, 0, 2, 0), "package"),
            (record(1, 0, 3, 0), "not of a filesystem"),
            ([0; BYTES], "no ZFS stream"),
        ] {
            assert!(read(&record).unwrap_err().contains(why), "{why}");
        }
        let mut other = record(1, 0, 2, 0);
        for at in [8, 16, 40, 48] {
            other[at..at + 8].reverse();
        }
        for at in [32, 36] {
            other[at..at + 4].reverse();
        }
        assert_eq!(read(&other).unwrap().to, 7);
    }
}
