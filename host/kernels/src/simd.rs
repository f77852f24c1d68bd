//! The sixteen-lane vocabulary that every kernel is written in once, and the three instruction sets behind it.
//!
//! A kernel is a type with a generic `run`. [`launch`] enters a function compiled for the wanted instruction set
//! and inlines the kernel there, so that one source gives AVX-512, AVX2 and plain code.

use crate::cpu_level::CpuLevel;
use crate::simd_scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::{simd_avx2::Avx2, simd_avx512::Avx512};

/// Lanes of [`Simd::F`] and [`Simd::I`].
pub(crate) const LANES: usize = 16;

/// Each lane's own number.
pub(crate) const LANE_NUMBERS: [f32; LANES] =
    [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Defines unsafe, always inlined methods whose body is one unsafe expression.
macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $($body:tt)* })*) => {$(
        // Some levels' bodies need no unsafe operation.
        #[allow(unused_unsafe)]
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the trait's contract: the processor has these instructions and pointers are valid.
            unsafe { $($body)* }
        }
    )*};
}
pub(crate) use operations;

/// Repeats a block for `$i` in `0..$n`, `$n` a constant of at most 12. A loop would do the same, but the compiler does
/// not always unroll it, and then arrays of registers live in memory. Or for each `$k` of a list.
macro_rules! unroll {
    ($i:ident < $n:expr, $body:block) => {
        if const { 0 < $n } {
            let $i = 0usize;
            $body
        }
        if const { 1 < $n } {
            let $i = 1usize;
            $body
        }
        if const { 2 < $n } {
            let $i = 2usize;
            $body
        }
        if const { 3 < $n } {
            let $i = 3usize;
            $body
        }
        if const { 4 < $n } {
            let $i = 4usize;
            $body
        }
        if const { 5 < $n } {
            let $i = 5usize;
            $body
        }
        if const { 6 < $n } {
            let $i = 6usize;
            $body
        }
        if const { 7 < $n } {
            let $i = 7usize;
            $body
        }
        if const { 8 < $n } {
            let $i = 8usize;
            $body
        }
        if const { 9 < $n } {
            let $i = 9usize;
            $body
        }
        if const { 10 < $n } {
            let $i = 10usize;
            $body
        }
        if const { 11 < $n } {
            let $i = 11usize;
            $body
        }
    };
    ($i:ident in $($k:literal)*, $body:block) => {
        $({ let $i = $k; $body })*
    };
}
pub(crate) use unroll;

/// As [`unroll`], for at most 4.
macro_rules! unroll4 {
    ($i:ident < $n:expr, $body:block) => {
        if const { 0 < $n } {
            let $i = 0usize;
            $body
        }
        if const { 1 < $n } {
            let $i = 1usize;
            $body
        }
        if const { 2 < $n } {
            let $i = 2usize;
            $body
        }
        if const { 3 < $n } {
            let $i = 3usize;
            $body
        }
    };
}
pub(crate) use unroll4;

/// Operations on sixteen f32 or i32 lanes, and on 64 bytes as sixteen lanes of four.
///
/// # Safety
/// Every method needs a processor of the implementing level. Methods that take a pointer need it valid for the
/// lanes that they name; no alignment is needed.
#[allow(clippy::missing_safety_doc)]
pub(crate) trait Simd: Copy + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixteen lanes of four bytes.
    type B: Copy;

    /// Activation rows that a matrix kernel keeps in registers at once.
    const ROWS: usize;
    /// Weight tiles that a float matrix kernel keeps in registers at once.
    const TILES: usize;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    /// The first `n` lanes; the others are zero.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::F;
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// Sixteen values from `at` on in each of sixteen rows of f16, as columns: lane i of result j is value `at + j` of
    /// row i.
    unsafe fn load_f16_columns(rows: &[*const u16; LANES], at: usize) -> [Self::F; LANES];
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    /// The first `n` lanes.
    unsafe fn store_first(p: *mut f32, v: Self::F, n: usize);
    /// Rounded to nearest even.
    unsafe fn store_f16(p: *mut u16, v: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the level has it.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// A NaN in `b` is kept, one in `a` is not.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// A NaN in `b` is kept, one in `a` is not.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// To nearest even; only for magnitudes below 2^22.
    unsafe fn round(v: Self::F) -> Self::F;
    /// 2^n for whole n in -126..=127.
    unsafe fn exp2_whole(n: Self::F) -> Self::F;
    /// `a < b ? x : y`, lane by lane.
    unsafe fn if_less(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sum(v: Self::F) -> f32;
    unsafe fn max_lane(v: Self::F) -> f32;
    /// Largest magnitude in `a` and `b`; NaN if there is one.
    unsafe fn max_magnitude(a: Self::F, b: Self::F) -> f32;
    /// Stores lanes rounded to nearest even as i8, and returns the sum of what was stored. Lanes must lie in
    /// -127..=127; others, and NaN, give some value.
    unsafe fn store_i8(p: *mut i8, v: Self::F) -> i32;
    /// Rows become columns: lane i of result j is lane j of input i.
    unsafe fn transpose(rows: [Self::F; LANES]) -> [Self::F; LANES];
    /// 0, 1, 2, .. 15.
    unsafe fn lane_numbers() -> Self::F;

    unsafe fn zero_i32() -> Self::I;
    unsafe fn to_f32(v: Self::I) -> Self::F;
    unsafe fn splat_i32(p: *const i32) -> Self::I;
    unsafe fn load_bytes(p: *const u8) -> Self::B;
    unsafe fn low_nibbles(b: Self::B) -> Self::B;
    unsafe fn high_nibbles(b: Self::B) -> Self::B;
    /// Each byte of `b` with the bits of `mask` alone.
    unsafe fn and_byte(b: Self::B, mask: u8) -> Self::B;
    unsafe fn or_bytes(a: Self::B, b: Self::B) -> Self::B;
    /// `table` is sixteen bytes, four times over: each byte of `b`, which is below 16, becomes the one at its place.
    unsafe fn look_up(table: Self::B, b: Self::B) -> Self::B;
    /// What up to eight `dot_nibbles` are added up in. It begins with `start`, or `end_nibbles` adds that.
    unsafe fn begin_nibbles(start: Self::I) -> Self::I;
    /// The sum of `start` and the products.
    unsafe fn end_nibbles(acc: Self::I, start: Self::I) -> Self::I;
    /// In each lane the sum over j<4 of w[j] * a[j], `w` unsigned below 16, `a` the four signed bytes at `p`.
    unsafe fn dot_nibbles(acc: Self::I, w: Self::B, p: *const i8) -> Self::I;
    /// As `dot_nibbles` for weights stored with 128 added. Some levels take that off here, some leave it in; what
    /// [`Simd::start_bytes`] gives makes the sums equal.
    unsafe fn dot_bytes(acc: Self::I, w: Self::B, p: *const i8) -> Self::I;
    /// The accumulator to start a block of `dot_bytes` with, `p` pointing to -8 times the block's sum of `a`.
    unsafe fn start_bytes(p: *const i32) -> Self::I;
    unsafe fn prefetch(p: *const u8);
    /// Into the second level only.
    unsafe fn prefetch_second(p: *const u8);
}

/// A computation that is compiled once for each level.
///
/// # Safety
/// `run` may be called only where `S`'s instructions exist, and under the conditions of the implementing type.
#[allow(clippy::missing_safety_doc)]
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, or it would not be compiled with the level's instructions.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` with the instructions of `level`.
///
/// # Safety
/// The processor has `level`, and the kernel's own conditions hold.
#[inline]
pub(crate) unsafe fn launch<K: Kernel>(level: CpuLevel, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: passed on from `launch`.
        unsafe { kernel.run::<Avx512>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: passed on from `launch`.
        unsafe { kernel.run::<Avx2>() }
    }
    // SAFETY: the caller vouches for the level and for the kernel.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => avx2(kernel),
            _ => kernel.run::<Scalar>(),
        }
    }
}

/// As [`launch`], for kernels of which only the AVX-512 form exists.
///
/// # Safety
/// The processor has `level`, it is AVX-512, and the kernel's own conditions hold.
#[inline]
pub(crate) unsafe fn launch_widest<K: Kernel>(level: CpuLevel, kernel: K) -> K::Output {
    debug_assert_eq!(level, CpuLevel::Avx512);
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: passed on from `launch_widest`.
        unsafe { kernel.run::<Avx512>() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: passed on from `launch_widest`.
        unsafe { kernel.run::<Scalar>() }
    }
    // SAFETY: the caller vouches for the level and for the kernel.
    unsafe { avx512(kernel) }
}

/// The `Simd::ROWS` of a level.
pub(crate) fn rows_in_registers(level: CpuLevel) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => Avx512::ROWS,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => Avx2::ROWS,
        _ => Scalar::ROWS,
    }
}

/// The `Simd::TILES` of a level.
pub(crate) fn tiles_in_registers(level: CpuLevel) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => Avx512::TILES,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => Avx2::TILES,
        _ => Scalar::TILES,
    }
}
