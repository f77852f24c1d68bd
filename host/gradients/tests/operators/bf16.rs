//! Rows in bf16: the same arithmetic in f32, rounded where values are stored.

use candle_core::{DType, Device, Tensor};
use modularbase_gradients as g;

use crate::support::{Numbers, Operator, difference, with_gradients};

/// `masters` are the inputs that stay in f32.
fn check(name: &str, inputs: &[Tensor], masters: &[usize], operator: Operator) {
    let rounded: Vec<Tensor> =
        inputs.iter().map(|x| x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()).collect();
    let half: Vec<Tensor> = rounded
        .iter()
        .enumerate()
        .map(|(index, x)| if masters.contains(&index) { x.clone() } else { x.to_dtype(DType::BF16).unwrap() })
        .collect();
    let (exact, exact_gradients) = with_gradients(operator, &rounded, 3);
    let (output, gradients) = with_gradients(operator, &half, 3);
    let off = difference(&output, &exact);
    assert!(off < 0.01, "{name}: the output is off by {off}");
    for (index, (gradient, exact)) in gradients.iter().zip(&exact_gradients).enumerate() {
        assert_eq!(gradient.dtype(), half[index].dtype(), "{name}: gradient of input {index}");
        let off = difference(gradient, exact);
        assert!(off < 0.03, "{name}: the gradient of input {index} is off by {off}");
    }
}

#[test]
fn rows_in_bf16_over_f32_masters_are_within_rounding_of_f32() {
    let mut n = Numbers::new(8);
    let norm = [n.tensor(&[40, 96]), n.tensor(&[96]), n.tensor(&[96])];
    check("rms_norm", &norm[..2], &[1], &|x| g::rms_norm(&x[0], &x[1], 1e-5));
    check("layer_norm", &norm, &[1, 2], &|x| g::layer_norm(&x[0], &x[1], &x[2], 1e-5));
    check("rms_norm, all bf16", &norm[..2], &[], &|x| g::rms_norm(&x[0], &x[1], 1e-5));
    let table = g::RopeTable::new(&[1.0, 0.5, 0.25, 0.125], 20, &Device::Cpu).unwrap();
    check("rope", &norm[..1], &[], &|x| g::rope(&x[0], &table, g::RopeLayout::Half, 8));
    check("softmax", &norm[..1], &[], &|x| g::softmax(&x[0]));
    check("gelu", &norm[..1], &[], &|x| g::gelu(&x[0]));
    let pair = [n.tensor(&[40, 96]), n.tensor(&[40, 96])];
    check("silu_mul", &pair, &[], &|x| g::silu_mul(&x[0], &x[1]));
    let qkv = [n.tensor(&[40, 96]), n.tensor(&[40, 32]), n.tensor(&[40, 32])];
    check("attention", &qkv, &[], &|x| g::attention(&x[0], &x[1], &x[2], 6, 2, 20, true));
    let matrix = [n.tensor(&[40, 96]), n.tensor(&[48, 96]), n.tensor(&[48])];
    check("linear", &matrix, &[1, 2], &|x| g::linear(&x[0], &x[1], Some(&x[2])));
    check("frozen type linear", &matrix[..2], &[], &|x| g::linear(&x[0], &x[1], None));
    let ids = n.ids(30, 48);
    check("embedding", &matrix[1..2], &[], &|x| g::embedding(&ids, &x[0]));
    let (targets, weights) = (n.ids(40, 48), Tensor::ones(40, DType::F32, &Device::Cpu).unwrap());
    check("cross_entropy", &matrix[..2], &[1], &|x| g::cross_entropy(&x[0], &x[1], &targets, &weights, 16));
    let teacher = n.tensor(&[40, 96]);
    check("distillation", &matrix[..2], &[1], &|x| {
        let teacher = teacher.to_dtype(x[0].dtype())?;
        g::distillation(&x[0], &x[1], &teacher, &matrix[1], &weights, 16)
    });
}
