//! Quantization in the training loop: the forward pass sees the weights that will ship, the gradient passes straight
//! through to the masters (Bengio et al. 2013).

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use modularbase_deltas::{DeltaFormat, GROUP, Levels, fit_levels};

use crate::TrainError;

/// Rounds of matching scale and codes; more than two change nothing that can be measured.
const ROUNDS: usize = 2;

/// The quantizers of all matrices that are stored as deltas.
#[derive(Debug, Clone)]
pub struct Quantizer {
    format: DeltaFormat,
    matrices: BTreeMap<String, MatrixQuantizer>,
}

/// The quantizer of one matrix.
#[derive(Debug, Clone)]
struct MatrixQuantizer {
    /// Positive levels, ascending, relative to a group's scale.
    magnitudes: Vec<f64>,
    levels: Levels,
}

impl Quantizer {
    /// Fits the levels to deltas as they are now: `deltas` gives each matrix's trained values less the base's, f32 in
    /// host memory.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn fit(format: DeltaFormat, deltas: &BTreeMap<String, Vec<f32>>) -> Result<Self, TrainError> {
        let mut matrices = BTreeMap::new();
        for (name, delta) in deltas {
            matrices.insert(name.clone(), MatrixQuantizer::new(fit_levels(delta, format)?));
        }
        Ok(Self { format, matrices })
    }

    /// The quantizer of a run that goes on, from the levels of its checkpoint.
    ///
    /// # Errors
    /// Levels that the format does not have.
    pub fn with_levels(format: DeltaFormat, levels: &BTreeMap<String, Vec<f32>>) -> Result<Self, TrainError> {
        let mut matrices = BTreeMap::new();
        for (name, levels) in levels {
            matrices.insert(name.clone(), MatrixQuantizer::new(Levels::new(format, levels)?));
        }
        Ok(Self { format, matrices })
    }

    /// The format.
    pub fn format(&self) -> DeltaFormat {
        self.format
    }

    /// The levels by matrix, for checkpoints and files.
    pub fn levels(&self) -> BTreeMap<String, Vec<f32>> {
        let levels = |quantizer: &MatrixQuantizer| quantizer.levels.as_slice().to_vec();
        self.matrices.iter().map(|(name, quantizer)| (name.clone(), levels(quantizer))).collect()
    }

    /// The levels of one matrix.
    pub fn levels_of(&self, name: &str) -> Option<&Levels> {
        self.matrices.get(name).map(|quantizer| &quantizer.levels)
    }

    /// `base` plus the quantized difference of `master` to it, without gradients; `None` for a matrix that is not
    /// stored as a delta. All f32 `[rows, columns]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn quantized(
        &self,
        name: &str,
        master: &Tensor,
        base: &Tensor,
    ) -> Result<Option<Tensor>, TrainError> {
        let Some(quantizer) = self.matrices.get(name) else { return Ok(None) };
        let delta = (master.detach() - base)?;
        Ok(Some((base + quantizer.round(&delta)?)?))
    }
}

impl MatrixQuantizer {
    fn new(levels: Levels) -> Self {
        let mut magnitudes: Vec<f64> =
            levels.as_slice().iter().filter(|level| **level > 0.0).map(|level| f64::from(*level)).collect();
        magnitudes.sort_by(f64::total_cmp);
        Self { magnitudes, levels }
    }

    /// The nearest values that the format can say, in the same shape.
    fn round(&self, delta: &Tensor) -> Result<Tensor, TrainError> {
        let groups = delta.elem_count() / GROUP;
        let grouped = delta.reshape((groups, GROUP))?;
        let magnitude = grouped.abs()?;
        // A group as spread as the levels has scale 1.
        let unit = Levels::gaussian(self.levels.format(), 1.0);
        let largest = |levels: &Levels| levels.as_slice().iter().fold(0.0_f32, |a, level| a.max(*level));
        let spread = f64::from(largest(&self.levels) / largest(&unit));
        let mut scale = (magnitude.sqr()?.mean_keepdim(1)?.sqrt()? / spread)?;
        let mut levels = self.nearest(&magnitude, &scale)?;
        for _ in 0..ROUNDS {
            // The scale that leaves the smallest squared error with these codes; a group of zeros keeps zero.
            let product = (&magnitude * &levels)?.sum_keepdim(1)?;
            scale = (product / levels.sqr()?.sum_keepdim(1)?)?;
            levels = self.nearest(&magnitude, &scale)?;
        }
        // Scales are stored at 16 bits.
        let scale = scale.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
        // +1 for zero too: the format has no zero code, but a group's scale may be zero.
        let sign = ((grouped.ge(0f32)?.to_dtype(DType::F32)? * 2.0)? - 1.0)?;
        Ok((levels.broadcast_mul(&scale)? * sign)?.reshape(delta.shape())?)
    }

    /// For each magnitude the nearest level, relative to the group's scale.
    fn nearest(&self, magnitude: &Tensor, scale: &Tensor) -> Result<Tensor, TrainError> {
        let mut levels = (magnitude.zeros_like()? + self.magnitudes[0])?;
        for pair in self.magnitudes.windows(2) {
            let threshold = (scale * ((pair[0] + pair[1]) / 2.0))?;
            let above = magnitude.broadcast_gt(&threshold)?.to_dtype(DType::F32)?;
            levels = (levels + (above * (pair[1] - pair[0]))?)?;
        }
        Ok(levels)
    }
}
