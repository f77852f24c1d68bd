//! Deltas packed for the matrix kernels: what is added to a [`crate::Matrix`] while it is multiplied with.
//!
//! A tile is sixteen rows, a block 64 columns of them: sixteen f16 scales, then the codes of the first 32 columns, then
//! those of the others. Codes of 32 columns are eight groups of four columns, and a group is 64 bytes as in the tiles of
//! quantized weights: byte `4 * lane + j` stands for column `j` of the group in row `lane`. Levels are rounded to 8 bits
//! of the largest; a table of sixteen turns half a byte into one, stored with 128 added as the kernels want it.
//!
//! | bits | lines of 64 bytes for 32 columns | group `g` |
//! | --- | --- | --- |
//! | 1 | one | bit `g` of each byte |
//! | 2 | two, groups 0 to 3 and 4 to 7 | bits `2 (g % 4)` and above |
//! | 3 | two as above for the low bits, one for the high bits | high bit at 2, 0, 6, 4, 3, 1, 7, 5 for `g` from 0 |
//!
//! With 3 bits a code's high bit lies where, in the same half of a byte, its low bits are not: so half a byte, put
//! together of two lines by masks alone, is the index of a table.

use std::sync::Arc;

use half::f16;
use modularbase_deltas::{DeltaFormat, GROUP, Levels, unpack_codes};

use crate::aligned::{AlignedBytes, LINE};
use crate::error::{KernelError, checked_mul};
use crate::simd::LANES;

/// Bytes of the sixteen scales of a block.
pub(crate) const SCALES: usize = 2 * LANES;

/// Where a group's high bit lies, with 3 bits.
const HIGH_BITS: [u32; 8] = [2, 0, 6, 4, 3, 1, 7, 5];

/// What half a byte stands for: levels with 128 added, sixteen of them, four times over.
pub(crate) type Table = [u8; LINE];

/// Deltas `[rows, cols]` in 1 to 3 bits a value. Immutable.
pub struct DeltaMatrix {
    format: DeltaFormat,
    rows: usize,
    cols: usize,
    /// Tiles; those of a larger one where this is a part of it.
    data: Arc<AlignedBytes>,
    first_tile: usize,
    /// By the place of a code in its half of a byte; as many as the format needs.
    tables: Arc<[Table; 4]>,
    /// Of one step of the levels.
    step: f32,
}

impl DeltaMatrix {
    /// Packs the blocks of a matrix, row by row as `modularbase_deltas` codes them.
    ///
    /// # Errors
    /// An empty shape, columns that are no whole groups, blocks of another length.
    pub fn pack(rows: usize, cols: usize, blocks: &[u8], levels: &Levels) -> Result<Self, KernelError> {
        let format = levels.format();
        let len = Self::packed_bytes(format, rows, cols)?;
        let row_bytes = cols / GROUP * format.block_bytes();
        let expected = checked_mul(rows, row_bytes)?;
        if blocks.len() != expected {
            return Err(KernelError::Length { what: "bytes of deltas", expected, found: blocks.len() });
        }
        let mut data = AlignedBytes::zeroed(len).ok_or(KernelError::TooLarge { rows, cols })?;
        let block_bytes = block_bytes(format);
        for (row, blocks) in blocks.chunks_exact(row_bytes).enumerate() {
            let tile = &mut data.as_mut_slice()[row / LANES * (cols / GROUP * block_bytes)..];
            for (index, block) in blocks.chunks_exact(format.block_bytes()).enumerate() {
                let (scale, codes) = unpack_codes(block, format).map_err(|_| KernelError::Length {
                    what: "bytes of a block of deltas",
                    expected: format.block_bytes(),
                    found: block.len(),
                })?;
                put_block(
                    &mut tile[index * block_bytes..][..block_bytes],
                    format,
                    row % LANES,
                    scale,
                    &codes,
                );
            }
        }
        let (tables, step) = tables(levels);
        Ok(Self { format, rows, cols, data: Arc::new(data), first_tile: 0, tables: Arc::new(tables), step })
    }

    /// Bytes that deltas of this shape take on the heap: rows are padded to whole tiles of 16.
    ///
    /// # Errors
    /// An empty shape, one that exceeds the address space, columns that are no whole groups.
    pub fn packed_bytes(format: DeltaFormat, rows: usize, cols: usize) -> Result<usize, KernelError> {
        if rows == 0 || cols == 0 {
            return Err(KernelError::Empty { rows, cols });
        }
        if !cols.is_multiple_of(GROUP) {
            return Err(KernelError::DeltaWidth { multiple: GROUP, cols });
        }
        checked_mul(rows.div_ceil(LANES), checked_mul(cols / GROUP, block_bytes(format))?)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How it is coded.
    pub fn format(&self) -> DeltaFormat {
        self.format
    }

    /// Bytes of its tiles: what is allocated on the heap for it.
    pub fn bytes(&self) -> usize {
        self.rows.div_ceil(LANES) * self.tile_bytes()
    }

    /// Rows of whole tiles as deltas of their own, in the same memory. Conditions: `first` is a multiple of 16, and
    /// `count` is one or reaches the end.
    pub(crate) fn whole_tiles(&self, first: usize, count: usize) -> Self {
        Self {
            rows: count,
            data: Arc::clone(&self.data),
            first_tile: self.first_tile + first / LANES,
            tables: Arc::clone(&self.tables),
            ..*self
        }
    }

    /// Any rows as deltas of their own, copied.
    pub(crate) fn copied_rows(&self, first: usize, count: usize) -> Result<Self, KernelError> {
        let len = Self::packed_bytes(self.format, count, self.cols)?;
        let too_large = KernelError::TooLarge { rows: count, cols: self.cols };
        let mut data = AlignedBytes::zeroed(len).ok_or(too_large)?;
        let block_bytes = block_bytes(self.format);
        for row in 0..count {
            let source = self.tile((first + row) / LANES);
            let (from, to) = ((first + row) % LANES, row % LANES);
            let start = row / LANES * self.tile_bytes();
            let target = &mut data.as_mut_slice()[start..start + source.len()];
            for at in (0..source.len()).step_by(block_bytes) {
                target[at + 2 * to..][..2].copy_from_slice(&source[at + 2 * from..][..2]);
                for line in (at + SCALES..at + block_bytes).step_by(LINE) {
                    target[line + 4 * to..][..4].copy_from_slice(&source[line + 4 * from..][..4]);
                }
            }
        }
        Ok(Self {
            rows: count,
            data: Arc::new(data),
            first_tile: 0,
            tables: Arc::clone(&self.tables),
            ..*self
        })
    }

    /// Adds row `row` to `values`. Conditions: there is such a row, and `values` has its columns.
    pub(crate) fn add_row(&self, row: usize, values: &mut [f32]) {
        let lane = row % LANES;
        let blocks = self.tile(row / LANES).chunks_exact(block_bytes(self.format));
        for (block, values) in blocks.zip(values.as_chunks_mut::<GROUP>().0) {
            let scale = f16::from_le_bytes([block[2 * lane], block[2 * lane + 1]]).to_f32() * self.step;
            for (column, value) in values.iter_mut().enumerate() {
                let (half, group) = (column / 32, column % 32 / 4);
                let line = |index: usize| {
                    block[SCALES + (half * lines(self.format) + index) * LINE + 4 * lane + column % 4]
                };
                let level = match self.format {
                    DeltaFormat::Q1 => self.tables[group % 4][usize::from(line(0) >> (group & 4) & 15)],
                    DeltaFormat::Q2 => {
                        self.tables[group % 2][usize::from(line(group / 4) >> (2 * (group & 2)) & 15)]
                    }
                    DeltaFormat::Q3 => {
                        let (low, high) = masks(group);
                        let byte = line(group / 4) >> (2 * (group & 2)) & low;
                        let index = byte | (line(2) >> (2 * (group & 2)) & high);
                        self.tables[group % 2 + 2 * (group / 4)][usize::from(index)]
                    }
                };
                *value += scale * (f32::from(level) - 128.0);
            }
        }
    }

    pub(crate) fn tile_bytes(&self) -> usize {
        self.cols / GROUP * block_bytes(self.format)
    }

    /// One tile. Conditions: there is one of that number.
    pub(crate) fn tile(&self, tile: usize) -> &[u8] {
        &self.data.as_slice()[(self.first_tile + tile) * self.tile_bytes()..][..self.tile_bytes()]
    }

    pub(crate) fn tables(&self) -> &[Table; 4] {
        &self.tables
    }

    pub(crate) fn step(&self) -> f32 {
        self.step
    }
}

impl std::fmt::Debug for DeltaMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { format, rows, cols, .. } = self;
        write!(f, "DeltaMatrix {{ {format} [{rows}, {cols}], {} bytes }}", self.bytes())
    }
}

/// Lines of 64 bytes for 32 columns of a tile.
pub(crate) const fn lines(format: DeltaFormat) -> usize {
    format.bits()
}

/// Bytes of a block of 64 columns of a tile.
pub(crate) const fn block_bytes(format: DeltaFormat) -> usize {
    SCALES + 2 * lines(format) * LINE
}

/// With 3 bits: the masks of half a byte's low bits and high bit for a group.
pub(crate) const fn masks(group: usize) -> (u8, u8) {
    let low = if group.is_multiple_of(2) { 0b0011 } else { 0b1100 };
    (low, 1 << (HIGH_BITS[group] % 4))
}

/// Puts one row's block into lane `lane`.
fn put_block(block: &mut [u8], format: DeltaFormat, lane: usize, scale: u16, codes: &[u8; GROUP]) {
    block[2 * lane..2 * lane + 2].copy_from_slice(&scale.to_le_bytes());
    for (column, code) in codes.iter().enumerate() {
        let (half, group) = (column / 32, column % 32 / 4);
        let first = SCALES + half * lines(format) * LINE + 4 * lane + column % 4;
        match format {
            DeltaFormat::Q1 => block[first] |= code << group,
            DeltaFormat::Q2 => block[first + group / 4 * LINE] |= code << (2 * (group % 4)),
            DeltaFormat::Q3 => {
                block[first + group / 4 * LINE] |= (code & 3) << (2 * (group % 4));
                block[first + 2 * LINE] |= (code >> 2) << HIGH_BITS[group];
            }
        }
    }
}

/// Tables that give a code's level for half a byte with the code in it, and what one step of them is worth.
fn tables(levels: &Levels) -> ([Table; 4], f32) {
    let levels_f32 = levels.as_slice();
    let largest = levels_f32.iter().fold(0.0f32, |largest, level| largest.max(level.abs()));
    let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let byte = |code: usize| ((levels_f32[code] / step).round() as i32 + 128) as u8;
    let mut tables = [[0; LINE]; 4];
    for (place, table) in tables.iter_mut().enumerate() {
        for (index, level) in table.iter_mut().enumerate() {
            let index = index % 16;
            *level = match levels.format() {
                DeltaFormat::Q1 => byte(index >> place & 1),
                DeltaFormat::Q2 => byte(index >> (2 * (place % 2)) & 3),
                DeltaFormat::Q3 => {
                    // Places 0 and 1 are those of groups 0 to 3, the others of groups 4 to 7.
                    let group = place % 2 + 4 * (place / 2);
                    let (_, high) = masks(group);
                    let low = index >> (2 * (place % 2)) & 3;
                    byte(low | if index & usize::from(high) != 0 { 4 } else { 0 })
                }
            };
        }
    }
    (tables, step)
}
