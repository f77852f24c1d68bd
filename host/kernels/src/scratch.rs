//! Buffers that kernels reuse from call to call, so that a decode step allocates nothing.

use std::sync::atomic::AtomicUsize;

use crate::aligned::AlignedBytes;
use crate::attention::Unit;

/// Working memory of [`crate::linear`] and [`crate::attention`]. It grows to the largest call seen and keeps that
/// size; one value serves any number of matrices and models, one call at a time.
#[derive(Default)]
pub struct Scratch {
    pub(crate) quantized: AlignedBytes,
    pub(crate) panels: AlignedBytes,
    pub(crate) partials: AlignedBytes,
    pub(crate) workers: AlignedBytes,
    pub(crate) pending: Vec<AtomicUsize>,
    pub(crate) units: Vec<Unit>,
}

impl Scratch {
    /// Empty working memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held on the heap.
    pub fn bytes(&self) -> usize {
        self.quantized.len()
            + self.panels.len()
            + self.partials.len()
            + self.workers.len()
            + self.pending.capacity() * size_of::<AtomicUsize>()
            + self.units.capacity() * size_of::<Unit>()
    }
}

/// Bytes of each buffer of a [`Scratch`] once calls of known sizes have been made: what to set aside beforehand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScratchSizes {
    pub(crate) quantized: usize,
    pub(crate) panels: usize,
    pub(crate) partials: usize,
    pub(crate) workers: usize,
    pub(crate) pending: usize,
    pub(crate) units: usize,
}

impl ScratchSizes {
    /// What serves either call.
    pub fn max(self, other: Self) -> Self {
        Self {
            quantized: self.quantized.max(other.quantized),
            panels: self.panels.max(other.panels),
            partials: self.partials.max(other.partials),
            workers: self.workers.max(other.workers),
            pending: self.pending.max(other.pending),
            units: self.units.max(other.units),
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(self) -> usize {
        self.quantized + self.panels + self.partials + self.workers + self.pending + self.units
    }
}

/// Makes `buffer` at least `len` bytes long; old contents are lost. `None` if that exceeds the address space.
pub(crate) fn reserve(buffer: &mut AlignedBytes, len: usize) -> Option<()> {
    if buffer.len() < len {
        // Freed first, so that growing never holds both.
        *buffer = AlignedBytes::default();
        *buffer = AlignedBytes::zeroed(len)?;
    }
    Some(())
}
