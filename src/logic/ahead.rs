//! How often a role that is handed over is copied ahead, while its services run, before they are stopped for the rest.
//!
//! Each round takes what was written during the one before it, so the services stand still for about as long as the last one
//! took. Promise: pure; ends after [`ROUNDS_MAX`], and as soon as one more would not make it shorter. Where next to nothing was
//! written, what a round takes is what any round takes.

use std::time::Duration;

const ROUNDS_MAX: usize = 6;

/// A round that took no longer leaves little for the last one.
const SHORT: Duration = Duration::from_secs(2);

/// Bytes on the wire that are next to nothing: less than two seconds of a line of 2 Mbit/s.
const LITTLE: u64 = 256 << 10;

/// One round of copying ahead.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub took: Duration,
    /// What was sent in it, on the wire: changes that are no data, such as many new names, count too.
    pub bytes: u64,
}

/// Whether it is enough, by what the rounds were like.
pub fn is_over(rounds: &[Round]) -> bool {
    match rounds {
        [] => false,
        [.., last] if last.took <= SHORT || last.bytes <= LITTLE => true,
        // What takes its time however little is written, or is written as fast as it is sent, stays as it is.
        [.., before, last] if last.took * 4 >= before.took * 3 => true,
        rounds => rounds.len() >= ROUNDS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds() {
        // Seconds and KiB of each.
        let check = |rounds: &[(u64, u64)], over: bool| {
            let round = |&(seconds, kib): &(u64, u64)| Round {
                took: Duration::from_secs(seconds),
                bytes: kib << 10,
            };
            let all: Vec<Round> = rounds.iter().map(round).collect();
            assert_eq!(is_over(&all), over, "{rounds:?}");
        };
        check(&[], false);
        check(&[(1, 9_000)], true);
        check(&[(900, 9_000)], false);
        check(&[(900, 9_000), (300, 3_000)], false);
        check(&[(900, 9_000), (300, 3_000), (2, 20)], true);
        check(&[(900, 9_000), (300, 256)], true);
        check(&[(12, 9_000), (11, 9_000)], true);
        check(&[(12, 9_000), (13, 9_000)], true);
        check(&[(20, 100)], true);
        check(&[(20, 256)], true);
        check(&[(20, 257)], false);
        let slow = [900, 600, 400, 250, 150, 90].map(|seconds| (seconds, 9_000));
        check(&slow[..5], false);
        check(&slow, true);
    }
}
