//! How much attention a layer's blocks get while they are hot: what decides how much of each is kept when it goes cold.
//!
//! Of some rows of a step each head's queries score all keys that they attend to, as attention itself does; what their
//! softmax gives a block, in the mean over heads, is its share for that row. A block's mass is the mean of its shares over
//! the rows behind it, and is held against the mean mass of the layer's blocks that went cold before. Variances of keys or
//! values are not looked at: a block may vary much and be asked for by nobody.

use modularbase_context::KvBits;
use modularbase_graph::KvLayer;
use modularbase_kernels as kernels;

use crate::{CoreError, kv_cache::fit};

use super::{
    layer_window::{Group, Queries, WindowScratch, WindowStep, WindowedLayer},
    window_shape::WindowShape,
};

/// Rows of a group that are looked at, at most.
pub(super) const ROWS: usize = 8;
/// Where a step is shorter than that: one row of so many tokens.
const SPARSE: usize = 8;
/// Blocks that a mean is taken over, at least.
const ENOUGH: u32 = 8;

/// What a layer knows of the attention to its blocks; nothing where no levels are asked for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct AttentionMass {
    /// Of each whole hot block, from the first hot one on: the sum of its shares, and how many rows these are of.
    hot: Vec<(f32, u32)>,
    /// Sum of the masses of blocks that went cold, and how many these are.
    gone: (f32, u32),
}

impl AttentionMass {
    /// Takes note of a row's shares of the hot blocks, from the first on.
    fn add(&mut self, shares: impl Iterator<Item = f32>) {
        for (index, share) in shares.enumerate() {
            if self.hot.len() <= index {
                self.hot.push((0.0, 0));
            }
            self.hot[index].0 += share;
            self.hot[index].1 += 1;
        }
    }

    /// The first hot block goes cold: its mass as a share of the mean before it, where both are known.
    pub(super) fn let_go(&mut self) -> Option<f32> {
        if self.hot.is_empty() {
            return None;
        }
        let (sum, rows) = self.hot.remove(0);
        if rows == 0 {
            return None;
        }
        let mass = sum / rows as f32;
        let (before, count) = self.gone;
        self.gone = (before + mass, count + 1);
        (count >= ENOUGH && before > 0.0).then(|| mass * count as f32 / before)
    }

    /// Forgets hot blocks from number `blocks` on.
    pub(super) fn truncate(&mut self, blocks: usize) {
        self.hot.truncate(blocks);
    }

    /// Hot blocks begin elsewhere: nothing is known of them.
    pub(super) fn forget_hot(&mut self) {
        self.hot.clear();
    }

    pub(super) fn bytes(&self) -> usize {
        self.hot.capacity() * size_of::<(f32, u32)>()
    }

    /// As bits, for a text that goes on elsewhere.
    pub(super) fn kept(&self) -> KeptMass {
        let hot = self.hot.iter().map(|&(sum, rows)| (sum.to_bits(), rows)).collect();
        KeptMass { hot, gone: (self.gone.0.to_bits(), self.gone.1) }
    }
}

/// [`AttentionMass`] with the bits of its numbers.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptMass {
    hot: Vec<(u32, u32)>,
    gone: (u32, u32),
}

impl From<&KeptMass> for AttentionMass {
    fn from(kept: &KeptMass) -> Self {
        let hot = kept.hot.iter().map(|&(sum, rows)| (f32::from_bits(sum), rows)).collect();
        Self { hot, gone: (f32::from_bits(kept.gone.0), kept.gone.1) }
    }
}

/// Bytes of the masses of a window's hot blocks, at most: their list grows by doubling.
pub(super) fn bytes_for(shape: &WindowShape) -> usize {
    let hot = (shape.sinks + shape.most_hot() + crate::CHUNK_ROWS) / shape.block + 1;
    if shape.levels.are_on() { 2 * hot * size_of::<(f32, u32)>() } else { 0 }
}

/// Values of the buffer for scores, at most.
pub(super) fn scores_for(shape: &WindowShape, heads: usize) -> usize {
    if shape.levels.are_on() { ROWS * heads * (shape.attended() + shape.block) } else { 0 }
}

impl WindowedLayer<'_, '_> {
    /// The bits that a hot block is kept in, the first of them, which goes cold.
    pub(super) fn level(&mut self) -> KvBits {
        let WindowShape { bits, levels, .. } = self.shape();
        match levels.are_on().then(|| self.cache.window.mass.let_go()).flatten() {
            Some(share) => levels.bits(share, bits),
            None => bits,
        }
    }

    /// Looks at what some rows of a group, which begins at `position`, attend to. Their keys lie in the cache.
    pub(super) fn weigh(
        &mut self,
        position: usize,
        group: Group,
        queries: Queries<'_>,
    ) -> Result<(), CoreError> {
        let shape = self.shape();
        let rows = group.rows;
        let skipped = rows < ROWS && (position + rows) / SPARSE == position / SPARSE;
        if !shape.levels.are_on() || skipped {
            return Ok(());
        }
        let WindowStep { pool, heads, layer, scratch, .. } = &mut *self.step;
        let KvLayer { kv_heads, head_dim, .. } = *layer;
        let WindowScratch { floats, scores, .. } = &mut **scratch;
        let width = *heads * head_dim;
        let stride = rows.div_ceil(ROWS);
        let samples = if rows < ROWS { 1 } else { rows.div_ceil(stride) };
        let first = rows - 1 - (samples - 1) * stride;
        let scale = 1.0 / (head_dim as f32).sqrt();
        fit(floats, samples * width);
        queries.sample(first, stride, width, floats)?;
        floats.iter_mut().for_each(|value| *value *= scale);
        let keys_len = group.past + rows;
        let width = self.cache.width;
        let keys = self.cache.keys.read_f16(pool, group.first * width, keys_len * width)?;
        fit(scores, samples * *heads * keys_len);
        kernels::key_scores(pool, floats, &keys, (*heads, kv_heads, head_dim), scores)?;
        for (row, scores) in scores.chunks_exact_mut(*heads * keys_len).enumerate() {
            let behind = group.past + first + row * stride + 1;
            for scores in scores.chunks_exact_mut(keys_len) {
                scores[behind..].fill(f32::NEG_INFINITY);
            }
        }
        kernels::softmax_rows(pool, scores, samples * *heads, keys_len)?;

        // Rows of the scores that hold hot tokens, and the block of the text that the first of them begins.
        let window = &mut self.cache.window;
        let hot = window.row - group.first + shape.sinks.saturating_sub(window.start);
        let block = window.start.max(shape.sinks) / shape.block;
        for (row, scores) in scores.chunks_exact(*heads * keys_len).enumerate() {
            let whole = (position + first + row * stride) / shape.block;
            let shares = (0..whole.saturating_sub(block)).map(|index| {
                let from = hot + index * shape.block;
                let of_head = |scores: &[f32]| scores[from..from + shape.block].iter().sum::<f32>();
                scores.chunks_exact(keys_len).map(of_head).sum::<f32>() / *heads as f32
            });
            window.mass.add(shares);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_held_against_the_mean_of_those_before_it() {
        let mut mass = AttentionMass::default();
        assert_eq!(mass.let_go(), None);
        mass.add((0..12).map(|index| if index < 10 { 0.2 } else { 0.8 }));
        let shares: Vec<Option<f32>> = (0..10).map(|_| mass.let_go()).collect();
        assert!(shares[..8].iter().all(Option::is_none), "{shares:?}");
        assert!(shares[8..].iter().flatten().all(|share| (share - 1.0).abs() < 1e-6), "{shares:?}");
        assert!((mass.let_go().unwrap() - 4.0).abs() < 1e-5);
        let kept: KeptMass = serde_json::from_str(&serde_json::to_string(&mass.kept()).unwrap()).unwrap();
        assert_eq!(AttentionMass::from(&kept), mass);
    }
}
