//! What the stage and the agent in a machine say to each other: one line of JSON each, over a port of the machine's that is
//! no network.
//!
//! Promise: an answer carries the number of its request, so that several run at once. A line that is cut short, by a crash of
//! either side, is no JSON and is passed over.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Where the agent finds its port.
pub const PORT: &str = "/dev/virtio-ports/org.standin.agent";

/// Run this program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub argv: Vec<String>,
    /// In base64, as all bytes here.
    pub stdin: String,
    /// After which its whole process group is killed, in milliseconds.
    pub limit: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    /// Exit code; that of a shell (128 and the number) after a signal.
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The code of what was killed because its time was up, as that of timeout(1).
pub const TIME_IS_UP: i32 = 124;

pub fn pack(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub fn unpack(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap_or_default()
}
