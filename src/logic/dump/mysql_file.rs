//! What a dump file of MariaDB or MySQL says of itself: a first line of ours, and the end that its program writes.
//!
//! Promise: a file without that first line or without that end is no whole dump. It deliberately does not know the statements
//! in between.

use serde::{Deserialize, Serialize};

/// What the first line begins with: a comment, for the server.
const MARK: &str = "-- standin ";

/// The last line of a whole dump begins so (mariadb-dump and mysqldump, with comments, which are the default).
const END: &str = "-- Dump completed";

/// Longest first line, in bytes.
pub const HEAD_BYTES_MAX: usize = 1 << 20;

/// Longest file name, offset or GTID that is believed, in bytes.
const WORD_BYTES_MAX: usize = 500;

/// How much of the end holds the last line, in bytes.
pub const TAIL_BYTES: usize = 256;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Name and version of the server it came from.
    pub server: String,
    pub databases: Vec<String>,
}

impl Head {
    /// With the end of the line.
    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("texts always become JSON");
        format!("{MARK}{json}\n")
    }

    /// From a file's first bytes.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let line = bytes.split(|b| *b == b'\n').next()?;
        serde_json::from_slice(line.strip_prefix(MARK.as_bytes())?).ok()
    }
}

/// The end of a dump in which there was nothing to dump.
pub fn end() -> String {
    format!("{END}: there are no databases\n")
}

/// From a file's last bytes.
pub fn ends_well(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.is_some_and(|line| line.starts_with(END))
}

/// Where in the server's log of changes the dump stands, from the comments at its beginning and end.
pub fn position(text: &str) -> Option<String> {
    let between = |line: &str, before: &str, after: &str| {
        let rest = line.split_once(before)?.1;
        let word = rest.split(after).next()?.to_owned();
        // What was dumped may look like such a comment: nothing that a terminal would obey.
        let plain = word.chars().all(|c| c.is_ascii_graphic());
        (plain && !word.is_empty() && word.len() <= WORD_BYTES_MAX).then_some(word)
    };
    let mut words = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("-- ")) {
        if let Some(gtid) = between(line, "SET GLOBAL gtid_slave_pos='", "'") {
            words.insert(0, format!("gtid {gtid}"));
        }
        let file = between(line, "_LOG_FILE='", "'");
        let offset = between(line, "_LOG_POS=", ";").or_else(|| between(line, "_LOG_POS=", ","));
        if let (Some(file), Some(offset)) = (file, offset) {
            words.push(format!("binlog {file}:{offset}"));
        }
    }
    words.dedup();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = Head {
            server: "MariaDB 10.11.19".to_owned(),
            databases: vec!["a\nb".to_owned(), "c".to_owned()],
        };
        let line = head.line();
        assert_eq!(line.lines().count(), 1);
        let file = format!("{line}CREATE DATABASE a;\n");
        assert_eq!(Head::parse(file.as_bytes()), Some(head));
        assert_eq!(Head::parse(b"-- MariaDB dump 10.19\n"), None);
        assert_eq!(Head::parse(b"-- standin {\n"), None);
        assert_eq!(Head::parse(b""), None);
    }

    #[test]
    fn ends() {
        let check = |text: &str, expected: bool| assert_eq!(ends_well(text.as_bytes()), expected);
        check("...\n-- Dump completed on 2026-11-21 10:00:00\n", true);
        check(&end(), true);
        check("-- Dump completed\nINSERT", false);
        check("INSERT INTO t VALUES (1", false);
        check("", false);
    }

    #[test]
    fn positions() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(position(text).as_deref(), expected);
        };
        check(
            "-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000001', MASTER_LOG_POS=1455;\n-- SET GLOBAL gtid_slave_pos='0-1-3';\n",
            Some("gtid 0-1-3, binlog bin.000001:1455"),
        );
        check(
            "-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='b.2', SOURCE_LOG_POS=4;\n",
            Some("binlog b.2:4"),
        );
        check("INSERT INTO t VALUES ('-- MASTER_LOG_FILE=');\n", None);
    }
}
