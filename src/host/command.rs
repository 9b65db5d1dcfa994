//! Commands that an admin configured: hooks, and the start, stop and health of services that systemd does not know.
//!
//! Promise: a command runs in a session of its own with nothing to read, the environment below and no other, and what it says
//! is kept (the end of it) as harmless text. One that takes longer than its limit is told to stop (SIGTERM) and then killed,
//! with everything it started, also what left its session; whatever survives even that is named in the error. A command that
//! ends in time may leave processes behind: a service does.
//!
//! A crash of the daemon leaves the command running to its end; it holds nothing of the daemon, its output goes to memory or
//! to a file, not to a pipe that could break. What is started for good (a service) outlives the daemon by the same token.
//!
//! What a command started is known by its session and by a word in its environment that its children inherit; a process
//! that both left the session and cleared its environment is not found.
//!
//! It deliberately does not know what the commands are for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::time::Instant;

use crate::logic::name::{NodeName, RoleName};

/// Where programs are looked for, and PATH of every command.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is kept of a command's output, in bytes: its end.
const SAID_BYTES_MAX: usize = 64 << 10;

/// Output is cut when it has grown to this, in bytes.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Between two looks at a running command's output.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// From SIGTERM to SIGKILL; and how long the kernel may take to carry out the latter.
const GRACE: Duration = Duration::from_secs(3);

/// Lines of output that an error shows.
const LINES_SHOWN: usize = 12;

/// For whom a command runs; it finds this in its environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub role: RoleName,
    pub node: NodeName,
    /// The term's number; none before the role has one.
    pub term: Option<u64>,
    /// Directory for the output of services, made where it is missing.
    pub output: PathBuf,
}

/// One run of a command.
#[derive(Debug)]
pub struct Order<'a> {
    /// At least one word.
    pub argv: &'a [String],
    /// STANDIN_MOMENT.
    pub moment: &'a str,
    /// It and everything it started are stopped after this time.
    pub limit: Duration,
    /// Further words of the environment, inherited by what it starts.
    pub words: Vec<(&'static str, String)>,
    /// Where its output goes; none: to memory. A file is begun anew.
    pub output: Option<PathBuf>,
}

/// How a command failed. Texts read after "could not".
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("run {program}: {why}")]
    NotStarted { program: String, why: String },
    #[error("run {program} to a good end: {status}{}", shown(said))]
    Status {
        program: String,
        status: ExitStatus,
        said: String,
    },
    #[error("run {program} within {}: it was stopped{}{}", crate::logic::units::exact_duration(*limit), left(survivors), shown(said))]
    TooLong {
        program: String,
        limit: Duration,
        /// Processes that not even SIGKILL ended.
        survivors: Vec<u32>,
        said: String,
    },
}

fn shown(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let end = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    match end {
        [] => String::new(),
        [one] => format!("; it said: {one}"),
        more => format!("; the end of what it said:\n  {}", more.join("\n  ")),
    }
}

fn left(survivors: &[u32]) -> String {
    match survivors {
        [] => String::new(),
        pids => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            format!(", but not even SIGKILL ended pid {}", pids.join(", "))
        }
    }
}

/// The file of a program as a command finds it; none where there is none that can be executed.
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        let facts = std::fs::metadata(path);
        facts.is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(executable);
    }
    let mut places = PATH.split(':').map(|dir| Path::new(dir).join(program));
    places.find(executable)
}

/// Runs a command to its end; what it said.
pub async fn run(order: &Order<'_>, around: &Surroundings) -> Result<String, Failed> {
    let program = order.argv.first().map_or("", String::as_str).to_owned();
    let not_started = |why: String| Failed::NotStarted {
        program: program.clone(),
        why,
    };
    let output = Output::new(order.output.as_deref());
    let mut output = output.map_err(|e| not_started(format!("keep its output: {e}")))?;
    let number = super::random::number().map_err(|e| not_started(format!("{e:#}")))?;
    let token = ("STANDIN_RUN", format!("{number:016x}"));
    let mut child = spawn(order, around, &output, &token).map_err(not_started)?;
    let group = Group {
        session: child.id(),
        mark: Some(token),
    };
    let end = Instant::now() + order.limit;
    let status = loop {
        let look = (Instant::now() + LOOK_EVERY).min(end);
        tokio::select! {
            status = child.wait() => break Some(status),
            () = tokio::time::sleep_until(look) => output.cut(),
        }
        if Instant::now() >= end {
            break None;
        }
    };
    match status {
        Some(Ok(status)) if status.success() => Ok(output.said()),
        Some(Ok(status)) => Err(Failed::Status {
            program,
            status,
            said: output.said(),
        }),
        Some(Err(error)) => Err(not_started(format!("wait for its end: {error}"))),
        None => {
            let survivors = group.end().await;
            if survivors.is_empty() {
                // Killed a moment ago: reaped here.
                let _ = child.wait().await;
            }
            Err(Failed::TooLong {
                program,
                limit: order.limit,
                survivors,
                said: output.said(),
            })
        }
    }
}

/// Starts the command in a session of its own; why not.
fn spawn(
    order: &Order<'_>,
    around: &Surroundings,
    output: &Output,
    token: &(&'static str, String),
) -> Result<tokio::process::Child, String> {
    let (program, arguments) = order.argv.split_first().ok_or("it has no word")?;
    let file = find(program).ok_or_else(|| match program.contains('/') {
        true => "no such program that can be executed".to_owned(),
        false => format!("no such program that can be executed in {PATH}"),
    })?;
    let session = find("setsid").ok_or("the program setsid (package util-linux) is missing")?;
    let writers = output.writer().and_then(|one| Ok((one.try_clone()?, one)));
    let (out, err) = writers.map_err(|error| error.to_string())?;
    let mut command = tokio::process::Command::new(session);
    command.arg(file).args(arguments).current_dir("/");
    command.env_clear().envs(environment(order, around, token));
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(pid) = child.id().and_then(pid_of) {
        // The daemon runs at a lower priority than what it starts should.
        let _ = rustix::process::setpriority_process(Some(pid), 0);
    }
    Ok(child)
}

fn environment(
    order: &Order<'_>,
    around: &Surroundings,
    token: &(&'static str, String),
) -> Vec<(&'static str, OsString)> {
    let mut words = vec![
        ("PATH", OsString::from(PATH)),
        ("STANDIN_ROLE", around.role.as_str().into()),
        ("STANDIN_NODE", around.node.as_str().into()),
        ("STANDIN_MOMENT", order.moment.into()),
        (token.0, token.1.as_str().into()),
    ];
    if let Some(term) = around.term {
        words.push(("STANDIN_TERM", term.to_string().into()));
    }
    let further = order.words.iter();
    words.extend(further.map(|(name, word)| (*name, OsString::from(word))));
    words
}

/// Bytes for a log or a terminal: lines, and nothing in them that a terminal obeys.
pub fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let tame = |c: char| match c {
        '\n' => c,
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars()
        .map(tame)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Where a command writes. It appends, so that the file can be cut under it.
struct Output {
    file: File,
    /// The end of what was cut away.
    earlier: Vec<u8>,
}

impl Output {
    fn new(path: Option<&Path>) -> std::io::Result<Output> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = match path {
            None => {
                let memory = rustix::fs::memfd_create("standin-output", MemfdFlags::CLOEXEC)?;
                File::from(memory)
            }
            Some(path) => {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                let mut options = File::options();
                // Removed first: what an older start still writes stays with it.
                let _ = std::fs::remove_file(path);
                options.read(true).write(true).create_new(true).mode(0o600);
                options.open(path)?
            }
        };
        Ok(Output {
            file,
            earlier: Vec::new(),
        })
    }

    /// Another description of the same file, which appends.
    fn writer(&self) -> std::io::Result<File> {
        use std::os::fd::AsRawFd;
        let again = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::options().append(true).open(again)
    }

    fn cut(&mut self) {
        let long = |file: &File| file.metadata().is_ok_and(|f| f.len() > OUTPUT_BYTES_MAX);
        if long(&self.file) {
            self.earlier = tail(&mut self.file);
            let _ = self.file.set_len(0);
        }
    }

    fn said(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.earlier);
        bytes.extend(tail(&mut self.file));
        harmless(&bytes[bytes.len().saturating_sub(SAID_BYTES_MAX)..])
    }
}

/// The end of a file; what cannot be read is left out.
fn tail(file: &mut File) -> Vec<u8> {
    let bytes = file.metadata().map_or(0, |facts| facts.len());
    let from = bytes.saturating_sub(SAID_BYTES_MAX as u64);
    let mut end = Vec::new();
    if file.seek(SeekFrom::Start(from)).is_ok() {
        let _ = file.take(SAID_BYTES_MAX as u64).read_to_end(&mut end);
    }
    end
}

/// The end of a service's output file as harmless text; empty where there is none. A file that grew long is begun anew.
pub fn said_in(path: &Path) -> String {
    let Ok(mut file) = File::options().read(true).write(true).open(path) else {
        return String::new();
    };
    let said = harmless(&tail(&mut file));
    if file
        .metadata()
        .is_ok_and(|f| f.len() > 4 * OUTPUT_BYTES_MAX)
    {
        let _ = file.set_len(0);
    }
    said
}

/// Processes that belong together: by their session, or by a word in the environment they began with.
#[derive(Debug, Clone)]
pub struct Group {
    pub session: Option<u32>,
    pub mark: Option<(&'static str, String)>,
}

impl Group {
    /// Tells all of them to stop, then kills what is left. Those that not even that ended.
    pub async fn end(&self) -> Vec<u32> {
        self.signal(Signal::TERM).await;
        let mut pause = Duration::from_millis(10);
        let (gentle, end) = (Instant::now() + GRACE, Instant::now() + 2 * GRACE);
        loop {
            let now = Instant::now();
            let left = match now < gentle {
                true => self.members().await,
                false => self.signal(Signal::KILL).await,
            };
            if left.is_empty() || now >= end {
                return left;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Those that run now.
    pub async fn members(&self) -> Vec<u32> {
        let group = self.clone();
        let listed = tokio::task::spawn_blocking(move || group.list());
        listed.await.unwrap_or_default()
    }

    /// Sends a signal to all; to whom it was sent.
    async fn signal(&self, signal: Signal) -> Vec<u32> {
        let pids = self.members().await;
        for pid in pids.iter().copied() {
            let Some(handle) = pid_of(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            // The number may have passed to somebody else before it was opened.
            if self.has(pid) {
                let _ = rustix::process::pidfd_send_signal(&handle, signal);
            }
        }
        pids
    }

    fn list(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| self.has(*pid)).collect()
    }

    fn has(&self, pid: u32) -> bool {
        let Some((state, session)) = std::fs::read(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| state_and_session(&stat))
        else {
            return false;
        };
        // What has ended and waits to be reaped runs no more.
        if matches!(state, b'Z' | b'X') {
            return false;
        }
        if self.session.is_some_and(|own| own == session) {
            return true;
        }
        let Some((name, word)) = &self.mark else {
            return false;
        };
        let wanted = format!("{name}={word}");
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut words = environment.split(|b| *b == 0);
        words.any(|word| OsStr::new(&wanted).as_encoded_bytes() == word)
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Fields 3 and 6 of proc_pid_stat(5). The name before them may hold anything, but no later field holds a parenthesis.
fn state_and_session(stat: &[u8]) -> Option<(u8, u32)> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(&stat[after..]).ok()?;
    let mut fields = text.split_whitespace();
    let state = fields.next()?.bytes().next()?;
    Some((state, fields.nth(2)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_after_a_hostile_name() {
        let check = |stat: &[u8], expected| assert_eq!(state_and_session(stat), expected);
        check(b"7 (sh) S 1 7 7 0 -1", Some((b'S', 7)));
        check(b"7 (a) R 1 2 3 (b) Z 1 7 9 0", Some((b'Z', 9)));
        check(b"7 (\xff\n) R 1 2 3\n", Some((b'R', 3)));
        check(b"7 (a) R 1 2", None);
        check(b"", None);
    }

    #[test]
    fn words_that_terminals_obey() {
        let check = |bytes: &[u8], text| assert_eq!(harmless(bytes), text);
        check(b"a\n\x1b[31mb\x07\r\n\n", "a\n [31mb");
        check(b"\xff\tx", "\u{fffd} x");
    }

    #[test]
    fn programs_are_found() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/etc/passwd"), None);
        assert_eq!(find("no-such-program-here"), None);
        assert_eq!(find(""), None);
    }
}
