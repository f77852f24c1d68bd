//! How a tensor's numbers lie in a base's file, and how to turn them into f32.

use std::borrow::Cow;
use std::fmt;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::{bf16, f16};

/// The storage format of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredDtype {
    F32,
    F16,
    BF16,
    /// A block format of GGML (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K .. Q6_K); never one of the three above.
    Ggml(GgmlDType),
}

impl StoredDtype {
    /// Elements in one block along a row; 1 for plain floats.
    pub fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Ggml(dtype) => dtype.block_size(),
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Ggml(dtype) => dtype.type_size(),
        }
    }

    /// Bytes of a row of `columns` elements; `None` where the row is no whole number of blocks or the size
    /// overflows.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_size()) {
            return None;
        }
        (columns / self.block_size()).checked_mul(self.block_bytes())
    }

    /// The type that a GGUF tensor entry names by number (`enum ggml_type`); `None` for types that candle
    /// can't dequantize.
    pub(crate) fn from_ggml_type(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Ggml(GgmlDType::Q4_0),
            3 => Self::Ggml(GgmlDType::Q4_1),
            6 => Self::Ggml(GgmlDType::Q5_0),
            7 => Self::Ggml(GgmlDType::Q5_1),
            8 => Self::Ggml(GgmlDType::Q8_0),
            10 => Self::Ggml(GgmlDType::Q2K),
            11 => Self::Ggml(GgmlDType::Q3K),
            12 => Self::Ggml(GgmlDType::Q4K),
            13 => Self::Ggml(GgmlDType::Q5K),
            14 => Self::Ggml(GgmlDType::Q6K),
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The type that a safetensors header names.
    pub(crate) fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            _ => return None,
        })
    }

    /// Appends the `f32` values of whole blocks to `out`.
    ///
    /// Errors: candle's reason, where it refuses; a length that is no whole number of blocks.
    pub(crate) fn append_f32(self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), String> {
        if !bytes.len().is_multiple_of(self.block_bytes()) {
            return Err(format!("{} bytes are no whole number of {self} blocks", bytes.len()));
        }
        match self {
            Self::F32 => {
                let (words, _) = bytes.as_chunks::<4>();
                out.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
            }
            Self::F16 => {
                let (words, _) = bytes.as_chunks::<2>();
                out.extend(words.iter().map(|word| f16::from_le_bytes(*word).to_f32()));
            }
            Self::BF16 => {
                let (words, _) = bytes.as_chunks::<2>();
                out.extend(words.iter().map(|word| bf16::from_le_bytes(*word).to_f32()));
            }
            Self::Ggml(dtype) => {
                let elements = bytes.len() / dtype.type_size() * dtype.block_size();
                if elements == 0 {
                    return Ok(());
                }
                let values = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)
                    .and_then(|storage| QTensor::new(storage, elements))
                    .and_then(|tensor| tensor.dequantize(&Device::Cpu))
                    .and_then(|tensor| tensor.to_vec1::<f32>())
                    .map_err(|error| error.to_string())?;
                out.extend_from_slice(&values);
            }
        }
        Ok(())
    }
}

/// Deltas have no values of their own, so no [`StoredDtype`] stands for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} holds no values but what is to be added to a base's")]
pub struct NoValues(pub manifests::Dtype);

impl TryFrom<manifests::Dtype> for StoredDtype {
    type Error = NoValues;

    fn try_from(dtype: manifests::Dtype) -> Result<Self, NoValues> {
        use manifests::Dtype;
        Ok(match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::Q8_0 => Self::Ggml(GgmlDType::Q8_0),
            Dtype::Q4_0 => Self::Ggml(GgmlDType::Q4_0),
            Dtype::Q4_1 => Self::Ggml(GgmlDType::Q4_1),
            Dtype::Q5_0 => Self::Ggml(GgmlDType::Q5_0),
            Dtype::Q5_1 => Self::Ggml(GgmlDType::Q5_1),
            Dtype::Q2K => Self::Ggml(GgmlDType::Q2K),
            Dtype::Q3K => Self::Ggml(GgmlDType::Q3K),
            Dtype::Q4K => Self::Ggml(GgmlDType::Q4K),
            Dtype::Q5K => Self::Ggml(GgmlDType::Q5K),
            Dtype::Q6K => Self::Ggml(GgmlDType::Q6K),
            Dtype::DeltaQ1 | Dtype::DeltaQ2 | Dtype::DeltaQ3 => return Err(NoValues(dtype)),
        })
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Ggml(dtype) => match dtype {
                GgmlDType::F32 => "F32",
                GgmlDType::F16 => "F16",
                GgmlDType::BF16 => "BF16",
                GgmlDType::Q4_0 => "Q4_0",
                GgmlDType::Q4_1 => "Q4_1",
                GgmlDType::Q5_0 => "Q5_0",
                GgmlDType::Q5_1 => "Q5_1",
                GgmlDType::Q8_0 => "Q8_0",
                GgmlDType::Q8_1 => "Q8_1",
                GgmlDType::Q2K => "Q2_K",
                GgmlDType::Q3K => "Q3_K",
                GgmlDType::Q4K => "Q4_K",
                GgmlDType::Q5K => "Q5_K",
                GgmlDType::Q6K => "Q6_K",
                GgmlDType::Q8K => "Q8_K",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_no_whole_number_of_blocks_has_no_size() {
        let q4_1 = StoredDtype::Ggml(GgmlDType::Q4_1);
        assert_eq!(q4_1.row_bytes(576), Some(576 / 32 * 20));
        assert_eq!(q4_1.row_bytes(577), None);
        assert_eq!(StoredDtype::F32.row_bytes(usize::MAX), None);
    }

    #[test]
    fn plain_floats_and_blocks_become_f32() {
        let mut out = Vec::new();
        StoredDtype::F32.append_f32(&1.5f32.to_le_bytes(), &mut out).unwrap();
        StoredDtype::F16.append_f32(&f16::from_f32(-2.0).to_le_bytes(), &mut out).unwrap();
        StoredDtype::BF16.append_f32(&bf16::from_f32(0.25).to_le_bytes(), &mut out).unwrap();
        assert_eq!(out, [1.5, -2.0, 0.25]);

        // One Q8_0 block: scale 0.5, then 32 signed bytes.
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..32i8).map(|i| (i - 16) as u8));
        let mut out = Vec::new();
        StoredDtype::Ggml(GgmlDType::Q8_0).append_f32(&block, &mut out).unwrap();
        assert_eq!(out, (0..32).map(|i| 0.5 * (i as f32 - 16.0)).collect::<Vec<_>>());
    }
}
