//! Reproducible numbers.

use candle_core::{DType, Device, Result, Tensor};

pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn bits(&mut self) -> u64 {
        // xorshift*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Values in `-size..size` that bf16 holds exactly, on the CPU.
    pub fn tensor(&mut self, shape: &[usize], size: f32) -> Result<Tensor> {
        let value = |bits: u64| ((bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size;
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value(self.bits())).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::BF16)?.to_dtype(DType::F32)
    }

    pub fn ids(&mut self, count: usize, limit: usize) -> Result<Tensor> {
        let ids: Vec<u32> = (0..count).map(|_| (self.bits() >> 33) as u32 % limit as u32).collect();
        Tensor::from_vec(ids, count, &Device::Cpu)
    }
}
