//! `standin apply-worker`: applies one stream for the daemon, in a process that can do little else.

use anyhow::Result;

use crate::error::Code;
use crate::fs::btrfs::receive::worker;

pub fn run() -> Result<Code> {
    worker::work().map(|()| Code::Done)
}
