//! The bandwidth limit towards a peer, shared by everything that sends to it.
//!
//! Promise: over any ten seconds no more than rate x 10 s plus a twentieth of a second's worth passes, and a sender that
//! always has more to send gets that rate; senders are served in the order in which they asked. The rate can be changed at
//! any time, and those who wait feel it at once.
//!
//! It deliberately does not know what is sent: the sender says how many bytes, then sends them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What may be saved up while nothing is sent: this part of a second's worth.
const BURST_S: f64 = 0.05;

/// A limiter shared by its clones.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Mutex<Bucket>,
    changed: Notify,
    start: Instant,
}

impl Limiter {
    /// `rate` in bytes per second; none: no limit.
    pub fn new(rate: Option<u64>) -> Limiter {
        Limiter {
            shared: Arc::new(Shared {
                bucket: Mutex::new(Bucket::new(rate)),
                changed: Notify::new(),
                start: Instant::now(),
            }),
        }
    }

    /// From now on; those who wait are served at the new rate. Bytes per second; none: no limit.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.bucket().set_rate(rate, self.now());
        self.shared.changed.notify_waiters();
    }

    pub fn rate(&self) -> Option<u64> {
        self.bucket().rate
    }

    /// Returns when these bytes may be sent. Dropped while waiting, the bytes stay counted.
    pub async fn take(&self, bytes: u64) {
        let Some(ticket) = self.bucket().claim(bytes, self.now()) else {
            return;
        };
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            let Some(wait) = self.bucket().wait(ticket, self.now()) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Every change of the bucket is complete in itself: a panic elsewhere leaves it sound.
        self.shared
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The arithmetic, without a clock: times are given, counted from any start.
#[derive(Debug)]
struct Bucket {
    rate: Option<u64>,
    /// Bytes asked for, ever.
    claimed: f64,
    /// Bytes granted, ever: at most a burst ahead of what was asked for.
    granted: f64,
    /// When `granted` was last brought up to date.
    at: Duration,
}

impl Bucket {
    fn new(rate: Option<u64>) -> Bucket {
        let mut bucket = Bucket {
            rate: rate.map(|rate| rate.max(1)),
            claimed: 0.0,
            granted: 0.0,
            at: Duration::ZERO,
        };
        bucket.granted = bucket.burst();
        bucket
    }

    fn burst(&self) -> f64 {
        self.rate.map_or(0.0, |rate| rate as f64 * BURST_S)
    }

    fn settle(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            let most = self.claimed + self.burst();
            self.granted = (self.granted + rate as f64 * seconds).min(most);
        }
    }

    fn set_rate(&mut self, rate: Option<u64>, now: Duration) {
        self.settle(now);
        self.rate = rate.map(|rate| rate.max(1));
        if self.rate.is_none() {
            self.granted = self.claimed;
        }
        self.settle(now);
    }

    /// A place in the queue: what must have been granted. None: go at once.
    fn claim(&mut self, bytes: u64, now: Duration) -> Option<f64> {
        self.rate?;
        self.settle(now);
        self.claimed += bytes as f64;
        Some(self.claimed)
    }

    /// How long the ticket has to wait, at the present rate.
    fn wait(&mut self, ticket: f64, now: Duration) -> Option<Duration> {
        self.settle(now);
        let rate = self.rate?;
        let missing = ticket - self.granted;
        // Half a byte of rounding is not worth another turn of the timer.
        (missing > 0.5).then(|| Duration::from_secs_f64((missing / rate as f64).min(3600.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces back to back for ten seconds, or with pauses; gives the bytes that passed.
    fn ten_seconds(rate: u64, piece: u64, pause: Duration) -> f64 {
        let mut bucket = Bucket::new(Some(rate));
        let mut now = Duration::ZERO;
        let mut passed = 0;
        loop {
            let ticket = bucket.claim(piece, now).unwrap();
            while let Some(wait) = bucket.wait(ticket, now) {
                now += wait.max(Duration::from_millis(1));
            }
            if now > Duration::from_secs(10) {
                return passed as f64;
            }
            passed += piece;
            now += pause;
        }
    }

    fn check(rate: u64, piece: u64) {
        let passed = ten_seconds(rate, piece, Duration::ZERO);
        let wanted = 10.0 * rate as f64;
        assert!(
            (passed - wanted).abs() <= 0.05 * wanted,
            "{passed} of {wanted} at {rate} B/s"
        );
    }

    #[test]
    fn within_five_percent() {
        check(100_000, 16 * 1024);
        check(1_000_000, 128 * 1024);
        check(10_000_000, 128 * 1024);
        check(1_000_000_000, 128 * 1024);
        check(50_000, 100);
    }

    #[test]
    fn little_is_saved_up_while_idle() {
        let mut bucket = Bucket::new(Some(1_000_000));
        let later = Duration::from_secs(3600);
        let ticket = bucket.claim(1_050_000, later).unwrap();
        let wait = bucket.wait(ticket, later).unwrap();
        assert!((wait.as_secs_f64() - 1.0).abs() < 0.01, "{wait:?}");
    }

    #[test]
    fn short_pauses_cost_no_bandwidth() {
        let passed = ten_seconds(1_000_000, 16 * 1024, Duration::from_millis(10));
        assert!(passed > 9_500_000.0, "{passed}");
    }

    #[test]
    fn a_new_rate_applies_to_those_who_wait() {
        let mut bucket = Bucket::new(Some(1000));
        let ticket = bucket.claim(10_050, Duration::ZERO).unwrap();
        assert_eq!(bucket.wait(ticket, Duration::ZERO).unwrap().as_secs(), 10);
        let now = Duration::from_secs(5);
        bucket.set_rate(Some(5000), now);
        let wait = bucket.wait(ticket, now).unwrap();
        assert!((wait.as_secs_f64() - 1.0).abs() < 0.01, "{wait:?}");
        bucket.set_rate(None, now);
        assert_eq!(bucket.wait(ticket, now), None);
        assert_eq!(bucket.claim(1 << 40, now), None);
        bucket.set_rate(Some(1000), now);
        let ticket = bucket.claim(1000, now).unwrap();
        assert!(bucket.wait(ticket, now).is_some());
    }

    #[tokio::test]
    async fn waiters_wake_when_the_limit_is_lifted() {
        let limiter = Limiter::new(Some(1));
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.take(1_000_000).await }
        });
        while limiter.bucket().claimed < 1_000_000.0 {
            tokio::task::yield_now().await;
        }
        limiter.set_rate(None);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn the_real_clock_is_obeyed() {
        let limiter = Limiter::new(Some(10_000_000));
        let start = Instant::now();
        for _ in 0..20 {
            limiter.take(128 * 1024).await;
        }
        let least = (20.0 * 131_072.0 - 500_000.0) / 10_000_000.0;
        assert!(start.elapsed().as_secs_f64() >= least * 0.95);
    }
}
