//! The crate's own way back against candle's.

use candle_core::{DType, Device, Result, Tensor, Var};
use modularbase_gradients as g;

use crate::support::{Numbers, difference};

struct Network {
    vars: Vec<Var>,
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor,
    table: g::RopeTable,
}

const LENGTH: usize = 12;

impl Network {
    fn new(dtype: DType) -> Self {
        let mut n = Numbers::new(11);
        let shapes: [&[usize]; 9] =
            [&[16], &[16, 16], &[8, 16], &[8, 16], &[16, 16], &[40, 16], &[40, 16], &[16, 40], &[50, 16]];
        Self {
            vars: shapes.iter().map(|shape| Var::from_tensor(&n.tensor(shape)).unwrap()).collect(),
            hidden: n.tensor(&[3 * LENGTH, 16]).to_dtype(dtype).unwrap(),
            targets: n.ids(3 * LENGTH, 50),
            weights: Tensor::ones(3 * LENGTH, DType::F32, &Device::Cpu).unwrap(),
            table: g::RopeTable::new(&[1.0, 0.1], LENGTH, &Device::Cpu).unwrap(),
        }
    }

    /// Two layers with the same weights, so that every gradient is a sum.
    fn loss(&self) -> Result<Tensor> {
        let w = &self.vars;
        let mut x = self.hidden.clone();
        for _ in 0..2 {
            let normed = g::rms_norm(&x, &w[0], 1e-5)?;
            let rope = |x: Tensor| g::rope(&x, &self.table, g::RopeLayout::Half, 4);
            let (q, k) = (rope(g::linear(&normed, &w[1], None)?)?, rope(g::linear(&normed, &w[2], None)?)?);
            let mixed = g::attention(&q, &k, &g::linear(&normed, &w[3], None)?, 4, 2, LENGTH, true)?;
            x = g::add(&x, &g::linear(&mixed, &w[4], None)?)?;
            let normed = g::rms_norm(&x, &w[0], 1e-5)?;
            let inner = g::silu_mul(&g::linear(&normed, &w[5], None)?, &g::linear(&normed, &w[6], None)?)?;
            x = g::add(&x, &g::linear(&inner, &w[7], None)?)?;
        }
        g::scale(&g::cross_entropy(&x, &w[8], &self.targets, &self.weights, 10)?, 1.0 / 36.0)
    }
}

#[test]
fn both_ways_back_give_the_same_gradients() {
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 0.02)] {
        let network = Network::new(dtype);
        let loss = network.loss().unwrap();
        assert!(g::is_recorded(&loss));
        let (fast, stock) = (g::backward(&loss).unwrap(), loss.backward().unwrap());
        for (index, var) in network.vars.iter().enumerate() {
            let off = difference(fast.get(var).unwrap(), stock.get(var).unwrap());
            assert!(off < tolerance, "{dtype:?}, variable {index}: off by {off}");
        }
    }
}

#[test]
fn a_graph_with_an_operator_of_candles_own_still_gives_its_gradients() {
    let network = Network::new(DType::F32);
    let loss = (network.loss().unwrap() * 2.0).unwrap();
    assert!(!g::is_recorded(&loss));
    let (fast, stock) = (g::backward(&loss).unwrap(), loss.backward().unwrap());
    for var in &network.vars {
        assert!(difference(fast.get(var).unwrap(), stock.get(var).unwrap()) < 1e-6);
    }
}

#[test]
fn a_repeated_step_gives_the_same_bits() {
    let network = Network::new(DType::F32);
    let gradients = || {
        let gradients = g::backward(&network.loss().unwrap()).unwrap();
        let of = |var: &Var| crate::support::values(gradients.get(var).unwrap());
        network.vars.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(gradients(), gradients());
}
