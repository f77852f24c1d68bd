//! The vocabulary in plain Rust, for processors without AVX2 and as a reference for the others.

use half::{bf16, f16};

use crate::simd::{LANE_NUMBERS, LANES, Simd, operations};

/// No vector instructions beyond what the compiler finds on its own.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

type Floats = [f32; LANES];
type Ints = [i32; LANES];
type Bytes = [u8; 64];

/// Adding and taking off this number rounds smaller ones to whole numbers.
const ROUNDER: f32 = 12_582_912.0;

#[inline(always)]
fn lanes<T>(f: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(f)
}

/// The sum over the four bytes of lane `i`, with `offset` taken off the weights.
#[inline(always)]
unsafe fn dot(w: &Bytes, offset: i32, p: *const i8, i: usize) -> i32 {
    let mut sum = 0;
    for j in 0..4 {
        // SAFETY: the caller has four readable activation bytes at `p`.
        sum += (i32::from(w[4 * i + j]) - offset) * i32::from(unsafe { p.add(j).read() });
    }
    sum
}

impl Simd for Scalar {
    type F = Floats;
    type I = Ints;
    type B = Bytes;

    const ROWS: usize = 4;
    const TILES: usize = 1;

    operations! {
        fn splat(x: f32) -> Floats { [x; LANES] }
        fn load(p: *const f32) -> Floats { p.cast::<Floats>().read_unaligned() }
        fn load_first(p: *const f32, n: usize) -> Floats {
            lanes(|i| if i < n { p.add(i).read_unaligned() } else { 0.0 })
        }
        fn load_f16(p: *const u16) -> Floats { lanes(|i| f16::from_bits(p.add(i).read_unaligned()).to_f32()) }
        fn load_f16_columns(rows: &[*const u16; LANES], at: usize) -> [Floats; LANES] {
            lanes(|j| lanes(|i| f16::from_bits(rows[i].add(at + j).read_unaligned()).to_f32()))
        }
        fn load_bf16(p: *const u16) -> Floats { lanes(|i| bf16::from_bits(p.add(i).read_unaligned()).to_f32()) }
        fn store(p: *mut f32, v: Floats) { p.cast::<Floats>().write_unaligned(v) }
        fn store_first(p: *mut f32, v: Floats, n: usize) {
            std::ptr::copy_nonoverlapping(v.as_ptr(), p, n.min(LANES))
        }
        fn store_f16(p: *mut u16, v: Floats) {
            p.cast::<[u16; LANES]>().write_unaligned(v.map(|x| f16::from_f32(x).to_bits()))
        }
        fn add(a: Floats, b: Floats) -> Floats { lanes(|i| a[i] + b[i]) }
        fn sub(a: Floats, b: Floats) -> Floats { lanes(|i| a[i] - b[i]) }
        fn mul(a: Floats, b: Floats) -> Floats { lanes(|i| a[i] * b[i]) }
        fn div(a: Floats, b: Floats) -> Floats { lanes(|i| a[i] / b[i]) }
        fn fma(a: Floats, b: Floats, c: Floats) -> Floats { lanes(|i| a[i] * b[i] + c[i]) }
        fn min(a: Floats, b: Floats) -> Floats { lanes(|i| if a[i] < b[i] { a[i] } else { b[i] }) }
        fn max(a: Floats, b: Floats) -> Floats { lanes(|i| if a[i] > b[i] { a[i] } else { b[i] }) }
        fn round(v: Floats) -> Floats { v.map(|x| (x + ROUNDER) - ROUNDER) }
        fn exp2_whole(n: Floats) -> Floats { n.map(|n| f32::from_bits(((n as i32 + 127) << 23).cast_unsigned())) }
        fn if_less(a: Floats, b: Floats, x: Floats, y: Floats) -> Floats {
            lanes(|i| if a[i] < b[i] { x[i] } else { y[i] })
        }
        fn sum(v: Floats) -> f32 {
            let eight: [f32; 8] = std::array::from_fn(|i| v[i] + v[i + 8]);
            let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
            (four[0] + four[2]) + (four[1] + four[3])
        }
        fn max_lane(v: Floats) -> f32 { v.into_iter().fold(v[0], |a, b| if a > b { a } else { b }) }
        fn max_magnitude(a: Floats, b: Floats) -> f32 {
            // As integers, magnitudes order like floats, with infinity and then NaN on top.
            f32::from_bits(a.into_iter().chain(b).fold(0, |m, x| m.max(x.abs().to_bits())))
        }
        fn store_i8(p: *mut i8, v: Floats) -> i32 {
            let mut sum = 0;
            for (i, x) in v.into_iter().enumerate() {
                let whole = ((x + ROUNDER) - ROUNDER) as i8;
                p.add(i).write(whole);
                sum += i32::from(whole);
            }
            sum
        }
        fn transpose(rows: [Floats; LANES]) -> [Floats; LANES] { lanes(|i| lanes(|j| rows[j][i])) }
        fn lane_numbers() -> Floats { LANE_NUMBERS }
        fn zero_i32() -> Ints { [0; LANES] }
        fn to_f32(v: Ints) -> Floats { v.map(|x| x as f32) }
        fn splat_i32(p: *const i32) -> Ints { [p.read_unaligned(); LANES] }
        fn load_bytes(p: *const u8) -> Bytes { p.cast::<Bytes>().read() }
        fn low_nibbles(b: Bytes) -> Bytes { b.map(|x| x & 0x0f) }
        fn high_nibbles(b: Bytes) -> Bytes { b.map(|x| x >> 4) }
        fn and_byte(b: Bytes, mask: u8) -> Bytes { b.map(|x| x & mask) }
        fn or_bytes(a: Bytes, b: Bytes) -> Bytes { std::array::from_fn(|i| a[i] | b[i]) }
        fn look_up(table: Bytes, b: Bytes) -> Bytes { b.map(|x| table[usize::from(x & 15)]) }
        fn begin_nibbles(start: Ints) -> Ints { start }
        fn end_nibbles(acc: Ints, _start: Ints) -> Ints { acc }
        fn dot_nibbles(acc: Ints, w: Bytes, p: *const i8) -> Ints { lanes(|i| acc[i] + dot(&w, 0, p, i)) }
        fn dot_bytes(acc: Ints, w: Bytes, p: *const i8) -> Ints { lanes(|i| acc[i] + dot(&w, 128, p, i)) }
        fn start_bytes(_p: *const i32) -> Ints { [0; LANES] }
        fn prefetch(_p: *const u8) {}
        fn prefetch_second(_p: *const u8) {}
    }
}
