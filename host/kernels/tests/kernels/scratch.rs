//! Working memory is what was announced.

use modularbase_kernels::{
    AttentionJob, AttentionShape, KvSlice, LinearOutput, Matrix, RopeAngles, Scratch, ThreadPool,
    WeightFormat, attention, attention_scratch, linear, linear_scratch,
};

#[test]
fn linear_takes_exactly_the_announced_scratch() {
    let pool = ThreadPool::new(2);
    for (format, quantized) in [(WeightFormat::Q8_0, true), (WeightFormat::F16, false)] {
        let weight = Matrix::from_f32(format, 48, 64, &vec![0.5; 48 * 64]).unwrap();
        for m in [1, 13, 70] {
            let mut scratch = Scratch::new();
            let mut out = vec![0.0; m * 48];
            let mut outputs =
                [LinearOutput { weight: &weight, bias: None, out: &mut out, accumulate: false }];
            linear(&pool, &vec![1.0; m * 64], m, &mut outputs, &mut scratch).unwrap();
            assert_eq!(
                scratch.bytes(),
                linear_scratch(m, 64, quantized, !quantized).bytes(),
                "{format:?} {m}"
            );
        }
    }
}

#[test]
fn attention_takes_no_more_than_the_announced_scratch() {
    for (heads, kv_heads, head_dim, causal) in [(9, 3, 64, true), (2, 2, 8, true), (8, 1, 96, false)] {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.1, causal };
        for lengths in
            [&[(1, 900)][..], &[(1, 129), (1, 1_000), (1, 5)], &[(200, 0)], &[(16, 700), (40, 3), (1, 900)]]
        {
            let pool = ThreadPool::new(2);
            let caches: Vec<Vec<f32>> =
                lengths.iter().map(|(m, past)| vec![0.1; (m + past) * kv_heads * head_dim]).collect();
            let queries: Vec<Vec<f32>> =
                lengths.iter().map(|(m, _)| vec![0.1; m * heads * head_dim]).collect();
            let mut outs = queries.clone();
            let mut jobs: Vec<AttentionJob<'_>> = lengths
                .iter()
                .zip(&caches)
                .zip(&queries)
                .zip(&mut outs)
                .map(|(((&(m, past), cache), q), out)| AttentionJob {
                    q,
                    keys: KvSlice::F32(cache),
                    values: KvSlice::F32(cache),
                    kv_len: m + past,
                    past,
                    out,
                })
                .collect();
            let mut scratch = Scratch::new();
            attention(&pool, &mut jobs, shape, &mut scratch).unwrap();
            let rows = lengths.iter().map(|(m, _)| m).sum();
            let longest = lengths.iter().map(|(m, past)| m + past).max().unwrap();
            let announced = attention_scratch(2, shape, rows, lengths.len(), longest).bytes();
            assert!(
                scratch.bytes() <= announced,
                "{shape:?} {lengths:?}: {} of {announced}",
                scratch.bytes()
            );
        }
    }
}

#[test]
fn rotary_tables_take_exactly_the_announced_bytes() {
    let mut angles = RopeAngles::new();
    for positions in [1, 3, 300] {
        angles.set(&(0..positions).collect::<Vec<u32>>(), &[1.0, 0.1, 0.01]);
        assert_eq!(angles.bytes(), RopeAngles::bytes_for(positions as usize, 3));
    }
}
