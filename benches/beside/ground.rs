//! The filesystems, and what lies on them: the same bytes for the same seed, everywhere and every time.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::fixture::{Loop, run};
use crate::support::random::Random;

/// What is measured, in full or in small.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub file_bytes: u64,
    pub files: u64,
    pub overwrites: u64,
    /// Files added, deleted and renamed, each.
    pub changes: u64,
    pub roles: usize,
    pub points: usize,
    /// Text for the slow link, in bytes.
    pub slow_bytes: u64,
}

pub const FULL: Size = Size {
    file_bytes: 1 << 30,
    files: 100_000,
    overwrites: 20_000,
    changes: 1_000,
    roles: 100,
    points: 50,
    slow_bytes: 32 << 20,
};

pub const QUICK: Size = Size {
    file_bytes: 128 << 20,
    files: 10_000,
    overwrites: 2_000,
    changes: 100,
    roles: 10,
    points: 5,
    slow_bytes: 4 << 20,
};

/// Where images lie.
#[derive(Debug, Clone)]
pub struct Room {
    pub dir: PathBuf,
}

impl Room {
    /// A new filesystem in an image here.
    pub fn filesystem(&self, name: &str, bytes: u64, options: &str) -> Loop {
        let image = self.dir.join(format!("{name}.img"));
        let _ = fs::remove_file(&image);
        let mounted = Loop::in_image(Some(&image), bytes, options);
        // Gone with the mount: nothing stays when a run is ended in the middle.
        fs::remove_file(&image).unwrap();
        mounted
    }
}

/// Bytes that do not compress.
fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        data.extend_from_slice(&random.next().to_le_bytes());
    }
    data.truncate(bytes);
    data
}

/// Lines of a log of a web server: what a text of a server is like, about 5:1 for zstd.
fn text(random: &mut Random, bytes: usize) -> Vec<u8> {
    let words = [
        "index", "about", "style", "login", "images", "static", "orders", "article", "search",
        "feed", "contact", "archive",
    ];
    let agents = [
        "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
        "curl/7.88.1",
    ];
    let mut out = Vec::with_capacity(bytes + 256);
    let mut second = 0;
    while out.len() < bytes {
        second += random.below(3);
        let line = format!(
            "{}.{}.{}.{} - - [21/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET /{}/{}-{}.html HTTP/1.1\" {} {} \"-\" \"{}\"\n",
            random.below(223) + 1,
            random.below(256),
            random.below(256),
            random.below(256),
            second / 3600 % 24,
            second / 60 % 60,
            second % 60,
            words[random.below(words.len() as u64) as usize],
            words[random.below(words.len() as u64) as usize],
            random.below(5000),
            [200, 200, 200, 304, 404][random.below(5) as usize],
            random.below(60_000),
            agents[random.below(agents.len() as u64) as usize],
        );
        out.extend_from_slice(line.as_bytes());
    }
    out.truncate(bytes);
    out
}

pub fn subvolume(path: &Path) {
    run(
        "btrfs",
        ["subvolume".as_ref(), "create".as_ref(), path.as_os_str()],
    );
}

/// A writable copy of a subvolume: other inodes, so nothing of it is in memory.
pub fn copy(from: &Path, to: &Path) {
    run(
        "btrfs",
        [
            "subvolume".as_ref(),
            "snapshot".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}

/// Workload a: one file of random bytes.
pub fn one_file(top: &Path, size: &Size) {
    let mut random = Random::new(1);
    let mut file = fs::File::create(top.join("big")).unwrap();
    for _ in 0..size.file_bytes >> 20 {
        file.write_all(&noise(&mut random, 1 << 20)).unwrap();
    }
}

/// Workload c: blocks of that file written over.
pub fn overwrite(top: &Path, size: &Size, seed: u64) {
    let mut random = Random::new(seed);
    let file = fs::File::options()
        .write(true)
        .open(top.join("big"))
        .unwrap();
    let blocks = size.file_bytes >> 12;
    for _ in 0..size.overwrites {
        let at = random.below(blocks) << 12;
        file.write_all_at(&noise(&mut random, 4096), at).unwrap();
    }
}

fn room_of(number: u64) -> String {
    format!("d{:02}/s{:02}", number % 32, number / 32 % 32)
}

fn small(random: &mut Random) -> Vec<u8> {
    let bytes = 1024 + random.below(7168) as usize;
    let half = bytes / 2;
    let mut data = text(random, half);
    data.extend(noise(random, bytes - half));
    data
}

/// Workload b: many small files.
pub fn many_files(top: &Path, size: &Size) {
    let mut random = Random::new(2);
    for number in 0..1024 {
        fs::create_dir_all(top.join(room_of(number))).unwrap();
    }
    for number in 0..size.files {
        let path = top.join(room_of(number)).join(format!("file-{number:06}"));
        fs::write(path, small(&mut random)).unwrap();
    }
}

/// Workload d: of those, some deleted, some renamed, some new.
pub fn rearrange(top: &Path, size: &Size, seed: u64) {
    let mut random = Random::new(seed);
    let step = size.files / (2 * size.changes);
    for number in 0..size.changes {
        let (gone, moved) = (2 * number * step, (2 * number + 1) * step);
        let at = |number: u64| top.join(room_of(number)).join(format!("file-{number:06}"));
        fs::remove_file(at(gone)).unwrap();
        let to = top
            .join(room_of(random.below(1024)))
            .join(format!("moved-{number:05}"));
        fs::rename(at(moved), to).unwrap();
        let new = top
            .join(room_of(random.below(1024)))
            .join(format!("new-{number:05}"));
        fs::write(new, small(&mut random)).unwrap();
    }
}

/// Workload e: text, in files of 16 MiB at most.
pub fn much_text(top: &Path, bytes: u64) {
    let mut random = Random::new(3);
    let mut left = bytes;
    for number in 0.. {
        let part = left.min(16 << 20);
        if part == 0 {
            break;
        }
        fs::write(
            top.join(format!("log-{number:03}")),
            text(&mut random, part as usize),
        )
        .unwrap();
        left -= part;
    }
}

/// One block of one file is another.
pub fn touch(top: &Path, seed: u64) {
    let mut file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(top.join("touched"))
        .unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&noise(&mut Random::new(seed), 4096))
        .unwrap();
}

/// What a tree holds, independent of how it came there: every name with its type, mode, owner, size, time and content.
pub fn digest(top: &Path) -> String {
    let script = "cd \"$1\" && { find . -mindepth 1 -printf '%P %y %m %U %G %s %T@ %l\\n' | LC_ALL=C sort; \
                  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum";
    let out = run(
        "sh",
        [
            "-c".as_ref(),
            script.as_ref(),
            "sh".as_ref(),
            top.as_os_str(),
        ],
    );
    String::from_utf8(out).unwrap()
}
