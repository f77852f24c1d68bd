//! Weights packed for the matrix kernels: tiles of sixteen rows, in the order in which a kernel reads them.
//!
//! A tile of a quantized format is a row of blocks of 32 columns. A block holds sixteen f16 scales (and, for Q4_1,
//! sixteen f16 minima) and then groups of 64 bytes: four consecutive columns of each of the sixteen rows, which is
//! what one `vpdpbusd` takes. Four-bit numbers lie two to a byte: group `g` low, group `g + 4` high, for which
//! ggml's own four-byte words only have to be moved. Q8_0 is stored with 128 added. Float formats are column after
//! column of sixteen rows. The last tile is filled up with zero rows.

use std::sync::Arc;

use half::{bf16, f16};

use crate::aligned::{AlignedBytes, LINE};
use crate::delta_matrix::DeltaMatrix;
use crate::error::{KernelError, check_length, checked_mul};
use crate::quantize::{self, BLOCK, Block};
use crate::simd::LANES;
use crate::weight_format::{GgmlBlock, WeightFormat};

/// Bytes of sixteen f16.
const HALVES: usize = 2 * LANES;

/// Where things lie inside of a tile, in bytes. Blocks follow each other without a gap, so that a kernel reads one
/// forward stream; two streams measured half as fast from memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileLayout {
    pub tile: usize,
    /// From one block to the next; 0 for float formats. Scales come first, then the minima, if any.
    pub block: usize,
    /// From a block's start to its numbers.
    pub quants: usize,
}

impl TileLayout {
    fn new(format: WeightFormat, cols: usize) -> Option<Self> {
        let (block, quants) = match format {
            WeightFormat::F32 => {
                return Some(Self { tile: cols.checked_mul(4 * LANES)?, block: 0, quants: 0 });
            }
            WeightFormat::F16 | WeightFormat::BF16 => {
                return Some(Self { tile: cols.checked_mul(2 * LANES)?, block: 0, quants: 0 });
            }
            WeightFormat::Q4_0 => (HALVES + 16 * LANES, HALVES),
            WeightFormat::Q4_1 => (2 * HALVES + 16 * LANES, 2 * HALVES),
            WeightFormat::Q8_0 => (HALVES + 32 * LANES, HALVES),
        };
        Some(Self { tile: (cols / BLOCK).checked_mul(block)?, block, quants })
    }
}

/// Layout of a tile and bytes of all tiles.
fn packed_size(format: WeightFormat, rows: usize, cols: usize) -> Result<(TileLayout, usize), KernelError> {
    if rows == 0 || cols == 0 {
        return Err(KernelError::Empty { rows, cols });
    }
    if !cols.is_multiple_of(format.block_width()) {
        return Err(KernelError::BlockWidth { format, multiple: format.block_width(), cols });
    }
    let too_large = KernelError::TooLarge { rows, cols };
    let layout = TileLayout::new(format, cols).ok_or(too_large.clone())?;
    let len = layout.tile.checked_mul(rows.div_ceil(LANES)).ok_or(too_large)?;
    Ok((layout, len))
}

/// An immutable weight `[rows, cols]` = `[outputs, inputs]` in a format of its own.
pub struct Matrix {
    format: WeightFormat,
    rows: usize,
    cols: usize,
    layout: TileLayout,
    /// The tiles; those of a larger matrix where this is a part of one.
    data: Arc<AlignedBytes>,
    first_tile: usize,
    /// What is added to the values.
    delta: Option<Arc<DeltaMatrix>>,
    /// The tiles are another's.
    borrows: bool,
}

impl Matrix {
    /// Packs `values` (`[rows, cols]`, row after row), rounding to `format` as ggml does.
    ///
    /// # Errors
    /// For an empty shape, a wrong length, and columns that `format` cannot hold.
    pub fn from_f32(
        format: WeightFormat,
        rows: usize,
        cols: usize,
        values: &[f32],
    ) -> Result<Self, KernelError> {
        let mut matrix = Packing::new(format, rows, cols)?;
        check_length("matrix values", checked_mul(rows, cols)?, values.len())?;
        for (row, values) in values.chunks_exact(cols).enumerate() {
            matrix.pack_row(row, values);
        }
        Ok(matrix.finish())
    }

    /// Packs rows of a GGUF tensor without loss (but see below for Q4_K). With `row_map`, packed row `i` is source
    /// row `row_map[i]`, and `bytes` may hold any number of whole rows; without it exactly `rows`.
    ///
    /// Q4_K becomes Q4_1 blocks whose f16 scale and minimum are the rounded products of Q4_K's two-level scales: a
    /// relative error of at most 2^-11 in each.
    ///
    /// # Errors
    /// For an empty shape, truncated or excess bytes, a width that is no multiple of the block's, and a row map that
    /// does not fit.
    pub fn from_ggml(
        block: GgmlBlock,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        row_map: Option<&[u32]>,
    ) -> Result<Self, KernelError> {
        if !cols.is_multiple_of(block.width()) {
            return Err(KernelError::GgmlWidth { block, multiple: block.width(), cols });
        }
        let mut matrix = Packing::new(block.packed_format(), rows, cols)?;
        let row_bytes = checked_mul(cols / block.width(), block.bytes())?;
        let expected = checked_mul(rows, row_bytes)?;
        let fits =
            if row_map.is_some() { bytes.len().is_multiple_of(row_bytes) } else { bytes.len() == expected };
        if !fits {
            return Err(KernelError::Bytes { block, rows, cols, expected, found: bytes.len() });
        }
        if let Some(map) = row_map {
            check_length("row map", rows, map.len())?;
            let source_rows = bytes.len() / row_bytes;
            if let Some((index, &row)) = map.iter().enumerate().find(|(_, row)| **row as usize >= source_rows)
            {
                return Err(KernelError::RowMap { index, row, source_rows });
            }
        }
        for row in 0..rows {
            let source = row_map.map_or(row, |map| map[row] as usize);
            matrix.pack_ggml_row(row, block, &bytes[source * row_bytes..][..row_bytes]);
        }
        Ok(matrix.finish())
    }

    /// Rows `first..first + count` as a matrix of their own, to the bit. It shares this one's memory where the rows are
    /// whole tiles of 16 (or reach the end), and is a copy otherwise: see [`Matrix::shares_memory_with`].
    ///
    /// # Errors
    /// No rows, or rows outside.
    pub fn row_block(&self, first: usize, count: usize) -> Result<Self, KernelError> {
        let end = first.checked_add(count).filter(|end| *end <= self.rows);
        let Some(end) = end else {
            return Err(KernelError::RowRange { first, count, rows: self.rows });
        };
        if count > 0 && first.is_multiple_of(LANES) && (count.is_multiple_of(LANES) || end == self.rows) {
            let first_tile = self.first_tile + first / LANES;
            let delta = self.delta.as_ref().map(|delta| Arc::new(delta.whole_tiles(first, count)));
            return Ok(Self { rows: count, data: Arc::clone(&self.data), first_tile, delta, ..*self });
        }
        let mut part = Packing::new(self.format, count, self.cols)?;
        for row in 0..count {
            part.copy_row(row, self, first + row);
        }
        let delta = self.delta.as_ref().map(|delta| delta.copied_rows(first, count)).transpose()?;
        Ok(Self { delta: delta.map(Arc::new), ..part.finish() })
    }

    /// The same values in the same memory with deltas added: products are those with both, added up in f32 after the
    /// bias. [`Matrix::bytes`] of the result are those of the deltas.
    ///
    /// # Errors
    /// Deltas of another shape.
    pub fn with_delta(&self, delta: Arc<DeltaMatrix>) -> Result<Self, KernelError> {
        check_length("rows of deltas", self.rows, delta.rows())?;
        check_length("columns of deltas", self.cols, delta.cols())?;
        if self.delta.is_some() {
            return Err(KernelError::SecondDelta);
        }
        Ok(Self { data: Arc::clone(&self.data), delta: Some(delta), borrows: true, ..*self })
    }

    /// Whether products with it read activations as int8.
    pub fn reads_int8(&self) -> bool {
        self.format.is_quantized() || self.delta.is_some()
    }

    /// What is added to its values.
    pub(crate) fn delta(&self) -> Option<&DeltaMatrix> {
        self.delta.as_deref()
    }

    /// Whether both lie in the same allocation.
    pub fn shares_memory_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The packed format.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Bytes of its tiles: what is allocated on the heap for it, exactly. Of one made by [`Matrix::with_delta`], those of
    /// the deltas.
    pub fn bytes(&self) -> usize {
        let own = if self.borrows { 0 } else { self.tiles() * self.layout.tile };
        own + self.delta.as_ref().map_or(0, |delta| delta.bytes())
    }

    /// Writes rows `first..first + count` as f32 `[count, cols]` into `out`.
    ///
    /// # Errors
    /// When the rows are not all there, or `out` has another length.
    pub fn dequantize_rows(&self, first: usize, count: usize, out: &mut [f32]) -> Result<(), KernelError> {
        let end = first.checked_add(count).filter(|end| *end <= self.rows);
        if end.is_none() {
            return Err(KernelError::RowRange { first, count, rows: self.rows });
        }
        check_length("dequantized rows", checked_mul(count, self.cols)?, out.len())?;
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.cols)) {
            self.dequantize_row(row, out);
            if let Some(delta) = &self.delta {
                delta.add_row(row, out);
            }
        }
        Ok(())
    }

    /// The number of sixteen-row tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    pub(crate) fn layout(&self) -> TileLayout {
        self.layout
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data.as_slice()[self.first_tile * self.layout.tile..][..self.tiles() * self.layout.tile]
    }

    /// Bytes that a matrix of this shape takes on the heap once packed: rows are padded to whole tiles of 16.
    ///
    /// # Errors
    /// For an empty shape, one that exceeds the address space, and columns that `format` cannot hold.
    pub fn packed_bytes(format: WeightFormat, rows: usize, cols: usize) -> Result<usize, KernelError> {
        Ok(packed_size(format, rows, cols)?.1)
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let layout = self.layout;
        let tile = &self.data()[row / LANES * layout.tile..][..layout.tile];
        let lane = row % LANES;
        let half_bits = |at: usize| u16::from_le_bytes([tile[at], tile[at + 1]]);
        let half = |at: usize| f16::from_bits(half_bits(at)).to_f32();
        match self.format {
            WeightFormat::F32 => {
                for (k, out) in out.iter_mut().enumerate() {
                    let at = 4 * (k * LANES + lane);
                    *out = f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]);
                }
            }
            WeightFormat::F16 => {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = half(2 * (k * LANES + lane));
                }
            }
            WeightFormat::BF16 => {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = bf16::from_bits(half_bits(2 * (k * LANES + lane))).to_f32();
                }
            }
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
                for (index, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    let at = index * layout.block + 2 * lane;
                    let scale = half(at);
                    let words = &tile[layout.quants + index * layout.block..];
                    for (k, out) in out.iter_mut().enumerate() {
                        let byte = |k: usize| words[k / 4 * LINE + 4 * lane + k % 4];
                        let low = |k: usize| if k < 16 { byte(k) & 15 } else { byte(k - 16) >> 4 };
                        *out = match self.format {
                            WeightFormat::Q8_0 => scale * (f32::from(byte(k)) - 128.0),
                            WeightFormat::Q4_0 => scale * (f32::from(low(k)) - 8.0),
                            _ => scale * f32::from(low(k)) + half(at + HALVES),
                        };
                    }
                }
            }
        }
    }
}

/// A matrix that is being written.
struct Packing {
    format: WeightFormat,
    rows: usize,
    cols: usize,
    layout: TileLayout,
    data: AlignedBytes,
}

impl Packing {
    fn new(format: WeightFormat, rows: usize, cols: usize) -> Result<Self, KernelError> {
        let (layout, len) = packed_size(format, rows, cols)?;
        let data = AlignedBytes::zeroed(len).ok_or(KernelError::TooLarge { rows, cols })?;
        Ok(Self { format, rows, cols, layout, data })
    }

    fn finish(self) -> Matrix {
        let Self { format, rows, cols, layout, data } = self;
        let data = Arc::new(data);
        Matrix { format, rows, cols, layout, data, first_tile: 0, delta: None, borrows: false }
    }

    /// Copies a row of a matrix of the same format and width.
    fn copy_row(&mut self, row: usize, source: &Matrix, source_row: usize) {
        let layout = self.layout;
        let from = &source.data()[source_row / LANES * layout.tile..][..layout.tile];
        let from_lane = source_row % LANES;
        let format = self.format;
        let (to, lane) = self.tile_of(row);
        let mut copy = |start: usize, end: usize, width: usize| {
            for at in (start..end).step_by(width * LANES) {
                let value = &from[at + width * from_lane..][..width];
                to[at + width * lane..][..width].copy_from_slice(value);
            }
        };
        match format {
            WeightFormat::F32 => copy(0, layout.tile, 4),
            WeightFormat::F16 | WeightFormat::BF16 => copy(0, layout.tile, 2),
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
                for block in (0..layout.tile).step_by(layout.block) {
                    copy(block, block + layout.quants, 2);
                    copy(block + layout.quants, block + layout.block, 4);
                }
            }
        }
    }

    fn tile_of(&mut self, row: usize) -> (&mut [u8], usize) {
        let start = row / LANES * self.layout.tile;
        (&mut self.data.as_mut_slice()[start..start + self.layout.tile], row % LANES)
    }

    fn pack_row(&mut self, row: usize, values: &[f32]) {
        let format = self.format;
        let layout = self.layout;
        let (tile, lane) = self.tile_of(row);
        match format {
            WeightFormat::F32 => pack_floats(tile, lane, values.iter().map(|v| v.to_le_bytes())),
            WeightFormat::F16 => {
                pack_floats(tile, lane, values.iter().map(|v| f16::from_f32(*v).to_le_bytes()))
            }
            WeightFormat::BF16 => {
                pack_floats(tile, lane, values.iter().map(|v| bf16::from_f32(*v).to_le_bytes()))
            }
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
                for (index, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
                    match format {
                        WeightFormat::Q8_0 => put_block(tile, layout, lane, index, &quantize::q8_0(values)),
                        WeightFormat::Q4_0 => put_block(tile, layout, lane, index, &quantize::q4_0(values)),
                        _ => put_affine(tile, layout, lane, index, &quantize::q4_1(values)),
                    }
                }
            }
        }
    }

    fn pack_ggml_row(&mut self, row: usize, block: GgmlBlock, bytes: &[u8]) {
        let layout = self.layout;
        let (tile, lane) = self.tile_of(row);
        let half = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        match block {
            GgmlBlock::F32 => pack_floats(tile, lane, bytes.as_chunks::<4>().0.iter().copied()),
            GgmlBlock::F16 | GgmlBlock::BF16 => {
                pack_floats(tile, lane, bytes.as_chunks::<2>().0.iter().copied())
            }
            GgmlBlock::Q4_0 => {
                for (index, source) in bytes.as_chunks::<18>().0.iter().enumerate() {
                    let q: [u8; 16] = std::array::from_fn(|j| source[2 + j]);
                    put_block(tile, layout, lane, index, &Block { scale: half(source, 0), min: 0, q });
                }
            }
            GgmlBlock::Q8_0 => {
                for (index, source) in bytes.as_chunks::<34>().0.iter().enumerate() {
                    let q: [u8; 32] = std::array::from_fn(|j| source[2 + j]);
                    put_block(tile, layout, lane, index, &Block { scale: half(source, 0), min: 0, q });
                }
            }
            GgmlBlock::Q4_1 => {
                for (index, source) in bytes.as_chunks::<20>().0.iter().enumerate() {
                    let q: [u8; 16] = std::array::from_fn(|j| source[4 + j]);
                    let block = Block { scale: half(source, 0), min: half(source, 2), q };
                    put_affine(tile, layout, lane, index, &block);
                }
            }
            GgmlBlock::Q4_K => {
                for (index, source) in bytes.as_chunks::<144>().0.iter().enumerate() {
                    for part in 0..8 {
                        put_affine(tile, layout, lane, 8 * index + part, &quantize::q4_k_part(source, part));
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, rows, cols, .. } = self;
        write!(f, "Matrix {{ {format:?} [{rows}, {cols}], {} bytes }}", self.bytes())
    }
}

/// Puts a row's values into lane `lane` of each column.
fn pack_floats<const N: usize>(tile: &mut [u8], lane: usize, values: impl Iterator<Item = [u8; N]>) {
    for (column, value) in tile.as_chunks_mut::<N>().0.chunks_exact_mut(LANES).zip(values) {
        column[lane] = value;
    }
}

/// Puts a block's scale and numbers into lane `lane`. Bytes (32 of them) are stored with 128 added.
fn put_block<const N: usize>(
    tile: &mut [u8],
    layout: TileLayout,
    lane: usize,
    index: usize,
    block: &Block<N>,
) {
    let at = index * layout.block + 2 * lane;
    tile[at..at + 2].copy_from_slice(&block.scale.to_le_bytes());
    let words = &mut tile[layout.quants + index * layout.block..][..N * LANES];
    let flip = if N == BLOCK { [0x80; 4] } else { [0; 4] };
    for (line, word) in words.as_chunks_mut::<LINE>().0.iter_mut().zip(block.q.as_chunks::<4>().0) {
        for j in 0..4 {
            line[4 * lane + j] = word[j] ^ flip[j];
        }
    }
}

/// As [`put_block`], with the minimum.
fn put_affine(tile: &mut [u8], layout: TileLayout, lane: usize, index: usize, block: &Block<16>) {
    put_block(tile, layout, lane, index, block);
    let at = index * layout.block + HALVES + 2 * lane;
    tile[at..at + 2].copy_from_slice(&block.min.to_le_bytes());
}
