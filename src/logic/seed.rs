//! Seeded files: made on each node from a template that is replicated, with what is this node's own filled in.
//!
//! Promise: the same template and values give the same text on every node; a word that nobody knows is an error, never an
//! empty text; what has no meaning as a word is left as it stands. A file that somebody else wrote is never judged ours.
//!
//! It deliberately does not know where templates come from, nor how files are written. `jinja` is called in a process of its
//! own, which bounds its memory and time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::logic::name::{DatasetName, NodeName, RoleName};

mod jinja;

pub use jinja::jinja;

/// Longest template, and longest text made of one, in bytes: files of configuration are far below.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Longest value of `[node.vars]`, in bytes.
pub const VAR_BYTES_MAX: usize = 16 << 10;

/// Fewest characters of a `%WORD%`: `%Y%m%d` of strftime and `%C3%A9` of a URL are none.
pub const WORD_LEAST: usize = 3;

/// Default limit of `after`.
pub const AFTER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Names that are given, beside those of `[node.vars]`.
pub const GIVEN: [&str; 4] = ["HOSTNAME", "NODE", "ROLE", "ACTIVE"];

/// One file that is made on this node, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The template: a dataset of the role, and a path in it.
    pub from: (DatasetName, PathBuf),
    /// The file, absolute, outside of all datasets.
    pub to: PathBuf,
    pub engine: Engine,
    /// Permission bits; none: as the file has them, 0644 where it is new.
    pub mode: Option<u32>,
    /// User and group, as configured: names or numbers.
    pub owner: Option<(String, String)>,
    /// Called after a change.
    pub after: Option<Vec<String>>,
    /// For `after`.
    pub timeout: Duration,
    pub when: When,
}

impl Seed {
    /// The template as it stands in the file: `files/etc/app.conf`.
    pub fn source(&self) -> String {
        format!("{}/{}", self.from.0, self.from.1.display())
    }
}

/// How a template is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    Percent,
    Jinja,
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Percent, Engine::Jinja];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Engine::Percent => "percent",
            Engine::Jinja => "jinja",
        }
    }
}

/// When a file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only while this node is active in the role.
    Active,
    /// Only while it is not.
    Standby,
}

impl When {
    pub const ALL: [When; 3] = [When::Always, When::Active, When::Standby];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            When::Always => "always",
            When::Active => "active",
            When::Standby => "standby",
        }
    }

    pub fn holds(self, active: bool) -> bool {
        match self {
            When::Always => true,
            When::Active => active,
            When::Standby => !active,
        }
    }
}

/// What is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    pub hostname: String,
    pub node: NodeName,
    pub role: RoleName,
    /// The active node's name.
    pub active: NodeName,
    /// This node is it.
    pub is_active: bool,
    /// `[node.vars]`.
    pub vars: BTreeMap<String, String>,
}

impl Values {
    fn word(&self, word: &str) -> Option<&str> {
        match word {
            "HOSTNAME" => Some(&self.hostname),
            "NODE" => Some(self.node.as_str()),
            "ROLE" => Some(self.role.as_str()),
            "ACTIVE" => Some(self.active.as_str()),
            word => {
                let found = self.vars.iter();
                let mut found = found.filter(|(name, _)| name.to_ascii_uppercase() == word);
                found.next().map(|(_, value)| value.as_str())
            }
        }
    }
}

/// Why a template gives no text. Reads after "could not".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "fill in %{word}% (line {line}): no such word; the words are {known}, or write %%{word}%% for the text itself"
    )]
    Unknown {
        word: String,
        line: usize,
        known: String,
    },
    #[error("use what the template gives: more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("follow the template: {0}")]
    Wrong(String),
}

/// Fills in every `%WORD%` (capitals, digits and `_`, at least three, a capital first). `%%WORD%%` gives `%WORD%`; every other
/// percent sign is left as it stands.
pub fn percent(template: &str, values: &Values) -> Result<String, Fault> {
    let mut made = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        made.push_str(&rest[..at]);
        let here = &rest[at..];
        let line = || {
            let before = &template[..template.len() - here.len()];
            before.matches('\n').count() + 1
        };
        if let Some(word) = literal(here) {
            made.push_str(&here[1..word.len() + 3]);
            rest = &here[word.len() + 4..];
        } else if let Some(word) = word(&here[1..]) {
            made.push_str(
                values
                    .word(word)
                    .ok_or_else(|| unknown(word, line(), values))?,
            );
            rest = &here[word.len() + 2..];
        } else {
            made.push('%');
            rest = &here[1..];
        }
        if made.len() > TEXT_BYTES_MAX {
            return Err(Fault::TooLong);
        }
    }
    made.push_str(rest);
    match made.len() > TEXT_BYTES_MAX {
        true => Err(Fault::TooLong),
        false => Ok(made),
    }
}

fn unknown(word: &str, line: usize, values: &Values) -> Fault {
    let vars = values.vars.keys().map(|name| name.to_ascii_uppercase());
    let known: Vec<String> = GIVEN
        .iter()
        .map(|&name| name.to_owned())
        .chain(vars)
        .collect();
    Fault::Unknown {
        word: word.chars().take(60).collect(),
        line,
        known: known.join(", "),
    }
}

/// The word of `%%WORD%%` at the beginning.
fn literal(text: &str) -> Option<&str> {
    let word = word(text.strip_prefix("%%")?)?;
    text[2 + word.len()..].starts_with("%%").then_some(word)
}

/// The word of `WORD%` at the beginning.
fn word(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let word = &text[..end];
    let good = is_word(word) && text[end..].starts_with('%');
    good.then_some(word)
}

/// Whether it could stand between percent signs.
pub fn is_word(word: &str) -> bool {
    word.len() >= WORD_LEAST
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// What is at the place of a seeded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    Nothing,
    File(Facts),
    /// Something that is no file: "a symbolic link to /etc/x".
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub hash: String,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What this node remembers of a file it made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Hash of what was written last.
    pub written: Option<String>,
    /// Hash of what was about to be written; set before, and taken away after.
    pub writing: Option<String>,
}

/// What is to be done about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Fresh,
    /// The text is right, and its mode or owner is not.
    Dress,
    /// It is not there, or what this node wrote before.
    Write,
    /// Somebody changed it since this node wrote it.
    Edited,
    /// It was there before this node wrote anything.
    Foreign,
    /// It is no file.
    NoFile,
}

/// Compares what should be there with what is. `mode`, `owner` (user and group number): where they are configured.
pub fn judge(
    hash: &str,
    present: &Present,
    memory: &Memory,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
) -> Verdict {
    let facts = match present {
        Present::Nothing => return Verdict::Write,
        Present::Other(_) => return Verdict::NoFile,
        Present::File(facts) => facts,
    };
    let dressed = mode.is_none_or(|mode| mode == facts.mode)
        && owner.is_none_or(|owner| owner == (facts.uid, facts.gid));
    // A crash between the two leaves either text, and both are ours.
    let ours = [&memory.written, &memory.writing];
    let is_ours = ours.into_iter().flatten().any(|known| *known == facts.hash);
    match (facts.hash == hash, is_ours, memory.written.is_some()) {
        (true, _, _) if dressed => Verdict::Fresh,
        (true, _, _) => Verdict::Dress,
        (false, true, _) => Verdict::Write,
        (false, false, true) => Verdict::Edited,
        (false, false, false) => Verdict::Foreign,
    }
}

#[cfg(test)]
mod tests;
