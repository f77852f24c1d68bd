//! What operators, losses and stacks of layers cost.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, Var};
use modularbase_gradients as g;

use crate::{
    numbers::Numbers,
    stack::{Sizes, Stack},
};

const SMOL: Sizes =
    Sizes { width: 576, heads: 9, kv_heads: 3, inner: 1536, vocabulary: 49152, sequences: 32, length: 512 };
/// For the CPU, where only the example itself is tried.
const TINY: Sizes =
    Sizes { width: 48, heads: 3, kv_heads: 1, inner: 64, vocabulary: 300, sequences: 2, length: 32 };

fn sizes(on_cpu: bool) -> (Sizes, DType, usize) {
    if on_cpu { (TINY, DType::F32, 2) } else { (SMOL, DType::BF16, 20) }
}

/// Time of one call of `f`, after three that warm up.
fn time(device: &Device, repeats: usize, mut f: impl FnMut() -> Result<()>) -> Result<Duration> {
    for _ in 0..3.min(repeats) {
        f()?;
    }
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..repeats {
        f()?;
    }
    device.synchronize()?;
    Ok(start.elapsed() / repeats as u32)
}

fn line(name: &str, rows: usize, took: Duration) {
    let micros = took.as_secs_f64() * 1e6;
    println!("{name:44} {micros:>10.1} us {:>14.0} tokens/s", rows as f64 / took.as_secs_f64());
}

/// Forward, and forward with backward, of each operator.
pub fn operators(device: &Device, on_cpu: bool) -> Result<()> {
    let (s, dtype, repeats) = sizes(on_cpu);
    let (rows, d) = (s.rows(), s.head_dim());
    let mut n = Numbers::new(5);
    let mut var = |shape: &[usize], dtype: DType| -> Result<Tensor> {
        Ok(Var::from_tensor(&n.tensor(shape, 1.0)?.to_device(device)?.to_dtype(dtype)?)?.into_inner())
    };
    let (x, y) = (var(&[rows, s.width], dtype)?, var(&[rows, s.width], dtype)?);
    let (gate, up) = (var(&[rows, s.inner], dtype)?, var(&[rows, s.inner], dtype)?);
    let (k, v) = (var(&[rows, s.kv_heads * d], dtype)?, var(&[rows, s.kv_heads * d], dtype)?);
    let (norm, square) = (var(&[s.width], DType::F32)?, var(&[s.width, s.width], DType::F32)?);
    let wide = var(&[s.inner, s.width], DType::F32)?;
    let (frozen, frozen_norm) = (wide.detach().to_dtype(dtype)?, norm.detach());
    let table = g::RopeTable::new(&vec![0.1; d / 2], s.length, device)?;
    let operators: [(&str, &dyn Fn() -> Result<Tensor>); 11] = [
        ("rms_norm, trained", &|| g::rms_norm(&x, &norm, 1e-5)),
        ("rms_norm, frozen", &|| g::rms_norm(&x, &frozen_norm, 1e-5)),
        ("layer_norm, trained", &|| g::layer_norm(&x, &norm, &norm, 1e-5)),
        ("rope", &|| g::rope(&x, &table, g::RopeLayout::Half, d)),
        ("attention, causal", &|| g::attention(&x, &k, &v, s.heads, s.kv_heads, s.length, true)),
        ("attention, all", &|| g::attention(&x, &k, &v, s.heads, s.kv_heads, s.length, false)),
        ("silu_mul", &|| g::silu_mul(&gate, &up)),
        ("add", &|| g::add(&x, &y)),
        ("linear, square, trained", &|| g::linear(&x, &square, None)),
        ("linear, wide, trained", &|| g::linear(&x, &wide, None)),
        ("linear, wide, frozen", &|| g::linear(&x, &frozen, None)),
    ];
    println!("\n{rows} rows of {} in {dtype:?}, sequences of {}", s.width, s.length);
    for (name, operator) in operators {
        line(&format!("{name}, forward"), rows, time(device, repeats, || operator().map(|_| ()))?);
        let both = time(device, repeats, || {
            let loss = operator()?;
            g::backward(&loss).map(|_| ())
        })?;
        line(&format!("{name}, forward and backward"), rows, both);
    }
    Ok(())
}

/// The loss through a frozen head for several chunks.
pub fn losses(device: &Device, on_cpu: bool) -> Result<()> {
    let (s, dtype, repeats) = sizes(on_cpu);
    let mut n = Numbers::new(6);
    let hidden = Var::from_tensor(&n.tensor(&[s.rows(), s.width], 1.0)?.to_device(device)?.to_dtype(dtype)?)?;
    let head = n.tensor(&[s.vocabulary, s.width], 0.1)?.to_device(device)?;
    let trained = Var::from_tensor(&head)?;
    let head = head.to_dtype(dtype)?;
    let targets = n.ids(s.rows(), s.vocabulary)?.to_device(device)?;
    let weights = Tensor::ones(s.rows(), DType::F32, device)?;
    println!("\nthe loss over {} ids, forward and backward", s.vocabulary);
    for chunk in [256, 512, 1024, 2048, 4096, 8192] {
        for (name, head) in [("frozen", &head), ("trained", trained.as_tensor())] {
            let took = time(device, repeats.div_ceil(2), || {
                g::backward(&g::cross_entropy(&hidden, head, &targets, &weights, chunk)?).map(|_| ())
            })?;
            line(&format!("head {name}, chunks of {chunk} rows"), s.rows(), took);
        }
        let took = time(device, repeats.div_ceil(2), || {
            g::cross_entropy_rows(&hidden, &head, &targets, chunk).map(|_| ())
        })?;
        line(&format!("evaluation, chunks of {chunk} rows"), s.rows(), took);
    }
    Ok(())
}

/// Whole steps: forward, backward, AdamW.
pub fn stacks(device: &Device, on_cpu: bool) -> Result<()> {
    let (s, dtype, repeats) = sizes(on_cpu);
    println!("\nwhole steps: layers before, trained and frozen, the head, AdamW");
    for layers in [(0, 6, 6), (18, 6, 6), (0, 12, 0)] {
        let stack = Stack::new(s, layers, device, dtype)?;
        let mut optimizer = g::AdamW::new(stack.parameters.clone(), g::AdamWConfig::default())?;
        let before = stack.loss(2048)?.to_scalar::<f32>()?;
        let name = format!("{} + {} + {}", layers.0, layers.1, layers.2);
        let forward = time(device, repeats, || stack.loss(2048).map(|_| ()))?;
        line(&format!("{name}, forward and the head's backward"), s.rows(), forward);
        let stock = time(device, repeats, || stack.loss(2048)?.backward().map(|_| ()))?;
        line(&format!("{name}, with candle's own way back"), s.rows(), stock);
        let whole = time(device, repeats, || {
            let gradients = g::backward(&stack.loss(2048)?)?;
            optimizer.step(&gradients, 1e-3, Some(1.0)).map(|_| ())
        })?;
        line(&format!("{name}, step"), s.rows(), whole);
        let host = host_time(&stack, &mut optimizer, repeats)?;
        line(&format!("{name}, step, the host's part"), s.rows(), host);
        let after = stack.loss(2048)?.to_scalar::<f32>()?;
        println!("{name}: loss {before:.4} before, {after:.4} after the steps");
    }
    Ok(())
}

/// How long the host takes to start a step: what the device can hide if it is less than the step.
fn host_time(stack: &Stack, optimizer: &mut g::AdamW, repeats: usize) -> Result<Duration> {
    let device = stack.hidden.device();
    let mut total = Duration::ZERO;
    for _ in 0..repeats {
        device.synchronize()?;
        let start = Instant::now();
        let gradients = g::backward(&stack.loss(2048)?)?;
        optimizer.step(&gradients, 1e-3, Some(1.0))?;
        total += start.elapsed();
    }
    Ok(total / repeats as u32)
}
