//! What the codec refuses, with what it expected and what it found.

use crate::{DeltaFormat, GROUP, levels::LARGEST};

/// Values, levels or blocks that the codec can't work with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeltaError {
    /// A tensor whose rows are no whole groups.
    #[error("expected a multiple of {GROUP} values, found {values}: store this tensor in another format")]
    PartialGroup {
        /// Number of values.
        values: usize,
    },
    /// A value that no code stands for.
    #[error(
        "value {index} is {value}: expected finite deltas of at most {LARGEST:e}; did the training diverge?"
    )]
    Value {
        /// Where.
        index: usize,
        /// What.
        value: f32,
    },
    /// Another number of levels than the format has.
    #[error("{format} has {} levels, found {found}", format.level_count())]
    LevelCount {
        /// The format.
        format: DeltaFormat,
        /// How many there are.
        found: usize,
    },
    /// A level that is no number, is too large, or is not above the one before it.
    #[error(
        "level {index} is {value}: expected finite levels in ascending order, of at most {LARGEST:e} in size"
    )]
    Level {
        /// Which one.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Blocks of another length than the values ask for.
    #[error(
        "{values} values of {format} are {expected} bytes, found {found}: the blocks are damaged or of another tensor"
    )]
    BlockBytes {
        /// The format.
        format: DeltaFormat,
        /// Number of values.
        values: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// A block whose scale is no number.
    #[error("block {index} has scale {value}: expected a finite one; the blocks are damaged")]
    Scale {
        /// Which block.
        index: usize,
        /// Its scale.
        value: f32,
    },
}
