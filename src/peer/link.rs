//! A link: one connection between two paired nodes, carrying many exchanges opened by either side.
//!
//!     Link (cheap handle) ──commands──► driver task ── yamux ── TLS ── transport
//!     Incoming ◄──requests── door ◄──────────┘  └── control stream (heartbeats, goodbye)
//!
//! Promise: a link is alive, or [`Link::closed`] tells why not, within `Timing::silence` of the last byte heard. Memory is
//! bounded whatever the peer does: [`WINDOW_BYTES_MAX`] for what arrived and nobody read yet, [`INCOMING_MAX`] exchanges
//! opened by the peer, one bounded message each. A sender waits while the line or the receiver is slow. When the last handle
//! (links, exchanges, incoming) is dropped, the connection is closed.
//!
//! It deliberately does not know what requests mean, nor when to dial again.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::io::BufWriter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::control::{self, Word};
use super::exchange::{Exchange, Stream};
use super::frame::{Dialect, Frame};
use super::message::{
    Answer, Control, Hello, MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, Refusal, Request,
};
use super::pulse::{Heard, Pulse, Traffic};
use super::timing::Timing;
use super::transport::{Complaints, Transport};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;

/// Exchanges the peer may have open here; more are reset.
pub const INCOMING_MAX: usize = 12;

/// Exchanges we open at a time; more wait. Fewer than the peer admits, because it may notice our ends late.
pub const OUTGOING_MAX: usize = 8;

/// Streams of both sides together. Reaching it ends the link, so it lies well above what honest nodes use.
const STREAMS_MAX: usize = 32;

/// All receive windows of a link, in bytes. Each stream has 256 KiB for sure; the rest goes to those that need more on a
/// long line: one busy stream gets up to 8 MiB, with which 330 Mbit/s were measured at a round trip of 100 ms.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;

/// Payload of a yamux frame: with its 12-byte head it fills one TLS record.
const SPLIT_BYTES: usize = 16 * 1024 - 12;

/// How long the end of a connection waits for a goodbye that came before it.
const GOODBYE: Duration = Duration::from_millis(50);

/// What stands before the reason of an end that this node chose.
pub(super) const CLOSED_HERE: &str = "closed here: ";

type Connection = yamux::Connection<Compat<BufWriter<Heard<TlsStream<Box<dyn Transport>>>>>>;

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialled,
    Accepted,
}

/// What the greeting settled.
pub(super) struct Greeted {
    pub peer: NodeName,
    pub hello: Hello,
    pub protocol: u32,
}

/// A handle to a link. Clones are the same link.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    greeted: Greeted,
    pulse: Arc<Pulse>,
    commands: mpsc::Sender<Command>,
    words: mpsc::Sender<Word>,
    outgoing: Arc<Semaphore>,
    timing: Timing,
    /// What comes on the streams of exchanges.
    dialect: Dialect,
}

/// The peer's requests, as they come.
#[derive(Debug)]
pub struct Incoming {
    requests: mpsc::Receiver<(Request, Exchange)>,
    link: Link,
}

pub(super) enum Command {
    /// Answered with a stream, or dropped where there is none any more.
    Open(oneshot::Sender<Stream>),
    Close(String),
}

impl Link {
    /// The name pinned to the peer's key.
    pub fn peer(&self) -> &NodeName {
        &self.shared.greeted.peer
    }

    /// What the peer said of itself when the link began.
    pub fn hello(&self) -> &Hello {
        &self.shared.greeted.hello
    }

    /// The protocol version both speak.
    pub fn protocol(&self) -> u32 {
        self.shared.greeted.protocol
    }

    /// Starts an exchange. Waits while [`OUTGOING_MAX`] are open.
    pub async fn open(&self, request: &Request) -> Result<Exchange> {
        self.open_with(request).await
    }

    /// As [`Link::open`], with a request of any form: what a node of another version might say.
    pub async fn open_with<T: serde::Serialize>(&self, request: &T) -> Result<Exchange> {
        let permit = self.shared.outgoing.clone().acquire_owned().await;
        let permit = permit.context("open an exchange")?;
        let stream = self.raw_stream().await?;
        let mut exchange = Exchange::new(stream, self.clone(), permit);
        exchange.send(request).await?;
        Ok(exchange)
    }

    /// Says goodbye and closes the connection; every exchange on it ends.
    pub async fn close(&self, why: &str) {
        let (said, handed_over) = oneshot::channel();
        let word = Word {
            control: Control::Bye {
                why: why.to_owned(),
            },
            said: Some(said),
        };
        let goodbye = async {
            // A worker says it, in its own words, when it is told to close.
            if self.shared.words.send(word).await.is_ok() {
                let _ = handed_over.await;
            }
        };
        let _ = timeout(self.shared.timing.close, goodbye).await;
        let closing = Command::Close(format!("{CLOSED_HERE}{why}"));
        if self.shared.commands.send(closing).await.is_ok() {
            self.closed().await;
        }
    }

    /// Waits until the link is down; why.
    pub async fn closed(&self) -> String {
        self.shared.pulse.ended().await
    }

    /// Why the link is down; none while it lives.
    pub fn why_closed(&self) -> Option<String> {
        self.shared.pulse.why()
    }

    /// Round trip of the newest heartbeat that was answered, in milliseconds.
    pub fn rtt_ms(&self) -> Option<f64> {
        self.shared.pulse.rtt_ms()
    }

    /// What the peer's clock showed in its last heartbeat, and how long ago.
    pub(super) fn clock_told(&self) -> Option<(Timestamp, Duration)> {
        self.shared.pulse.clock()
    }

    /// See [`Pulse::our_clock_told`].
    pub(super) fn our_clock_told(&self, now: Timestamp) {
        self.shared.pulse.our_clock_told(now);
    }

    /// Their clock minus ours, in seconds: by their last heartbeat, else by their greeting. A step of either clock shows.
    pub fn clock_difference_s(&self) -> f64 {
        let (theirs, ago) = self.shared.pulse.clock().unwrap_or_else(|| {
            // Both nodes say their time first; the greeting is about as old as the link.
            (self.hello().now, self.shared.pulse.age())
        });
        let ours = jiff::Timestamp::now().as_millisecond();
        (theirs.as_millisecond() - ours) as f64 / 1000.0 + ago.as_secs_f64()
    }

    /// The same; none where nothing was heard of their clock for three heartbeats.
    pub fn fresh_clock_difference_s(&self) -> Option<f64> {
        let (_, ago) = self.shared.pulse.clock()?;
        (ago <= self.shared.timing.beat * 3).then(|| self.clock_difference_s())
    }

    /// How long nothing was heard.
    pub fn silent_for(&self) -> Duration {
        self.shared.pulse.silent_for()
    }

    pub fn traffic(&self) -> Traffic {
        self.shared.pulse.traffic()
    }

    /// Two handles to the same connection.
    pub fn same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// As [`Link::open`], with a request that another process has written.
    pub(super) async fn open_frame(&self, request: &Frame) -> Result<Exchange> {
        let permit = self.shared.outgoing.clone().acquire_owned().await;
        let permit = permit.context("open an exchange")?;
        let stream = self.raw_stream().await?;
        let mut exchange = Exchange::new(stream, self.clone(), permit);
        exchange.send_frame(request).await?;
        Ok(exchange)
    }

    async fn raw_stream(&self) -> Result<Stream> {
        let (reply, opened) = oneshot::channel();
        // A driver that is gone closed both channels; the reason is in the pulse.
        let _ = self.shared.commands.send(Command::Open(reply)).await;
        if let Ok(stream) = opened.await {
            return Ok(stream);
        }
        let why = self.closed().await;
        let what = format!("use the link to {}: it is down: {why}", self.peer());
        Err(Failure::new(Code::Unreachable, what).into())
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        self.shared.pulse.clone()
    }

    pub(super) fn words(&self) -> mpsc::Sender<Word> {
        self.shared.words.clone()
    }

    pub(super) fn timing(&self) -> Timing {
        self.shared.timing
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.shared.dialect
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.peer())
    }
}

impl Incoming {
    /// The next request with its exchange; none when the link is down. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Request, Exchange)> {
        self.requests.recv().await
    }

    pub fn link(&self) -> &Link {
        &self.link
    }
}

/// Puts streams onto a connection whose greeting is done.
pub(super) async fn establish(
    tls: TlsStream<Box<dyn Transport>>,
    side: Side,
    greeted: Greeted,
    timing: Timing,
    complaints: Option<Complaints>,
) -> Result<(Link, Incoming)> {
    let pulse = Pulse::new(complaints);
    let heard = Heard::new(tls, pulse.clone());
    let mode = match side {
        Side::Dialled => yamux::Mode::Client,
        Side::Accepted => yamux::Mode::Server,
    };
    let buffered = BufWriter::with_capacity(32 * 1024, heard);
    let connection = yamux::Connection::new(buffered.compat(), config(), mode);
    let (link, incoming, works) = Works::new(greeted, pulse.clone(), timing, Dialect::Wire);
    let (control_came, control) = oneshot::channel();
    let Works {
        to_do,
        to_say,
        mut door,
    } = works;
    door.control = (side == Side::Accepted).then_some(control_came);
    tokio::spawn(drive(connection, to_do, door, pulse.clone(), timing));
    let begun = async {
        let stream = match side {
            Side::Dialled => link.raw_stream().await?,
            Side::Accepted => control.await?,
        };
        // Only after the first word do other streams follow, so that the first one the accepting side sees is this one.
        control::start(stream, &link, to_say).await
    };
    match timeout(timing.hello, begun).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let why = pulse.why().unwrap_or_else(|| format!("{error:#}"));
            anyhow::bail!("begin the control stream: {why}");
        }
        Err(_) => anyhow::bail!("the other side says nothing on the control stream"),
    }
    Ok((link, incoming))
}

/// The ends of a link's handles that whoever drives the link holds.
pub(super) struct Works {
    pub to_do: mpsc::Receiver<Command>,
    pub to_say: mpsc::Receiver<Word>,
    pub door: Door,
}

impl Works {
    pub fn new(
        greeted: Greeted,
        pulse: Arc<Pulse>,
        timing: Timing,
        dialect: Dialect,
    ) -> (Link, Incoming, Works) {
        let (commands, to_do) = mpsc::channel(OUTGOING_MAX);
        let (words, to_say) = mpsc::channel(control::WORDS_WAITING);
        let (requests, incoming) = mpsc::channel(INCOMING_MAX);
        let shared = Arc::new(Shared {
            greeted,
            pulse,
            commands,
            words,
            outgoing: Arc::new(Semaphore::new(OUTGOING_MAX)),
            timing,
            dialect,
        });
        let door = Door {
            control: None,
            shared: Arc::downgrade(&shared),
            permits: Arc::new(Semaphore::new(INCOMING_MAX)),
            requests,
        };
        let link = Link { shared };
        let incoming = Incoming {
            requests: incoming,
            link: link.clone(),
        };
        let works = Works {
            to_do,
            to_say,
            door,
        };
        (link, incoming, works)
    }
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config
        .set_max_num_streams(STREAMS_MAX)
        .set_max_connection_receive_window(Some(WINDOW_BYTES_MAX))
        .set_split_send_size(SPLIT_BYTES);
    config
}

/// Something the connection did.
enum Turn {
    Stream(Stream),
    Over(String),
    Close(String),
}

/// Owns the connection. Ends with it, and says why.
async fn drive(
    mut connection: Connection,
    mut commands: mpsc::Receiver<Command>,
    mut door: Door,
    pulse: Arc<Pulse>,
    timing: Timing,
) {
    let _last_words = LastWords(pulse.clone());
    let mut opening = VecDeque::new();
    let mut watchdog = tokio::time::interval((timing.silence / 4).max(Duration::from_millis(1)));
    let polite = loop {
        let turn = tokio::select! {
            // First the connection, so that after a pause of this whole machine what arrived is heard before silence is judged.
            biased;
            turn = poll_fn(|cx| turn(cx, &mut connection, &mut commands, &mut opening)) => turn,
            _ = pulse.ended() => break true,
            _ = watchdog.tick() => {
                if pulse.silent_for() < timing.silence {
                    continue;
                }
                let seconds = timing.silence.as_secs_f64();
                pulse.end(format!("nothing was heard for {seconds} s"));
                break false;
            }
        };
        match turn {
            Turn::Stream(stream) => {
                door.admit(stream);
            }
            Turn::Close(why) => {
                pulse.end(why);
                break true;
            }
            Turn::Over(why) => {
                // A goodbye that came with the end is still being read on the control stream: it says more.
                let _ = timeout(GOODBYE, pulse.ended()).await;
                pulse.end(why);
                break false;
            }
        }
    };
    if polite {
        let closing = poll_fn(|cx| connection.poll_close(cx));
        let _ = timeout(timing.close, closing).await;
    }
}

/// One step of the connection: takes commands, opens streams, moves bytes.
fn turn(
    cx: &mut TaskContext<'_>,
    connection: &mut Connection,
    commands: &mut mpsc::Receiver<Command>,
    opening: &mut VecDeque<oneshot::Sender<Stream>>,
) -> Poll<Turn> {
    while let Poll::Ready(command) = commands.poll_recv(cx) {
        match command {
            Some(Command::Open(reply)) => opening.push_back(reply),
            Some(Command::Close(why)) => return Poll::Ready(Turn::Close(why)),
            None => {
                let why = format!("{CLOSED_HERE}nobody uses it any more");
                return Poll::Ready(Turn::Close(why));
            }
        }
    }
    while !opening.is_empty() {
        let Poll::Ready(opened) = connection.poll_new_outbound(cx) else {
            break;
        };
        if let (Some(reply), Ok(stream)) = (opening.pop_front(), opened) {
            let _ = reply.send(Box::new(stream.compat()));
        }
    }
    connection
        .poll_next_inbound(cx)
        .map(|inbound| match inbound {
            Some(Ok(stream)) => Turn::Stream(Box::new(stream.compat())),
            Some(Err(error)) => Turn::Over(broken(&error)),
            None => Turn::Over("the other side closed the connection".into()),
        })
}

/// Why a connection broke, in plain words. A process that is killed and a cut line look the same from here.
fn broken(error: &yamux::ConnectionError) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                // rustls: the bytes ended without its own goodbye.
                ErrorKind::UnexpectedEof => "the other side went away without a goodbye".to_owned(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    "the connection was reset".to_owned()
                }
                ErrorKind::TimedOut => {
                    "the other side no longer confirms what it is sent".to_owned()
                }
                _ => format!("the connection broke: {io}"),
            };
        }
        source = cause.source();
    }
    format!("the connection broke: {error}")
}

/// Whatever ends the driver, a panic included, nobody waits for ever.
pub(super) struct LastWords(pub Arc<Pulse>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.end("the link's own task failed");
    }
}

/// Where the peer's streams come in.
pub(super) struct Door {
    /// The first stream of a dialling peer is the control stream.
    control: Option<oneshot::Sender<Stream>>,
    /// Weak: requests that may come do not keep a link open that nobody uses.
    shared: Weak<Shared>,
    permits: Arc<Semaphore>,
    requests: mpsc::Sender<(Request, Exchange)>,
}

impl Door {
    /// A stream that is not admitted is dropped, which resets it. Whether there was room.
    pub fn admit(&mut self, stream: Stream) -> bool {
        if let Some(control) = self.control.take() {
            let _ = control.send(stream);
            return true;
        }
        let Some(shared) = self.shared.upgrade() else {
            return true;
        };
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            tracing::warn!(peer = %shared.greeted.peer, "too many exchanges at a time: one was reset");
            return false;
        };
        let link = Link { shared };
        tokio::spawn(first_word(stream, link, permit, self.requests.clone()));
        true
    }
}

/// Reads the request of a fresh stream, within its limits, and hands both on.
async fn first_word(
    stream: Stream,
    link: Link,
    permit: OwnedSemaphorePermit,
    requests: mpsc::Sender<(Request, Exchange)>,
) {
    let patience = link.timing().request;
    let peer = link.peer().clone();
    let mut exchange = Exchange::new(stream, link, permit);
    exchange.receiving_mut().set_message_max(REQUEST_BYTES_MAX);
    let frame = match timeout(patience, exchange.receiving_mut().raw_frame()).await {
        Ok(Ok(Some(Frame::Message(json)))) => json,
        Ok(Ok(_)) => return tracing::debug!(%peer, "a stream without a request was reset"),
        Ok(Err(error)) => return tracing::debug!(%peer, "a stream was reset: {error:#}"),
        Err(_) => return tracing::debug!(%peer, "a stream whose request did not come was reset"),
    };
    exchange.receiving_mut().set_message_max(MESSAGE_BYTES_MAX);
    match serde_json::from_slice::<Request>(&frame) {
        Ok(request) => {
            let _ = requests.send((request, exchange)).await;
        }
        Err(error) if exchange.link().dialect() == Dialect::Inside => {
            let why = format!("the link's worker broke the rules: not a request: {error}");
            exchange.link().pulse().end(why);
        }
        Err(error) => {
            let why = format!("this node does not understand the request: {error}");
            let refusal = Refusal::new(Code::Failed, why)
                .hint("the two nodes may need the same version of standin");
            let refuse = async {
                exchange.send(&Answer::Refused(refusal)).await?;
                exchange.finish().await
            };
            let _ = timeout(patience, refuse).await;
        }
    }
}
