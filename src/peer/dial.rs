//! Dialling a peer: over TCP, or through a command such as `ssh birch standin link --stdio`.
//!
//! Promise: a link, or one error that says what was tried and how far it came, within the limits of `Timing`. A key that is
//! not the pinned one ends it before anything about us is said.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsStream;

use super::greet::{coded, dialled, within};
use super::identity::{Fingerprint, Identity};
use super::link::{Incoming, Link, Side, establish};
use super::message::Hello;
use super::timing::Timing;
use super::tls;
use super::transport::{self, Complaints, Transport};
use crate::error::Code;
use crate::logic::name::NodeName;

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Tcp {
        host: String,
        port: u16,
    },
    /// Program and arguments; its stdin and stdout carry the link.
    Command(Vec<String>),
}

/// A word that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: use host:port, or [IPv6]:port")]
pub struct BadTarget(pub String);

/// `host:port`; an IPv6 address stands in brackets.
impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(word: &str) -> Result<Target, BadTarget> {
        let bad = || BadTarget(word.to_owned());
        let (host, port) = word.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(bad)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                inner
            }
            None => host,
        };
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let numeric = host.parse::<std::net::Ipv6Addr>().is_ok() && word.starts_with('[');
        if host.is_empty() || host.len() > 253 || !(numeric || host.chars().all(plausible)) {
            return Err(bad());
        }
        let port = port.parse::<u16>().map_err(|_| bad())?;
        if port == 0 {
            return Err(bad());
        }
        Ok(Target::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Tcp { host, port } => write!(f, "{host}:{port}"),
            Target::Command(argv) => write!(f, "`{}`", argv.join(" ")),
        }
    }
}

/// Whom we expect at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub name: NodeName,
    pub fingerprint: Fingerprint,
}

/// Connects, proves both keys, greets, and gives the link.
pub async fn dial(
    identity: &Identity,
    target: &Target,
    expected: &Expected,
    hello: &Hello,
    timing: Timing,
) -> Result<(Link, Incoming)> {
    let linked = async {
        let (stream, complaints) = reach(target, timing).await?;
        let begun = begin(
            stream,
            identity,
            expected,
            hello,
            timing,
            complaints.clone(),
        );
        match begun.await {
            Ok(link) => Ok(link),
            Err(error) => Err(with_complaints(error, complaints).await),
        }
    };
    linked.await.map_err(|error| {
        let what = format!("link to {} at {target}", expected.name);
        coded(error, Code::Unreachable, what)
    })
}

/// As [`dial`], over a pipe that is there already.
pub async fn dial_over(
    stream: impl Transport,
    identity: &Identity,
    expected: &Expected,
    hello: &Hello,
    timing: Timing,
) -> Result<(Link, Incoming)> {
    let begun = begin(Box::new(stream), identity, expected, hello, timing, None);
    begun.await.map_err(|error| {
        let what = format!("link to {}", expected.name);
        coded(error, Code::Unreachable, what)
    })
}

pub(super) async fn begin(
    stream: Box<dyn Transport>,
    identity: &Identity,
    expected: &Expected,
    hello: &Hello,
    timing: Timing,
    complaints: Option<Complaints>,
) -> Result<(Link, Incoming)> {
    let handshake = tls::connect(stream, identity, expected.fingerprint);
    let mut tls = within(timing.handshake, "TLS handshake", handshake).await?;
    let greeting = dialled(&mut tls, hello, &expected.name);
    let greeted = within(timing.hello, "greet", greeting).await?;
    establish(tls, Side::Dialled, greeted, timing, complaints).await
}

/// Connects and proves both keys, no more: for pairing.
pub(super) async fn connect(
    identity: &Identity,
    target: &Target,
    expected: Fingerprint,
    timing: Timing,
) -> Result<(TlsStream<Box<dyn Transport>>, Option<Complaints>)> {
    let (stream, complaints) = reach(target, timing).await?;
    let handshake = tls::connect(stream, identity, expected);
    match within(timing.handshake, "TLS handshake", handshake).await {
        Ok(tls) => Ok((tls, complaints)),
        Err(error) => Err(with_complaints(error, complaints).await),
    }
}

async fn reach(
    target: &Target,
    timing: Timing,
) -> Result<(Box<dyn Transport>, Option<Complaints>)> {
    match target {
        Target::Tcp { host, port } => {
            let stream = connect_tcp(host, *port, timing).await?;
            transport::tune(&stream)?;
            Ok((Box::new(stream), None))
        }
        Target::Command(argv) => {
            let (pipe, complaints) = transport::spawn(argv)?;
            Ok((Box::new(pipe), Some(complaints)))
        }
    }
}

/// Tries every address of the name in turn; each gets its share of the time that is left.
pub(super) async fn connect_tcp(host: &str, port: u16, timing: Timing) -> Result<TcpStream> {
    let until = Instant::now() + timing.connect;
    let lookup = async {
        let found = tokio::net::lookup_host((host, port)).await;
        found.with_context(|| format!("resolve {host}"))
    };
    let addresses: Vec<_> = within(timing.connect, "resolve", lookup)
        .await?
        .take(16)
        .collect();
    let mut last = anyhow!("{host} has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - index) as u32;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = anyhow!(error),
            Err(_) => last = anyhow!("no answer within {:.1} s", share.as_secs_f64()),
        }
        // Whoever calls names the host; its address says more only where it is another word.
        if address.ip().to_string() != host {
            last = last.context(format!("connect to {address}"));
        }
    }
    Err(last)
}

/// When the command is what failed, its own words say it best.
pub(super) async fn with_complaints(
    error: anyhow::Error,
    complaints: Option<Complaints>,
) -> anyhow::Error {
    let Some(complaints) = complaints else {
        return error;
    };
    complaints
        .settled(std::time::Duration::from_millis(500))
        .await;
    match complaints.text() {
        said if said.is_empty() => error,
        said => error.context(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<(&str, u16)>) {
        let parsed = word.parse::<Target>().ok();
        let wanted = expected.map(|(host, port)| Target::Tcp {
            host: host.to_owned(),
            port,
        });
        assert_eq!(parsed, wanted, "{word:?}");
        if let Some(target) = parsed {
            assert_eq!(target.to_string(), word);
        }
    }

    #[test]
    fn addresses() {
        check("birch:7170", Some(("birch", 7170)));
        check("birch.example.org:1", Some(("birch.example.org", 1)));
        check("192.0.2.7:7170", Some(("192.0.2.7", 7170)));
        check("[2001:db8::7]:7170", Some(("2001:db8::7", 7170)));
        for word in [
            "",
            "birch",
            "birch:",
            ":7170",
            "birch:0",
            "birch:70000",
            "2001:db8::7:7170",
            "[birch]:7170",
            "a b:1",
            "[2001:db8::7:1",
        ] {
            check(word, None);
        }
    }

    fn expected() -> Expected {
        Expected {
            name: NodeName::parse("birch").unwrap(),
            fingerprint: Identity::ephemeral().unwrap().fingerprint(),
        }
    }

    fn hello() -> Hello {
        Hello {
            node: NodeName::parse("alder").unwrap(),
            version: String::new(),
            protocol: (1, 1),
            capabilities: vec![],
            now: jiff::Timestamp::UNIX_EPOCH,
            stream_version_max: 0,
        }
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        drop(listener);
        let identity = Identity::ephemeral().unwrap();
        let error = dial(&identity, &target, &expected(), &hello(), Timing::default())
            .await
            .unwrap_err();
        assert_eq!(crate::error::Failure::code_of(&error), Code::Unreachable);
        assert!(
            format!("{error:#}").contains("link to birch at 127.0.0.1"),
            "{error:#}"
        );
    }

    #[tokio::test]
    async fn a_command_that_fails_speaks_for_itself() {
        let script = [
            "sh",
            "-c",
            "echo 'Permission denied (publickey).' >&2; exit 255",
        ];
        let target = Target::Command(script.map(str::to_owned).to_vec());
        let identity = Identity::ephemeral().unwrap();
        let error = dial(&identity, &target, &expected(), &hello(), Timing::default())
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("Permission denied (publickey).") && text.contains("255"),
            "{text}"
        );
    }
}
