//! What is wrong with a configuration file, in words for the person who wrote it.
//!
//! Promise: one complaint names one place (line, key), the value found there, and what to write instead where that is known.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Code, Failure};

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// From 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// From 1; only where the file is not TOML at all.
    pub column: Option<usize>,
    /// The whole path of the key: `role.web.keep.daily`; empty when there is none.
    pub key: String,
    /// The value as written.
    pub value: Option<String>,
    pub what: String,
}

/// `12: role.web.every = "5x": not a duration`
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
            if let Some(column) = self.column {
                write!(f, "{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// Everything wrong with one file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaints {
    pub path: PathBuf,
    pub list: Vec<Complaint>,
}

/// One line each, `path:line: ...`.
impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let colon = if complaint.line > 0 { ":" } else { ": " };
            write!(f, "{separator}{}{colon}{complaint}", self.path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Failure {
        Failure::new(Code::Usage, format!("use the configuration:\n{complaints}"))
    }
}
