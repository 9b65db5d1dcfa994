//! A command line that is not understood: told in words and, where `--json` is among them, in JSON.
//!
//! Promise: a tip is only given where it is close to what was typed; a wrong tip is worse than none. The exit code is
//! that of wrong usage. It deliberately does not know what the verbs do.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::tell_json;
use crate::error::Code;
use crate::logic::name::nearest;

/// Prints help, the version, or what is wrong with the words, and says how the process ends.
pub fn misused(mut error: clap::Error) -> Code {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    retip(&mut error, &words);
    // Whoever does not read it any more needs no other word.
    let _ = error.print();
    if !error.use_stderr() {
        return Code::Done;
    }
    let mut options = words.iter().take_while(|&word| word != "--");
    if options.any(|word| word == "--json") {
        tell_json(
            Code::Usage,
            &what(&error),
            Some("standin --help lists the verbs; each has a --help of its own"),
        );
    }
    Code::Usage
}

/// The complaint alone, on one line and as every failure is told: after "could not".
fn what(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "understand the command line: something is missing after these words".into();
    }
    let text = error.to_string();
    let complaint = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = complaint.lines().map(str::trim).collect();
    let complaint = lines.join(" ");
    let complaint = complaint.strip_prefix("error: ").unwrap_or(&complaint);
    format!("understand the command line: {complaint}")
}

/// Drops tips that are far from what was typed, and gives the ones that clap cannot know.
fn retip(error: &mut clap::Error, words: &[OsString]) {
    let typed = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        .into_iter()
        .find_map(|kind| text(error.get(kind)?));
    let Some(typed) = typed else { return };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
        let tips = match error.get(kind) {
            Some(ContextValue::String(tip)) => vec![tip.clone()],
            Some(ContextValue::Strings(tips)) => tips.clone(),
            _ => continue,
        };
        let close: Vec<String> = tips.into_iter().filter(|tip| close(tip, &typed)).collect();
        error.remove(kind);
        if close.is_empty() && kind == ContextKind::SuggestedArg {
            // The usage was made for the tip.
            error.remove(ContextKind::Usage);
        }
        if !close.is_empty() {
            // A lone argument stands there as a string, subcommands as a list.
            let value = match kind {
                ContextKind::SuggestedArg => ContextValue::String(close[0].clone()),
                _ => ContextValue::Strings(close),
            };
            error.insert(kind, value);
        }
    }
    // "to pass it as a value, use --": no verb takes such values.
    error.remove(ContextKind::Suggested);
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let verb = words.iter().find(|word| *word == "restore");
    if verb.is_some() && !typed.starts_with('-') {
        let option = if typed.contains('/') {
            "--path"
        } else {
            "--dataset"
        };
        let tip = format!("write it as: {option} {typed}");
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
}

fn text(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether somebody who typed this may well have meant the tip.
fn close(tip: &str, typed: &str) -> bool {
    let (tip, typed) = (tip.trim_start_matches('-'), typed.trim_start_matches('-'));
    let begins = typed.len() >= 2 && tip.starts_with(typed);
    begins || nearest(typed, [tip].into_iter()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn check(line: &str, tip: Option<&str>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut error = Cli::try_parse_from(&words).unwrap_err();
        retip(&mut error, &words);
        let text = error.to_string();
        match tip {
            Some(tip) => assert!(text.contains(tip), "{line}: {text}"),
            None => {
                assert!(!text.contains("tip:"), "{line}: {text}");
                assert!(!text.contains("--socket"), "{line}: {text}");
            }
        }
    }

    #[test]
    fn tips_are_close_or_absent() {
        check("standin start", None);
        check("standin prune --force", None);
        check("standin xyzzy", None);
        check("standin statsu", Some("'status'"));
        check("standin prune --dry", Some("'--dry-run'"));
        check("standin restore web files", Some("--dataset files"));
        check(
            "standin restore web www/index.html",
            Some("--path www/index.html"),
        );
    }

    #[test]
    fn a_complaint_is_one_line() {
        let error = Cli::try_parse_from(["standin", "--json", "xyzzy"]).unwrap_err();
        assert_eq!(
            what(&error),
            "understand the command line: unrecognized subcommand 'xyzzy'"
        );
    }
}
