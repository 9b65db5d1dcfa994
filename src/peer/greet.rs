//! The greeting: the first frames on a fresh TLS connection, before there are streams.
//!
//! Promise: a key that is not pinned gets no further than one bounded message and an answer; both sides leave the greeting
//! only when the name matches the key and they share a protocol version, and each refusal says what differs.

use anyhow::{Result, anyhow, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::codec::{FrameReader, FrameWriter};
use super::identity::Fingerprint;
use super::link::Greeted;
use super::message::{Greeting, Hello, PairRequest, Refusal, SMALL_BYTES_MAX, plain};
use super::timing::Timing;
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;

/// What the first frame of a dialling node turned out to be.
pub(super) enum Opening {
    Hello(Hello),
    Pair(PairRequest),
}

/// The dialling side: says hello, expects one.
pub(super) async fn dialled<S>(stream: &mut S, ours: &Hello, expected: &NodeName) -> Result<Greeted>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(stream, &Greeting::Hello(ours.clone())).await?;
    match hear(stream).await? {
        Greeting::Hello(theirs) => {
            agree(ours, theirs, expected).map_err(|refusal| refusal.into_failure().into())
        }
        Greeting::Refused(refusal) => Err(refused(refusal)),
        Greeting::Pair(_) => bail!("the other side asks to pair where it should say hello"),
    }
}

/// The accepting side, first half: what does the other want?
pub(super) async fn opening<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Opening> {
    match hear(stream).await? {
        Greeting::Hello(hello) => Ok(Opening::Hello(hello)),
        Greeting::Pair(request) => Ok(Opening::Pair(request)),
        Greeting::Refused(_) => bail!("the other side refused before anything was said"),
    }
}

/// The accepting side, second half: answers a hello.
pub(super) async fn answer<S>(
    stream: &mut S,
    ours: &Hello,
    theirs: Hello,
    known: Option<NodeName>,
    key: Fingerprint,
    timing: Timing,
) -> Result<Greeted>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let judged = match known {
        Some(name) => agree(ours, theirs, &name),
        None => Err(stranger(ours, key)),
    };
    match judged {
        Ok(greeted) => {
            say(stream, &Greeting::Hello(ours.clone())).await?;
            Ok(greeted)
        }
        Err(refusal) => {
            let failure = refusal.clone().into_failure();
            say(stream, &Greeting::Refused(refusal)).await?;
            part(stream, timing).await;
            Err(failure.into())
        }
    }
}

/// Last words are read by the other side only if this side keeps the connection until it hangs up.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, timing: Timing) {
    let parting = async {
        let _ = stream.shutdown().await;
        let mut rest = [0; 512];
        while let Ok(1..) = stream.read(&mut rest).await {}
    };
    let _ = tokio::time::timeout(timing.close, parting).await;
}

pub(super) async fn say<S, T>(stream: &mut S, message: &T) -> Result<()>
where
    S: AsyncWrite + Unpin,
    T: serde::Serialize,
{
    FrameWriter::new(stream).message(message).await
}

/// Reads one frame and not a byte more, so that the streams can begin behind it.
pub(super) async fn hear<S, T>(stream: &mut S) -> Result<T>
where
    S: AsyncRead + Unpin,
    T: serde::de::DeserializeOwned,
{
    FrameReader::new(stream, SMALL_BYTES_MAX).message().await
}

/// A refusal by the other side, as an error here.
pub(super) fn refused(refusal: Refusal) -> anyhow::Error {
    let mut failure = refusal.into_failure();
    failure.what = format!("the other side refused: {}", failure.what);
    failure.into()
}

fn stranger(ours: &Hello, key: Fingerprint) -> Refusal {
    Refusal::new(
        Code::Refused,
        format!("{} has not pinned the key {key}", ours.node),
    )
    .hint(format!(
        "pair the two: `standin pair invite` on {}, `standin pair accept` on the other",
        ours.node
    ))
}

/// The name must be the one pinned to the key, and there must be a protocol version that both speak.
pub(super) fn agree(
    ours: &Hello,
    mut theirs: Hello,
    pinned: &NodeName,
) -> Result<Greeted, Refusal> {
    if theirs.node != *pinned {
        let why = format!(
            "this key is pinned to the name {pinned}, but the node calls itself {}",
            theirs.node
        );
        return Err(Refusal::new(Code::Refused, why)
            .hint("remove the pairing on both sides and pair again"));
    }
    let (low, high) = (
        ours.protocol.0.max(theirs.protocol.0),
        ours.protocol.1.min(theirs.protocol.1),
    );
    if low > high {
        let speaks = |hello: &Hello| {
            format!(
                "{} ({}) speaks protocol {} to {}",
                hello.node,
                plain(&hello.version),
                hello.protocol.0,
                hello.protocol.1
            )
        };
        let why = format!(
            "no common protocol version: {}, {}",
            speaks(ours),
            speaks(&theirs)
        );
        return Err(Refusal::new(Code::Refused, why).hint("upgrade the older node"));
    }
    theirs.version = plain(&theirs.version);
    theirs.capabilities.truncate(64);
    Ok(Greeted {
        peer: pinned.clone(),
        hello: theirs,
        protocol: high,
    })
}

/// A step that took longer than its limit.
pub(super) async fn within<T>(
    limit: std::time::Duration,
    step: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(anyhow!(
            "{step}: no answer within {} s",
            limit.as_secs_f64()
        )),
    }
}

/// Gives the error a published code, if it has none yet.
pub(super) fn coded(error: anyhow::Error, code: Code, what: String) -> anyhow::Error {
    match Failure::of(&error).cloned() {
        Some(mut failure) => {
            failure.what = format!("{what}: {}", failure.what);
            failure.into()
        }
        None => error.context(Failure::new(code, what)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn hello(node: &str, protocol: (u32, u32)) -> Hello {
        Hello {
            node: NodeName::parse(node).unwrap(),
            version: "0.1.0\u{1b}[2J".into(),
            protocol,
            capabilities: vec!["x".into(); 1000],
            now: Timestamp::UNIX_EPOCH,
            stream_version_max: 2,
        }
    }

    fn check(ours: (u32, u32), theirs: (u32, u32), expected: Option<u32>) {
        let pinned = NodeName::parse("birch").unwrap();
        match agree(&hello("alder", ours), hello("birch", theirs), &pinned) {
            Ok(greeted) => {
                assert_eq!(Some(greeted.protocol), expected);
                assert_eq!(greeted.hello.version, "0.1.0 [2J");
                assert_eq!(greeted.hello.capabilities.len(), 64);
            }
            Err(refusal) => {
                assert_eq!(expected, None);
                let both = [ours, theirs].map(|(low, high)| format!("protocol {low} to {high}"));
                assert!(
                    both.iter().all(|range| refusal.why.contains(range)),
                    "{}",
                    refusal.why
                );
            }
        }
    }

    #[test]
    fn the_highest_common_version() {
        check((1, 1), (1, 1), Some(1));
        check((1, 3), (2, 5), Some(3));
        check((2, 5), (1, 3), Some(3));
        check((1, 2), (3, 4), None);
        check((3, 4), (1, 2), None);
        check((1, 1), (5, 0), None);
    }

    #[test]
    fn another_name_than_the_pinned_one() {
        let pinned = NodeName::parse("birch").unwrap();
        let refusal = agree(&hello("alder", (1, 1)), hello("cedar", (1, 1)), &pinned)
            .err()
            .unwrap();
        assert!(
            refusal.why.contains("birch") && refusal.why.contains("cedar"),
            "{}",
            refusal.why
        );
    }
}
