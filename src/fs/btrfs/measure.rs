//! What a send will carry, before its first byte: one pass without file data, and a look at the inodes.
//!
//! The pass is kept for the send (`fill::Spools`), and made once for all who measure the same at the same time. The look goes on
//! beside it: it reads the same leaves of the tree, so that each finds some of them in memory already.
//!
//! Leaves nothing on disk. It deliberately does not know who asks.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::catalogue::Catalogue;
use super::fill;
use super::send::{Job, Stream, VERSION_MAX, Way, kernel_version};
use crate::fs::{Measured, Outgoing, Remembered, Result};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// Bytes read at a time: what a pipe holds.
const READ_BYTES: usize = 1 << 20;

/// See `Filesystem::measure`.
pub fn measure(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
    version_max: u32,
) -> Result<Measured> {
    let version = version_max.min(kernel_version()).clamp(1, VERSION_MAX);
    let job = Arc::new(Job::prepare(catalogue, dataset, base, point)?);
    let spool = catalogue.spools.of(job.key(version));
    let (data_bytes, flags) = std::thread::scope(|scope| {
        let flags = scope.spawn(|| job.flags());
        let keeping = catalogue.spools.begin();
        let passed = spool.passed(|| pass(job.clone(), version, keeping));
        let flags = flags
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread that reads flags panicked")));
        (passed, flags)
    });
    Ok(Measured {
        identity: job.identity(version),
        data_bytes: data_bytes.with_context(|| format!("measure {}", job.label))?,
        flags: flags?,
        kept: Remembered(Some(fill::held(spool))),
    })
}

fn pass(job: Arc<Job>, version: u32, mut keeping: fill::Keeping<'_>) -> Result<fill::Pass> {
    let mut stream = Stream::start(job, version, Way::Bare, None)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let got = stream
            .read(&mut buffer)
            .context("read the measuring stream")?;
        if got == 0 {
            break;
        }
        keeping.push(&buffer[..got]);
        if got < READ_BYTES {
            stream.pause();
        }
    }
    let data_bytes = stream.data_bytes();
    Box::new(stream).finish()?;
    Ok(fill::Pass {
        data_bytes,
        commands: keeping.end(),
    })
}
