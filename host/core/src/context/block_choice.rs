//! Which cold blocks suit a step's queries.
//!
//! A block is known by the greatest and the least of its keys, before their rotation, in each channel: they bound what a
//! query can score on any of its keys, so one key that stands out is not lost among the others as it is in their mean.
//! Rows that belong to one block of the text choose together: of some of them, the last one always, each head's queries,
//! their own rotation taken off, give every block a weight by softmax over these bounds, and the blocks with the largest
//! sums over rows and heads come back. So a head that looks for something counts as much as one whose scores are large
//! for every block. Of eight rows that come alone, one after the other as in an answer, the first chooses.
//!
//! Before an answer and in it, bounds are too wide to choose by: the last row's queries choose candidates by them, and of
//! these by the share of the attention that their keys get. What layers wanted in the step before counts too (see
//! [`BlockInterest`](super::block_interest::BlockInterest)).

use modularbase_context::{BlockId, BlockSummary, MappedValues};
use modularbase_graph::KvLayer;
use modularbase_kernels as kernels;

use crate::{CoreError, kv_cache::fit};

use super::block_interest::{LOOK_ROWS, Purpose};
use super::in_parallel::in_parallel;
use super::layer_window::{KeyRotation, Queries, WindowScratch, WindowStep, WindowedLayer};

/// Rows of a group whose queries are looked at, at most.
pub(super) const SAMPLES: usize = 8;

/// Blocks that came next to those that come back: the next step may well want them, so they are fetched ahead.
const LIKELY: usize = 4;

/// Blocks whose keys are looked at before an answer, at most: those of 32,768 tokens, 400 MB of a base of 30 layers with 192
/// channels.
const LOOKED_AT: usize = 512;

/// The same in an answer, where it is already known which blocks it is about.
const CANDIDATES: usize = 16;

/// Blocks whose keys are in memory for that at a time.
pub(super) const TOGETHER: usize = 16;

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
        let blocks = self.cache.window.choice.bounds().len() / (2 * self.cache.width);
        // Blocks of sinks are never cold.
        let first_block = shape.sinks / shape.block;
        if blocks <= shape.retrieved {
            return Ok((first_block..first_block + blocks).collect());
        }
        let candidates = match self.context.interest.purpose() {
            // Behind the slot, rows that a change of mixture left to be computed again come along.
            _ if rows > LOOK_ROWS => 0,
            Purpose::Reading => 0,
            Purpose::Answering if rows == 1 => CANDIDATES,
            Purpose::Looking | Purpose::Answering => LOOKED_AT,
        };
        // Of an answer, the last row is the one that it begins with.
        let stride = if candidates > 0 { rows } else { rows.div_ceil(SAMPLES) };
        let samples = rows.div_ceil(stride);
        self.take_queries(position, rows - 1 - (samples - 1) * stride, (samples, stride), queries)?;
        let mut votes = vec![0.0_f32; blocks];
        if candidates < blocks {
            self.votes_by_bounds(&mut votes)?;
        }
        if candidates > 0 {
            let mut chosen = best(&votes, candidates);
            chosen.sort_unstable();
            let found = self.votes_by_keys(&chosen)?;
            votes.fill(0.0);
            chosen.iter().zip(found).for_each(|(&block, vote)| votes[block] = vote);
            self.context.interest.share(&mut votes);
        }
        let mut order = best(&votes, shape.retrieved + LIKELY);
        let likely = order[shape.retrieved.min(order.len())..].iter();
        let likely: Vec<u32> = likely.map(|block| (block + first_block) as u32).collect();
        self.context.store.prefetch(self.stream, self.index as u32, &likely);
        order.truncate(shape.retrieved);
        order.sort_unstable();
        order.iter_mut().for_each(|block| *block += first_block);
        order.shrink_to_fit();
        Ok(order)
    }

    /// Puts the queries of some rows, from row `first` of those at `position` on, into the scratch, their rotation taken off
    /// and divided by the root of a head's channels.
    fn take_queries(
        &mut self,
        position: usize,
        first: usize,
        (samples, stride): (usize, usize),
        queries: Queries<'_>,
    ) -> Result<(), CoreError> {
        let WindowStep { pool, heads, layer, rotation, scratch } = &mut *self.step;
        let WindowScratch { floats, angles, .. } = &mut **scratch;
        let width = *heads * layer.head_dim;
        fit(floats, samples * width);
        queries.sample(first, stride, width, floats)?;
        if let Some(KeyRotation { frequencies, head_dim, layout }) = *rotation {
            angles.set_range(-((position + first) as i64), -(stride as i64), samples, frequencies);
            kernels::rope(pool, floats, head_dim, angles, layout)?;
        }
        let scale = 1.0 / (layer.head_dim as f32).sqrt();
        floats.iter_mut().for_each(|value| *value *= scale);
        Ok(())
    }

    /// Adds to each block's votes its weights by its bounds, over all heads of the queries in the scratch.
    fn votes_by_bounds(&mut self, votes: &mut [f32]) -> Result<(), CoreError> {
        let WindowStep { pool, heads, layer, scratch, .. } = &mut *self.step;
        let KvLayer { kv_heads, head_dim, .. } = *layer;
        let WindowScratch { floats, halves, scores, .. } = &mut **scratch;
        fit(halves, 2 * floats.len());
        for (query, halves) in floats.chunks_exact(head_dim).zip(halves.chunks_exact_mut(2 * head_dim)) {
            let (above, below) = halves.split_at_mut(head_dim);
            for ((value, above), below) in query.iter().zip(above).zip(below) {
                (*above, *below) = (value.max(0.0), value.min(0.0));
            }
        }
        let (queries, blocks) = (floats.len() / head_dim, votes.len());
        fit(scores, queries * blocks);
        let bounds = self.cache.window.choice.bounds();
        kernels::key_scores(pool, halves, bounds, (*heads, kv_heads, 2 * head_dim), scores)?;
        kernels::softmax_rows(pool, scores, queries, blocks)?;
        for weights in scores.chunks_exact(blocks) {
            votes.iter_mut().zip(weights).for_each(|(vote, weight)| *vote += weight);
        }
        Ok(())
    }

    /// What share of the attention to some blocks each of them gets, in the mean over all heads of one row's queries in the
    /// scratch.
    fn votes_by_keys(&mut self, blocks: &[usize]) -> Result<Vec<f32>, CoreError> {
        let shape = self.shape();
        let WindowStep { pool, heads, layer, scratch, .. } = &mut *self.step;
        let KvLayer { kv_heads, head_dim, .. } = *layer;
        let WindowScratch { floats: queries, scores, keys, .. } = &mut **scratch;
        let (heads, keys_of_block) = (*heads, shape.block * layer.width());
        let scores_of_block = heads * shape.block;
        // Logarithms, `[blocks, heads]`.
        let mut weights = vec![0.0; blocks.len() * heads];
        for (some, weights) in blocks.chunks(TOGETHER).zip(weights.chunks_mut(TOGETHER * heads)) {
            fit(keys, some.len() * keys_of_block);
            fit(scores, some.len() * scores_of_block);
            let buffers = keys.chunks_exact_mut(keys_of_block).zip(scores.chunks_exact_mut(scores_of_block));
            let work = some.iter().zip(weights.chunks_exact_mut(heads)).zip(buffers);
            in_parallel(pool, work, |((&block, weights), (keys, scores))| {
                let index = (block + shape.sinks / shape.block) as u32;
                let id = BlockId { stream: self.stream, layer: self.index as u32, index };
                self.context.store.keys(id, keys)?;
                kernels::key_scores(pool, queries, keys, (heads, kv_heads, head_dim), scores)?;
                for (weight, scores) in weights.iter_mut().zip(scores.chunks_exact(shape.block)) {
                    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    *weight = most + scores.iter().map(|score| (score - most).exp()).sum::<f32>().ln();
                }
                Ok::<(), CoreError>(())
            })?;
        }
        let of_head = |head| weights.iter().skip(head).step_by(heads).copied();
        let mut shares: Vec<f32> = (0..heads).flat_map(of_head).collect();
        kernels::softmax_rows(pool, &mut shares, heads, blocks.len())?;
        let mut votes = vec![0.0; blocks.len()];
        for shares in shares.chunks_exact(blocks.len()) {
            votes.iter_mut().zip(shares).for_each(|(vote, share)| *vote += share / heads as f32);
        }
        Ok(votes)
    }
}

/// The `count` blocks with the most votes, or all where there are fewer, the first of them first; of equal ones the later is
/// taken: it is nearer.
fn best(votes: &[f32], count: usize) -> Vec<usize> {
    let by_votes = |&a: &usize, &b: &usize| votes[b].total_cmp(&votes[a]).then(b.cmp(&a));
    let mut order: Vec<usize> = (0..votes.len()).collect();
    if (1..order.len()).contains(&count) {
        order.select_nth_unstable_by(count - 1, by_votes);
    }
    order.truncate(count);
    order.sort_unstable_by(by_votes);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_with_most_votes_come_first_and_of_equal_ones_the_later() {
        let votes = [0.5, 2.0, 0.5, 1.0];
        assert_eq!(best(&votes, 3), [1, 3, 2]);
        assert_eq!(best(&votes, 4), [1, 3, 2, 0]);
        assert_eq!(best(&votes, 9), [1, 3, 2, 0]);
        assert_eq!(best(&votes, 0), [0; 0]);
    }

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
