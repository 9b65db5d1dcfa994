//! How often a role that is handed over is copied ahead, while its services run, before they are stopped for the rest.
//!
//! Each round takes what was written during the one before it, so the services stand still for about as long as the last one
//! took. Promise: pure; ends after [`ROUNDS_MAX`], and as soon as one more would not make it shorter.

use std::time::Duration;

const ROUNDS_MAX: usize = 6;

/// A round that took no longer leaves little for the last one.
const SHORT: Duration = Duration::from_secs(2);

/// Whether it is enough, by what each round took.
pub fn is_over(rounds: &[Duration]) -> bool {
    match rounds {
        [] => false,
        [.., last] if *last <= SHORT => true,
        // What takes its time however little is written, or is written as fast as it is sent, stays as it is.
        [.., before, last] if *last * 4 >= *before * 3 => true,
        rounds => rounds.len() >= ROUNDS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds() {
        let check = |seconds: &[u64], over: bool| {
            let rounds: Vec<Duration> = seconds.iter().copied().map(Duration::from_secs).collect();
            assert_eq!(is_over(&rounds), over, "{seconds:?}");
        };
        check(&[], false);
        check(&[1], true);
        check(&[900], false);
        check(&[900, 300], false);
        check(&[900, 300, 2], true);
        check(&[12, 11], true);
        check(&[12, 13], true);
        check(&[900, 600, 400, 250, 150], false);
        check(&[900, 600, 400, 250, 150, 90], true);
    }
}
