//! `standin pair`: invitations made, accepted, and peers forgotten.
//!
//! Promise: on its own, `invite` prints the line and nothing else to stdout, so that it can be piped to the other node;
//! the words around it go to stderr. `accept` can read the line from stdin, out of sight of the shell's history.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use serde_json::Value;

use super::client::Control;
use super::output::{self, Output};
use crate::cli::{Global, Pair, PairAccept, PairInvite, PairStep};
use crate::daemon::api::{Invitation, Paired, Request};
use crate::error::{Code, Failure};
use crate::logic::units;

/// Longest line read from stdin, in bytes. An invitation is a few hundred.
const LINE_BYTES_MAX: u64 = 64 << 10;

pub fn run(global: &Global, args: &Pair) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    match &args.step {
        PairStep::Invite(args) => invite(&control, output, args),
        PairStep::Accept(args) => {
            let line = line(args)?;
            show(output, control.ask(&Request::PairAccept { line })?)
        }
        PairStep::Remove(args) => {
            let peer = args.peer.clone();
            show(output, control.ask(&Request::PairRemove { peer })?)
        }
    }
}

fn invite(control: &Control, output: Output, args: &PairInvite) -> Result<Code> {
    let request = Request::PairInvite {
        expires_s: seconds(&args.expires)?,
        address: args.address.clone(),
        replace: args.replace.clone(),
    };
    let (value, invitation): (_, Invitation) = control.ask(&request)?;
    output.answer(&value, || Ok(invitation.line.clone()))?;
    if !output.is_json() {
        let until = super::human::local_zoned(invitation.expires);
        output::complain(&format!(
            "Give this line to the other node before {until}: standin pair accept. It holds a secret and works once."
        ));
    }
    Ok(Code::Done)
}

fn show(output: Output, (value, paired): (Value, Paired)) -> Result<Code> {
    output.answer(&value, || Ok(paired.text.clone()))?;
    Ok(Code::Done)
}

/// The invitation: given as an argument, else one line of standard input.
fn line(args: &PairAccept) -> Result<String> {
    match args.line.as_deref() {
        Some(given) if given != "-" && !given.trim().is_empty() => Ok(given.trim().to_owned()),
        _ => pasted(),
    }
}

/// One line of standard input; a person is asked for it.
pub fn pasted() -> Result<String> {
    if io::stdin().is_terminal() {
        output::complain("Paste the line that standin pair invite printed, then press Enter:");
    }
    let mut line = String::new();
    let mut bounded = io::Read::take(io::stdin().lock(), LINE_BYTES_MAX);
    io::BufRead::read_line(&mut bounded, &mut line).context("read the invitation")?;
    let line = line.trim().to_owned();
    if line.is_empty() {
        let failure = Failure::new(Code::Usage, "accept an invitation: none was given");
        return Err(failure
            .hint("standin pair invite on the other node prints one")
            .into());
    }
    Ok(line)
}

/// `30s`, `15m`, `1h`, in seconds.
fn seconds(word: &str) -> Result<u64> {
    let span = units::parse_duration(word).map_err(|why| {
        Failure::new(Code::Usage, format!("understand --expires {word}: {why}"))
            .hint("write it as a number and a unit: 30s, 15m, 1h, 2d")
    })?;
    if span.as_secs() == 0 {
        let failure = Failure::new(
            Code::Usage,
            format!("invite for {word}: nobody is that fast"),
        );
        return Err(failure
            .hint("an invitation lives a second or longer")
            .into());
    }
    Ok(span.as_secs())
}
