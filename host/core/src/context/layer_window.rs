//! One layer's rows in a window: `[sinks][retrieved blocks][hot tokens]`, one after the other in its cache.

use std::sync::Arc;

use candle_core::Tensor;
use modularbase_context::{BlockId, BlockSummary, DecodedBlock, KvShape, encode_block};
use modularbase_graph::{KvLayer, RopeSpec};
use modularbase_kernels::{self as kernels, RopeAngles, RopeLayout, ThreadPool};

use crate::{
    CoreError, ScratchNeed, StepSize,
    kv_cache::{LayerCache, fit},
    workspace::Buffers,
};

use super::{
    Context,
    attention_mass::{self, AttentionMass, KeptMass},
    block_choice::{BlockChoice, SAMPLES, TOGETHER},
    in_parallel::in_parallel,
    window_shape::WindowShape,
};

/// What a layer keeps of its window beside the rows.
#[derive(Debug, Default)]
pub(crate) struct LayerWindow {
    /// Position of the first hot token; 0 while nothing is cold.
    pub(super) start: usize,
    /// Row of the cache that it lies in.
    pub(super) row: usize,
    /// What lies before it.
    front: Front,
    /// Keys before their rotation and values of the sinks, bits of f16; empty while nothing is cold.
    sink_keys: Vec<u16>,
    sink_values: Vec<u16>,
    pub(super) choice: BlockChoice,
    pub(super) mass: AttentionMass,
}

/// Sinks and retrieved blocks as they lie before the hot tokens.
#[derive(Debug, Default)]
struct Front {
    rows: usize,
    /// The position that the hot tokens began at when it was placed.
    start: usize,
    /// The retrieved blocks, in order.
    blocks: Vec<usize>,
    /// The position of the row that chose them, if it came alone.
    chosen_alone: Option<usize>,
}

/// So many rows that come alone, one after the other, attend to what the first of them chose.
const CHOICE_HOLDS: usize = 8;

impl Front {
    /// Whether a row that comes alone at `position` needs no choice of its own.
    fn suits(&self, start: usize, position: usize) -> bool {
        let holds = |chosen: usize| (chosen..chosen + CHOICE_HOLDS).contains(&position);
        self.start == start && self.chosen_alone.is_some_and(holds)
    }
}

/// How keys are rotated: the last thing that a graph does to them before its attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRotation<'a> {
    pub(crate) frequencies: &'a [f32],
    pub(crate) head_dim: usize,
    pub(crate) layout: RopeLayout,
}

impl<'a> KeyRotation<'a> {
    /// By a rotary embedding with these inverse frequencies.
    pub(crate) fn of(spec: &RopeSpec, frequencies: &'a [f32]) -> Self {
        Self { frequencies, head_dim: spec.head_dim, layout: kernel_layout(spec.layout) }
    }
}

/// A graph's layout of rotated pairs as kernels name it.
pub(crate) fn kernel_layout(layout: modularbase_graph::RopeLayout) -> RopeLayout {
    match layout {
        modularbase_graph::RopeLayout::Half => RopeLayout::HalfSplit,
        modularbase_graph::RopeLayout::Interleaved => RopeLayout::Interleaved,
    }
}

/// What the operations of a step on one layer need.
pub(crate) struct WindowStep<'a> {
    pub(crate) pool: &'a ThreadPool,
    /// Query heads.
    pub(crate) heads: usize,
    pub(crate) layer: KvLayer,
    /// `None`: keys have no rotation, or one that can't be taken off.
    pub(crate) rotation: Option<KeyRotation<'a>>,
    pub(crate) scratch: &'a mut WindowScratch,
}

/// Rotated queries of a step's rows, `[rows, heads * head_dim]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Queries<'a> {
    Host(&'a [f32]),
    Device(&'a Tensor),
}

impl Queries<'_> {
    /// Copies rows of `width` values, `stride` apart from row `first` on, as many as `out` has room for.
    pub(super) fn sample(
        &self,
        first: usize,
        stride: usize,
        width: usize,
        out: &mut [f32],
    ) -> Result<(), CoreError> {
        let found;
        let from = match self {
            Self::Host(rows) => &rows[first * width..],
            Self::Device(rows) => {
                let span = (out.len() / width - 1) * stride + 1;
                found = rows.narrow(0, first, span)?.flatten_all()?.to_vec1::<f32>()?;
                &found
            }
        };
        for (sample, to) in out.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&from[sample * stride * width..][..width]);
        }
        Ok(())
    }
}

/// Buffers that windows reuse from step to step.
#[derive(Debug, Default)]
pub(crate) struct WindowScratch {
    pub(super) floats: Vec<f32>,
    /// Queries' positive and negative parts.
    pub(super) halves: Vec<f32>,
    pub(super) angles: RopeAngles,
    /// Angles of the positions before the hot tokens, and what they were made for.
    front_angles: RopeAngles,
    front_start: usize,
    front_frequencies: Vec<f32>,
    pub(super) scores: Vec<f32>,
    /// Keys of blocks that are looked at.
    pub(super) keys: Vec<u16>,
}

impl Buffers for WindowScratch {
    fn bytes(&self) -> usize {
        let queries = self.halves.capacity() + self.scores.capacity();
        let floats = self.floats.capacity() + self.front_frequencies.capacity() + queries;
        let angles = self.angles.bytes() + self.front_angles.bytes();
        floats * size_of::<f32>() + angles + self.keys.capacity() * size_of::<u16>()
    }
}

impl WindowScratch {
    /// What steps of this size need for layers like this one.
    pub(crate) fn need(step: &StepSize, layer: KvLayer, heads: usize) -> ScratchNeed {
        let Some(shape) = &step.window else { return ScratchNeed::default() };
        let window = Self::bytes_for(shape, layer, heads, step.context).into();
        let passing = Self::passing_bytes(shape, layer, step.context);
        ScratchNeed { window, passing, ..ScratchNeed::default() }
    }

    /// Bytes of each of its buffers, at most, for a text of `tokens` tokens.
    fn bytes_for(shape: &WindowShape, layer: KvLayer, heads: usize, tokens: usize) -> [usize; 5] {
        let (blocks, weighed) = (shape.cold_blocks(tokens), attention_mass::scores_for(shape, heads));
        if blocks == 0 && weighed == 0 {
            return [0; 5];
        }
        let half = layer.head_dim / 2;
        let rows = shape.sinks.max(shape.retrieved * shape.block).max(shape.stride());
        let floats = (SAMPLES * heads * layer.head_dim).max(rows * layer.width());
        [
            floats * size_of::<f32>(),
            RopeAngles::bytes_for(SAMPLES.max(shape.sinks + shape.most_hot()), half),
            RopeAngles::bytes_for(shape.front(), half) + half * size_of::<f32>(),
            (SAMPLES * heads * blocks).max(weighed).max(heads * TOGETHER * shape.block) * size_of::<f32>(),
            SAMPLES * heads * 2 * layer.head_dim * size_of::<f32>()
                + TOGETHER * shape.block * layer.width() * size_of::<u16>(),
        ]
    }

    /// Bytes that pass while a layer is worked on, at most: most where a text is cut back and its rows are restored.
    fn passing_bytes(shape: &WindowShape, layer: KvLayer, tokens: usize) -> usize {
        match shape.cold_blocks(tokens) {
            0 if shape.levels.are_on() => shape.attended() * layer.width() * size_of::<u16>(),
            0 => 0,
            blocks => {
                // The rows restored, with the room that they grow by, those that were hot, and what is put before them.
                let rows =
                    4 * (shape.sinks + shape.most_hot() + shape.block) + 2 * shape.most_hot() + shape.front();
                rows * layer.width() * size_of::<f32>() + blocks * (size_of::<f32>() + size_of::<usize>())
            }
        }
    }
}

/// Rows of a step that attend to the same keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// How many of the step's rows.
    pub(crate) rows: usize,
    /// The cache's row that their keys begin at.
    pub(crate) first: usize,
    /// Keys before their own.
    pub(crate) past: usize,
}

/// One layer's cache in a step.
pub(crate) struct WindowedLayer<'a, 'b> {
    pub(crate) cache: &'a mut LayerCache,
    pub(crate) context: &'a Context,
    pub(crate) stream: &'a str,
    /// Which of the cache's layers it is.
    pub(crate) index: usize,
    pub(crate) step: &'a mut WindowStep<'b>,
}

impl WindowedLayer<'_, '_> {
    /// Makes the cache ready for `rows` more rows, the first of them at `position`.
    pub(crate) fn make_ready(&mut self, position: usize, rows: usize) -> Result<(), CoreError> {
        let width = self.cache.width;
        if self.cache.window.start > self.shape().start(position) {
            self.restore(position)?;
        }
        if self.cache.keys.len() / width + rows > self.shape().capacity() {
            let unused = self.cache.window.row - self.cache.window.front.rows;
            self.cache.keys.drop_first(unused, width)?;
            self.cache.values.drop_first(unused, width)?;
            self.cache.window.row -= unused;
        }
        Ok(())
    }

    /// Makes the cache ready for the next rows of a step, of which `left` are left and the first is at
    /// `position`: what is no longer hot for them goes cold, and the blocks that suit their queries come
    /// back.
    pub(crate) fn next_group(
        &mut self,
        position: usize,
        left: usize,
        queries: Queries<'_>,
    ) -> Result<Group, CoreError> {
        let shape = self.shape();
        let start = shape.start(position);
        let rows = left.min(shape.end(position) - position);
        if start == 0 {
            let group = Group { rows, first: 0, past: position };
            self.weigh(position, group, queries)?;
            return Ok(group);
        }
        self.let_go(start)?;
        if rows > 1 || !self.cache.window.front.suits(start, position) {
            let blocks = self.choose(position, rows, queries)?;
            self.place(blocks)?;
            self.cache.window.front.chosen_alone = (rows == 1).then_some(position);
        }
        let window = &self.cache.window;
        let front = window.front.rows;
        let group = Group { rows, first: window.row - front, past: front + position - start };
        self.weigh(position, group, queries)?;
        Ok(group)
    }

    fn block_id(&self, index: usize) -> BlockId<'_> {
        BlockId { stream: self.stream, layer: self.index as u32, index: index as u32 }
    }

    pub(super) fn shape(&self) -> WindowShape {
        self.context.shape
    }

    /// Hot blocks before position `start` go cold.
    fn let_go(&mut self, start: usize) -> Result<(), CoreError> {
        let WindowShape { block, sinks, .. } = self.shape();
        if self.cache.window.start == 0 {
            (self.cache.window.sink_keys, self.cache.window.sink_values) = self.cold_rows(0, sinks)?;
        }
        let KvLayer { kv_heads, head_dim, .. } = self.step.layer;
        let kv_shape = KvShape { kv_heads, head_dim, block_tokens: block };
        let width = self.cache.width;
        for first in (self.cache.window.start..start).step_by(self.shape().stride()) {
            let count = self.shape().stride().min(start - first);
            let (keys, values) = self.cold_rows(first, count)?;
            let positions = || (first..first + count).step_by(block);
            let levels = positions().map(|at| if at >= sinks { self.level() } else { self.shape().bits });
            let mut blocks: Vec<_> = levels.map(|bits| (bits, Vec::new(), BlockSummary::default())).collect();
            let parts = keys.chunks_exact(block * width).zip(values.chunks_exact(block * width));
            in_parallel(self.step.pool, blocks.iter_mut().zip(parts), |((bits, encoded, summary), part)| {
                *encoded = encode_block(*bits, kv_shape, part.0, part.1);
                *summary = BlockSummary::of(kv_shape, part.0);
                Ok::<(), CoreError>(())
            })?;
            for (position, (bits, encoded, summary)) in positions().zip(&blocks) {
                let id = self.block_id(position / block);
                self.context.store.append(id, *bits, kv_shape, encoded, summary)?;
                if position >= sinks {
                    self.cache.window.choice.learn(summary);
                }
            }
        }
        let window = &mut self.cache.window;
        window.row += start - window.start;
        window.start = start;
        Ok(())
    }

    /// Keys before their rotation and values of hot tokens, bits of f16.
    fn cold_rows(&mut self, position: usize, count: usize) -> Result<(Vec<u16>, Vec<u16>), CoreError> {
        let LayerCache { width, keys, values, window } = &mut *self.cache;
        let values_in = count * *width;
        let first = (window.row + position - window.start) * *width;
        let WindowStep { pool, rotation, scratch, .. } = &mut *self.step;
        let WindowScratch { floats, angles, .. } = &mut **scratch;
        fit(floats, values_in);
        keys.read(pool, first, floats)?;
        if let Some(KeyRotation { frequencies, head_dim, layout }) = *rotation {
            angles.set_range(-(position as i64), -1, count, frequencies);
            kernels::rope(pool, floats, head_dim, angles, layout)?;
        }
        let mut key_bits = vec![0; values_in];
        kernels::f32_to_f16(pool, floats, &mut key_bits)?;
        Ok((key_bits, values.read_f16(pool, first, values_in)?.into_owned()))
    }

    /// Puts sinks and blocks right before the hot tokens, as far as they don't lie there already.
    fn place(&mut self, blocks: Vec<usize>) -> Result<(), CoreError> {
        let WindowShape { block, sinks, .. } = self.shape();
        let rows = sinks + blocks.len() * block;
        let (start, row) = (self.cache.window.start, self.cache.window.row);
        let front = std::mem::take(&mut self.cache.window.front);
        let stays = front.start == start && front.rows == rows;
        self.turn_front(start)?;
        let changed = |slot: &usize| !stays || front.blocks[*slot] != blocks[*slot];
        let mut found: Vec<(usize, Option<Arc<DecodedBlock>>)> =
            (0..blocks.len()).filter(changed).map(|slot| (slot, None)).collect();
        in_parallel(self.step.pool, found.iter_mut(), |(slot, found)| {
            *found = Some(self.context.store.block(self.block_id(blocks[*slot]))?);
            Ok::<(), CoreError>(())
        })?;
        let found: Vec<(usize, Arc<DecodedBlock>)> =
            found.into_iter().filter_map(|(slot, block)| Some((slot, block?))).collect();
        // Neighbours are rotated together.
        for run in found.chunk_by(|(slot, _), (next, _)| slot + 1 == *next) {
            let at = row - (blocks.len() - run[0].0) * block;
            self.place_blocks(run.iter().map(|(_, block)| &**block), at)?;
        }
        if !stays && sinks > 0 {
            let LayerCache { width, keys, values, window } = &mut *self.cache;
            let WindowStep { pool, rotation, scratch, .. } = &mut *self.step;
            let WindowScratch { floats, front_angles, .. } = &mut **scratch;
            fit(floats, window.sink_keys.len());
            kernels::f16_to_f32(pool, &window.sink_keys, floats)?;
            if let Some(KeyRotation { head_dim, layout, .. }) = *rotation {
                let first = front_angles.positions() - rows;
                kernels::rope_rows(pool, floats, head_dim, front_angles, first..first + sinks, layout)?;
            }
            keys.write(pool, (row - rows) * *width, floats)?;
            values.write_f16(pool, (row - rows) * *width, &[&window.sink_values])?;
        }
        self.cache.window.front = Front { rows, start, blocks, chosen_alone: None };
        Ok(())
    }

    /// Puts blocks into the rows from `at` on, one after the other.
    fn place_blocks<'c>(
        &mut self,
        blocks: impl ExactSizeIterator<Item = &'c DecodedBlock> + Clone,
        at: usize,
    ) -> Result<(), CoreError> {
        let block = self.shape().block;
        let LayerCache { width, keys, values, window } = &mut *self.cache;
        let WindowStep { pool, rotation, scratch, .. } = &mut *self.step;
        let WindowScratch { floats, front_angles, .. } = &mut **scratch;
        let each = block * *width;
        fit(floats, blocks.len() * each);
        for (block, floats) in blocks.clone().zip(floats.chunks_exact_mut(each)) {
            kernels::f16_to_f32(pool, &block.keys, floats)?;
        }
        let found: Vec<&[u16]> = blocks.clone().map(|block| &*block.values).collect();
        values.write_f16(pool, at * *width, &found)?;
        if let Some(KeyRotation { head_dim, layout, .. }) = *rotation {
            let first = front_angles.positions() - (window.row - at);
            let rows = first..first + blocks.len() * block;
            kernels::rope_rows(pool, floats, head_dim, front_angles, rows, layout)?;
        }
        keys.write(pool, at * *width, floats)
    }

    /// Angles of the positions right before `start`, for as many rows as a front may have.
    fn turn_front(&mut self, start: usize) -> Result<(), CoreError> {
        let rows = self.shape().front().min(start);
        let Some(KeyRotation { frequencies, .. }) = self.step.rotation else { return Ok(()) };
        let scratch = &mut *self.step.scratch;
        let known = scratch.front_start == start
            && scratch.front_angles.positions() == rows
            && scratch.front_frequencies == frequencies;
        if !known {
            scratch.front_angles.set_range((start - rows) as i64, 1, rows, frequencies);
            scratch.front_start = start;
            scratch.front_frequencies = frequencies.to_vec();
        }
        Ok(())
    }

    /// After a text was cut back: tokens that are hot for a row at `position` and had gone cold are made hot
    /// again, as exact as their blocks are.
    fn restore(&mut self, position: usize) -> Result<(), CoreError> {
        let shape = self.shape();
        let start = shape.start(position);
        let old = self.cache.window.start;
        let width = self.cache.width;
        let from = if start == 0 { shape.sinks } else { start };
        let kept = position.saturating_sub(old);
        let mut survivors = [vec![0.0; kept * width], vec![0.0; kept * width]];
        let first = self.cache.window.row * width;
        self.cache.keys.read(self.step.pool, first, &mut survivors[0])?;
        self.cache.values.read(self.step.pool, first, &mut survivors[1])?;
        let mut keys = Vec::new();
        let mut values = Vec::new();
        let mut widen = |found: (&[u16], &[u16])| -> Result<(), CoreError> {
            for (to, bits) in [(&mut keys, found.0), (&mut values, found.1)] {
                let old = to.len();
                to.resize(old + bits.len(), 0.0);
                kernels::f16_to_f32(self.step.pool, bits, &mut to[old..])?;
            }
            Ok(())
        };
        if start == 0 {
            widen((&self.cache.window.sink_keys, &self.cache.window.sink_values))?;
        }
        let end = position.min(old);
        for index in from / shape.block..end.div_ceil(shape.block) {
            let found = self.context.store.block(self.block_id(index))?;
            widen((&found.keys, &found.values))?;
        }
        let restored = end - start;
        keys.truncate(restored * width);
        values.truncate(restored * width);
        if let Some(KeyRotation { frequencies, head_dim, layout }) = self.step.rotation {
            let angles = &mut self.step.scratch.angles;
            angles.set_range(start as i64, 1, restored, frequencies);
            kernels::rope(self.step.pool, &mut keys, head_dim, angles, layout)?;
        }
        let row = if start == 0 { 0 } else { shape.front() };
        for (store, found, kept) in
            [(&mut self.cache.keys, keys, &survivors[0]), (&mut self.cache.values, values, &survivors[1])]
        {
            store.truncate(0, width);
            for rows in [&vec![0.0; row * width], &found, kept] {
                store.append(self.step.pool, rows, width)?;
            }
        }
        let cold = start.saturating_sub(shape.sinks) / shape.block;
        let window = &mut self.cache.window;
        window.choice.truncate(cold, width);
        window.mass.forget_hot();
        *window = LayerWindow { start, row, front: Front::default(), ..std::mem::take(window) };
        Ok(())
    }
}

impl LayerWindow {
    /// One whose first hot token is at position `start` and lies in row `row` of its cache, with nothing before it yet.
    pub(super) fn restored(start: usize, row: usize, [sink_keys, sink_values]: [Vec<u16>; 2]) -> Self {
        Self { start, row, sink_keys, sink_values, ..Self::default() }
    }

    /// Position and row of the first hot token, and the sinks' keys and values.
    pub(super) fn kept(&self) -> (usize, usize, [&[u16]; 2]) {
        (self.start, self.row, [&self.sink_keys, &self.sink_values])
    }

    /// What is known of the attention to its blocks.
    pub(super) fn kept_mass(&self) -> KeptMass {
        self.mass.kept()
    }

    /// Takes over what was known of the attention to its blocks.
    pub(super) fn restore_mass(&mut self, kept: &KeptMass) {
        self.mass = kept.into();
    }

    /// After the text was cut to `len` tokens, of blocks of so many.
    pub(crate) fn truncate(&mut self, len: usize, shape: &WindowShape) {
        let first = self.start.max(shape.sinks) / shape.block;
        self.mass.truncate((len / shape.block).saturating_sub(first));
    }

    /// Takes note of the next block that can be chosen.
    pub(super) fn learn(&mut self, summary: &BlockSummary) {
        self.choice.learn(summary);
    }

    /// The cache's rows that hold tokens before position `len`, what lies before the hot tokens included.
    pub(crate) fn rows(&self, len: usize) -> usize {
        self.row + len.saturating_sub(self.start)
    }

    /// Bytes of what is known of cold blocks.
    pub(crate) fn known_bytes(&self) -> usize {
        self.choice.bytes()
    }

    pub(crate) fn bytes(&self) -> usize {
        let bits = self.sink_keys.capacity() + self.sink_values.capacity();
        let known = self.choice.bytes() + self.mass.bytes();
        bits * size_of::<u16>() + self.front.blocks.capacity() * size_of::<usize>() + known
    }

    /// Blocks before the hot tokens now.
    pub(crate) fn retrieved(&self) -> usize {
        self.front.blocks.len()
    }
}

/// Bytes of a [`LayerWindow`] with so many cold blocks, at most.
pub(super) fn bytes(shape: &WindowShape, width: usize, blocks: usize) -> usize {
    let sinks = 2 * shape.sinks * width * size_of::<u16>();
    let known = BlockChoice::bytes_for(width, blocks) + attention_mass::bytes_for(shape);
    sinks + shape.retrieved * size_of::<usize>() + known
}
