//! What all detectors share, from prompts without labels: how often tokens are, and what is usual of the means.

use manifests::{Sha256, Slot};
use router::{RouterFacts, RouterWeights, RoutingPolicy};

use crate::TrainError;

/// Deviations below this are those of values that never change.
const LEAST_DEVIATION: f32 = 1e-3;

/// Features of general prompts that a router keeps.
const GENERAL: usize = 96;

/// The router of these prompts: their means (see [`RouterWeights::means`]) by `token_weights`, of which those that
/// `general` marks want no pack.
///
/// # Errors
/// No prompt, means of several widths, values that are not finite.
pub fn make_router(
    base: Sha256,
    slot: Slot,
    token_weights: Vec<f32>,
    means: &[Vec<f32>],
    general: &[bool],
) -> Result<RouterWeights, TrainError> {
    let width = means.first().map_or(0, Vec::len);
    if width == 0 || means.iter().any(|mean| mean.len() != width) {
        return Err(TrainError::evaluation(
            "the means of the prompts have several widths, or there are none",
        ));
    }
    let count = means.len() as f64;
    let (mut sums, mut squares) = (vec![0.0_f64; width], vec![0.0_f64; width]);
    for mean in means {
        for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(mean) {
            *sum += f64::from(*value);
            *square += f64::from(*value) * f64::from(*value);
        }
    }
    let deviation = |(sum, square): (&f64, &f64)| {
        let mean = sum / count;
        (square / count - mean * mean).max(0.0).sqrt() as f32 + LEAST_DEVIATION
    };
    let facts =
        RouterFacts { version: 1, base, slot, prompts: means.len() as u64, policy: RoutingPolicy::default() };
    let mut weights = RouterWeights::new(
        facts,
        token_weights,
        sums.iter().map(|sum| (sum / count) as f32).collect(),
        sums.iter().zip(&squares).map(deviation).collect(),
    );
    let of_general: Vec<&Vec<f32>> =
        means.iter().zip(general).filter_map(|(mean, general)| general.then_some(mean)).collect();
    // Spread over all, since prompts of one source lie together.
    let step = (of_general.len() / GENERAL).max(1);
    let some = of_general.into_iter().step_by(step).take(GENERAL);
    weights.set_general(some.map(|mean| weights.standardized(mean)).collect());
    weights.check().map_err(|error| TrainError::evaluation(error.to_string()))?;
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_prompt_becomes_zero_and_general_prompts_are_kept() {
        let means: Vec<Vec<f32>> = (0..400).map(|at| vec![at as f32, 5.0, -(at as f32), 0.5]).collect();
        let general: Vec<bool> = (0..400).map(|at| at % 2 == 0).collect();
        let slot = Slot::new(2, 4).unwrap();
        let weights = make_router(Sha256::of_bytes(b"base"), slot, vec![1.0; 3], &means, &general).unwrap();
        let usual: Vec<f32> = weights.standardized(&[199.5, 5.0, -199.5, 0.5]).values().collect();
        assert_eq!(usual, [0.0; 4]);
        assert_eq!(weights.general().len(), 96);
        make_router(Sha256::of_bytes(b"base"), slot, vec![1.0; 3], &[], &[]).unwrap_err();
    }
}
