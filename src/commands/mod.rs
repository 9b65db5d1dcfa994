//! One file per verb the user types; each gathers, has the daemon or `logic` decide, shows, and performs.
//!
//! Promise: text for people goes to stdout and is what was asked for; what went wrong goes to stderr with a hint; the
//! exit code is a published one; a reader that goes away (`| head`) is not an error. Only here does the program print.
//!
//! It deliberately decides nothing about points, peers or filesystems: the daemon does, and the verbs show its answers.

pub mod client;
pub mod human;
pub mod init;
pub mod output;
pub mod progress;
pub mod render;

mod apply_worker;
mod check;
mod completions;
mod diff;
mod drift;
mod drill;
mod fork;
mod if_active;
mod interrupt;
mod link;
mod load;
mod logging;
mod misuse;
mod mount;
mod moves;
mod pair;
mod points;
mod prune;
mod rescan;
mod restore;
mod run;
mod seed;
mod serve;
mod status;
mod table;

#[cfg(test)]
mod samples;

pub use misuse::misused;

use std::io::ErrorKind;
use std::path::Path;

use crate::cli::{Cli, Global, Verb};
use crate::config::Complaints;
use crate::error::{Code, Failure};

/// Runs one verb. The code is the exit status; an error has one of its own ([`Failure::code_of`]).
pub fn run(cli: Cli) -> anyhow::Result<Code> {
    let global = &cli.global;
    logging::start(
        global,
        matches!(cli.verb, Verb::Serve(_) | Verb::ApplyWorker(_)),
    );
    match &cli.verb {
        Verb::Init(args) => init::run(global, args),
        Verb::Pair(args) => pair::run(global, args),
        Verb::Serve(_) => serve::run(global),
        Verb::Run(args) => run::run(global, args),
        Verb::Cancel(args) => run::cancel(global, args),
        Verb::Status(args) => status::run(global, args),
        Verb::Points(args) => points::run(global, args),
        Verb::Restore(args) => restore::run(global, args),
        Verb::Promote(args) => moves::promote(global, args),
        Verb::Handover(args) => moves::handover(global, args),
        Verb::Failback(args) => moves::failback(global, args),
        Verb::Resume(args) => moves::resume(global, args),
        Verb::Resolve(args) => moves::resolve(global, args),
        Verb::Pause(args) => moves::pause(global, args),
        Verb::Load(args) => load::run(global, args),
        Verb::Drill(args) => drill::run(global, args),
        Verb::Seed(args) => seed::run(global, args),
        Verb::Drift(args) => drift::run(global, args),
        Verb::Diff(args) => diff::run(global, args),
        Verb::Mount(args) => mount::mount(global, args),
        Verb::Unmount(args) => mount::unmount(global, args),
        Verb::Fork(args) => fork::run(global, args),
        Verb::Rescan(args) => rescan::run(global, args),
        Verb::Prune(args) => prune::run(global, args),
        Verb::Check(args) => check::run(global, args),
        Verb::IfActive(args) => if_active::run(global, args),
        Verb::Reload(_) => serve::reload(global),
        Verb::Link(_) => link::run(global),
        Verb::LinkWorker(_) => link::work(),
        Verb::Completions(args) => completions::run(args),
        Verb::ApplyWorker(_) => apply_worker::run(),
        Verb::SeedWorker(_) => seed::work(),
    }
}

/// The next step where root's rights are missing.
pub const AS_ROOT: &str = "run it as root, for instance with sudo";

/// The next step for a configuration that cannot be opened; none when it can.
fn config_hint(path: &Path) -> Option<String> {
    match std::fs::File::open(path).err()?.kind() {
        ErrorKind::NotFound => Some(format!(
            "there is no configuration {}: standin init writes a first one",
            path.display()
        )),
        ErrorKind::PermissionDenied => Some(AS_ROOT.to_owned()),
        _ => None,
    }
}

/// Whether it failed because the kernel refused this user.
fn lacks_rights(error: &anyhow::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == ErrorKind::PermissionDenied)
    };
    !rustix::process::geteuid().is_root() && error.chain().any(refused)
}

/// Tells a person (and, with `--json`, a program) what failed and what to do next. The one place where errors end.
///
/// Errors are phrases in the present tense, from the outside in: "take a point of web: snapshot files: ...".
pub fn failed(global: &Global, error: &anyhow::Error) -> Code {
    if output::reader_left(error) {
        return Code::Done;
    }
    if let Some(complaints) = error.downcast_ref::<Complaints>() {
        let hint = config_hint(&complaints.path);
        let failure = Failure::from(complaints.clone());
        return failed(global, &Failure { hint, ..failure }.into());
    }
    let code = Failure::code_of(error);
    let hint = Failure::of(error).and_then(|failure| failure.hint.as_deref());
    let hint = hint.or_else(|| lacks_rights(error).then_some(AS_ROOT));
    tell(global.json, code, &format!("{error:#}"), hint);
    code
}

fn tell(json: bool, code: Code, what: &str, hint: Option<&str>) {
    let mut text = format!("standin: could not {what}");
    if let Some(hint) = hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    output::complain(&text);
    if json {
        tell_json(code, what, hint);
    }
}

/// The documented shape of a failure, on one line: it may be the last of a stream of lines (`status --watch`).
fn tell_json(code: Code, what: &str, hint: Option<&str>) {
    let value = serde_json::json!({
        "error": { "code": code, "exit": code as u8, "what": what, "hint": hint }
    });
    // A reader of stdout that is gone has nothing more to be told, and stderr has it all.
    let _ = output::write(format!("{value}\n").as_bytes());
}
