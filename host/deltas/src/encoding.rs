//! From deltas to levels and blocks.

use crate::{
    DeltaError, DeltaFormat, GROUP, Levels,
    format::SCALE_BYTES,
    group_scale::{Coded, Grid},
    levels::LARGEST,
};

/// Groups that levels are fitted to, at most, taken evenly from the whole tensor: a million values leave the levels
/// uncertain by a thousandth.
const FITTED_GROUPS: usize = 16_384;

/// Rounds of codes, scales and levels, at most.
const ROUNDS: usize = 12;

/// The share of the error by which a round must better the one before, or the fit ends.
const ENOUGH: f64 = 1e-4;

/// The levels with which [`encode`] loses least of these deltas: symmetric, and of the deltas' own size, so that scales
/// are near 1. Zeros alone, or no values, give those for normally distributed values of size 1.
///
/// # Errors
/// No whole number of groups, or values that are not finite.
pub fn fit_levels(delta: &[f32], format: DeltaFormat) -> Result<Levels, DeltaError> {
    format.encoded_bytes(delta.len())?;
    check_values(delta)?;
    let (groups, _) = delta.as_chunks::<GROUP>();
    let squares: f64 = groups.iter().map(square_sum).sum();
    if squares == 0.0 {
        return Ok(Levels::gaussian(format, 1.0));
    }
    let groups: Vec<&[f32; GROUP]> =
        groups.iter().filter(|group| group.iter().any(|&value| value != 0.0)).collect();
    let rms = (squares / (groups.len() * GROUP) as f64).sqrt();
    let step = groups.len().div_ceil(FITTED_GROUPS);
    let sample: Vec<&[f32; GROUP]> = groups.into_iter().step_by(step).collect();
    let start = Levels::gaussian(format, rms);
    Ok(match format {
        DeltaFormat::Q1 => fit::<2>(&sample, start),
        DeltaFormat::Q2 => fit::<4>(&sample, start),
        DeltaFormat::Q3 => fit::<8>(&sample, start),
    })
}

/// Codes deltas with these levels: each group with the scale that loses least, to nearest f16.
///
/// # Errors
/// No whole number of groups, or values that are not finite.
pub fn encode(delta: &[f32], levels: &Levels) -> Result<Vec<u8>, DeltaError> {
    let format = levels.format();
    let mut blocks = Vec::with_capacity(format.encoded_bytes(delta.len())?);
    check_values(delta)?;
    match format {
        DeltaFormat::Q1 => append_blocks::<2>(delta, levels, &mut blocks),
        DeltaFormat::Q2 => append_blocks::<4>(delta, levels, &mut blocks),
        DeltaFormat::Q3 => append_blocks::<8>(delta, levels, &mut blocks),
    }
    Ok(blocks)
}

fn check_values(delta: &[f32]) -> Result<(), DeltaError> {
    let bad = delta.iter().position(|value| value.is_nan() || value.abs() > LARGEST);
    bad.map_or(Ok(()), |index| Err(DeltaError::Value { index, value: delta[index] }))
}

fn square_sum(group: &[f32; GROUP]) -> f64 {
    group.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

/// Lloyd's rounds: codes and scales for the levels, then for these the levels with the least squared error.
fn fit<const N: usize>(sample: &[&[f32; GROUP]], start: Levels) -> Levels {
    let mut best = (start, f64::INFINITY);
    let mut levels = start;
    for _ in 0..ROUNDS {
        let grid = Grid::<N>::new(&levels);
        let (mut products, mut weights, mut error) = ([0.0f64; N], [0.0f64; N], 0.0);
        for group in sample {
            let Coded { scale, codes } = grid.code(group);
            let scale = scale.to_f64();
            for (&value, code) in group.iter().zip(codes) {
                let (value, code) = (f64::from(value), usize::from(code));
                let loss = value - scale * f64::from(levels.table()[code]);
                error += loss * loss;
                products[code] += scale * value;
                weights[code] += scale * scale;
            }
        }
        let enough = error > best.1 * (1.0 - ENOUGH);
        if error < best.1 {
            best = (levels, error);
        }
        let upper: Vec<f32> = (N / 2..N)
            .map(|code| {
                let mirrored = N - 1 - code;
                let level = (products[code] - products[mirrored]) / (weights[code] + weights[mirrored]);
                level as f32
            })
            .collect();
        // A level that no value took has no mean, and levels that met are one too few.
        let apart = upper.iter().is_sorted_by(|a, b| a < b) && upper.iter().all(|&level| level > 0.0);
        if enough || !apart {
            break;
        }
        levels = Levels::symmetric(levels.format(), &upper);
    }
    best.0
}

fn append_blocks<const N: usize>(delta: &[f32], levels: &Levels, blocks: &mut Vec<u8>) {
    let grid = Grid::<N>::new(levels);
    let (groups, _) = delta.as_chunks::<GROUP>();
    let mut block = [0u8; 26];
    for group in groups {
        let Coded { scale, codes } = grid.code(group);
        let block = &mut block[..levels.format().block_bytes()];
        let (head, planes) = block.split_at_mut(SCALE_BYTES);
        head.copy_from_slice(&scale.to_le_bytes());
        pack_codes(levels.format(), &codes, planes);
        blocks.extend_from_slice(block);
    }
}

/// Writes codes in planes, as the crate's documentation lays them out.
fn pack_codes(format: DeltaFormat, codes: &[u8; GROUP], planes: &mut [u8]) {
    let (pairs, singles) = match format {
        DeltaFormat::Q1 => planes.split_at_mut(0),
        DeltaFormat::Q2 | DeltaFormat::Q3 => planes.split_at_mut(16),
    };
    for (j, byte) in pairs.iter_mut().enumerate() {
        *byte = (0..4).map(|part| (codes[j + 16 * part] & 3) << (2 * part)).sum();
    }
    let shift = if pairs.is_empty() { 0 } else { 2 };
    for (byte, codes) in singles.iter_mut().zip(codes.chunks_exact(8)) {
        *byte = codes.iter().enumerate().map(|(bit, code)| (code >> shift & 1) << bit).sum();
    }
}
