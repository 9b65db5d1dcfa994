//! Filesystems of this machine, for `standin init`: what is mounted, which btrfs subvolumes and ZFS filesystems there are.
//!
//! Promise: the parsers are total: a line they do not understand is left out, bytes that are not UTF-8 survive. Nothing is
//! changed here, so a crash leaves nothing behind. It deliberately does not know which of them a person wants replicated.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the device; for btrfs a number of the whole filesystem's own.
    pub device: String,
    /// The directory inside the filesystem that is mounted; for btrfs, the subvolume's path from the top.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Kind of filesystem: `btrfs`, `zfs`, `ext4` ...
    pub kind: String,
    /// What is mounted: a device, a ZFS filesystem.
    pub source: OsString,
}

/// A ZFS filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZfsFilesystem {
    pub name: String,
    /// None where it has none (`legacy`, `none`).
    pub mountpoint: Option<PathBuf>,
}

/// Inode number of a btrfs subvolume's root (BTRFS_FIRST_FREE_OBJECTID, kernel: include/uapi/linux/btrfs_tree.h).
const SUBVOLUME_ROOT: u64 = 256;

/// The mount table of this process.
pub fn read() -> Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Parses mountinfo, proc_pid_mountinfo(5).
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let mut field = || fields.next();
    let (_id, _parent) = (field()?, field()?);
    let device = field()?;
    let (root, target) = (field()?, field()?);
    let _options = field()?;
    // Any number of optional fields, ended by a lone hyphen.
    while field()? != b"-" {}
    let (kind, source) = (field()?, field()?);
    Some(Mount {
        device: String::from_utf8(device.to_vec()).ok()?,
        root: unescape(root).into(),
        target: unescape(target).into(),
        kind: String::from_utf8(kind.to_vec()).ok()?,
        source: unescape(source),
    })
}

/// Blank, tab, newline and backslash are written as three octal digits.
pub(super) fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Paths of the btrfs subvolumes that are easily seen: those mounted, and those directly in a mounted one. By path, each
/// once. What cannot be looked at is left out.
pub fn subvolumes(mounts: &[Mount]) -> Vec<PathBuf> {
    // What is mounted on a child is judged as a mount, not as a child.
    let mounted: BTreeSet<&Path> = mounts.iter().map(|mount| mount.target.as_path()).collect();
    let mut found = BTreeSet::new();
    for mount in mounts.iter().filter(|mount| mount.kind == "btrfs") {
        if is_subvolume(&mount.target) {
            found.insert(mount.target.clone());
        }
        let children = std::fs::read_dir(&mount.target).into_iter().flatten();
        for child in children.flatten().map(|entry| entry.path()) {
            if !mounted.contains(child.as_path()) && is_subvolume(&child) {
                found.insert(child);
            }
        }
    }
    found.into_iter().collect()
}

fn is_subvolume(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|facts| facts.is_dir() && facts.ino() == SUBVOLUME_ROOT)
}

/// There while the module of OpenZFS is loaded, or is part of the kernel (zfs(4)).
const ZFS_MODULE: &str = "/sys/module/zfs";

/// The ZFS filesystems; none of them when the machine has no `zfs` program, or has no pool: what imports one loads the module,
/// and a question would load it too, which takes seconds and taints the kernel of a machine that has no use for it.
pub fn zfs_filesystems() -> Result<Vec<ZfsFilesystem>> {
    if !Path::new(ZFS_MODULE).exists() {
        return Ok(Vec::new());
    }
    const ARGUMENTS: [&str; 6] = ["list", "-H", "-o", "name,mountpoint", "-t", "filesystem"];
    let output = Command::new("zfs")
        .args(ARGUMENTS)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context("run zfs list")?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "zfs {}: {}: {}",
            ARGUMENTS.join(" "),
            output.status,
            said.trim()
        );
    }
    Ok(parse_zfs(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses `zfs list -H -o name,mountpoint`: one filesystem a line, a tab between the two.
pub fn parse_zfs(text: &str) -> Vec<ZfsFilesystem> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, mountpoint)| ZfsFilesystem {
            name: name.to_owned(),
            mountpoint: mountpoint.starts_with('/').then(|| mountpoint.into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    /// Each mount as `device root target kind source`.
    fn check(text: &[u8], expected: &[&str]) {
        let told: Vec<String> = parse(text)
            .iter()
            .map(|m| {
                let words = [
                    m.root.as_os_str(),
                    m.target.as_os_str(),
                    m.kind.as_ref(),
                    &m.source,
                ];
                let words = words.map(|word| String::from_utf8_lossy(word.as_bytes()).into_owned());
                format!("{} {}", m.device, words.join(" "))
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn lines_of_the_mount_table() {
        check(
            b"36 35 0:45 /@home /home rw,noatime shared:1 - btrfs /dev/sda2 rw,subvol=/@home\n",
            &["0:45 /@home /home btrfs /dev/sda2"],
        );
        check(
            b"36 35 98:0 / / rw - ext4 /dev/root rw\n",
            &["98:0 / / ext4 /dev/root"],
        );
        check(
            b"36 35 0:50 / /tank rw master:1 propagate_from:2 - zfs tank rw\n",
            &["0:50 / /tank zfs tank"],
        );
        check(
            br"36 35 0:45 /a\040b /c\134d\011e rw - btrfs none rw",
            &["0:45 /a b /c\\d\te btrfs none"],
        );
    }

    #[test]
    fn lines_of_nonsense_are_left_out() {
        check(b"", &[]);
        check(
            b"\n\n1 2 3\n36 35 0:45 / / rw shared:1\n36 35 0:45 / / rw - btrfs\n",
            &[],
        );
        check(
            br"36 35 0:45 /\9 /\04 rw - btrfs \ rw",
            &[r"0:45 /\9 /\04 btrfs \"],
        );
    }

    #[test]
    fn bytes_survive() {
        let mounts = parse(b"36 35 0:45 / /\xff rw - btrfs x rw");
        assert_eq!(mounts[0].target.as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn zfs_lines() {
        let told: Vec<String> = parse_zfs("tank\t/tank\ntank/a b\tlegacy\ntank/c\tnone\nrubbish\n")
            .iter()
            .map(|fs| format!("{} {:?}", fs.name, fs.mountpoint))
            .collect();
        assert_eq!(
            told,
            ["tank Some(\"/tank\")", "tank/a b None", "tank/c None"]
        );
    }

    #[test]
    fn this_machine_has_mounts() {
        let mounts = read().unwrap();
        assert!(
            mounts
                .iter()
                .any(|mount| mount.target == Path::new("/proc"))
        );
        assert!(subvolumes(&[]).is_empty());
    }
}
