//! Which cold blocks suit a step's queries.
//!
//! A block is known by the greatest and the least of its keys, before their rotation, in each channel: they bound what a
//! query can score on any of its keys, so one key that stands out is not lost among the others as it is in their mean.
//! Rows that belong to one block of the text choose together: of some of them, the last one always, each head's queries,
//! their own rotation taken off, give every block a weight by softmax over these bounds, and the blocks with the largest
//! sums over rows and heads come back. So a head that looks for something counts as much as one whose scores are large
//! for every block. Of eight rows that come alone, one after the other as in an answer, the first chooses.

use modularbase_context::{BlockSummary, MappedValues};
use modularbase_graph::KvLayer;
use modularbase_kernels as kernels;

use crate::{CoreError, kv_cache::fit};

use super::layer_window::{KeyRotation, Queries, WindowScratch, WindowStep, WindowedLayer};

/// Rows of a group whose queries are looked at, at most.
pub(super) const SAMPLES: usize = 8;

/// Blocks that came next to those that come back: the next step may well want them, so they are fetched ahead.
const LIKELY: usize = 4;

/// Bytes that a mapping takes memory in.
const PAGE: usize = 4096;

/// What a layer knows of its cold blocks.
#[derive(Debug, Default)]
pub(crate) struct BlockChoice {
    /// Each block's bounds, bits of f16, `[blocks, kv_heads, 2, head_dim]`, and room for more, which takes no memory before
    /// it is used. As they grow they would leave holes in an allocator's memory.
    room: Option<MappedValues>,
    /// Values in use, and the most that ever were.
    len: usize,
    most: usize,
}

impl BlockChoice {
    /// Takes note of the next block.
    pub(super) fn learn(&mut self, summary: &BlockSummary) {
        let width = summary.bounds.len();
        let len = self.len + width;
        let room = match &mut self.room {
            Some(room) if room.len() >= len => room,
            room => {
                let mut more = MappedValues::zeros((2 * self.len).max(width).max(PAGE / size_of::<u16>()));
                if let Some(room) = room {
                    more[..self.len].copy_from_slice(&room[..self.len]);
                }
                room.insert(more)
            }
        };
        room[self.len..len].copy_from_slice(&summary.bounds);
        (self.len, self.most) = (len, self.most.max(len));
    }

    fn bounds(&self) -> &[u16] {
        self.room.as_ref().map_or(&[], |room| &room[..self.len])
    }

    /// Forgets all blocks from number `blocks` on.
    pub(super) fn truncate(&mut self, blocks: usize, width: usize) {
        self.len = self.len.min(blocks * 2 * width);
    }

    pub(super) fn bytes(&self) -> usize {
        (self.most * size_of::<u16>()).next_multiple_of(PAGE)
    }

    /// Bytes for so many blocks.
    pub(super) fn bytes_for(width: usize, blocks: usize) -> usize {
        (blocks * 2 * width * size_of::<u16>()).next_multiple_of(PAGE)
    }
}

impl WindowedLayer<'_, '_> {
    /// The blocks that rows from `position` on, with these queries, attend to, in their order.
    pub(super) fn choose(
        &mut self,
        position: usize,
        rows: usize,
        queries: Queries<'_>,
    ) -> Result<Vec<usize>, CoreError> {
        let shape = self.shape();
        let bounds = self.cache.window.choice.bounds();
        let blocks = bounds.len() / (2 * self.cache.width);
        // Blocks of sinks are never cold.
        let first_block = shape.sinks / shape.block;
        if blocks <= shape.retrieved {
            return Ok((first_block..first_block + blocks).collect());
        }
        let WindowStep { pool, heads, layer, rotation, scratch } = &mut *self.step;
        let KvLayer { kv_heads, head_dim, .. } = *layer;
        let WindowScratch { floats, halves, angles, scores, .. } = &mut **scratch;
        let width = *heads * head_dim;
        let stride = rows.div_ceil(SAMPLES);
        let samples = rows.div_ceil(stride);
        let first = rows - 1 - (samples - 1) * stride;
        fit(floats, samples * width);
        queries.sample(first, stride, width, floats)?;
        if let Some(KeyRotation { frequencies, head_dim, layout }) = *rotation {
            angles.set_range(-((position + first) as i64), -(stride as i64), samples, frequencies);
            kernels::rope(pool, floats, head_dim, angles, layout)?;
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        fit(halves, 2 * samples * width);
        for (query, halves) in floats.chunks_exact(head_dim).zip(halves.chunks_exact_mut(2 * head_dim)) {
            let (above, below) = halves.split_at_mut(head_dim);
            for ((value, above), below) in query.iter().zip(above).zip(below) {
                (*above, *below) = (value.max(0.0) * scale, value.min(0.0) * scale);
            }
        }
        fit(scores, samples * *heads * blocks);
        kernels::key_scores(pool, halves, bounds, (*heads, kv_heads, 2 * head_dim), scores)?;
        kernels::softmax_rows(pool, scores, samples * *heads, blocks)?;
        let mut votes = vec![0.0_f32; blocks];
        for weights in scores.chunks_exact(blocks) {
            votes.iter_mut().zip(weights).for_each(|(vote, weight)| *vote += weight);
        }
        let mut order: Vec<usize> = (0..blocks).collect();
        // Of equal ones the later is taken: it is nearer.
        let by_votes = |&a: &usize, &b: &usize| votes[b].total_cmp(&votes[a]).then(b.cmp(&a));
        let wanted = (shape.retrieved + LIKELY).min(blocks);
        order.select_nth_unstable_by(wanted - 1, by_votes);
        order.truncate(wanted);
        order.sort_unstable_by(by_votes);
        let likely = order[shape.retrieved..].iter().map(|block| (block + first_block) as u32);
        let likely: Vec<u32> = likely.collect();
        self.context.store.prefetch(self.stream, self.index as u32, &likely);
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
    fn what_is_known_of_blocks_takes_the_memory_that_was_announced() {
        let mut choice = BlockChoice::default();
        for block in 0..1_025_u16 {
            choice.learn(&BlockSummary { bounds: vec![block, 2, 3, 4] });
            assert_eq!(choice.bounds()[4 * usize::from(block)..], [block, 2, 3, 4]);
            assert_eq!(choice.bytes(), BlockChoice::bytes_for(2, usize::from(block) + 1));
        }
        choice.truncate(1, 2);
        assert_eq!(choice.bounds().len(), 4);
    }
}
