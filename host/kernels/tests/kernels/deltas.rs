//! Products with weights and deltas together, against sums in f64 and against the parts.

use std::sync::Arc;

use crate::common::{Random, assert_close, pools};
use modularbase_deltas::{DeltaFormat, Levels, decode_into, encode, fit_levels};
use modularbase_kernels::{
    DeltaMatrix, KernelError, LinearOutput, Matrix, Scratch, ThreadPool, WeightFormat, linear,
};

const BASES: [WeightFormat; 3] = [WeightFormat::Q4_1, WeightFormat::Q8_0, WeightFormat::BF16];

struct Deltas {
    values: Vec<f32>,
    /// Largest error of a value by rounding levels to 8 bits.
    rounding: f32,
    packed: Arc<DeltaMatrix>,
}

fn deltas(random: &mut Random, format: DeltaFormat, rows: usize, cols: usize) -> Deltas {
    // Groups of different sizes, one of zeros, and levels that are not symmetric.
    let mut wanted = random.floats(rows * cols);
    for (group, values) in wanted.chunks_mut(64).enumerate() {
        let size = [0.1, 0.02, 0.0, 0.3][group % 4];
        values.iter_mut().for_each(|value| *value *= size);
    }
    let fitted = fit_levels(&wanted, format).unwrap();
    let levels: Vec<f32> =
        fitted.as_slice().iter().map(|level| if *level > 0.0 { 1.1 * level } else { *level }).collect();
    let levels = Levels::new(format, &levels).unwrap();
    let blocks = encode(&wanted, &levels).unwrap();
    let mut values = vec![0.0; rows * cols];
    decode_into(&blocks, &levels, &mut values).unwrap();
    let largest = values.iter().fold(0.0f32, |top, value| top.max(value.abs()));
    let packed = Arc::new(DeltaMatrix::pack(rows, cols, &blocks, &levels).unwrap());
    Deltas { values, rounding: largest / 127.0, packed }
}

fn base(random: &mut Random, format: WeightFormat, rows: usize, cols: usize) -> Matrix {
    Matrix::from_f32(format, rows, cols, &random.floats(rows * cols)).unwrap()
}

fn dequantized(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    matrix.dequantize_rows(0, matrix.rows(), &mut values).unwrap();
    values
}

fn run(pool: &ThreadPool, matrix: &Matrix, x: &[f32], m: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * matrix.rows()];
    let output = LinearOutput { weight: matrix, bias: None, out: &mut out, accumulate: false };
    linear(pool, x, m, &mut [output], &mut Scratch::new()).unwrap();
    out
}

#[test]
fn packed_deltas_are_the_coded_ones_with_levels_of_eight_bits() {
    let mut random = Random(21);
    for format in DeltaFormat::ALL {
        for (rows, cols) in [(1, 64), (16, 128), (37, 576), (50, 1536)] {
            let matrix = base(&mut random, WeightFormat::F32, rows, cols);
            let Deltas { values, rounding, packed } = deltas(&mut random, format, rows, cols);
            assert_eq!(packed.bytes(), rows.div_ceil(16) * 16 * cols / 64 * format.block_bytes());
            assert_eq!(Ok(packed.bytes()), DeltaMatrix::packed_bytes(format, rows, cols));
            let sum = matrix.with_delta(Arc::clone(&packed)).unwrap();
            assert_eq!(sum.bytes(), packed.bytes(), "the base's part is the base's");
            let expected: Vec<f64> = dequantized(&matrix)
                .iter()
                .zip(&values)
                .map(|(base, delta)| f64::from(*base) + f64::from(*delta))
                .collect();
            let bound = f64::from(rounding) * 0.51 + 1e-6;
            assert_close(&format!("{format} [{rows}, {cols}]"), &dequantized(&sum), &expected, |_| bound);
        }
    }
}

#[test]
fn products_with_deltas_agree_with_f64_within_the_bound_of_int8_rounding() {
    let mut random = Random(22);
    for (rows, cols) in [(1, 64usize), (37, 576), (50, 192)] {
        for (format, delta_format) in
            BASES.into_iter().zip([DeltaFormat::Q2, DeltaFormat::Q3, DeltaFormat::Q1])
        {
            let matrix = base(&mut random, format, rows, cols);
            let packed = deltas(&mut random, delta_format, rows, cols).packed;
            let sum = matrix.with_delta(packed).unwrap();
            let (base, both) = (dequantized(&matrix), dequantized(&sum));
            for m in [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 23, 24, 25, 33] {
                let x = random.floats(m * cols);
                let mut expected = Vec::new();
                let mut bounds = Vec::new();
                for x in x.chunks_exact(cols) {
                    let step = |k: usize| {
                        let block = &x[k / 32 * 32..k / 32 * 32 + 32];
                        f64::from(block.iter().fold(0.0f32, |top, x| top.max(x.abs()))) / 127.0
                    };
                    for row in 0..rows {
                        let (mut value, mut bound) = (0.0, 1e-5);
                        for k in 0..cols {
                            let (w, b) = (f64::from(both[row * cols + k]), f64::from(base[row * cols + k]));
                            value += f64::from(x[k]) * w;
                            bound += (f64::from(x[k]) * w).abs() * 8e-6
                                + 0.501 * step(k) * (b.abs() + (w - b).abs());
                        }
                        expected.push(value);
                        bounds.push(bound);
                    }
                }
                for pool in pools() {
                    let what = format!("{format:?} {delta_format} [{rows}, {cols}] m={m} {:?}", pool.level());
                    assert_close(&what, &run(&pool, &sum, &x, m), &expected, |i| bounds[i]);
                }
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_every_batch_with_deltas_too() {
    let mut random = Random(23);
    let (rows, cols) = (75, 192);
    let x = random.floats(40 * cols);
    for format in BASES {
        for delta_format in DeltaFormat::ALL {
            let packed = deltas(&mut random, delta_format, rows, cols).packed;
            let sum = base(&mut random, format, rows, cols).with_delta(packed).unwrap();
            for pool in pools() {
                let alone: Vec<f32> = x.chunks(cols).flat_map(|x| run(&pool, &sum, x, 1)).collect();
                for m in 1..=40 {
                    let batch = run(&pool, &sum, &x[..m * cols], m);
                    assert_eq!(
                        batch,
                        alone[..m * rows],
                        "{format:?} {delta_format} m={m} {:?}",
                        pool.level()
                    );
                }
            }
        }
    }
}

#[test]
fn levels_with_fused_multiplication_agree_to_the_bit_on_deltas() {
    let mut random = Random(24);
    let x = random.floats(9 * 576);
    for format in DeltaFormat::ALL {
        let packed = deltas(&mut random, format, 70, 576).packed;
        let sum = base(&mut random, WeightFormat::Q4_1, 70, 576).with_delta(packed).unwrap();
        let results: Vec<_> = pools().iter().skip(1).map(|pool| run(pool, &sum, &x, 9)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{format}");
    }
}

#[test]
fn deltas_of_zero_change_nothing_and_bias_and_sums_stand_beside_deltas() {
    let mut random = Random(25);
    let (rows, cols, m) = (40, 128, 6);
    let x = random.floats(m * cols);
    let levels = Levels::gaussian(DeltaFormat::Q2, 1.0);
    let zeros = encode(&vec![0.0; rows * cols], &levels).unwrap();
    let zeros = Arc::new(DeltaMatrix::pack(rows, cols, &zeros, &levels).unwrap());
    for format in BASES {
        let matrix = base(&mut random, format, rows, cols);
        let packed = deltas(&mut random, DeltaFormat::Q2, rows, cols).packed;
        let (with_zeros, sum) =
            (matrix.with_delta(zeros.clone()).unwrap(), matrix.with_delta(packed).unwrap());
        let bias = random.floats(rows);
        for pool in pools() {
            assert_eq!(run(&pool, &with_zeros, &x, m), run(&pool, &matrix, &x, m));
            let plain = run(&pool, &sum, &x, m);
            let mut out = vec![1.5; m * rows];
            let output = LinearOutput { weight: &sum, bias: Some(&bias), out: &mut out, accumulate: true };
            linear(&pool, &x, m, &mut [output], &mut Scratch::new()).unwrap();
            let expected: Vec<f64> = plain
                .iter()
                .enumerate()
                .map(|(at, value)| f64::from(*value) + f64::from(bias[at % rows]) + 1.5)
                .collect();
            assert_close(&format!("{format:?} {:?}", pool.level()), &out, &expected, |_| 1e-4);
        }
    }
}

#[test]
fn rows_of_a_matrix_with_deltas_are_those_of_the_whole() {
    let mut random = Random(26);
    let (rows, cols) = (64, 128);
    let x = random.floats(3 * cols);
    for format in DeltaFormat::ALL {
        let packed = deltas(&mut random, format, rows, cols).packed;
        let matrix = base(&mut random, WeightFormat::Q8_0, rows, cols).with_delta(packed).unwrap();
        for (first, count) in [(16, 32), (48, 16), (0, 64), (5, 20), (16, 7)] {
            let part = matrix.row_block(first, count).unwrap();
            let shared = part.shares_memory_with(&matrix);
            assert_eq!(shared, first % 16 == 0 && count % 16 == 0, "{first} {count}");
            let whole = dequantized(&matrix);
            assert_eq!(dequantized(&part), whole[first * cols..(first + count) * cols]);
            let deltas = DeltaMatrix::packed_bytes(format, count, cols).unwrap();
            let base = Matrix::packed_bytes(WeightFormat::Q8_0, count, cols).unwrap();
            assert_eq!(part.bytes(), if shared { deltas } else { deltas + base });
            for pool in pools() {
                let (all, some) = (run(&pool, &matrix, &x, 3), run(&pool, &part, &x, 3));
                for row in 0..3 {
                    let expected = &all[row * rows + first..row * rows + first + count];
                    assert_eq!(&some[row * count..(row + 1) * count], expected, "{format} {first} {count}");
                }
            }
        }
    }
}

#[test]
fn deltas_that_do_not_fit_are_refused() {
    let levels = Levels::gaussian(DeltaFormat::Q1, 1.0);
    let pack = |rows, cols, bytes| DeltaMatrix::pack(rows, cols, &vec![0; bytes], &levels).map(|_| ());
    assert!(matches!(pack(0, 64, 0), Err(KernelError::Empty { .. })));
    assert!(matches!(pack(1, 96, 15), Err(KernelError::DeltaWidth { multiple: 64, cols: 96 })));
    assert!(matches!(pack(2, 64, 19), Err(KernelError::Length { expected: 20, found: 19, .. })));
    assert!(matches!(pack(usize::MAX, 64, 0), Err(KernelError::TooLarge { .. })));
    let matrix = base(&mut Random(27), WeightFormat::F32, 4, 64);
    let other = Arc::new(DeltaMatrix::pack(5, 64, &[0; 50], &levels).unwrap());
    assert!(matches!(matrix.with_delta(other), Err(KernelError::Length { expected: 4, found: 5, .. })));
    let fitting = Arc::new(DeltaMatrix::pack(4, 64, &[0; 40], &levels).unwrap());
    let once = matrix.with_delta(Arc::clone(&fitting)).unwrap();
    assert!(matches!(once.with_delta(fitting), Err(KernelError::SecondDelta)));
}
