//! From blocks to deltas.

use half::f16;

use crate::{DeltaError, DeltaFormat, GROUP, Levels, format::SCALE_BYTES};

/// Checks blocks that come from outside: their number, and that every scale is finite.
///
/// # Errors
/// What is not so.
pub fn check_blocks(blocks: &[u8], values: usize, format: DeltaFormat) -> Result<(), DeltaError> {
    check_length(blocks, values, format)?;
    for (index, block) in blocks.chunks_exact(format.block_bytes()).enumerate() {
        let scale = scale_of(block);
        if !scale.is_finite() {
            return Err(DeltaError::Scale { index, value: scale });
        }
    }
    Ok(())
}

/// Writes the deltas.
///
/// # Errors
/// Blocks of another length than `out` asks for.
pub fn decode_into(blocks: &[u8], levels: &Levels, out: &mut [f32]) -> Result<(), DeltaError> {
    for_each_group(blocks, levels, out, |value, delta| *value = delta)
}

/// Adds the deltas to what is there: the base's values become the pack's.
///
/// # Errors
/// Blocks of another length than `values` ask for.
pub fn add_to(blocks: &[u8], levels: &Levels, values: &mut [f32]) -> Result<(), DeltaError> {
    for_each_group(blocks, levels, values, |value, delta| *value += delta)
}

/// The squared error of coded deltas as a share of the deltas' own squares; 0 for deltas that are all zero.
///
/// # Errors
/// Blocks of another length than the deltas ask for.
pub fn relative_squared_error(delta: &[f32], blocks: &[u8], levels: &Levels) -> Result<f64, DeltaError> {
    let mut decoded = vec![0.0; delta.len()];
    decode_into(blocks, levels, &mut decoded)?;
    let (mut error, mut squares) = (0.0, 0.0);
    for (&value, decoded) in delta.iter().zip(decoded) {
        let (value, loss) = (f64::from(value), f64::from(value) - f64::from(decoded));
        error += loss * loss;
        squares += value * value;
    }
    Ok(if squares > 0.0 { error / squares } else { 0.0 })
}

/// The scale and the codes of one block of `format.block_bytes()` bytes, for kernels that keep them in another order.
///
/// # Errors
/// Another number of bytes.
pub fn unpack_codes(block: &[u8], format: DeltaFormat) -> Result<(u16, [u8; GROUP]), DeltaError> {
    check_length(block, GROUP, format)?;
    let mut codes = [0; GROUP];
    each_code(format, &block[SCALE_BYTES..], |index, code| codes[index] = code);
    Ok((u16::from_le_bytes([block[0], block[1]]), codes))
}

fn check_length(blocks: &[u8], values: usize, format: DeltaFormat) -> Result<(), DeltaError> {
    let expected = format.encoded_bytes(values)?;
    let found = blocks.len();
    if found == expected { Ok(()) } else { Err(DeltaError::BlockBytes { format, values, expected, found }) }
}

fn scale_of(block: &[u8]) -> f32 {
    f16::from_le_bytes([block[0], block[1]]).to_f32()
}

/// Calls `each` with a place of `values` and its delta.
#[inline(always)]
fn for_each_group(
    blocks: &[u8],
    levels: &Levels,
    values: &mut [f32],
    each: impl Fn(&mut f32, f32) + Copy,
) -> Result<(), DeltaError> {
    let format = levels.format();
    check_length(blocks, values.len(), format)?;
    let (groups, _) = values.as_chunks_mut::<GROUP>();
    for (group, block) in groups.iter_mut().zip(blocks.chunks_exact(format.block_bytes())) {
        let scale = scale_of(block);
        let deltas = levels.table().map(|level| scale * level);
        // One match a group keeps the loops below free of it.
        match format {
            DeltaFormat::Q1 => each_code(DeltaFormat::Q1, &block[SCALE_BYTES..], |index, code| {
                each(&mut group[index], deltas[usize::from(code)]);
            }),
            DeltaFormat::Q2 => each_code(DeltaFormat::Q2, &block[SCALE_BYTES..], |index, code| {
                each(&mut group[index], deltas[usize::from(code)]);
            }),
            DeltaFormat::Q3 => each_code(DeltaFormat::Q3, &block[SCALE_BYTES..], |index, code| {
                each(&mut group[index], deltas[usize::from(code)]);
            }),
        }
    }
    Ok(())
}

/// Calls `each` with every index of a group and its code.
#[inline(always)]
fn each_code(format: DeltaFormat, planes: &[u8], mut each: impl FnMut(usize, u8)) {
    match format {
        DeltaFormat::Q1 => {
            let planes = &planes[..8];
            for index in 0..GROUP {
                each(index, planes[index / 8] >> (index % 8) & 1);
            }
        }
        DeltaFormat::Q2 => {
            for part in 0..4 {
                for (j, byte) in planes[..16].iter().enumerate() {
                    each(16 * part + j, byte >> (2 * part) & 3);
                }
            }
        }
        DeltaFormat::Q3 => {
            let singles = &planes[16..24];
            for part in 0..4 {
                for (j, byte) in planes[..16].iter().enumerate() {
                    let index = 16 * part + j;
                    let high = singles[index / 8] >> (index % 8) & 1;
                    each(index, byte >> (2 * part) & 3 | high << 2);
                }
            }
        }
    }
}
