//! `standin mount` and `standin unmount`: points to look around in.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Global, Mount, Unmount};
use crate::daemon::api::{BrowseReport, BrowseRequest, Request};
use crate::error::Code;

pub fn mount(global: &Global, args: &Mount) -> Result<Code> {
    let request = match &args.dir {
        None => BrowseRequest::List,
        Some(dir) => BrowseRequest::Mount {
            dir: std::path::absolute(dir)?,
            role: args.role.clone(),
            allow: args.allow.clone(),
        },
    };
    ask(global, request)
}

pub fn unmount(global: &Global, args: &Unmount) -> Result<Code> {
    let dir = std::path::absolute(&args.dir)?;
    ask(global, BrowseRequest::Unmount { dir })
}

fn ask(global: &Global, request: BrowseRequest) -> Result<Code> {
    let (value, report): (_, BrowseReport) = Control::of(global).ask(&Request::Browse(request))?;
    Output::of(global).answer(&value, || Ok(render::browse(&report)))?;
    Ok(Code::Done)
}
