//! What is mounted where in this mount namespace: a reader of /proc/self/mountinfo (proc_pid_mountinfo(5)).
//!
//! Promise: a line that cannot be understood is skipped, never misread; paths are bytes, with the kernel's octal escapes
//! undone. It deliberately does not know btrfs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::Result;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// `major:minor` of the filesystem, equal for all mounts of one filesystem.
    pub device: String,
    /// What of the filesystem is mounted: a path from its top.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Options of this mount (`rw`, `noatime` ...).
    pub options: Vec<String>,
    pub kind: String,
    pub source: PathBuf,
    /// Options of the whole filesystem (`ro`, `compress=zstd:3` ...).
    pub super_options: Vec<String>,
}

/// All mounts this process sees, in mounting order.
pub fn read() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// The mount that shows `path` (absolute, without symbolic links): the longest mount point above it, the latest of equals.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
}

/// Mounts below `path`, `path` itself not counted.
pub fn below<'a>(mounts: &'a [Mount], path: &'a Path) -> impl Iterator<Item = &'a Mount> {
    mounts
        .iter()
        .filter(move |mount| mount.point != path && mount.point.starts_with(path))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; the optional fields before the
/// dash are any number.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let id = word(fields.next()?)?.parse().ok()?;
    let _parent = fields.next()?;
    let device = word(fields.next()?)?;
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = words(fields.next()?)?;
    fields.by_ref().find(|field| *field == b"-")?;
    Some(Mount {
        id,
        device,
        root,
        point,
        options,
        kind: word(fields.next()?)?,
        source: path(fields.next()?),
        super_options: fields.next().and_then(words).unwrap_or_default(),
    })
}

fn words(field: &[u8]) -> Option<Vec<String>> {
    Some(word(field)?.split(',').map(str::to_owned).collect())
}

fn word(field: &[u8]) -> Option<String> {
    (!field.is_empty())
        .then(|| String::from_utf8(field.to_vec()).ok())
        .flatten()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes `\ooo`; a backslash that begins no such escape stands for itself.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"21 1 0:30 / / rw,relatime shared:1 - btrfs /dev/vda2 rw,subvolid=256\n\
30 21 0:30 /@web /srv/web rw,noatime - btrfs /dev/vda2 rw,subvol=/@web\n\
31 21 0:44 / /srv rw shared:4 master:2 unbindable - ext4 /dev/vdb rw\n\
32 31 0:30 /a\\040b /srv/with\\040space\\134x rw - btrfs /dev/vda2 rw\n\
33 21 0:50 / /srv/web rw - tmpfs tmpfs rw\n\
garbage\n\
34 21 0:50 / /broken rw shared:1\n\
x 21 0:50 / /bad rw - tmpfs tmpfs rw\n";

    fn check(path: &str, id: u64) {
        let mounts = parse(SAMPLE);
        assert_eq!(
            holding(&mounts, Path::new(path)).map(|mount| mount.id),
            Some(id),
            "{path}"
        );
    }

    #[test]
    fn longest_and_latest_mount_point_wins() {
        check("/", 21);
        check("/etc/fstab", 21);
        check("/srv", 31);
        check("/srv/webs", 31);
        check("/srv/web", 33);
        check("/srv/web/deep/er", 33);
        check("/srv/with space\\x/f", 32);
    }

    #[test]
    fn fields_are_read_whatever_the_optional_ones() {
        let mounts = parse(SAMPLE);
        assert_eq!(
            mounts.len(),
            5,
            "lines that cannot be understood are skipped"
        );
        assert_eq!(mounts[3].root, Path::new("/a b"));
        assert_eq!(mounts[1].options, ["rw", "noatime"]);
        assert_eq!(mounts[2].kind, "ext4");
        assert_eq!(mounts[2].source, Path::new("/dev/vdb"));
        let below: Vec<u64> = super::below(&mounts, Path::new("/srv"))
            .map(|m| m.id)
            .collect();
        assert_eq!(below, [30, 32, 33]);
    }

    #[test]
    fn escapes() {
        for (field, plain) in [
            (r"a\040b", "a b"),
            (r"\134", r"\"),
            (r"a\", r"a\"),
            (r"\04", r"\04"),
            (r"\777", r"\777"),
            ("", ""),
        ] {
            assert_eq!(unescape(field.as_bytes()), plain.as_bytes(), "{field}");
        }
    }
}
