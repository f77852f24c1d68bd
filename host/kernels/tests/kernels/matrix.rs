//! Packing: what is rounded, what is kept, and what is refused.

use half::{bf16, f16};
use modularbase_kernels::{
    GgmlBlock, KernelError, LinearOutput, Matrix, Scratch, ThreadPool, WeightFormat, append_ggml_blocks,
    linear,
};

use crate::common::Random;

fn rows(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    matrix.dequantize_rows(0, matrix.rows(), &mut values).unwrap();
    values
}

/// A half that is neither tiny nor infinite.
fn half(random: &mut Random) -> [u8; 2] {
    f16::from_f32(random.float() * 0.1 + 0.2).to_le_bytes()
}

/// Random bytes of a block and the weights that ggml's definition gives them.
fn ggml_block(random: &mut Random, block: GgmlBlock) -> (Vec<u8>, Vec<f32>) {
    let value = |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f32();
    let mut raw = |n: usize| -> Vec<u8> { (0..n).map(|_| random.next() as u8).collect() };
    match block {
        GgmlBlock::F32 | GgmlBlock::F16 | GgmlBlock::BF16 => {
            let x = random.float();
            match block {
                GgmlBlock::F32 => (x.to_le_bytes().to_vec(), vec![x]),
                GgmlBlock::F16 => (f16::from_f32(x).to_le_bytes().to_vec(), vec![f16::from_f32(x).to_f32()]),
                _ => (bf16::from_f32(x).to_le_bytes().to_vec(), vec![bf16::from_f32(x).to_f32()]),
            }
        }
        GgmlBlock::Q8_0 => {
            let q = raw(32);
            let d = half(random);
            (
                [d.to_vec(), q.clone()].concat(),
                q.iter().map(|q| value(d) * f32::from(q.cast_signed())).collect(),
            )
        }
        GgmlBlock::Q4_0 | GgmlBlock::Q4_1 => {
            let q = raw(16);
            let (d, m) = (half(random), half(random));
            let numbers = q.iter().map(|q| q & 15).chain(q.iter().map(|q| q >> 4));
            if block == GgmlBlock::Q4_0 {
                ([d.to_vec(), q.clone()].concat(), numbers.map(|q| value(d) * (f32::from(q) - 8.0)).collect())
            } else {
                (
                    [d.to_vec(), m.to_vec(), q.clone()].concat(),
                    numbers.map(|q| value(d) * f32::from(q) + value(m)).collect(),
                )
            }
        }
        GgmlBlock::Q4_K => {
            let (scales, q) = (raw(12), raw(128));
            let (d, dmin) = (half(random), half(random));
            let six_bits = |j: usize| {
                if j < 4 {
                    (scales[j] & 63, scales[j + 4] & 63)
                } else {
                    (
                        (scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4),
                        (scales[j + 4] >> 4) | ((scales[j] >> 6) << 4),
                    )
                }
            };
            let mut weights = Vec::new();
            for j in 0..8 {
                let (scale, min) = six_bits(j);
                for k in 0..32 {
                    let byte = q[32 * (j / 2) + k];
                    let number = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                    weights
                        .push(value(d) * f32::from(scale) * f32::from(number) - value(dmin) * f32::from(min));
                }
            }
            ([d.to_vec(), dmin.to_vec(), scales, q].concat(), weights)
        }
    }
}

fn ggml_matrix(random: &mut Random, block: GgmlBlock, rows: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..rows * cols / block.width() {
        let (block_bytes, block_weights) = ggml_block(random, block);
        bytes.extend(block_bytes);
        weights.extend(block_weights);
    }
    (bytes, weights)
}

const BLOCKS: [GgmlBlock; 7] = [
    GgmlBlock::F32,
    GgmlBlock::F16,
    GgmlBlock::BF16,
    GgmlBlock::Q4_0,
    GgmlBlock::Q4_1,
    GgmlBlock::Q8_0,
    GgmlBlock::Q4_K,
];

#[test]
fn ggml_blocks_are_repacked_without_loss_and_q4_k_within_its_stated_rounding() {
    let mut random = Random(1);
    for block in BLOCKS {
        for (n, cols) in [(1, 256), (35, 512), (16, 256)] {
            let (bytes, weights) = ggml_matrix(&mut random, block, n, cols);
            let matrix = Matrix::from_ggml(block, n, cols, &bytes, None).unwrap();
            for (found, wanted) in rows(&matrix).iter().zip(&weights) {
                if block == GgmlBlock::Q4_K {
                    // Products up to 0.3 * 63 * 15 and 0.3 * 63, each rounded by 2^-11 of itself.
                    assert!((found - wanted).abs() <= (283.5 + 18.9) / 2048.0, "{found} {wanted}");
                } else {
                    assert!(
                        (found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
                        "{block:?} {found} {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_map_picks_and_reorders_source_rows() {
    let mut random = Random(2);
    for block in BLOCKS {
        let (bytes, _) = ggml_matrix(&mut random, block, 40, 256);
        let whole = rows(&Matrix::from_ggml(block, 40, 256, &bytes, None).unwrap());
        let map = [39, 0, 7, 7, 12];
        let picked = rows(&Matrix::from_ggml(block, 5, 256, &bytes, Some(&map)).unwrap());
        for (row, source) in map.iter().enumerate() {
            assert_eq!(picked[row * 256..][..256], whole[*source as usize * 256..][..256], "{block:?}");
        }
    }
    let (bytes, _) = ggml_matrix(&mut random, GgmlBlock::Q8_0, 4, 32);
    let map = |map: &[u32]| Matrix::from_ggml(GgmlBlock::Q8_0, 2, 32, &bytes, Some(map)).unwrap_err();
    assert_eq!(map(&[0, 4]), KernelError::RowMap { index: 1, row: 4, source_rows: 4 });
    assert!(matches!(map(&[0]), KernelError::Length { expected: 2, found: 1, .. }));
}

#[test]
fn truncated_or_excess_bytes_are_refused() {
    let mut random = Random(3);
    for block in BLOCKS {
        let (mut bytes, _) = ggml_matrix(&mut random, block, 3, 256);
        let expected = bytes.len();
        for len in [0, 1, expected - 1, expected - 256 / block.width() * block.bytes()] {
            let error = Matrix::from_ggml(block, 3, 256, &bytes[..len], None).unwrap_err();
            assert_eq!(error, KernelError::Bytes { block, rows: 3, cols: 256, expected, found: len });
        }
        bytes.push(0);
        assert!(Matrix::from_ggml(block, 3, 256, &bytes, None).is_err());
        assert!(Matrix::from_ggml(block, 3, 256, &bytes, Some(&[0, 1, 2])).is_err());
    }
}

#[test]
fn shapes_that_overflow_or_do_not_fit_blocks_are_refused() {
    let huge = usize::MAX / 64 * 32;
    for format in [WeightFormat::F32, WeightFormat::Q4_1, WeightFormat::Q8_0] {
        assert!(matches!(Matrix::from_f32(format, huge, 64, &[]), Err(KernelError::TooLarge { .. })));
        assert!(matches!(Matrix::from_f32(format, 2, huge, &[]), Err(KernelError::TooLarge { .. })));
        assert!(matches!(Matrix::from_f32(format, 0, 32, &[]), Err(KernelError::Empty { .. })));
        assert!(matches!(Matrix::from_f32(format, 1, 0, &[]), Err(KernelError::Empty { .. })));
        assert!(matches!(
            Matrix::from_f32(format, 1, 32, &[0.0; 31]),
            Err(KernelError::Length { expected: 32, found: 31, .. })
        ));
    }
    let error = Matrix::from_f32(WeightFormat::Q4_1, 1, 100, &[0.0; 100]).unwrap_err();
    assert_eq!(error, KernelError::BlockWidth { format: WeightFormat::Q4_1, multiple: 32, cols: 100 });
    let error = Matrix::from_ggml(GgmlBlock::Q4_K, 1, 96, &[], None).unwrap_err();
    assert_eq!(error, KernelError::GgmlWidth { block: GgmlBlock::Q4_K, multiple: 256, cols: 96 });
    assert!(matches!(
        Matrix::from_ggml(GgmlBlock::Q8_0, huge, 64, &[0; 34], None),
        Err(KernelError::TooLarge { .. })
    ));
    let matrix = Matrix::from_f32(WeightFormat::F32, 3, 2, &[0.0; 6]).unwrap();
    let mut out = [0.0; 4];
    for (first, count) in [(2, 2), (4, 0), (usize::MAX, 2)] {
        let error = matrix.dequantize_rows(first, count, &mut out).unwrap_err();
        assert_eq!(error, KernelError::RowRange { first, count, rows: 3 });
    }
    assert!(matches!(matrix.dequantize_rows(0, 1, &mut out), Err(KernelError::Length { .. })));
}

#[test]
fn rounding_stays_within_half_a_step_of_each_format() {
    let mut random = Random(4);
    let (n, cols) = (19, 320);
    let values = random.floats(n * cols);
    for (format, step) in [
        (WeightFormat::F32, 0.0),
        (WeightFormat::F16, 2.0f32.powi(-10)),
        (WeightFormat::BF16, 2.0f32.powi(-7)),
        (WeightFormat::Q8_0, 1.0 / 127.0),
        // The value of largest magnitude is at one end, so one that is as large with the other sign is cut to 7.
        (WeightFormat::Q4_0, 2.0 / 8.0),
        (WeightFormat::Q4_1, 2.0 / 15.0),
    ] {
        let matrix = Matrix::from_f32(format, n, cols, &values).unwrap();
        assert_eq!((matrix.rows(), matrix.cols(), matrix.format()), (n, cols, format));
        for (found, wanted) in rows(&matrix).iter().zip(&values) {
            // The f16 scale and minimum add up to 2^-11 of the largest weight each.
            let scales = if format.is_quantized() { 1.5e-3 } else { 0.0 };
            assert!((found - wanted).abs() <= 0.5 * step + scales, "{format:?} {found} {wanted}");
        }
    }
}

#[test]
fn bytes_are_those_of_whole_tiles() {
    for (format, per_block) in [
        (WeightFormat::F32, 128),
        (WeightFormat::F16, 64),
        (WeightFormat::BF16, 64),
        (WeightFormat::Q8_0, 34),
        (WeightFormat::Q4_0, 18),
        (WeightFormat::Q4_1, 20),
    ] {
        for (n, padded) in [(1, 16), (16, 16), (17, 32)] {
            let matrix = Matrix::from_f32(format, n, 96, &vec![1.0; n * 96]).unwrap();
            assert_eq!(matrix.bytes(), padded * 3 * per_block, "{format:?} {n}");
        }
    }
}

#[test]
fn extreme_values_pack_without_panic() {
    let pool = ThreadPool::new(1);
    for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4_1, WeightFormat::F16] {
        for value in [0.0, 1e-42, 1e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut values = Random(5).floats(64);
            values[3] = value;
            let matrix = Matrix::from_f32(format, 2, 32, &values).unwrap();
            let mut out = [0.0; 2];
            let output = LinearOutput { weight: &matrix, bias: None, out: &mut out, accumulate: false };
            linear(&pool, &[1.0; 32], 1, &mut [output], &mut Scratch::new()).unwrap();
            assert!(out[1].is_finite());
        }
    }
}

#[test]
fn rows_of_a_matrix_are_the_same_to_the_bit_as_a_matrix_of_their_own_shared_or_not() {
    let (rows, cols) = (80, 64);
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
    let formats = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::BF16,
        WeightFormat::Q8_0,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
    ];
    for format in formats {
        let matrix = Matrix::from_f32(format, rows, cols, &values).unwrap();
        for (first, count, shared) in
            [(16, 32, true), (64, 16, true), (48, 32, true), (16, 30, false), (5, 33, false)]
        {
            let part = matrix.row_block(first, count).unwrap();
            assert_eq!(part.shares_memory_with(&matrix), shared, "{format:?} {first} {count}");
            assert_eq!(part.bytes(), Matrix::packed_bytes(format, count, cols).unwrap());
            let (mut found, mut expected) = (vec![0.0; count * cols], vec![0.0; count * cols]);
            part.dequantize_rows(0, count, &mut found).unwrap();
            matrix.dequantize_rows(first, count, &mut expected).unwrap();
            assert_eq!(found, expected, "{format:?} {first} {count}");
        }
        assert!(matrix.row_block(70, 11).is_err() && matrix.row_block(3, 0).is_err());
    }
}

#[test]
fn values_rounded_for_a_file_are_packed_as_those_rounded_for_a_matrix() {
    let (rows, cols) = (17, 96);
    let mut random = Random(5);
    let values: Vec<f32> = (0..rows * cols).map(|_| random.float()).collect();
    for block in [GgmlBlock::Q8_0, GgmlBlock::Q4_0, GgmlBlock::Q4_1] {
        let mut bytes = Vec::new();
        append_ggml_blocks(block, &values, &mut bytes).unwrap();
        let from_file = Matrix::from_ggml(block, rows, cols, &bytes, None).unwrap();
        let direct = Matrix::from_f32(block.packed_format(), rows, cols, &values).unwrap();
        assert_eq!(self::rows(&from_file), self::rows(&direct), "{block:?}");
    }
    assert!(append_ggml_blocks(GgmlBlock::Q8_0, &values[..33], &mut Vec::new()).is_err());
    assert!(append_ggml_blocks(GgmlBlock::F16, &values, &mut Vec::new()).is_err());
}
