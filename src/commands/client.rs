//! The daemon's client: one request over the control socket, events while it works, one answer.
//!
//! Promise: a daemon that is not there is [`Code::NoDaemon`] with the next step; one that goes away in the middle is a
//! failure that says so, never an empty answer. Events of a newer daemon that this build does not know are skipped.
//! Closing the connection never stops the daemon's work.
//!
//! It deliberately does not read the whole configuration: a mistake in it must not keep anyone from asking a running
//! daemon how it is.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::AS_ROOT;
use crate::cli::Global;
use crate::config::{CONTROL_DEFAULT, Config};
use crate::daemon::api::{Event, Reply, Request};
use crate::error::{Code, Failure};

/// How often a waiting client looks up to redraw and to notice Ctrl-C.
pub const TICK: Duration = Duration::from_millis(200);

/// Longest line taken from the daemon, in bytes: a catalogue of 20,000 points fits several times.
const LINE_BYTES_MAX: usize = 64 << 20;

/// The next step where no daemon runs.
pub const START_IT: &str = "start it: systemctl start standin, or: standin serve";

/// How a caller follows a request while it is being answered.
pub trait Watcher {
    fn event(&mut self, event: Event) -> Result<()>;

    /// Called after each event and a few times a second.
    fn tick(&mut self) -> Result<Patience> {
        Ok(Patience::Wait)
    }
}

/// Whether to wait on for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Wait,
    Leave,
}

/// For requests whose events are of no interest.
pub struct Unwatched;

impl Watcher for Unwatched {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }
}

/// The way to the daemon. Each request is a connection of its own.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
    /// Whether `--socket` named it.
    named: bool,
    /// Whether the configuration is no TOML at all, so that nobody knows which daemon it means: not the default one's answer
    /// is wanted then, but the mistake.
    illegible: bool,
    config: PathBuf,
}

/// The daemon went away in the middle of a conversation.
#[derive(Debug, thiserror::Error)]
#[error("it ended the conversation before it answered ({0})")]
struct Lost(std::io::Error);

/// Whether an error says that the daemon went away in the middle.
pub fn lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Lost>().is_some()
}

impl Control {
    pub fn of(global: &Global) -> Control {
        let socket = match &global.socket {
            Some(socket) => socket.clone(),
            None => socket_of(&global.config).unwrap_or_else(|| CONTROL_DEFAULT.into()),
        };
        Control {
            socket,
            illegible: global.socket.is_none() && is_illegible(&global.config),
            named: global.socket.is_some(),
            config: global.config.clone(),
        }
    }

    /// The control socket's path; an error where it is not known whose.
    pub fn socket(&self) -> Result<&Path> {
        if self.illegible {
            Config::load(&self.config)?;
        }
        Ok(&self.socket)
    }

    /// Asks and waits. The value as it came, and what it means.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<(Value, T)> {
        let value = self.call(request, &mut Unwatched)?.unwrap_or(Value::Null);
        let meaning = meaning(&value)?;
        Ok((value, meaning))
    }

    /// Asks, and shows the watcher what happens until the answer. None: the watcher left before it came.
    pub fn call(&self, request: &Request, watcher: &mut dyn Watcher) -> Result<Option<Value>> {
        let mut stream = self.connect()?;
        let mut line = serde_json::to_vec(request).context("write the request")?;
        line.push(b'\n');
        stream.write_all(&line).map_err(|why| self.lost(why))?;
        stream
            .set_read_timeout(Some(TICK))
            .context("prepare the control connection")?;
        let mut lines = Lines {
            reader: BufReader::new(stream),
            partial: Vec::new(),
        };
        loop {
            let line = lines.next().map_err(|why| self.lost(why))?;
            match line.map(|line| reply(&line)).transpose()?.flatten() {
                Some(Reply::Event { event }) => watcher.event(event)?,
                Some(Reply::Done { value }) => return Ok(Some(value)),
                Some(Reply::Failed { code, what, hint }) => {
                    return Err(Failure { code, what, hint }.into());
                }
                None => {}
            }
            if watcher.tick()? == Patience::Leave {
                return Ok(None);
            }
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        let error = match UnixStream::connect(self.socket()?) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let socket = self.socket.display();
        let absent = |why: String| {
            let failure = Failure::new(Code::NoDaemon, format!("reach the daemon: {why}"));
            failure.hint(self.next_step())
        };
        let failure = match error.kind() {
            ErrorKind::NotFound if self.named => absent(format!("no such socket: {socket}")),
            ErrorKind::ConnectionRefused if !is_socket(&self.socket) => {
                absent(format!("not a socket: {socket}"))
            }
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                absent(format!("it is not running (nothing answers on {socket})"))
            }
            ErrorKind::PermissionDenied => Failure::new(
                Code::Failed,
                format!("reach the daemon: the control socket {socket} is for root only"),
            )
            .hint(AS_ROOT),
            _ => Failure::new(
                Code::Failed,
                format!("reach the daemon on {socket}: {error}"),
            ),
        };
        Err(failure.into())
    }

    /// What to do when nothing answers. A socket that was named has nothing to do with the configuration.
    fn next_step(&self) -> String {
        match super::config_hint(&self.config) {
            _ if self.named => format!("{START_IT}; or leave --socket out"),
            Some(hint) => hint,
            None => START_IT.to_owned(),
        }
    }

    fn lost(&self, why: std::io::Error) -> anyhow::Error {
        let failure = Failure::new(Code::Failed, "hear the daemon out")
            .hint("journalctl -u standin tells why; what was begun goes on when it is back");
        anyhow::Error::new(Lost(why)).context(failure)
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.file_type().is_socket())
}

/// Reads what a `Done` value means.
pub fn meaning<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .context("understand the daemon's answer (is it of another version? restart it)")
}

/// `node.control` of a configuration file, whatever else is wrong with it.
fn socket_of(config: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(config).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let control = table.get("node")?.get("control")?.as_str()?;
    Some(control.into())
}

/// Whether there is a file which is not even TOML.
fn is_illegible(config: &Path) -> bool {
    std::fs::read_to_string(config).is_ok_and(|text| text.parse::<toml::Table>().is_err())
}

/// A reply; none for an event that this build does not know.
fn reply(line: &[u8]) -> Result<Option<Reply>> {
    let value: Value = serde_json::from_slice(line).context("read the daemon's answer")?;
    let is_event = value.get("reply").and_then(Value::as_str) == Some("event");
    match serde_json::from_value(value) {
        Ok(reply) => Ok(Some(reply)),
        Err(_) if is_event => Ok(None),
        Err(error) => Err(error).context("understand the daemon's answer"),
    }
}

struct Lines {
    reader: BufReader<UnixStream>,
    /// The beginning of a line that has not ended yet.
    partial: Vec<u8>,
}

impl Lines {
    /// The next whole line; none when none came within a tick.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        match self.reader.read_until(b'\n', &mut self.partial) {
            Ok(_) if self.partial.ends_with(b"\n") => Ok(Some(std::mem::take(&mut self.partial))),
            Ok(_) => Err(std::io::Error::new(
                ErrorKind::UnexpectedEof,
                "connection closed",
            )),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if self.partial.len() > LINE_BYTES_MAX {
                    return Err(std::io::Error::new(
                        ErrorKind::InvalidData,
                        "its answer is too long",
                    ));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Complaints;

    #[test]
    fn the_socket_is_found_in_a_file_with_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("standin.toml");
        std::fs::write(&path, "[node]\ncontrol = \"/run/x.sock\"\nnmae = 3\n").unwrap();
        assert_eq!(socket_of(&path), Some("/run/x.sock".into()));
        std::fs::write(&path, "[node\n").unwrap();
        assert_eq!(socket_of(&path), None);
    }

    #[test]
    fn the_next_step_where_nothing_answers() {
        let dir = tempfile::tempdir().unwrap();
        let check = |named, config: &str, hint: &str| {
            let control = Control {
                socket: dir.path().join("control.sock"),
                named,
                illegible: false,
                config: dir.path().join(config),
            };
            let error = control.call(&Request::Status, &mut Unwatched).unwrap_err();
            let failure = Failure::of(&error).unwrap();
            assert_eq!(failure.code, Code::NoDaemon);
            let given = failure.hint.clone().unwrap();
            assert!(given.contains(hint), "{given}");
        };
        std::fs::write(dir.path().join("there.toml"), "").unwrap();
        check(false, "nothing.toml", "standin init");
        check(true, "nothing.toml", "systemctl start");
        check(false, "there.toml", "systemctl start");
    }

    #[test]
    fn a_file_that_is_no_toml_is_what_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let check = |named: bool, text: &str, code: Code| {
            let global = Global {
                config: dir.path().join("standin.toml"),
                socket: named.then(|| dir.path().join("control.sock")),
                json: false,
                verbose: 0,
            };
            std::fs::write(&global.config, text).unwrap();
            let asked = Control::of(&global).call(&Request::Status, &mut Unwatched);
            let error = asked.unwrap_err();
            let failure = match error.downcast_ref::<Complaints>() {
                Some(complaints) => Failure::from(complaints.clone()),
                None => Failure::of(&error).unwrap().clone(),
            };
            assert_eq!(failure.code, code, "{text}: {error:#}");
        };
        let control = format!("control = \"{}\"\n", dir.path().join("x.sock").display());
        check(false, &format!("[node\n{control}"), Code::Usage);
        check(true, &format!("[node\n{control}"), Code::NoDaemon);
        check(
            false,
            &format!("[node]\n{control}nmae = 3\n"),
            Code::NoDaemon,
        );
    }

    #[test]
    fn unknown_events_are_skipped_unknown_replies_are_not() {
        let event = br#"{"reply":"event","event":{"event":"eclipse","of":"the moon"}}"#;
        assert_eq!(reply(event).unwrap(), None);
        assert!(reply(br#"{"reply":"perhaps"}"#).is_err());
        assert!(reply(b"hello").is_err());
    }
}
