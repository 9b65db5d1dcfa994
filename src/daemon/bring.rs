//! Brings one version of a path back: over what is live, beside it, or to another place.
//!
//! Promise: the target shows what was there before or the whole version, never a part; over live data, what was live is a point
//! first (P5). What comes from a peer is fetched whole and verified before anything is touched. A crash leaves a hidden name
//! beside the target, a part in `fetched` of the state directory, or empty directories, at worst.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::api::{
    BringReport, BringRequest, Came, CameRequest, RestoreReport, Source, To, summary,
};
use super::cat;
use super::cycle::planned;
use super::fetch;
use super::find::{self, Chosen};
use super::node::{Node, blocking};
use super::restore;
use super::restore::put::{Put, put};
use crate::error::{Code, Failure};
use crate::fs::Held;
use crate::host::peek::Tree;
use crate::logic::diff;
use crate::logic::fork::{Figures, Measure};
use crate::logic::versions::{Facts, Kind};

/// Longest texts that are compared, in bytes.
const TEXT_MAX: u64 = 256 << 10;

pub async fn bring(node: &Arc<Node>, request: BringRequest) -> Result<BringReport> {
    let chosen = find::choose(node, &request.wanted, "restore").await?;
    let target = target(&chosen, &request.to)?;
    let over = request.to == To::Live;
    allowed(node, &chosen, &request.to, &target)?;
    let mut report = BringReport {
        restore: RestoreReport {
            dry_run: request.dry_run,
            role: chosen.run.name.clone(),
            point: chosen
                .source
                .point
                .as_ref()
                .map_or_else(|| now(&chosen), summary),
            kept: None,
            steps: Vec::new(),
        },
        dataset: chosen.dataset.clone(),
        path: chosen.inner.clone(),
        live_path: chosen.live.clone(),
        target: target.clone(),
        source: chosen.source.clone(),
        version: chosen.version.clone(),
        live: None,
        diff: None,
        same: false,
    };
    if request.dry_run {
        preview(node, &chosen, over, &mut report).await?;
        return Ok(report);
    }
    let text = sentence(&chosen, &target);
    let (source, root) = match chosen.source.peer {
        Some(_) => {
            let at = (&chosen.dataset, chosen.inner.as_path());
            let path = fetch::file(node, &chosen.run, at, &chosen.source).await?;
            (path.into(), None)
        }
        None => {
            let (root, _) = cat::facts_here(&chosen).await?;
            (root.below(&chosen.inner), Some(root))
        }
    };
    let fetched = chosen.source.peer.is_some().then(|| source.to_path_buf());
    let is_inside = matches!(request.to, To::Live | To::Beside);
    let what = Put {
        source,
        target,
        over,
        inside: is_inside.then_some((&chosen.dataset, &chosen.inner)),
        like: root,
        text,
    };
    put(node, &chosen.run, what, &mut report.restore).await?;
    if let Some(fetched) = fetched {
        // Where it cannot be removed now it is after some days.
        let _ = std::fs::remove_file(fetched);
    }
    Ok(report)
}

/// In place of a point, where the live data are what is copied.
fn now(chosen: &Chosen) -> super::api::PointSummary {
    let mut point = summary(&crate::logic::point::PointName {
        taken: jiff::Timestamp::now(),
        epoch: 0,
        sequence: 0,
    });
    point.short = chosen.source.words();
    point
}

fn target(chosen: &Chosen, to: &To) -> Result<PathBuf> {
    let name = chosen.inner.file_name().unwrap_or_default();
    match to {
        To::Live => Ok(chosen.live.clone()),
        To::Beside => {
            let short = match &chosen.source.point {
                Some(point) => format!("{}.{}", point.epoch, point.sequence),
                None => "live".to_owned(),
            };
            let mut beside = name.to_owned();
            beside.push(format!(".standin-{short}"));
            Ok(chosen.live.with_file_name(beside))
        }
        To::Path(to) if !to.is_absolute() => {
            let what = format!("restore to {}: not an absolute path", to.display());
            Err(Failure::new(Code::Usage, what)
                .hint("write the whole path")
                .into())
        }
        // `cp` manners: into a directory, or as the name given.
        To::Path(to) if to.is_dir() => Ok(to.join(name)),
        To::Path(to) => Ok(to.clone()),
    }
}

/// What can be refused is refused before anything is shown or touched.
fn allowed(node: &Node, chosen: &Chosen, to: &To, target: &Path) -> Result<()> {
    let over = *to == To::Live;
    let refused =
        |code: Code, what: String, hint: String| Err(Failure::new(code, what).hint(hint).into());
    let path = chosen.live.display();
    let version = chosen.version.as_ref();
    if over && chosen.is_live {
        let number = version.and_then(|v| v.number).unwrap_or(0);
        return refused(
            Code::Refused,
            format!("restore {path}: version {number} is what is live now"),
            format!("standin find {path} lists the others; --beside makes a copy"),
        );
    }
    let kind = version.and_then(|version| version.kind);
    if let (Some(peer), Some(Kind::Directory | Kind::Special)) = (&chosen.source.peer, kind) {
        let what = format!("restore {path} from {peer}: only single files are fetched from a peer");
        let hint = format!(
            "standin find '{path}/*' lists the files; or on {peer}: standin restore {path} --to DIR"
        );
        return refused(Code::Refused, what, hint);
    }
    // Beside what is live is among what is live.
    if over || *to == To::Beside {
        restore::expect_active(node, &chosen.run)?;
    }
    if !over && target.symlink_metadata().is_ok() {
        return refused(
            Code::Usage,
            format!("restore to {}: it exists", target.display()),
            "name a target that does not exist with --to; nothing was touched".to_owned(),
        );
    }
    Ok(())
}

fn sentence(chosen: &Chosen, target: &Path) -> String {
    let (inner, source) = (chosen.inner.display(), chosen.source.words());
    format!("put {inner} of {source} at {}", target.display())
}

/// Plan, what is live, and how it differs.
async fn preview(
    node: &Arc<Node>,
    chosen: &Chosen,
    over: bool,
    report: &mut BringReport,
) -> Result<()> {
    let steps = &mut report.restore.steps;
    if let Some(peer) = &chosen.source.peer {
        let text = format!("fetch it from {peer}, without extended attributes and ACLs");
        steps.push(planned("fetch", text));
    }
    if over {
        steps.push(planned("snapshot", "keep what is live now as a point"));
    }
    steps.push(planned("copy", sentence(chosen, &report.target)));
    let (live, facts) = live_facts(chosen).await;
    report.live = facts.as_ref().map(told);
    let (Some(live), Some(facts)) = (live, facts) else {
        return Ok(());
    };
    if facts.kind != Kind::File || facts.size > TEXT_MAX {
        return Ok(());
    }
    // A comparison that cannot be made is no reason not to restore.
    let Ok(Some(theirs)) = cat::small(node, chosen, TEXT_MAX).await else {
        return Ok(());
    };
    let inner = chosen.inner.clone();
    let ours = blocking(move || {
        let (mut file, _) = live.file(&inner)?;
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut all)?;
        Ok(all)
    });
    let Ok(ours) = ours.await else { return Ok(()) };
    report.same = ours == theirs;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|t| !t.contains('\0'));
    if let (Some(ours), Some(theirs)) = (text(ours), text(theirs)) {
        let names = ("live", chosen.source.words());
        report.diff = diff::unified(&ours, &theirs, (names.0, &names.1));
    }
    Ok(())
}

/// What is live at the path now, where it can be looked at.
async fn live_facts(chosen: &Chosen) -> (Option<Tree>, Option<Facts>) {
    let (fs, dataset) = (chosen.run.fs.clone(), chosen.dataset.clone());
    let inner = chosen.inner.clone();
    let looked = blocking(move || {
        let live = Source {
            point: None,
            fork: None,
            peer: None,
        };
        let tree = Tree::open(&find::root_of(&*fs, &dataset, &live)?)?;
        let facts = tree.facts(&inner)?;
        Ok((tree, facts))
    });
    match looked.await {
        Ok((tree, facts)) => (Some(tree), facts),
        Err(_) => (None, None),
    }
}

fn told(facts: &Facts) -> String {
    let changed = jiff::Timestamp::from_second(facts.mtime.0).ok();
    let changed = changed.map(|at| {
        let zoned = at.to_zoned(TimeZone::system());
        format!(", changed {}", zoned.strftime("%Y-%m-%d %H:%M:%S"))
    });
    format!("{}{}", find::words(facts), changed.unwrap_or_default())
}

/// Longest wait for what came with some points: somebody looks at a list.
const CAME_MAX: Duration = Duration::from_secs(3);

/// Points of one question.
const CAME_POINTS_MAX: usize = 50;

/// How some points differ from those before them, as far as that is told in a moment.
pub async fn came(node: &Arc<Node>, request: CameRequest) -> Result<Came> {
    let run = node.role(&request.role)?;
    let (told, mut points) = tokio::sync::mpsc::unbounded_channel();
    let fs = run.fs.clone();
    // Goes on where nobody waits any more until the comparison it is at is over.
    let reading = blocking(move || {
        let stored = fs.list()?;
        for name in request.points.iter().take(CAME_POINTS_MAX) {
            let at = stored
                .iter()
                .position(|stored| stored.manifest.name() == *name);
            let Some(at) = at.filter(|at| *at > 0) else {
                continue;
            };
            let pair =
                [&stored[at - 1], &stored[at]].map(|s| Held::Point(s.manifest.point.clone()));
            let mut figures = BTreeMap::new();
            for dataset in stored[at].manifest.datasets.keys() {
                // A dataset that the one before did not have has nothing to be compared with.
                if let Ok(changes) = fs.changes(dataset, &pair[0], &pair[1]) {
                    figures.insert(dataset.clone(), Figures::of(&changes));
                }
            }
            let short = stored[at].manifest.point.to_string();
            if told.send((short, Measure::of(figures).total)).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut came = BTreeMap::new();
    let gather = async {
        while let Some((short, figures)) = points.recv().await {
            came.insert(short, figures);
        }
    };
    let all = async {
        let (read, ()) = tokio::join!(reading, gather);
        read
    };
    // What is known by then is told.
    match tokio::time::timeout(CAME_MAX, all).await {
        Ok(read) => read?,
        Err(_) => tracing::debug!("comparing points of {} takes long", run.name),
    }
    Ok(Came { points: came })
}
