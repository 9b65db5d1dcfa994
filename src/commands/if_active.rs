//! `standin if-active`: becomes another command, only where this node is active in a role at this moment.
//!
//! Promise: the daemon is asked each time; without its answer the command does not run. Once it runs, its exit status is the
//! only one there is: this process is gone.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;

use super::client::Control;
use super::output;
use crate::cli::{Global, IfActive};
use crate::daemon::api::{Request, RoleStatus, Status};
use crate::error::{Code, Failure};
use crate::logic::name::{RoleName, nearest};

/// RoleStatus::state of the node that is active.
const ACTIVE: &str = "active";

pub fn run(global: &Global, args: &IfActive) -> Result<Code> {
    let (_, status): (_, Status) = Control::of(global).ask(&Request::Status)?;
    let role = find(&status, &args.role)?;
    if role.state != ACTIVE {
        if !args.quiet {
            let (node, state) = (&status.node, &role.state);
            output::complain(&format!(
                "standin: not run: {node} is {state} in role {}",
                args.role
            ));
        }
        return Ok(Code::NotActive);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::new(Code::Usage, "run nothing: name a command after --").into());
    };
    let error = Command::new(program).args(arguments).exec();
    let what = format!("run {}: {error}", program.to_string_lossy());
    Err(Failure::new(Code::NotFound, what).into())
}

fn find<'a>(status: &'a Status, name: &RoleName) -> Result<&'a RoleStatus> {
    let roles = &status.roles;
    let found = roles.iter().find(|role| role.name == *name);
    // This node's own logs.
    let own = |role: &&RoleStatus| {
        role.logs.as_ref() == Some(name) && role.home.as_ref() == Some(&status.node)
    };
    found.or_else(|| roles.iter().find(own)).ok_or_else(|| {
        let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        let failure = Failure::new(Code::NotFound, format!("find role {name}"));
        match nearest(name.as_str(), names.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean {near}?")).into(),
            None => failure
                .hint(format!("roles of this node: {}", names.join(", ")))
                .into(),
        }
    })
}
