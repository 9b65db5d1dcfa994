//! The worker's side: one connection, from the handshake to its end.
//!
//! Promise: before the first byte of a peer is read, [`confine`] has taken everything this process does not need. It holds no
//! key and no secret: a signature of the handshake comes from the daemon, and what pairing proves is made and checked
//! there. It ends with the link or with the daemon, whichever is first. A crash here is a link that is down.

use std::collections::VecDeque;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::channel::{self, Channel, Takes};
use super::sign::Elsewhere;
use super::words::{Job, Order, Report, Start};
use super::{confine, lanes};
use crate::error::{Code, Failure};
use crate::logic::prefix::unhex;
use crate::peer::dial::{begin, connect_tcp};
use crate::peer::exchange::Exchange;
use crate::peer::greet::{Opening, answer, hear, opening, part, say, within};
use crate::peer::identity::Identity;
use crate::peer::link::{Incoming, Link, Side, establish};
use crate::peer::message::{Greeting, Request, plain};
use crate::peer::timing::Timing;
use crate::peer::transport::{Transport, tune};
use crate::peer::{dial, tls};

/// How long exchanges of a dead link may hand over what had arrived.
const HANDING_OVER: Duration = Duration::from_millis(200);

/// Longest distance between two reports on how the link is.
const REPORT: Duration = Duration::from_secs(1);

type Line = Box<dyn Transport>;

/// Everything a worker works with.
struct Desk {
    channel: Channel,
    identity: Identity,
    timing: Timing,
}

/// Does the work of one connection; stdin and stdout are the sockets to the daemon.
pub fn run() -> Result<()> {
    let control = stdin().as_fd().try_clone_to_owned().context("open stdin")?;
    if sockopt::socket_type(&control).ok() != Some(SocketType::SEQPACKET) {
        let what = "be the worker of a link: only the daemon starts one";
        return Err(Failure::new(Code::Usage, what)
            .hint("run `standin serve`")
            .into());
    }
    confine::limits()?;
    let signing = stdout().as_fd().try_clone_to_owned();
    let signing = StdUnixStream::from(signing.context("open stdout")?);
    // A daemon that is gone wants nothing any more.
    let Some((start, along)) = channel::recv_blocking::<Start>(control.as_fd())? else {
        return Ok(());
    };
    let telling = control.try_clone().context("share the socket")?;
    let (runtime, desk, job, line) = match prepare(start, along, control, signing) {
        Ok(prepared) => prepared,
        // The daemon logs it, or tells who asked for the link.
        Err(error) => return channel::send_blocking(telling.as_fd(), &failed(&error)),
    };
    drop(telling);
    runtime.block_on(async {
        match desk.work(job, line).await {
            Ok(()) => Ok(()),
            Err(error) => desk.channel.send(&failed(&error), None).await,
        }
    })
}

/// Everything before the first byte of the peer; after it this process is confined.
fn prepare(
    start: Start,
    along: Option<OwnedFd>,
    control: OwnedFd,
    signing: StdUnixStream,
) -> Result<(Runtime, Desk, Job, Line)> {
    let certificate = unhex(&start.certificate).context("read our own certificate")?;
    let signer = Arc::new(Elsewhere::new(signing));
    let identity = Identity::elsewhere(CertificateDer::from(certificate), signer)?;
    let timing = start.timing;
    let line = match along {
        Some(line) => line,
        None => reach(&start.job, timing)?,
    };
    // Everything that makes descriptors comes before the filter.
    let runtime = runtime()?;
    let (channel, line) = {
        let _inside = runtime.enter();
        (Channel::new(control, Takes::Descriptors)?, open(line)?)
    };
    confine::carrying()?;
    let desk = Desk {
        channel,
        identity,
        timing,
    };
    Ok((runtime, desk, start.job, line))
}

/// One thread does it all: a second one would be outside of the filter.
fn runtime() -> Result<Runtime> {
    let built = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    built.context("start the runtime")
}

/// Resolves and connects. The thread that resolves is gone when this returns.
fn reach(job: &Job, timing: Timing) -> Result<OwnedFd> {
    let (Job::Dial { reach, .. } | Job::Pair { reach, .. }) = job else {
        bail!("the daemon gave no connection");
    };
    let (host, port) = reach.as_ref().context("the daemon gave no address")?;
    confine::reaching()?;
    let runtime = runtime()?;
    let stream = runtime.block_on(async {
        let stream = connect_tcp(host, *port, timing).await?;
        tune(&stream)?;
        stream.into_std().context("take the connection")
    })?;
    Ok(stream.into())
}

/// The connection for tasks, whatever kind of socket it is.
fn open(line: OwnedFd) -> Result<Line> {
    rustix::io::ioctl_fionbio(&line, true).context("set up the connection")?;
    let family = sockopt::socket_domain(&line).context("look at the connection")?;
    Ok(if family == AddressFamily::UNIX {
        Box::new(UnixStream::from_std(line.into()).context("set up the connection")?)
    } else {
        Box::new(TcpStream::from_std(line.into()).context("set up the connection")?)
    })
}

fn failed(error: &anyhow::Error) -> Report {
    match Failure::of(error) {
        Some(failure) => Report::Failed {
            code: Some(failure.code),
            what: plain(&failure.what),
            hint: failure.hint.as_deref().map(plain),
        },
        None => Report::Failed {
            code: None,
            what: plain(&format!("{error:#}")),
            hint: None,
        },
    }
}

impl Desk {
    async fn work(&self, job: Job, line: Line) -> Result<()> {
        let timing = self.timing;
        match job {
            Job::Accept => self.accept(line).await,
            Job::Dial {
                expected,
                name,
                hello,
                ..
            } => {
                let fingerprint = expected;
                let expected = dial::Expected { name, fingerprint };
                let begun = begin(line, &self.identity, &expected, &hello, timing, None);
                let (link, incoming) = begun.await?;
                self.serve(link, incoming).await
            }
            Job::Pair {
                expected, request, ..
            } => {
                let handshake = tls::connect(line, &self.identity, expected);
                let mut line = within(timing.handshake, "TLS handshake", handshake).await?;
                let asking = async {
                    say(&mut line, &Greeting::Pair(request)).await?;
                    hear(&mut line).await
                };
                let answer = within(timing.hello, "pair", asking).await?;
                // The answer is here: how the connection ends does not matter.
                let parting = tokio::io::AsyncWriteExt::shutdown(&mut line);
                let _ = tokio::time::timeout(timing.close, parting).await;
                self.say(&Report::Answered { answer }).await
            }
        }
    }

    async fn accept(&self, line: Line) -> Result<()> {
        let timing = self.timing;
        let handshake = tls::accept(line, tls::server_config(&self.identity)?);
        let (mut line, key) = within(timing.handshake, "TLS handshake", handshake).await?;
        match within(timing.hello, "greet", opening(&mut line)).await? {
            Opening::Pair(request) => {
                self.say(&Report::Pairing { key, request }).await?;
                let Some(Order::Answer { answer }) = self.order().await? else {
                    bail!("the daemon does not answer");
                };
                within(timing.hello, "answer", say(&mut line, &answer)).await?;
                part(&mut line, timing).await;
                Ok(())
            }
            Opening::Hello(theirs) => {
                let hello = Box::new(theirs.clone());
                self.say(&Report::Knock { key, hello }).await?;
                let Some(Order::Greet { known, hello }) = self.order().await? else {
                    bail!("the daemon does not answer");
                };
                let answering = answer(&mut line, &hello, theirs, known, key, timing);
                let greeted = within(timing.hello + timing.close, "greet", answering).await?;
                let (link, incoming) =
                    establish(line, Side::Accepted, greeted, timing, None).await?;
                self.serve(link, incoming).await
            }
        }
    }

    /// Carries the link until it is down, or the daemon wants no more of it.
    async fn serve(&self, link: Link, mut incoming: Incoming) -> Result<()> {
        let hello = Box::new(link.hello().clone());
        self.say(&Report::Linked { hello }).await?;
        let mut waiting: VecDeque<(Request, Exchange)> = VecDeque::new();
        let mut open = JoinSet::new();
        let mut reports = tokio::time::interval(REPORT.min(self.timing.beat));
        let mut listening = true;
        loop {
            tokio::select! {
                order = self.channel.recv::<Order>() => match order? {
                    Some((Order::Open, Some(lane))) => {
                        open.spawn(lanes::outgoing(link.clone(), socket(lane)?, self.timing));
                    }
                    Some((Order::Take, Some(lane))) => {
                        let (request, exchange) = waiting.pop_front().context("nothing waits")?;
                        open.spawn(lanes::incoming(request, exchange, socket(lane)?, self.timing));
                    }
                    Some((Order::Clock { now }, _)) => link.our_clock_told(now),
                    Some((Order::Close { why }, _)) => {
                        link.close(&why).await;
                        return Ok(());
                    }
                    Some((order, _)) => bail!("the daemon says {order:?} out of turn"),
                    None => {
                        link.close("the daemon went away").await;
                        return Ok(());
                    }
                },
                next = incoming.next(), if listening => match next {
                    Some(exchange) => {
                        waiting.push_back(exchange);
                        self.say(&Report::Arrived).await?;
                    }
                    None => listening = false,
                },
                _ = reports.tick() => self.say(&pulse(&link)).await?,
                Some(_) = open.join_next() => {}
                why = link.closed() => {
                    let handing_over = async { while open.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(HANDING_OVER, handing_over).await;
                    return self.say(&Report::Down { why: plain(&why) }).await;
                }
            }
        }
    }

    async fn say(&self, report: &Report) -> Result<()> {
        self.channel.send(report, None).await
    }

    async fn order(&self) -> Result<Option<Order>> {
        Ok(self.channel.recv().await?.map(|(order, _)| order))
    }
}

fn socket(lane: OwnedFd) -> Result<UnixStream> {
    // The daemon made it non-blocking.
    UnixStream::from_std(lane.into()).context("set up an exchange")
}

fn pulse(link: &Link) -> Report {
    let rtt_ms = link.rtt_ms().unwrap_or(0.0);
    Report::Pulse {
        traffic: link.traffic(),
        rtt_us: (rtt_ms * 1000.0) as u64,
        silent_ms: link.silent_for().as_millis() as u64,
        clock: link
            .clock_told()
            .map(|(theirs, ago)| (theirs, ago.as_millis() as u64)),
    }
}
