//! Matrix products of activations with packed weights.

use std::marker::PhantomData;
use std::ops::Range;

use modularbase_deltas::{DeltaFormat, GROUP};

use crate::activations::{Panels, QuantizePanel, ROW_BLOCK, interleave_panel};
use crate::chunk_scheduler::ChunkScheduler;
use crate::cpu_level::CpuLevel;
use crate::delta_kernels::{DeltaKind, DeltaTile, KindDelta1, KindDelta2, KindDelta3};
use crate::delta_matrix::DeltaMatrix;
use crate::error::{KernelError, check_length, checked_mul};
use crate::linear_kernels::{
    BlockKind, Destination, FloatKind, FloatTiles, KindBF16, KindF16, KindF32, KindQ4_0, KindQ4_1, KindQ8_0,
    QuantizedTile,
};
use crate::packed_matrix::Matrix;
use crate::quantize::BLOCK;
use crate::scratch::{Scratch, ScratchSizes, reserve};
use crate::simd::{LANES, launch, launch_widest, rows_in_registers, tiles_in_registers};
use crate::thread_pool::{ThreadPool, split_range};
use crate::weight_format::WeightFormat;

/// One product of a [`linear`] call: `out = x * weight^T + bias`.
pub struct LinearOutput<'a> {
    /// `[rows, cols]`.
    pub weight: &'a Matrix,
    /// `[rows]`.
    pub bias: Option<&'a [f32]>,
    /// `[m, rows]`.
    pub out: &'a mut [f32],
    /// Add to what `out` holds instead of replacing it.
    pub accumulate: bool,
}

/// Activation bytes that a core works through before it moves to other weights: about half of a level-2 cache.
const ROWS_IN_CACHE_BYTES: usize = 512 * 1024;

/// With fewer activation values than this, waking the other threads to rearrange them costs more than it saves.
const PARALLEL_VALUES: usize = 8 * 1024;

/// A pointer that workers write disjoint parts through.
#[derive(Clone, Copy)]
pub(crate) struct SharedPointer<T>(pub *mut T);

// SAFETY: whoever dereferences the pointer makes sure that threads touch disjoint parts, within its lifetime.
unsafe impl<T> Sync for SharedPointer<T> {}
// SAFETY: as above.
unsafe impl<T> Send for SharedPointer<T> {}

impl<T> SharedPointer<T> {
    /// A method, so that closures capture the whole value and not the bare pointer in it.
    pub fn get(self) -> *mut T {
        self.0
    }
}

/// Several products that share their activations `x` (`[m, cols]`).
///
/// For quantized weights, and for deltas, the activations are rounded to int8 in blocks of 32, once for all outputs; products inside
/// of a block are exact, and blocks are summed in f32 in ascending order. Float weights are widened to f32. A row's
/// result depends on that row of `x` alone, to the bit: it is the same in every batch and for any number of threads.
///
/// # Errors
/// When a length or a width does not fit; nothing is written then.
pub fn linear(
    pool: &ThreadPool,
    x: &[f32],
    m: usize,
    outputs: &mut [LinearOutput<'_>],
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let Some(first) = outputs.first() else { return Ok(()) };
    let cols = first.weight.cols();
    let values = checked_mul(m, cols)?;
    check_length("linear input", values, x.len())?;
    for output in outputs.iter() {
        let (rows, found) = (output.weight.rows(), output.weight.cols());
        if found != cols {
            return Err(KernelError::Columns { input: cols, rows, cols: found });
        }
        check_length("linear output", checked_mul(m, rows)?, output.out.len())?;
        if let Some(bias) = output.bias {
            check_length("linear bias", rows, bias.len())?;
        }
    }
    if m == 0 {
        return Ok(());
    }

    let panels = Panels::new(m, rows_in_registers(pool.level()));
    let activations = prepare(pool, x, cols, panels, outputs, scratch)?;
    for outputs in outputs.chunks_mut(OUTPUTS_AT_ONCE) {
        multiply(pool, cols, panels, activations, outputs);
    }
    Ok(())
}

/// Working memory of a [`linear`] call on `[m, cols]` whose weights are all, in part or not `quantized`, and all, in
/// part or not in `floats`.
pub fn linear_scratch(m: usize, cols: usize, quantized: bool, floats: bool) -> ScratchSizes {
    let values = m.saturating_mul(cols);
    ScratchSizes {
        quantized: if quantized { (values / BLOCK).saturating_mul(ROW_BLOCK) } else { 0 },
        panels: if floats { values.saturating_mul(size_of::<f32>()) } else { 0 },
        ..ScratchSizes::default()
    }
}

/// The rearranged activations; a pointer is null where no output needs that form.
#[derive(Clone, Copy)]
struct Activations {
    quantized: SharedPointer<u8>,
    floats: SharedPointer<f32>,
}

fn prepare(
    pool: &ThreadPool,
    x: &[f32],
    cols: usize,
    panels: Panels,
    outputs: &[LinearOutput<'_>],
    scratch: &mut Scratch,
) -> Result<Activations, KernelError> {
    let m = panels.rows;
    let mut activations = Activations {
        quantized: SharedPointer(std::ptr::null_mut()),
        floats: SharedPointer(std::ptr::null_mut()),
    };
    let too_large = KernelError::TooLarge { rows: m, cols };
    if outputs.iter().any(|output| output.weight.reads_int8()) {
        let bytes = checked_mul(x.len() / BLOCK, ROW_BLOCK)?;
        reserve(&mut scratch.quantized, bytes).ok_or(too_large.clone())?;
        activations.quantized = SharedPointer(scratch.quantized.as_mut_ptr());
    }
    if outputs.iter().any(|output| !output.weight.format().is_quantized()) {
        reserve(&mut scratch.panels, checked_mul(x.len(), size_of::<f32>())?).ok_or(too_large)?;
        activations.floats = SharedPointer(scratch.panels.as_mut_ptr().cast());
    }
    let level = pool.level();
    let one = |index: usize| {
        let (first, rows) = panels.panel(index);
        let x = &x[first * cols..(first + rows) * cols];
        // SAFETY: the buffers have room for all m rows, and each panel writes the part of its own rows. The pool's
        // level is one that the processor has.
        unsafe {
            if !activations.quantized.get().is_null() {
                let out = activations.quantized.get().add(first * (cols / BLOCK) * ROW_BLOCK);
                launch(level, QuantizePanel { x: x.as_ptr(), rows, cols, out });
            }
            if !activations.floats.get().is_null() {
                interleave_panel(x.as_ptr(), rows, cols, activations.floats.get().add(first * cols));
            }
        }
    };
    if x.len() < PARALLEL_VALUES {
        (0..panels.count).for_each(one);
    } else {
        let chunks = ChunkScheduler::new(panels.count, 1, pool.threads());
        pool.run(&|worker| {
            while let Some(range) = chunks.next(worker) {
                range.for_each(one);
            }
        });
    }
    Ok(activations)
}

/// Outputs that one pass of the workers serves; more take further passes.
const OUTPUTS_AT_ONCE: usize = 8;

/// One output as workers see it.
#[derive(Clone, Copy)]
struct Product<'a> {
    weight: &'a Matrix,
    bias: Option<&'a [f32]>,
    out: SharedPointer<f32>,
    accumulate: bool,
}

fn multiply(
    pool: &ThreadPool,
    cols: usize,
    panels: Panels,
    activations: Activations,
    outputs: &mut [LinearOutput<'_>],
) {
    let mut products = [None; OUTPUTS_AT_ONCE];
    let mut tiles = 0;
    for (product, output) in products.iter_mut().zip(outputs) {
        tiles += output.weight.tiles();
        *product = Some(Product {
            weight: output.weight,
            bias: output.bias,
            out: SharedPointer(output.out.as_mut_ptr()),
            accumulate: output.accumulate,
        });
    }
    let work = Work { level: pool.level(), cols, panels, activations };
    // Panels are taken in groups that stay in a core's cache while it goes through its share of the weights.
    let panel_bytes = cols * 2 * panels.rows.div_ceil(panels.count);
    let groups = panels.count.div_ceil((ROWS_IN_CACHE_BYTES / panel_bytes).max(1));
    let grain = (tiles / (pool.threads() * 8)).clamp(1, 16);
    let chunks = ChunkScheduler::new(groups * tiles, grain, pool.threads());
    pool.run(&|worker| {
        while let Some(range) = chunks.next(worker) {
            for group in range.start / tiles..range.end.div_ceil(tiles) {
                let panel_range = split_range(panels.count, groups, group);
                let mut base = group * tiles;
                for product in products.iter().flatten() {
                    let own = product.weight.tiles();
                    let first = range.start.max(base);
                    let last = range.end.min(base + own);
                    if first < last {
                        work.tiles(product, panel_range.clone(), first - base..last - base);
                    }
                    base += own;
                }
            }
        }
    });
}

/// What all tiles of a call have in common.
struct Work {
    level: CpuLevel,
    cols: usize,
    panels: Panels,
    activations: Activations,
}

impl Work {
    /// The given tiles of one product against the given panels.
    fn tiles(&self, product: &Product<'_>, panels: Range<usize>, tiles: Range<usize>) {
        let (again, those) = (panels.clone(), tiles.clone());
        match product.weight.format() {
            WeightFormat::Q4_0 => self.quantized::<KindQ4_0>(product, panels, tiles),
            WeightFormat::Q4_1 => self.quantized::<KindQ4_1>(product, panels, tiles),
            WeightFormat::Q8_0 => self.quantized::<KindQ8_0>(product, panels, tiles),
            WeightFormat::F32 => self.float::<KindF32>(product, panels, tiles),
            WeightFormat::F16 => self.float::<KindF16>(product, panels, tiles),
            WeightFormat::BF16 => self.float::<KindBF16>(product, panels, tiles),
        }
        if let Some(delta) = product.weight.delta() {
            match delta.format() {
                DeltaFormat::Q1 => self.delta::<KindDelta1>(product, delta, again, those),
                DeltaFormat::Q2 => self.delta::<KindDelta2>(product, delta, again, those),
                DeltaFormat::Q3 => self.delta::<KindDelta3>(product, delta, again, those),
            }
        }
    }

    /// Adds the deltas' products to those that are there.
    fn delta<K: DeltaKind>(
        &self,
        product: &Product<'_>,
        delta: &DeltaMatrix,
        panels: Range<usize>,
        tiles: Range<usize>,
    ) {
        let blocks = self.cols / GROUP;
        for number in tiles {
            let tile = delta.tile(number).as_ptr();
            for panel in panels.clone() {
                let (first, rows) = self.panels.panel(panel);
                let to = Destination {
                    bias: std::ptr::null(),
                    accumulate: true,
                    ..self.destination(product, first, number)
                };
                let (tables, step) = (delta.tables(), delta.step());
                // SAFETY: as in `quantized`; the tile has `blocks` blocks of 64 columns, each of two blocks of the panel,
                // and `with_delta` saw that the deltas have the weight's rows and columns.
                unsafe {
                    let panel = self.activations.quantized.get().add(first * (self.cols / BLOCK) * ROW_BLOCK);
                    macro_rules! rows {
                        ($($few:literal)*; $($many:literal)*) => {
                            match rows {
                                $($few => launch(self.level, DeltaTile::<K, $few> {
                                    tile, blocks, tables, step, panel, to, kind: PhantomData,
                                }),)*
                                $($many => launch_widest(self.level, DeltaTile::<K, $many> {
                                    tile, blocks, tables, step, panel, to, kind: PhantomData,
                                }),)*
                                _ => unreachable!("panels have at most 12 rows"),
                            }
                        };
                    }
                    // Only AVX-512 has registers for more than four.
                    rows!(1 2 3 4; 5 6 7 8 9 10 11 12);
                }
            }
        }
    }

    fn destination(&self, product: &Product<'_>, row: usize, tile: usize) -> Destination {
        let rows = product.weight.rows();
        let first = tile * LANES;
        Destination {
            // In bounds: row < m and the tile's first column < rows.
            out: product.out.get().wrapping_add(row * rows + first),
            stride: rows,
            bias: product.bias.map_or(std::ptr::null(), |bias| bias[first..].as_ptr()),
            columns: rows - first,
            accumulate: product.accumulate,
        }
    }

    fn quantized<K: BlockKind>(&self, product: &Product<'_>, panels: Range<usize>, tiles: Range<usize>) {
        let layout = product.weight.layout();
        let blocks = self.cols / BLOCK;
        for tile in tiles {
            let weights = product.weight.data()[tile * layout.tile..][..layout.tile].as_ptr();
            for panel in panels.clone() {
                let (first, rows) = self.panels.panel(panel);
                let to = self.destination(product, first, tile);
                // SAFETY: the panel was written by `prepare` at this place; the tile is whole; no other worker has
                // this tile, so the outputs are written once. The level is one that the processor has.
                unsafe {
                    let panel = self.activations.quantized.get().add(first * blocks * ROW_BLOCK);
                    macro_rules! rows {
                        ($($few:literal)*; $($many:literal)*) => {
                            match rows {
                                $($few => launch(self.level, QuantizedTile::<K, $few> {
                                    tile: weights, layout, blocks, panel, to, kind: PhantomData,
                                }),)*
                                $($many => launch_widest(self.level, QuantizedTile::<K, $many> {
                                    tile: weights, layout, blocks, panel, to, kind: PhantomData,
                                }),)*
                                _ => unreachable!("panels have at most 12 rows"),
                            }
                        };
                    }
                    // Only AVX-512 has registers for more than four.
                    rows!(1 2 3 4; 5 6 7 8 9 10 11 12);
                }
            }
        }
    }

    fn float<K: FloatKind>(&self, product: &Product<'_>, panels: Range<usize>, tiles: Range<usize>) {
        let tile_bytes = product.weight.layout().tile;
        let mut next = tiles.start;
        while next < tiles.end {
            let left = tiles.end - next;
            // A single row has too few sums in flight to hide their latency, unless it takes several tiles at once.
            let wanted = if self.panels.rows == 1 { 4 } else { tiles_in_registers(self.level) };
            let together = if left >= wanted { wanted } else { 1 };
            let weights = product.weight.data()[next * tile_bytes..][..together * tile_bytes].as_ptr();
            for panel in panels.clone() {
                let (first, rows) = self.panels.panel(panel);
                let to = self.destination(product, first, next);
                // SAFETY: as in `quantized`, for `together` tiles.
                unsafe {
                    let panel = self.activations.floats.get().cast_const().add(first * self.cols);
                    macro_rules! float {
                        ($launch:ident, $rows:literal, $tiles:literal) => {
                            $launch(
                                self.level,
                                FloatTiles::<K, $rows, $tiles> {
                                    tiles: weights,
                                    cols: self.cols,
                                    panel,
                                    to,
                                    kind: PhantomData,
                                },
                            )
                        };
                    }
                    macro_rules! rows {
                        ($($few:literal)*; $($many:literal)*) => {
                            match (rows, together) {
                                (1, 4) => float!(launch, 1, 4),
                                $(($few, 1) => float!(launch, $few, 1),)*
                                $(($few, _) => float!(launch_widest, $few, 2),)*
                                $(($many, 1) => float!(launch_widest, $many, 1),)*
                                $(($many, _) => float!(launch_widest, $many, 2),)*
                                _ => unreachable!("panels have at most 12 rows"),
                            }
                        };
                    }
                    // Only AVX-512 has registers for more than four, and for two tiles.
                    rows!(1 2 3 4; 5 6 7 8 9 10 11 12);
                }
            }
            next += together;
        }
    }
}
