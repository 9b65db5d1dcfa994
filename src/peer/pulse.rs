//! Whether a link lives: what was heard when, how long an answer takes, and why it ended.
//!
//! Promise: the first reason given for the end of a link is the one everybody hears. Every byte that arrives counts as a
//! sign of life, so that a slow line that is busy with data is not taken for a dead one.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::guard::Guard;
use super::transport::Complaints;

/// Bytes over a link since it began, as TLS carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    pub sent: u64,
    pub received: u64,
}

#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds after `start` at which something was heard last.
    heard_ms: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Microseconds; 0: not known yet.
    rtt_us: AtomicU64,
    last_beat: Mutex<Option<(u64, Instant)>>,
    /// What the peer's clock showed, and when.
    clock: Mutex<Option<(Timestamp, Instant)>>,
    /// What this node's clock showed, where another process says so.
    ours: Mutex<Option<(Timestamp, Instant)>>,
    over: watch::Sender<Option<String>>,
    complaints: Option<Complaints>,
}

impl Pulse {
    pub fn new(complaints: Option<Complaints>) -> Arc<Pulse> {
        Arc::new(Pulse {
            start: Instant::now(),
            heard_ms: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
            last_beat: Mutex::new(None),
            clock: Mutex::new(None),
            ours: Mutex::new(None),
            over: watch::Sender::new(None),
            complaints,
        })
    }

    /// Ends the link; only the first reason counts.
    pub fn end(&self, why: impl Into<String>) {
        let mut why = why.into();
        let said = self.complaints.as_ref().map(Complaints::text);
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            why = format!("{why} ({said})");
        }
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(why);
            }
            first
        });
    }

    pub fn why(&self) -> Option<String> {
        self.over.borrow().clone()
    }

    pub async fn ended(&self) -> String {
        let mut over = self.over.subscribe();
        match over.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender is `self`: it cannot be gone.
            Err(_) => String::new(),
        }
    }

    pub fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }

    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
        }
    }

    pub fn rtt_ms(&self) -> Option<f64> {
        match self.rtt_us.load(Relaxed) {
            0 => None,
            micros => Some(micros as f64 / 1000.0),
        }
    }

    pub fn clock_told(&self, theirs: Timestamp) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((theirs, Instant::now()));
    }

    /// In a worker: what the daemon's clock shows. Only the daemon's counts, and it may have been set meanwhile.
    pub fn our_clock_told(&self, now: Timestamp) {
        *self.ours.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
    }

    /// What heartbeats say of this node's clock.
    pub fn our_clock(&self) -> Timestamp {
        let told = *self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        told.and_then(|(now, at)| now.checked_add(at.elapsed()).ok())
            .unwrap_or_else(Timestamp::now)
    }

    /// What the peer's clock showed last, and how long ago.
    pub fn clock(&self) -> Option<(Timestamp, Duration)> {
        let told = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        told.map(|(theirs, at)| (theirs, at.elapsed()))
    }

    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn beat_sent(&self, number: u64) {
        *self
            .last_beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((number, Instant::now()));
    }

    /// An echo that nobody asked for, or that comes too late, says nothing.
    pub fn echoed(&self, number: u64) {
        let mut last = self
            .last_beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((sent, at)) = *last {
            if sent == number {
                let micros = at.elapsed().as_micros() as u64;
                self.rtt_us.store(micros.max(1), Relaxed);
                *last = None;
            }
        }
    }

    /// What the link's worker says of it.
    pub fn told(
        &self,
        traffic: Traffic,
        rtt_us: u64,
        silent: Duration,
        clock: Option<(Timestamp, Duration)>,
    ) {
        if let Some((theirs, ago)) = clock {
            let at = Instant::now().checked_sub(ago);
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = at.map(|at| (theirs, at));
        }
        self.sent.store(traffic.sent, Relaxed);
        self.received.store(traffic.received, Relaxed);
        self.rtt_us.store(rtt_us, Relaxed);
        let heard = self.start.elapsed().saturating_sub(silent);
        self.heard_ms.store(heard.as_millis() as u64, Relaxed);
    }

    fn heard(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
        self.heard_ms
            .store(self.start.elapsed().as_millis() as u64, Relaxed);
    }
}

/// A stream that reports to a [`Pulse`], and breaks when the other side floods it.
#[derive(Debug)]
pub(super) struct Heard<S> {
    stream: S,
    pulse: Arc<Pulse>,
    guard: Guard,
}

impl<S> Heard<S> {
    pub fn new(stream: S, pulse: Arc<Pulse>) -> Heard<S> {
        Heard {
            stream,
            pulse,
            guard: Guard::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let fresh = &buf.filled()[before..];
        if !fresh.is_empty() {
            this.pulse.heard(fresh.len() as u64);
            let since = this.pulse.start.elapsed();
            if let Err(flood) = this.guard.see(fresh, since) {
                return Poll::Ready(Err(std::io::Error::other(flood)));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.pulse.sent.fetch_add(bytes as u64, Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts() {
        let pulse = Pulse::new(None);
        assert_eq!(pulse.why(), None);
        pulse.end("cut");
        pulse.end("closed");
        assert_eq!(pulse.why().as_deref(), Some("cut"));
        assert_eq!(pulse.ended().await, "cut");
    }

    #[tokio::test]
    async fn only_the_echo_of_the_last_beat_is_measured() {
        let pulse = Pulse::new(None);
        pulse.beat_sent(4);
        pulse.beat_sent(5);
        pulse.echoed(4);
        assert_eq!(pulse.rtt_ms(), None);
        pulse.echoed(5);
        assert!(pulse.rtt_ms().is_some());
    }
}
