//! The values of a pack's weights file, as the host that serves them holds them or in full.

use std::collections::BTreeMap;
use std::{fmt, thread};

use candle_core::{Device, Tensor};
use modularbase_core::{DeltaTensor, StoredTensor, SumDtype};
use modularbase_loader::{DeltaTo, WeightView, WeightsFile};

use crate::{TrainError, TrainingBase};

/// What becomes of a matrix that is stored as a delta, once the base's values are added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeltaRounding {
    /// It stays in f32.
    #[default]
    Exact,
    /// It is rounded to blocks of 8 bits, as the host holds it where nothing else is said.
    Q8_0,
    /// It is rounded to bf16, which the host holds on request.
    Bf16,
}

impl DeltaRounding {
    fn sum(self) -> SumDtype {
        match self {
            Self::Exact => SumDtype::F32,
            Self::Q8_0 => SumDtype::Q8_0,
            Self::Bf16 => SumDtype::BF16,
        }
    }
}

impl fmt::Display for DeltaRounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "f32",
            Self::Q8_0 => "q8_0",
            Self::Bf16 => "bf16",
        })
    }
}

/// The values of every weight in the file, f32 on the CPU. Deltas are added to the base's own tensors.
///
/// # Errors
/// Bytes that are not what shape and format ask for, deltas to a tensor that the base does not have.
pub fn pack_weights(
    file: &WeightsFile,
    base: &TrainingBase,
    rounding: DeltaRounding,
) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut values = BTreeMap::new();
    for WeightView { name, shape, dtype, bytes, delta } in file.weights() {
        let stored = match delta {
            Some(DeltaTo { base: source, levels }) => {
                let delta = DeltaTensor { name, shape, base: source, levels, blocks: bytes };
                delta.add_up(base.file(), rounding.sum(), threads)?
            }
            None => {
                let dtype = dtype.try_into().map_err(|_| {
                    TrainError::evaluation(format!(
                        "the weight `{name}` is stored as {dtype} alone, which is no value"
                    ))
                })?;
                StoredTensor { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes: bytes.into() }
            }
        };
        values.insert(name.to_owned(), Tensor::from_vec(stored.to_f32()?, shape, &Device::Cpu)?);
    }
    Ok(values)
}
