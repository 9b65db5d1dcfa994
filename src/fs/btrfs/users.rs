//! Which processes use the subvolume that is mounted at a path, for people who are told that it is busy.
//!
//! Promise: reads /proc only; what cannot be looked at, or ends meanwhile, is left out: without CAP_SYS_PTRACE the processes of
//! other users are. A subvolume has a device number of
//! its own, which is what is compared. It deliberately does not know why anybody asks.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// Most processes named.
const NAMED_MAX: usize = 8;

/// Who uses it, as the end of a sentence: ` by nginx (812), bash (99)`; empty where nobody is found.
pub fn of(path: &Path) -> String {
    let Some(device) = device(path) else {
        return String::new();
    };
    let mut users: Vec<String> = processes()
        .into_iter()
        .filter(|(_, dir)| uses(dir, device))
        .map(|(pid, dir)| format!("{} ({pid})", name(&dir)))
        .collect();
    let more = users.len().saturating_sub(NAMED_MAX);
    users.truncate(NAMED_MAX);
    if users.is_empty() {
        return String::new();
    }
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" by {}{more}", users.join(", "))
}

fn processes() -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}

fn uses(process: &Path, device: (u32, u32)) -> bool {
    let links = ["cwd", "root", "exe"].map(|name| process.join(name));
    let open = ["fd", "map_files"].into_iter().flat_map(|name| {
        let entries = std::fs::read_dir(process.join(name)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    });
    links
        .into_iter()
        .chain(open)
        .any(|link| self::device(&link) == Some(device))
}

/// The device number of what is at `path`, without asking a server that may be away.
fn device(path: &Path) -> Option<(u32, u32)> {
    let found = rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

fn name(process: &Path) -> String {
    let bytes = std::fs::read(process.join("comm")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end()
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_where_it_is() {
        let here = std::env::current_dir().unwrap();
        let me = std::process::id();
        let own = PathBuf::from(format!("/proc/{me}"));
        assert!(uses(&own, device(&here).unwrap()));
        assert!(!uses(&own, (0, 0)));
        assert!(processes().iter().any(|(pid, _)| *pid == me));
        assert_eq!(of(Path::new("/no/such")), "");
        assert!(!name(&own).is_empty());
    }
}
