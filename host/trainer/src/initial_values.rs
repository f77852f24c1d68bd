//! The values that weights start from, as a graph states them.

use manifests::Sha256;
use modularbase_graph::Init;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// `elements` values; zeros for a copy of the base's, which the caller reads from its file. Draws depend on the seed
/// and the weight's name alone, so that a weight that is added changes no other one.
pub fn initial_values(init: &Init, elements: usize, seed: u64, name: &str) -> Vec<f32> {
    match init {
        Init::Zeros | Init::CopyFromBase(_) => vec![0.0; elements],
        Init::Ones => vec![1.0; elements],
        Init::Normal { std } => {
            let key = Sha256::of_bytes(&[&seed.to_le_bytes(), name.as_bytes()].concat());
            let mut random = ChaCha8Rng::from_seed(*key.as_bytes());
            (0..elements).map(|_| standard_normal(&mut random) * std).collect()
        }
    }
}

/// One draw of mean 0 and deviation 1 (Box and Muller 1958).
fn standard_normal(random: &mut ChaCha8Rng) -> f32 {
    // In (0, 1], so that its logarithm is finite.
    let uniform = |bits: u64| ((bits >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(random.next_u64()), uniform(random.next_u64()));
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_their_deviation_and_depend_on_seed_and_name() {
        let init = Init::Normal { std: 0.02 };
        let values = initial_values(&init, 20_000, 1, "a");
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 6e-4 && (deviation - 0.02).abs() < 6e-4, "{mean} {deviation}");
        assert_eq!(values, initial_values(&init, 20_000, 1, "a"));
        assert_ne!(values, initial_values(&init, 20_000, 1, "b"));
        assert_ne!(values, initial_values(&init, 20_000, 2, "a"));
        assert_eq!(initial_values(&Init::Ones, 2, 0, "a"), [1.0, 1.0]);
    }
}
