//! Drift: what should be alike on two nodes and is not.
//!
//! Promise: what is accepted is taken out of both sides before they are compared; what is secret is compared and never shown;
//! what could not be read is told, and never counts as alike. A node's answer is bounded, and so is what is made of one that
//! lies.
//!
//! It deliberately does not know how files, packages and commands are read, nor how nodes ask each other.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::logic::diff;
use crate::logic::name::NodeName;

/// Longest text that is told to a peer and shown, in bytes; of a longer one only the hash is.
pub const TEXT_BYTES_MAX: usize = 256 << 10;

/// Texts and names of one answer, in bytes: what is beyond is told by its hash, then left out. As JSON a byte may take six.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Files or packages of one watch.
pub const ITEMS_MAX: usize = 1000;

/// Watches of one node.
pub const WATCHES_MAX: usize = 200;

/// Longest name of a watch, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// Default limit of a command.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Differences of one comparison that are shown with their text, and their bytes.
const DIFFS_MAX: usize = 100;
const DIFFS_BYTES_MAX: usize = 4 << 20;

/// What stands in the place of what is accepted.
const MASKED: &str = "(accepted)";

/// One thing that is compared between nodes, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// By which nodes mean the same thing.
    pub name: String,
    pub what: What,
    /// With whom; none: with every peer.
    pub peers: Option<Vec<NodeName>>,
    pub accept: Vec<Mask>,
    /// What is on one node only is no difference.
    pub accept_missing: bool,
    /// Only hashes leave this node.
    pub secret: bool,
    /// As whom a command runs; none: as root.
    pub user: Option<String>,
    /// For a command.
    pub timeout: Duration,
}

impl Watch {
    pub fn is_for(&self, peer: &NodeName) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(peer))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A path whose parts may hold `*` and `?`; directories with all that is in them.
    File(String),
    /// A package's name, which may hold them too.
    Package(String),
    Command(Vec<String>),
}

impl What {
    /// The key in the file.
    pub fn word(&self) -> &'static str {
        match self {
            What::File(_) => "file",
            What::Package(_) => "package",
            What::Command(_) => "command",
        }
    }
}

/// A pattern of differences that are accepted.
#[derive(Debug, Clone)]
pub struct Mask(Regex);

impl Mask {
    pub fn parse(text: &str) -> Result<Mask, String> {
        let wrong = |error: regex::Error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!(
                "not a regular expression: {}",
                last.trim_start_matches("error: ")
            )
        };
        let regex = Regex::new(text).map_err(wrong)?;
        match regex.is_match("") {
            true => Err(
                "matches an empty text, which is everywhere: say more, such as \".+\"".to_owned(),
            ),
            false => Ok(Mask(regex)),
        }
    }

    pub fn source(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Mask {
    fn eq(&self, other: &Mask) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Mask {}

/// A text without what is accepted: the parts of a line that match are masked, a line that matches whole is left out.
pub fn masked(text: &str, accept: &[Mask]) -> String {
    if accept.is_empty() {
        return text.to_owned();
    }
    let mut made = String::with_capacity(text.len());
    for whole in text.split_inclusive('\n') {
        let (line, end) = match whole.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (whole, ""),
        };
        let mut masked = line.to_owned();
        let mut left_out = false;
        for mask in accept {
            let all = mask.0.find(&masked);
            left_out |= all.is_some_and(|found| found.len() == masked.len());
            masked = mask.0.replace_all(&masked, MASKED).into_owned();
        }
        if !left_out {
            made.push_str(&masked);
            made.push_str(end);
        }
    }
    made
}

/// Whether a name has the form of a pattern with `*` (any letters) and `?` (one).
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where the last star stood, and how much it has swallowed: gone back to when what follows does not fit.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[of] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((stood, from)) => {
                    star = Some((stood, from + 1));
                    at = stood + 1;
                    of = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// What a node found for one watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// `file`, `package` or `command`.
    pub kind: String,
    /// By path, by package; a command has one, without a name.
    #[serde(default)]
    pub items: BTreeMap<String, Value>,
    /// How many more there are, which are not told.
    #[serde(default)]
    pub more: u64,
    /// Why nothing, or not all, could be read. Reads after "could not".
    #[serde(default)]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// As it was read: whoever compares masks it.
    Text(String),
    /// Of a text that is secret: masked by whoever told it.
    Secret { hash: String },
    /// Of what is too long, or no text.
    Hash { hash: String, bytes: u64 },
    /// Reads after "could not".
    Unreadable(String),
}

/// The hash by which values are compared.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// What a peer is told of what was found: nothing of a secret but hashes, and no more than an answer may hold. `room`: bytes
/// that are left in the answer.
pub fn told(watch: &Watch, found: &Found, room: &mut usize) -> Found {
    let mut told = Found {
        items: BTreeMap::new(),
        ..found.clone()
    };
    if watch.secret {
        // What a command said of its failure could hold it.
        told.problem = found
            .problem
            .as_ref()
            .map(|_| "read it (why is told on that node only)".to_owned());
    }
    for (name, value) in &found.items {
        let value = match value {
            Value::Text(text) if watch.secret => Value::Secret {
                hash: hash(masked(text, &watch.accept).as_bytes()),
            },
            Value::Text(text) if text.len() > *room => Value::Hash {
                hash: hash(text.as_bytes()),
                bytes: text.len() as u64,
            },
            Value::Unreadable(_) if watch.secret => {
                Value::Unreadable("read it (why is told on that node only)".to_owned())
            }
            value => value.clone(),
        };
        // A hash and what is around it.
        let takes = name.len()
            + 100
            + match &value {
                Value::Text(text) | Value::Unreadable(text) => text.len(),
                Value::Secret { .. } | Value::Hash { .. } => 0,
            };
        if takes > *room {
            told.more += 1;
            continue;
        }
        *room -= takes;
        told.items.insert(name.clone(), value);
    }
    told
}

/// How one thing compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Same,
    Differs,
    OnlyHere,
    OnlyThere,
    /// On one node only, which is accepted.
    Accepted,
    /// Not read here.
    UnreadableHere,
    /// Not read there.
    UnreadableThere,
    /// The peer watches nothing of this name with this node.
    NotWatchedThere,
}

impl State {
    /// The nodes are not alike.
    pub fn is_difference(self) -> bool {
        matches!(self, State::Differs | State::OnlyHere | State::OnlyThere)
    }

    /// Nobody knows whether they are.
    pub fn is_unknown(self) -> bool {
        matches!(
            self,
            State::UnreadableHere | State::UnreadableThere | State::NotWatchedThere
        )
    }
}

/// One thing, compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    pub watch: String,
    /// The file or package; none where it is about the watch as a whole.
    pub item: Option<String>,
    pub state: State,
    /// The difference as a unified diff, where it may be shown and is text.
    pub diff: Option<String>,
    /// A sentence more, where there is one.
    pub why: Option<String>,
}

/// Compares what was found here with what the peer told, watch by watch.
pub fn compare<'a>(
    (here, there): (&NodeName, &NodeName),
    watches: impl Iterator<Item = (&'a Watch, &'a Found)>,
    theirs: &BTreeMap<String, Found>,
) -> Vec<Compared> {
    let mut comparison = Comparison {
        names: (here, there),
        compared: Vec::new(),
        diffs: 0,
        bytes: DIFFS_BYTES_MAX,
    };
    for (watch, ours) in watches {
        comparison.watch(watch, ours, theirs.get(&watch.name));
    }
    comparison.compared
}

struct Comparison<'a> {
    names: (&'a NodeName, &'a NodeName),
    compared: Vec<Compared>,
    diffs: usize,
    /// That may still be shown.
    bytes: usize,
}

impl Comparison<'_> {
    fn push(&mut self, watch: &Watch, item: Option<&str>, state: State, why: Option<String>) {
        self.compared.push(Compared {
            watch: watch.name.clone(),
            item: item.filter(|item| !item.is_empty()).map(str::to_owned),
            state,
            diff: None,
            why,
        });
    }

    fn watch(&mut self, watch: &Watch, ours: &Found, theirs: Option<&Found>) {
        let Some(theirs) = theirs else {
            return self.push(watch, None, State::NotWatchedThere, None);
        };
        if ours.kind != theirs.kind {
            let kind: String = theirs.kind.chars().take(20).collect();
            let why = format!("a {} here, a {kind} there", ours.kind);
            return self.push(watch, None, State::Differs, Some(why));
        }
        let could_not = |why: &String| Some(format!("could not {why}"));
        if let Some(why) = &ours.problem {
            self.push(watch, None, State::UnreadableHere, could_not(why));
        }
        if let Some(why) = &theirs.problem {
            self.push(watch, None, State::UnreadableThere, could_not(why));
        }
        // Of what was not read, or not told, nobody knows whether it is there.
        let whole = |found: &Found| found.problem.is_none() && found.more == 0;
        for (found, state) in [
            (ours, State::UnreadableHere),
            (theirs, State::UnreadableThere),
        ] {
            if found.more > 0 {
                let why = format!("{} more are not compared: too many", found.more);
                self.push(watch, None, state, Some(why));
            }
        }
        for (item, value) in &ours.items {
            match theirs.items.get(item) {
                Some(their) => self.values(watch, item, value, their),
                None if whole(theirs) => self.missing(watch, item, State::OnlyHere),
                None => {}
            }
        }
        for item in theirs.items.keys().take(ITEMS_MAX) {
            if !ours.items.contains_key(item) && whole(ours) {
                self.missing(watch, item, State::OnlyThere);
            }
        }
    }

    fn missing(&mut self, watch: &Watch, item: &str, state: State) {
        match watch.accept_missing {
            true => self.push(watch, Some(item), State::Accepted, None),
            false => self.push(watch, Some(item), state, None),
        }
    }

    fn values(&mut self, watch: &Watch, item: &str, ours: &Value, theirs: &Value) {
        let could_not = |why: &String| Some(format!("could not {why}"));
        match (ours, theirs) {
            (Value::Unreadable(why), _) => {
                self.push(watch, Some(item), State::UnreadableHere, could_not(why));
            }
            (_, Value::Unreadable(why)) => {
                self.push(watch, Some(item), State::UnreadableThere, could_not(why));
            }
            (Value::Text(ours), Value::Text(theirs)) => self.texts(watch, item, ours, theirs),
            (ours, theirs) => {
                let same = fingerprint(ours, theirs, watch) == fingerprint(theirs, ours, watch);
                let why = match (ours, theirs) {
                    _ if same => None,
                    (Value::Secret { .. }, _) | (_, Value::Secret { .. }) => {
                        Some("secret: the difference is not shown".to_owned())
                    }
                    _ if watch.secret => Some("secret: the difference is not shown".to_owned()),
                    _ => Some("too long, or no text: the difference is not shown".to_owned()),
                };
                let state = if same { State::Same } else { State::Differs };
                self.push(watch, Some(item), state, why);
            }
        }
    }

    fn texts(&mut self, watch: &Watch, item: &str, ours: &str, theirs: &str) {
        let (ours, theirs) = (masked(ours, &watch.accept), masked(theirs, &watch.accept));
        if ours == theirs {
            return self.push(watch, Some(item), State::Same, None);
        }
        if watch.secret {
            let why = "secret: the difference is not shown".to_owned();
            return self.push(watch, Some(item), State::Differs, Some(why));
        }
        self.push(watch, Some(item), State::Differs, None);
        self.diffs += 1;
        let names = (self.names.0.as_str(), self.names.1.as_str());
        let diff = match self.diffs <= DIFFS_MAX {
            true => diff::unified(&ours, &theirs, names),
            false => None,
        };
        let diff = diff.filter(|diff| diff.len() <= self.bytes);
        self.bytes -= diff.as_ref().map_or(0, String::len);
        if let Some(last) = self.compared.last_mut() {
            if diff.is_none() {
                last.why = Some("not shown here: too much differs".to_owned());
            }
            last.diff = diff;
        }
    }
}

/// What of `value` can be compared with `other`.
fn fingerprint(value: &Value, other: &Value, watch: &Watch) -> String {
    match (value, other) {
        (Value::Text(text), Value::Secret { .. }) => hash(masked(text, &watch.accept).as_bytes()),
        (Value::Text(text), _) => hash(text.as_bytes()),
        (Value::Secret { hash } | Value::Hash { hash, .. }, _) => hash.clone(),
        (Value::Unreadable(_), _) => String::new(),
    }
}

#[cfg(test)]
mod tests;
