//! The vocabulary in AVX2, FMA and F16C instructions: each sixteen-lane value is a pair of registers.

use std::arch::x86_64::*;

use crate::simd::{LANE_NUMBERS, LANES, Simd, operations};

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

type Floats = [__m256; 2];
type Ints = [__m256i; 2];

impl Simd for Avx2 {
    type F = Floats;
    type I = Ints;
    type B = Ints;

    const ROWS: usize = 4;
    const TILES: usize = 1;

    operations! {
        fn splat(x: f32) -> Floats { [_mm256_set1_ps(x); 2] }
        fn load(p: *const f32) -> Floats { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        fn load_first(p: *const f32, n: usize) -> Floats {
            let mut lanes = [0.0f32; LANES];
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n.min(LANES));
            Self::load(lanes.as_ptr())
        }
        fn load_f16(p: *const u16) -> Floats {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
        fn load_f16_columns(rows: &[*const u16; LANES], at: usize) -> [Floats; LANES] {
            let halves = turned_halves(rows, at);
            let mut columns = [[_mm256_setzero_ps(); 2]; LANES];
            for i in 0..LANES {
                columns[i] = [_mm256_cvtph_ps(_mm256_castsi256_si128(halves[i])),
                              _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves[i]))];
            }
            columns
        }
        fn load_bf16(p: *const u16) -> Floats { [bf16(p), bf16(p.add(8))] }
        fn store(p: *mut f32, v: Floats) {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1])
        }
        fn store_first(p: *mut f32, v: Floats, n: usize) {
            let mut lanes = [0.0f32; LANES];
            Self::store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n.min(LANES))
        }
        fn store_f16(p: *mut u16, v: Floats) {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]))
        }
        fn add(a: Floats, b: Floats) -> Floats { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        fn sub(a: Floats, b: Floats) -> Floats { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        fn mul(a: Floats, b: Floats) -> Floats { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        fn div(a: Floats, b: Floats) -> Floats { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        fn fma(a: Floats, b: Floats, c: Floats) -> Floats {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn min(a: Floats, b: Floats) -> Floats { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
        fn max(a: Floats, b: Floats) -> Floats { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        fn round(v: Floats) -> Floats {
            [_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v[0]),
             _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v[1])]
        }
        fn exp2_whole(n: Floats) -> Floats { [exp2_whole(n[0]), exp2_whole(n[1])] }
        fn if_less(a: Floats, b: Floats, x: Floats, y: Floats) -> Floats {
            [_mm256_blendv_ps(y[0], x[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
             _mm256_blendv_ps(y[1], x[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1]))]
        }
        fn sum(v: Floats) -> f32 {
            let eight = _mm256_add_ps(v[0], v[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
        fn max_lane(v: Floats) -> f32 {
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
        fn max_magnitude(a: Floats, b: Floats) -> f32 {
            // As integers, magnitudes order like floats, with infinity and then NaN on top.
            let bits = _mm256_set1_epi32(i32::MAX);
            let a0 = _mm256_and_si256(_mm256_castps_si256(a[0]), bits);
            let a1 = _mm256_and_si256(_mm256_castps_si256(a[1]), bits);
            let b0 = _mm256_and_si256(_mm256_castps_si256(b[0]), bits);
            let b1 = _mm256_and_si256(_mm256_castps_si256(b[1]), bits);
            let eight = _mm256_max_epu32(_mm256_max_epu32(a0, a1), _mm256_max_epu32(b0, b1));
            let four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b1110>(four));
            let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b01>(two));
            f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
        }
        fn store_i8(p: *mut i8, v: Floats) -> i32 {
            let (low, high) = (_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            // The pack works in 128-bit halves; the permutation puts the quarters back in order.
            let words = _mm256_permute4x64_epi64::<0b11011000>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
            let eight = _mm256_add_epi32(low, high);
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
        }
        fn transpose(rows: [Floats; LANES]) -> [Floats; LANES] {
            let mut out = rows;
            for half in 0..2 {
                let mut upper = [_mm256_setzero_ps(); 8];
                let mut lower = upper;
                for i in 0..8 {
                    upper[i] = rows[i][half];
                    lower[i] = rows[8 + i][half];
                }
                let (left, right) = (turned_floats(upper), turned_floats(lower));
                for i in 0..8 {
                    out[8 * half + i] = [left[i], right[i]];
                }
            }
            out
        }
        fn lane_numbers() -> Floats { Self::load(LANE_NUMBERS.as_ptr()) }
        fn zero_i32() -> Ints { [_mm256_setzero_si256(); 2] }
        fn to_f32(v: Ints) -> Floats { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
        fn splat_i32(p: *const i32) -> Ints { [_mm256_set1_epi32(p.read_unaligned()); 2] }
        fn load_bytes(p: *const u8) -> Ints {
            [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())]
        }
        fn low_nibbles(b: Ints) -> Ints {
            let mask = _mm256_set1_epi8(0x0f);
            [_mm256_and_si256(b[0], mask), _mm256_and_si256(b[1], mask)]
        }
        fn high_nibbles(b: Ints) -> Ints {
            Self::low_nibbles([_mm256_srli_epi16::<4>(b[0]), _mm256_srli_epi16::<4>(b[1])])
        }
        fn and_byte(b: Ints, mask: u8) -> Ints {
            let mask = _mm256_set1_epi8(mask.cast_signed());
            [_mm256_and_si256(b[0], mask), _mm256_and_si256(b[1], mask)]
        }
        fn or_bytes(a: Ints, b: Ints) -> Ints {
            [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
        }
        fn look_up(table: Ints, b: Ints) -> Ints {
            [_mm256_shuffle_epi8(table[0], b[0]), _mm256_shuffle_epi8(table[1], b[1])]
        }
        fn begin_nibbles(_start: Ints) -> Ints { [_mm256_setzero_si256(); 2] }
        fn end_nibbles(acc: Ints, start: Ints) -> Ints {
            let ones = _mm256_set1_epi16(1);
            [_mm256_add_epi32(start[0], _mm256_madd_epi16(acc[0], ones)),
             _mm256_add_epi32(start[1], _mm256_madd_epi16(acc[1], ones))]
        }
        fn dot_nibbles(acc: Ints, w: Ints, p: *const i8) -> Ints {
            // Sixteen bits hold eight of these pairs: 15 * 128 * 2 * 8 = 30,720.
            let a = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            [_mm256_add_epi16(acc[0], _mm256_maddubs_epi16(w[0], a)),
             _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(w[1], a))]
        }
        fn dot_bytes(acc: Ints, w: Ints, p: *const i8) -> Ints {
            let a = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            [signed_dot(acc[0], w[0], a), signed_dot(acc[1], w[1], a)]
        }
        fn start_bytes(_p: *const i32) -> Ints { [_mm256_setzero_si256(); 2] }
        fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        fn prefetch_second(p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}

/// Rows become columns: 32-bit and 64-bit interleaves inside the halves of registers, then halves moved.
#[inline(always)]
unsafe fn turned_floats(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        // quads[4 * i + c]: in half h, column 4 * h + c of rows 4 * i..4 * i + 4.
        let mut quads = [_mm256_setzero_ps(); 8];
        for i in 0..2 {
            let [a, b, c, d] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
            let ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            let cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            quads[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
            quads[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
            let ab = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            let cd = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            quads[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
            quads[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
        }
        let mut out = quads;
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
        }
        out
    }
}

/// Sixteen values of 16 bits from `at` on in each of sixteen rows, as columns. Rows i and i + 8 share a register from
/// the start, so that interleaves inside of its halves suffice.
#[inline(always)]
pub(crate) unsafe fn turned_halves(rows: &[*const u16; LANES], at: usize) -> [__m256i; LANES] {
    // SAFETY: the caller has AVX2 and sixteen readable values from `at` on in each row.
    unsafe {
        let mut out = [_mm256_setzero_si256(); LANES];
        for part in 0..2 {
            let mut r = [_mm256_setzero_si256(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                let low = _mm_loadu_si128(rows[i].add(at + 8 * part).cast());
                let high = _mm_loadu_si128(rows[i + 8].add(at + 8 * part).cast());
                *r = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
            }
            // pairs[2 * i + h]: columns 4 * h..4 * h + 4 of rows 2 * i and 2 * i + 1.
            let mut pairs = r;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
            }
            // quads[4 * i + c]: columns 2 * c and 2 * c + 1 of rows 4 * i..4 * i + 4.
            let mut quads = pairs;
            for i in 0..2 {
                for h in 0..2 {
                    let (a, b) = (pairs[4 * i + h], pairs[4 * i + 2 + h]);
                    quads[4 * i + 2 * h] = _mm256_unpacklo_epi32(a, b);
                    quads[4 * i + 2 * h + 1] = _mm256_unpackhi_epi32(a, b);
                }
            }
            for c in 0..4 {
                out[8 * part + 2 * c] = _mm256_unpacklo_epi64(quads[c], quads[4 + c]);
                out[8 * part + 2 * c + 1] = _mm256_unpackhi_epi64(quads[c], quads[4 + c]);
            }
        }
        out
    }
}

#[inline(always)]
unsafe fn bf16(p: *const u16) -> __m256 {
    // SAFETY: the caller has AVX2 and eight readable values.
    unsafe {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

#[inline(always)]
unsafe fn exp2_whole(n: __m256) -> __m256 {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

/// Unsigned weights up to 255 would saturate 16 bits, so the signs go to the activations: |w| * (sign(w) * a), at
/// most 128 * 127 * 2 a pair.
#[inline(always)]
unsafe fn signed_dot(acc: __m256i, stored: __m256i, a: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2; no memory is touched.
    unsafe {
        let w = _mm256_xor_si256(stored, _mm256_set1_epi8(i8::MIN));
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}
