//! The daemon's side: starts a worker for each connection and takes from it what the connection turned out to be.
//!
//! Promise: each step of a worker has its limit of time, after which the worker is killed, as it is when whoever waits for it
//! gives up. What a worker says is checked here as if a stranger said it: the name and versions against the pinned key, and
//! the key by [`prove`] before a link counts as one.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::AbortHandle;

use super::channel::{self, Channel, Takes};
use super::drive;
use super::sign;
use super::words::{Job, Order, Report, Start};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;
use crate::logic::prefix::hex;
use crate::peer::dial::{Expected, Target, with_complaints};
use crate::peer::frame::Dialect;
use crate::peer::greet::{agree, coded, within};
use crate::peer::identity::{Fingerprint, Identity};
use crate::peer::link::{Incoming, Link, Side, Works};
use crate::peer::message::{Hello, PairAnswer, PairRequest, plain};
use crate::peer::prove::{Ends, prove};
use crate::peer::pulse::Pulse;
use crate::peer::timing::Timing;
use crate::peer::transport::{Complaints, Leave, each_line, spawn};

/// What starting a worker, and its own limits, may take longer than the sum of the steps.
const SLACK: Duration = Duration::from_secs(3);

/// Lines of a worker's stderr that reach the log.
const LINES_MAX: usize = 20;

/// How long a worker whose socket is closed may take to end by itself.
const LEAVE: Duration = Duration::from_secs(1);

/// Whom workers run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// What is needed to start workers; cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers {
    identity: Identity,
    user: Option<User>,
    timing: Timing,
    program: PathBuf,
}

/// A worker that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Held {
    pub channel: Channel,
    /// None where a test plays the worker.
    pub child: Option<Child>,
    signing: Option<AbortHandle>,
    /// The command that carries the link, if one does.
    _leave: Option<Leave>,
}

/// A worker whose other side wants to pair.
#[derive(Debug)]
pub(in crate::peer) struct Asked {
    held: Held,
    timing: Timing,
}

/// What an accepted connection became.
#[derive(Debug)]
pub(in crate::peer) enum Arrived {
    Link(Link, Incoming),
    Pairing(Box<Asked>, Fingerprint, PairRequest),
}

impl Workers {
    /// `user`: whom workers run as; none where this process is not root: they keep its user.
    pub fn new(identity: Identity, user: Option<User>, timing: Timing) -> Workers {
        Workers {
            identity,
            user,
            timing,
            // This very program, also when its file has been replaced meanwhile.
            program: "/proc/self/exe".into(),
        }
    }

    /// Another program than this one: for tests, which are none themselves.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Workers {
        self.program = program.into();
        self
    }

    pub(in crate::peer) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// As [`crate::peer::dial::dial`], in a worker.
    pub async fn dial(
        &self,
        target: &Target,
        expected: &Expected,
        hello: &Hello,
    ) -> Result<(Link, Incoming)> {
        let job = |reach| Job::Dial {
            reach,
            expected: expected.fingerprint,
            name: expected.name.clone(),
            hello: Box::new(hello.clone()),
        };
        let timing = self.timing;
        let limit = timing.connect + timing.handshake + timing.hello * 2 + SLACK;
        let linked = async {
            let (mut held, complaints) = self.reach(target, job).await?;
            let linked = async {
                match within(limit, "link", held.report()).await? {
                    Report::Linked { hello: theirs } => {
                        let with = expected.clone();
                        self.up(
                            held,
                            Side::Dialled,
                            hello,
                            *theirs,
                            with,
                            complaints.clone(),
                        )
                        .await
                    }
                    other => Err(unexpected(other)),
                }
            };
            match linked.await {
                Ok(link) => Ok(link),
                Err(error) => Err(with_complaints(error, complaints).await),
            }
        };
        linked.await.map_err(|error| {
            let what = format!("link to {} at {target}", expected.name);
            coded(error, Code::Unreachable, what)
        })
    }

    /// Asks to pair, and gives the answer as it came.
    pub(in crate::peer) async fn pair(
        &self,
        target: &Target,
        expected: Fingerprint,
        request: PairRequest,
    ) -> Result<PairAnswer> {
        let timing = self.timing;
        let limit = timing.connect + timing.handshake + timing.hello + timing.close + SLACK;
        let job = |reach| Job::Pair {
            reach,
            expected,
            request: request.clone(),
        };
        let (mut held, complaints) = self.reach(target, job).await?;
        let answered = async {
            match within(limit, "pair", held.report()).await? {
                Report::Answered { answer } => Ok(answer),
                other => Err(unexpected(other)),
            }
        };
        match answered.await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(with_complaints(error, complaints).await),
        }
    }

    /// Brings a connection that came in to a link or to the pairing conversation.
    pub(in crate::peer) async fn accept(
        &self,
        line: OwnedFd,
        known: impl Fn(&Fingerprint) -> Option<NodeName>,
        ours: impl Fn() -> Hello,
    ) -> Result<Arrived> {
        let timing = self.timing;
        let mut held = self
            .start(Job::Accept, Some(line), Side::Accepted, None)
            .await?;
        let limit = timing.handshake + timing.hello + SLACK;
        let (fingerprint, ours) = match within(limit, "greet", held.report()).await? {
            Report::Pairing { key, request } => {
                let asked = Box::new(Asked { held, timing });
                return Ok(Arrived::Pairing(asked, key, request));
            }
            Report::Knock { key, .. } => (key, ours()),
            other => return Err(unexpected(other)),
        };
        let known = known(&fingerprint);
        let greet = Order::Greet {
            known: known.clone(),
            hello: Box::new(ours.clone()),
        };
        let limit = timing.hello * 2 + timing.close + SLACK;
        let answered = async {
            held.channel.send(&greet, None).await?;
            held.report().await
        };
        match (within(limit, "greet", answered).await?, known) {
            (Report::Linked { hello: theirs }, Some(name)) => {
                let with = Expected { name, fingerprint };
                let up = self.up(held, Side::Accepted, &ours, *theirs, with, None);
                let (link, incoming) = up.await?;
                Ok(Arrived::Link(link, incoming))
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    /// A worker that has, or makes, the connection to the target.
    async fn reach(
        &self,
        target: &Target,
        job: impl Fn(Option<(String, u16)>) -> Job,
    ) -> Result<(Held, Option<Complaints>)> {
        match target {
            Target::Tcp { host, port } => {
                let job = job(Some((host.clone(), *port)));
                Ok((self.start(job, None, Side::Dialled, None).await?, None))
            }
            Target::Command(argv) => {
                let (pipe, complaints) = spawn(argv)?;
                let (line, leave) = pipe.into_parts()?;
                let line = Some(line.into());
                let held = self.start(job(None), line, Side::Dialled, Some(leave));
                Ok((held.await?, Some(complaints)))
            }
        }
    }

    async fn start(
        &self,
        job: Job,
        line: Option<OwnedFd>,
        side: Side,
        leave: Option<Leave>,
    ) -> Result<Held> {
        let (ours, theirs) = channel::pair()?;
        let (signs, asks) = StdUnixStream::pair().context("make a socket for a worker")?;
        signs.set_nonblocking(true)?;
        // Debug lines of workers only where somebody reads debug lines.
        let debug = tracing::enabled!(tracing::Level::DEBUG);
        let mut command = Command::new(&self.program);
        command
            .arg("link-worker")
            .env_clear()
            .env(
                "RUST_LOG",
                if debug { "standin=debug,warn" } else { "warn" },
            )
            .current_dir("/")
            .stdin(theirs)
            .stdout(OwnedFd::from(asks))
            .stderr(Stdio::piped())
            // Signals of a terminal are for the daemon, which then has its workers say goodbye.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn().context("start the worker of a link")?;
        // The command holds the worker's ends open.
        drop(command);
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(relay(stderr, child.id().unwrap_or(0)));
        }
        let (signs, identity) = (UnixStream::from_std(signs)?, self.identity.clone());
        let signing = tokio::spawn(async move {
            if let Err(error) = sign::serve(signs, identity, side).await {
                tracing::debug!("nothing was signed for a worker: {error:#}");
            }
        });
        let start = Start {
            certificate: hex(&self.identity.certificate()?),
            timing: self.timing,
            job,
        };
        let held = Held {
            channel: Channel::new(ours, Takes::Words)?,
            child: Some(child),
            signing: Some(signing.abort_handle()),
            _leave: leave,
        };
        let line = line.as_ref().map(AsFd::as_fd);
        within(SLACK, "start a worker", held.channel.send(&start, line)).await?;
        Ok(held)
    }

    /// A worker says that its link is up: believed as far as it is proved.
    async fn up(
        &self,
        held: Held,
        side: Side,
        ours: &Hello,
        theirs: Hello,
        with: Expected,
        complaints: Option<Complaints>,
    ) -> Result<(Link, Incoming)> {
        let greeted = agree(ours, theirs, &with.name).map_err(|refusal| refusal.into_failure())?;
        let pulse = Pulse::new(complaints);
        let (link, mut incoming, works) =
            Works::new(greeted, pulse.clone(), self.timing, Dialect::Inside);
        tokio::spawn(drive::drive(held, works, pulse, self.timing));
        let ends = Ends {
            signer: &ours.node,
            signer_key: self.identity.fingerprint(),
            asker: &with.name,
            asker_key: with.fingerprint,
        };
        let proving = prove(&self.identity, &link, &mut incoming, side, ends);
        match within(self.timing.hello, "prove the keys", proving).await {
            Ok(()) => Ok((link, incoming)),
            Err(error) => {
                let why = plain(&format!("{error:#}"));
                tokio::spawn(async move { link.close(&why).await });
                Err(error)
            }
        }
    }
}

/// What a worker says on stderr, into the log; the rest of a long story is dropped.
async fn relay(stderr: ChildStderr, worker: u32) {
    let mut told = 0;
    each_line(stderr, |line| {
        if !line.is_empty() && told < LINES_MAX {
            tracing::info!(worker, "the worker of a link says: {line}");
            told += 1;
        }
    })
    .await;
}

/// A report that does not belong where it came; a failure is what it says.
fn unexpected(report: Report) -> anyhow::Error {
    match report {
        Report::Failed { code, what, hint } => match code {
            Some(code) => Failure {
                code: if code == Code::Done {
                    Code::Failed
                } else {
                    code
                },
                what: plain(&what),
                hint: hint.as_deref().map(plain),
            }
            .into(),
            None => anyhow!(plain(&what)),
        },
        other => anyhow!("the link's worker said {:?} out of turn", other.name()),
    }
}

impl Held {
    /// A worker that is played at the other end of the socket.
    #[cfg(test)]
    pub fn played(socket: OwnedFd) -> Held {
        Held {
            channel: Channel::new(socket, Takes::Words).unwrap(),
            child: None,
            signing: None,
            _leave: None,
        }
    }

    /// The next report. With the first one the handshake is over, and nothing is signed any more.
    pub async fn report(&mut self) -> Result<Report> {
        match self.channel.recv().await? {
            Some((report, _)) => {
                self.sign_no_more();
                Ok(report)
            }
            None => bail!(self.ended().await),
        }
    }

    fn sign_no_more(&mut self) {
        if let Some(signing) = self.signing.take() {
            signing.abort();
        }
    }

    /// How the worker ended, whose socket is closed.
    pub async fn ended(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "the link's worker went away".into();
        };
        match tokio::time::timeout(LEAVE, child.wait()).await {
            Ok(Ok(status)) => format!("the link's worker ended: {status}"),
            _ => "the link's worker closed its socket".into(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sign_no_more();
    }
}

impl Asked {
    /// Has the worker answer and hang up.
    pub async fn answer(self, answer: &PairAnswer) -> Result<()> {
        let order = Order::Answer {
            answer: answer.clone(),
        };
        let limit = self.timing.hello + self.timing.close + SLACK;
        let answered = async {
            self.held.channel.send(&order, None).await?;
            match self.held.channel.recv::<Report>().await? {
                None => Ok(()),
                Some((report, _)) => Err(unexpected(report)),
            }
        };
        within(limit, "answer", answered).await
    }
}

#[cfg(test)]
#[path = "liars.rs"]
mod liars;
