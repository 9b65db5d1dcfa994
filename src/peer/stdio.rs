//! `standin link --stdio`: carries a link between our stdin and stdout and the daemon's local socket.
//!
//! Promise: bytes only; both ends of the link speak TLS to each other through it, so this process sees nothing. It ends when
//! the daemon closes. Plain threads and blocking calls: a read of stdin that never returns must not keep a process alive.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::{Code, Failure};

/// Connects to the daemon's link socket and copies both ways. Blocks; call it outside of any runtime, and leave the process
/// afterwards: a thread may still be waiting for stdin.
pub fn bridge(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        let code = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Code::NoDaemon,
            _ => Code::Failed,
        };
        let what = format!(
            "connect to the daemon's link socket {}: {error}",
            socket.display()
        );
        anyhow::Error::from(Failure::new(code, what))
    })?;
    // Our own descriptors: the standard handles buffer by line, which a binary stream must not suffer.
    let stdin = File::from(
        std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("open stdin")?,
    );
    let stdout = File::from(
        std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .context("open stdout")?,
    );
    carry(stdin, stdout, stream)
}

fn carry(from: impl Read + Send + 'static, to: impl Write, stream: UnixStream) -> Result<()> {
    let up = stream.try_clone().context("share the socket")?;
    std::thread::Builder::new()
        .name("link-up".into())
        .spawn(move || {
            // The reader at the other end sees the end of the stream and closes; there is nobody else to tell.
            let _ = copy(from, &up);
            let _ = up.shutdown(Shutdown::Write);
        })
        .context("start a thread")?;
    copy(&stream, to).context("carry the link")
}

fn copy(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let bytes = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..bytes])?;
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_the_end() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let daemon = std::thread::spawn(move || {
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).unwrap();
            far.write_all(b"back").unwrap();
            heard
        });
        let mut out = Vec::new();
        carry(&b"there"[..], &mut out, near).unwrap();
        assert_eq!(out, b"back");
        assert_eq!(daemon.join().unwrap(), b"there");
    }

    #[test]
    fn a_stdin_that_stays_open_does_not_hold_it() {
        let (near, far) = UnixStream::pair().unwrap();
        let (silent, _keep) = UnixStream::pair().unwrap();
        drop(far);
        carry(silent, std::io::sink(), near).unwrap();
    }

    #[test]
    fn no_daemon() {
        let error = bridge(Path::new("/nonexistent/link.sock")).unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::NoDaemon);
    }
}
