//! `standin cat`: the bytes of one version, on standard output and nothing else there.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::client::{Control, Watcher};
use super::find::{meant, picked};
use super::output;
use crate::cli::{Cat, Global};
use crate::daemon::api::{CatRequest, Event, Request, Wanted};
use crate::error::{Code, Failure};
use crate::logic::versions::Pick;

struct Bytes;

impl Watcher for Bytes {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Data { data } => {
                let bytes = BASE64_STANDARD.decode(data);
                output::write(&bytes.context("read what the daemon gives")?)
            }
            _ => Ok(()),
        }
    }
}

pub fn run(global: &Global, args: &Cat) -> Result<Code> {
    if global.json {
        let what = "print a file as JSON: its bytes are printed as they are";
        return Err(Failure::new(Code::Usage, what)
            .hint("leave --json out; standin find --json tells of versions")
            .into());
    }
    let inside = args.role.is_some() || args.dataset.is_some();
    let wanted = Wanted {
        path: meant(&args.path, inside)?,
        role: args.role.clone(),
        dataset: args.dataset.clone(),
        pick: picked(&args.which)?.unwrap_or(Pick::Newest),
        source: None,
    };
    let request = Request::Cat(CatRequest { wanted });
    Control::of(global).call(&request, &mut Bytes)?;
    Ok(Code::Done)
}
