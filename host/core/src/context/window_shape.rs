//! How long the window is, and where it begins.

use std::sync::Arc;

use modularbase_context::{ColdStats, ColdStore, ContextOptions, KvBits, Levels};
use modularbase_graph::KvLayer;

use crate::{CHUNK_ROWS, CoreError};

use super::block_interest::{BlockInterest, LOOK_ROWS};

/// Counts up where the same window gives a text other KV than before.
pub const WINDOW_VERSION: u32 = 4;

/// The parts of a window, all of them whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowShape {
    /// Tokens at full precision behind the sinks and the retrieved blocks, at least, as far as whole blocks go.
    pub hot: usize,
    /// Tokens of a block.
    pub block: usize,
    /// Tokens at the text's beginning that always stay.
    pub sinks: usize,
    /// Cold blocks that are attended to, at most.
    pub retrieved: usize,
    /// Bits of a cold key or value.
    pub bits: KvBits,
    /// Which blocks more or less is kept of.
    pub levels: Levels,
}

impl WindowShape {
    /// The window that options ask for, for a base that knows `max_position` positions.
    ///
    /// # Errors
    /// A block of no tokens, parts that are no whole blocks, or more tokens than the base knows positions.
    pub fn new(options: &ContextOptions, max_position: usize) -> Result<Self, CoreError> {
        let &ContextOptions { hot_tokens: hot, block_tokens: block, sinks, bits, levels, .. } = options;
        if block == 0 || hot == 0 {
            return Err(CoreError::mismatch(
                "hot tokens and tokens of a block",
                "at least 1",
                hot.min(block),
            ));
        }
        for (what, tokens) in [("hot tokens", hot), ("sinks", sinks)] {
            if !tokens.is_multiple_of(block) {
                return Err(CoreError::mismatch(what, format!("whole blocks of {block}"), tokens));
            }
        }
        let shape = Self { hot, block, sinks, retrieved: options.retrieved_blocks, bits, levels };
        match shape.attended() {
            attended if attended > max_position => {
                let expected = format!("at most the base's {max_position} positions");
                Err(CoreError::mismatch("sinks, retrieved and hot tokens together", expected, attended))
            }
            _ => Ok(shape),
        }
    }

    /// Tokens that a step attends to, at most.
    pub fn attended(&self) -> usize {
        self.front() + self.most_hot()
    }

    /// Hot tokens, at most: right before the window moves on.
    pub(crate) fn most_hot(&self) -> usize {
        self.hot + self.stride() - self.block
    }

    /// Tokens that a text may have without anything cold.
    pub fn whole(&self) -> usize {
        self.sinks + self.hot
    }

    /// Tokens that the window moves on by: an eighth of the hot ones, in whole blocks, and no more than a step has.
    pub(crate) fn stride(&self) -> usize {
        ((self.hot / 8).min(CHUNK_ROWS) / self.block).max(1) * self.block
    }

    /// Where the rows end that share their window with the one at `position`.
    pub(crate) fn end(&self, position: usize) -> usize {
        let strides = position.checked_sub(self.whole()).map_or(0, |behind| behind / self.stride() + 1);
        self.whole() + strides * self.stride()
    }

    /// Position of the first hot token for a row at `position`; 0 while nothing is cold.
    pub(crate) fn start(&self, position: usize) -> usize {
        if position < self.whole() { 0 } else { self.end(position) - self.most_hot() }
    }

    /// Where the rows begin that are read twice, of a step's `rows` rows from `position` on before an answer: they share their
    /// window. `None` where nothing has to be chosen for them.
    pub(crate) fn look_from(&self, position: usize, rows: usize) -> Option<usize> {
        let end = position + rows;
        let chosen = self.retrieved > 0 && self.cold_blocks(end) > self.retrieved;
        chosen.then(|| {
            let window = self.end(end - 1) - self.stride();
            position.max(end.saturating_sub(LOOK_ROWS)).max(window)
        })
    }

    /// Rows of sinks and retrieved blocks, at most.
    pub(crate) fn front(&self) -> usize {
        self.sinks + self.retrieved * self.block
    }

    /// Rows that a cache may hold at once, those of the step in work included.
    pub(crate) fn capacity(&self) -> usize {
        self.attended() + CHUNK_ROWS
    }

    /// Cold blocks of a text of so many tokens.
    pub(crate) fn cold_blocks(&self, tokens: usize) -> usize {
        let start = self.start(tokens.saturating_sub(1));
        start.saturating_sub(self.sinks) / self.block
    }
}

/// A window, and where the blocks go that it leaves behind. Of one text: its sequence tells the store its
/// tokens.
#[derive(Debug, Clone)]
pub struct Context {
    /// The window.
    pub shape: WindowShape,
    /// The cold blocks.
    pub store: Arc<ColdStore>,
    pub(crate) interest: Arc<BlockInterest>,
}

impl Context {
    /// A window over a text whose cold blocks go into `store`.
    pub fn new(shape: WindowShape, store: Arc<ColdStore>) -> Self {
        Self { shape, store, interest: Arc::default() }
    }
}

/// How many tokens of a text are where, and what its cold blocks take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextTokens {
    /// Tokens of the text.
    pub tokens: usize,
    /// At full precision in memory, the sinks included.
    pub hot: usize,
    /// In quantized blocks.
    pub cold: usize,
    /// Of these, attended to in the last step, by the first layer.
    pub retrieved: usize,
    /// The cold blocks of all layers.
    pub store: ColdStats,
}

/// Bytes that a layer's window takes beside its rows, for a text of `tokens` tokens.
pub(crate) fn layer_bytes(shape: &WindowShape, layer: KvLayer, tokens: usize) -> usize {
    let blocks = shape.cold_blocks(tokens);
    match blocks {
        0 => super::attention_mass::bytes_for(shape),
        _ => super::layer_window::bytes(shape, layer.width(), blocks),
    }
}
