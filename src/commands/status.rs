//! `standin status`: how roles, peers and transfers are, once or every second.

use anyhow::Result;

use super::client::{self, Control, Patience, START_IT, Watcher};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::render;
use crate::cli::{self, Global};
use crate::daemon::api::{Event, Request, RoleStatus, Status};
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};

/// A piped `--watch` says how things are this often, in seconds, and at once when something changes hands.
const PLAIN_EVERY_S: f64 = 10.0;

/// Ticks between two tries to find a daemon that stopped.
const TICKS_BETWEEN_TRIES: u32 = 5;

pub fn run(global: &Global, args: &cli::Status) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    if !args.watch {
        let (value, mut status): (_, Status) = control.ask(&Request::Status)?;
        let value = match &args.role {
            Some(role) => {
                only(&mut status, role)?;
                serde_json::to_value(&status)?
            }
            None => value,
        };
        output.answer(&value, || {
            Ok(if output.is_live() {
                let columns = output::size().1;
                render::fitted(&render::status(&status, Some(columns)), columns)
            } else {
                render::status(&status, None)
            })
        })?;
        return Ok(Code::Done);
    }
    let mut picture = Picture {
        output,
        interrupts: Interrupts::listen()?,
        shown: 0,
        last_plain: None,
        role: args.role.clone(),
    };
    let ended = follow(&control, &mut picture);
    picture.release()?;
    ended
}

/// Watches until Ctrl-C. A daemon that stops is waited for where a person watches; a log or a program is told.
fn follow(control: &Control, picture: &mut Picture) -> Result<Code> {
    let mut waiting = false;
    loop {
        match control.call(&Request::Watch, picture) {
            Ok(None) => return Ok(Code::Done),
            // The daemon ends a watch only when it stops.
            Ok(Some(_)) => waiting = false,
            Err(error) if client::lost(&error) => waiting = false,
            Err(error) if waiting && Failure::code_of(&error) == Code::NoDaemon => {}
            Err(error) => return Err(error),
        }
        if !picture.output.is_live() {
            let failure = Failure::new(Code::NoDaemon, "go on watching: the daemon stopped");
            return Err(failure.hint(START_IT).into());
        }
        if !waiting {
            picture.draw("the daemon stopped; waiting for it (Ctrl-C ends the watch)")?;
            waiting = true;
        }
        if picture.pause() == Patience::Leave {
            return Ok(Code::Done);
        }
    }
}

struct Picture {
    output: Output,
    interrupts: Interrupts,
    /// Lines on the terminal that the next picture replaces.
    shown: usize,
    last_plain: Option<jiff::Timestamp>,
    /// Only this one is shown.
    role: Option<RoleName>,
}

/// Leaves what is not about the role out.
fn only(status: &mut Status, role: &RoleName) -> Result<()> {
    let known: Vec<String> = status
        .roles
        .iter()
        .map(|role| role.name.to_string())
        .collect();
    let meant = |found: &RoleStatus| found.name == *role || found.logs.as_ref() == Some(role);
    status.roles.retain(meant);
    if status.roles.is_empty() {
        let failure = Failure::new(Code::NotFound, format!("find role {role}"));
        return Err(failure
            .hint(format!("roles of this node: {}", known.join(", ")))
            .into());
    }
    let of_role = |found: &RoleStatus| -> Vec<NodeName> {
        let peers = found.replicas.iter().map(|replica| replica.peer.clone());
        let words = found.words.iter().map(|word| word.peer.clone());
        peers.chain(words).collect()
    };
    let peers: Vec<NodeName> = status.roles.iter().flat_map(of_role).collect();
    let names: Vec<RoleName> = status.roles.iter().map(|role| role.name.clone()).collect();
    status.peers.retain(|peer| peers.contains(&peer.name));
    status
        .transfers
        .retain(|transfer| names.contains(&transfer.role));
    let of_others = |warning: &String| {
        let ours = |name: &&String| names.iter().any(|role| role.as_str() == *name);
        let others = known.iter().filter(|name| !ours(name));
        others
            .into_iter()
            .any(|name| warning.starts_with(&format!("{name}: ")))
    };
    status.warnings.retain(|warning| !of_others(warning));
    Ok(())
}

impl Watcher for Picture {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Status { mut status } if self.role.is_some() => {
                let role = self.role.take();
                let told = match &role {
                    Some(role) => only(&mut status, role),
                    None => Ok(()),
                };
                let told = told.and_then(|()| self.event(Event::Status { status }));
                self.role = role;
                told
            }
            Event::Status { status } if self.output.is_json() => self.output.json_line(&status),
            Event::Status { status } if self.output.is_live() => self.redraw(&status),
            Event::Status { status } => self.plain(&status),
            // On a terminal and in JSON the next status says it all.
            _ if self.output.is_live() || self.output.is_json() => Ok(()),
            Event::Data { .. } => Ok(()),
            Event::TransferEnd { text, ok: true, .. } => self.output.text(&text),
            Event::TransferEnd {
                text, ok: false, ..
            } => self
                .output
                .text(&format!("transfer {}", render::stopped(&text))),
            Event::Warning { role, text, .. } => {
                let text = render::of_role(role.as_ref(), &text);
                self.output.text(&format!("warning: {text}"))
            }
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
        let (rows, columns) = output::size();
        let text = render::fitted(&render::status(status, Some(columns)), columns);
        if text.lines().count() < rows {
            return self.draw(&text);
        }
        self.draw(&render::status_small(status, columns))
    }

    fn draw(&mut self, text: &str) -> Result<()> {
        let (rows, columns) = output::size();
        // The last row is the cursor's.
        let lines = render::shortened(&render::fitted(text, columns), rows.saturating_sub(1));
        let frame = frame(&lines, self.shown);
        self.shown = lines.len();
        output::write(frame.as_bytes())
    }

    /// Waits a second, or until Ctrl-C.
    fn pause(&mut self) -> Patience {
        for _ in 0..TICKS_BETWEEN_TRIES {
            if self.interrupts.count() > 0 {
                return Patience::Leave;
            }
            std::thread::sleep(client::TICK);
        }
        Patience::Wait
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

/// One picture over the last one: cursor off, up, each line cleared behind, the rest cleared.
fn frame(lines: &[String], shown: usize) -> String {
    let mut frame = String::from("\x1b[?25l");
    if shown > 0 {
        frame.push_str(&format!("\x1b[{shown}A\r"));
    }
    for line in lines {
        frame.push_str(line);
        frame.push_str("\x1b[K\n");
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_replaces_the_last() {
        let first = frame(&["abc".into(), "x".into()], 0);
        assert_eq!(first, "\x1b[?25labc\x1b[K\nx\x1b[K\n\x1b[J");
        let second = frame(&["z".into()], 2);
        assert_eq!(second, "\x1b[?25l\x1b[2A\rz\x1b[K\n\x1b[J");
    }
}
