//! The stage's end of the port to the agent of one machine.
//!
//! Promise: an answer, or the news that the machine is off or silent; never a wait without end.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::say;
use crate::words::{Answer, Request, pack, unpack};

/// How much longer than a program may run its answer may take.
const MARGIN: Duration = Duration::from_secs(60);

/// Set to anything, every program that a machine ran is shown with the time that it took: where the time of a scenario goes.
const TRACE: &str = "STANDIN_VM_TRACE";

type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

pub struct Port {
    stream: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
}

/// A program that runs in a machine.
pub struct Running {
    what: String,
    answer: Receiver<Answer>,
    limit: Duration,
    begun: Instant,
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub what: String,
    pub code: i32,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Silence {
    /// The machine has no power any more.
    Off,
    /// No answer in time.
    Late,
}

impl Port {
    /// None while nobody listens there.
    pub fn connect(socket: &Path) -> Option<Port> {
        let stream = UnixStream::connect(socket).ok()?;
        let waiting = Waiting::default();
        let answers = BufReader::new(stream.try_clone().unwrap());
        let told = Arc::clone(&waiting);
        std::thread::spawn(move || hear(answers, &told));
        Some(Port {
            stream: Mutex::new(stream),
            waiting,
            next: AtomicU64::new(1),
        })
    }

    pub fn begin(&self, argv: &[&str], stdin: &[u8], limit: Duration) -> Running {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            id,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdin: pack(stdin),
            limit: limit.as_millis() as u64,
        };
        let mut line = serde_json::to_vec(&request).unwrap();
        line.push(b'\n');
        let (told, answer) = channel();
        self.waiting.lock().unwrap().insert(id, told);
        if self.stream.lock().unwrap().write_all(&line).is_err() {
            self.waiting.lock().unwrap().remove(&id);
        }
        Running {
            what: argv.join(" "),
            answer,
            limit,
            begun: Instant::now(),
        }
    }
}

/// Until the machine goes: then nobody waits any longer.
fn hear(mut answers: BufReader<UnixStream>, waiting: &Waiting) {
    let mut line = Vec::new();
    while answers
        .read_until(b'\n', &mut line)
        .is_ok_and(|bytes| bytes > 0)
    {
        if let Ok(answer) = serde_json::from_slice::<Answer>(&line) {
            let told = waiting.lock().unwrap().remove(&answer.id);
            if let Some(told) = told {
                let _ = told.send(answer);
            }
        }
        line.clear();
    }
    waiting.lock().unwrap().clear();
}

impl Running {
    /// Waits for the end.
    pub fn end(self) -> Result<Said, Silence> {
        let patience = self.limit + MARGIN;
        self.end_within(patience)
    }

    /// The same for a machine that may forget what it was asked, because it restarts.
    pub fn end_within(self, patience: Duration) -> Result<Said, Silence> {
        let answer = self
            .answer
            .recv_timeout(patience)
            .map_err(|why| match why {
                RecvTimeoutError::Timeout => Silence::Late,
                RecvTimeoutError::Disconnected => Silence::Off,
            })?;
        if std::env::var_os(TRACE).is_some() {
            let took = self.begun.elapsed().as_millis();
            let what = self.what.replace('\n', " ");
            let now = jiff::Timestamp::now().strftime("%M:%S.%1f");
            say(format!("{now}  {took:>6} ms  {what:.150}"));
        }
        Ok(Said {
            what: self.what,
            code: answer.code,
            out: unpack(&answer.out),
            err: unpack(&answer.err),
        })
    }

    /// Whether it has ended by now, or its machine has.
    pub fn has_ended(&mut self) -> bool {
        match self.answer.try_recv() {
            Ok(answer) => {
                let (told, again) = channel();
                let _ = told.send(answer);
                self.answer = again;
                true
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => false,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => true,
        }
    }
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end().to_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.err).trim_end().to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Said {
        self.ends_with(0)
    }

    #[track_caller]
    pub fn ends_with(self, code: i32) -> Said {
        assert_eq!(
            self.code,
            code,
            "{} ended with {}\n{}\n{}",
            self.what,
            self.code,
            self.text(),
            self.errors()
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.what, self.text()))
    }
}
