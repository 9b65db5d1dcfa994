//! Real database servers of the distribution, on directories of a test: as their own users, on sockets, without network.
//!
//! Promise: a server ends with its value, and with the test process where that is killed. A machine without the server's
//! programs: the test says `SKIPPED`, and fails where CI is set.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub mod mariadb;
pub mod postgres;
pub mod redis;
pub mod sqlite;

/// A program, where distributions put them.
pub fn program(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    dirs.iter()
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|path| path.exists())
}

/// Whether all programs are here; says so, or fails in CI, where one is not.
pub fn programs(test: &str, names: &[&str]) -> bool {
    let Some(name) = names.iter().find(|name| program(name).is_none()) else {
        return true;
    };
    println!("SKIPPED {test}: no {name} (scripts/setup test installs it)");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} skipped in CI: no {name}"
    );
    false
}

/// A command that runs as a user, and is killed when the thread that starts it ends.
pub fn as_user(user: &str, name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--clear-groups"])
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program(name).unwrap())
        .stdin(Stdio::null());
    command
}

/// Kills the process when it is dropped.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        super::fixture::run("kill", ["-s", signal, &pid]);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
