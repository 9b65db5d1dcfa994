//! `standin status`: how roles, peers and transfers are, once or every second.

use anyhow::Result;

use super::client::{Control, Patience, Watcher};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::render;
use crate::cli::{self, Global};
use crate::daemon::api::{Event, Request, Status};
use crate::error::Code;

/// A piped `--watch` says how things are this often, in seconds, and at once when something changes hands.
const PLAIN_EVERY_S: f64 = 10.0;

pub fn run(global: &Global, args: &cli::Status) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    if !args.watch {
        let (value, status): (_, Status) = control.ask(&Request::Status)?;
        output.answer(&value, || Ok(render::status(&status)))?;
        return Ok(Code::Done);
    }
    let mut picture = Picture {
        output,
        interrupts: Interrupts::listen()?,
        shown: 0,
        last_plain: None,
    };
    let ended = control.call(&Request::Watch, &mut picture);
    picture.release()?;
    ended?;
    Ok(Code::Done)
}

struct Picture {
    output: Output,
    interrupts: Interrupts,
    /// Lines on the terminal that the next picture replaces.
    shown: usize,
    last_plain: Option<jiff::Timestamp>,
}

impl Watcher for Picture {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Status { status } if self.output.is_json() => self.output.json_line(&status),
            Event::Status { status } if self.output.is_live() => self.redraw(&status),
            Event::Status { status } => self.plain(&status),
            // On a terminal and in JSON the next status says it all.
            _ if self.output.is_live() || self.output.is_json() => Ok(()),
            Event::TransferEnd { text, ok: true, .. } => self.output.text(&text),
            Event::TransferEnd {
                text, ok: false, ..
            } => self.output.text(&format!("transfer stopped: {text}")),
            Event::Warning { text, .. } => self.output.text(&format!("warning: {text}")),
            Event::Note { .. } | Event::Transfer { .. } => Ok(()),
        }
    }

    fn tick(&mut self) -> Result<Patience> {
        Ok(if self.interrupts.count() > 0 {
            Patience::Leave
        } else {
            Patience::Wait
        })
    }
}

impl Picture {
    /// Draws over the last picture line by line, in one write: nothing is blank in between, so nothing flickers.
    fn redraw(&mut self, status: &Status) -> Result<()> {
        let (rows, columns) = console::Term::stdout().size();
        let text = render::status(status);
        let frame = frame(&text, rows.into(), columns.into(), self.shown);
        self.shown = text
            .lines()
            .count()
            .min(usize::from(rows).saturating_sub(1));
        output::write(frame.as_bytes())
    }

    fn plain(&mut self, status: &Status) -> Result<()> {
        let due = self
            .last_plain
            .is_none_or(|last| status.now.duration_since(last).as_secs_f64() >= PLAIN_EVERY_S);
        if !due {
            return Ok(());
        }
        self.last_plain = Some(status.now);
        self.output.text(&render::status_brief(status))
    }

    /// Gives the cursor back.
    fn release(&self) -> Result<()> {
        if self.shown > 0 {
            output::write(b"\x1b[?25h")?;
        }
        Ok(())
    }
}

/// One picture over the last one: cursor off, up, each line cut to the width and cleared behind, the rest cleared.
fn frame(text: &str, rows: usize, columns: usize, shown: usize) -> String {
    let mut frame = String::from("\x1b[?25l");
    if shown > 0 {
        frame.push_str(&format!("\x1b[{shown}A\r"));
    }
    for line in text.lines().take(rows.saturating_sub(1)) {
        frame.push_str(&console::truncate_str(line, columns, ""));
        frame.push_str("\x1b[K\n");
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_the_terminal_and_replaces_the_last() {
        let first = frame("abcdef\nx\ny\n", 3, 4, 0);
        assert_eq!(first, "\x1b[?25labcd\x1b[K\nx\x1b[K\n\x1b[J");
        let second = frame("z\n", 3, 4, 2);
        assert_eq!(second, "\x1b[?25l\x1b[2A\rz\x1b[K\n\x1b[J");
    }
}
