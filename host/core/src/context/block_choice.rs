//! Which cold blocks suit a step's queries.
//!
//! A block is known by the mean of its keys before their rotation. Rows that belong to one block of the text
//! choose together: of some of them, the last one always, each head's queries, their own rotation taken off,
//! give every block a weight by softmax, and the blocks with the largest sums over rows and heads come back.
//! So a head that looks for something counts as much as one whose scores are large for every block.

use half::f16;
use modularbase_graph::KvLayer;
use modularbase_kernels as kernels;

use crate::{CoreError, kv_cache::fit};

use super::layer_window::{KeyRotation, WindowScratch, WindowStep, WindowedLayer};

/// Rows of a group whose queries are looked at, at most.
pub(super) const SAMPLES: usize = 8;

/// Means are added to the memory in steps of so many blocks.
const GROWTH_BLOCKS: usize = 64;

/// What a layer knows of its cold blocks.
#[derive(Debug, Default)]
pub(crate) struct BlockChoice {
    /// Each block's mean key, bits of f16, `[blocks, width]`.
    means: Vec<u16>,
}

impl BlockChoice {
    /// Takes note of the next block's keys before their rotation, `[block, width]`.
    pub(super) fn learn(&mut self, keys: &[f32], width: usize) {
        let mut means = vec![0.0_f32; width];
        for row in keys.chunks_exact(width) {
            means.iter_mut().zip(row).for_each(|(mean, key)| *mean += key);
        }
        let count = (keys.len() / width) as f32;
        if self.means.len() == self.means.capacity() {
            self.means.reserve_exact(GROWTH_BLOCKS * width);
        }
        self.means.extend(means.iter().map(|sum| f16::from_f32(sum / count).to_bits()));
    }

    /// Forgets all blocks from number `blocks` on.
    pub(super) fn truncate(&mut self, blocks: usize, width: usize) {
        self.means.truncate(blocks * width);
    }

    pub(super) fn bytes(&self) -> usize {
        self.means.capacity() * size_of::<u16>()
    }

    /// Bytes for so many blocks.
    pub(super) fn bytes_for(width: usize, blocks: usize) -> usize {
        blocks.next_multiple_of(GROWTH_BLOCKS) * width * size_of::<u16>()
    }
}

impl WindowedLayer<'_, '_> {
    /// The blocks that rows from `position` on, with these queries `[rows, heads * head_dim]`, attend to, in
    /// their order.
    pub(super) fn choose(
        &mut self,
        position: usize,
        rows: usize,
        queries: &[f32],
    ) -> Result<Vec<usize>, CoreError> {
        let shape = self.shape();
        let means = &self.cache.window.choice.means;
        let blocks = means.len() / self.cache.width;
        // Blocks of sinks are never cold.
        let first_block = shape.sinks / shape.block;
        if blocks <= shape.retrieved {
            return Ok((first_block..first_block + blocks).collect());
        }
        let WindowStep { pool, heads, layer, rotation, scratch } = &mut *self.step;
        let KvLayer { kv_heads, head_dim, .. } = *layer;
        let WindowScratch { floats, angles, scores, .. } = &mut **scratch;
        let width = *heads * head_dim;
        let stride = rows.div_ceil(SAMPLES);
        let samples = rows.div_ceil(stride);
        let first = rows - 1 - (samples - 1) * stride;
        fit(floats, samples * width);
        for (sample, to) in floats.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&queries[(first + sample * stride) * width..][..width]);
        }
        if let Some(KeyRotation { frequencies, head_dim, layout }) = *rotation {
            angles.set_range(-((position + first) as i64), -(stride as i64), samples, frequencies);
            kernels::rope(pool, floats, head_dim, angles, layout)?;
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        floats.iter_mut().for_each(|value| *value *= scale);
        fit(scores, samples * *heads * blocks);
        kernels::key_scores(pool, floats, means, (*heads, kv_heads, head_dim), scores)?;
        kernels::softmax_rows(pool, scores, samples * *heads, blocks)?;
        let mut votes = vec![0.0_f32; blocks];
        for weights in scores.chunks_exact(blocks) {
            votes.iter_mut().zip(weights).for_each(|(vote, weight)| *vote += weight);
        }
        let mut order: Vec<usize> = (0..blocks).collect();
        // Of equal ones the later is taken: it is nearer.
        order.sort_unstable_by(|&a, &b| votes[b].total_cmp(&votes[a]).then(b.cmp(&a)));
        order.truncate(shape.retrieved);
        order.sort_unstable();
        order.iter_mut().for_each(|block| *block += first_block);
        order.shrink_to_fit();
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_by_the_mean_of_its_keys_in_memory_that_was_announced() {
        let mut choice = BlockChoice::default();
        for block in 0..65_u16 {
            let value = f32::from(block);
            choice.learn(&[value, 1.0, value + 2.0, 3.0], 2);
            let learned = &choice.means[2 * usize::from(block)..];
            assert_eq!(learned, [value + 1.0, 2.0].map(|mean| f16::from_f32(mean).to_bits()));
            assert_eq!(choice.bytes(), BlockChoice::bytes_for(2, usize::from(block) + 1));
        }
        choice.truncate(1, 2);
        assert_eq!(choice.means.len(), 2);
    }
}
