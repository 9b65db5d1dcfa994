//! How many bytes of the live data no point of a peer holds: measured beside everything else, remembered for a while.
//!
//! Promise: whoever asks waits a moment at most and gets what is known; at most one measurement of a role runs at a time, and
//! what takes long is done seldom. What is not known is not said.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::node::{RoleRun, blocking, lock};
use crate::fs::{Filesystem, Result};
use crate::logic::point::PointId;

/// How long a measurement is believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// One that took long is believed for this many times what it took.
const COSTS_LITTLE: u32 = 20;

/// How long whoever asks waits for it.
const WAIT_MOST: Duration = Duration::from_millis(250);

/// The oldest stream protocol: what is counted does not depend on it.
const STREAM_VERSION: u32 = 1;

/// Measurements, by the point from which they count.
#[derive(Debug, Default)]
pub struct Unsaved {
    known: Mutex<HashMap<PointId, Known>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    until: Instant,
    bytes: Option<u64>,
}

/// Bytes written since each of the points, where known.
pub async fn since(
    run: &Arc<RoleRun>,
    points: Vec<PointId>,
    newest: Option<PointId>,
) -> HashMap<PointId, u64> {
    lock(&run.unsaved.known).retain(|point, _| points.contains(point));
    if points.iter().any(|point| !run.unsaved.believed(point)) {
        let (run, points) = (run.clone(), points.clone());
        let measuring = tokio::spawn(async move {
            // Somebody else measures already.
            let Ok(_turn) = run.unsaved.turn.try_lock() else {
                return;
            };
            for point in points {
                measure(&run, point, newest.clone()).await;
            }
        });
        // It goes on when it takes longer, for whoever asks next.
        let _ = tokio::time::timeout(WAIT_MOST, measuring).await;
    }
    let known = lock(&run.unsaved.known);
    let bytes = |point: PointId| Some((point.clone(), known.get(&point)?.bytes?));
    points.into_iter().filter_map(bytes).collect()
}

impl Unsaved {
    fn believed(&self, point: &PointId) -> bool {
        let known = lock(&self.known);
        known
            .get(point)
            .is_some_and(|known| known.until > Instant::now())
    }
}

async fn measure(run: &Arc<RoleRun>, point: PointId, newest: Option<PointId>) {
    if run.unsaved.believed(&point) {
        return;
    }
    let begun = Instant::now();
    let (fs, of) = (run.fs.clone(), point.clone());
    let bytes = blocking(move || written(&*fs, &of, newest.as_ref())).await;
    let bytes = bytes.unwrap_or_else(|error| {
        tracing::debug!("could not measure what was written since {point}: {error:#}");
        None
    });
    let until = Instant::now() + BELIEVED.max(begun.elapsed() * COSTS_LITTLE);
    lock(&run.unsaved.known).insert(point, Known { until, bytes });
}

/// Where the point and what is live are not close enough, through the newest point.
fn written(fs: &dyn Filesystem, point: &PointId, newest: Option<&PointId>) -> Result<Option<u64>> {
    if let Some(bytes) = fs.written_since(point)? {
        return Ok(Some(bytes));
    }
    let Some(newest) = newest.filter(|newest| *newest != point) else {
        return Ok(None);
    };
    let Some(mut bytes) = fs.written_since(newest)? else {
        return Ok(None);
    };
    for dataset in fs.datasets().keys() {
        let measured = fs.measure(dataset, Some(point), newest, STREAM_VERSION)?;
        bytes = bytes.saturating_add(measured.data_bytes);
    }
    Ok(Some(bytes))
}
