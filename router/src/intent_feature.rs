//! What the router looks at of a prompt.

/// Values a step of 1 has: standard deviations in 256 parts.
pub(crate) const STEPS: f32 = 256.0;

/// A value further from the mean than so many deviations tells no more than one just there.
pub(crate) const FARTHEST: f32 = 6.0;

/// The intent feature of a prompt, `[4 * hidden]`: means of its hidden states in front of the slot and of its embeddings,
/// each once with all tokens alike and once with rare tokens counting more, as deviations from the usual.
///
/// Values are held as whole 256ths, so what is computed of them is the same to the bit in any order of sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentFeature(Vec<i16>);

impl IntentFeature {
    /// From standardized values; what is no number counts as the mean.
    pub fn from_values(values: impl IntoIterator<Item = f32>) -> Self {
        let step = |value: f32| (value.clamp(-FARTHEST, FARTHEST) * STEPS).round() as i16;
        Self(values.into_iter().map(step).collect())
    }

    /// Number of values.
    pub fn width(&self) -> usize {
        self.0.len()
    }

    /// The values in standard deviations.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.0.iter().map(|steps| f32::from(*steps) / STEPS)
    }

    pub(crate) fn steps(&self) -> &[i16] {
        &self.0
    }
}
