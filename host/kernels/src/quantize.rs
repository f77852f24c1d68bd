//! Rounding of weights to ggml's block formats, 32 at a time.

use half::f16;

use crate::error::{KernelError, check_length};
use crate::weight_format::GgmlBlock;

/// Weights in a block.
pub(crate) const BLOCK: usize = 32;

/// One block of 32 weights: `weight[k] = scale * q[k] + min`, for Q4_0 and Q8_0 with the minimum implied.
#[derive(Clone, Copy)]
pub(crate) struct Block<const BYTES: usize> {
    pub scale: u16,
    pub min: u16,
    pub q: [u8; BYTES],
}

/// What `f32::round` gives, for magnitudes below 2^22, without calling into a library: adding the largest number below
/// one half and cutting off carries over exactly from one half on.
#[inline(always)]
fn half_away_from_zero(x: f32) -> i32 {
    const BELOW_HALF: f32 = 0.499_999_97;
    (x + BELOW_HALF.copysign(x)) as i32
}

/// Largest magnitude to 127, rounded half away from zero, scale as f16 (ggml `quantize_row_q8_0_ref`).
pub(crate) fn q8_0(x: &[f32; BLOCK]) -> Block<32> {
    let mut lanes = [0.0f32; 8];
    for part in x.as_chunks::<8>().0 {
        for (lane, v) in lanes.iter_mut().zip(part) {
            *lane = lane.max(v.abs());
        }
    }
    let largest = lanes.iter().fold(0.0f32, |m, v| m.max(*v));
    let scale = largest / 127.0;
    let inverse = if scale != 0.0 { 1.0 / scale } else { 0.0 };
    let q = x.map(|v| (half_away_from_zero(v * inverse) as i8).cast_unsigned());
    Block { scale: f16::from_f32(scale).to_bits(), min: 0, q }
}

/// The value of largest magnitude to -8 (ggml `quantize_row_q4_0_ref`). Byte `j` holds weight `j` low and `j + 16` high.
pub(crate) fn q4_0(x: &[f32; BLOCK]) -> Block<16> {
    let extreme = x.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let scale = extreme / -8.0;
    let inverse = if scale != 0.0 { 1.0 / scale } else { 0.0 };
    let q = x.map(|v| ((v * inverse + 8.5) as u8).min(15));
    Block { scale: f16::from_f32(scale).to_bits(), min: 0, q: nibbles(&q) }
}

/// Minimum to 0 and maximum to 15 (ggml `quantize_row_q4_1_ref`). Byte `j` holds weight `j` low and `j + 16` high.
pub(crate) fn q4_1(x: &[f32; BLOCK]) -> Block<16> {
    let min = x.iter().fold(f32::MAX, |m, v| m.min(*v));
    let max = x.iter().fold(f32::MIN, |m, v| m.max(*v));
    let scale = (max - min) / 15.0;
    let inverse = if scale != 0.0 { 1.0 / scale } else { 0.0 };
    let q = x.map(|v| (((v - min) * inverse + 0.5) as u8).min(15));
    Block { scale: f16::from_f32(scale).to_bits(), min: f16::from_f32(min).to_bits(), q: nibbles(&q) }
}

/// Rounds whole blocks of `values` to Q8_0, Q4_0 or Q4_1 and appends them to `out` as files hold them (ggml's layout,
/// little-endian).
///
/// # Errors
/// Another format, or values that do not fill their last block.
pub fn append_ggml_blocks(block: GgmlBlock, values: &[f32], out: &mut Vec<u8>) -> Result<(), KernelError> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    check_length("values of a last, whole block", 0, rest.len())?;
    for values in blocks {
        match block {
            GgmlBlock::Q8_0 => put(out, &q8_0(values), false),
            GgmlBlock::Q4_0 => put(out, &q4_0(values), false),
            GgmlBlock::Q4_1 => put(out, &q4_1(values), true),
            _ => return Err(KernelError::NotRounded { block }),
        }
    }
    Ok(())
}

fn put<const N: usize>(out: &mut Vec<u8>, block: &Block<N>, with_min: bool) {
    out.extend(block.scale.to_le_bytes());
    if with_min {
        out.extend(block.min.to_le_bytes());
    }
    out.extend(block.q);
}

/// Two numbers below 16 to a byte: `j` low, `j + 16` high, as ggml does.
pub(crate) fn nibbles(q: &[u8; BLOCK]) -> [u8; 16] {
    std::array::from_fn(|j| q[j] | (q[j + 16] << 4))
}

/// One of the eight 32-weight parts of a ggml Q4_K block (144 bytes, ggml `block_q4_K`) as an affine block.
///
/// Q4_K has `weight = d * sc * q - dmin * m` with 6-bit `sc` and `m`. The products `d * sc` and `dmin * m` are
/// rounded to f16, a relative error of at most 2^-11 each; the four-bit numbers are kept.
pub(crate) fn q4_k_part(block: &[u8; 144], part: usize) -> Block<16> {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let packed = &block[4..16];
    let (scale, min) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let low = packed[part + 4];
        ((low & 15) | (packed[part - 4] >> 6 << 4), (low >> 4) | (packed[part] >> 6 << 4))
    };
    let bytes = &block[16 + 32 * (part / 2)..][..BLOCK];
    let shift = 4 * (part % 2);
    let q: [u8; BLOCK] = std::array::from_fn(|k| (bytes[k] >> shift) & 15);
    Block {
        scale: f16::from_f32(half(0) * f32::from(scale)).to_bits(),
        min: f16::from_f32(-half(2) * f32::from(min)).to_bits(),
        q: nibbles(&q),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_standard_library() {
        let steps = (0..=2_000_000u32).map(|i| f32::from_bits((128.0f32).to_bits() / 2_000_000 * i));
        let near_halves = (0..256).flat_map(|i| {
            let half = i as f32 / 2.0;
            [half.next_down(), half, half.next_up()]
        });
        for x in steps.chain(near_halves).flat_map(|x| [x, -x]) {
            assert_eq!(half_away_from_zero(x), x.round() as i32, "{x}");
        }
        assert_eq!((half_away_from_zero(f32::NAN), 0.5f32.next_down()), (0, 0.499_999_97));
    }
}
