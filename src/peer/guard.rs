//! Watches what a peer's multiplexer sends: a flood of tiny frames would take far more memory than the receive windows
//! count, because each frame that waits to be read is an allocation of its own.
//!
//! Promise: of data frames with a tiny body at most [`BURST`], and one more for each millisecond and for each
//! [`EARNING_BYTES`] of data, are let through; then the connection breaks. Honest nodes stay far below: our own data
//! travel in frames of 16 KiB.
//!
//! The frame head is that of yamux (specification: hashicorp/yamux, spec.md): version u8, type u8 (0: data), flags u16,
//! stream u32, length u32, big endian; only data frames have a body.

use std::time::Duration;

const HEAD_BYTES: usize = 12;

/// The type of data frames.
const DATA: u8 = 0;

/// Bodies shorter than this are tiny. An empty one takes no memory.
const TINY_BYTES: u32 = 512;

/// Tiny frames at once: with about 100 bytes of memory each, 6 MiB.
const BURST: u64 = 64 * 1024;

/// This much data earns one tiny frame: the last piece of something large.
const EARNING_BYTES: u64 = 4096;

/// Too many tiny frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side floods the link with tiny frames")]
pub(super) struct Flood;

#[derive(Debug, Default)]
pub(super) struct Guard {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes of the present body still to come.
    body: u32,
    /// Bytes of data so far.
    data: u64,
    /// Tiny frames let through that nothing has earned back yet.
    tiny: u64,
    /// What was earned by time and data, until it was last settled.
    earned: u64,
}

impl Guard {
    /// The bytes that came next, `since` the start of the link.
    pub fn see(&mut self, mut bytes: &[u8], since: Duration) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let skip = bytes.len().min(self.body as usize);
                self.body -= skip as u32;
                self.data += skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            let take = bytes.len().min(HEAD_BYTES - self.head_bytes);
            let (part, rest) = bytes.split_at(take);
            self.head[self.head_bytes..self.head_bytes + take].copy_from_slice(part);
            self.head_bytes += take;
            bytes = rest;
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                self.frame(since)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, since: Duration) -> Result<(), Flood> {
        let [_, kind, _, _, _, _, _, _, a, b, c, d] = self.head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if kind != DATA || length == 0 {
            return Ok(());
        }
        self.body = length;
        if length >= TINY_BYTES {
            return Ok(());
        }
        let earned = since.as_millis() as u64 + self.data / EARNING_BYTES;
        self.tiny = self.tiny.saturating_sub(earned - self.earned) + 1;
        self.earned = earned;
        if self.tiny > BURST {
            Err(Flood)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: u32) -> Vec<u8> {
        let mut frame = vec![0, kind, 0, 0, 0, 0, 0, 1];
        frame.extend_from_slice(&body.to_be_bytes());
        if kind == DATA {
            frame.resize(HEAD_BYTES + body as usize, 0);
        }
        frame
    }

    /// How many rounds of the frames, at a distance in milliseconds, are let through; at most 200,000.
    fn rounds(frames: &[Vec<u8>], millis: u64, cut: usize) -> u64 {
        let mut guard = Guard::default();
        let round = frames.concat();
        for index in 0..200_000 {
            let since = Duration::from_millis(index * millis);
            if round
                .chunks(cut)
                .any(|part| guard.see(part, since).is_err())
            {
                return index;
            }
        }
        200_000
    }

    #[test]
    fn a_flood_ends() {
        let near = BURST..BURST + 100;
        assert!(near.contains(&rounds(&[frame(DATA, 1)], 0, 1000)));
        assert!(near.contains(&rounds(&[frame(DATA, 1)], 0, 5)));
        // Two tiny frames a millisecond: one of them is earned.
        let two = rounds(&[frame(DATA, 1), frame(DATA, 1)], 1, 1000);
        assert!(near.contains(&two), "{two}");
    }

    #[test]
    fn honest_traffic_passes() {
        let data = [frame(DATA, 16_372), frame(DATA, 16_372), frame(DATA, 9)];
        assert_eq!(rounds(&data[..], 0, 40_000), 200_000);
        assert_eq!(rounds(&[frame(DATA, 40)], 1, 1000), 200_000);
        assert_eq!(
            rounds(&[frame(DATA, 0), frame(1, 77_777), frame(2, 1)], 0, 7),
            200_000
        );
    }
}
