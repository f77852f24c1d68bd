//! Numbers and comparisons.

use candle_core::{DType, Device, Result, Tensor, Var};

/// Reproducible values in `-1..1`.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1))
    }

    fn bits(&mut self) -> u64 {
        // SplitMix64, Steele et al. 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.value()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    pub fn ids(&mut self, count: usize, limit: usize) -> Tensor {
        let ids: Vec<u32> = (0..count).map(|_| self.below(limit) as u32).collect();
        Tensor::from_vec(ids, count, &Device::Cpu).unwrap()
    }
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// An operator of some inputs, for comparisons.
pub type Operator<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The output, and the gradients of the sum of `outgoing * output` by each input.
pub fn with_gradients(operator: Operator, inputs: &[Tensor], seed: u64) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let output = operator(&tensors).unwrap();
    let outgoing = Numbers::new(seed ^ 0xabc).tensor(output.dims()).to_dtype(output.dtype()).unwrap();
    let gradients = (&output * outgoing).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|var| gradients.get(var).expect("a gradient for each input").clone());
    (output.detach(), gradients.collect())
}

/// The largest difference over the largest magnitude of `right`.
pub fn difference(left: &Tensor, right: &Tensor) -> f32 {
    assert_eq!(left.dims(), right.dims());
    let (left, right) = (values(left), values(right));
    assert!(left.iter().all(|value| value.is_finite()), "not finite");
    let size = right.iter().map(|value| value.abs()).fold(1e-6, f32::max);
    left.iter().zip(&right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}
