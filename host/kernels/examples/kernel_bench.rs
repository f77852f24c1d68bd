//! Speeds of the kernels on this machine, as JSON on stdout.
//!
//! `cargo run --release --example kernel_bench [-- SECONDS [FILTER]]`: seconds to spend on each figure, 0.3 if not
//! given; only figures whose name (such as `product Q4_1 1536x576 threads_2` or `model Q8_0 threads_1 decode_at_128`)
//! contains all words of the filter.
//! Every figure is the best of many short runs, because other processes only ever make a run slower.
//!
//! - `products`: for each format and shape, GB/s of packed weights at one row (m = 1) and GOPS (two operations a
//!   multiplication) at 512 rows.
//! - `attention`: attention alone.
//! - `models`: the kernels of a whole step of a SmolLM2-135M shape with random weights (30 layers of norms, q, k, v,
//!   rope, attention, o, gate, up, down; the head once), in tokens/s: `decode` one token at the stated depth, `batch_16`
//!   sixteen sequences of one token, `prefill` 512 tokens from an empty cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use modularbase_kernels::{
    AttentionJob, AttentionShape, KvSlice, LinearOutput, Matrix, RopeAngles, RopeLayout, Scratch, ThreadPool,
    WeightFormat, add_to, attention, f32_to_f16, linear, rms_norm, rope, silu_mul,
};

type Error = Box<dyn std::error::Error>;

const HIDDEN: usize = 576;
const FFN: usize = 1536;
const KV: usize = 192;
const LAYERS: usize = 30;
const VOCABULARY: usize = 49152;
const SHAPE: AttentionShape =
    AttentionShape { heads: 9, kv_heads: 3, head_dim: 64, scale: 0.125, causal: true };

/// Name, sequences, tokens of each, tokens before them.
const STEPS: [(&str, usize, usize, usize); 14] = [
    ("decode_at_0", 1, 1, 0),
    ("decode_at_128", 1, 1, 128),
    ("decode_at_1024", 1, 1, 1024),
    ("decode_at_4096", 1, 1, 4096),
    ("batch_2_at_128", 2, 1, 128),
    ("batch_4_at_128", 4, 1, 128),
    ("batch_8_at_128", 8, 1, 128),
    ("batch_16_at_128", 16, 1, 128),
    ("prefill_16", 1, 16, 0),
    ("prefill_64", 1, 64, 0),
    ("prefill_128", 1, 128, 0),
    ("prefill_256", 1, 256, 0),
    ("prefill_512", 1, 512, 0),
    ("prefill_4096", 1, 4096, 0),
];

fn main() -> Result<(), Error> {
    let seconds = std::env::args().nth(1).map_or(Ok(0.3), |text| text.parse::<f64>())?;
    let budget = Duration::from_secs_f64(seconds);
    let filter = std::env::args().nth(2).unwrap_or_default();
    let wanted = |name: &str| filter.split_whitespace().all(|word| name.contains(word));
    let mut lines = Vec::new();
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads);
        for format in [
            WeightFormat::Q4_1,
            WeightFormat::Q4_0,
            WeightFormat::Q8_0,
            WeightFormat::F16,
            WeightFormat::BF16,
            WeightFormat::F32,
        ] {
            for (rows, cols) in [(1536, 576), (576, 1536), (49152, 576)] {
                if wanted(&format!("product {format:?} {rows}x{cols} threads_{threads}")) {
                    lines.push(product(&pool, format, rows, cols, budget)?);
                }
            }
        }
    }
    let mut attentions = Vec::new();
    for threads in [1, 2] {
        let pool = ThreadPool::new(threads);
        for (tokens, depth, layers) in [(1, 4096, 1), (1, 4096, 30), (512, 0, 1), (512, 7680, 1)] {
            if wanted(&format!("attention m{tokens} depth{depth} layers{layers} threads_{threads}")) {
                attentions.push(attention_alone(&pool, tokens, depth, layers, budget)?);
            }
        }
    }
    let mut models = Vec::new();
    for format in [WeightFormat::Q4_1, WeightFormat::Q8_0] {
        let mut model = Model::new(format)?;
        for threads in [1, 2] {
            let pool = ThreadPool::new(threads);
            let mut figures = Vec::new();
            for (name, sequences, tokens, depth) in STEPS {
                if wanted(&format!("model {format:?} threads_{threads} {name}")) {
                    let speed = model.speed(&pool, sequences, tokens, depth, budget)?;
                    figures.push(format!("\"{name}\": {speed:.0}"));
                }
            }
            models.push(format!(
                "{{\"format\": \"{format:?}\", \"threads\": {threads}, \"weight_bytes\": {}, \"tokens_per_s\": {{{}}}}}",
                model.weight_bytes(),
                figures.join(", ")
            ));
        }
    }
    println!(
        "{{\n\"level\": \"{:?}\",\n\"products\": [\n{}\n],\n\"attention\": [\n{}\n],\n\"models\": [\n{}\n]\n}}",
        ThreadPool::new(1).level(),
        lines.join(",\n"),
        attentions.join(",\n"),
        models.join(",\n")
    );
    Ok(())
}

/// The shortest of the runs that fit into the budget, at least three.
fn best(budget: Duration, mut run: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || start.elapsed() < budget {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

/// Numbers without pattern, in -1..1.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Copies of a matrix, so that one row's products read memory and not the cache.
fn product(
    pool: &ThreadPool,
    format: WeightFormat,
    rows: usize,
    cols: usize,
    budget: Duration,
) -> Result<String, Error> {
    let values = noise(rows * cols);
    let one = Matrix::from_f32(format, rows, cols, &values)?;
    let copies = (96_000_000 / one.bytes()).max(1);
    let mut matrices = vec![one];
    while matrices.len() < copies {
        matrices.push(Matrix::from_f32(format, rows, cols, &values)?);
    }
    let mut scratch = Scratch::new();
    let mut at = |m: usize, matrices: &[Matrix], budget| -> Result<f64, Error> {
        let x = noise(m * cols);
        let mut out = vec![0.0; m * rows];
        let time = best(budget, || {
            for weight in matrices {
                let output = LinearOutput { weight, bias: None, out: &mut out, accumulate: false };
                linear(pool, &x, m, &mut [output], &mut scratch)?;
            }
            Ok(())
        })?;
        black_box(out);
        Ok(time / matrices.len() as f64)
    };
    let alone = at(1, &matrices, budget)?;
    let many = if rows * cols > 4_000_000 { 64 } else { 512 };
    let batch = at(many, &matrices[..1], budget)?;
    Ok(format!(
        "{{\"format\": \"{format:?}\", \"rows\": {rows}, \"cols\": {cols}, \"threads\": {}, \"gb_per_s_at_1\": {:.1}, \
         \"m\": {many}, \"gops_at_m\": {:.0}}}",
        pool.threads(),
        matrices[0].bytes() as f64 / alone / 1e9,
        2.0 * (many * rows * cols) as f64 / batch / 1e9
    ))
}

/// Attention with an f16 cache: GB/s of keys and values read once, and GFLOP/s of both products. With many layers
/// the caches come from memory, with one from the processor's cache.
fn attention_alone(
    pool: &ThreadPool,
    tokens: usize,
    depth: usize,
    layers: usize,
    budget: Duration,
) -> Result<String, Error> {
    let length = depth + tokens;
    let mut numbers = vec![0u16; length * KV];
    f32_to_f16(pool, &noise(length * KV), &mut numbers)?;
    let caches = vec![[numbers.clone(), numbers]; layers];
    let q = noise(tokens * HIDDEN);
    let mut out = vec![0.0; tokens * HIDDEN];
    let mut scratch = Scratch::new();
    let time = best(budget, || {
        for [keys, values] in &caches {
            let (keys, values) = (KvSlice::F16(keys), KvSlice::F16(values));
            let job = AttentionJob { q: &q, keys, values, kv_len: length, past: depth, out: &mut out };
            attention(pool, &mut [job], SHAPE, &mut scratch)?;
        }
        Ok(())
    })?;
    black_box(out);
    let pairs = tokens * depth + tokens * (tokens + 1) / 2;
    Ok(format!(
        "{{\"tokens\": {tokens}, \"depth\": {depth}, \"layers\": {layers}, \"threads\": {}, \"gb_per_s\": {:.1}, \
         \"gflops\": {:.0}}}",
        pool.threads(),
        (layers * length * KV * 4) as f64 / time / 1e9,
        (layers * pairs * HIDDEN * 4) as f64 / time / 1e9,
    ))
}

struct Layer {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

struct Model {
    layers: Vec<Layer>,
    head: Matrix,
    norm: Vec<f32>,
    scratch: Scratch,
}

impl Model {
    /// Layers in `format`, the head in Q8_0, as the model's GGUF files have it.
    fn new(format: WeightFormat) -> Result<Self, Error> {
        let values = noise(HIDDEN * FFN);
        let matrix = |rows: usize, cols: usize| Matrix::from_f32(format, rows, cols, &values[..rows * cols]);
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            layers.push(Layer {
                q: matrix(HIDDEN, HIDDEN)?,
                k: matrix(KV, HIDDEN)?,
                v: matrix(KV, HIDDEN)?,
                o: matrix(HIDDEN, HIDDEN)?,
                gate: matrix(FFN, HIDDEN)?,
                up: matrix(FFN, HIDDEN)?,
                down: matrix(HIDDEN, FFN)?,
            });
        }
        let head = Matrix::from_f32(WeightFormat::Q8_0, VOCABULARY, HIDDEN, &noise(VOCABULARY * HIDDEN))?;
        Ok(Self { layers, head, norm: vec![0.1; HIDDEN], scratch: Scratch::new() })
    }

    fn weight_bytes(&self) -> usize {
        let layer = |l: &Layer| -> usize {
            [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down].map(Matrix::bytes).iter().sum()
        };
        self.head.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }

    /// Tokens/s of steps of `tokens` tokens in each of some sequences with `depth` tokens before them. Every layer has a
    /// cache of its own, in f16.
    fn speed(
        &mut self,
        pool: &ThreadPool,
        sequences: usize,
        tokens: usize,
        depth: usize,
        budget: Duration,
    ) -> Result<f64, Error> {
        let Self { layers, head, norm, scratch } = self;
        let m = sequences * tokens;
        let length = depth + tokens;
        let mut caches = vec![[vec![0x2e66u16; length * KV], vec![0x2e66; length * KV]]; LAYERS * sequences];
        let positions: Vec<u32> = (0..m).map(|i| (depth + i % tokens) as u32).collect();
        let frequencies: Vec<f32> = (0..32).map(|i| 1e5f32.powf(-(i as f32) / 32.0)).collect();
        let mut angles = RopeAngles::new();
        let buffer = |width: usize| vec![0.0f32; m * width];
        let (mut x, mut normed, mut q) = (noise(m * HIDDEN), buffer(HIDDEN), buffer(HIDDEN));
        let (mut k, mut v, mut mixed) = (buffer(KV), buffer(KV), buffer(HIDDEN));
        let (mut gate, mut up, mut inner) = (buffer(FFN), buffer(FFN), buffer(FFN));
        let mut logits = vec![0.0; sequences * VOCABULARY];
        let time = best(budget, || {
            angles.set(&positions, &frequencies);
            x.copy_from_slice(&noise(m * HIDDEN));
            for (layer, caches) in layers.iter().zip(caches.chunks_mut(sequences)) {
                rms_norm(pool, &x, m, norm, 1e-5, &mut normed)?;
                product_of(
                    pool,
                    &normed,
                    m,
                    scratch,
                    [(&layer.q, &mut q), (&layer.k, &mut k), (&layer.v, &mut v)],
                )?;
                rope(pool, &mut q, 64, &angles, RopeLayout::HalfSplit)?;
                rope(pool, &mut k, 64, &angles, RopeLayout::HalfSplit)?;
                for (index, [keys, values]) in caches.iter_mut().enumerate() {
                    let rows = index * tokens * KV..(index + 1) * tokens * KV;
                    f32_to_f16(pool, &k[rows.clone()], &mut keys[depth * KV..])?;
                    f32_to_f16(pool, &v[rows], &mut values[depth * KV..])?;
                }
                let mut jobs: Vec<AttentionJob<'_>> = caches
                    .iter()
                    .zip(q.chunks(tokens * HIDDEN))
                    .zip(mixed.chunks_mut(tokens * HIDDEN))
                    .map(|(([keys, values], q), out)| AttentionJob {
                        q,
                        keys: KvSlice::F16(keys),
                        values: KvSlice::F16(values),
                        kv_len: length,
                        past: depth,
                        out,
                    })
                    .collect();
                attention(pool, &mut jobs, SHAPE, scratch)?;
                drop(jobs);
                product_of(pool, &mixed, m, scratch, [(&layer.o, &mut q)])?;
                add_to(pool, &q, &mut x)?;
                rms_norm(pool, &x, m, norm, 1e-5, &mut normed)?;
                product_of(pool, &normed, m, scratch, [(&layer.gate, &mut gate), (&layer.up, &mut up)])?;
                silu_mul(pool, &gate, &up, &mut inner)?;
                product_of(pool, &inner, m, scratch, [(&layer.down, &mut q)])?;
                add_to(pool, &q, &mut x)?;
            }
            let last: Vec<f32> = (0..sequences)
                .flat_map(|i| &x[((i + 1) * tokens - 1) * HIDDEN..][..HIDDEN])
                .copied()
                .collect();
            rms_norm(pool, &last, sequences, norm, 1e-5, &mut normed[..sequences * HIDDEN])?;
            product_of(pool, &normed[..sequences * HIDDEN], sequences, scratch, [(&*head, &mut logits)])
        })?;
        black_box(logits);
        Ok(m as f64 / time)
    }
}

fn product_of<const N: usize>(
    pool: &ThreadPool,
    x: &[f32],
    m: usize,
    scratch: &mut Scratch,
    outputs: [(&Matrix, &mut Vec<f32>); N],
) -> Result<(), Error> {
    let mut outputs = outputs.map(|(weight, out)| LinearOutput {
        weight,
        bias: None,
        out: out.as_mut_slice(),
        accumulate: false,
    });
    Ok(linear(pool, x, m, &mut outputs, scratch)?)
}
