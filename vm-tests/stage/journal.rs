//! What a machine's journal said, as it went out line by line (journalctl's JSON), across cuts of its power.
//!
//! A *complaint* is a line that nobody expects of machines that work: a warning or worse about standin or btrfs, an error of
//! anything else. The few that Debian itself has in an emulated machine are named here, with the reason.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

/// syslog(3): errors and worse, warnings and worse.
const ERROR: u64 = 3;
const WARNING: u64 = 4;

/// Complaints that are no news, and why.
const KNOWN: [(&str, &str); 1] = [(
    "MP-BIOS bug: 8254 timer",
    "a timer that is emulated, on a machine that is busy",
)];

#[derive(Clone)]
pub struct Line {
    pub priority: u64,
    /// The unit it is from or about, or the name of the program.
    pub from: String,
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.priority <= ERROR {
            "ERROR"
        } else {
            "WARN"
        };
        let level = if self.priority <= WARNING {
            level
        } else {
            "info"
        };
        write!(f, "{level} {}: {}", self.from, self.text)
    }
}

/// The journal of one machine, as far as it was read.
pub struct Journal {
    path: PathBuf,
    read: Mutex<(u64, Vec<Line>)>,
}

impl Journal {
    pub fn new(path: PathBuf) -> Journal {
        Journal {
            path,
            read: Mutex::default(),
        }
    }

    /// Every whole line so far.
    pub fn lines(&self) -> Vec<Line> {
        self.so_far().1.clone()
    }

    /// How many of them are from standin or about its units.
    pub fn of_standin(&self) -> usize {
        let lines = &self.so_far().1;
        let ours = |line: &&Line| line.from.starts_with("standin");
        lines.iter().filter(ours).count()
    }

    fn so_far(&self) -> MutexGuard<'_, (u64, Vec<Line>)> {
        let mut read = self.read.lock().unwrap();
        let (bytes, lines) = &mut *read;
        let mut news = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::Start(*bytes)).unwrap();
            file.read_to_end(&mut news).unwrap();
        }
        let whole = news.iter().rposition(|byte| *byte == b'\n');
        news.truncate(whole.map_or(0, |last| last + 1));
        *bytes += news.len() as u64;
        let words = news.split(|byte| *byte == b'\n');
        let values = words.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.extend(values.map(|value| line(&value)));
        read
    }
}

fn line(value: &Value) -> Line {
    let word = |key: &str| value[key].as_str().map(str::to_owned);
    let unit = word("UNIT").or_else(|| word("_SYSTEMD_UNIT"));
    let program = word("SYSLOG_IDENTIFIER").unwrap_or_default();
    let from = unit.filter(|unit| unit != "init.scope").unwrap_or(program);
    // Text that is no UTF-8, or long, comes as numbers or not at all.
    let text = match &value["MESSAGE"] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes = bytes.iter().filter_map(|byte| byte.as_u64());
            String::from_utf8_lossy(&bytes.map(|byte| byte as u8).collect::<Vec<_>>()).into_owned()
        }
        _ => String::new(),
    };
    let priority = word("PRIORITY").and_then(|word| word.parse().ok());
    Line {
        priority: priority.unwrap_or(6),
        from,
        text,
    }
}

impl Line {
    pub fn is_complaint(&self) -> bool {
        let about_us = self.from.starts_with("standin") || self.text.contains("BTRFS");
        let crashed = ["Oops", "BUG:", "Call Trace"].iter();
        let crashed = self.from == "kernel" && crashed.clone().any(|word| self.text.contains(word));
        let level = if about_us { WARNING } else { ERROR };
        let known = KNOWN.iter().any(|(words, _)| self.text.contains(words));
        crashed || self.priority <= level && !known
    }
}

/// Whether the guest itself broke down, told by its console.
pub fn crash(console: &str) -> Option<String> {
    let signs = ["Oops:", "BUG:", "Kernel panic", "general protection fault"];
    let found = console
        .lines()
        .find(|line| signs.iter().any(|sign| line.contains(sign)));
    found.map(str::to_owned)
}

/// Whether the guest waits for a processor or a timer that QEMU does not give it, told by its console.
pub fn stalls(console: &str) -> bool {
    console.contains("detected stalls on CPUs")
}
