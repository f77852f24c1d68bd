//! Dot products of whole numbers: what routing keys are scored with.

use crate::cpu_level::CpuLevel;

/// `out[r] = sum_c codes[r, c] * steps[c]` for `codes` `[out.len(), steps.len()]` row by row. Sums of whole numbers are the
/// same in any order, so every processor gives the same bits; they wrap around where they leave 32 bits, which needs more
/// than 500 columns of the largest values. Codes that are missing count as 0.
///
/// `next` are the codes that the caller asks for after these, or nothing. They are brought to the caches meanwhile: of many
/// matrices the memory's delay is most of what they take.
pub fn whole_dots(codes: &[i8], steps: &[i16], next: &[i8], out: &mut [i32]) {
    out.fill(0);
    match CpuLevel::detect() {
        // SAFETY: the processor has AVX-512 BW, and with it all that the function is compiled for.
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => unsafe { with_avx512(codes, steps, next, out) },
        // SAFETY: the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => unsafe { with_avx2(codes, steps, next, out) },
        _ => plainly(codes, steps, next, out),
    }
}

/// The same code for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_avx512(codes: &[i8], steps: &[i16], next: &[i8], out: &mut [i32]) {
    plainly(codes, steps, next, out);
}

/// The same code for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(codes: &[i8], steps: &[i16], next: &[i8], out: &mut [i32]) {
    plainly(codes, steps, next, out);
}

#[inline(always)]
fn plainly(codes: &[i8], steps: &[i16], next: &[i8], out: &mut [i32]) {
    let width = steps.len().max(1);
    let mut next = next.chunks(width);
    for (row, out) in codes.chunks_exact(width).zip(out) {
        next.next().unwrap_or_default().chunks(CACHE_LINE).for_each(prefetch);
        let mut sum = 0_i32;
        for (code, step) in row.iter().zip(steps) {
            sum = sum.wrapping_add(i32::from(i16::from(*code)) * i32::from(*step));
        }
        *out = sum;
    }
}

/// Bytes that come to the caches at once.
const CACHE_LINE: usize = 64;

#[inline(always)]
fn prefetch(line: &[i8]) {
    // SAFETY: it is a hint, which reads nothing, and every x86-64 has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_gives_the_sums_of_whole_numbers() {
        for width in [1, 7, 64, 333] {
            let codes: Vec<i8> = (0..3 * width).map(|at| (at * 37 % 255) as i8).collect();
            let steps: Vec<i16> = (0..width).map(|at| (at as i16).wrapping_mul(811) % 1537).collect();
            let row = |row: &[i8]| -> i32 {
                row.iter().zip(&steps).map(|(code, step)| i32::from(*code) * i32::from(*step)).sum()
            };
            let expected: Vec<i32> = codes.chunks(width).map(row).collect();
            let (mut out, mut plain) = ([1; 3], [1; 3]);
            whole_dots(&codes, &steps, &codes, &mut out);
            plainly(&codes, &steps, &[], &mut plain);
            assert_eq!((&out[..], &plain[..]), (&expected[..], &expected[..]), "{width}");
        }
        let mut out = [5];
        whole_dots(&[], &[], &[], &mut out);
        assert_eq!(out, [0]);
    }
}
