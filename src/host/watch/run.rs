//! Commands whose output is watched.
//!
//! Promise: it ends within its limit, with everything it started, and no more than a bound of what it says is heard. It has
//! nothing to read, no environment but the one below, and the rights of the user it was given.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::host::command::{Group, find};
use crate::host::random;
use crate::host::user::User;
use crate::logic::units::exact_duration;

/// As that of hooks.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most that a command may say, in bytes.
const SAID_BYTES_MAX: usize = 1 << 20;

/// What is still on its way when a command has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What a command said, and how it ended.
pub struct Ran {
    pub status: ExitStatus,
    pub said: Vec<u8>,
}

impl Ran {
    /// What it said; with a line on how it ended, unless it ended well.
    pub fn with_status(mut self) -> Vec<u8> {
        if !self.status.success() {
            let line = format!("({})\n", self.status);
            self.said.extend_from_slice(line.as_bytes());
        }
        self.said
    }
}

/// Runs a command to its end. An error reads after "could not".
pub async fn run(argv: &[String], user: Option<User>, limit: Duration) -> Result<Ran, String> {
    let (program, arguments) = argv.split_first().ok_or("run a command of no words")?;
    let not_run = |why: String| format!("run {program}: {why}");
    let file =
        find(program).ok_or_else(|| not_run("no such program that can be executed".to_owned()))?;
    let token = random::number().map_err(|error| not_run(format!("{error:#}")))?;
    let token = ("STANDIN_RUN", format!("{token:016x}"));
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (read, write) = pipe.map_err(|error| not_run(error.to_string()))?;
    let again = write
        .try_clone()
        .map_err(|error| not_run(error.to_string()))?;
    let mut command = tokio::process::Command::new(file);
    command.args(arguments).current_dir("/").env_clear();
    command
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env(token.0, &token.1);
    command.stdin(Stdio::null()).stdout(write).stderr(again);
    command.process_group(0).kill_on_drop(true);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = command
        .spawn()
        .map_err(|error| not_run(error.to_string()))?;
    // It holds the other end open.
    drop(command);
    let group = Group {
        session: None,
        mark: Some(token),
    };
    let end = Instant::now() + limit;
    let heard = timeout_at(end, hear(&mut child, read)).await;
    let whole = matches!(&heard, Ok(Ok((_, true))));
    if !whole {
        let _ = child.start_kill();
        group.end().await;
        let _ = child.wait().await;
    }
    match heard {
        Ok(Ok((ran, _))) => Ok(ran),
        Ok(Err(why)) => Err(not_run(why)),
        Err(_) => Err(format!(
            "run {program} within {}: it was stopped",
            exact_duration(limit)
        )),
    }
}

/// What it says until it ends; whether nobody holds the pipe any more.
async fn hear(child: &mut tokio::process::Child, read: OwnedFd) -> Result<(Ran, bool), String> {
    let mut pipe = Receiver::from_owned_fd(read).map_err(|error| error.to_string())?;
    let mut said = Vec::new();
    let mut closed = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|error| error.to_string())?,
            read = pipe.read_buf(&mut said), if !closed => {
                closed = read.map_err(|error| error.to_string())? == 0;
            }
        }
        bounded(&said)?;
    };
    while !closed {
        match timeout(LAST_WORDS, pipe.read_buf(&mut said)).await {
            Ok(read) => closed = read.map_err(|error| error.to_string())? == 0,
            // What it left running holds the pipe.
            Err(_) => break,
        }
        bounded(&said)?;
    }
    Ok((Ran { status, said }, closed))
}

fn bounded(said: &[u8]) -> Result<(), String> {
    match said.len() > SAID_BYTES_MAX {
        true => Err(format!("it says more than {} KiB", SAID_BYTES_MAX >> 10)),
        false => Ok(()),
    }
}
