//! Values and gradients against the same thing composed of candle's own differentiable operators, at larger sizes.

use candle_core::{D, DType, Device, Result, Tensor};
use modularbase_gradients as g;

use crate::support::{Numbers, Operator, difference, values, with_gradients};

fn check(name: &str, inputs: &[Tensor], seed: u64, ours: Operator, stock: Operator) {
    let (output, gradients) = with_gradients(ours, inputs, seed);
    let (stock_output, stock_gradients) = with_gradients(stock, inputs, seed);
    let off = difference(&output, &stock_output);
    assert!(off < 2e-5, "{name}, seed {seed}: the output is off by {off}");
    for (index, (ours, stock)) in gradients.iter().zip(&stock_gradients).enumerate() {
        let off = difference(ours, stock);
        assert!(off < 1e-4, "{name}, seed {seed}: the gradient of input {index} is off by {off}");
    }
}

#[test]
fn the_norms() {
    for (seed, rows, width) in [(1, 96, 576), (2, 33, 129), (3, 700, 64)] {
        let mut numbers = Numbers::new(seed);
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[width]), numbers.tensor(&[width])];
        check("rms_norm", &inputs[..2], seed, &|x| g::rms_norm(&x[0], &x[1], 1e-5), &|x| {
            candle_nn::ops::rms_norm_slow(&x[0], &x[1], 1e-5)
        });
        check("layer_norm", &inputs, seed, &|x| g::layer_norm(&x[0], &x[1], &x[2], 1e-5), &|x| {
            candle_nn::ops::layer_norm_slow(&x[0], &x[1], &x[2], 1e-5)
        });
    }
}

#[test]
fn rope_in_both_layouts() {
    let (sequences, length, heads, d) = (3, 37, 5, 64);
    let frequencies: Vec<f32> = (0..d / 2).map(|pair| 1e4f32.powf(-2.0 * pair as f32 / d as f32)).collect();
    let table = g::RopeTable::new(&frequencies, length, &Device::Cpu).unwrap();
    let angles: Vec<f32> =
        (0..length).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f)).collect();
    let angles = Tensor::from_vec(angles, (length, d / 2), &Device::Cpu).unwrap();
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let inputs = [Numbers::new(4).tensor(&[sequences * length, heads * d])];
    let split = |x: &Tensor| x.reshape((sequences, length, heads, d))?.transpose(1, 2)?.contiguous();
    let rows = |x: Tensor| x.transpose(1, 2)?.reshape((sequences * length, heads * d));
    check("half", &inputs, 4, &|x| g::rope(&x[0], &table, g::RopeLayout::Half, d), &|x| {
        rows(candle_nn::rotary_emb::rope_slow(&split(&x[0])?, &cos, &sin)?)
    });
    check("interleaved", &inputs, 4, &|x| g::rope(&x[0], &table, g::RopeLayout::Interleaved, d), &|x| {
        rows(candle_nn::rotary_emb::rope_i_slow(&split(&x[0])?, &cos, &sin)?)
    });
}

/// Attention with repeated keys and a mask.
fn stock_attention(
    x: &[Tensor],
    (sequences, length, heads, kv_heads, d): (usize, usize, usize, usize, usize),
    causal: bool,
) -> Result<Tensor> {
    let split = |x: &Tensor, n: usize| x.reshape((sequences, length, n, d))?.transpose(1, 2)?.contiguous();
    let repeat = |x: &Tensor| {
        let x = split(x, kv_heads)?.unsqueeze(2)?;
        let x = x.broadcast_as((sequences, kv_heads, heads / kv_heads, length, d))?.contiguous()?;
        x.reshape((sequences, heads, length, d))
    };
    let (q, k, v) = (split(&x[0], heads)?, repeat(&x[1])?, repeat(&x[2])?);
    let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (d as f64).sqrt()))?;
    if causal {
        let mask: Vec<f32> = (0..length)
            .flat_map(|row| (0..length).map(move |key| if key > row { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, 1, length, length), &Device::Cpu)?)?;
    }
    let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
    mixed.transpose(1, 2)?.reshape((sequences * length, heads * d))
}

#[test]
fn attention_over_blocks_of_rows_and_of_sequences() {
    // More rows than a block of queries, and a length that no block divides.
    for (seed, shape) in [(1, (2, 150, 6, 2, 16)), (2, (5, 33, 3, 3, 24)), (3, (1, 300, 4, 1, 64))] {
        let (sequences, length, heads, kv_heads, d) = shape;
        let mut numbers = Numbers::new(seed);
        let inputs = [
            numbers.tensor(&[sequences * length, heads * d]),
            numbers.tensor(&[sequences * length, kv_heads * d]),
            numbers.tensor(&[sequences * length, kv_heads * d]),
        ];
        for causal in [true, false] {
            check(
                "attention",
                &inputs,
                seed,
                &|x| g::attention(&x[0], &x[1], &x[2], heads, kv_heads, length, causal),
                &|x| stock_attention(x, shape, causal),
            );
        }
    }
}

#[test]
fn softmax_and_the_activations() {
    for (seed, rows, width) in [(1, 33, 1000), (2, 257, 31)] {
        let mut numbers = Numbers::new(seed);
        let inputs = [(numbers.tensor(&[rows, width]) * 6.0).unwrap(), numbers.tensor(&[rows, width])];
        check("softmax", &inputs[..1], seed, &|x| g::softmax(&x[0]), &|x| {
            candle_nn::ops::softmax(&x[0], D::Minus1)
        });
        check("silu", &inputs[..1], seed, &|x| g::silu(&x[0]), &|x| x[0].silu());
        check("gelu", &inputs[..1], seed, &|x| g::gelu(&x[0]), &|x| x[0].gelu());
        check("silu_mul", &inputs, seed, &|x| g::silu_mul(&x[0], &x[1]), &|x| x[0].silu()? * &x[1]);
    }
}

#[test]
fn linear_and_embedding() {
    for (seed, rows, inner, out) in [(1, 70, 65, 130), (2, 129, 576, 33)] {
        let mut numbers = Numbers::new(seed);
        let ids = numbers.ids(rows, out);
        let inputs = [numbers.tensor(&[rows, inner]), numbers.tensor(&[out, inner]), numbers.tensor(&[out])];
        check("linear", &inputs, seed, &|x| g::linear(&x[0], &x[1], Some(&x[2])), &|x| {
            x[0].matmul(&x[1].t()?)?.broadcast_add(&x[2])
        });
        check("embedding", &inputs[1..2], seed, &|x| g::embedding(&ids, &x[0]), &|x| {
            x[0].index_select(&ids, 0)
        });
    }
}

#[test]
fn distillation_with_masked_rows() {
    let (rows, width, vocabulary) = (23, 12, 77);
    let mut numbers = Numbers::new(6);
    let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width])];
    let (teacher, teacher_head) = (numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width]));
    let weights: Vec<f32> = (0..rows).map(|row| if row % 3 == 0 { 0.0 } else { 0.5 }).collect();
    let weights = Tensor::from_vec(weights, rows, &Device::Cpu).unwrap();
    for chunk in [1, 5, 23, 64] {
        check(
            "distillation",
            &inputs,
            2,
            &|x| g::distillation(&x[0], &x[1], &teacher, &teacher_head, &weights, chunk),
            &|x| {
                let log_q = candle_nn::ops::log_softmax(&x[0].matmul(&x[1].t()?)?, 1)?;
                let log_p = candle_nn::ops::log_softmax(&teacher.matmul(&teacher_head.t()?)?, 1)?;
                let divergences = (log_p.exp()? * (log_p - log_q)?)?.sum(1)?;
                (divergences * &weights)?.sum_all()
            },
        );
    }
}

#[test]
fn a_teacher_that_says_the_same_pulls_nowhere() {
    let mut numbers = Numbers::new(9);
    let (hidden, head) = (numbers.tensor(&[6, 8]), numbers.tensor(&[33, 8]));
    let ones = Tensor::ones(6, DType::F32, &Device::Cpu).unwrap();
    let (divergence, gradients) = with_gradients(
        &|x| g::distillation(&x[0], &x[1], &hidden, &head, &ones, 4),
        &[hidden.clone(), head.clone()],
        1,
    );
    assert_eq!(values(&divergence), [0.0]);
    assert!(gradients.iter().all(|gradient| values(gradient).iter().all(|value| *value == 0.0)));
}

#[test]
fn cross_entropy_with_masked_rows() {
    for (seed, rows, width, vocabulary, chunk) in [(1, 100, 48, 1000, 32), (2, 65, 33, 77, 64)] {
        let mut numbers = Numbers::new(seed);
        let targets = numbers.ids(rows, vocabulary);
        let mask: Vec<f32> = (0..rows).map(|row| if row % 3 == 0 { 0.0 } else { 0.5 }).collect();
        let weights = Tensor::from_vec(mask, rows, &Device::Cpu).unwrap();
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width])];
        let rows_of = |x: &[Tensor]| {
            let logits = x[0].matmul(&x[1].t()?)?;
            let log = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
            log.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
        };
        check(
            "cross_entropy",
            &inputs,
            seed,
            &|x| g::cross_entropy(&x[0], &x[1], &targets, &weights, chunk),
            &|x| (rows_of(x)? * &weights)?.sum_all(),
        );
        let rows = g::cross_entropy_rows(&inputs[0], &inputs[1], &targets, chunk).unwrap();
        assert!(difference(&rows, &rows_of(&inputs).unwrap()) < 1e-5);
    }
}

#[test]
fn a_loss_is_the_same_for_every_chunk() {
    let mut numbers = Numbers::new(9);
    let (hidden, head) = (numbers.tensor(&[50, 24]), numbers.tensor(&[90, 24]));
    let (targets, weights) = (numbers.ids(50, 90), Tensor::ones(50, DType::F32, &Device::Cpu).unwrap());
    let loss = |chunk| {
        g::cross_entropy(&hidden, &head, &targets, &weights, chunk).unwrap().to_scalar::<f32>().unwrap()
    };
    let whole = loss(50);
    for chunk in [1, 7, 49, 1000] {
        assert!((loss(chunk) - whole).abs() < 1e-4 * whole, "{chunk}");
    }
}
