//! The server's own programs: mariadb-dump and mariadb, or mysqldump and mysql.
//!
//! Promise: they find their login in a file that is only in memory, never in arguments or the environment. What one of them
//! reads or writes goes through a pipe of this process, so that it ends when this process does, or when the value that stands
//! for it is dropped.
//!
//! It deliberately does not know what is dumped.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, Mode};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::session::USER_DEFAULT;
use crate::error::{Code, Failure};
use crate::host::command;
use crate::host::dump::secret;
use crate::logic::dump::{Address, Server};

/// Longest row that is dumped and loaded: the most that servers know.
const PACKET: &str = "--max-allowed-packet=1G";

/// What is kept of what a program says, in bytes, and shown of it, in lines: the end.
const SAID_BYTES_MAX: usize = 16 << 10;
const LINES_SHOWN: usize = 20;

/// A program by the names it may have; the first that is there.
pub fn find(names: &[&str]) -> Result<PathBuf> {
    names
        .iter()
        .find_map(|name| command::find(name))
        .ok_or_else(|| {
            let what = format!("find the program {}", names.join(" or "));
            let hint = "install mariadb-client, or MySQL's own client programs";
            Failure::new(Code::NotFound, what).hint(hint).into()
        })
}

/// Whether a program is MariaDB's, which has options of its own, whatever its name.
pub async fn is_maria(program: &Path) -> Result<bool> {
    let mut asking = Command::new(program);
    asking.env_clear().arg("--version").stdin(Stdio::null());
    let output = asking.kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("MariaDB"))
}

/// An option file in memory, for as long as this lives.
pub struct Login {
    memory: File,
}

impl Login {
    pub fn new(server: &Server) -> Result<Login> {
        let writing = "pass the login to the server's program";
        let memory =
            rustix::fs::memfd_create("standin-login", MemfdFlags::CLOEXEC).context(writing)?;
        // Programs ignore an option file that everybody may write.
        rustix::fs::fchmod(&memory, Mode::RUSR | Mode::WUSR).context(writing)?;
        let mut memory = File::from(memory);
        memory
            .write_all(text(server)?.as_bytes())
            .context(writing)?;
        Ok(Login { memory })
    }

    /// The first argument of a program. It opens the file anew, by this process: no other child inherits it.
    fn argument(&self) -> String {
        let own = std::process::id();
        format!("--defaults-file=/proc/{own}/fd/{}", self.memory.as_raw_fd())
    }
}

fn text(server: &Server) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(8 << 10));
    let mut line = |key: &str, word: &str| {
        text.push_str(key);
        text.push_str("=\"");
        for c in word.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c => text.push(c),
            }
        }
        text.push_str("\"\n");
    };
    line("user", server.user.as_deref().unwrap_or(USER_DEFAULT));
    if let Some(password) = &server.password {
        line("password", &secret::read(password)?);
    }
    match &server.address {
        Address::Socket(path) => line("socket", &path.to_string_lossy()),
        Address::Tcp(host, port) => {
            line("host", host);
            line("port", &port.to_string());
            line("protocol", "tcp");
        }
    }
    text.insert_str(0, "[client]\n");
    Ok(text)
}

/// A program under way. Dropping it kills the program.
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts one; `input` and `output` are its ends of pipes.
    pub fn start(
        program: &Path,
        login: &Login,
        arguments: &[String],
        input: Stdio,
        output: Stdio,
    ) -> Result<Running> {
        let name = program.display().to_string();
        let mut starting = Command::new(program);
        starting.arg(login.argument()).arg(PACKET).args(arguments);
        starting
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/");
        starting.stdin(input).stdout(output).stderr(Stdio::piped());
        starting.kill_on_drop(true);
        let child = starting.spawn().with_context(|| format!("run {name}"))?;
        Ok(Running { name, child })
    }

    /// Waits for its end; fails with what it said where that was not a good one.
    pub async fn end(&mut self) -> Result<()> {
        let errors = self.child.stderr.take();
        let (said, status) = tokio::join!(tail(errors), self.child.wait());
        let status = status.with_context(|| format!("wait for {}", self.name))?;
        match status.success() {
            true => Ok(()),
            false => Err(self.failure(status, &said)),
        }
    }

    fn failure(&self, status: ExitStatus, said: &[u8]) -> anyhow::Error {
        let said = command::harmless(said);
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let end = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("; ");
        let what = format!("run {} to a good end: {status}; it said: {end}", self.name);
        let failure = Failure::new(Code::Failed, what);
        match hint(&said) {
            Some(hint) => failure.hint(hint).into(),
            None => failure.into(),
        }
    }
}

/// What an admin does about what a program says.
fn hint(said: &str) -> Option<&'static str> {
    let knows = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if knows(&["1045", "1698", "Access denied for user"]) {
        Some("check the account's password and privileges")
    } else if knows(&[
        "Can't connect",
        "2002",
        "2003",
        "Lost connection",
        "gone away",
    ]) {
        Some("is the server running (systemctl status mariadb)? Look into its log")
    } else if knows(&[
        "doesn't exist when using LOCK TABLES",
        "Table definition has changed",
    ]) {
        Some("a table was changed meanwhile; the next point tries again")
    } else if knows(&["references invalid table", "1356"]) {
        Some("a view names what is gone: drop or repair it")
    } else {
        None
    }
}

/// The end of what a program says, read until it closes.
async fn tail(from: Option<tokio::process::ChildStderr>) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4096]);
    let Some(mut from) = from else { return kept };
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * SAID_BYTES_MAX {
            kept.drain(..kept.len() - SAID_BYTES_MAX);
        }
    }
    kept
}
