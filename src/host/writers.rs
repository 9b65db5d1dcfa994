//! Who could still write into a live copy: processes with files of it open for writing or mapped shared and writable, loop
//! devices and swap areas that lie on it.
//!
//! Promise: a process is left out only when it was looked at or has ended; what cannot be looked at is an error, so that an
//! empty list is a proof. Other mount namespaces, deleted files and descriptors that were opened before the subvolume was
//! moved are all seen: files are compared by device number, never by path. Nothing is changed here.
//!
//! On btrfs each subvolume has a device number of its own, which stat(2) tells and /proc/PID/maps does not (it shows the
//! filesystem's): mappings are therefore followed through /proc/PID/map_files.
//!
//! Not seen: processes of an outer pid namespace where the daemon itself runs in an inner one, and process 1 of a container;
//! descriptors on their way through a socket; mappings of a process whose main thread has ended; a kernel's NFS server. A directory that is somebody's working directory is no writer.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::thread::CapabilitySet;

use super::command::harmless;

/// Most of /etc/passwd that is read, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

/// Bit of a descriptor's link in /proc that says "open for writing" (proc_pid_fd(5)).
const OWNER_WRITES: u32 = 0o200;

/// How a file is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    Open,
    Mapped,
    /// The backing file of a loop device.
    Loop,
    Swap,
}

/// Somebody who may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// None where it is the kernel (loop, swap).
    pub pid: Option<u32>,
    /// Name of the program, or of the device.
    pub command: String,
    pub user: String,
    pub path: PathBuf,
    pub hold: Hold,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = harmless(self.path.as_os_str().as_bytes()).replace('\n', " ");
        write!(f, "{}", self.command)?;
        if let Some(pid) = self.pid {
            write!(f, " (pid {pid}, user {})", self.user)?;
        }
        match self.hold {
            Hold::Open => write!(f, " has {path} open for writing"),
            Hold::Mapped => write!(f, " has {path} mapped for writing"),
            Hold::Loop => write!(f, " is a loop device over {path}"),
            Hold::Swap => write!(f, " swaps to {path}"),
        }
    }
}

/// A device number: major and minor.
type Device = (u32, u32);

/// Everybody who may write into the subvolume (or filesystem) at `live`, one entry for each file held. None where nothing
/// is at `live`.
pub fn writers(live: &Path) -> Result<Vec<Writer>> {
    let device = match device_of(live) {
        Ok(device) => device,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", live.display())),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list /proc")? {
        let entry = entry.context("list /proc")?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid {
            process(pid, device, &mut found).with_context(|| format!("look at process {pid}"))?;
        }
    }
    found.extend(loops(device, live));
    found.extend(swaps(device)?);
    Ok(found)
}

/// As stat(2) of it tells; never asks a server of a network filesystem, which may be gone.
fn device_of(path: &Path) -> rustix::io::Result<Device> {
    let facts = rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    Ok((facts.stx_dev_major, facts.stx_dev_minor))
}

fn process(pid: u32, device: Device, found: &mut Vec<Writer>) -> Result<()> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    if is_keeper(pid, &dir)? {
        return Ok(());
    }
    let mut held: BTreeMap<(PathBuf, Hold), ()> = BTreeMap::new();
    let mut seen = descriptors(&dir, device, &mut held)?;
    mappings(&dir, device, &mut held)?;
    if seen == 0 {
        // A main thread that has ended hides the descriptors of the others.
        let tasks = gone_is_none(std::fs::read_dir(dir.join("task")))?;
        for task in tasks.into_iter().flatten() {
            let Some(task) = gone_is_none(task)? else {
                continue;
            };
            seen += descriptors(&task.path(), device, &mut held)?;
            mappings(&task.path(), device, &mut held)?;
            if seen > 0 {
                break;
            }
        }
    }
    if held.is_empty() {
        return Ok(());
    }
    let (command, user) = (name_of(&dir), user_of(&dir));
    found.extend(held.into_keys().map(|(path, hold)| Writer {
        pid: Some(pid),
        command: command.clone(),
        user: user.clone(),
        path,
        hold,
    }));
    Ok(())
}

/// Whether it is the keeper of a container, which belongs to the machine outside and cannot be looked at whatever our rights
/// are. Any other process that cannot be looked at could be a writer.
fn is_keeper(pid: u32, dir: &Path) -> Result<bool> {
    let denied = match std::fs::metadata(dir.join("ns/user")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => error,
        _ => return Ok(false),
    };
    let ours = rustix::thread::capabilities(None).context("see what this process may do")?;
    match pid == 1 && ours.effective.contains(CapabilitySet::SYS_PTRACE) {
        true => Ok(true),
        false => Err(denied).context(AS_ROOT),
    }
}

/// What is missing where a process of this machine cannot be looked at.
const AS_ROOT: &str = "see what it has open (root may, with CAP_SYS_PTRACE and CAP_SYS_ADMIN)";

/// None where the process has ended meanwhile.
fn gone_is_none<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error).context(AS_ROOT),
        Err(error) => Err(error).context("see what it has open"),
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    let gone = [rustix::io::Errno::NOENT, rustix::io::Errno::SRCH];
    let code = error.raw_os_error();
    gone.iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// Looks through the descriptors; how many there are.
fn descriptors(
    dir: &Path,
    device: Device,
    held: &mut BTreeMap<(PathBuf, Hold), ()>,
) -> Result<usize> {
    let Some(entries) = gone_is_none(std::fs::read_dir(dir.join("fd")))? else {
        return Ok(0);
    };
    let mut seen = 0;
    for entry in entries {
        let Some(entry) = gone_is_none(entry)? else {
            break;
        };
        seen += 1;
        if let Some(path) = written(&entry.path(), device)? {
            held.insert((path, Hold::Open), ());
        }
    }
    Ok(seen)
}

/// The file behind a link of fd or map_files, if it may be written through it and lies on the device.
fn written(link: &Path, device: Device) -> Result<Option<PathBuf>> {
    let Some(facts) = gone_is_none(std::fs::symlink_metadata(link))? else {
        return Ok(None);
    };
    if facts.mode() & OWNER_WRITES == 0 {
        return Ok(None);
    }
    match device_of(link) {
        Ok(on) if on == device => {}
        Ok(_) => return Ok(None),
        Err(error) => {
            // Closed meanwhile, or a file that is not on any disk and cannot be asked.
            let _closed = gone_is_none::<()>(Err(error.into()))?;
            return Ok(None);
        }
    }
    gone_is_none(std::fs::read_link(link))
}

fn mappings(dir: &Path, device: Device, held: &mut BTreeMap<(PathBuf, Hold), ()>) -> Result<()> {
    // /proc/PID/task/TID has maps and no map_files: those of the process serve.
    let files = match dir.join("map_files") {
        files if files.exists() => files,
        _ => match dir.ancestors().nth(2) {
            Some(process) => process.join("map_files"),
            None => return Ok(()),
        },
    };
    let Some(maps) = gone_is_none(std::fs::read(dir.join("maps")))? else {
        return Ok(());
    };
    for range in maps.split(|b| *b == b'\n').filter_map(shared_file) {
        if let Some(path) = written(&files.join(OsStr::from_bytes(range)), device)? {
            held.insert((path, Hold::Mapped), ());
        }
    }
    Ok(())
}

/// The address range of a line of maps (proc_pid_maps(5)) that maps a file shared. Whether it is writable at this moment does
/// not matter: mprotect(2) makes it so where the file was opened for writing, which the link of map_files tells.
fn shared_file(line: &[u8]) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
    let (range, rights) = (fields.next()?, fields.next()?);
    let inode = fields.nth(2)?;
    (rights.get(3) == Some(&b's') && inode != b"0").then_some(range)
}

fn name_of(dir: &Path) -> String {
    let name = std::fs::read(dir.join("comm")).unwrap_or_default();
    match harmless(&name).replace('\n', " ") {
        name if name.is_empty() => "a process that has just ended".to_owned(),
        name => name,
    }
}

/// The effective user of a process, by name where it has one.
fn user_of(dir: &Path) -> String {
    let status = std::fs::read(dir.join("status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let Some(uid) = uids.and_then(|uids| uids.split_whitespace().nth(1)) else {
        return "unknown".to_owned();
    };
    named(uid).unwrap_or_else(|| uid.to_owned())
}

fn named(uid: &str) -> Option<String> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = std::fs::File::open("/etc/passwd").ok()?;
    file.take(PASSWD_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// Writable loop devices whose backing file lies on the device. The kernel names the file by its path (sysfs-block-loop).
fn loops(device: Device, live: &Path) -> Vec<Writer> {
    let blocks = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    let found = blocks.filter_map(|block| {
        let dir = block.path();
        let file = std::fs::read(dir.join("loop/backing_file")).ok()?;
        let file = file.strip_suffix(b"\n").unwrap_or(&file);
        let read_only = std::fs::read(dir.join("ro")).unwrap_or_default();
        let path = PathBuf::from(OsStr::from_bytes(file));
        let here = match device_of(&path) {
            Ok(on) => on == device,
            // Deleted, or of another namespace: its name is all there is.
            Err(_) => path.starts_with(live),
        };
        (here && read_only != b"1\n").then(|| Writer {
            pid: None,
            command: block.file_name().to_string_lossy().into_owned(),
            user: "root".to_owned(),
            path,
            hold: Hold::Loop,
        })
    });
    found.collect()
}

fn swaps(device: Device) -> Result<Vec<Writer>> {
    let text = match std::fs::read("/proc/swaps") {
        Ok(text) => text,
        // A kernel without swap.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("read /proc/swaps: {error}"),
    };
    let paths = text.split(|b| *b == b'\n').filter_map(swap_file);
    let here = paths.filter(|path| device_of(path) == Ok(device));
    Ok(here
        .map(|path| Writer {
            pid: None,
            command: "the kernel".to_owned(),
            user: "root".to_owned(),
            path,
            hold: Hold::Swap,
        })
        .collect())
}

/// The path of a line of /proc/swaps that is a file. Blanks in it are written as octal digits.
fn swap_file(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line
        .split(|b| b.is_ascii_whitespace())
        .filter(|f| !f.is_empty());
    let (path, kind) = (fields.next()?, fields.next()?);
    (kind == b"file").then(|| PathBuf::from(super::mounts::unescape(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let check = |line: &str, range: Option<&str>| {
            assert_eq!(
                shared_file(line.as_bytes()),
                range.map(str::as_bytes),
                "{line}"
            );
        };
        check(
            "7f00-7f10 rw-s 00000000 00:2a 261      /srv/a b",
            Some("7f00-7f10"),
        );
        check(
            "7f00-7f10 r--s 00000000 00:2a 261      /srv/a",
            Some("7f00-7f10"),
        );
        check("7f00-7f10 rw-p 00000000 00:2a 261      /srv/a", None);
        check("7f00-7f10 rw-s 00000000 00:01 0", None);
        check("", None);
    }

    #[test]
    fn lines_of_swaps() {
        let check = |line: &str, path: Option<&str>| {
            assert_eq!(
                swap_file(line.as_bytes()),
                path.map(PathBuf::from),
                "{line}"
            );
        };
        check("/srv/s\\040w  file\t1 0 -2", Some("/srv/s w"));
        check("/dev/sda2 partition 1 0 -2", None);
        check("Filename\tType\tSize", None);
    }

    #[test]
    fn how_it_reads() {
        let writer = |pid, hold| Writer {
            pid,
            command: "nginx".to_owned(),
            user: "www-data".to_owned(),
            path: "/srv/www/\x1blog".into(),
            hold,
        };
        let check = |pid, hold, text: &str| assert_eq!(writer(pid, hold).to_string(), text);
        let text = "nginx (pid 412, user www-data) has /srv/www/ log open for writing";
        check(Some(412), Hold::Open, text);
        check(
            None,
            Hold::Loop,
            "nginx is a loop device over /srv/www/ log",
        );
    }
}
