//! The gradient of every operator against central differences, element by element.

use candle_core::{Device, Tensor};
use modularbase_gradients as g;

use crate::support::{Numbers, Operator, values, with_gradients};

/// The step of the differences: small for the third derivative, large for f32.
const STEP: f32 = 1e-2;

fn check(name: &str, inputs: &[Tensor], seed: u64, operator: Operator) {
    let (output, gradients) = with_gradients(operator, inputs, seed);
    let outgoing = values(&Numbers::new(seed ^ 0xabc).tensor(output.dims()));
    for (index, gradient) in gradients.iter().enumerate() {
        let (original, gradient) = (values(&inputs[index]), values(gradient));
        let size = gradient.iter().map(|value| value.abs()).fold(0.1, f32::max);
        for position in 0..original.len() {
            let at = |offset: f32| {
                let mut moved = original.clone();
                moved[position] += offset;
                let mut inputs = inputs.to_vec();
                inputs[index] = Tensor::from_vec(moved, inputs[index].dims(), &Device::Cpu).unwrap();
                values(&operator(&inputs).unwrap())
            };
            let slope: f64 = at(STEP)
                .iter()
                .zip(at(-STEP))
                .zip(&outgoing)
                .map(|((&up, down), &weight)| f64::from(up - down) * f64::from(weight))
                .sum::<f64>()
                / f64::from(2.0 * STEP);
            let off = (f64::from(gradient[position]) - slope).abs() / f64::from(size);
            assert!(
                off < 2e-3,
                "{name}, seed {seed}, input {index}, element {position}: {} against {slope}",
                gradient[position]
            );
        }
    }
}

#[test]
fn of_rms_norm() {
    for (seed, rows, width) in [(1, 3, 8), (2, 5, 17), (3, 1, 33), (4, 7, 1)] {
        let mut numbers = Numbers::new(seed);
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[width])];
        check("rms_norm", &inputs, seed, &|x| g::rms_norm(&x[0], &x[1], 0.1));
    }
}

#[test]
fn of_layer_norm() {
    for (seed, rows, width) in [(1, 3, 8), (2, 5, 17), (3, 1, 33)] {
        let mut numbers = Numbers::new(seed);
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[width]), numbers.tensor(&[width])];
        check("layer_norm", &inputs, seed, &|x| g::layer_norm(&x[0], &x[1], &x[2], 0.1));
    }
}

#[test]
fn of_rope_in_both_layouts() {
    for (seed, sequences, length, heads, head_dim) in [(1, 2, 3, 2, 4), (2, 1, 5, 1, 6), (3, 3, 1, 3, 2)] {
        for layout in [g::RopeLayout::Half, g::RopeLayout::Interleaved] {
            let inputs = [Numbers::new(seed).tensor(&[sequences * length, heads * head_dim])];
            let frequencies: Vec<f32> = (0..head_dim / 2).map(|pair| 0.7f32.powi(pair as i32)).collect();
            let table = g::RopeTable::new(&frequencies, length, &Device::Cpu).unwrap();
            check("rope", &inputs, seed, &|x| g::rope(&x[0], &table, layout, head_dim));
        }
    }
}

#[test]
fn of_attention_with_grouped_queries() {
    let shapes = [(2, 5, 4, 2, 4), (1, 7, 3, 1, 2), (3, 1, 2, 2, 3), (1, 4, 6, 3, 5)];
    for (seed, (sequences, length, heads, kv_heads, d)) in (1..).zip(shapes) {
        for causal in [false, true] {
            let mut numbers = Numbers::new(seed);
            let rows = sequences * length;
            let inputs = [
                numbers.tensor(&[rows, heads * d]),
                numbers.tensor(&[rows, kv_heads * d]),
                numbers.tensor(&[rows, kv_heads * d]),
            ];
            check("attention", &inputs, seed, &|x| {
                g::attention(&x[0], &x[1], &x[2], heads, kv_heads, length, causal)
            });
        }
    }
}

#[test]
fn of_softmax() {
    for (seed, rows, width) in [(1, 3, 8), (2, 5, 17), (3, 2, 1)] {
        let inputs = [Numbers::new(seed).tensor(&[rows, width])];
        check("softmax", &inputs, seed, &|x| g::softmax(&x[0]));
    }
}

#[test]
fn of_the_activations() {
    for seed in 1..4 {
        let mut numbers = Numbers::new(seed);
        let inputs = [(numbers.tensor(&[4, 7]) * 3.0).unwrap(), numbers.tensor(&[4, 7])];
        check("silu", &inputs[..1], seed, &|x| g::silu(&x[0]));
        check("gelu", &inputs[..1], seed, &|x| g::gelu(&x[0]));
        check("silu_mul", &inputs, seed, &|x| g::silu_mul(&x[0], &x[1]));
    }
}

#[test]
fn of_linear_with_and_without_a_bias() {
    for (seed, rows, inner, out) in [(1, 3, 4, 5), (2, 7, 3, 1), (3, 1, 9, 2)] {
        let mut numbers = Numbers::new(seed);
        let inputs = [numbers.tensor(&[rows, inner]), numbers.tensor(&[out, inner]), numbers.tensor(&[out])];
        check("linear", &inputs[..2], seed, &|x| g::linear(&x[0], &x[1], None));
        check("linear with a bias", &inputs, seed, &|x| g::linear(&x[0], &x[1], Some(&x[2])));
    }
}

#[test]
fn of_embedding_with_ids_that_repeat() {
    for (seed, rows, vocabulary, width) in [(1, 9, 4, 3), (2, 1, 5, 2), (3, 12, 3, 7)] {
        let mut numbers = Numbers::new(seed);
        let ids = numbers.ids(rows, vocabulary);
        let inputs = [numbers.tensor(&[vocabulary, width])];
        check("embedding", &inputs, seed, &|x| g::embedding(&ids, &x[0]));
    }
}

#[test]
fn of_cross_entropy_by_hidden_and_head_for_any_chunk() {
    for (seed, rows, width, vocabulary) in [(1, 5, 4, 7), (2, 1, 3, 2), (3, 8, 5, 11)] {
        let mut numbers = Numbers::new(seed);
        let targets = numbers.ids(rows, vocabulary);
        let weights = numbers.tensor(&[rows]).abs().unwrap();
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width])];
        for chunk in [1, 3, 100] {
            check("cross_entropy", &inputs, seed, &|x| {
                g::cross_entropy(&x[0], &x[1], &targets, &weights, chunk)
            });
        }
    }
}

#[test]
fn of_distillation_by_hidden_and_head_for_any_chunk() {
    for (seed, rows, width, vocabulary) in [(1, 5, 4, 7), (2, 1, 3, 2), (3, 8, 5, 11)] {
        let mut numbers = Numbers::new(seed);
        let weights = numbers.tensor(&[rows]).abs().unwrap();
        let inputs = [numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width])];
        let (teacher, teacher_head) = (numbers.tensor(&[rows, width]), numbers.tensor(&[vocabulary, width]));
        for chunk in [1, 3, 100] {
            check("distillation", &inputs, seed, &|x| {
                g::distillation(&x[0], &x[1], &teacher, &teacher_head, &weights, chunk)
            });
        }
    }
}

#[test]
fn of_a_whole_block() {
    let (length, heads, kv_heads, d, inner) = (4, 2, 1, 4, 10);
    let width = heads * d;
    let table = g::RopeTable::new(&[1.0, 0.3], length, &Device::Cpu).unwrap();
    let mut numbers = Numbers::new(5);
    let shapes: [&[usize]; 8] = [
        &[2 * length, width],
        &[width],
        &[width, width],
        &[kv_heads * d, width],
        &[kv_heads * d, width],
        &[inner, width],
        &[inner, width],
        &[width, inner],
    ];
    let inputs: Vec<Tensor> = shapes.iter().map(|shape| numbers.tensor(shape)).collect();
    check("block", &inputs, 5, &|x| {
        let normed = g::rms_norm(&x[0], &x[1], 0.1)?;
        let q = g::rope(&g::linear(&normed, &x[2], None)?, &table, g::RopeLayout::Half, d)?;
        let k = g::rope(&g::linear(&normed, &x[3], None)?, &table, g::RopeLayout::Half, d)?;
        let v = g::linear(&normed, &x[4], None)?;
        let y = (&x[0] + g::attention(&q, &k, &v, heads, kv_heads, length, true)?)?;
        let normed = g::rms_norm(&y, &x[1], 0.1)?;
        let hidden = g::silu_mul(&g::linear(&normed, &x[5], None)?, &g::linear(&normed, &x[6], None)?)?;
        y + g::linear(&hidden, &x[7], None)?
    });
}

#[test]
fn of_sums_products_and_rearrangements() {
    for seed in 1..3 {
        let mut n = Numbers::new(seed);
        let inputs =
            [n.tensor(&[4, 6]), n.tensor(&[4, 6]), n.tensor(&[6]), n.tensor(&[4, 1]), n.tensor(&[4, 2])];
        check("add", &inputs[..2], seed, &|x| g::add(&x[0], &x[1]));
        check("mul", &inputs[..2], seed, &|x| g::mul(&x[0], &x[1]));
        let pair = |index: usize| [inputs[0].clone(), inputs[index].clone()];
        check("mul by a vector", &pair(2), seed, &|x| g::mul(&x[0], &x[1]));
        check("mul by a column", &pair(3), seed, &|x| g::mul(&x[0], &x[1]));
        check("scale", &inputs[..1], seed, &|x| g::scale(&x[0], -1.7));
        check("columns", &inputs[..1], seed, &|x| g::columns(&x[0], 1, 3));
        check("rows", &inputs[..1], seed, &|x| g::rows(&x[0], 1, 2));
        let parts = [inputs[0].clone(), inputs[4].clone(), inputs[1].clone()];
        check("concat", &parts, seed, &|x| g::concat(&[&x[0], &x[1], &x[2]]));
    }
}
