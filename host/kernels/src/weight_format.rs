//! How weights are stored: in memory ([`WeightFormat`]) and in GGUF files ([`GgmlBlock`]).

/// The in-memory format of a packed [`crate::Matrix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    F32,
    F16,
    BF16,
    /// Blocks of 32 signed bytes with an f16 scale.
    Q8_0,
    /// Blocks of 32 four-bit numbers minus 8, with an f16 scale.
    Q4_0,
    /// Blocks of 32 four-bit numbers with an f16 scale and an f16 minimum.
    Q4_1,
}

impl WeightFormat {
    /// Columns must be a multiple of this.
    pub fn block_width(self) -> usize {
        if self.is_quantized() { 32 } else { 1 }
    }

    /// Whether activations are quantized to int8 for it.
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }
}

/// A block type of the GGUF file format that a [`crate::Matrix`] can be packed from.
// The names are ggml's.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgmlBlock {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4_K,
}

impl GgmlBlock {
    /// Weights in one block.
    pub fn width(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4_K => 256,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
        }
    }

    /// The format that it is packed into.
    pub fn packed_format(self) -> WeightFormat {
        match self {
            Self::F32 => WeightFormat::F32,
            Self::F16 => WeightFormat::F16,
            Self::BF16 => WeightFormat::BF16,
            Self::Q4_0 => WeightFormat::Q4_0,
            Self::Q4_1 | Self::Q4_K => WeightFormat::Q4_1,
            Self::Q8_0 => WeightFormat::Q8_0,
        }
    }
}
