//! `standin link --stdio`: carries a link between standard input and output and the daemon's link socket.
//!
//! It deliberately understands nothing of what it carries: the bytes are TLS between the two daemons, and this process,
//! often started by ssh, can neither read nor forge them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};

use super::client::Control;
use crate::cli::Global;
use crate::error::{Code, Failure};
use crate::peer::worker::inside;

/// Bytes carried at a time: two TLS records.
const CHUNK_BYTES: usize = 32 << 10;

pub fn run(global: &Global) -> Result<Code> {
    let path = Control::of(global).socket()?.with_file_name("link.sock");
    let mut daemon = UnixStream::connect(&path).map_err(|error| {
        Failure::new(
            Code::NoDaemon,
            format!("reach the daemon on {}: {error}", path.display()),
        )
        .hint("on this node: systemctl start standin")
    })?;
    let mut to_daemon = daemon.try_clone().context("carry both ways")?;
    // Ends with the process: it may wait for a peer that never speaks again.
    std::thread::spawn(move || {
        let _ = carry(&mut io::stdin().lock(), &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    match carry(&mut daemon, &mut io::stdout().lock()) {
        // The dialling side hung up; its daemon knows why.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(Code::Done)
        }
        result => result.context("carry the link").map(|()| Code::Done),
    }
}

/// What the daemon starts for each connection.
pub fn work() -> Result<Code> {
    inside::run().map(|()| Code::Done)
}

fn carry(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let bytes = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..bytes])?;
        to.flush()?;
    }
}
