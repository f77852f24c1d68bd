//! Gradients go where they are wanted, and nowhere else.

use candle_core::{Device, Tensor, Var};
use modularbase_gradients as g;

use crate::support::{Numbers, values};

#[test]
fn a_frozen_weight_gets_no_gradient_and_lets_one_through() {
    let mut numbers = Numbers::new(1);
    let x = Var::from_tensor(&numbers.tensor(&[5, 4])).unwrap();
    let weight = numbers.tensor(&[3, 4]);
    let gradients = g::linear(&x, &weight, None).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&x).is_some());
    assert!(gradients.get(&weight).is_none());
}

#[test]
fn an_input_without_a_gradient_costs_none() {
    let mut numbers = Numbers::new(2);
    let x = numbers.tensor(&[5, 4]);
    let weight = Var::from_tensor(&numbers.tensor(&[3, 4])).unwrap();
    let gradients = g::linear(&x, &weight, None).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&x).is_none());
    assert!(gradients.get(&weight).is_some());
}

#[test]
fn without_anything_to_train_nothing_is_recorded() {
    let mut numbers = Numbers::new(3);
    let (x, weight) = (numbers.tensor(&[6, 4]), numbers.tensor(&[4]));
    let table = g::RopeTable::new(&[1.0], 3, &Device::Cpu).unwrap();
    let targets = numbers.ids(6, 4);
    let ones = Tensor::ones(6, candle_core::DType::F32, &Device::Cpu).unwrap();
    for output in [
        g::rms_norm(&x, &weight, 1e-5).unwrap(),
        g::rope(&x, &table, g::RopeLayout::Half, 2).unwrap(),
        g::attention(&x, &x, &x, 2, 2, 3, true).unwrap(),
        g::silu_mul(&x, &x).unwrap(),
        g::linear(&x, &x, None).unwrap(),
        g::cross_entropy(&x, &x.narrow(0, 0, 4).unwrap(), &targets, &ones, 4).unwrap(),
    ] {
        assert!(!output.track_op());
    }
}

#[test]
fn straight_through_shows_the_replacement_and_moves_the_master() {
    let mut numbers = Numbers::new(4);
    let master = Var::from_tensor(&numbers.tensor(&[4, 3])).unwrap();
    let (replaced, x) = (numbers.tensor(&[4, 3]), numbers.tensor(&[2, 3]));
    let seen = g::straight_through(&master, &replaced).unwrap();
    assert_eq!(values(&seen), values(&replaced), "not a rounding off");
    let gradients = g::linear(&x, &seen, None).unwrap().sum_all().unwrap().backward().unwrap();
    let column: Vec<f32> = values(&x.sum(0).unwrap());
    let expected: Vec<f32> = (0..4).flat_map(|_| column.clone()).collect();
    for (found, expected) in values(gradients.get(&master).unwrap()).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6);
    }
    assert_eq!(values(&replaced).len(), 12, "the replacement is still there");
}

#[test]
fn an_input_used_twice_gets_the_sum() {
    let x = Var::from_tensor(&Numbers::new(5).tensor(&[3, 4])).unwrap();
    let gradients = g::silu_mul(&x, &x).unwrap().sum_all().unwrap().backward().unwrap();
    let twice = values(gradients.get(&x).unwrap());
    let stock = (x.silu().unwrap() * x.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    for (found, expected) in twice.iter().zip(values(stock.get(&x).unwrap())) {
        assert!((found - expected).abs() < 1e-5);
    }
}

#[test]
fn views_are_taken_as_what_they_show() {
    let whole = Var::from_tensor(&Numbers::new(6).tensor(&[6, 8])).unwrap();
    let view = whole.narrow(1, 2, 4).unwrap();
    let copy = view.detach().contiguous().unwrap();
    let weight = Numbers::new(7).tensor(&[4]);
    let of_view = g::rms_norm(&view, &weight, 1e-5).unwrap();
    assert_eq!(values(&of_view), values(&g::rms_norm(&copy, &weight, 1e-5).unwrap()));
    let gradients = of_view.sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&whole).unwrap().to_vec2::<f32>().unwrap();
    assert!(gradient.iter().all(|row| row[..2] == [0.0; 2] && row[6..] == [0.0; 2] && row[3] != 0.0));
}
