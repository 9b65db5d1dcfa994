//! Accepting connections: from a TCP listener, a unix socket, or any other pipe.
//!
//! Promise: nothing a client does or leaves undone holds up another one: each has its own task with limits of time, and of
//! those that have not shown a known key at most [`PENDING_MAX`] are kept; beyond that the oldest one of the busiest
//! address gives way. A key that is not pinned gets the pairing conversation or a refusal, nothing else.
//!
//! It deliberately does not know where keys are pinned (it asks a closure), nor what an invitation is.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rustls::server::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::greet::{Opening, answer, opening, within};
use super::identity::{Fingerprint, Identity};
use super::link::{Incoming, Link, Side, establish};
use super::message::Hello;
use super::pairing::PairConversation;
use super::timing::Timing;
use super::tls;
use super::transport::{Transport, tune};
use super::worker::{Arrived, Workers};
use crate::logic::name::NodeName;

/// Connections kept that are not links yet.
pub const PENDING_MAX: usize = 32;

/// The pause after the system refused a connection (too many open files): it will refuse the next one as well.
const BREATH: Duration = Duration::from_millis(200);

/// What a connection became.
#[derive(Debug)]
pub enum Accepted {
    Link(Link, Incoming),
    Pairing(Box<PairConversation>),
}

/// The name pinned to a key.
type Known = dyn Fn(&Fingerprint) -> Option<NodeName> + Send + Sync;

/// What is needed to accept; cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    own: Fingerprint,
    known: Arc<Known>,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    timing: Timing,
    /// None: in this process, as a worker does it, and tests.
    workers: Option<Workers>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acceptor({})", self.own)
    }
}

impl Acceptor {
    /// `known` gives the name pinned to a key; `hello` what this node says of itself at the time. Both must be quick.
    pub fn new(
        identity: &Identity,
        known: impl Fn(&Fingerprint) -> Option<NodeName> + Send + Sync + 'static,
        hello: impl Fn() -> Hello + Send + Sync + 'static,
        timing: Timing,
    ) -> Result<Acceptor> {
        Ok(Acceptor {
            config: tls::server_config(identity)?,
            own: identity.fingerprint(),
            known: Arc::new(known),
            hello: Arc::new(hello),
            timing,
            workers: None,
        })
    }

    /// Has each connection that a listener brings served by a worker of its own.
    #[must_use]
    pub fn by(mut self, workers: Workers) -> Acceptor {
        self.workers = Some(workers);
        self
    }

    /// As [`Acceptor::accept`], by a worker where there are any.
    async fn take(&self, stream: Socket) -> Result<Accepted> {
        let Some(workers) = &self.workers else {
            return match stream {
                Socket::Tcp(stream) => self.accept(stream).await,
                Socket::Unix(stream) => self.accept(stream).await,
            };
        };
        let line = match stream {
            Socket::Tcp(stream) => OwnedFd::from(stream.into_std()?),
            Socket::Unix(stream) => OwnedFd::from(stream.into_std()?),
        };
        let (known, hello) = (|key: &Fingerprint| (self.known)(key), || (self.hello)());
        Ok(match workers.accept(line, known, hello).await? {
            Arrived::Link(link, incoming) => Accepted::Link(link, incoming),
            Arrived::Pairing(asked, key, request) => {
                let conversation = PairConversation::asked(asked, self.own, key, request);
                Accepted::Pairing(Box::new(conversation))
            }
        })
    }

    /// Brings one connection to a link or to the pairing conversation, within the limits of `Timing`.
    pub async fn accept(&self, stream: impl Transport) -> Result<Accepted> {
        let stream: Box<dyn Transport> = Box::new(stream);
        let handshake = tls::accept(stream, self.config.clone());
        let (mut tls, key) = within(self.timing.handshake, "TLS handshake", handshake).await?;
        match within(self.timing.hello, "greet", opening(&mut tls)).await? {
            Opening::Pair(request) => {
                let conversation = PairConversation::new(tls, self.own, key, request, self.timing);
                Ok(Accepted::Pairing(Box::new(conversation)))
            }
            Opening::Hello(theirs) => {
                let (ours, known) = ((self.hello)(), (self.known)(&key));
                let answering = answer(&mut tls, &ours, theirs, known, key, self.timing);
                let greeted =
                    within(self.timing.hello + self.timing.close, "greet", answering).await?;
                let (link, incoming) =
                    establish(tls, Side::Accepted, greeted, self.timing, None).await?;
                Ok(Accepted::Link(link, incoming))
            }
        }
    }
}

/// Accepts TCP connections for ever and hands on what they become. Ends when nobody takes them any more.
pub async fn listen_tcp(
    listener: TcpListener,
    acceptor: Acceptor,
    accepted: mpsc::Sender<Accepted>,
) {
    let pending = Pending::default();
    loop {
        let arrival = tokio::select! {
            arrival = listener.accept() => arrival,
            () = accepted.closed() => return,
        };
        match arrival {
            Ok((stream, from)) => {
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%from, "a connection was dropped: {error:#}");
                    continue;
                }
                let (stream, source) = (Socket::Tcp(stream), Source::of(from.ip()));
                pending.take(stream, source, &acceptor, &accepted);
            }
            Err(error) => breathe(error).await,
        }
    }
}

/// As [`listen_tcp`], for links that come over a local socket (`standin link --stdio`).
pub async fn listen_unix(
    listener: UnixListener,
    acceptor: Acceptor,
    accepted: mpsc::Sender<Accepted>,
) {
    let pending = Pending::default();
    loop {
        let arrival = tokio::select! {
            arrival = listener.accept() => arrival,
            () = accepted.closed() => return,
        };
        match arrival {
            Ok((stream, _)) => {
                pending.take(Socket::Unix(stream), Source::Local, &acceptor, &accepted);
            }
            Err(error) => breathe(error).await,
        }
    }
}

async fn breathe(error: std::io::Error) {
    tracing::warn!("a connection could not be accepted: {error}");
    tokio::time::sleep(BREATH).await;
}

/// What a listener brings.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Where a connection comes from, as far as one party may have many: an IPv6 network of /64 counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Local,
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Source {
    fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Source::V6([a, b, c, d])
            }
        }
    }
}

/// The connections that are not links yet.
#[derive(Debug, Default, Clone)]
struct Pending {
    line: Arc<Mutex<Line>>,
}

/// In order of arrival.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: Vec<(u64, Source, AbortHandle)>,
}

impl Pending {
    fn take(
        &self,
        stream: Socket,
        source: Source,
        acceptor: &Acceptor,
        accepted: &mpsc::Sender<Accepted>,
    ) {
        let mut line = self.line();
        let evicted = (line.waiting.len() >= PENDING_MAX).then(|| {
            let sources: Vec<Source> = line.waiting.iter().map(|(_, source, _)| *source).collect();
            line.waiting.remove(victim(&sources))
        });
        let number = line.next;
        line.next += 1;
        let leave = Leave {
            pending: self.clone(),
            number,
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        let task = tokio::spawn(async move {
            match acceptor.take(stream).await {
                Ok(new) => {
                    let _ = accepted.send(new).await;
                }
                Err(error) => tracing::debug!(?source, "a connection came to nothing: {error:#}"),
            }
            // Only now: conversations that nobody takes up count as well.
            drop(leave);
        });
        line.waiting.push((number, source, task.abort_handle()));
        drop(line);
        if let Some((_, source, task)) = evicted {
            tracing::debug!(
                ?source,
                "too many connections that are not links yet: one was dropped"
            );
            task.abort();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the place in the line free, however the task ends.
struct Leave {
    pending: Pending,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let number = self.number;
        self.pending
            .line()
            .waiting
            .retain(|(waiting, _, _)| *waiting != number);
    }
}

/// Who gives way: the oldest one of the source that has most; at a tie, the oldest. A single busy address thereby harms
/// itself first.
fn victim(line: &[Source]) -> usize {
    let mut counts: HashMap<Source, usize> = HashMap::new();
    for source in line {
        *counts.entry(*source).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    line.iter()
        .position(|source| counts[source] == most)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters are sources, oldest first.
    fn check(line: &str, expected: usize) {
        let line: Vec<Source> = line.bytes().map(|letter| Source::V4([letter; 4])).collect();
        assert_eq!(victim(&line), expected);
    }

    #[test]
    fn the_busiest_gives_way() {
        check("a", 0);
        check("abc", 0);
        check("abbc", 1);
        check("abcbcc", 2);
        check("bab", 0);
    }

    #[test]
    fn what_counts_as_one_source() {
        let source = |address: &str| Source::of(address.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::7"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::7"), source("2001:db8:1:3::7"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
