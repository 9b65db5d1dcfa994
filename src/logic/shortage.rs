//! Too little space, as a value: what a receiver lacks, and what both sides say of it.
//!
//! Promise: figures are of the moment they were taken. It deliberately does not know how free space is found out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::human_bytes;

/// What is missing on one filesystem, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The least that what is still to come takes; 0 where nobody knows.
    pub needed: u64,
    /// Free above the reserve.
    pub free: u64,
    /// What receiving leaves free.
    pub reserve: u64,
}

impl Shortage {
    /// Whether it is over once so many bytes are free above the reserve. Where the need is not known, anything is worth a
    /// try.
    pub fn ends_with(&self, free: u64) -> bool {
        free > 0 && free >= self.needed
    }
}

/// `3.1 GiB needed, 1.2 GiB free above the reserve of 1.0 GiB`.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.needed > 0 {
            write!(f, "{} needed, ", human_bytes(self.needed))?;
        }
        let (free, reserve) = (human_bytes(self.free), human_bytes(self.reserve));
        write!(f, "{free} free above the reserve of {reserve}")
    }
}

impl std::error::Error for Shortage {}

/// The share of file data that a compressing filesystem is sure to need: zstd at its default level seldom does better, and
/// whoever has less room than this would be refused in the middle. Divisor.
const COMPRESSED_LEAST: u64 = 8;

/// The least room that so much file data takes, in bytes. Clones and holes are not file data; metadata is judged while
/// writing, because nobody knows it before.
pub fn least_needed(data_bytes: u64, compresses: bool) -> u64 {
    if compresses {
        data_bytes / COMPRESSED_LEAST
    } else {
        data_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(needed: u64, free: u64, words: &str, ends: &[(u64, bool)]) {
        let shortage = Shortage {
            needed,
            free,
            reserve: 1 << 30,
        };
        assert_eq!(shortage.to_string(), words);
        for (free, over) in ends {
            assert_eq!(shortage.ends_with(*free), *over, "{words}, then {free}");
        }
    }

    #[test]
    fn words_and_ends() {
        check(
            3 << 30,
            1 << 20,
            "3.0 GiB needed, 1.0 MiB free above the reserve of 1.0 GiB",
            &[(0, false), ((3 << 30) - 1, false), (3 << 30, true)],
        );
        check(
            0,
            0,
            "0 B free above the reserve of 1.0 GiB",
            &[(0, false), (1, true)],
        );
    }

    #[test]
    fn compression_is_given_the_benefit_of_the_doubt() {
        assert_eq!(least_needed(800, false), 800);
        assert_eq!(least_needed(800, true), 100);
        assert_eq!(least_needed(0, true), 0);
    }
}
