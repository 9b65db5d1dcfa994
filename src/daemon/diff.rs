//! Answers `standin diff`: what differs between two states of a role, be they points, forks or live data.
//!
//! The kernel compares the trees and names what differs; here each is looked at on both sides, for its size and for what is no
//! difference to people. So the work follows the changes, not the trees, but for two states that do not descend from one another.
//!
//! Promise: changes nothing. What is compared is kept while it is looked at; of live data a copy is, which goes afterwards, and
//! with the next start after a crash. No lock is held: cycles go on.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::api::{
    DatasetDiff, DiffReport, DiffRequest, DiffSide, DiffSum, DiffSums, DiffTop, DifferenceView,
};
use super::node::{Node, RoleRun, blocking};
use super::{logs, restore};
use crate::error::{Code, Failure};
use crate::fs::{Filesystem, FsError, Held, Inspection, Kept};
use crate::host::look::{Told, Tree};
use crate::logic::changes::{EntryKind, What, shown};
use crate::logic::choose;
use crate::logic::compare::{self, Difference, Kinship, Sum, Sums};
use crate::logic::diff;
use crate::logic::fork::{self, Fork};
use crate::logic::name::{DatasetName, RoleName};

/// Differences answered for one dataset: more are counted, not listed.
const LISTED_MAX: usize = 100_000;

/// Directories named with the sums.
const TOPS_MAX: usize = 10;

/// Largest file that is compared as a text, in bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Texts compared for one dataset, and the bytes of their differences that are shown.
const TEXTS_MAX: usize = 200;
const TEXTS_BYTES_MAX: usize = 4 << 20;

/// In place of a point: what is live now, and what a fork begins with.
const LIVE: &str = "live";
const FORK: &str = "fork:";

const STRANGERS: &str = "these two do not descend from one another on this node (one of them was received or restored as a whole): all \
     files were compared, those of the same size, time and rights count as the same, and what moved is removed and added";

/// One of the two.
enum Side {
    Live,
    Held(Held),
}

pub async fn diff(node: &Arc<Node>, request: DiffRequest) -> Result<DiffReport> {
    let asked = understood(node, request)?;
    let fs = asked.run.fs.clone();
    let (found, forks) = blocking(move || Ok((fs.inspect()?, fs.forks()?))).await?;
    let old = side(node, &asked.run, &asked.old, &found, &forks)?;
    let new = side(node, &asked.run, &asked.new, &found, &forks)?;
    let role = asked.run.name.clone();
    let sides = (old.0, new.0);
    let datasets = blocking(move || {
        let mut datasets = Vec::new();
        for (dataset, path) in chosen(&asked)? {
            let compared = one(&asked, &dataset, &sides, &path);
            datasets.extend(compared.with_context(|| format!("compare {dataset}"))?);
        }
        match datasets.is_empty() {
            true => Err(nothing_there(&asked)),
            false => Ok(datasets),
        }
    })
    .await?;
    Ok(DiffReport {
        role,
        old: old.1,
        new: new.1,
        datasets,
    })
}

/// What is asked for, the words told apart.
struct Asked {
    run: Arc<RoleRun>,
    old: String,
    new: String,
    path: Option<PathBuf>,
    request: DiffRequest,
}

fn understood(node: &Arc<Node>, request: DiffRequest) -> Result<Asked> {
    let named = |word: &String| -> Option<Arc<RoleRun>> {
        let word = RoleName::parse(word).ok()?;
        node.role(&logs::meant(node, &word)).ok()
    };
    let (role, old, new, path) = match request.words.as_slice() {
        [old, new] => (None, old, new, None),
        [role, old, new, path] => {
            let word = RoleName::parse(role)
                .map_err(|_| Failure::new(Code::Usage, format!("find role {role:?}")))?;
            let run = node.role(&logs::meant(node, &word))?;
            (Some(run), old, new, Some(path))
        }
        [first, second, third] => match named(first) {
            Some(run) => (Some(run), second, third, None),
            None => (None, first, second, Some(third)),
        },
        _ => {
            let what = "compare: two points are needed, or a point and live";
            let hint = "standin diff ROLE latest live";
            return Err(Failure::new(Code::Usage, what).hint(hint).into());
        }
    };
    let path = path.map(PathBuf::from);
    let run = role.map_or_else(|| only_role(node, (old, new), path.as_deref()), Ok)?;
    Ok(Asked {
        run,
        old: old.clone(),
        new: new.clone(),
        path,
        request,
    })
}

/// The role that is meant where none is named.
fn only_role(node: &Node, (old, new): (&str, &str), path: Option<&Path>) -> Result<Arc<RoleRun>> {
    let roles = node.roles();
    let path = path.filter(|path| path.is_absolute());
    let holds = |run: &&Arc<RoleRun>| {
        path.is_some_and(|path| {
            run.fs
                .datasets()
                .values()
                .any(|live| path.starts_with(live))
        })
    };
    match (roles.as_slice(), roles.iter().find(holds)) {
        ([only], _) => Ok(only.clone()),
        (_, Some(meant)) => Ok(meant.clone()),
        (roles, None) => {
            let names: Vec<&str> = roles.iter().map(|run| run.name.as_str()).collect();
            let what = format!("compare {old} with {new}: it is not clear in which role");
            let hint = format!(
                "standin diff ROLE {old} {new}; roles of this node: {}",
                names.join(", ")
            );
            Err(Failure::new(Code::Usage, what).hint(hint).into())
        }
    }
}

fn side(
    node: &Node,
    run: &RoleRun,
    words: &str,
    found: &Inspection,
    forks: &[Fork],
) -> Result<(Side, DiffSide)> {
    let told = |kind: &str, short: String, taken| DiffSide {
        kind: kind.to_owned(),
        short,
        taken,
    };
    if words == LIVE {
        return Ok((Side::Live, told(LIVE, LIVE.to_owned(), Timestamp::now())));
    }
    if let Some(words) = words.strip_prefix(FORK) {
        let missing = |why: String| {
            let what = format!("find fork {words:?} of role {}: {why}", run.name);
            Failure::new(Code::NotFound, what).hint(format!("standin fork list {}", run.name))
        };
        let fork = fork::find(forks, words).map_err(missing)?;
        let newest = fork
            .newest()
            .ok_or_else(|| missing("it holds no point".to_owned()))?;
        let held = Held::Forked(fork.name, newest.id.clone());
        return Ok((Side::Held(held), told("fork", fork.short(), newest.taken)));
    }
    let point = choose::find(&found.points, words)
        .map_err(|why| restore::not_found(node, run, words, &found.damaged, why))?;
    let id = point.manifest.point.clone();
    let told = told("point", id.to_string(), point.manifest.taken);
    Ok((Side::Held(Held::Point(id)), told))
}

/// The datasets to compare, and the path in each.
fn chosen(asked: &Asked) -> Result<Vec<(DatasetName, Vec<u8>)>> {
    let (fs, request) = (&asked.run.fs, &asked.request);
    let names = || {
        let names: Vec<&str> = fs.datasets().keys().map(DatasetName::as_str).collect();
        names.join(", ")
    };
    let is_chosen = |name: &DatasetName| request.dataset.as_ref().is_none_or(|one| one == name);
    let mut chosen = Vec::new();
    for (name, live) in fs.datasets().iter().filter(|(name, _)| is_chosen(name)) {
        let inner = match &asked.path {
            None => Path::new(""),
            Some(path) if path.is_absolute() => match path.strip_prefix(live) {
                Ok(inner) => inner,
                Err(_) => continue,
            },
            Some(path) => path,
        };
        let plain: PathBuf = inner.components().collect();
        chosen.push((name.clone(), plain.as_os_str().as_bytes().to_vec()));
    }
    // Of datasets that lie in one another the innermost holds an absolute path.
    if asked.path.as_deref().is_some_and(Path::is_absolute) {
        chosen.sort_by_key(|(_, inner)| inner.len());
        chosen.truncate(1);
    }
    if chosen.is_empty() {
        let what = match (&asked.path, &request.dataset) {
            (Some(path), _) => format!("find {} in a dataset of the role", path.display()),
            (None, dataset) => format!(
                "find dataset {}",
                dataset.as_ref().map_or("", |name| name.as_str())
            ),
        };
        let lives = fs.datasets().iter();
        let lives: Vec<String> = lives
            .map(|(name, live)| format!("{name} ({})", live.display()))
            .collect();
        let hint = if asked.path.is_some() {
            lives.join(", ")
        } else {
            names()
        };
        return Err(Failure::new(Code::NotFound, what)
            .hint(format!("its datasets: {hint}"))
            .into());
    }
    Ok(chosen)
}

fn nothing_there(asked: &Asked) -> anyhow::Error {
    let (role, old, new) = (&asked.run.name, &asked.old, &asked.new);
    let what = format!("compare {old} with {new}: neither holds anything of it on this node");
    Failure::new(Code::NotFound, what)
        .hint(format!("standin points {role} lists what there is"))
        .into()
}

/// Keeps the side's dataset; none where it has none.
fn keep(fs: &dyn Filesystem, dataset: &DatasetName, side: &Side) -> Result<Option<Kept>> {
    let kept = match side {
        Side::Live => fs.hold_live(dataset),
        Side::Held(held) => fs.hold(dataset, held),
    };
    match kept {
        Ok(kept) => Ok(Some(kept)),
        Err(e) if matches!(e.downcast_ref(), Some(FsError::Missing(_))) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Why there is nothing to compare: only the old side (or only the new one) has the dataset.
fn alone(asked: &Asked, sides: &(Side, Side), is_old: bool) -> String {
    let (lacks, side, has) = match is_old {
        true => (&asked.new, &sides.1, &asked.old),
        false => (&asked.old, &sides.0, &asked.new),
    };
    let why = match side {
        Side::Live => "nothing of it is live on this node".to_owned(),
        Side::Held(_) => format!("{lacks} does not hold this dataset"),
    };
    format!("{why}: there is nothing to compare {has} with")
}

fn one(
    asked: &Asked,
    dataset: &DatasetName,
    sides: &(Side, Side),
    path: &[u8],
) -> Result<Option<DatasetDiff>> {
    let (fs, request) = (&*asked.run.fs, &asked.request);
    let mut told = DatasetDiff {
        dataset: dataset.clone(),
        compared: true,
        note: None,
        sums: DiffSums::default(),
        tops: Vec::new(),
        differences: Vec::new(),
        left_out: 0,
    };
    let (old, new) = (keep(fs, dataset, &sides.0)?, keep(fs, dataset, &sides.1)?);
    let (old, new) = match (old, new) {
        (None, None) => return Ok(None),
        (Some(old), Some(new)) => (old, new),
        (old, _) => {
            told.compared = false;
            told.note = Some(alone(asked, sides, old.is_some()));
            return Ok(Some(told));
        }
    };
    let trees = (Tree::open(old.path())?, Tree::open(new.path())?);
    let kinship = match (trees.0.born(), trees.1.born()) {
        (Some(old), Some(new)) if old != new => Kinship::Strangers,
        _ => Kinship::Related,
    };
    let strangers = kinship == Kinship::Strangers;
    told.note = strangers.then(|| STRANGERS.to_owned());
    let mut all = compared(fs, dataset, (&old, &new), &trees, kinship)?;
    compare::united(&mut all);
    all.retain(|difference| difference.concerns(path));
    compare::sort(&mut all);
    told.sums = sums(&Sums::of(&all));
    if request.stat {
        let tops = compare::tops(&all, TOPS_MAX).into_iter();
        told.tops = tops
            .map(|(path, of)| DiffTop {
                path: shown(&path),
                sums: sums(&of),
            })
            .collect();
        told.left_out = all.len() as u64;
        return Ok(Some(told));
    }
    if !request.unfold {
        all = compare::folded(all);
    }
    told.left_out = all.len().saturating_sub(LISTED_MAX) as u64;
    all.truncate(LISTED_MAX);
    told.differences = all.iter().map(view).collect();
    if request.text {
        texts(&trees, &all, &mut told.differences);
    }
    Ok(Some(told))
}

/// What differs, each looked at on both sides.
fn compared(
    fs: &dyn Filesystem,
    dataset: &DatasetName,
    (old, new): (&Kept, &Kept),
    trees: &(Tree, Tree),
    kinship: Kinship,
) -> Result<Vec<Difference>> {
    let mut all = Vec::new();
    for change in compare::paired(fs.changes(dataset, old.held(), new.held())?) {
        let was = change.from.as_ref().unwrap_or(&change.path);
        let old = (change.what != What::Added).then(|| trees.0.entry(was));
        let new = (change.what != What::Removed).then(|| trees.1.entry(&change.path));
        let looked = || format!("look at {}", shown(&change.path));
        let old = old.transpose().with_context(looked)?.flatten();
        let new = new.transpose().with_context(looked)?.flatten();
        all.extend(Difference::of(change, old, new, kinship));
    }
    Ok(all)
}

/// Fills in the differences of texts, for as many as there is room for.
fn texts(trees: &(Tree, Tree), all: &[Difference], views: &mut [DifferenceView]) {
    let (mut count, mut bytes) = (0, 0);
    for (difference, view) in all.iter().zip(views) {
        let is_file = difference.old_bytes.is_some() && difference.new_bytes.is_some();
        if !is_file || !difference.content {
            continue;
        }
        if count == TEXTS_MAX || bytes >= TEXTS_BYTES_MAX {
            view.text_note = Some("not compared: there are too many; name a path".to_owned());
            continue;
        }
        count += 1;
        match text(trees, difference) {
            Ok(text) => {
                bytes += text.len();
                view.text = Some(text);
            }
            Err(note) => view.text_note = Some(note),
        }
    }
}

/// The difference of two texts, or why there is none.
fn text((old, new): &(Tree, Tree), difference: &Difference) -> std::result::Result<String, String> {
    let was = difference.from.as_ref().unwrap_or(&difference.path);
    let read = |tree: &Tree, path: &[u8]| match tree.text(path, TEXT_BYTES_MAX) {
        Ok(Told::Text(text)) => Ok(text),
        Ok(Told::Binary) => Err("not text".to_owned()),
        Ok(Told::TooLarge) => Err("too large to be compared as text".to_owned()),
        Err(error) => Err(format!("could not be read: {error}")),
    };
    let (before, after) = (read(old, was)?, read(new, &difference.path)?);
    let names = (shown(was), shown(&difference.path));
    let unified = diff::unified(&before, &after, (&names.0, &names.1));
    unified.ok_or_else(|| "written anew with the same text".to_owned())
}

fn sum(sum: Sum) -> DiffSum {
    DiffSum {
        files: sum.files,
        directories: sum.directories,
        bytes: sum.bytes,
    }
}

fn sums(sums: &Sums) -> DiffSums {
    DiffSums {
        added: sum(sums.added),
        removed: sum(sums.removed),
        changed: sum(sums.changed),
        renamed: sum(sums.renamed),
        metadata: sum(sums.metadata),
    }
}

fn view(difference: &Difference) -> DifferenceView {
    let what = match difference.what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
        What::Renamed => "renamed",
        What::Metadata => "metadata",
    };
    let kind = |kind: EntryKind| {
        let word = match kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::Special => "special",
        };
        word.to_owned()
    };
    DifferenceView {
        what: what.to_owned(),
        path: shown(&difference.path),
        from: difference.from.as_deref().map(shown),
        kind: difference.kind.map(kind),
        was: difference.was.map(kind),
        old_bytes: difference.old_bytes,
        new_bytes: difference.new_bytes,
        written: difference.written,
        content: difference.content,
        metadata: difference.metadata,
        at: difference.at.and_then(|at| Timestamp::from_second(at).ok()),
        inside: difference.inside.map(sum),
        text: None,
        text_note: None,
    }
}
