//! Full fine-tuning: every weight of the base is trained.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::whole_base::{self, WholeBase};
use crate::{Batch, Parameters, Quantizer, TrainError, TrainedModel, TrainingBase, WeightValues};

/// A base of which every weight is a parameter.
pub struct FullModel {
    whole: WholeBase,
    parameters: Parameters,
}

impl FullModel {
    /// A copy of the base to be trained.
    ///
    /// # Errors
    /// A damaged base, a device without room.
    pub fn new(base: Arc<TrainingBase>) -> Result<Self, TrainError> {
        let whole = WholeBase::new(base)?;
        whole.check()?;
        let mut parameters = Parameters::default();
        for (name, shape) in whole.weights()? {
            parameters.add(&name, whole.values(&name)?, &shape, &whole.base.compute().device)?;
        }
        Ok(Self { whole, parameters })
    }

    /// Writes trained values, bf16, for evaluation; gives the file's bytes.
    ///
    /// # Errors
    /// A full disk, say.
    pub fn write(&self, values: &BTreeMap<String, Tensor>, path: &Path) -> Result<u64, TrainError> {
        let tensors = values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        whole_base::write(path, tensors, DType::BF16, None)
    }
}

impl TrainedModel for FullModel {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn base(&self) -> &TrainingBase {
        &self.whole.base
    }

    fn weights(&self, _: Option<&Quantizer>) -> Result<WeightValues, TrainError> {
        let values = self.parameters.iter();
        Ok(values.map(|(name, variable)| (name.to_owned(), variable.as_tensor().clone())).collect())
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
