//! What a kernel refuses, with what it expected and what it found.

use crate::weight_format::{GgmlBlock, WeightFormat};

/// A kernel was called with sizes that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice has another length than the shape asks for. Lengths are in elements.
    #[error("{what}: expected {expected} elements, found {found}")]
    Length { what: &'static str, expected: usize, found: usize },

    /// Weight bytes are truncated or have trailing bytes.
    #[error(
        "{block:?} matrix [{rows}, {cols}]: expected {expected} bytes, found {found}; the file is damaged"
    )]
    Bytes { block: GgmlBlock, rows: usize, cols: usize, expected: usize, found: usize },

    /// A block format cannot hold rows of this width.
    #[error(
        "{format:?} needs columns that are a multiple of {multiple}, found {cols}; use F16 or F32 for it"
    )]
    BlockWidth { format: WeightFormat, multiple: usize, cols: usize },

    /// Deltas cannot have rows of this width.
    #[error("deltas need columns that are a multiple of {multiple}, found {cols}")]
    DeltaWidth { multiple: usize, cols: usize },

    /// A matrix that has deltas already.
    #[error("the matrix has deltas already; add them up where they are made")]
    SecondDelta,

    /// A ggml block type cannot hold rows of this width.
    #[error("ggml {block:?} needs columns that are a multiple of {multiple}, found {cols}")]
    GgmlWidth { block: GgmlBlock, multiple: usize, cols: usize },

    /// A format that values are not rounded to.
    #[error("values are rounded to Q8_0, Q4_0 or Q4_1, not to {block:?}")]
    NotRounded { block: GgmlBlock },

    /// A size does not fit in the address space.
    #[error("matrix [{rows}, {cols}] is too large for this machine's address space")]
    TooLarge { rows: usize, cols: usize },

    /// A matrix with no rows or no columns.
    #[error("matrix [{rows}, {cols}]: both dimensions must be at least 1")]
    Empty { rows: usize, cols: usize },

    /// A row map names a source row that is not there.
    #[error("row map entry {index} names source row {row}, but there are {source_rows} rows")]
    RowMap { index: usize, row: u32, source_rows: usize },

    /// A row range lies outside of the matrix.
    #[error("rows {first}..{first}+{count} lie outside of a matrix of {rows} rows")]
    RowRange { first: usize, count: usize, rows: usize },

    /// A matrix has another number of columns than its input.
    #[error("input has {input} columns, but the weight is [{rows}, {cols}]")]
    Columns { input: usize, rows: usize, cols: usize },

    /// Attention heads that cannot be grouped, or a cache that is too short.
    #[error("attention: {what}: expected {expected}, found {found}")]
    Attention { what: &'static str, expected: usize, found: usize },
}

/// Checks a slice's length.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}

/// `a * b`, or the error that the shape is too large.
pub(crate) fn checked_mul(a: usize, b: usize) -> Result<usize, KernelError> {
    a.checked_mul(b).ok_or(KernelError::TooLarge { rows: a, cols: b })
}
