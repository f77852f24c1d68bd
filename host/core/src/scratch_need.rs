//! How much memory steps work in, told beforehand.

use modularbase_kernels::ScratchSizes;
use pack_sdk::BaseShape;

use crate::{CHUNK_ROWS, WindowShape};

/// The largest step to be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Rows that go through a plan in one call; [`crate::BaseCore::advance`] cuts at [`CHUNK_ROWS`].
    pub rows: usize,
    /// Sequences in a step.
    pub sequences: usize,
    /// Parts of the largest mixture.
    pub mixture_parts: usize,
    /// Tokens of the longest sequence.
    pub context: usize,
    /// Rows of logits that a step returns.
    pub logit_rows: usize,
    /// The window that the sequences stay in, where there is one.
    pub window: Option<WindowShape>,
}

impl StepSize {
    /// Steps of so many sequences of up to `context` tokens, each with one row of logits.
    pub fn of_sequences(sequences: usize, mixture_parts: usize, context: usize) -> Self {
        let rows = CHUNK_ROWS.max(sequences);
        Self { rows, sequences, mixture_parts, context, logit_rows: sequences, window: None }
    }

    /// Keys that a row attends to, at most.
    pub(crate) fn attended(&self) -> usize {
        self.window.map_or(self.context, |window| self.context.min(window.attended()))
    }

    /// Bytes of hidden states and logits between plans and as results, at most.
    pub(crate) fn passing_bytes(&self, shape: &BaseShape) -> usize {
        // Worst in the middle of a mixture: the input, the finished parts, and the last one whole and cut.
        let hidden = (self.mixture_parts + 2) * self.rows + 2 * self.logit_rows.min(self.rows);
        // All results, and those of the last chunk before they are cut.
        let logits = self.logit_rows + if self.logit_rows > 1 { self.logit_rows.min(self.rows) } else { 0 };
        let values = hidden * shape.hidden_size + logits * shape.vocab_size;
        values * size_of::<f32>() + self.rows * size_of::<u32>()
    }
}

/// Working memory of a plan's calls. The plans of one executor share it, so several plans need the largest of each of
/// its pieces and not their sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScratchNeed {
    /// Bytes of each numbered buffer.
    pub(crate) buffers: Vec<usize>,
    /// Bytes of each table of rotary angles.
    pub(crate) angles: Vec<usize>,
    pub(crate) kernels: ScratchSizes,
    /// Bytes of each buffer that windows work in.
    pub(crate) window: Vec<usize>,
    /// Bytes that go when the call ends.
    pub(crate) passing: usize,
}

impl ScratchNeed {
    /// Makes it enough for the other plan too.
    pub fn or(&mut self, other: &Self) {
        larger_of_each(&mut self.buffers, &other.buffers);
        larger_of_each(&mut self.angles, &other.angles);
        larger_of_each(&mut self.window, &other.window);
        self.kernels = self.kernels.max(other.kernels);
        self.passing = self.passing.max(other.passing);
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.kept_bytes() + self.passing
    }

    /// Bytes that stay when a call ends.
    pub fn kept_bytes(&self) -> usize {
        let pieces = self.buffers.iter().chain(&self.angles).chain(&self.window).sum::<usize>();
        pieces + self.kernels.bytes()
    }
}

fn larger_of_each(sizes: &mut Vec<usize>, others: &[usize]) {
    sizes.resize(sizes.len().max(others.len()), 0);
    sizes.iter_mut().zip(others).for_each(|(size, &other)| *size = (*size).max(other));
}
