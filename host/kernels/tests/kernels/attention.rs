//! Attention at every level against sums in f64.

use crate::common::{Random, assert_close, pools};
use half::f16;
use modularbase_kernels::{
    AttentionJob, AttentionShape, KernelError, KvSlice, Scratch, ThreadPool, attention,
};

pub(crate) struct Case {
    pub q: Vec<f32>,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    pub past: usize,
    pub m: usize,
}

pub(crate) fn case(random: &mut Random, shape: AttentionShape, past: usize, m: usize) -> Case {
    let width = shape.kv_heads * shape.head_dim;
    // Numbers that f16 holds exactly, so that both caches have one reference.
    let mut numbers =
        |n: usize| -> Vec<f32> { (0..n).map(|_| f16::from_f32(2.0 * random.float()).to_f32()).collect() };
    Case {
        q: numbers(m * shape.heads * shape.head_dim),
        keys: numbers((past + m) * width),
        values: numbers((past + m) * width),
        past,
        m,
    }
}

fn expected(case: &Case, shape: AttentionShape) -> Vec<f64> {
    let AttentionShape { heads, kv_heads, head_dim: hd, scale, causal } = shape;
    let mut out = vec![0.0; case.m * heads * hd];
    for row in 0..case.m {
        let seen = if causal { case.past + row + 1 } else { case.past + case.m };
        for head in 0..heads {
            let kv = head / (heads / kv_heads);
            let q = &case.q[(row * heads + head) * hd..][..hd];
            let at = |token: usize| (token * kv_heads + kv) * hd;
            let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
            let scores: Vec<f64> =
                (0..seen).map(|token| dot(&case.keys[at(token)..][..hd]) * f64::from(scale)).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (token, weight) in weights.iter().enumerate() {
                for d in 0..hd {
                    out[(row * heads + head) * hd + d] +=
                        weight / total * f64::from(case.values[at(token) + d]);
                }
            }
        }
    }
    out
}

pub(crate) fn run(pool: &ThreadPool, cases: &[&Case], shape: AttentionShape, half: bool) -> Vec<Vec<f32>> {
    let bits = |values: &[f32]| -> Vec<u16> { values.iter().map(|v| f16::from_f32(*v).to_bits()).collect() };
    let caches: Vec<(Vec<u16>, Vec<u16>)> =
        cases.iter().map(|case| (bits(&case.keys), bits(&case.values))).collect();
    let mut outs: Vec<Vec<f32>> = cases.iter().map(|case| vec![f32::NAN; case.q.len()]).collect();
    let mut jobs: Vec<AttentionJob<'_>> = cases
        .iter()
        .zip(&mut outs)
        .zip(&caches)
        .map(|((case, out), (keys, values))| AttentionJob {
            q: &case.q,
            keys: if half { KvSlice::F16(keys) } else { KvSlice::F32(&case.keys) },
            values: if half { KvSlice::F16(values) } else { KvSlice::F32(&case.values) },
            kv_len: case.past + case.m,
            past: case.past,
            out,
        })
        .collect();
    attention(pool, &mut jobs, shape, &mut Scratch::new()).unwrap();
    drop(jobs);
    outs
}

pub(crate) fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), causal: true }
}

#[test]
fn every_shape_and_level_agrees_with_f64() {
    let mut random = Random(1);
    let shapes = [
        shape(9, 3, 64),
        shape(4, 4, 16),
        shape(14, 2, 64),
        shape(5, 1, 128),
        shape(2, 1, 8),
        shape(2, 2, 80),
    ];
    for shape in shapes {
        for (past, m) in [
            (0, 1),
            (5, 1),
            (300, 1),
            (1000, 1),
            (0, 2),
            (700, 3),
            (0, 17),
            (63, 16),
            (0, 70),
            (130, 50),
            (240, 16),
        ] {
            let case = case(&mut random, shape, past, m);
            for causal in [true, false] {
                let shape = AttentionShape { causal, ..shape };
                let wanted = expected(&case, shape);
                for pool in pools() {
                    for half in [false, true] {
                        let what = format!("{shape:?} past={past} m={m} half={half} {:?}", pool.level());
                        assert_close(&what, &run(&pool, &[&case], shape, half)[0], &wanted, |_| 5e-6);
                    }
                }
            }
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_beside_others() {
    let mut random = Random(2);
    let shape = shape(9, 3, 64);
    let cases: Vec<Case> = [(1000, 1), (3, 1), (0, 40), (600, 4), (257, 1), (0, 1)]
        .into_iter()
        .map(|(past, m)| case(&mut random, shape, past, m))
        .collect();
    for pool in pools() {
        let single = ThreadPool::with_level(1, pool.level());
        let together = run(&pool, &cases.iter().collect::<Vec<_>>(), shape, true);
        for (case, together) in cases.iter().zip(together) {
            assert_eq!(run(&pool, &[case], shape, true)[0], together);
            assert_eq!(run(&single, &[case], shape, true)[0], together);
        }
    }
}

#[test]
fn values_that_are_not_finite_do_not_hang_or_spread_to_earlier_rows() {
    let mut random = Random(4);
    let shape = shape(2, 1, 32);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (past, m) in [(0, 70), (300, 1)] {
            let mut case = case(&mut random, shape, past, m);
            let last = (past + m - 1) * 32;
            case.keys[last] = bad;
            for pool in pools() {
                let out = &run(&pool, &[&case], shape, false)[0];
                assert!(out[..(m - 1) * 64].iter().all(|v| v.is_finite()));
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut random = Random(5);
    let shape = AttentionShape { scale: 500.0, ..shape(3, 1, 64) };
    for (past, m) in [(500, 1), (0, 100)] {
        let case = case(&mut random, shape, past, m);
        for pool in pools() {
            let out = &run(&pool, &[&case], shape, true)[0];
            assert_close("peaked", out, &expected(&case, shape), |_| 3e-2);
        }
    }
}

#[test]
fn a_cache_that_is_too_short_is_refused() {
    let pool = ThreadPool::new(1);
    let shape = shape(2, 1, 16);
    let (q, kv) = ([0.0; 64], [0.0; 16 * 3]);
    let mut out = [9.0; 64];
    let mut call = |q: &[f32], keys, values, kv_len, past, shape| {
        let job = AttentionJob { q, keys, values, kv_len, past, out: &mut out[..q.len()] };
        attention(&pool, &mut [job], shape, &mut Scratch::new())
    };
    let cache = KvSlice::F32(&kv);
    let short = KvSlice::F32(&kv[..47]);
    let half = KvSlice::F16(&[0; 48]);
    assert!(call(&q, cache, cache, 3, 1, shape).is_ok());
    assert!(matches!(
        call(&q, short, cache, 3, 1, shape),
        Err(KernelError::Attention { expected: 48, found: 47, .. })
    ));
    assert!(matches!(call(&q, cache, short, 3, 1, shape), Err(KernelError::Attention { .. })));
    assert!(matches!(call(&q, cache, half, 3, 1, shape), Err(KernelError::Attention { .. })));
    assert!(matches!(call(&q, cache, cache, 3, 2, shape), Err(KernelError::Attention { expected: 4, .. })));
    assert!(matches!(call(&q, cache, cache, 3, usize::MAX, shape), Err(KernelError::Attention { .. })));
    assert!(matches!(call(&q[..63], cache, cache, 3, 1, shape), Err(KernelError::Length { .. })));
    let odd = AttentionShape { heads: 3, kv_heads: 2, ..shape };
    assert!(matches!(call(&q, cache, cache, 3, 1, odd), Err(KernelError::Attention { .. })));
    let none = AttentionShape { kv_heads: 0, ..shape };
    assert!(matches!(call(&q, cache, cache, 3, 1, none), Err(KernelError::Attention { .. })));
}
