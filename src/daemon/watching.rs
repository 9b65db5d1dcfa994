//! Waits for a change in a role's live data: what `on-change` is made of.
//!
//! A look is a handful of system calls that read no disk and write none (`Filesystem::watch`). Where it cannot tell, because
//! something that is not on disk yet was written beside the role or to it, a look that syncs decides, and the more of those are
//! in vain the rarer they become. Promise: while nothing is written on the filesystem, nothing is written by looking either.
//!
//! Nothing of it is kept on disk. It deliberately does not know when a point may be taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::node::{RoleRun, blocking};
use crate::fs::{Touch, Watch};
use crate::logic::manifest::Stored;
use crate::logic::point::PointId;
use crate::logic::schedule::{Doubt, LOOK_EVERY};

/// Longest wait for a change, after which the caller looks at everything else that may have changed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What a role's schedule knows of its live data.
#[derive(Default)]
pub struct Watching {
    since: Option<Since>,
    doubt: Doubt,
    /// The last look that synced, and found nothing.
    looked: Option<Instant>,
    /// The newest point when something seemed to have changed the last time.
    acted: Option<PointId>,
}

struct Since {
    newest: Stored,
    watch: Box<dyn Watch>,
}

impl Watching {
    /// True as soon as something changed since the newest point. False when the role was woken, and after a while.
    pub async fn change(&mut self, run: &Arc<RoleRun>) -> Result<bool> {
        let begun = Instant::now();
        self.begin(run).await?;
        while begun.elapsed() < WAIT_MAX {
            if self.since.is_none() || self.looks(run).await? {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = run.wake.notified() => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Compares with the newest point from here on.
    async fn begin(&mut self, run: &Arc<RoleRun>) -> Result<()> {
        let fs = run.fs.clone();
        self.since = blocking(move || {
            let Some(newest) = fs.list()?.pop() else {
                return Ok(None);
            };
            let watch = fs.watch(&newest)?;
            Ok(Some(Since { newest, watch }))
        })
        .await?;
        let newest = self
            .since
            .as_ref()
            .map(|since| &since.newest.manifest.point);
        if let Some(acted) = self.acted.take() {
            // What seemed to have changed gave no point: it cannot be taken, or the look is wrong.
            match newest == Some(&acted) {
                true => self.vain(Doubt::SLOW),
                false => self.doubt.founded(),
            }
        }
        Ok(())
    }

    fn vain(&mut self, took: Duration) {
        let after = self.looked.map_or(Duration::MAX, |at| at.elapsed());
        self.doubt.in_vain(took, after);
        self.looked = Some(Instant::now());
    }

    async fn looks(&mut self, run: &Arc<RoleRun>) -> Result<bool> {
        let Some(since) = &mut self.since else {
            return Ok(true);
        };
        // On this thread: handing it to another one takes twenty times as long as the look.
        let touch = since.watch.look();
        let point = &since.newest.manifest.point;
        if touch == Touch::Quiet {
            run.looked.unchanged(point);
            return Ok(false);
        }
        let pause = self.doubt.pause();
        if self.looked.is_some_and(|at| at.elapsed() < pause) {
            return Ok(false);
        }
        if touch == Touch::Dirty {
            let (fs, newest, begun) = (run.fs.clone(), since.newest.clone(), Instant::now());
            if !blocking(move || fs.changed(&newest)).await? {
                run.looked.unchanged(point);
                self.vain(begun.elapsed());
                return Ok(false);
            }
        }
        self.acted = Some(point.clone());
        Ok(true)
    }
}
