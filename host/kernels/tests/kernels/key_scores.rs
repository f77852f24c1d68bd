//! Scores of queries against keys, and rotations by ranges of positions.

use half::f16;
use modularbase_kernels::{KernelError, RopeAngles, RopeLayout, key_scores, rope, rope_rows};

use crate::common::{Random, assert_close, pools};

#[test]
fn key_scores_are_dot_products_of_each_query_head_with_its_kv_head() {
    let mut random = Random(11);
    for (heads, kv_heads, head_dim, m, count) in
        [(9, 3, 64, 1, 100), (9, 3, 64, 16, 33), (4, 1, 20, 3, 1), (2, 2, 128, 2, 16), (6, 1, 32, 2, 0)]
    {
        let q = random.floats(m * heads * head_dim);
        let keys: Vec<f16> =
            random.floats(count * kv_heads * head_dim).into_iter().map(f16::from_f32).collect();
        let bits: Vec<u16> = keys.iter().map(|key| key.to_bits()).collect();
        let mut expected = vec![0.0; m * heads * count];
        for (query, scores) in expected.chunks_mut(count.max(1)).enumerate() {
            let kv_head = query % heads / (heads / kv_heads);
            for (token, score) in scores.iter_mut().enumerate() {
                let key = &keys[(token * kv_heads + kv_head) * head_dim..][..head_dim];
                let q = &q[query * head_dim..][..head_dim];
                *score = q.iter().zip(key).map(|(q, k)| f64::from(*q) * k.to_f64()).sum::<f64>();
            }
        }
        for pool in pools() {
            let mut found = vec![f32::NAN; expected.len()];
            key_scores(&pool, &q, &bits, (heads, kv_heads, head_dim), &mut found).unwrap();
            assert_close("scores", &found, &expected, |_| 1e-5);
        }
    }
}

#[test]
fn key_scores_refuse_shapes_that_do_not_fit() {
    let pool = &pools()[0];
    let score = |q: usize, keys: usize, heads, out: usize| {
        key_scores(pool, &vec![0.0; q], &vec![0; keys], heads, &mut vec![0.0; out])
    };
    assert!(score(8, 8, (2, 1, 4), 4).is_ok());
    assert!(matches!(score(8, 8, (3, 2, 4), 4), Err(KernelError::Attention { .. })));
    assert!(matches!(score(8, 8, (2, 1, 4), 3), Err(KernelError::Length { .. })));
    assert!(matches!(score(9, 8, (2, 1, 4), 4), Err(KernelError::Length { .. })));
    assert!(matches!(score(1024, 1024, (1, 1, 1024), 1), Err(KernelError::Attention { .. })));
}

#[test]
fn a_range_of_positions_turns_as_the_positions_do_and_back_again() {
    let mut random = Random(12);
    let frequencies: Vec<f32> = (0..32).map(|i| 1e5f32.powf(-(i as f32) / 32.0)).collect();
    let pool = &pools()[0];
    for first in [0u32, 700, 8_192, 99_900] {
        let x = random.floats(100 * 64);
        let (mut listed, mut ranged) = (RopeAngles::new(), RopeAngles::new());
        listed.set(&(first..first + 100).collect::<Vec<_>>(), &frequencies);
        ranged.set_range(i64::from(first), 1, 100, &frequencies);
        let (mut one, mut other) = (x.clone(), x.clone());
        rope(pool, &mut one, 64, &listed, RopeLayout::HalfSplit).unwrap();
        rope_rows(pool, &mut other[..40 * 64], 64, &ranged, 0..40, RopeLayout::HalfSplit).unwrap();
        rope_rows(pool, &mut other[40 * 64..], 64, &ranged, 40..100, RopeLayout::HalfSplit).unwrap();
        let close = |what: &str, found: &[f32], expected: &[f32], tolerance: f64| {
            let expected: Vec<f64> = expected.iter().map(|value| f64::from(*value)).collect();
            assert_close(what, found, &expected, |_| tolerance);
        };
        // Below 8,192 a listed position's product is rounded to f32, as the reference models round it.
        close("turned", &other, &one, if first < 8_192 { 6e-5 } else { 2e-7 });
        ranged.set_range(-i64::from(first), -1, 100, &frequencies);
        rope(pool, &mut other, 64, &ranged, RopeLayout::HalfSplit).unwrap();
        close("turned back", &other, &x, 5e-7);
        assert!(rope_rows(pool, &mut other, 64, &ranged, 1..101, RopeLayout::HalfSplit).is_err());
    }
}
