//! Random numbers and comparisons that the tests share.

use modularbase_kernels::{CpuLevel, ThreadPool};

/// SplitMix64: reproducible numbers without a dependency.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// A pool of two threads for each level that this machine has.
pub fn pools() -> Vec<ThreadPool> {
    [CpuLevel::Scalar, CpuLevel::Avx2, CpuLevel::Avx512]
        .into_iter()
        .filter(|level| *level <= CpuLevel::detect())
        .map(|level| ThreadPool::with_level(2, level))
        .collect()
}

/// Fails with the place of the first value further than `tolerance(i)` from the expected one.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= tolerance(i),
            "{what}: value {i} is {found}, expected {expected}, off by {difference:e}, allowed {:e}",
            tolerance(i)
        );
    }
}
