//! What a run trains: something with parameters, hidden states and a head.

use std::collections::BTreeMap;

use candle_core::Tensor;
use modularbase_gradients as gradients;

use crate::{Batch, Compute, Parameters, Quantizer, TextBatch, TrainError, TrainingBase, WeightValues};

/// A model whose loss on the next token can be computed and led back to its parameters.
pub trait TrainedModel {
    /// What is trained.
    fn parameters(&self) -> &Parameters;

    /// The base that it starts from, as it is.
    fn base(&self) -> &TrainingBase;

    /// Where it computes.
    fn compute(&self) -> &Compute {
        self.base().compute()
    }

    /// The weights of a step. With `quantizer` the forward pass sees quantized values where the model ships them so.
    ///
    /// # Errors
    /// The device fails.
    fn weights(&self, quantizer: Option<&Quantizer>) -> Result<WeightValues, TrainError>;

    /// The hidden states that the head reads, `[rows, hidden]`, for ids `[rows]`, u32.
    ///
    /// # Errors
    /// The device fails.
    fn hidden(&self, ids: &Tensor, batch: Batch, weights: &WeightValues) -> Result<Tensor, TrainError>;

    /// The LM head `[vocab, hidden]`.
    fn head(&self, weights: &WeightValues) -> Tensor;

    /// What each parameter that ships as a delta differs from: the base's own values, f32 in host memory.
    ///
    /// # Errors
    /// The base can't be read.
    fn delta_bases(&self) -> Result<BTreeMap<String, Vec<f32>>, TrainError> {
        Ok(BTreeMap::new())
    }

    /// The name of the first value in a pass that is not finite.
    ///
    /// # Errors
    /// The device fails.
    fn first_not_finite(
        &self,
        ids: &Tensor,
        batch: Batch,
        weights: &WeightValues,
    ) -> Result<Option<String>, TrainError>;
}

/// Logits `[rows, vocab]` that a step holds at once, in rows.
pub const HEAD_ROWS: usize = 2048;

/// The summed loss of the targets that count, nats, as a scalar that gradients start from.
pub(crate) fn loss_sum(
    model: &dyn TrainedModel,
    text: &TextBatch,
    weights: &WeightValues,
) -> Result<Tensor, TrainError> {
    let hidden = model.hidden(&text.ids, text.batch, weights)?;
    let head = model.head(weights);
    Ok(gradients::cross_entropy(&hidden, &head, &text.targets, &text.mask, HEAD_ROWS)?)
}

/// How far the model is from the base on these tokens, summed, nats, as a scalar that gradients start from: the
/// divergence of what it says of the token behind each that counts from what the base says.
pub(crate) fn divergence_sum(
    model: &dyn TrainedModel,
    text: &TextBatch,
    weights: &WeightValues,
) -> Result<Tensor, TrainError> {
    let base = model.base();
    let teacher = base.alone(&text.ids, text.batch)?;
    let hidden = model.hidden(&text.ids, text.batch, weights)?;
    let head = model.head(weights);
    Ok(gradients::distillation(&hidden, &head, &teacher, base.head(), &text.mask, HEAD_ROWS)?)
}
