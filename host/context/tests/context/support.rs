//! Blocks to keep, drawn from a seed.

use half::f16;
use modularbase_context::KvShape;

/// Numbers that look random and are the same every time (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Near normal, mean 0 and variance 1: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1_u64 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// Keys, with some channels that are large in every token as real ones have, and values; f16 bits.
pub fn block(shape: KvShape, seed: u64) -> (Vec<u16>, Vec<u16>) {
    let mut random = Random(seed);
    let offsets: Vec<f32> =
        (0..shape.width()).map(|channel| if channel % 16 == 3 { 8.0 } else { random.normal() }).collect();
    let keys = (0..shape.elements()).map(|at| random.normal() + offsets[at % shape.width()]);
    let keys = keys.collect::<Vec<f32>>();
    let values: Vec<f32> = (0..shape.elements()).map(|_| 0.3 * random.normal()).collect();
    (bits(&keys), bits(&values))
}

pub fn bits(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| f16::from_f32(value).to_bits()).collect()
}

pub fn floats(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect()
}
