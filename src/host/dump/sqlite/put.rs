//! The way back of copies: to where their databases were.
//!
//! Promise: a database that is there is left alone, unless it is to be replaced and nobody has it open. What takes its place
//! comes with one rename, owner and mode as they were; a log of another database that lies beside is taken away before, or
//! SQLite would put it into this one.
//!
//! A crash leaves a `.NAME.standin-new` beside, which the next try overwrites, and perhaps a database without the log that is
//! to be replaced with it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::index::{Entry, Index};
use super::{COMPANIONS, companion, whole};
use crate::error::{Code, Failure};
use crate::host::dump::{Around, Loaded};
use crate::host::writers::writers;

/// Puts back every copy that the live data hold. A drill works on copies of the datasets: what is missing in them is put there,
/// and all else is looked at; nothing outside of them is touched.
pub async fn back(to: PathBuf, around: Around, replace: bool) -> Result<Loaded> {
    let work = tokio::task::spawn_blocking(move || all(&to, &around, replace));
    work.await.context("put the copies back")?
}

fn all(to: &Path, around: &Around, replace: bool) -> Result<Loaded> {
    let dir = around.here(to);
    let Some(index) = Index::read(&dir)? else {
        let what = format!(
            "find copies of databases: {} has no {}",
            dir.display(),
            super::index::NAME
        );
        let hint = "the point holds none: it is from before the dump, or its dump failed (see standin points)";
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    };
    let drill = around.copies != around.datasets;
    let (mut put, mut kept, mut looked) = (Vec::new(), Vec::new(), 0);
    for entry in &index.files {
        let copy = entry.copy(&dir);
        let target = target(entry, around, drill);
        // SQLite makes an empty database of an empty file: what was not begun is there no more than what is missing.
        let is_empty = |path: &Path| std::fs::metadata(path).map_or(true, |facts| facts.len() == 0);
        match target {
            Some(target) if is_empty(&target) || (replace && !drill) => {
                one(entry, &copy, &target)?;
                put.push(target.display().to_string());
            }
            Some(target) if !drill => kept.push(target.display().to_string()),
            _ => {
                whole(&copy)
                    .with_context(|| format!("use the copy of {}", entry.path.display()))?;
                looked += 1;
            }
        }
    }
    let mut said = Vec::new();
    match put.as_slice() {
        [] => {}
        [one] => said.push(format!("put back {one}")),
        more => said.push(format!("put back {} databases", more.len())),
    }
    if !kept.is_empty() {
        said.push(format!("left alone, being there: {}", kept.join(", ")));
    }
    match looked {
        0 => {}
        1 => said.push("1 copy is whole".to_owned()),
        more => said.push(format!("{more} copies are whole")),
    }
    Ok(match (put.len() + looked, kept.len()) {
        (0, 0) => Loaded::Done("put back nothing: the dump is of no database".to_owned()),
        (0, _) => Loaded::NotEmpty(format!("there already: {}", kept.join(", "))),
        _ => Loaded::Done(said.join("; ")),
    })
}

/// Where the database belongs: in the dataset that it came from, which may lie elsewhere on this node, else where it was. None in a
/// drill, where nothing outside of the copies is touched.
fn target(entry: &Entry, around: &Around, drill: bool) -> Option<PathBuf> {
    let inside = entry.inside.as_ref();
    let inside = inside.and_then(|(name, path)| Some(around.copies.get(name)?.join(path)));
    inside.or_else(|| (!drill).then(|| entry.path.clone()))
}

fn one(entry: &Entry, copy: &Path, target: &Path) -> Result<()> {
    let shown = target.display();
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
        anyhow::bail!("put a database back to {shown}");
    };
    if !dir.is_dir() {
        let what = format!("put {shown} back: there is no directory {}", dir.display());
        let hint =
            "make it as its application wants it (installing that mostly does), then: standin load";
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    }
    free(target)?;
    let beside = dir.join(format!(".{}.standin-new", name.to_string_lossy()));
    let putting = || -> Result<()> {
        let _ = std::fs::remove_file(&beside);
        let made = File::options().write(true).create_new(true).open(&beside)?;
        std::fs::copy(copy, &beside)?;
        std::os::unix::fs::chown(&beside, Some(entry.uid), Some(entry.gid))?;
        made.set_permissions(Permissions::from_mode(entry.mode & 0o777))?;
        made.sync_all()?;
        for end in COMPANIONS {
            match std::fs::remove_file(companion(target, end)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        File::open(dir)?.sync_all()?;
        std::fs::rename(&beside, target)?;
        File::open(dir)?.sync_all()?;
        Ok(())
    };
    putting()
        .with_context(|| format!("put {shown} back"))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })
}

/// Nobody writes the file, or its log.
fn free(target: &Path) -> Result<()> {
    if !target.exists() {
        return Ok(());
    }
    let real = target.canonicalize()?;
    let of_it =
        |path: &Path| path == real || COMPANIONS.iter().any(|end| path == companion(&real, end));
    let Some(writer) = writers(&real)?
        .into_iter()
        .find(|writer| of_it(&writer.path))
    else {
        return Ok(());
    };
    let what = format!("replace {}: {writer}", target.display());
    let hint = "stop what uses it, then: standin load";
    Err(Failure::new(Code::Locked, what).hint(hint).into())
}
