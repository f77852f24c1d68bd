//! Linear discriminant analysis over routing keys (Fisher 1936): classes with one common scatter, the mean of what the
//! keys ship.

use crate::matrices::{cholesky, dot, solve};
use crate::{KeyError, RoutingKey};

/// Added to every variance, as a share of the mean one: a direction that no key has seen must not decide.
const SHRINKAGE: f64 = 1e-3;

/// Scores of features against keys, one a key.
#[derive(Debug, Clone)]
pub struct Discriminant {
    width: usize,
    /// The mean of the keys' means, taken from every feature first, which keeps numbers small.
    centre: Vec<f64>,
    /// For each key its direction and what is added.
    classes: Vec<(Vec<f64>, f64)>,
}

impl Discriminant {
    /// The discriminant of these keys; each counts the same.
    ///
    /// # Errors
    /// No key; keys of different bases, slots or widths.
    pub fn new(keys: &[&RoutingKey]) -> Result<Self, KeyError> {
        let Some(first) = keys.first() else { return Err(KeyError::Mismatch("there is no key".into())) };
        let width = first.width();
        let (mut scatter, mut centre) = (vec![0.0; width * width], vec![0.0; width]);
        for key in keys {
            let same = key.facts.base == first.facts.base && key.facts.slot == first.facts.slot;
            if !same || key.width() != width {
                return Err(KeyError::Mismatch(
                    format!(
                        "base {}, slot {}, width {width}; base {}, slot {}, width {}",
                        first.facts.base,
                        first.facts.slot,
                        key.facts.base,
                        key.facts.slot,
                        key.width()
                    )
                    .into(),
                ));
            }
            let share = 1.0 / keys.len() as f64;
            key.scatter.add_to(&mut scatter, share);
            centre.iter_mut().zip(&key.mean).for_each(|(centre, mean)| *centre += share * f64::from(*mean));
        }
        let trace: f64 = (0..width).map(|at| scatter[at * width + at]).sum();
        let least = (trace / width as f64 * SHRINKAGE).max(1e-9);
        (0..width).for_each(|at| scatter[at * width + at] += least);
        let lower = cholesky(&scatter, width)
            .ok_or_else(|| KeyError::Facts("the common scatter is not positive definite".into()))?;
        let class = |key: &&RoutingKey| {
            let mean: Vec<f64> =
                key.mean.iter().zip(&centre).map(|(mean, centre)| f64::from(*mean) - centre).collect();
            let direction = solve(&lower, width, &mean);
            let offset = -0.5 * dot(&direction, &mean);
            (direction, offset)
        };
        let classes = keys.iter().map(class).collect();
        Ok(Self { width, centre, classes })
    }

    /// The score of a feature, `[width]`, for each key: up to a common term the log likelihood. `None` for a feature
    /// of another width.
    pub fn scores(&self, feature: &[f32]) -> Option<Vec<f64>> {
        if feature.len() != self.width {
            return None;
        }
        let centred: Vec<f64> =
            feature.iter().zip(&self.centre).map(|(value, centre)| f64::from(*value) - centre).collect();
        Some(self.classes.iter().map(|(direction, offset)| dot(direction, &centred) + offset).collect())
    }
}

#[cfg(test)]
mod tests {
    use manifests::{Sha256, Slot};

    use super::*;
    use crate::{KeyFacts, Scatter};

    fn key(mean: [f32; 3], diagonal: [f32; 3]) -> RoutingKey {
        RoutingKey {
            facts: KeyFacts {
                version: 1,
                base: Sha256::of_bytes(b"base"),
                slot: Slot::new(2, 4).unwrap(),
                prompts: 1,
                counts: Default::default(),
                router: None,
                check: None,
            },
            mean: mean.to_vec(),
            scatter: Scatter::new(Vec::new(), diagonal.to_vec()).unwrap(),
            detector: None,
        }
    }

    #[test]
    fn a_feature_that_scatters_widely_says_less() {
        let a = key([0.0, 0.0, 0.0], [1.0, 1e4, 1.0]);
        let b = key([1.0, 10.0, 0.0], [1.0, 1e4, 1.0]);
        let discriminant = Discriminant::new(&[&a, &b]).unwrap();
        let scores = discriminant.scores(&[0.0, 10.0, 5.0]).unwrap();
        assert!(scores[0] > scores[1], "the first feature decides: {scores:?}");
        let middle = discriminant.scores(&[0.5, 5.0, 0.0]).unwrap();
        assert!((middle[0] - middle[1]).abs() < 1e-9, "{middle:?}");
        assert_eq!(discriminant.scores(&[0.0]), None);
    }

    #[test]
    fn keys_of_different_slots_are_not_compared() {
        let a = key([0.0; 3], [1.0; 3]);
        let mut b = a.clone();
        b.facts.slot = Slot::new(1, 4).unwrap();
        assert!(matches!(Discriminant::new(&[&a, &b]), Err(KeyError::Mismatch(_))));
        assert!(Discriminant::new(&[]).is_err());
    }
}
