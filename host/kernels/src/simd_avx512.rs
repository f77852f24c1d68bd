//! The vocabulary in AVX-512 instructions.

use std::arch::x86_64::*;

use crate::simd::{LANE_NUMBERS, LANES, Simd, operations};
use crate::simd_avx2::turned_halves;

/// AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;

    const ROWS: usize = 12;
    const TILES: usize = 2;

    operations! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn load(p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        fn load_first(p: *const f32, n: usize) -> __m512 { _mm512_maskz_loadu_ps(first_lanes(n), p) }
        fn load_f16(p: *const u16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        fn load_f16_columns(rows: &[*const u16; LANES], at: usize) -> [__m512; LANES] {
            let halves = turned_halves(rows, at);
            let mut columns = [_mm512_setzero_ps(); LANES];
            for i in 0..LANES {
                columns[i] = _mm512_cvtph_ps(halves[i]);
            }
            columns
        }
        fn load_bf16(p: *const u16) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn store(p: *mut f32, v: __m512) { _mm512_storeu_ps(p, v) }
        fn store_first(p: *mut f32, v: __m512, n: usize) { _mm512_mask_storeu_ps(p, first_lanes(n), v) }
        fn store_f16(p: *mut u16, v: __m512) {
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
        }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn round(v: __m512) -> __m512 { _mm512_roundscale_ps::<0>(v) }
        fn exp2_whole(n: __m512) -> __m512 {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
        fn if_less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x)
        }
        fn sum(v: __m512) -> f32 { _mm512_reduce_add_ps(v) }
        fn max_lane(v: __m512) -> f32 { _mm512_reduce_max_ps(v) }
        fn max_magnitude(a: __m512, b: __m512) -> f32 {
            // As integers, magnitudes order like floats, with infinity and then NaN on top.
            let bits = _mm512_set1_epi32(i32::MAX);
            let a = _mm512_and_si512(_mm512_castps_si512(a), bits);
            let b = _mm512_and_si512(_mm512_castps_si512(b), bits);
            f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)))
        }
        fn store_i8(p: *mut i8, v: __m512) -> i32 {
            let whole = _mm512_cvtps_epi32(v);
            _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(whole));
            _mm512_reduce_add_epi32(whole)
        }
        fn transpose(rows: [__m512; LANES]) -> [__m512; LANES] { transpose16(rows) }
        fn lane_numbers() -> __m512 { _mm512_loadu_ps(LANE_NUMBERS.as_ptr()) }
        fn zero_i32() -> __m512i { _mm512_setzero_si512() }
        fn to_f32(v: __m512i) -> __m512 { _mm512_cvtepi32_ps(v) }
        fn splat_i32(p: *const i32) -> __m512i { _mm512_set1_epi32(p.read_unaligned()) }
        fn load_bytes(p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
        fn low_nibbles(b: __m512i) -> __m512i { _mm512_and_si512(b, _mm512_set1_epi8(0x0f)) }
        fn high_nibbles(b: __m512i) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(b), _mm512_set1_epi8(0x0f))
        }
        fn and_byte(b: __m512i, mask: u8) -> __m512i {
            _mm512_and_si512(b, _mm512_set1_epi8(mask.cast_signed()))
        }
        fn or_bytes(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn look_up(table: __m512i, b: __m512i) -> __m512i { _mm512_shuffle_epi8(table, b) }
        fn begin_nibbles(start: __m512i) -> __m512i { start }
        fn end_nibbles(acc: __m512i, _start: __m512i) -> __m512i { acc }
        fn dot_nibbles(acc: __m512i, w: __m512i, p: *const i8) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(p.cast::<i32>().read_unaligned()))
        }
        fn dot_bytes(acc: __m512i, w: __m512i, p: *const i8) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(p.cast::<i32>().read_unaligned()))
        }
        fn start_bytes(p: *const i32) -> __m512i {
            _mm512_slli_epi32::<4>(_mm512_set1_epi32(p.read_unaligned()))
        }
        fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        fn prefetch_second(p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}

#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    if n >= LANES { !0 } else { (1 << n) - 1 }
}

/// The usual three steps: 32-bit and 64-bit interleaves inside the 128-bit quarters, then quarters moved.
#[inline(always)]
unsafe fn transpose16(r: [__m512; LANES]) -> [__m512; LANES] {
    // SAFETY: the caller has AVX-512; no memory is touched.
    unsafe {
        let mut pairs = [_mm512_setzero_ps(); LANES];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        // quads[4 * i + c] holds, in quarter q, column 4 * q + c of rows 4 * i..4 * i + 4.
        let mut quads = [_mm512_setzero_ps(); LANES];
        for i in 0..4 {
            for half in 0..2 {
                let a = _mm512_castps_pd(pairs[4 * i + half]);
                let b = _mm512_castps_pd(pairs[4 * i + 2 + half]);
                quads[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                quads[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        let mut out = [_mm512_setzero_ps(); LANES];
        for c in 0..4 {
            let even_low = _mm512_shuffle_f32x4::<0x88>(quads[c], quads[4 + c]);
            let odd_low = _mm512_shuffle_f32x4::<0xdd>(quads[c], quads[4 + c]);
            let even_high = _mm512_shuffle_f32x4::<0x88>(quads[8 + c], quads[12 + c]);
            let odd_high = _mm512_shuffle_f32x4::<0xdd>(quads[8 + c], quads[12 + c]);
            out[c] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
            out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
            out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
            out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
        }
        out
    }
}
