//! Where work reports: notes and warnings, and the transfers that are running.
//!
//! Promise: a note reaches the log, the state database and every client that watches; a client that reads too slowly
//! loses events, never delays work. Running transfers are a table that anyone may look at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::api::Event;
use crate::host::state::{State, TransferRecord};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, PointName};
use crate::logic::progress::{Bottleneck, Direction, Meter, TransferView};
use crate::peer::message::plain;

/// Events a slow client may fall behind before it loses the oldest.
const EVENTS_BUFFERED: usize = 1024;

/// Seconds over which a rate is measured.
const RATE_WINDOW_S: f64 = 10.0;

pub struct Hub {
    state: Arc<State>,
    events: broadcast::Sender<Event>,
    transfers: Mutex<BTreeMap<u64, Arc<Running>>>,
    next_id: AtomicU64,
    born: Instant,
}

impl Hub {
    pub fn new(state: Arc<State>) -> Hub {
        let (events, _) = broadcast::channel(EVENTS_BUFFERED);
        Hub {
            state,
            events,
            transfers: Mutex::default(),
            next_id: AtomicU64::new(1),
            born: Instant::now(),
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// A step begun or done, in a sentence.
    pub fn note(&self, role: Option<&RoleName>, text: impl Into<String>) {
        let (at, text) = (Timestamp::now(), text.into());
        match role {
            Some(role) => tracing::info!(role = role.as_str(), "{text}"),
            None => tracing::info!("{text}"),
        }
        self.record(at, role, false, &text);
        self.emit(Event::Note {
            at,
            role: role.cloned(),
            text,
        });
    }

    /// The same, for what somebody should look at.
    pub fn warn(&self, role: Option<&RoleName>, text: impl Into<String>) {
        let (at, text) = (Timestamp::now(), text.into());
        match role {
            Some(role) => tracing::warn!(role = role.as_str(), "{text}"),
            None => tracing::warn!("{text}"),
        }
        self.record(at, role, true, &text);
        self.emit(Event::Warning {
            at,
            role: role.cloned(),
            text,
        });
    }

    fn record(&self, at: Timestamp, role: Option<&RoleName>, warning: bool, text: &str) {
        // History is a convenience: a full state disk must not stop the work it tells of.
        if let Err(error) = self.state.record_event(at, role, warning, text) {
            tracing::warn!("could not record an event: {error:#}");
        }
    }

    fn emit(&self, event: Event) {
        // Nobody watching is the normal case.
        let _ = self.events.send(event);
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Running>>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a transfer into the table; it leaves with [`Tracked::end`] or when dropped.
    pub fn track(self: &Arc<Self>, facts: TransferFacts) -> Tracked {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let figures = Figures {
            done_bytes: 0,
            resumed_at: 0,
            wire_bytes: 0,
            file: String::new(),
            bottleneck: None,
            meter: Meter::new(RATE_WINDOW_S),
        };
        let running = Arc::new(Running {
            id,
            facts,
            started: Timestamp::now(),
            born: self.born,
            figures: Mutex::new(figures),
        });
        self.table().insert(id, running.clone());
        Tracked {
            hub: self.clone(),
            running,
            ended: false,
        }
    }

    /// Every running transfer, as of now.
    pub fn transfers(&self) -> Vec<TransferView> {
        self.table()
            .values()
            .map(|running| running.view())
            .collect()
    }
}

/// What is known of a transfer when it starts.
#[derive(Debug, Clone)]
pub struct TransferFacts {
    pub role: RoleName,
    pub dataset: DatasetName,
    pub peer: NodeName,
    pub id: PointId,
    pub point: PointName,
    pub base: Option<PointName>,
    pub direction: Direction,
    /// Exact, in bytes of file data.
    pub total_bytes: u64,
}

struct Figures {
    done_bytes: u64,
    resumed_at: u64,
    wire_bytes: u64,
    file: String,
    bottleneck: Option<Bottleneck>,
    meter: Meter,
}

struct Running {
    id: u64,
    facts: TransferFacts,
    started: Timestamp,
    born: Instant,
    figures: Mutex<Figures>,
}

impl Running {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> TransferView {
        let figures = self.figures();
        let now_s = self.born.elapsed().as_secs_f64();
        TransferView {
            id: self.id,
            role: self.facts.role.clone(),
            dataset: self.facts.dataset.clone(),
            peer: self.facts.peer.clone(),
            point: self.facts.point,
            base: self.facts.base,
            direction: self.facts.direction,
            done_bytes: figures.done_bytes.min(self.facts.total_bytes),
            total_bytes: self.facts.total_bytes,
            resumed_at: figures.resumed_at,
            wire_bytes: figures.wire_bytes,
            rate: figures.meter.rate(now_s),
            eta_s: figures.meter.eta_s(now_s, self.facts.total_bytes),
            file: figures.file.clone(),
            bottleneck: figures.bottleneck,
        }
    }
}

/// A transfer in the table, held by whoever moves its bytes.
pub struct Tracked {
    hub: Arc<Hub>,
    running: Arc<Running>,
    ended: bool,
}

impl Tracked {
    pub fn resumed(&self, offset: u64) {
        self.running.figures().resumed_at = offset;
    }

    pub fn wire(&self, bytes: u64) {
        self.running.figures().wire_bytes += bytes;
    }

    /// `data_bytes` is the total of file data done so far.
    pub fn done(&self, data_bytes: u64, file: &str) {
        let now_s = self.running.born.elapsed().as_secs_f64();
        let mut figures = self.running.figures();
        if data_bytes < figures.done_bytes {
            // Begun again from the first byte: nothing was there already.
            figures.resumed_at = 0;
        }
        figures.done_bytes = data_bytes;
        figures.meter.mark(now_s, data_bytes);
        // Names of files are any bytes, and a peer may have chosen them: terminals must not obey them.
        if figures.file != file {
            figures.file = plain(file);
        }
    }

    pub fn bottleneck(&self, side: Option<Bottleneck>) {
        self.running.figures().bottleneck = side;
    }

    /// Bytes on the wire so far.
    pub fn wire_bytes(&self) -> u64 {
        self.running.figures().wire_bytes
    }

    /// The attempt is over: records it, tells the watchers.
    pub fn end(mut self, error: Option<String>) {
        self.finish(error);
    }

    fn finish(&mut self, error: Option<String>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let view = self.running.view();
        self.hub.table().remove(&view.id);
        let facts = &self.running.facts;
        let record = TransferRecord {
            role: facts.role.clone(),
            dataset: facts.dataset.clone(),
            peer: facts.peer.clone(),
            point: facts.id.to_string(),
            direction: match facts.direction {
                Direction::Sending => "sending".to_owned(),
                Direction::Receiving => "receiving".to_owned(),
            },
            started: self.running.started,
            ended: Timestamp::now(),
            data_bytes: view.done_bytes,
            wire_bytes: view.wire_bytes,
            resumed_at: view.resumed_at,
            error: error.clone(),
        };
        if let Err(failure) = self.hub.state.record_transfer(&record) {
            tracing::warn!("could not record a transfer: {failure:#}");
        }
        let ok = error.is_none();
        let text = error.unwrap_or_else(|| "complete".to_owned());
        self.hub.emit(Event::TransferEnd {
            id: view.id,
            ok,
            text,
        });
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.finish(Some("given up".to_owned()));
    }
}
