//! Inputs that don't go together are refused with their shapes.

use candle_core::{DType, Device, Tensor};
use modularbase_gradients as g;

use crate::support::Numbers;

fn refused(result: candle_core::Result<Tensor>, words: &[&str]) {
    let error = result.expect_err("refused").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn shapes_that_do_not_go_together_are_named() {
    let mut n = Numbers::new(1);
    let x = n.tensor(&[6, 8]);
    refused(g::rms_norm(&x, &n.tensor(&[7]), 1e-5), &["rms_norm", "[6, 8]", "[7]"]);
    refused(g::layer_norm(&x, &n.tensor(&[8]), &n.tensor(&[9]), 1e-5), &["layer_norm", "[9]"]);
    refused(g::linear(&x, &n.tensor(&[3, 7]), None), &["linear", "[3, 7]"]);
    refused(g::linear(&x, &n.tensor(&[3, 8]), Some(&n.tensor(&[4]))), &["linear", "[4]"]);
    refused(g::silu_mul(&x, &n.tensor(&[6, 7])), &["silu_mul", "[6, 7]"]);
    refused(g::attention(&x, &x, &x, 2, 2, 4, true), &["attention", "sequences * 4"]);
    refused(g::attention(&x, &x, &x, 3, 2, 3, true), &["attention", "multiple"]);
    let table = g::RopeTable::new(&[1.0, 0.5], 4, &Device::Cpu).unwrap();
    refused(g::rope(&x, &table, g::RopeLayout::Half, 4), &["rope", "sequences * 4"]);
    refused(g::rope(&n.tensor(&[4, 8]), &table, g::RopeLayout::Half, 8), &["rope", "this one has 4"]);
    refused(g::columns(&x, 5, 4), &["columns", "9 columns", "[6, 8]"]);
    refused(g::rows(&x, 6, 1), &["rows", "7 rows"]);
    refused(g::straight_through(&x, &n.tensor(&[8, 6])), &["straight_through", "[8, 6]"]);
}

#[test]
fn ids_and_targets_outside_of_a_table_are_named() {
    let table = Numbers::new(2).tensor(&[5, 3]);
    let ids = Tensor::new(&[1u32, 5], &Device::Cpu).unwrap();
    refused(g::embedding(&ids, &table), &["index 5", "5 rows"]);
    let (hidden, ones) =
        (Numbers::new(3).tensor(&[2, 3]), Tensor::ones(2, DType::F32, &Device::Cpu).unwrap());
    refused(g::cross_entropy(&hidden, &table, &ids, &ones, 2), &["index 5", "5 rows"]);
    refused(g::cross_entropy_rows(&hidden, &table, &ids, 2), &["index 5", "5 rows"]);
    let masked = Tensor::new(&[1f32, 0.0], &Device::Cpu).unwrap();
    assert!(
        g::cross_entropy(&hidden, &table, &ids, &masked, 2).is_ok(),
        "a masked row's target is not looked at"
    );
    refused(g::cross_entropy(&hidden, &table, &ids, &masked, 0), &["at least one row"]);
}

#[test]
fn a_teacher_of_another_shape_is_refused() {
    let mut n = Numbers::new(5);
    let (hidden, head, other) = (n.tensor(&[2, 3]), n.tensor(&[5, 3]), n.tensor(&[3, 3]));
    let ones = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
    refused(g::distillation(&hidden, &head, &other, &head, &ones, 2), &["distillation", "[3, 3]"]);
    refused(g::distillation(&hidden, &head, &hidden, &other, &ones, 2), &["distillation", "[3, 3]"]);
    refused(g::distillation(&hidden, &head, &hidden, &head, &ones, 0), &["at least one row"]);
}

#[test]
fn other_element_types_are_named() {
    let x = Numbers::new(4).tensor(&[4, 8]).to_dtype(DType::F64).unwrap();
    refused(g::softmax(&x), &["softmax", "F64"]);
    refused(g::silu(&x), &["silu", "F64"]);
}

#[test]
fn no_rows_are_no_error() {
    let x = Tensor::zeros((0, 8), DType::F32, &Device::Cpu).unwrap();
    let weight = Tensor::ones(8, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(g::rms_norm(&x, &weight, 1e-5).unwrap().dims(), [0, 8]);
    assert_eq!(g::silu_mul(&x, &x).unwrap().dims(), [0, 8]);
    assert_eq!(g::attention(&x, &x, &x, 2, 2, 4, true).unwrap().dims(), [0, 8]);
}
