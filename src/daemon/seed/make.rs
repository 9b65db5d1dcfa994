//! One seeded file: followed, compared, written.
//!
//! Promise: the hash of what will be there is on disk before it is there (see `host::seed::memory`), and what is looked at
//! is looked at again after the template was followed, so that an edit made meanwhile is seen.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::super::api::{SeedState, SeedStep, SeedView};
use super::super::node::{Node, RoleRun, blocking};
use super::{Depth, Ground, step};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::host::seed::memory::Remembered;
use crate::host::{seed as files, user};
use crate::logic::seed::{Engine, Present, Seed, Verdict, judge, percent};
use crate::peer::message::plain;

/// What is known of a file before anything is done about it.
struct Looked {
    /// What should be there.
    text: String,
    hash: String,
    /// Hash of what it is made of.
    input: String,
    present: Present,
    /// The text that is there.
    now: Vec<u8>,
    owner: Option<(u32, u32)>,
    known: Remembered,
    verdict: Verdict,
}

pub async fn one(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    seed: &Seed,
    ground: &Ground,
    depth: Depth,
) -> Result<SeedStep> {
    let looked = look(node, run, seed, ground).await?;
    let mut made = step(run, seed, SeedState::Fresh);
    made.file.written = looked.known.at;
    match looked.verdict {
        Verdict::NoFile => {
            let Present::Other(what) = &looked.present else {
                anyhow::bail!("tell what is at {}", seed.to.display());
            };
            let what = format!("write {}: {what} is there", seed.to.display());
            let hint = "move it away, or seed the file that it leads to";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        Verdict::Fresh => {
            let hashes = &looked.known.hashes;
            let recorded = hashes.written.as_deref() == Some(&*looked.hash)
                && hashes.writing.is_none()
                && looked.known.input.as_deref() == Some(&*looked.input);
            if depth.writes() && !recorded {
                // Cut between the writing and the note of it: what follows a change is due.
                let cut = hashes.writing.as_deref() == Some(&*looked.hash);
                let hashes = (looked.hash.as_str(), looked.input.as_str());
                node.state.record_seed(&run.name, &seed.to, hashes, cut)?;
            }
        }
        Verdict::Dress => dress(seed, &looked, depth, &mut made).await?,
        Verdict::Write => {
            "write".clone_into(&mut made.what);
            write(node, run, seed, &looked, depth, &mut made).await?;
        }
        Verdict::Edited | Verdict::Foreign if depth.replaces() => {
            "replace".clone_into(&mut made.what);
            write(node, run, seed, &looked, depth, &mut made).await?;
        }
        verdict @ (Verdict::Edited | Verdict::Foreign) => {
            edited(run, &mut made.file, verdict);
            if depth.is_asked() {
                made.diff = diff(&looked.now, &looked.text);
            }
        }
    }
    Ok(made)
}

async fn look(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    seed: &Seed,
    ground: &Ground,
) -> Result<Looked> {
    let (dataset, path) = &seed.from;
    let source = seed.source();
    let root = ground.roots.get(dataset).cloned();
    let root = root.with_context(|| format!("find {dataset}"))?;
    let owner = owner(seed)?;
    let known = node.state.seed(&run.name, &seed.to)?;
    let path = path.clone();
    let template = blocking(move || files::template(&root, &path)).await;
    let template = template.with_context(|| format!("use the template {source}"))?;
    let values = serde_json::to_vec(&ground.values).context("list the values")?;
    let engine = seed.engine.word().as_bytes();
    let input = files::hash(&[engine, b"\0", &values, b"\0", template.as_bytes()].concat());
    let (mut present, mut now) = present_at(seed).await?;
    let untouched = matches!(&present, Present::File(facts) if known.hashes.written.as_ref() == Some(&facts.hash));
    let text = match seed.engine {
        Engine::Percent => percent(&template, &ground.values).map_err(anyhow::Error::from),
        // What is there was made of the same: no process is started to see it again.
        Engine::Jinja if untouched && known.input.as_ref() == Some(&input) => {
            String::from_utf8(now.clone()).context("read the file")
        }
        Engine::Jinja => {
            let text = files::worker::follow(&source, &template, &ground.values).await;
            (present, now) = present_at(seed).await?;
            text
        }
    };
    // It may say what the template says.
    let text = text.map_err(|error| anyhow::anyhow!("{}", plain(&format!("{error:#}"))));
    let text = text.with_context(|| format!("use the template {source}"))?;
    let hash = files::hash(text.as_bytes());
    let verdict = judge(&hash, &present, &known.hashes, seed.mode, owner);
    Ok(Looked {
        text,
        hash,
        input,
        present,
        now,
        owner,
        known,
        verdict,
    })
}

async fn present_at(seed: &Seed) -> Result<(Present, Vec<u8>)> {
    let to = seed.to.clone();
    blocking(move || files::look(&to)).await
}

fn owner(seed: &Seed) -> Result<Option<(u32, u32)>> {
    let Some((user, group)) = &seed.owner else {
        return Ok(None);
    };
    let unknown = |kind: &str, name: &str| {
        let what = format!(
            "give {} to {name}: there is no such {kind}",
            seed.to.display()
        );
        Failure::new(Code::NotFound, what).hint("make it, or mend `owner`; a number works too")
    };
    let uid = user::user_number(user).ok_or_else(|| unknown("user", user))?;
    let gid = user::group_number(group).ok_or_else(|| unknown("group", group))?;
    Ok(Some((uid, gid)))
}

async fn dress(seed: &Seed, looked: &Looked, depth: Depth, made: &mut SeedStep) -> Result<()> {
    "attributes".clone_into(&mut made.what);
    if !depth.writes() {
        made.file.state = SeedState::Stale;
        made.file.why = Some("its mode or owner is not as configured".to_owned());
        return Ok(());
    }
    let (to, mode, owner) = (seed.to.clone(), seed.mode, looked.owner);
    blocking(move || files::dress(&to, mode, owner)).await
}

async fn write(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    seed: &Seed,
    looked: &Looked,
    depth: Depth,
    made: &mut SeedStep,
) -> Result<()> {
    if depth.is_asked() {
        made.diff = diff(&looked.now, &looked.text);
    }
    if !depth.writes() {
        made.file.state = SeedState::Stale;
        made.file.why = Some(match looked.present {
            Present::Nothing => "it is not there yet".to_owned(),
            _ if made.what == "replace" => "somebody else wrote it".to_owned(),
            _ => "the template, or a value, changed".to_owned(),
        });
        return Ok(());
    }
    let (name, state) = (run.name.clone(), node.state.clone());
    let (to, mode, owner) = (seed.to.clone(), seed.mode, looked.owner);
    let (text, present) = (looked.text.clone().into_bytes(), looked.present.clone());
    let (hash, input) = (looked.hash.clone(), looked.input.clone());
    let replace = made.what == "replace";
    made.kept = blocking(move || {
        let kept = replace
            .then(|| files::keep(&to, Timestamp::now()))
            .transpose()?;
        state.record_seed_begun(&name, &to, &hash)?;
        freeze("seed-begun");
        files::write(&to, &text, &present, mode, owner)?;
        freeze("seed-written");
        state.record_seed(&name, &to, (&hash, &input), true)?;
        Ok(kept)
    })
    .await?;
    made.file.written = Some(Timestamp::now());
    let kept = made.kept.as_ref();
    let kept = kept.map_or_else(String::new, |kept| {
        format!("; what was there is kept as {}", kept.display())
    });
    let text = format!("wrote {} from {}{kept}", seed.to.display(), seed.source());
    node.hub.note(Some(&run.name), text);
    Ok(())
}

/// Somebody else's text is left alone: who changes a file on one server in an emergency must not lose that to a timer.
fn edited(run: &RoleRun, file: &mut SeedView, verdict: Verdict) {
    file.state = SeedState::Edited;
    file.why = Some(match verdict {
        Verdict::Foreign => {
            "a file is there that standin did not write; it is left alone".to_owned()
        }
        _ => "it was edited here since standin wrote it; it is left alone".to_owned(),
    });
    file.hint = Some(format!(
        "standin seed {role} --dry-run shows the difference; bring what is right into the template, then standin seed {role} \
         --replace writes the file and keeps this one beside it",
        role = run.name
    ));
}

/// The file is right, and what was to follow its last change did not.
pub fn command_failed(run: &RoleRun, file: &mut SeedView, why: &str) {
    file.state = SeedState::Failing;
    file.why = Some(format!(
        "the file is written, but the command after the change failed: {why}"
    ));
    file.hint = Some(format!(
        "mend the command (`after`), then run it again: standin seed {}",
        run.name
    ));
}

/// What changes, as text; none where either is no text, or nothing does.
fn diff(now: &[u8], text: &str) -> Option<String> {
    let now = std::str::from_utf8(now).ok()?;
    crate::logic::diff::unified(now, text, ("now", "from the template"))
}
