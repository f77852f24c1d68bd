//! Matrix products in every format at every level against sums in f64.

use crate::common::{Random, assert_close, pools};
use modularbase_kernels::{KernelError, LinearOutput, Matrix, Scratch, ThreadPool, WeightFormat, linear};

const FORMATS: [WeightFormat; 6] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::BF16,
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
];

fn dequantized(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    matrix.dequantize_rows(0, matrix.rows(), &mut values).unwrap();
    values
}

/// The product with the packed weights in f64, and for each output how far rounding may take it: for quantized
/// formats half an int8 step of each block's activations, times the weights' magnitudes; f32 rounding besides.
fn expected(matrix: &Matrix, x: &[f32], m: usize) -> (Vec<f64>, Vec<f64>) {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let weights = dequantized(matrix);
    let (mut values, mut bounds) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(cols).take(m) {
        let step = |k: usize| {
            let block = &x[k / 32 * 32..(k / 32 * 32 + 32).min(cols)];
            f64::from(block.iter().fold(0.0f32, |top, x| top.max(x.abs()))) / 127.0
        };
        let steps: Vec<f64> = (0..cols).map(step).collect();
        for row in 0..rows {
            let (mut sum, mut bound) = (0.0, 1e-6);
            for (k, (x, w)) in x.iter().zip(&weights[row * cols..][..cols]).enumerate() {
                let product = f64::from(*x) * f64::from(*w);
                sum += product;
                bound += product.abs() * 4e-6;
                if matrix.format().is_quantized() {
                    // Affine blocks multiply the numbers and the minimum by the rounded activations separately, but
                    // the sum is that of the same rounded activations.
                    bound += 0.501 * steps[k] * f64::from(w.abs());
                }
            }
            values.push(sum);
            bounds.push(bound);
        }
    }
    (values, bounds)
}

fn run(pool: &ThreadPool, matrix: &Matrix, x: &[f32], m: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * matrix.rows()];
    let output = LinearOutput { weight: matrix, bias: None, out: &mut out, accumulate: false };
    linear(pool, x, m, &mut [output], &mut Scratch::new()).unwrap();
    out
}

#[test]
fn every_format_and_level_agrees_with_f64_within_the_bound_of_int8_rounding() {
    let mut random = Random(1);
    for (rows, cols) in [(1, 32usize), (16, 64), (37, 576), (50, 1536), (33, 100), (130, 96)] {
        for format in FORMATS {
            if !cols.is_multiple_of(format.block_width()) {
                continue;
            }
            let matrix = Matrix::from_f32(format, rows, cols, &random.floats(rows * cols)).unwrap();
            for m in [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 23, 24, 25, 33] {
                let x = random.floats(m * cols);
                let (values, bounds) = expected(&matrix, &x, m);
                for pool in pools() {
                    let what = format!("{format:?} [{rows}, {cols}] m={m} {:?}", pool.level());
                    assert_close(&what, &run(&pool, &matrix, &x, m), &values, |i| bounds[i]);
                }
            }
        }
    }
}

#[test]
fn levels_with_fused_multiplication_agree_to_the_bit_for_quantized_formats() {
    let mut random = Random(2);
    let x = random.floats(9 * 576);
    for format in FORMATS.into_iter().filter(|format| format.is_quantized()) {
        let matrix = Matrix::from_f32(format, 70, 576, &random.floats(70 * 576)).unwrap();
        let results: Vec<_> = pools().iter().skip(1).map(|pool| run(pool, &matrix, &x, 9)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{format:?}");
    }
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_every_batch() {
    let mut random = Random(3);
    let (rows, cols) = (75, 160);
    let x = random.floats(40 * cols);
    for format in FORMATS {
        let matrix = Matrix::from_f32(format, rows, cols, &random.floats(rows * cols)).unwrap();
        for pool in pools() {
            let alone: Vec<f32> = x.chunks(cols).flat_map(|x| run(&pool, &matrix, x, 1)).collect();
            for m in 1..=40 {
                let batch = run(&pool, &matrix, &x[..m * cols], m);
                assert_eq!(batch, alone[..m * rows], "{format:?} m={m} {:?}", pool.level());
            }
        }
    }
}

#[test]
fn several_outputs_of_mixed_formats_share_one_input() {
    let mut random = Random(4);
    let (m, cols) = (5, 96);
    let x = random.floats(m * cols);
    let matrices: Vec<Matrix> = (0..11)
        .map(|i| {
            let rows = 7 + 13 * i;
            Matrix::from_f32(FORMATS[i % 6], rows, cols, &random.floats(rows * cols)).unwrap()
        })
        .collect();
    for pool in pools() {
        let mut outs: Vec<Vec<f32>> = matrices.iter().map(|matrix| vec![1.5; m * matrix.rows()]).collect();
        let biases: Vec<Vec<f32>> = matrices.iter().map(|matrix| random.floats(matrix.rows())).collect();
        let mut outputs: Vec<LinearOutput<'_>> = matrices
            .iter()
            .zip(&mut outs)
            .zip(&biases)
            .enumerate()
            .map(|(i, ((weight, out), bias))| LinearOutput {
                weight,
                bias: (i % 2 == 0).then_some(bias),
                out,
                accumulate: i % 3 == 0,
            })
            .collect();
        linear(&pool, &x, m, &mut outputs, &mut Scratch::new()).unwrap();
        for (i, (matrix, out)) in matrices.iter().zip(&outs).enumerate() {
            let (mut values, bounds) = expected(matrix, &x, m);
            for (at, value) in values.iter_mut().enumerate() {
                if i % 2 == 0 {
                    *value += f64::from(biases[i][at % matrix.rows()]);
                }
                if i % 3 == 0 {
                    *value += 1.5;
                }
            }
            assert_close(&format!("output {i} {:?}", pool.level()), out, &values, |i| bounds[i] + 1e-5);
        }
    }
}

#[test]
fn activations_that_are_not_finite_spoil_only_their_own_row() {
    let mut random = Random(5);
    let cols = 64;
    for format in FORMATS {
        let matrix = Matrix::from_f32(format, 20, cols, &random.floats(20 * cols)).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.floats(3 * cols);
            let clean = x.clone();
            x[cols + 5] = bad;
            for pool in pools() {
                let (found, wanted) = (run(&pool, &matrix, &x, 3), run(&pool, &matrix, &clean, 3));
                assert_eq!(found[..20], wanted[..20]);
                assert_eq!(found[40..], wanted[40..]);
                assert!(found[20..40].iter().all(|v| !v.is_finite()), "{format:?} {bad} {:?}", pool.level());
            }
        }
    }
}

#[test]
fn the_largest_numbers_of_every_format_do_not_saturate() {
    let (rows, cols) = (16, 64);
    for format in FORMATS.into_iter().filter(|format| format.is_quantized()) {
        for (weights, activations) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            // One value of the other sign in each block, so that all others are at the end of the scale.
            let values: Vec<f32> =
                (0..rows * cols).map(|i| if i % 32 == 5 { -weights } else { weights }).collect();
            let matrix = Matrix::from_f32(format, rows, cols, &values).unwrap();
            let x = vec![activations; 3 * cols];
            let (values, bounds) = expected(&matrix, &x, 3);
            for pool in pools() {
                let what = format!("{format:?} {weights} {activations} {:?}", pool.level());
                assert_close(&what, &run(&pool, &matrix, &x, 3), &values, |i| bounds[i]);
            }
        }
    }
}

#[test]
fn zero_and_tiny_activations_give_zero() {
    let matrix = Matrix::from_f32(WeightFormat::Q4_1, 16, 32, &Random(6).floats(512)).unwrap();
    for pool in pools() {
        assert_eq!(run(&pool, &matrix, &[0.0; 32], 1), [0.0; 16]);
        assert!(run(&pool, &matrix, &[1e-40; 32], 1).iter().all(|v| v.abs() < 1e-30));
    }
}

#[test]
fn a_second_call_of_the_same_size_allocates_nothing() {
    let pool = ThreadPool::new(2);
    let matrix = Matrix::from_f32(WeightFormat::Q8_0, 64, 64, &Random(7).floats(4096)).unwrap();
    let x = Random(8).floats(30 * 64);
    let mut scratch = Scratch::new();
    let mut sizes = Vec::new();
    for m in [30, 30, 2, 30] {
        let mut out = vec![0.0; m * 64];
        let output = LinearOutput { weight: &matrix, bias: None, out: &mut out, accumulate: false };
        linear(&pool, &x[..m * 64], m, &mut [output], &mut scratch).unwrap();
        sizes.push(scratch.bytes());
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

#[test]
fn wrong_sizes_are_refused_and_nothing_is_written() {
    let pool = ThreadPool::new(1);
    let matrix = Matrix::from_f32(WeightFormat::F32, 3, 4, &[1.0; 12]).unwrap();
    let other = Matrix::from_f32(WeightFormat::F32, 3, 5, &[1.0; 15]).unwrap();
    let mut scratch = Scratch::new();
    let mut out = [7.0; 6];
    let mut call = |weight, x: &[f32], m: usize, bias: Option<&[f32]>, n: usize| {
        let mut ok_out = [0.0; 6];
        let good =
            LinearOutput { weight: &matrix, bias: None, out: &mut ok_out[..3 * m.min(2)], accumulate: false };
        let bad = LinearOutput { weight, bias, out: &mut out[..n], accumulate: false };
        linear(&pool, x, m, &mut [good, bad], &mut scratch)
    };
    assert!(matches!(
        call(&matrix, &[1.0; 7], 2, None, 6),
        Err(KernelError::Length { expected: 8, found: 7, .. })
    ));
    assert!(matches!(
        call(&matrix, &[1.0; 8], 2, None, 5),
        Err(KernelError::Length { expected: 6, found: 5, .. })
    ));
    assert!(matches!(call(&matrix, &[1.0; 8], 2, Some(&[1.0; 2]), 6), Err(KernelError::Length { .. })));
    assert!(matches!(
        call(&other, &[1.0; 8], 2, None, 6),
        Err(KernelError::Columns { input: 4, cols: 5, .. })
    ));
    assert!(matches!(call(&matrix, &[1.0; 8], usize::MAX, None, 6), Err(KernelError::TooLarge { .. })));
    assert_eq!(out, [7.0; 6]);
    assert!(linear(&pool, &[], 0, &mut [], &mut scratch).is_ok());
}
