//! Norms, rotary embedding, activations, softmax and conversions at every level against f64.

use half::f16;
use modularbase_kernels::{
    KernelError, RopeAngles, RopeLayout, ThreadPool, add, add_to, argmax, axpy, f16_to_f32, f32_to_f16, gelu,
    gelu_erf, layer_norm, mul, rms_norm, rope, scale, silu, silu_mul, softmax_rows,
};

use crate::common::{Random, assert_close, pools};

/// Lengths around the lane count, and one that is divided among workers.
const LENGTHS: [usize; 7] = [0, 1, 15, 16, 17, 576, 50_001];

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// erf by its series, for |x| below 4; one beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_agree_with_f64() {
    let mut random = Random(1);
    for pool in pools() {
        for n in LENGTHS {
            let x: Vec<f32> = random.floats(n).iter().map(|v| v * 12.0).collect();
            let y = random.floats(n);
            let mut out = vec![f32::NAN; n];
            let f = |f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|v| f(f64::from(*v))).collect() };
            let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
            silu(&pool, &x, &mut out).unwrap();
            let expected = f(&|v| v * sigmoid(v));
            assert_close("silu", &out, &expected, |i| 1e-6 * expected[i].abs() + 1e-30);
            gelu(&pool, &x, &mut out).unwrap();
            let expected = f(&|v| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v);
                0.5 * v * (1.0 + u.tanh())
            });
            assert_close("gelu", &out, &expected, |i| 2e-6 * expected[i].abs() + 1e-6);
            gelu_erf(&pool, &x, &mut out).unwrap();
            let expected = f(&|v| 0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2)));
            assert_close("gelu_erf", &out, &expected, |i| 1e-6 * f64::from(x[i].abs()) + 1e-7);
            silu_mul(&pool, &x, &y, &mut out).unwrap();
            let expected: Vec<f64> =
                f(&|v| v * sigmoid(v)).iter().zip(&y).map(|(a, b)| a * f64::from(*b)).collect();
            assert_close("silu_mul", &out, &expected, |i| 1e-6 * expected[i].abs() + 1e-30);
        }
    }
}

#[test]
fn exponentials_keep_their_stated_accuracy_over_the_whole_range() {
    // silu(x) = x / (1 + exp(-x)), and for very negative x that is x * exp(x): the error of exp shows undiluted.
    let x: Vec<f32> = (0..200_000).map(|i| -20.0 - 66.0 * i as f32 / 200_000.0).collect();
    for pool in pools() {
        let mut out = vec![0.0; x.len()];
        silu(&pool, &x, &mut out).unwrap();
        let expected: Vec<f64> = x.iter().map(|v| f64::from(*v) / (1.0 + (-f64::from(*v)).exp())).collect();
        assert_close("exp", &out, &expected, |i| 3e-7 * expected[i].abs());
        let mut out = [0.0; 4];
        silu(&pool, &[200.0, -200.0, f32::NAN, f32::INFINITY], &mut out).unwrap();
        assert_eq!(out[..2], [200.0, -0.0]);
        assert!(out[2].is_nan());
        assert_eq!(out[3], f32::INFINITY);
    }
}

#[test]
fn arithmetic_is_exact_to_one_rounding() {
    let mut random = Random(2);
    for pool in pools() {
        for n in LENGTHS {
            let (a, b) = (random.floats(n), random.floats(n));
            let (wa, wb) = (wide(&a), wide(&b));
            let both = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
                wa.iter().zip(&wb).map(|(a, b)| f(*a, *b)).collect()
            };
            let mut out = vec![0.0; n];
            add(&pool, &a, &b, &mut out).unwrap();
            assert_close("add", &out, &both(&|a, b| a + b), |_| 1.2e-7);
            mul(&pool, &a, &b, &mut out).unwrap();
            assert_close("mul", &out, &both(&|a, b| a * b), |_| 1.2e-7);
            scale(&pool, 0.3, &a, &mut out).unwrap();
            assert_close("scale", &out, &both(&|a, _| a * f64::from(0.3f32)), |_| 1.2e-7);
            out.copy_from_slice(&b);
            axpy(&pool, 0.3, &a, &mut out).unwrap();
            assert_close("axpy", &out, &both(&|a, b| b + a * f64::from(0.3f32)), |_| 2e-7);
            out.copy_from_slice(&b);
            add_to(&pool, &a, &mut out).unwrap();
            assert_close("add_to", &out, &both(&|a, b| a + b), |_| 1.2e-7);
        }
    }
}

#[test]
fn norms_agree_with_f64() {
    let mut random = Random(3);
    for pool in pools() {
        for (m, n) in [(1, 1), (1, 576), (3, 100), (70, 576), (2, 7)] {
            let x: Vec<f32> = random.floats(m * n).iter().map(|v| v * 3.0 + 0.5).collect();
            let (weight, bias) = (random.floats(n), random.floats(n));
            let mut out = vec![f32::NAN; m * n];
            rms_norm(&pool, &x, m, &weight, 1e-5, &mut out).unwrap();
            let mut expected = Vec::new();
            let mut centred = Vec::new();
            for row in x.chunks(n) {
                let row = wide(row);
                let squares = row.iter().map(|v| v * v).sum::<f64>() / n as f64;
                let mean = row.iter().sum::<f64>() / n as f64;
                let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
                for (i, v) in row.iter().enumerate() {
                    expected.push(v / (squares + 1e-5f32 as f64).sqrt() * f64::from(weight[i]));
                    centred.push(
                        (v - mean) / (variance + 1e-5f32 as f64).sqrt() * f64::from(weight[i])
                            + f64::from(bias[i]),
                    );
                }
            }
            assert_close("rms_norm", &out, &expected, |_| 3e-6);
            layer_norm(&pool, &x, m, &weight, Some(&bias), 1e-5, &mut out).unwrap();
            assert_close("layer_norm", &out, &centred, |_| 5e-6);
            layer_norm(&pool, &x, m, &weight, None, 1e-5, &mut out).unwrap();
            for (i, value) in centred.iter_mut().enumerate() {
                *value -= f64::from(bias[i % n]);
            }
            assert_close("layer_norm without bias", &out, &centred, |_| 5e-6);
        }
    }
}

#[test]
fn rope_turns_each_pair_by_its_angle() {
    let mut random = Random(4);
    for (heads, head_dim, m) in [(9, 64, 5), (1, 8, 1), (2, 20, 3), (4, 64, 100)] {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 1e4f32.powf(-(i as f32) / half as f32)).collect();
        let positions: Vec<u32> = (0..m as u32).map(|t| t * 37 + 2).collect();
        let x = random.floats(m * heads * head_dim);
        let mut angles = RopeAngles::new();
        angles.set(&[1, 2, 3], &[1.0; 3]);
        angles.set(&positions, &frequencies);
        for layout in [RopeLayout::HalfSplit, RopeLayout::Interleaved] {
            let mut expected = wide(&x);
            for (t, position) in positions.iter().enumerate() {
                for head in 0..heads {
                    let base = (t * heads + head) * head_dim;
                    for (i, frequency) in frequencies.iter().enumerate() {
                        let (s, c) = f64::from(*position as f32 * frequency).sin_cos();
                        let (a, b) = match layout {
                            RopeLayout::HalfSplit => (base + i, base + half + i),
                            RopeLayout::Interleaved => (base + 2 * i, base + 2 * i + 1),
                        };
                        let (u, v) = (f64::from(x[a]), f64::from(x[b]));
                        expected[a] = u * c - v * s;
                        expected[b] = v * c + u * s;
                    }
                }
            }
            for pool in pools() {
                let mut turned = x.clone();
                rope(&pool, &mut turned, head_dim, &angles, layout).unwrap();
                assert_close("rope", &turned, &expected, |_| 3e-7);
            }
        }
    }
}

#[test]
fn rope_refuses_shapes_that_do_not_fit() {
    let pool = ThreadPool::new(1);
    let mut angles = RopeAngles::new();
    assert!(rope(&pool, &mut [], 4, &angles, RopeLayout::HalfSplit).is_ok());
    assert!(rope(&pool, &mut [0.0; 4], 4, &angles, RopeLayout::HalfSplit).is_err());
    angles.set(&[0, 1], &[1.0, 0.5]);
    assert!(rope(&pool, &mut [0.0; 8], 4, &angles, RopeLayout::HalfSplit).is_ok());
    assert!(matches!(
        rope(&pool, &mut [0.0; 12], 4, &angles, RopeLayout::HalfSplit),
        Err(KernelError::Length { .. })
    ));
    assert!(rope(&pool, &mut [0.0; 8], 2, &angles, RopeLayout::HalfSplit).is_err());
}

#[test]
fn softmax_agrees_with_f64_and_rows_add_up_to_one() {
    let mut random = Random(5);
    for pool in pools() {
        for (rows, cols) in [(1, 1), (3, 17), (2, 64), (40, 1000), (0, 5)] {
            let mut x: Vec<f32> = random.floats(rows * cols).iter().map(|v| v * 20.0).collect();
            let mut expected = Vec::new();
            for row in x.chunks(cols) {
                let row = wide(row);
                let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = row.iter().map(|v| (v - top).exp()).sum();
                expected.extend(row.iter().map(|v| (v - top).exp() / total));
            }
            softmax_rows(&pool, &mut x, rows, cols).unwrap();
            // Taking off the maximum rounds by up to half of a unit in the last place of 40.
            assert_close("softmax", &x, &expected, |i| 5e-6 * expected[i] + 1e-30);
        }
        let mut masked = [1.0, f32::NEG_INFINITY, 1.0];
        softmax_rows(&pool, &mut masked, 1, 3).unwrap();
        assert_eq!(masked, [0.5, 0.0, 0.5]);
    }
}

#[test]
fn half_floats_round_to_nearest_even_like_the_half_crate() {
    let mut random = Random(6);
    let special = [0.0, -0.0, 1.0, 65504.0, 65520.0, 1e-8, 5.9e-8, 6.1e-5, f32::INFINITY, f32::NEG_INFINITY];
    for pool in pools() {
        for n in LENGTHS {
            let mut x: Vec<f32> = random.floats(n).iter().map(|v| v * 100.0).collect();
            for (x, special) in x.iter_mut().zip(special) {
                *x = special;
            }
            let mut bits = vec![0u16; n];
            f32_to_f16(&pool, &x, &mut bits).unwrap();
            let expected: Vec<u16> = x.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
            assert_eq!(bits, expected);
            let mut back = vec![0.0; n];
            f16_to_f32(&pool, &bits, &mut back).unwrap();
            let expected: Vec<f32> = bits.iter().map(|bits| f16::from_bits(*bits).to_f32()).collect();
            assert_eq!(back, expected);
        }
    }
    assert!(f32_to_f16(&ThreadPool::new(1), &[0.0; 2], &mut [0; 3]).is_err());
    assert!(f16_to_f32(&ThreadPool::new(1), &[0; 2], &mut [0.0; 3]).is_err());
}

#[test]
fn argmax_is_the_first_of_the_largest_and_ignores_nan() {
    assert_eq!(argmax(&[]), None);
    assert_eq!(argmax(&[f32::NAN, f32::NAN]), Some(0));
    assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), Some(0));
    assert_eq!(argmax(&[1.0, 3.0, f32::NAN, 3.0]), Some(1));
    let mut random = Random(7);
    for n in [5, 255, 256, 257, 49_152] {
        let mut x = random.floats(n);
        for at in [0, n / 2, n - 1] {
            x[at] = 2.0 + at as f32;
            assert_eq!(argmax(&x), Some(at));
        }
    }
}

#[test]
fn lengths_that_differ_are_refused() {
    let pool = ThreadPool::new(1);
    let mut out = [0.0; 3];
    assert!(silu(&pool, &[0.0; 2], &mut out).is_err());
    assert!(add(&pool, &[0.0; 3], &[0.0; 2], &mut out).is_err());
    assert!(axpy(&pool, 1.0, &[0.0; 4], &mut out).is_err());
    assert!(rms_norm(&pool, &[0.0; 3], 2, &[0.0; 3], 1e-5, &mut out).is_err());
    assert!(rms_norm(&pool, &[0.0; 4], 1, &[0.0; 4], 1e-5, &mut out).is_err());
    assert!(layer_norm(&pool, &[0.0; 3], 1, &[0.0; 3], Some(&[0.0; 2]), 1e-5, &mut out).is_err());
    assert!(softmax_rows(&pool, &mut out, 2, 2).is_err());
}
