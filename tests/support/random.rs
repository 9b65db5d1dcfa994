//! Numbers from a seed (splitmix64): the same on every machine, for ever.

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Half of them noise, half compressible.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let noise = self.one_in(2);
        let word = self.next();
        (0..length.div_ceil(8))
            .flat_map(|i| {
                let word = if noise {
                    self.next()
                } else {
                    word ^ (i as u64 / 50)
                };
                word.to_le_bytes()
            })
            .take(length)
            .collect()
    }
}
