//! Progress of one transfer as a value: what moved, how fast, how long it will take, and which side holds it up.
//!
//! Pure: the clock comes in as an argument. Rates are over a sliding window so that a stall shows within seconds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::name::{DatasetName, NodeName, RoleName};
use super::point::PointName;

/// Which way the bytes go, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Sending,
    Receiving,
}

/// The side that holds a transfer up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bottleneck {
    /// Reading and compressing at the source.
    Source,
    /// The line between, or its bandwidth limit.
    Link,
    /// Writing at the target.
    Target,
}

/// One transfer at one moment, as shown to people and in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferView {
    /// Unique in this daemon's life.
    pub id: u64,
    pub role: RoleName,
    pub dataset: DatasetName,
    pub peer: NodeName,
    pub point: PointName,
    pub base: Option<PointName>,
    pub direction: Direction,
    /// File data done, in bytes, resumed part included.
    pub done_bytes: u64,
    /// Exact total of file data, in bytes.
    pub total_bytes: u64,
    /// Stream bytes that were already there when this attempt started; 0 when it began at the start.
    pub resumed_at: u64,
    /// Bytes for the wire in this attempt. Of those sent, up to half a MiB may still wait in this machine.
    pub wire_bytes: u64,
    /// File data per second over the last seconds.
    pub rate: f64,
    /// Seconds to go; none while unknown.
    pub eta_s: Option<f64>,
    /// The file being carried, lossy.
    pub file: String,
    pub bottleneck: Option<Bottleneck>,
}

/// Bytes done at moments, over a sliding window.
#[derive(Debug, Clone)]
pub struct Meter {
    window_s: f64,
    marks: VecDeque<(f64, u64)>,
}

impl Meter {
    pub fn new(window_s: f64) -> Meter {
        Meter {
            window_s,
            marks: VecDeque::new(),
        }
    }

    /// `now_s` is any monotonic clock in seconds; `bytes` the total so far. Fewer than before: it began anew.
    pub fn mark(&mut self, now_s: f64, bytes: u64) {
        if self.marks.back().is_some_and(|last| last.1 > bytes) {
            self.marks.clear();
        }
        self.marks.push_back((now_s, bytes));
        while self.marks.len() > 2 && self.marks[1].0 < now_s - self.window_s {
            self.marks.pop_front();
        }
    }

    /// Bytes per second over the window up to `now_s`: falls to zero when nothing is marked any more.
    pub fn rate(&self, now_s: f64) -> f64 {
        let (Some(first), Some(last)) = (self.marks.front(), self.marks.back()) else {
            return 0.0;
        };
        let span = (now_s - first.0).max(last.0 - first.0);
        if span <= 0.0 {
            0.0
        } else {
            (last.1 - first.1) as f64 / span
        }
    }

    /// Seconds until `total` at the present rate.
    pub fn eta_s(&self, now_s: f64, total: u64) -> Option<f64> {
        let rate = self.rate(now_s);
        let done = self.marks.back()?.1;
        (rate > 0.0).then(|| total.saturating_sub(done) as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(marks: &[(f64, u64)], now: f64, total: u64, rate: f64, eta: Option<f64>) {
        let mut meter = Meter::new(5.0);
        for &(at, bytes) in marks {
            meter.mark(at, bytes);
        }
        assert!(
            (meter.rate(now) - rate).abs() < 1e-9,
            "rate {}",
            meter.rate(now)
        );
        assert_eq!(meter.eta_s(now, total), eta);
    }

    #[test]
    fn rates() {
        check(&[], 1.0, 100, 0.0, None);
        check(&[(0.0, 0)], 0.0, 100, 0.0, None);
        check(&[(0.0, 0), (2.0, 100)], 2.0, 200, 50.0, Some(2.0));
        // A stall shows: the same marks seen later give a lower rate.
        check(&[(0.0, 0), (2.0, 100)], 4.0, 200, 25.0, Some(4.0));
        // What began anew is measured anew.
        check(
            &[(0.0, 500), (2.0, 0), (4.0, 100)],
            4.0,
            200,
            50.0,
            Some(2.0),
        );
        check(&[(0.0, 500), (2.0, 0)], 3.0, 200, 0.0, None);
        // Old marks leave the window.
        check(
            &[(0.0, 0), (10.0, 1000), (12.0, 1200)],
            12.0,
            1200,
            100.0,
            Some(0.0),
        );
    }
}
