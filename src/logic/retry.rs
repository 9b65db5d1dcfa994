//! When a transfer that failed is tried again.
//!
//! Promise: pure and total; waits grow, and have an end. It deliberately does not know what failed beyond its kind.

use std::time::Duration;

/// What kind of trouble ended the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Too little space with the peer: a look costs one question.
    Space,
    /// A disk or anything else that may pass: an attempt reads the source and asks the peer to write.
    Other,
}

const FIRST: Duration = Duration::from_secs(2);
const SPACE_MOST: Duration = Duration::from_secs(30);
const OTHER_MOST: Duration = Duration::from_secs(600);

/// How long to wait after so many failures in a row (1: the first).
pub fn wait(trouble: Trouble, failures: u32) -> Duration {
    let most = match trouble {
        Trouble::Space => SPACE_MOST,
        Trouble::Other => OTHER_MOST,
    };
    let doublings = failures.saturating_sub(1).min(20);
    FIRST.saturating_mul(1 << doublings).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trouble: Trouble, failures: u32, seconds: u64) {
        assert_eq!(
            wait(trouble, failures).as_secs(),
            seconds,
            "{trouble:?} {failures}"
        );
    }

    #[test]
    fn waits_grow_to_a_bound() {
        for trouble in [Trouble::Space, Trouble::Other] {
            check(trouble, 0, 2);
            check(trouble, 1, 2);
            check(trouble, 2, 4);
        }
        check(Trouble::Space, 4, 16);
        check(Trouble::Space, 5, 30);
        check(Trouble::Space, u32::MAX, 30);
        check(Trouble::Other, 5, 32);
        check(Trouble::Other, 10, 600);
        check(Trouble::Other, u32::MAX, 600);
    }
}
