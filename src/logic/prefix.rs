//! The hash of a stream's prefix: how a resumed transfer proves that both sides mean the same bytes.
//!
//! Promise: the value after `n` bytes depends on those bytes alone, not on how they were cut into calls; the state can be
//! saved and restored, so that a receiver that was killed goes on hashing without reading anything again. A block of
//! [`BLOCK_BYTES`] is folded into the chain when it is full: `chain = BLAKE3(chain || block)`; the value at any place is
//! `BLAKE3(chain || rest || length as u64 little endian)`.

use serde::{Deserialize, Serialize};

/// Bytes folded into the chain at a time.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// A running prefix hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrefixHash {
    chain: [u8; 32],
    rest: Vec<u8>,
    bytes: u64,
}

/// What survives a restart. `rest` is at most one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPrefix {
    pub chain: String,
    pub rest: String,
    pub bytes: u64,
}

impl PrefixHash {
    /// Bytes hashed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn update(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        while !data.is_empty() {
            if self.rest.is_empty() && data.len() >= BLOCK_BYTES {
                let (block, tail) = data.split_at(BLOCK_BYTES);
                self.chain = fold(&self.chain, block);
                data = tail;
                continue;
            }
            let take = data.len().min(BLOCK_BYTES - self.rest.len());
            let (head, tail) = data.split_at(take);
            self.rest.extend_from_slice(head);
            data = tail;
            if self.rest.len() == BLOCK_BYTES {
                self.chain = fold(&self.chain, &self.rest);
                self.rest.clear();
            }
        }
    }

    /// The hash of everything so far, as 64 hex digits.
    pub fn value(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.chain)
            .update(&self.rest)
            .update(&self.bytes.to_le_bytes());
        hasher.finalize().to_hex().to_string()
    }

    pub fn save(&self) -> SavedPrefix {
        SavedPrefix {
            chain: hex(&self.chain),
            rest: hex(&self.rest),
            bytes: self.bytes,
        }
    }

    /// None when the saved state contradicts itself (a damaged file).
    pub fn restore(saved: &SavedPrefix) -> Option<PrefixHash> {
        let chain = unhex(&saved.chain)?.try_into().ok()?;
        let rest = unhex(&saved.rest)?;
        let consistent =
            rest.len() < BLOCK_BYTES && saved.bytes % BLOCK_BYTES as u64 == rest.len() as u64;
        consistent.then_some(PrefixHash {
            chain,
            rest,
            bytes: saved.bytes,
        })
    }
}

fn fold(chain: &[u8; 32], block: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain).update(block);
    *hasher.finalize().as_bytes()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| {
            [
                DIGITS[usize::from(b >> 4)] as char,
                DIGITS[usize::from(b & 15)] as char,
            ]
        })
        .collect()
}

/// The inverse of [`hex`]; none on anything else.
pub fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = word
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    fn check(bytes: usize, cuts: &[usize]) {
        let data = sample(bytes);
        let mut whole = PrefixHash::default();
        whole.update(&data);
        let mut parts = PrefixHash::default();
        let mut from = 0;
        for &cut in cuts {
            parts.update(&data[from..cut]);
            from = cut;
            parts = PrefixHash::restore(&parts.save()).unwrap();
        }
        parts.update(&data[from..]);
        assert_eq!(parts.value(), whole.value());
        assert_eq!(parts.bytes(), bytes as u64);
    }

    #[test]
    fn cuts_and_restarts_do_not_matter() {
        check(0, &[]);
        check(10, &[0, 3, 3, 9]);
        check(BLOCK_BYTES, &[1, BLOCK_BYTES]);
        check(
            3 * BLOCK_BYTES + 17,
            &[BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5],
        );
        check(5 * BLOCK_BYTES, &[5 * BLOCK_BYTES]);
    }

    #[test]
    fn one_bit_matters() {
        let mut data = sample(200_000);
        let value = |data: &[u8]| {
            let mut hash = PrefixHash::default();
            hash.update(data);
            hash.value()
        };
        let before = value(&data);
        data[100_000] ^= 1;
        assert_ne!(before, value(&data));
        assert_ne!(value(&[]), value(&[0]));
    }

    #[test]
    fn damaged_state_is_refused() {
        let mut hash = PrefixHash::default();
        hash.update(&sample(100));
        let good = hash.save();
        assert!(
            PrefixHash::restore(&SavedPrefix {
                bytes: 101,
                ..good.clone()
            })
            .is_none()
        );
        assert!(
            PrefixHash::restore(&SavedPrefix {
                chain: "zz".into(),
                ..good.clone()
            })
            .is_none()
        );
        assert!(
            PrefixHash::restore(&SavedPrefix {
                rest: "abc".into(),
                ..good
            })
            .is_none()
        );
    }
}
