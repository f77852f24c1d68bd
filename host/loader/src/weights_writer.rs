//! Writes weights files that [`crate::WeightsFile`] reads.

use std::{collections::HashMap, io, path::Path};

use half::{bf16, f16};
use manifests::Dtype;
use modularbase_deltas::{DeltaError, Levels, check_blocks, encode};
use modularbase_kernels::{GgmlBlock, append_ggml_blocks};
use safetensors::tensor::{Dtype as StoredDtype, TensorView};

use crate::weight_blocks::{BLOCKS_KEY, BlocksEntry, block_of, delta_dtype};

/// A weight as it will lie in a file.
#[derive(Debug, Clone)]
pub struct NewWeight {
    name: String,
    /// Of its values.
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
    /// Of deltas: the base's tensor and the levels.
    delta: Option<(String, Levels)>,
}

/// Why weights can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteWeightsError {
    /// A format that files of packs can't have, or that a tensor of this shape can't.
    #[error("weight `{name}` of shape {shape:?} can't be stored as {dtype}: {reason}")]
    Format {
        /// The weight.
        name: String,
        /// Its dimensions.
        shape: Vec<usize>,
        /// The format.
        dtype: Dtype,
        /// Expected, and what to do.
        reason: &'static str,
    },
    /// Another number of values or bytes than the shape asks for.
    #[error("weight `{name}` of shape {shape:?} has {expected} {what}, found {found}")]
    Length {
        /// The weight.
        name: String,
        /// Its dimensions.
        shape: Vec<usize>,
        /// Values or bytes.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Deltas that can't be coded.
    #[error("weight `{name}`: {source}")]
    Delta {
        /// The weight.
        name: String,
        /// The codec's words.
        source: DeltaError,
    },
    /// The tensors make no file: two of one name, or too many bytes.
    #[error("the weights make no safetensors file: {0}")]
    File(String),
    /// The file can't be written.
    #[error("can't write the weights: {0}")]
    Write(#[from] io::Error),
}

impl NewWeight {
    /// Values, row by row, in a plain or block format: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`, `q4_1`. Blocks are for
    /// matrices whose rows are whole blocks.
    ///
    /// # Errors
    /// Another format, a shape that it can't hold, another number of values.
    pub fn of_values(
        name: &str,
        shape: &[usize],
        values: &[f32],
        dtype: Dtype,
    ) -> Result<Self, WriteWeightsError> {
        check_count(name, shape, "values", elements(shape), values.len())?;
        let bytes = match dtype {
            Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            _ => {
                let refused = |reason| format_error(name, shape, dtype, reason);
                let block = match dtype {
                    Dtype::Q8_0 => GgmlBlock::Q8_0,
                    Dtype::Q4_0 => GgmlBlock::Q4_0,
                    Dtype::Q4_1 => GgmlBlock::Q4_1,
                    _ => return Err(refused("use f32, f16, bf16, q8_0, q4_0 or q4_1")),
                };
                check_blocks_fit(name, shape, dtype)?;
                let mut bytes = Vec::with_capacity(values.len() / block.width() * block.bytes());
                append_ggml_blocks(block, values, &mut bytes)
                    .map_err(|_| refused("its rows are no whole blocks; use f16 or bf16"))?;
                bytes
            }
        };
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes, delta: None })
    }

    /// A matrix as a delta `[rows, columns]` to the base's tensor `base`, as the base's file stores that one.
    ///
    /// # Errors
    /// A shape without whole groups, another number of deltas, deltas that are not finite.
    pub fn of_delta(
        name: &str,
        shape: &[usize],
        base: &str,
        delta: &[f32],
        levels: &Levels,
    ) -> Result<Self, WriteWeightsError> {
        check_count(name, shape, "deltas", elements(shape), delta.len())?;
        check_blocks_fit(name, shape, delta_dtype(levels.format()))?;
        let blocks = encode(delta, levels)
            .map_err(|source| WriteWeightsError::Delta { name: name.to_owned(), source })?;
        Self::of_delta_blocks(name, shape, base, blocks, levels)
    }

    /// As [`NewWeight::of_delta`], from blocks that are coded already.
    ///
    /// # Errors
    /// A shape without whole groups, blocks of another length, scales that are not finite.
    pub fn of_delta_blocks(
        name: &str,
        shape: &[usize],
        base: &str,
        blocks: Vec<u8>,
        levels: &Levels,
    ) -> Result<Self, WriteWeightsError> {
        let dtype = delta_dtype(levels.format());
        check_blocks_fit(name, shape, dtype)?;
        check_blocks(&blocks, elements(shape), levels.format())
            .map_err(|source| WriteWeightsError::Delta { name: name.to_owned(), source })?;
        let delta = Some((base.to_owned(), *levels));
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes: blocks, delta })
    }

    /// Bytes as another file holds them: a plain type or blocks that stand alone.
    ///
    /// # Errors
    /// A format that files can't have, another number of bytes.
    pub fn of_bytes(
        name: &str,
        shape: &[usize],
        bytes: Vec<u8>,
        dtype: Dtype,
    ) -> Result<Self, WriteWeightsError> {
        let expected = match (plain(dtype), block_of(dtype)) {
            (Some(stored), _) => elements(shape) * stored.bitsize() / 8,
            (None, Some((block, size))) if !dtype.is_delta() => {
                check_blocks_fit(name, shape, dtype)?;
                elements(shape) / block * size
            }
            _ => return Err(format_error(name, shape, dtype, "use f32, f16, bf16, q8_0, q4_0 or q4_1")),
        };
        check_count(name, shape, "bytes", expected, bytes.len())?;
        Ok(Self { name: name.to_owned(), shape: shape.to_vec(), dtype, bytes, delta: None })
    }

    /// The graph's name of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its bytes in the file.
    pub fn stored_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Type and shape of the tensor in the file.
    fn stored(&self) -> (StoredDtype, Vec<usize>) {
        match (plain(self.dtype), self.shape.first()) {
            (Some(stored), _) => (stored, self.shape.clone()),
            (None, rows) => {
                let rows = rows.copied().unwrap_or(0);
                (StoredDtype::U8, vec![rows, self.bytes.len() / rows.max(1)])
            }
        }
    }
}

/// Writes a weights file, whole or not at all, and gives its size in bytes. The formats may be mixed as the manifest's
/// dtype allows.
///
/// # Errors
/// Two weights of one name, or a file that can't be written.
pub fn write_weights(path: &Path, weights: &[NewWeight]) -> Result<u64, WriteWeightsError> {
    let mut entries = serde_json::Map::new();
    let mut views: HashMap<&str, TensorView<'_>> = HashMap::with_capacity(weights.len());
    let file_error = |error: &dyn std::fmt::Display| WriteWeightsError::File(error.to_string());
    for weight in weights {
        if let ([rows, columns], None) = (weight.shape.as_slice(), plain(weight.dtype)) {
            let entry = BlocksEntry {
                dtype: weight.dtype,
                shape: [*rows, *columns],
                base: weight.delta.as_ref().map(|(base, _)| base.clone()),
                levels: weight.delta.as_ref().map(|(_, levels)| levels.as_slice().to_vec()),
            };
            let entry = serde_json::to_value(entry).map_err(|error| file_error(&error))?;
            entries.insert(weight.name.clone(), entry);
        }
        let (stored, shape) = weight.stored();
        let view = TensorView::new(stored, shape, &weight.bytes).map_err(|error| file_error(&error))?;
        if views.insert(&weight.name, view).is_some() {
            return Err(WriteWeightsError::File(format!("`{}` is there twice", weight.name)));
        }
    }
    let texts = (!entries.is_empty())
        .then(|| HashMap::from([(BLOCKS_KEY.to_owned(), serde_json::Value::Object(entries).to_string())]));
    let bytes = safetensors::serialize(views, texts).map_err(|error| file_error(&error))?;
    manifests::write_atomically(path, &bytes)?;
    Ok(bytes.len() as u64)
}

fn plain(dtype: Dtype) -> Option<StoredDtype> {
    match dtype {
        Dtype::F32 => Some(StoredDtype::F32),
        Dtype::F16 => Some(StoredDtype::F16),
        Dtype::Bf16 => Some(StoredDtype::BF16),
        _ => None,
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product: usize, side| product.saturating_mul(*side))
}

fn format_error(name: &str, shape: &[usize], dtype: Dtype, reason: &'static str) -> WriteWeightsError {
    WriteWeightsError::Format { name: name.to_owned(), shape: shape.to_vec(), dtype, reason }
}

/// Blocks are for matrices whose rows are whole blocks.
fn check_blocks_fit(name: &str, shape: &[usize], dtype: Dtype) -> Result<(), WriteWeightsError> {
    match (shape, block_of(dtype)) {
        ([_, columns], Some((block, _))) if columns.is_multiple_of(block) => Ok(()),
        ([_, _], _) => Err(format_error(name, shape, dtype, "its rows are no whole blocks; use f16 or bf16")),
        _ => {
            Err(format_error(name, shape, dtype, "only matrices are stored in blocks; use f32, f16 or bf16"))
        }
    }
}

fn check_count(
    name: &str,
    shape: &[usize],
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), WriteWeightsError> {
    if expected == found {
        return Ok(());
    }
    Err(WriteWeightsError::Length { name: name.to_owned(), shape: shape.to_vec(), what, expected, found })
}
