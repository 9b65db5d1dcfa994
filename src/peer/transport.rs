//! What carries a link: a TCP connection, a child process, a unix socket - any pipe of bytes with two directions.
//!
//! Promise: a TCP connection is set up so that a dead peer is noticed and little waits unsent in the kernel (so that a
//! heartbeat on a slow line is not stuck behind megabytes); a child process is ended when its link is, and what it said on
//! stderr (the last 20 lines) and how it exited is there for the error message. A child's stdin and stdout are one socket, so
//! that it can be handed to a link's worker like any other connection.
//!
//! It deliberately does not know TLS nor what is carried.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{oneshot, watch};

use super::message::plain;

/// Any pipe of bytes that can carry a link.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

impl std::fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport")
    }
}

/// Unsent bytes the kernel keeps at most.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Probing starts after this much silence of the connection ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);

/// ... and is repeated at this distance.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Sent data unacknowledged for this long: the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of stderr kept.
const LINES_KEPT: usize = 20;

/// Longest line of stderr kept, in bytes.
const LINE_BYTES_MAX: usize = 500;

/// How long a child may take to leave after its pipes were closed.
const LEAVE: Duration = Duration::from_secs(2);

/// Sets the options above. Only a socket that is none fails; an option an old kernel lacks is done without, because the
/// heartbeats notice what it would.
pub fn tune(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    // On a line with cuts a heartbeat that was lost some times would wait 16 s for its next try, and the link be taken for
    // dead: few packets on their way are sent again without doubling the pause (tcp(7), six times).
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    Ok(())
}

/// What a child process said on stderr, and how it ended.
#[derive(Debug, Clone)]
pub struct Complaints {
    lines: Arc<Mutex<VecDeque<String>>>,
    over: watch::Receiver<bool>,
}

impl Complaints {
    /// The last lines, `; ` between them; empty when nothing was said.
    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect::<Vec<_>>().join("; ")
    }

    /// Waits until the process has ended and everything it said is here, or for `patience`.
    pub async fn settled(&self, patience: Duration) {
        let mut over = self.over.clone();
        let _ = tokio::time::timeout(patience, over.wait_for(|over| *over)).await;
    }
}

/// The stdin and stdout of a child process, as one pipe. Dropped, the process is ended.
#[derive(Debug)]
pub struct ChildPipe {
    stream: UnixStream,
    leave: Leave,
}

/// Keeps a child running. Dropped, the process is ended.
#[derive(Debug)]
pub struct Leave {
    _told: oneshot::Sender<()>,
}

impl ChildPipe {
    /// The near end of the child's socket, and what keeps the child running.
    pub fn into_parts(self) -> Result<(std::os::unix::net::UnixStream, Leave)> {
        let stream = self.stream.into_std().context("take the child's socket")?;
        Ok((stream, self.leave))
    }
}

/// Starts the program; `argv` is the program and its arguments, no shell in between.
pub fn spawn(argv: &[String]) -> Result<(ChildPipe, Complaints)> {
    let (program, arguments) = argv.split_first().context("the command is empty")?;
    let (near, far) = std::os::unix::net::UnixStream::pair().context("make a socket")?;
    near.set_nonblocking(true).context("make a socket")?;
    let stream = UnixStream::from_std(near).context("make a socket")?;
    let (stdin, stdout) = (far.try_clone().context("make a socket")?, far);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(OwnedFd::from(stdin))
        .stdout(OwnedFd::from(stdout))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program:?}"))?;
    let stderr = child.stderr.take().context("the child has no stderr")?;
    let (told, left) = oneshot::channel();
    let (over, watched) = watch::channel(false);
    let lines = Arc::new(Mutex::new(VecDeque::new()));
    tokio::spawn(mind(child, stderr, left, lines.clone(), over));
    let leave = Leave { _told: told };
    let complaints = Complaints {
        lines,
        over: watched,
    };
    Ok((ChildPipe { stream, leave }, complaints))
}

/// Waits for the child, listening to its stderr; ends it when the pipe is gone.
async fn mind(
    mut child: Child,
    stderr: ChildStderr,
    left: oneshot::Receiver<()>,
    lines: Arc<Mutex<VecDeque<String>>>,
    over: watch::Sender<bool>,
) {
    let listening = tokio::spawn(listen(stderr, lines.clone()));
    let status = tokio::select! {
        status = child.wait() => status,
        _ = left => match tokio::time::timeout(LEAVE, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = child.start_kill();
                child.wait().await
            }
        },
    };
    // A grandchild may hold stderr open for ever: its words are not worth waiting for.
    let listener = listening.abort_handle();
    if tokio::time::timeout(Duration::from_millis(200), listening)
        .await
        .is_err()
    {
        listener.abort();
    }
    let end = match status {
        Ok(status) => format!("the command ended: {status}"),
        Err(error) => format!("the command cannot be waited for: {error}"),
    };
    keep(&lines, end);
    let _ = over.send(true);
}

async fn listen(stderr: ChildStderr, lines: Arc<Mutex<VecDeque<String>>>) {
    each_line(stderr, |line| keep(&lines, line)).await;
}

/// What a child says, line by line, each cut to a length fit for a log.
pub(super) async fn each_line(mut stderr: ChildStderr, mut tell: impl FnMut(String)) {
    let mut chunk = [0; 1024];
    let mut line = Vec::new();
    while let Ok(bytes @ 1..) = stderr.read(&mut chunk).await {
        for &byte in &chunk[..bytes] {
            if byte == b'\n' {
                tell(plain(&String::from_utf8_lossy(&line)));
                line.clear();
            } else if line.len() < LINE_BYTES_MAX {
                line.push(byte);
            }
        }
    }
    tell(plain(&String::from_utf8_lossy(&line)));
}

fn keep(lines: &Mutex<VecDeque<String>>, line: String) {
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES_KEPT {
        lines.pop_front();
    }
    lines.push_back(line.to_owned());
}

impl AsyncRead for ChildPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ChildPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The child reads the end of its stdin: nothing follows.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn argv(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_child_is_a_pipe_with_two_directions() {
        let (mut pipe, _) = spawn(&argv("cat")).unwrap();
        pipe.write_all(b"there and back").await.unwrap();
        pipe.shutdown().await.unwrap();
        let mut back = String::new();
        pipe.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "there and back");
    }

    #[tokio::test]
    async fn the_last_words_and_the_status_are_kept() {
        let (_pipe, complaints) = spawn(&argv(
            "for i in $(seq 50); do echo \"line $i\" >&2; done; exit 3",
        ))
        .unwrap();
        complaints.settled(Duration::from_secs(10)).await;
        let text = complaints.text();
        assert!(
            text.contains("line 50; the command ended: exit status: 3"),
            "{text}"
        );
        assert!(!text.contains("line 30;"), "{text}");
    }

    #[tokio::test]
    async fn a_child_does_not_outlive_its_pipe() {
        let (pipe, complaints) = spawn(&argv("exec sleep 1000")).unwrap();
        drop(pipe);
        complaints.settled(Duration::from_secs(20)).await;
        assert!(
            complaints.text().contains("signal: 9"),
            "{}",
            complaints.text()
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there() {
        assert!(spawn(&["/nonexistent/ssh".to_owned()]).is_err());
        assert!(spawn(&[]).is_err());
    }
}
