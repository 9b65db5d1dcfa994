//! Ctrl-C as a value: counted, never a sudden end, so that a verb can say what goes on without it.
//!
//! It deliberately does not know what an interrupt means; each verb decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Interrupts since [`Interrupts::listen`].
#[derive(Debug, Clone)]
pub struct Interrupts(Arc<AtomicUsize>);

impl Interrupts {
    /// From now on SIGINT and SIGTERM are counted instead of ending the process.
    pub fn listen() -> Result<Interrupts> {
        Interrupts::to(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// The same with SIGHUP, for a verb that has to give a terminal back.
    pub fn with_hangup() -> Result<Interrupts> {
        Interrupts::to(&[
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ])
    }

    fn to(kinds: &[SignalKind]) -> Result<Interrupts> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("prepare for Ctrl-C")?;
        let signals = {
            let _inside = runtime.enter();
            let signals = kinds.iter().map(|kind| signal(*kind));
            let signals: std::io::Result<Vec<Signal>> = signals.collect();
            signals.context("listen for Ctrl-C and signals to end")?
        };
        let interrupts = Interrupts(Arc::default());
        let count = interrupts.0.clone();
        let counted = signals.into_iter().map(|mut signal| {
            let count = count.clone();
            async move {
                while signal.recv().await.is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let counted: Vec<_> = counted.collect();
        std::thread::spawn(move || runtime.block_on(futures_util::future::join_all(counted)));
        Ok(interrupts)
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
