//! The codec of delta weights: what a trained pack adds to the base's own layers, in 1 to 3 bits a value.
//!
//! # Blocks
//! Values are coded in groups of [`GROUP`] = 64 neighbours of one row, so that rows are whole groups and a tensor may be
//! cut between any two of them. A block is a little-endian f16 scale and 64 codes of `b` bits, `2 + 8 b` bytes:
//!
//! ```text
//! value[i] = base[i] + scale * levels[code[i]]
//! ```
//!
//! A tensor has `2^b` levels in f32, ascending, which carry its size; a scale is relative to them. Codes are stored in
//! planes, so that one shift and one mask give neighbours:
//!
//! | format | bytes | codes |
//! | --- | --- | --- |
//! | `delta-q1` | 10 | 8 bytes: code `i` is bit `i % 8` of byte `i / 8` |
//! | `delta-q2` | 18 | 16 bytes: byte `j` holds codes `j`, `j + 16`, `j + 32`, `j + 48`, the first in its lowest bits |
//! | `delta-q3` | 26 | the codes' low two bits as in `delta-q2`, then their high bits as in `delta-q1` |
//!
//! # Fitting
//! [`fit_levels`] alternates codes, scales and levels (Lloyd 1982, "Least squares quantization in PCM") from the levels
//! that are best for a normal distribution (Max 1960, "Quantizing for minimum distortion"). [`encode`] looks for each
//! group's best scale from several starts. A group of zeros has scale zero and leaves the base as it is, to the bit.
//!
//! This crate knows no files and no threads: blocks of neighbouring pieces, joined, are the blocks of the whole, so
//! callers share the work as they like.

#![forbid(unsafe_code)]

mod decoding;
mod encoding;
mod error;
mod format;
mod group_scale;
mod levels;

pub use decoding::{add_to, check_blocks, decode_into, relative_squared_error, unpack_codes};
pub use encoding::{encode, fit_levels};
pub use error::DeltaError;
pub use format::{DeltaFormat, GROUP, UnknownFormat};
pub use levels::Levels;
