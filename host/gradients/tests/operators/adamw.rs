//! AdamW against its written-out definition, in f64.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use modularbase_gradients::{AdamW, AdamWConfig, Parameter, accumulate};

use crate::support::{Numbers, values};

const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

struct Reference {
    weight: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    decay: f64,
}

impl Reference {
    fn step(&mut self, gradient: &[f32], factor: f64, learning_rate: f64, step: i32) {
        for (index, &g) in gradient.iter().enumerate() {
            let g = f64::from(g) * factor;
            self.m[index] = CONFIG.beta1 * self.m[index] + (1.0 - CONFIG.beta1) * g;
            self.v[index] = CONFIG.beta2 * self.v[index] + (1.0 - CONFIG.beta2) * g * g;
            let m = self.m[index] / (1.0 - CONFIG.beta1.powi(step));
            let v = self.v[index] / (1.0 - CONFIG.beta2.powi(step));
            self.weight[index] *= 1.0 - learning_rate * self.decay;
            self.weight[index] -= learning_rate * m / (v.sqrt() + CONFIG.eps);
        }
    }
}

/// Two parameters, a matrix and a vector.
fn vars(seed: u64) -> (Var, Var) {
    let mut numbers = Numbers::new(seed);
    let var = |tensor: Tensor| Var::from_tensor(&tensor).unwrap();
    (var(numbers.tensor(&[13, 7])), var(numbers.tensor(&[31])))
}

/// Gradients that are these tensors.
fn gradients(parts: &[(&Var, &Tensor)]) -> GradStore {
    let mut sum = Tensor::new(0f32, &Device::Cpu).unwrap();
    for (var, gradient) in parts {
        sum = (sum + (var.as_tensor() * *gradient).unwrap().sum_all().unwrap()).unwrap();
    }
    sum.backward().unwrap()
}

#[test]
fn twenty_clipped_steps_follow_the_definition_with_decay_on_matrices_only() {
    let (matrix, vector) = vars(1);
    let reference = |var: &Var, decay| {
        let weight: Vec<f64> = values(var).into_iter().map(f64::from).collect();
        Reference { m: vec![0.0; weight.len()], v: vec![0.0; weight.len()], weight, decay }
    };
    let mut references = [reference(&matrix, CONFIG.weight_decay), reference(&vector, 0.0)];
    let parameters = vec![Parameter::new("matrix", matrix.clone()), Parameter::new("vector", vector.clone())];
    let mut optimizer = AdamW::new(parameters, CONFIG).unwrap();
    let mut numbers = Numbers::new(2);
    for step in 1..=20 {
        // Some steps are clipped and some are not.
        let size = if step % 2 == 0 { 0.01 } else { 2.0 };
        let parts = [numbers.tensor(&[13, 7]), numbers.tensor(&[31])].map(|part| (part * size).unwrap());
        let norm = parts
            .iter()
            .flat_map(values)
            .map(|value| f64::from(value) * f64::from(value))
            .sum::<f64>()
            .sqrt();
        let learning_rate = 0.01 * f64::from(step);
        let given = gradients(&[(&matrix, &parts[0]), (&vector, &parts[1])]);
        let found = optimizer.step(&given, learning_rate, Some(1.0)).unwrap().to_scalar::<f32>().unwrap();
        assert!((f64::from(found) - norm).abs() < 1e-5 * norm, "{found} against {norm}");
        let factor = (1.0 / (norm + 1e-6)).min(1.0);
        for (reference, part) in references.iter_mut().zip(&parts) {
            reference.step(&values(part), factor, learning_rate, step);
        }
    }
    for (reference, var) in references.iter().zip([&matrix, &vector]) {
        for (expected, found) in reference.weight.iter().zip(values(var)) {
            assert!((expected - f64::from(found)).abs() < 1e-4, "{found} against {expected}");
        }
    }
    assert_eq!(optimizer.steps(), 20);
}

#[test]
fn a_state_that_is_saved_and_loaded_goes_on_with_the_same_numbers() {
    let mut numbers = Numbers::new(3);
    let parts: Vec<[Tensor; 2]> = (0..6).map(|_| [numbers.tensor(&[13, 7]), numbers.tensor(&[31])]).collect();
    let run = |pause: Option<usize>| {
        let (matrix, vector) = vars(4);
        let build = || {
            let parameters = vec![Parameter::new("a", matrix.clone()), Parameter::new("b", vector.clone())];
            AdamW::new(parameters, CONFIG).unwrap()
        };
        let mut optimizer = build();
        for (step, parts) in parts.iter().enumerate() {
            if pause == Some(step) {
                let state = optimizer.state().unwrap();
                optimizer = build();
                optimizer.load_state(&state).unwrap();
                let saved: HashMap<String, Vec<f32>> =
                    state.iter().map(|(name, tensor)| (name.clone(), values(tensor))).collect();
                let given = gradients(&[(&matrix, &parts[0]), (&vector, &parts[1])]);
                optimizer.step(&given, 0.01, None).unwrap();
                for (name, tensor) in &state {
                    assert_eq!(saved[name], values(tensor), "a later step wrote into {name}");
                }
                continue;
            }
            let given = gradients(&[(&matrix, &parts[0]), (&vector, &parts[1])]);
            optimizer.step(&given, 0.01, None).unwrap();
        }
        [values(&matrix), values(&vector)]
    };
    assert_eq!(run(None), run(Some(3)));
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    let (matrix, vector) = vars(5);
    let parameters = vec![Parameter::new("a", matrix.clone()), Parameter::new("b", vector.clone())];
    let mut optimizer = AdamW::new(parameters, CONFIG).unwrap();
    let before = [values(&matrix), values(&vector)];
    let broken = (Tensor::ones((13, 7), DType::F32, &Device::Cpu).unwrap() * f64::NAN).unwrap();
    let sound = Tensor::ones(31, DType::F32, &Device::Cpu).unwrap();
    let norm = optimizer.step(&gradients(&[(&matrix, &broken), (&vector, &sound)]), 0.1, Some(1.0)).unwrap();
    assert!(norm.to_scalar::<f32>().unwrap().is_nan());
    assert_eq!(before, [values(&matrix), values(&vector)]);
}

#[test]
fn a_parameter_without_a_gradient_stays_as_it_is() {
    let (matrix, vector) = vars(6);
    let parameters = vec![Parameter::new("a", matrix.clone()), Parameter::new("b", vector.clone())];
    let mut optimizer = AdamW::new(parameters, CONFIG).unwrap();
    let before = values(&matrix);
    let part = Numbers::new(1).tensor(&[31]);
    optimizer.step(&gradients(&[(&vector, &part)]), 0.1, None).unwrap();
    assert_eq!(before, values(&matrix));
}

#[test]
fn gradients_of_two_halves_of_a_batch_add_up() {
    let (matrix, _) = vars(7);
    let mut numbers = Numbers::new(8);
    let (first, second) = (numbers.tensor(&[13, 7]), numbers.tensor(&[13, 7]));
    let mut total = gradients(&[(&matrix, &first)]);
    accumulate(&mut total, gradients(&[(&matrix, &second)])).unwrap();
    assert_eq!(values(total.get(&matrix).unwrap()), values(&(first + second).unwrap()));
}

#[test]
fn a_state_of_other_parameters_is_refused_and_nothing_is_taken_from_it() {
    let (matrix, vector) = vars(9);
    let mut small = AdamW::new(vec![Parameter::new("a", vector)], CONFIG).unwrap();
    let large = AdamW::new(vec![Parameter::new("a", matrix)], CONFIG).unwrap();
    let error = small.load_state(&large.state().unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.m") && error.contains("[31]") && error.contains("[13, 7]"), "{error}");
    assert_eq!(small.steps(), 0);
}
