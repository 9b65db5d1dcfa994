//! `standin find`: the versions of paths.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Find, Global, Which};
use crate::daemon::api::{FindReport, FindRequest, Request};
use crate::error::{Code, Failure};
use crate::logic::moment;
use crate::logic::versions::Pick;

pub fn run(global: &Global, args: &Find) -> Result<Code> {
    let inside = args.role.is_some() || args.dataset.is_some();
    let paths: Result<Vec<PathBuf>> = args.paths.iter().map(|path| meant(path, inside)).collect();
    let request = Request::Find(FindRequest {
        paths: paths?,
        role: args.role.clone(),
        dataset: args.dataset.clone(),
        deleted: args.deleted,
        local: args.local,
        peers: args.peers,
    });
    let (value, report): (_, FindReport) = Control::of(global).ask(&request)?;
    Output::of(global).answer(&value, || Ok(render::find(&report)))?;
    Ok(Code::Done)
}

/// The path as the daemon may take it: absolute, or inside a dataset where that was said.
pub fn meant(path: &Path, inside: bool) -> Result<PathBuf> {
    if inside {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).with_context(|| format!("find the way to {}", path.display()))
}

/// What was said of the version; none: nothing.
pub fn picked(which: &Which) -> Result<Option<Pick>> {
    if let Some(words) = &which.before {
        return Ok(Some(Pick::Before(before(words)?)));
    }
    let point = which.point.clone().map(Pick::Point);
    Ok(which.version.map(Pick::Number).or(point))
}

/// The moment that the words mean, by the local clock.
pub fn before(words: &str) -> Result<jiff::Timestamp> {
    moment::parse(words, &jiff::Zoned::now())
        .map_err(|why| Failure::new(Code::Usage, format!("understand --before: {why}")).into())
}
