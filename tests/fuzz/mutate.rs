//! Inputs from seeds: each a few changes away from one of them. No coverage to go by: that is what libFuzzer is for.

use crate::support::random::Random;

/// Longest input made, in bytes.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers at which lengths and offsets tend to break.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

pub struct Mutator {
    random: Random,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Mutator {
        Mutator {
            random: Random::new(seed),
            seeds,
        }
    }

    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.random.pick(&self.seeds).cloned().unwrap_or_default();
        for _ in 0..=self.random.below(6) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(input.len() as u64 + 1) as usize;
        let rest = input.len() - at;
        let run = (1 + random.below(16) as usize).min(rest);
        match random.below(8) {
            0 if rest > 0 => input[at] ^= 1 << random.below(8),
            1 if rest > 0 => input[at] = random.next() as u8,
            2 => {
                let bytes = random.bytes(1 + at % 9);
                input.splice(at..at, bytes);
            }
            3 => {
                input.drain(at..at + run);
            }
            4 => {
                let piece = input[at..at + run].to_vec();
                let to = random.below(input.len() as u64 + 1) as usize;
                input.splice(to..to, piece);
            }
            5 => {
                let edge = *random.pick(&EDGES).unwrap_or(&0);
                let bytes = if random.one_in(2) {
                    edge.to_le_bytes()
                } else {
                    edge.to_be_bytes()
                };
                let width = [1, 2, 4, 8][random.below(4) as usize];
                let bytes = if random.one_in(2) {
                    &bytes[..width]
                } else {
                    &bytes[8 - width..]
                };
                input.splice(at..at + width.min(rest), bytes.iter().copied());
            }
            6 => {
                let other = self.random.pick(&self.seeds).cloned().unwrap_or_default();
                let from = self.random.below(other.len() as u64 + 1) as usize;
                input.splice(at.., other[from..].iter().copied());
            }
            _ => input.truncate(at),
        }
    }
}
