//! What machines start from: the image that `scripts/vm-image` made, and a disk with the programs of this build.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The program under test.
pub const STANDIN: &str = env!("CARGO_BIN_EXE_standin");

pub struct Image(PathBuf);

impl Image {
    /// In the cache, if this machine can use one; else why not.
    pub fn find() -> Result<Image, String> {
        for program in [super::stage::qemu::QEMU, "qemu-img", "mke2fs"] {
            if Command::new(program).arg("--version").output().is_err()
                && Command::new(program).arg("-V").output().is_err()
            {
                return Err(format!("no {program} (scripts/setup vm installs it)"));
            }
        }
        let found = Command::new(format!("{ROOT}/scripts/vm-image"))
            .arg("--find")
            .output();
        let found = found.map_err(|error| format!("scripts/vm-image: {error}"))?;
        if !found.status.success() {
            return Err("no image (scripts/vm-image makes one)".to_owned());
        }
        let path = String::from_utf8_lossy(&found.stdout);
        Ok(Image(PathBuf::from(path.trim())))
    }

    pub fn base(&self) -> PathBuf {
        self.0.join("base.raw")
    }

    pub fn kernel(&self) -> PathBuf {
        self.0.join("vmlinuz")
    }

    /// What finds the root disk for the kernel.
    pub fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }
}

/// A disk with the program, its units as they are shipped, the agent, and test targets by name.
pub fn tools(disk: &Path, tests: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let put = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        // What debuggers want is most of a binary, and a machine that is emulated reads slowly.
        let stripped = Command::new("strip").arg("-o").arg(&to).arg(from).status();
        if !stripped.is_ok_and(|status| status.success()) {
            std::fs::copy(from, &to).unwrap();
        }
    };
    put(&std::env::current_exe().unwrap(), "vm");
    put(Path::new(STANDIN), "standin");
    for name in tests {
        put(&test_program(name), name);
    }
    if let Some(before) = before() {
        put(&before, "standin-before");
    }
    for unit in [
        "standin.service",
        "standin-run@.service",
        "standin-run@.timer",
    ] {
        std::fs::copy(format!("{ROOT}/scripts/{unit}"), dir.path().join(unit)).unwrap();
    }
    let mut command = Command::new("mke2fs");
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-E",
        "root_owner=0:0",
        "-d",
    ]);
    let made = command
        .arg(dir.path())
        .arg(disk)
        .arg("256M")
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// A program of an older version, where a person put one.
pub fn before() -> Option<PathBuf> {
    let cache = std::env::var_os("STANDIN_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from("/var/cache/standin"));
    let program = cache.join("vm/before/standin");
    program.exists().then_some(program)
}

/// The program of a test target of this build; built first where it is not.
fn test_program(name: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args([
            "test",
            "--no-run",
            "--quiet",
            "--message-format=json",
            // As this one was built: else everything is built once more.
            "--features",
            "vm",
            "--test",
            name,
        ])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let text = String::from_utf8_lossy(&built.stdout);
    let artifacts = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = artifacts.filter(|value| value["target"]["name"] == *name);
    let program = programs.find_map(|value| value["executable"].as_str().map(PathBuf::from));
    program.unwrap_or_else(|| panic!("cargo built no {name}"))
}
