//! The bytes of one version of a file, from here or from a peer.
//!
//! Promise: reads and nothing else, in pieces, no faster than they are taken. What a peer sends is compared with the hash of the
//! whole at the end: an error after the last byte means that the bytes are not to be believed.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::api::{CatRequest, Shown};
use super::fetch::{Piece, Reading};
use super::find::{self, Chosen, root_of};
use super::node::{Node, blocking};
use crate::error::{Code, Failure};
use crate::fs::Readable;
use crate::host::peek::Tree;
use crate::logic::versions::{Facts, Kind};

/// Pieces between who reads and who tells.
pub const QUEUE_PIECES: usize = 4;

/// Bytes of a piece.
const PIECE_BYTES: usize = 128 << 10;

/// Gives the bytes in pieces, and tells where they are from.
pub async fn cat(
    node: &Arc<Node>,
    request: CatRequest,
    pieces: mpsc::Sender<Vec<u8>>,
) -> Result<Shown> {
    let chosen = find::choose(node, &request.wanted, "show").await?;
    let bytes = match chosen.source.peer {
        Some(_) => from_peer(node, &chosen, &pieces).await?,
        None => from_here(&chosen, pieces).await?,
    };
    Ok(Shown {
        role: chosen.run.name.clone(),
        dataset: chosen.dataset,
        path: chosen.inner,
        source: chosen.source,
        bytes,
    })
}

fn expect_file(chosen: &Chosen, facts: &Facts) -> Result<()> {
    if facts.kind == Kind::File {
        return Ok(());
    }
    let path = chosen.live.display();
    let what = format!(
        "show {path} of {}: it is no file but a {}",
        chosen.source.words(),
        find::words(facts)
    );
    let hint = match facts.kind {
        Kind::Directory => format!("standin find '{path}/*' lists what was in it"),
        _ => format!("standin restore {path} brings it back as it was"),
    };
    Err(Failure::new(Code::Usage, what).hint(hint).into())
}

/// The facts of what was chosen, where this node has it, and the tree it is in.
pub async fn facts_here(chosen: &Chosen) -> Result<(Readable, Facts)> {
    let (fs, dataset) = (chosen.run.fs.clone(), chosen.dataset.clone());
    let (source, inner) = (chosen.source.clone(), chosen.inner.clone());
    blocking(move || {
        let root = root_of(&*fs, &dataset, &source)?;
        let tree = Tree::open(&root).with_context(|| format!("look into {}", source.words()))?;
        let facts = tree.facts(&inner);
        let facts = facts.with_context(|| format!("look at {}", inner.display()))?;
        let facts = facts.ok_or_else(|| {
            let what = format!("find {} in {}", inner.display(), source.words());
            Failure::new(Code::NotFound, what).hint("standin find lists what there is now")
        })?;
        Ok((root, facts))
    })
    .await
}

async fn from_here(chosen: &Chosen, pieces: mpsc::Sender<Vec<u8>>) -> Result<u64> {
    let (root, facts) = facts_here(chosen).await?;
    expect_file(chosen, &facts)?;
    let inner = chosen.inner.clone();
    let what = format!("read {} of {}", inner.display(), chosen.source.words());
    blocking(move || {
        let (mut file, _) = Tree::open(&root)?.file(&inner)?;
        let mut bytes = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let got = file
                .by_ref()
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut piece)?;
            bytes += got as u64;
            // Whoever listened is gone: nothing more to do.
            if got == 0 || pieces.blocking_send(piece).is_err() {
                return Ok(bytes);
            }
        }
    })
    .await
    .context(what)
}

async fn from_peer(
    node: &Arc<Node>,
    chosen: &Chosen,
    pieces: &mpsc::Sender<Vec<u8>>,
) -> Result<u64> {
    let at = (&chosen.dataset, chosen.inner.as_path());
    let mut reading = Reading::begin(node, &chosen.run, at, &chosen.source, 0).await?;
    expect_file(chosen, &reading.facts)?;
    let mut hasher = blake3::Hasher::new();
    let mut arrived = 0;
    loop {
        match reading.next().await? {
            Piece::Data(data) => {
                hasher.update(&data);
                arrived += data.len() as u64;
                if pieces.send(data).await.is_err() {
                    return Ok(arrived);
                }
            }
            Piece::Whole { bytes, hash } => {
                let ours = hasher.finalize().to_hex();
                reading.verify((bytes, &hash), (arrived, ours.as_str()))?;
                return Ok(arrived);
            }
        }
    }
}

/// The first `most` bytes of what was chosen, for a comparison; none where it has more, or is no file.
pub async fn small(node: &Arc<Node>, chosen: &Chosen, most: u64) -> Result<Option<Vec<u8>>> {
    if chosen.source.peer.is_some() {
        let at = (&chosen.dataset, chosen.inner.as_path());
        let mut reading = Reading::begin(node, &chosen.run, at, &chosen.source, 0).await?;
        if reading.facts.kind != Kind::File || reading.facts.size > most {
            return Ok(None);
        }
        let mut all = Vec::new();
        while let Piece::Data(data) = reading.next().await? {
            all.extend(data);
        }
        return Ok(Some(all));
    }
    let (root, facts) = facts_here(chosen).await?;
    if facts.kind != Kind::File || facts.size > most {
        return Ok(None);
    }
    let inner = chosen.inner.clone();
    blocking(move || {
        let (file, _) = Tree::open(&root)?.file(&inner)?;
        let mut all = Vec::new();
        file.take(most).read_to_end(&mut all)?;
        Ok(Some(all))
    })
    .await
}
