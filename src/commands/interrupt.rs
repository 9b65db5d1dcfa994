//! Ctrl-C as a value: counted, never a sudden end, so that a verb can say what goes on without it.
//!
//! It deliberately does not know what an interrupt means; each verb decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Interrupts since [`Interrupts::listen`].
#[derive(Debug, Clone)]
pub struct Interrupts(Arc<AtomicUsize>);

impl Interrupts {
    /// From now on SIGINT and SIGTERM are counted instead of ending the process.
    pub fn listen() -> Result<Interrupts> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("prepare for Ctrl-C")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
            let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
            (interrupt, terminate)
        };
        let interrupts = Interrupts(Arc::default());
        let count = interrupts.0.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        Ok(interrupts)
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
