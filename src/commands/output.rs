//! Where text leaves the program.
//!
//! Promise: a reader that went away (`standin points | head -1`) ends the verb quietly; any other failure to write is an
//! error. It deliberately does not know what the text means.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cli::Global;

/// Standard output, in the form the user asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

/// The reader of our output is gone: no failure, nothing more to do.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output went away")]
struct ReaderLeft;

/// Whether an error only says that nobody reads any more.
pub fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ReaderLeft>().is_some()
}

impl Output {
    pub fn of(global: &Global) -> Output {
        Output { json: global.json }
    }

    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person watches: standard output is a terminal, and text was asked for.
    pub fn is_live(self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Writes text and ends it with one line end.
    pub fn text(self, text: &str) -> Result<()> {
        write(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// Writes a value in the documented shape, indented.
    pub fn json(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).context("write JSON")?;
        write(format!("{text}\n").as_bytes())
    }

    /// Writes a value in the documented shape on one line, for streams of values.
    pub fn json_line(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).context("write JSON")?;
        write(format!("{text}\n").as_bytes())
    }

    /// The value as JSON where that was asked for, else the text made of it.
    pub fn answer(
        self,
        value: &serde_json::Value,
        text: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        if self.json {
            self.json(value)
        } else {
            self.text(&text()?)
        }
    }
}

/// Rows and columns of the terminal on standard output.
pub fn size() -> (usize, usize) {
    let (rows, columns) = console::Term::stdout().size();
    (rows.into(), columns.into())
}

/// Writes bytes to standard output at once.
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        result => result.context("write to standard output"),
    }
}

/// Writes a line to standard error. A failure to do so has nowhere to go.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks on the terminal; anything but yes is no.
pub fn confirm(question: &str) -> Result<bool> {
    write(format!("{question} [y/N] ").as_bytes())?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("read the answer")?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Asks for a line; none at the end of the input.
pub fn ask(question: &str) -> Result<Option<String>> {
    write(question.as_bytes())?;
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    Ok((read.context("read the answer")? > 0).then(|| line.trim().to_owned()))
}

/// Whether a question can be asked and answered.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
