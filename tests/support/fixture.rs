//! A btrfs filesystem in a sparse file, mounted for the life of a value; or on a disk, where [`DISKS`] names some.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Block devices for tests to use and overwrite, with blanks between them: a variable that only a machine sets which is there
/// for tests (vm-tests/scenarios/contract.rs).
const DISKS: &str = "STANDIN_TEST_DISKS";

/// Whether this machine can run a test that needs root, loop devices and btrfs. Says so when it cannot.
pub fn ready(test: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !Path::new("/dev/loop-control").exists() {
        "no loop devices"
    } else if !Path::new("/sys/fs/btrfs").exists() {
        "the kernel has no btrfs"
    } else if Command::new("btrfs").arg("version").output().is_err() {
        "no btrfs-progs"
    } else {
        return true;
    };
    println!("SKIPPED {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} skipped in CI: {why}"
    );
    false
}

/// Runs a program to its end; panics with its output when it fails. Gives its standard output.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Vec<u8> {
    let args: Vec<_> = args
        .into_iter()
        .map(|arg| arg.as_ref().to_owned())
        .collect();
    let output = Command::new(program).args(&args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A mounted filesystem of its own.
pub struct Loop {
    path: PathBuf,
    image: PathBuf,
    _dir: tempfile::TempDir,
    /// Where it is a disk: locked, so that nobody else takes it.
    _disk: Option<std::fs::File>,
}

impl Loop {
    /// `size` in bytes; sparse.
    pub fn new(size: u64) -> Loop {
        Loop::with_options(size, "noatime")
    }

    /// With mount options.
    pub fn with_options(size: u64, options: &str) -> Loop {
        Loop::in_image(None, size, options)
    }

    /// In a file of the caller's, where one is given.
    pub fn in_image(image: Option<&Path>, size: u64, options: &str) -> Loop {
        let dir = tempfile::Builder::new()
            .prefix("standin-")
            .tempdir()
            .unwrap();
        let disk = image.is_none().then(free_disk).flatten();
        let (image, disk) = match disk {
            Some((device, lock)) => (device, Some(lock)),
            None => (
                image.map_or_else(|| dir.path().join("image"), Path::to_owned),
                None,
            ),
        };
        let path = dir.path().join("mount");
        if disk.is_none() {
            let file = std::fs::File::create(&image).unwrap();
            file.set_len(size).unwrap();
        }
        std::fs::create_dir(&path).unwrap();
        let size = size.to_string();
        let made: &[&str] = match disk {
            Some(_) => &["-q", "-f", "-b", &size],
            None => &["-q"],
        };
        let made = made.iter().map(OsStr::new);
        run("mkfs.btrfs", made.chain([image.as_os_str()]));
        let loops = if disk.is_none() { "loop," } else { "" };
        run(
            "mount",
            [
                "-o".as_ref(),
                OsStr::new(&format!("{loops}{options}")),
                image.as_os_str(),
                path.as_os_str(),
            ],
        );
        Loop {
            path,
            image,
            _dir: dir,
            _disk: disk,
        }
    }

    /// Unmounts it, lets `meanwhile` do something to the image, and mounts it again. For images in files.
    pub fn mounted_anew(self, meanwhile: impl FnOnce(&Path)) -> Loop {
        assert!(self._disk.is_none(), "a disk is nobody's to replace");
        run("umount", [&self.path]);
        meanwhile(&self.image);
        let noatime = OsStr::new("loop,noatime");
        run(
            "mount",
            [
                "-o".as_ref(),
                noatime,
                self.image.as_os_str(),
                self.path.as_os_str(),
            ],
        );
        self
    }

    /// The file or device that holds it.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The mount point: the filesystem's top level.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A disk of those that are for tests which nobody uses at the moment.
fn free_disk() -> Option<(PathBuf, std::fs::File)> {
    use rustix::fs::{FlockOperation, flock};
    let disks = std::env::var(DISKS).ok()?;
    disks.split_whitespace().find_map(|disk| {
        let file = std::fs::File::open(disk).unwrap();
        let lock = flock(&file, FlockOperation::NonBlockingLockExclusive);
        lock.is_ok().then(|| (PathBuf::from(disk), file))
    })
}

impl Drop for Loop {
    fn drop(&mut self) {
        for flag in ["--", "-l"] {
            let status = Command::new("umount").arg(flag).arg(&self.path).output();
            if status.is_ok_and(|output| output.status.success()) {
                return;
            }
        }
    }
}
