//! Llama layers over a head: trained, frozen, or passed without gradients.

use candle_core::{DType, Device, Result, Tensor, Var};
use modularbase_gradients as g;

use crate::numbers::Numbers;

#[derive(Clone, Copy)]
pub struct Sizes {
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub inner: usize,
    pub vocabulary: usize,
    pub sequences: usize,
    pub length: usize,
}

impl Sizes {
    pub fn rows(&self) -> usize {
        self.sequences * self.length
    }

    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }
}

/// A layer's weights in the order norm, q, k, v, o, norm, gate, up, down.
struct Layer([Tensor; 9]);

pub struct Stack {
    sizes: Sizes,
    /// Passed without gradients.
    before: Vec<Layer>,
    trained: Vec<Layer>,
    frozen: Vec<Layer>,
    head: Tensor,
    table: g::RopeTable,
    pub hidden: Tensor,
    pub targets: Tensor,
    pub weights: Tensor,
    pub parameters: Vec<g::Parameter>,
}

impl Stack {
    pub fn new(sizes: Sizes, layers: (usize, usize, usize), device: &Device, dtype: DType) -> Result<Self> {
        let mut n = Numbers::new(1);
        let mut parameters = Vec::new();
        let mut layer = |n: &mut Numbers, trained: bool| -> Result<Layer> {
            let (width, inner, kv) = (sizes.width, sizes.inner, sizes.kv_heads * sizes.head_dim());
            let shapes: [&[usize]; 9] = [
                &[width],
                &[width, width],
                &[kv, width],
                &[kv, width],
                &[width, width],
                &[width],
                &[inner, width],
                &[inner, width],
                &[width, inner],
            ];
            let mut weights = Vec::with_capacity(shapes.len());
            for shape in shapes {
                let tensor = match shape.len() {
                    1 => Tensor::ones(shape, DType::F32, device)?,
                    _ => n.tensor(shape, 0.07)?.to_device(device)?,
                };
                weights.push(if trained {
                    let var = Var::from_tensor(&tensor)?;
                    parameters.push(g::Parameter::new(format!("{}", parameters.len()), var.clone()));
                    var.as_tensor().clone()
                } else {
                    tensor.to_dtype(dtype)?
                });
            }
            weights.try_into().map(Layer).map_err(|_| candle_core::Error::msg("nine weights a layer"))
        };
        let mut many = |count: usize, trained: bool| -> Result<Vec<Layer>> {
            (0..count).map(|_| layer(&mut n, trained)).collect()
        };
        let (before, trained, frozen) =
            (many(layers.0, false)?, many(layers.1, true)?, many(layers.2, false)?);
        let half = sizes.head_dim() / 2;
        let frequencies: Vec<f32> = (0..half).map(|pair| 1e4f32.powf(-(pair as f32) / half as f32)).collect();
        Ok(Self {
            before,
            trained,
            frozen,
            head: n.tensor(&[sizes.vocabulary, sizes.width], 0.07)?.to_device(device)?.to_dtype(dtype)?,
            table: g::RopeTable::new(&frequencies, sizes.length, device)?,
            hidden: n.tensor(&[sizes.rows(), sizes.width], 1.0)?.to_device(device)?.to_dtype(dtype)?,
            targets: n.ids(sizes.rows(), sizes.vocabulary)?.to_device(device)?,
            weights: Tensor::ones(sizes.rows(), DType::F32, device)?,
            parameters,
            sizes,
        })
    }

    fn layer(&self, x: Tensor, Layer(w): &Layer) -> Result<Tensor> {
        let Sizes { heads, kv_heads, length, .. } = self.sizes;
        let d = self.sizes.head_dim();
        let normed = g::rms_norm(&x, &w[0], 1e-5)?;
        let rope = |x: Tensor| g::rope(&x, &self.table, g::RopeLayout::Half, d);
        let q = rope(g::linear(&normed, &w[1], None)?)?;
        let k = rope(g::linear(&normed, &w[2], None)?)?;
        let v = g::linear(&normed, &w[3], None)?;
        let mixed = g::attention(&q, &k, &v, heads, kv_heads, length, true)?;
        let x = g::add(&x, &g::linear(&mixed, &w[4], None)?)?;
        let normed = g::rms_norm(&x, &w[5], 1e-5)?;
        let inner = g::silu_mul(&g::linear(&normed, &w[6], None)?, &g::linear(&normed, &w[7], None)?)?;
        g::add(&x, &g::linear(&inner, &w[8], None)?)
    }

    /// The mean loss in nats a token.
    pub fn loss(&self, chunk_rows: usize) -> Result<Tensor> {
        let mut x = self.hidden.clone();
        for layer in self.before.iter().chain(&self.trained).chain(&self.frozen) {
            x = self.layer(x, layer)?;
        }
        let sum = g::cross_entropy(&x, &self.head, &self.targets, &self.weights, chunk_rows)?;
        g::scale(&sum, 1.0 / self.sizes.rows() as f32)
    }
}
