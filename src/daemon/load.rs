//! The way back: what a point kept for its databases is put into the copy of it, and dump files are read into servers.
//!
//! Promise: what a point kept for a data directory (the label of a backup) is in it before a server starts on it, once, and
//! never after: a server that runs has eaten it. A dump is read into a server that holds nothing of it, unless the config or
//! a person says to replace what is there. A load that was cut short begins again.
//!
//! A crash leaves a note of the point from which the live copy was made (`host/notes`), and all of it is done again as far as
//! it was not finished.
//!
//! It deliberately does not know any server (`host/dump` does).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::api::{DumpLoad, LoadReport, LoadRequest};
use super::bracket;
use super::node::{Node, RoleRun, blocking};
use super::supervisor::Beside;
use crate::error::{Code, Failure};
use crate::host::dump::{self, Around, Loaded, Loading};
use crate::logic::dump::{Dump, DumpFacts, DumpResult, Load, Server};
use crate::logic::manifest::Stored;
use crate::logic::name::{DatasetName, RoleName, nearest};
use crate::logic::point::PointId;
use crate::logic::role::Event;
use crate::logic::units;

/// Before a live path gets its copy of `point`: what has to follow is noted.
pub fn expect(node: &Node, run: &RoleRun, point: &PointId) -> Result<()> {
    match run.role.dumps.is_empty() {
        // What an earlier copy waited for must not be put into this one, should the config have dumps again.
        true => node.state.note_loaded(&run.name),
        false => node.state.note_loading(&run.name, point),
    }
}

/// Before the services start: data directories of a new live copy get what their point kept.
pub async fn before_start(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    let Some(noted) = node.state.loading(&run.name)? else {
        return Ok(());
    };
    if noted.placed {
        return Ok(());
    }
    let point = stored(run, &noted.point).await?;
    for text in place(run, &point, run.fs.datasets()).await? {
        node.hub.note(Some(&run.name), text);
    }
    node.state.note_placed(&run.name)
}

/// After the services have started: dumps are read into servers, where the config says so.
pub async fn after_start(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    if node.state.loading(&run.name)?.is_none() {
        return Ok(());
    }
    let around = bracket::around(node, run);
    for dump in &run.role.dumps {
        let replace = match dump.load {
            Load::Never => continue,
            Load::Empty => false,
            Load::Replace => true,
        };
        let how = Loading {
            replace,
            server: None,
        };
        match one(node, run, dump, &around, how).await {
            Ok(Loaded::Nothing | Loaded::Done(_)) => {}
            Ok(Loaded::NotEmpty(what)) => {
                let role = &run.name;
                let text = format!(
                    "dump {} was not loaded: {what}; if the dump is the better one: standin load {role} {} --replace",
                    dump.name, dump.name
                );
                node.hub.warn(Some(role), text);
            }
            Err(error) => {
                let what = format!("load dump {} of role {}", dump.name, run.name);
                let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
                let skip = format!(
                    "it is tried again; to go on without it: standin load {} --skip",
                    run.name
                );
                let hint = hint.map_or(skip.clone(), |hint| format!("{hint}; {skip}"));
                let failure = Failure::new(Failure::code_of(&error), what).hint(hint);
                return Err(error.context(failure));
            }
        }
    }
    node.state.note_loaded(&run.name)
}

/// Puts what the point kept into a copy of its datasets; one sentence for each thing done.
pub async fn place(
    run: &RoleRun,
    point: &Stored,
    datasets: &BTreeMap<DatasetName, PathBuf>,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for facts in &point.manifest.dumps {
        let Some(dump) = of_facts(run, facts) else {
            continue;
        };
        let limit = dump.timeout;
        let placed = tokio::time::timeout(limit, dump::place(dump, facts, datasets)).await;
        let placed = placed
            .with_context(|| too_long(dump))
            .and_then(|placed| placed);
        let id = &point.manifest.point;
        said.extend(
            placed.with_context(|| {
                format!("put what {id} kept of dump {} into its data", dump.name)
            })?,
        );
    }
    Ok(said)
}

/// The dump of the config that these facts are of. One that failed, or that was not needed, left nothing to go by.
fn of_facts<'a>(run: &'a RoleRun, facts: &DumpFacts) -> Option<&'a Dump> {
    // Whatever mode the config has now: the label of a point that was a backup then is needed all the same.
    let same = |dump: &&Dump| dump.name == facts.name && dump.how.kind() == facts.kind;
    let good = facts.result == DumpResult::Good;
    run.role.dumps.iter().find(same).filter(|_| good)
}

fn too_long(dump: &Dump) -> String {
    format!("be done within {}", units::exact_duration(dump.timeout))
}

/// Loads one dump.
async fn one(
    node: &Node,
    run: &RoleRun,
    dump: &Dump,
    around: &Around,
    how: Loading<'_>,
) -> Result<Loaded> {
    let began = Instant::now();
    let loaded = tokio::time::timeout(dump.timeout, dump::load(dump, around, how)).await;
    let loaded = loaded.with_context(|| too_long(dump))??;
    if let Loaded::Done(what) = &loaded {
        let took = units::human_duration(began.elapsed().as_secs_f64());
        let text = format!("loaded dump {}: {what}, after {took}", dump.name);
        node.hub.note(Some(&run.name), text);
    }
    Ok(loaded)
}

/// Loads the dumps of a copy that a drill made into the servers it started; what came of each.
pub async fn rehearse(
    node: &Node,
    run: &RoleRun,
    copies: &BTreeMap<DatasetName, PathBuf>,
) -> Vec<(String, Result<Loaded>)> {
    let mut around = bracket::around(node, run);
    around.copies.clone_from(copies);
    let mut all = Vec::new();
    for dump in &run.role.dumps {
        let (server, text) = match &dump.drill {
            Some(server) => {
                let text = format!("load dump {} into {}", dump.name, server_name(server));
                (Some(server), text)
            }
            None if dump.how.loads_files() => (None, format!("load dump {}", dump.name)),
            None => continue,
        };
        let how = Loading {
            replace: true,
            server,
        };
        all.push((text, one(node, run, dump, &around, how).await));
    }
    all
}

fn server_name(server: &Server) -> String {
    server.address.to_string()
}

/// `standin load`: a person asks.
pub async fn load(node: &Arc<Node>, request: LoadRequest) -> Result<LoadReport> {
    let run = node.role(&request.role)?;
    if request.skip {
        return skip(node, &run, &request).await;
    }
    super::cycle::active_record(node, &run).or_else(|error| {
        // On its way up it is exactly what may be wanted.
        match node.state.loading(&run.name)? {
            Some(_) => node.record(&run)?.context("find the record of the role"),
            None => Err(error),
        }
    })?;
    let around = bracket::around(node, &run);
    let mut report = LoadReport::of(&run.name, &request);
    for dump in chosen(&run, request.dump.as_ref())? {
        if !dump.how.loads() {
            report.dumps.push(DumpLoad::of(
                dump,
                "nothing",
                "the server starts from its own data",
            ));
            continue;
        }
        if request.dry_run {
            let text = match request.replace {
                true => "would be loaded in the place of what the server holds",
                false => "would be loaded, if the server holds nothing of it",
            };
            report.dumps.push(DumpLoad::of(dump, "planned", text));
            continue;
        }
        let how = Loading {
            replace: request.replace,
            server: None,
        };
        let loaded = one(node, &run, dump, &around, how).await;
        report.dumps.push(match loaded {
            Ok(Loaded::Nothing) => DumpLoad::of(dump, "nothing", "there was nothing to load"),
            Ok(Loaded::Done(what)) => DumpLoad::of(dump, "loaded", &what),
            Ok(Loaded::NotEmpty(what)) => DumpLoad::of(dump, "left", &what),
            Err(error) => {
                let mut failed = DumpLoad::of(dump, "failed", &format!("could not {error:#}"));
                failed.hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
                failed
            }
        });
    }
    Ok(report)
}

/// The role that waits goes on without its dumps being read; never without what its data directories need to be whole.
async fn skip(node: &Arc<Node>, run: &Arc<RoleRun>, request: &LoadRequest) -> Result<LoadReport> {
    let role = &run.name;
    let told = match node.state.loading(role)? {
        None => format!("role {role} was not waiting for a load"),
        Some(noted) if noted.placed => {
            node.state.note_loaded(role)?;
            run.supervisor.tell(Event::Retry, Beside::default()).await?;
            format!("role {role} goes on without loading its dumps")
        }
        Some(noted) => {
            let point = noted.point;
            let what = format!(
                "go on without the dumps of role {role}: its data directories were not yet given what {point} kept for \
                 them, and servers would start on a copy that is not whole"
            );
            let hint =
                "standin status tells what stands in the way; it is tried again until it is done";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
    };
    node.hub.note(Some(role), told.clone());
    Ok(LoadReport {
        skipped: Some(told),
        ..LoadReport::of(role, request)
    })
}

fn chosen<'a>(run: &'a RoleRun, wanted: Option<&RoleName>) -> Result<Vec<&'a Dump>> {
    let dumps = &run.role.dumps;
    let Some(wanted) = wanted else {
        if dumps.is_empty() {
            let what = format!("load a dump of role {}: it has none", run.name);
            let hint = "docs/content.md shows how databases are dumped";
            return Err(Failure::new(Code::NotFound, what).hint(hint).into());
        }
        return Ok(dumps.iter().collect());
    };
    let found = dumps.iter().find(|dump| dump.name == *wanted);
    found.map(|dump| vec![dump]).ok_or_else(|| {
        let names: Vec<&str> = dumps.iter().map(|dump| dump.name.as_str()).collect();
        let what = format!(
            "load dump {wanted} of role {}: there is none of that name",
            run.name
        );
        let hint = match nearest(wanted.as_str(), names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("its dumps: {}", names.join(", ")),
        };
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}

async fn stored(run: &Arc<RoleRun>, point: &PointId) -> Result<Stored> {
    let fs = run.fs.clone();
    let all = blocking(move || fs.list()).await?;
    let found = all
        .into_iter()
        .find(|stored| stored.manifest.point == *point);
    found.ok_or_else(|| {
        let what = format!("find {point}, from which the live copy was made");
        let role = &run.name;
        let hint = format!(
            "standin rescan {role} looks for it anew, and fetches it again from a peer where it is damaged"
        );
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}
