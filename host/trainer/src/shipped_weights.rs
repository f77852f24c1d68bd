//! The weights of a trained pack in the form that ships.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use manifests::Dtype;
use modularbase_deltas::{DeltaFormat, Levels};
use modularbase_loader::{NewWeight, write_weights};

use crate::{PackModel, Quantizer, TrainError, TrainedModel, run::deltas};

/// Block formats have rows of whole blocks of this many values.
const BLOCK: usize = 32;

/// A weights file before it is written.
pub struct ShippedWeights {
    weights: Vec<NewWeight>,
    /// The dtype that the manifest names.
    pub dtype: Dtype,
}

impl ShippedWeights {
    /// Encodes master weights, matrices that start from the base's at `strength` of their way from it: as deltas what the
    /// base has a tensor for, else `q8_0`; vectors are f16. Without a format everything is bf16. `quantizer` brings the levels that training saw; without one they are fitted now.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn encode(
        model: &PackModel,
        masters: &BTreeMap<String, Tensor>,
        format: Option<DeltaFormat>,
        quantizer: Option<&Quantizer>,
        strength: f64,
    ) -> Result<Self, TrainError> {
        let strength = strength as f32;
        let deltas = deltas(model, masters)?;
        let fitted = match (format, quantizer) {
            (Some(format), None) => Some(Quantizer::fit(format, &deltas)?),
            _ => None,
        };
        let quantizer = quantizer.or(fitted.as_ref());
        let mut weights = Vec::with_capacity(masters.len());
        for (name, master) in masters {
            let shape = master.dims();
            let levels = quantizer.and_then(|quantizer| quantizer.levels_of(name));
            let dtype = dtype_of(shape, format);
            weights.push(match (deltas.get(name), levels, model.source(name)) {
                (Some(delta), Some(levels), Some(source)) if strength > 0.0 => {
                    // Scaled together, so that the codes are those that training saw.
                    let scaled: Vec<f32> = levels.as_slice().iter().map(|level| level * strength).collect();
                    let levels = Levels::new(levels.format(), &scaled)?;
                    let delta: Vec<f32> = delta.iter().map(|value| value * strength).collect();
                    NewWeight::of_delta(name, shape, source, &delta, &levels)?
                }
                (Some(delta), _, Some(source)) => {
                    let mut values = model.base().file().read_f32(source)?;
                    values.iter_mut().zip(delta).for_each(|(value, delta)| *value += strength * delta);
                    NewWeight::of_values(name, shape, &values, dtype)?
                }
                _ => NewWeight::of_values(name, shape, &master.flatten_all()?.to_vec1()?, dtype)?,
            });
        }
        let dtype = match format {
            Some(DeltaFormat::Q1) => Dtype::DeltaQ1,
            Some(DeltaFormat::Q2) => Dtype::DeltaQ2,
            Some(DeltaFormat::Q3) => Dtype::DeltaQ3,
            None => Dtype::Bf16,
        };
        Ok(Self { weights, dtype })
    }

    /// Writes the file, whole or not at all; gives its bytes.
    ///
    /// # Errors
    /// A full disk, say.
    pub fn write(&self, path: &Path) -> Result<u64, TrainError> {
        Ok(write_weights(path, &self.weights)?)
    }
}

/// How a weight is stored that is no delta.
fn dtype_of(shape: &[usize], format: Option<DeltaFormat>) -> Dtype {
    let in_blocks = shape.len() == 2 && shape[1].is_multiple_of(BLOCK);
    match (shape.len(), format) {
        (1, _) => Dtype::F16,
        (_, Some(_)) if in_blocks => Dtype::Q8_0,
        _ => Dtype::Bf16,
    }
}
