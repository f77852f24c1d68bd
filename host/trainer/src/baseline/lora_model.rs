//! LoRA (Hu et al. 2021) on every linear layer of the base: `W + scale * B A`, with `A` `[r, in]` drawn and `B`
//! `[out, r]` zero at the start, and the base's `W` frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use modularbase_gradients as gradients;
use modularbase_graph::Init;

use super::whole_base::{self, WholeBase};
use crate::evaluation::{LORA_A, LORA_B, LORA_SCALE_KEY};
use crate::{
    Batch, Parameters, Quantizer, TrainError, TrainedModel, TrainingBase, WeightValues, initial_values,
};

/// Sizes of LoRA's matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraOptions {
    /// Columns of `B` and rows of `A`.
    pub rank: usize,
    /// `scale` is this over the rank.
    pub alpha: f64,
    /// Seed of the first values of `A`.
    pub seed: u64,
}

impl LoraOptions {
    /// The usual choice for a rank: a scale of 2.
    pub fn of_rank(rank: usize, seed: u64) -> Self {
        Self { rank, alpha: 2.0 * rank as f64, seed }
    }

    fn scale(self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// A base with trained low-rank sums beside its linear layers.
pub struct LoraModel {
    whole: WholeBase,
    options: LoraOptions,
    /// `NAME.lora_a` `[in, r]`, the transpose of `A`, and `NAME.lora_b` `[out, r]`.
    parameters: Parameters,
    /// The matrices that are summed to, f32.
    origins: BTreeMap<String, Tensor>,
    /// Everything else.
    frozen: WeightValues,
}

impl LoraModel {
    /// The base with sums that are zero.
    ///
    /// # Errors
    /// A rank of 0, a damaged base, a device without room.
    pub fn new(base: Arc<TrainingBase>, options: LoraOptions) -> Result<Self, TrainError> {
        if options.rank == 0 || !options.alpha.is_finite() {
            let LoraOptions { rank, alpha, .. } = options;
            return Err(TrainError::evaluation(format!(
                "LoRA needs a rank of at least 1 and a finite alpha, found rank {rank} and alpha {alpha}"
            )));
        }
        let whole = WholeBase::new(base)?;
        whole.check()?;
        let device = whole.base.compute().device.clone();
        let (mut parameters, mut origins) = (Parameters::default(), BTreeMap::new());
        let mut frozen = WeightValues::new();
        for (name, shape) in whole.weights()? {
            if !WholeBase::is_linear(&name, &shape) {
                frozen.insert(name.clone(), whole.base.frozen(&name)?);
                continue;
            }
            let (rows, columns, rank) = (shape[0], shape[1], options.rank);
            // The deviation of PyTorch's uniform start for a linear layer of this width.
            let std = (1.0 / (3.0 * columns as f64)).sqrt() as f32;
            let a = format!("{name}{LORA_A}");
            let values = initial_values(&Init::Normal { std }, columns * rank, options.seed, &a);
            parameters.add(&a, values, &[columns, rank], &device)?;
            parameters.add(&format!("{name}{LORA_B}"), vec![0.0; rows * rank], &[rows, rank], &device)?;
            let origin = Tensor::from_vec(whole.values(&name)?, shape, &candle_core::Device::Cpu)?;
            origins.insert(name, origin.to_device(&device)?);
        }
        Ok(Self { whole, options, parameters, origins, frozen })
    }

    /// Writes trained values, f32, for evaluation; gives the file's bytes.
    ///
    /// # Errors
    /// A full disk, say.
    pub fn write(&self, values: &BTreeMap<String, Tensor>, path: &Path) -> Result<u64, TrainError> {
        let tensors = values.iter().map(|(name, value)| {
            let value = if name.ends_with(LORA_A) { value.t()? } else { value.clone() };
            Ok((name.clone(), value))
        });
        let tensors = tensors.collect::<Result<Vec<_>, TrainError>>()?;
        let scale = (LORA_SCALE_KEY, self.options.scale().to_string());
        whole_base::write(path, tensors, DType::F32, Some(scale))
    }

    /// Names of the matrices that have sums beside them.
    pub fn adapted(&self) -> BTreeSet<&str> {
        self.origins.keys().map(String::as_str).collect()
    }
}

impl TrainedModel for LoraModel {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn base(&self) -> &TrainingBase {
        &self.whole.base
    }

    fn weights(&self, _: Option<&Quantizer>) -> Result<WeightValues, TrainError> {
        let mut weights = self.frozen.clone();
        for (name, origin) in &self.origins {
            let part = |ending: &str| {
                let name = format!("{name}{ending}");
                let variable = self.parameters.get(&name);
                variable.ok_or_else(|| TrainError::Graph(format!("the weight `{name}` has no value")))
            };
            let (a, b) = (part(LORA_A)?, part(LORA_B)?);
            let product = gradients::linear(b.as_tensor(), a.as_tensor(), None)?;
            let product = gradients::scale(&product, self.options.scale() as f32)?;
            weights.insert(name.clone(), gradients::add(origin, &product)?);
        }
        Ok(weights)
    }

    fn hidden(&self, ids: &Tensor, batch: Batch, weights: &WeightValues) -> Result<Tensor, TrainError> {
        self.whole.hidden(ids, batch, weights)
    }

    fn head(&self, weights: &WeightValues) -> Tensor {
        self.whole.head(weights)
    }

    fn first_not_finite(
        &self,
        ids: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Option<String>, TrainError> {
        self.whole.first_not_finite(ids, batch, weights)
    }
}
