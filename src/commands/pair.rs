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
    };
    let (value, invitation): (_, Invitation) = control.ask(&request)?;
    output.answer(&value, || Ok(invitation.line.clone()))?;
    if !output.is_json() {
        let until = super::human::local(invitation.expires);
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
    let mut line = String::new();
    match args.line.as_deref() {
        Some(given) if given != "-" => line.push_str(given),
        _ => {
            if io::stdin().is_terminal() {
                output::complain(
                    "Paste the line that standin pair invite printed, then press Enter:",
                );
            }
            let mut bounded = io::Read::take(io::stdin().lock(), LINE_BYTES_MAX);
            io::BufRead::read_line(&mut bounded, &mut line).context("read the invitation")?;
        }
    }
    let line = line.trim().to_owned();
    if line.is_empty() {
        let failure = Failure::new(Code::Usage, "no invitation was given");
        return Err(failure
            .hint("standin pair invite on the other node prints one")
            .into());
    }
    Ok(line)
}

/// `30s`, `15m`, `1h`, `2d`.
fn seconds(word: &str) -> Result<u64> {
    let split = word
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(word.len());
    let (number, unit) = word.split_at(split);
    let unit_s = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let seconds = number.zip(unit_s).and_then(|(n, unit)| n.checked_mul(unit));
    seconds.filter(|&s| s > 0).ok_or_else(|| {
        Failure::new(Code::Usage, format!("{word:?} is not a span of time"))
            .hint("write it as a number and a unit: 30s, 15m, 1h, 2d")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        let check = |word, expected| assert_eq!(seconds(word).ok(), expected, "{word}");
        check("30s", Some(30));
        check("15m", Some(900));
        check("2d", Some(172_800));
        for word in ["", "5", "m", "0s", "-1m", "1y", "99999999999999999999h"] {
            check(word, None);
        }
    }
}
