//! One case of a campaign: its seed, what happened in it, and how it is judged.

use std::collections::BTreeMap;

/// A kind of trouble.
#[derive(Clone, Copy)]
pub struct Kind {
    /// As typed.
    pub name: &'static str,
    /// What is done and what must hold, for the table; one sentence.
    pub what: &'static str,
    /// Cases of the short run.
    pub short: u64,
    /// Runs one case. Panics or an error fail it.
    pub run: fn(&mut Case) -> Result<(), String>,
}

pub struct Case {
    pub seed: u64,
    state: u64,
    /// What was done how often, for the table: "kills of the receiver" => 3.
    pub tally: BTreeMap<&'static str, u64>,
    /// How often something happened at a named place of the program, for the eye.
    pub places: BTreeMap<&'static str, u64>,
}

impl Case {
    pub fn new(seed: u64) -> Case {
        // Two rounds part seeds that differ in one bit.
        let mut case = Case {
            seed,
            state: seed ^ 0x9E37_79B9_7F4A_7C15,
            tally: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        case.draw();
        case.draw();
        case
    }

    pub fn count(&mut self, what: &'static str) {
        self.count_more(what, 1);
    }

    pub fn count_more(&mut self, what: &'static str, times: u64) {
        *self.tally.entry(what).or_default() += times;
    }

    pub fn count_at(&mut self, place: &'static str) {
        *self.places.entry(place).or_default() += 1;
    }

    /// The next number of the case's sequence (splitmix64, Steele, Lea, Flood 2014).
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
