//! Whole trained models beside which routing is measured.

use std::sync::Arc;

use modularbase_core::BaseFile;
use modularbase_corpus::Row;
use modularbase_trainer::evaluation::{Evaluator, WholeModel};
use modularbase_trainer::{Compute, TextBatch, TrainingBase};

use crate::base::ChosenBase;
use crate::eval::{NamedFile, as_failure};
use crate::failure::Failure;
use crate::model::explain;
use crate::packs;
use crate::settings::Settings;

/// The models, or nothing at all: they need a base of their own in memory.
pub(super) struct Baselines(Option<Evaluator>);

impl Baselines {
    pub(super) fn read(files: &[NamedFile], settings: &Settings) -> anyhow::Result<Self> {
        if files.is_empty() {
            return Ok(Self(None));
        }
        let chosen = ChosenBase::find(&settings.host.base)?;
        chosen.require()?;
        let file = BaseFile::open(&chosen.path).map_err(|error| explain(error.into()))?;
        let slot = packs::base_context(settings)?.slot;
        let compute = Compute::on(settings.host.device).map_err(as_failure)?;
        let base = TrainingBase::load(file, slot, compute).map_err(as_failure)?;
        let mut evaluator = Evaluator::new(Arc::new(base)).map_err(as_failure)?;
        for NamedFile { name, path } in files {
            let model = WholeModel::read(path, evaluator.base()).map_err(|error| {
                let failure = Failure::usage(format!("the baseline `{name}` can't be used"));
                anyhow::Error::new(error).context(failure)
            })?;
            evaluator.add_model(name, model);
        }
        Ok(Self(Some(evaluator)))
    }

    /// For each model the mean loss of a text's tokens from `from` on, nats a token.
    pub(super) fn losses(&self, ids: &[u32], from: usize) -> anyhow::Result<Vec<(&str, f64)>> {
        let Some(evaluator) = &self.0 else { return Ok(Vec::new()) };
        let counts = (1..ids.len()).map(|target| target >= from).collect();
        let row = Row { ids: ids.to_vec(), counts, source: 0 };
        let device = &evaluator.base().compute().device;
        let losses = TextBatch::of_rows(&[&row], device).and_then(|text| evaluator.row_losses(&text));
        let mean =
            |losses: Vec<f32>| losses.into_iter().map(f64::from).sum::<f64>() / (ids.len() - from) as f64;
        // The first column is the base, which the host has measured.
        Ok(evaluator.columns().zip(losses.map_err(as_failure)?.into_iter().map(mean)).skip(1).collect())
    }
}
