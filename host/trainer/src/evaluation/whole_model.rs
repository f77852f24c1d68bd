//! A whole trained model beside the base: what packs are compared with.
//!
//! Its file is in safetensors and holds what differs from the base: whole tensors under the base's canonical names
//! (full fine-tuning), or pairs `NAME.lora_a` `[r, in]` and `NAME.lora_b` `[out, r]` (LoRA, Hu et al. 2021), which are
//! added up to `W + scale * B A`; the scale stands in the metadata under [`LORA_SCALE_KEY`].

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use modularbase_gradients as gradients;
use pack_sdk::{base_graphs, base_weights};
use safetensors::SafeTensors;

use crate::{Batch, Network, NetworkInput, TrainError, TrainingBase, WeightValues};

/// The key of `__metadata__` under which the factor of LoRA's products stands.
pub(crate) const LORA_SCALE_KEY: &str = "modularbase.lora_scale";
/// What the names of LoRA's matrices `[r, in]` end with.
pub(crate) const LORA_A: &str = ".lora_a";
/// What the names of LoRA's matrices `[out, r]` end with.
pub(crate) const LORA_B: &str = ".lora_b";

/// All layers of a base with weights of their own, on the base's device.
#[derive(Debug)]
pub struct WholeModel {
    layers: Network,
    weights: WeightValues,
    norm: Tensor,
    head: Tensor,
    eps: f32,
}

impl WholeModel {
    /// Reads what differs from the base; every other weight is the base's.
    ///
    /// # Errors
    /// A file that can't be read, a tensor that the base does not have, or of another shape.
    pub fn read(path: &Path, base: &TrainingBase) -> Result<Self, TrainError> {
        let trained = Trained::read(path)?;
        let (shape, compute) = (base.shape(), base.compute());
        let layers = Network::of_abi(&base_graphs::understanding(shape, shape.num_layers), compute.clone())?;
        let mut used = BTreeSet::new();
        let mut weights = WeightValues::new();
        for (name, _) in layers.weights() {
            weights.insert(name.to_owned(), trained.value(name, base, &mut used)?);
        }
        let norm = trained.value(base_weights::OUTPUT_NORM, base, &mut used)?;
        let own_head =
            trained.tensors.keys().any(|name| name.split('.').next() == Some(base_weights::OUTPUT));
        let head = match base.file().tied_head() && !own_head {
            // A tied head is trained with the embedding.
            true => weights[base_weights::TOKEN_EMBD].clone(),
            false => trained.value(base_weights::OUTPUT, base, &mut used)?,
        };
        if let Some(unknown) = trained.tensors.keys().find(|name| !used.contains(*name)) {
            return Err(TrainError::evaluation(format!(
                "{}: the base has no weight for `{unknown}`: was the model trained on another base?",
                path.display()
            )));
        }
        Ok(Self { layers, weights, norm, head, eps: shape.rms_norm_eps as f32 })
    }

    /// The normed hidden states that the head reads, `[rows, hidden]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn hidden(&self, ids: &Tensor, batch: Batch) -> Result<Tensor, TrainError> {
        let hidden = self.layers.forward(NetworkInput::Tokens(ids), batch, &self.weights)?;
        Ok(gradients::rms_norm(&hidden, &self.norm, self.eps)?.detach())
    }

    /// The LM head `[vocab, hidden]`.
    pub fn head(&self) -> &Tensor {
        &self.head
    }
}

/// What a file of a trained model holds.
struct Trained {
    tensors: HashMap<String, Tensor>,
    lora_scale: f64,
    file: String,
}

impl Trained {
    fn read(path: &Path) -> Result<Self, TrainError> {
        let unsound = |reason: String| TrainError::evaluation(format!("{}: {reason}", path.display()));
        let bytes = std::fs::read(path).map_err(TrainError::file("read", path))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| unsound(format!("is no sound safetensors file: {error}")))?;
        let scale = metadata.metadata().as_ref().and_then(|texts| texts.get(LORA_SCALE_KEY));
        let lora_scale = match scale {
            Some(text) => text.parse().ok().filter(|scale: &f64| scale.is_finite()).ok_or_else(|| {
                unsound(format!("expected a number under {LORA_SCALE_KEY} of its metadata, found `{text}`"))
            })?,
            None => 1.0,
        };
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| unsound(format!("is no sound safetensors file: {error}")))?;
        Ok(Self { tensors, lora_scale, file: path.display().to_string() })
    }

    /// A weight for use, and which of the file's tensors went into it.
    fn value(
        &self,
        name: &str,
        base: &TrainingBase,
        used: &mut BTreeSet<String>,
    ) -> Result<Tensor, TrainError> {
        let (a, b) = (format!("{name}{LORA_A}"), format!("{name}{LORA_B}"));
        let value = if let Some(whole) = self.tensors.get(name) {
            used.insert(name.to_owned());
            whole.to_dtype(DType::F32)?
        } else if let (Some(down), Some(up)) = (self.tensors.get(&a), self.tensors.get(&b)) {
            let shape = base.file().tensor(name)?.shape.clone();
            let own = Tensor::from_vec(base.file().read_f32(name)?, shape, &Device::Cpu)?;
            let product = up.to_dtype(DType::F32)?.matmul(&down.to_dtype(DType::F32)?)?;
            used.extend([a, b]);
            match product.dims() == own.dims() {
                true => (own + (product * self.lora_scale)?)?,
                false => product,
            }
        } else {
            return base.frozen(name);
        };
        let expected = &base.file().tensor(name)?.shape;
        if value.dims() != expected {
            let found = value.dims();
            return Err(TrainError::evaluation(format!(
                "{}: `{name}` should be {expected:?}, found {found:?}: was the model trained on another base?",
                self.file
            )));
        }
        let dtype = if value.rank() == 1 { DType::F32 } else { base.compute().dtype };
        Ok(value.to_dtype(dtype)?.to_device(&base.compute().device)?)
    }
}
