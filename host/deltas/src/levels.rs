//! The values that codes stand for.

use crate::{DeltaError, DeltaFormat};

/// The largest size of a level or a coded value: times the largest f16 scale it is still a finite f32.
pub(crate) const LARGEST: f32 = 1e30;

/// The levels of one tensor: finite, ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    format: DeltaFormat,
    /// The first `format.level_count()` count; the rest is zero.
    values: [f32; 8],
}

impl Levels {
    /// Levels from a file or a trainer.
    ///
    /// # Errors
    /// Another number of levels than the format has, or levels that are not finite and ascending.
    pub fn new(format: DeltaFormat, values: &[f32]) -> Result<Self, DeltaError> {
        if values.len() != format.level_count() {
            return Err(DeltaError::LevelCount { format, found: values.len() });
        }
        for (index, &value) in values.iter().enumerate() {
            let ascends = index == 0 || values[index - 1] < value;
            if value.is_nan() || value.abs() > LARGEST || !ascends {
                return Err(DeltaError::Level { index, value });
            }
        }
        let mut kept = [0.0; 8];
        kept[..values.len()].copy_from_slice(values);
        Ok(Self { format, values: kept })
    }

    /// The levels with the least squared error for normally distributed values of that root mean square, when scales
    /// are 1 (Max 1960, table I). Sizes that f32 can't hold well are brought into its range.
    pub fn gaussian(format: DeltaFormat, rms: f64) -> Self {
        let upper: &[f64] = match format {
            DeltaFormat::Q1 => &[0.797_884_56],
            DeltaFormat::Q2 => &[0.452_780_03, 1.510_417_61],
            DeltaFormat::Q3 => &[0.245_094_18, 0.756_005_28, 1.343_909_28, 2.151_945_70],
        };
        let rms = rms.clamp(1e-30, 1e29);
        Self::symmetric(format, &upper.iter().map(|level| (level * rms) as f32).collect::<Vec<_>>())
    }

    /// Levels that are mirrored at zero, from those above it.
    pub(crate) fn symmetric(format: DeltaFormat, upper: &[f32]) -> Self {
        let mut values = [0.0; 8];
        for (place, &level) in upper.iter().enumerate() {
            values[upper.len() + place] = level;
            values[upper.len() - 1 - place] = -level;
        }
        Self { format, values }
    }

    /// Their format.
    pub fn format(&self) -> DeltaFormat {
        self.format
    }

    /// The levels by code.
    pub fn as_slice(&self) -> &[f32] {
        &self.values[..self.format.level_count()]
    }

    /// All eight places: a code of the format is always below the number of levels.
    pub(crate) fn table(&self) -> &[f32; 8] {
        &self.values
    }

    /// The size of the largest.
    pub(crate) fn largest(&self) -> f32 {
        self.as_slice().iter().fold(0.0f32, |largest, level| largest.max(level.abs()))
    }
}
