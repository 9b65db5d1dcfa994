//! `standin status`: how roles, peers and transfers are, once, or as lines for a log; `watch` shows a picture of it.

use anyhow::Result;

use super::client::{self, Control, Patience, START_IT, Watcher};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::render;
use super::watch;
use crate::cli::{self, Global};
use crate::daemon::api::{Event, Request, RoleStatus, Status};
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};

/// A piped `--watch` says how things are this often, in seconds, and at once when something changes hands.
const PLAIN_EVERY_S: f64 = 10.0;

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
    let interrupts = match output.is_live() {
        true => Interrupts::with_hangup()?,
        false => Interrupts::listen()?,
    };
    if output.is_live() {
        let (_, mut status): (_, Status) = control.ask(&Request::Status)?;
        if let Some(role) = &args.role {
            only(&mut status, role)?;
        }
        if let Some(code) = watch::run(&control, status, args.role.clone(), &interrupts)? {
            return Ok(code);
        }
    }
    let mut log = Log {
        output,
        interrupts,
        last_plain: None,
        role: args.role.clone(),
    };
    match control.call(&Request::Watch, &mut log) {
        Ok(None) => return Ok(Code::Done),
        Err(error) if !client::lost(&error) => return Err(error),
        // The daemon ends a watch only when it stops.
        Ok(Some(_)) | Err(_) => {}
    }
    let failure = Failure::new(Code::NoDaemon, "go on watching: the daemon stopped");
    Err(failure.hint(START_IT).into())
}

/// A watch that nobody looks at: lines for a log, or JSON.
struct Log {
    output: Output,
    interrupts: Interrupts,
    last_plain: Option<jiff::Timestamp>,
    /// Only this one is told.
    role: Option<RoleName>,
}

/// Leaves what is not about the role out.
pub(super) fn only(status: &mut Status, role: &RoleName) -> Result<()> {
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

impl Watcher for Log {
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
            Event::Status { status } => self.plain(&status),
            // In JSON the next status says it all.
            _ if self.output.is_json() => Ok(()),
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

impl Log {
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
}
