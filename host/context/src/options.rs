//! How a context is kept: window, blocks, bits, tiers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::write_behind::MOST_WAITING;
use crate::{ContextError, KvBits};

/// How a context is kept. All but the byte limits decide which KV a text has, so a session keeps them as it began; the
/// byte limits may change whenever it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextOptions {
    /// Tokens at full precision on the device.
    pub hot_tokens: usize,
    /// Tokens of a cold block.
    pub block_tokens: usize,
    /// Bits of a cold key or value.
    pub bits: KvBits,
    /// Tokens at the beginning that always stay hot.
    pub sinks: usize,
    /// Cold blocks that a step attends to.
    pub retrieved_blocks: usize,
    /// Which blocks more is kept of than [`bits`](Self::bits) says, and which less.
    #[serde(flatten)]
    pub levels: Levels,
    /// Bytes of decoded cold blocks kept in memory.
    #[serde(skip, default = "default_ram_bytes")]
    pub ram_bytes: u64,
    /// Bytes on disk of all sessions together.
    #[serde(skip, default = "default_disk_bytes")]
    pub disk_bytes: u64,
}

/// How much of a block is kept by the attention that it got while it was hot, in percent of what its layer's blocks got in
/// the mean before. 0 and 0: all are kept alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Levels {
    /// From so much on a block is *critical*: kept whole, at 16 bits. 0: none is.
    #[serde(rename = "critical_percent")]
    pub critical: u32,
    /// Below so much a block is *redundant*: its representatives are kept, at 1 bit. 0: none is.
    #[serde(rename = "redundant_percent")]
    pub redundant: u32,
}

impl Levels {
    /// Whether attention decides anything.
    pub fn are_on(&self) -> bool {
        *self != Self::default()
    }

    /// Bits of a block that got so much of the mean attention; `bits` are those of an *important* one.
    pub fn bits(&self, share: f32, bits: KvBits) -> KvBits {
        let percent = 100.0 * share;
        match self {
            Self { critical: from @ 1.., .. } if percent >= *from as f32 => KvBits::B16,
            Self { redundant: below @ 1.., .. } if percent < *below as f32 => KvBits::B1,
            _ => bits,
        }
    }
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            hot_tokens: 2048,
            block_tokens: 64,
            bits: KvBits::B8,
            sinks: 64,
            retrieved_blocks: 8,
            levels: Levels::default(),
            ram_bytes: default_ram_bytes(),
            disk_bytes: default_disk_bytes(),
        }
    }
}

impl ContextOptions {
    /// Bytes of memory that a store takes for its blocks, at most: decoded ones, and those that wait to be written.
    pub fn memory_bytes(&self) -> u64 {
        self.ram_bytes + MOST_WAITING
    }

    /// Refuses options with which no text can be kept.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), ContextError> {
        let refused = |problem| Err(ContextError::Options { problem });
        match self {
            Self { block_tokens: 0, .. } => refused("a block has at least one token"),
            Self { sinks, hot_tokens, .. } if sinks > hot_tokens => {
                refused("sinks are part of the hot tokens")
            }
            Self { levels: Levels { critical: 1.., redundant, .. }, .. }
                if *redundant > self.levels.critical =>
            {
                refused("what is critical gets more attention than what is redundant")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ContextOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hot_tokens, block_tokens, bits, sinks, retrieved_blocks, levels, .. } = self;
        write!(
            f,
            "{hot_tokens} hot tokens, {sinks} of them sinks, and {retrieved_blocks} retrieved blocks of "
        )?;
        write!(f, "{block_tokens} tokens in {} bits", bits.count())?;
        let Levels { critical, redundant } = levels;
        if *critical > 0 {
            write!(f, ", whole from {critical} % of the mean attention on")?;
        }
        if *redundant > 0 {
            write!(f, ", means below {redundant} %")?;
        }
        Ok(())
    }
}

fn default_ram_bytes() -> u64 {
    64 << 20
}

fn default_disk_bytes() -> u64 {
    16 << 30
}
