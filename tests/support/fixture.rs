//! A btrfs filesystem in a sparse file, mounted for the life of a value.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let image = image.map_or_else(|| dir.path().join("image"), Path::to_owned);
        let path = dir.path().join("mount");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(size)
            .unwrap();
        std::fs::create_dir(&path).unwrap();
        run("mkfs.btrfs", ["-q".as_ref(), image.as_os_str()]);
        run(
            "mount",
            [
                "-o".as_ref(),
                OsStr::new(&format!("loop,{options}")),
                image.as_os_str(),
                path.as_os_str(),
            ],
        );
        Loop {
            path,
            image,
            _dir: dir,
        }
    }

    /// The file that holds it.
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
