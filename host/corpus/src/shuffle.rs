//! Orders that follow from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The numbers below `count` in an order that depends on `seed` and `round` (an epoch) alone: the same on every
/// machine and in every version that keeps this function (Fisher-Yates over ChaCha8).
pub fn shuffled(count: usize, seed: u64, round: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(round);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // The upper half of a product of 64 bits: its bias is below 1 in 2^64 / count.
        let below = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, below as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_a_permutation_and_follows_from_seed_and_round() {
        let order = shuffled(1000, 7, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!(order, shuffled(1000, 7, 3));
        assert_ne!(order, shuffled(1000, 7, 4));
        assert_ne!(order, shuffled(1000, 8, 3));
        assert_eq!(shuffled(8, 1, 0), [5, 6, 2, 4, 1, 7, 0, 3], "a changed order breaks every resumed run");
        assert!(shuffled(0, 1, 1).is_empty());
    }
}
