//! A link as the daemon drives it: the handles are those of [`Link`](crate::peer::link::Link), the work is a worker's.
//!
//! Promise: when the worker ends, falls silent, or says what does not belong, the link is down with that reason and the
//! worker is gone. The worker cannot make the daemon wait: what is told to it has a limit of time.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::outside::Held;
use super::words::{Order, Report};
use crate::peer::exchange::Stream;
use crate::peer::link::{CLOSED_HERE, Command, LastWords, Works};
use crate::peer::message::plain;
use crate::peer::pulse::Pulse;
use crate::peer::timing::Timing;

/// What the kernel may hold of an exchange, each way, in bytes: two of the largest frames or so. More would only hide from the
/// daemon how slow the line is: what it counts as sent, and what its limiter lets pass, would wait here.
const LANE_BYTES: usize = 96 << 10;

/// What the goodbye of a worker may take beyond its own limit.
const SLACK: Duration = Duration::from_secs(1);

/// How the link came to its end.
enum End {
    /// The worker is to say goodbye.
    Here(String),
    /// There is nobody to say it.
    There(String),
}

/// Owns the worker. Ends with it, and says why.
pub(super) async fn drive(mut held: Held, works: Works, pulse: Arc<Pulse>, timing: Timing) {
    let _last_words = LastWords(pulse.clone());
    match follow(&mut held, works, &pulse, timing).await {
        End::Here(why) => {
            let reason = why.strip_prefix(CLOSED_HERE).unwrap_or(&why).to_owned();
            let close = Order::Close { why: reason };
            let parting = async {
                held.channel.send(&close, None).await?;
                while held.channel.recv::<Report>().await?.is_some() {}
                anyhow::Ok(())
            };
            let _ = timeout(timing.close * 2 + SLACK, parting).await;
            // Only now: whoever waits for the end may end this process, and the worker with it.
            pulse.end(why);
        }
        End::There(why) => pulse.end(why),
    }
    // Whatever it is still doing: a dropped worker is killed.
    drop(held);
}

async fn follow(held: &mut Held, works: Works, pulse: &Pulse, timing: Timing) -> End {
    let Works {
        mut to_do,
        mut door,
        to_say: _,
    } = works;
    let patience = timing.silence + timing.beat;
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            // First what the worker says, so that after a pause of this whole machine it is heard before silence is judged.
            biased;
            report = held.channel.recv::<Report>() => {
                heard = Instant::now();
                let report = match report {
                    Ok(Some((report, _))) => report,
                    Ok(None) => return End::There(held.ended().await),
                    Err(error) => return broken(&error),
                };
                match report {
                    Report::Pulse { traffic, rtt_us, silent_ms, clock } => {
                        let ms = Duration::from_millis;
                        let clock = clock.map(|(theirs, ago)| (theirs, ms(ago)));
                        pulse.told(traffic, rtt_us, ms(silent_ms), clock);
                        let ours = Order::Clock { now: Timestamp::now() };
                        let told = timeout(timing.silence, held.channel.send(&ours, None)).await;
                        if !matches!(told, Ok(Ok(()))) {
                            return End::There("the link's worker takes no orders".into());
                        }
                    }
                    Report::Down { why } => return End::There(plain(&why)),
                    Report::Arrived => match lane(held, &Order::Take, timing).await {
                        Ok(stream) => {
                            if !door.admit(stream) {
                                let why = "the link's worker opens too many exchanges";
                                return End::There(why.into());
                            }
                        }
                        Err(error) => return broken(&error),
                    },
                    other => {
                        let why = format!("the link's worker said {:?} out of turn", other.name());
                        return End::There(why);
                    }
                }
            }
            command = to_do.recv() => match command {
                Some(Command::Open(reply)) => match lane(held, &Order::Open, timing).await {
                    // Whoever asked may have given up.
                    Ok(stream) => drop(reply.send(stream)),
                    Err(error) => return broken(&error),
                },
                Some(Command::Close(why)) => return End::Here(why),
                None => return End::Here(format!("{CLOSED_HERE}nobody uses it any more")),
            },
            why = pulse.ended() => return End::Here(why),
            () = tokio::time::sleep_until(heard + patience) => {
                let seconds = patience.as_secs_f64();
                return End::There(format!("the link's worker said nothing for {seconds} s"));
            }
        }
    }
}

fn broken(error: &anyhow::Error) -> End {
    End::There(format!("the link's worker broke the rules: {error:#}"))
}

/// A new socket to the worker, for one exchange.
async fn lane(held: &Held, order: &Order, timing: Timing) -> Result<Stream> {
    let (near, far) = StdUnixStream::pair().context("make a socket for an exchange")?;
    for end in [&near, &far] {
        end.set_nonblocking(true)
            .context("make a socket for an exchange")?;
        // The kernel gives what it allows.
        let _ = sockopt::set_socket_send_buffer_size(end, LANE_BYTES);
    }
    let told = held.channel.send(order, Some(far.as_fd()));
    let told = timeout(timing.silence, told).await;
    told.context("the worker takes no orders")??;
    let near = UnixStream::from_std(near).context("make a socket for an exchange")?;
    Ok(Box::new(Lane(near)))
}

/// The daemon's end of an exchange. It closes when both halves are dropped, not at the end of what is sent: by that the
/// worker knows that nobody reads any more.
struct Lane(UnixStream);

impl AsyncRead for Lane {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lane {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        self.poll_flush(cx)
    }
}
