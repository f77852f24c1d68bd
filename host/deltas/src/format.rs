//! The three formats and their sizes.

use std::{fmt, str::FromStr};

use crate::DeltaError;

/// Values that share a scale: neighbours of one row.
pub const GROUP: usize = 64;

/// Bytes of a scale in front of a block's codes.
pub(crate) const SCALE_BYTES: usize = 2;

/// How deltas are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeltaFormat {
    /// 1 bit a value, 1.25 with scales.
    Q1,
    /// 2 bits a value, 2.25 with scales.
    Q2,
    /// 3 bits a value, 3.25 with scales.
    Q3,
}

impl DeltaFormat {
    /// Every format, from the smallest.
    pub const ALL: [Self; 3] = [Self::Q1, Self::Q2, Self::Q3];

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            Self::Q1 => 1,
            Self::Q2 => 2,
            Self::Q3 => 3,
        }
    }

    /// Number of levels.
    pub const fn level_count(self) -> usize {
        1 << self.bits()
    }

    /// Bytes of a block of [`GROUP`] values.
    pub const fn block_bytes(self) -> usize {
        SCALE_BYTES + GROUP / 8 * self.bits()
    }

    /// Bytes of that many values.
    ///
    /// # Errors
    /// No whole number of groups, or more bytes than can be addressed.
    pub fn encoded_bytes(self, values: usize) -> Result<usize, DeltaError> {
        if !values.is_multiple_of(GROUP) {
            return Err(DeltaError::PartialGroup { values });
        }
        (values / GROUP).checked_mul(self.block_bytes()).ok_or(DeltaError::PartialGroup { values })
    }

    /// The name in manifests, files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q1 => "delta-q1",
            Self::Q2 => "delta-q2",
            Self::Q3 => "delta-q3",
        }
    }
}

impl fmt::Display for DeltaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `delta-q1`, `delta-q2` or `delta-q3`, found `{0}`")]
pub struct UnknownFormat(pub String);

impl FromStr for DeltaFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}
