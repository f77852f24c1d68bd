//! The geometry of a block of KV, and how many bits its values take.

use serde::{Deserialize, Serialize};

/// The shape of one layer's keys, and of its values, in one block: `[block_tokens, kv_heads * head_dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Number of KV heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Tokens of the block.
    pub block_tokens: usize,
}

impl KvShape {
    /// Channels of a token's keys: `kv_heads * head_dim`.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of a block's keys, and of its values: `block_tokens * width`.
    pub fn elements(&self) -> usize {
        self.block_tokens * self.width()
    }
}

/// Bits of a stored key or value. 16 is the f16 itself, 1 what a mean of sixteen tokens takes of each; the others are
/// levels between a minimum and a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvBits {
    /// Means of sixteen tokens.
    B1,
    /// 4 levels.
    B2,
    /// 16 levels.
    B4,
    /// 256 levels.
    B8,
    /// Exact.
    B16,
}

impl KvBits {
    /// All widths, the most exact first.
    pub const ALL: [Self; 5] = [Self::B16, Self::B8, Self::B4, Self::B2, Self::B1];

    /// The number of bits.
    pub fn count(self) -> usize {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
            Self::B16 => 16,
        }
    }

    /// The width of so many bits, where there is one.
    pub fn from_count(bits: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|width| width.count() == bits)
    }
}
