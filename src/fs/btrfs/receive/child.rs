//! The process of a worker: started, listened to, ended.
//!
//! Promise: it has no descriptor of ours but its end of the wire, nothing of our environment, no terminal's signals; it ends when the
//! value is dropped, and (by its own doing and by the closed wire) when this process ends. What it says on its standard
//! error goes to our log, as text that is not trusted: in bounded lines, a bounded number of them.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The hidden verb that makes the program a worker.
pub const VERB: &str = "apply-worker";

/// Longest line of a worker that is logged, in bytes.
const LINE_BYTES_MAX: u64 = 1000;

/// Lines of one worker that are logged.
const LINES_MAX: usize = 1000;

/// A running worker process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` as a worker whose end of the wire is `socket`.
    pub fn start(program: &Path, socket: OwnedFd) -> io::Result<Process> {
        let mut command = Command::new(program);
        command
            .arg0("standin")
            .arg(VERB)
            .env_clear()
            // Its log lines begin with their priority (sd-daemon(3)), and have no time.
            .env("JOURNAL_STREAM", "applier")
            .current_dir("/")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is for the daemon, which then takes its checkpoint.
            .process_group(0);
        let mut child = spawned(command)?;
        if let Some(said) = child.stderr.take() {
            let pid = child.id();
            std::thread::Builder::new()
                .name("applier-log".into())
                .spawn(move || log(pid, said))?;
        }
        Ok(Process { child })
    }

    /// Ends it if it still runs; how it ended, for people.
    pub fn end(&mut self) -> String {
        if let Ok(None) = self.child.try_wait() {
            if let Err(error) = self.child.kill() {
                tracing::warn!("the applier cannot be ended: {error}");
            }
        }
        self.wait()
    }

    /// How it ends by itself, for people.
    pub fn wait(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("it ended with exit code {code}"),
                (None, Some(signal)) => format!("it was ended by signal {signal}"),
                (None, None) => "it ended".into(),
            },
            Err(error) => format!("it cannot be waited for: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

type Spawned = io::Result<Child>;

/// What to start, and where to tell how that went.
type Wish = (Command, Sender<Spawned>);

/// Starts a child on a thread that lives as long as this process: the death signal a worker asks for is sent when the
/// *thread* that started it ends (prctl(2)), and those that receive come and go.
fn spawned(command: Command) -> Spawned {
    static STARTER: OnceLock<Mutex<Sender<Wish>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes is gone");
    let starter = STARTER.get_or_init(|| {
        let (wishes, queue) = channel::<Wish>();
        let serve = move || {
            for (mut command, answer) in queue {
                // Whoever asked may have gone; then the child goes with the answer.
                let _ = answer.send(command.spawn());
            }
        };
        let thread = std::thread::Builder::new().name("applier-starter".into());
        if let Err(error) = thread.spawn(serve) {
            tracing::error!("no thread to start processes: {error}");
        }
        Mutex::new(wishes)
    });
    let (answer, outcome) = channel();
    starter
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}

/// Logs what a worker says until it says no more.
fn log(pid: u32, said: ChildStderr) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    for _ in 0..LINES_MAX {
        line.clear();
        match said
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => relay(pid, &words(&line)),
        }
    }
    tracing::warn!("applier {pid} says more than is logged");
    // Read on, or it would stand still.
    let _ = io::copy(&mut said, &mut io::sink());
}

/// Logs a line as what it says it is; without a priority it is what a panic left.
fn relay(pid: u32, line: &str) {
    let (priority, line) = match line.strip_prefix('<').and_then(|line| line.split_once('>')) {
        Some((priority, rest)) => (priority, rest),
        None => ("", line),
    };
    match priority {
        "7" => tracing::debug!("applier {pid}: {line}"),
        "6" => tracing::info!("applier {pid}: {line}"),
        "4" => tracing::warn!("applier {pid}: {line}"),
        _ => tracing::error!("applier {pid}: {line}"),
    }
}

/// One line without control characters.
fn words(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    line.trim_end().chars().map(plain).collect()
}
