//! Columns over the same windows of text.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use modularbase_corpus::{LossOn, TokenizedCorpus, Window};
use modularbase_gradients as gradients;

use super::{DocumentScore, SlotExpert, WholeModel, window_choice};
use crate::{Batch, TextBatch, TrainError, TrainingBase};

/// Logits `[rows, vocab]` that are held at once, in rows.
const HEAD_ROWS: usize = 1024;

/// The name of the first column.
const BASE: &str = "base";

/// What is evaluated: a base and columns beside it.
pub struct Evaluator {
    base: Arc<TrainingBase>,
    /// The first one is the base's own layers.
    experts: Vec<SlotExpert>,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    what: ColumnKind,
}

enum ColumnKind {
    /// Experts by index with their weights.
    Mixture(Vec<(usize, f64)>),
    /// A model of its own from the tokens on.
    Whole(Box<WholeModel>),
}

/// How text is scored.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreOptions {
    /// The most targets of a window. A document's windows follow each other and don't overlap; the first token of a
    /// document is predicted from an end of text.
    pub length: usize,
    /// Which tokens count.
    pub loss_on: LossOn,
    /// Score about so many tokens, evenly spread; `None`: all.
    pub max_tokens: Option<u64>,
    /// Rows of a pass, what is filled up included.
    pub rows: usize,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self { length: 512, loss_on: LossOn::Everything, max_tokens: None, rows: 4096 }
    }
}

impl Evaluator {
    /// An evaluator whose only column, the first, is the base.
    ///
    /// # Errors
    /// A damaged base, a device without room.
    pub fn new(base: Arc<TrainingBase>) -> Result<Self, TrainError> {
        let own = SlotExpert::of_base("general", &base)?;
        let columns = vec![Column { name: BASE.to_owned(), what: ColumnKind::Mixture(vec![(0, 1.0)]) }];
        Ok(Self { base, experts: vec![own], columns })
    }

    /// The base around the slot.
    pub fn base(&self) -> &Arc<TrainingBase> {
        &self.base
    }

    /// Adds a pack that mixtures can name. The base's own layers are there as `general`; a pack of that name takes
    /// their place in mixtures.
    pub fn add_expert(&mut self, expert: SlotExpert) {
        self.experts.push(expert);
    }

    /// Adds a column with these experts and weights, which are used as they are.
    ///
    /// # Errors
    /// A name that no expert has; no part at all; a weight that is not finite.
    pub fn add_mixture(&mut self, name: &str, parts: &[(&str, f64)]) -> Result<(), TrainError> {
        let part = |&(expert, weight): &(&str, f64)| -> Result<(usize, f64), TrainError> {
            let index = self.experts.iter().rposition(|known| known.name() == expert).ok_or_else(|| {
                let known: Vec<&str> = self.experts.iter().map(SlotExpert::name).collect();
                let known = known.join(", ");
                TrainError::evaluation(format!("no pack is named `{expert}`; there are: {known}"))
            })?;
            match weight.is_finite() {
                true => Ok((index, weight)),
                false => Err(TrainError::evaluation(format!("the weight of `{expert}` is {weight}"))),
            }
        };
        let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err(TrainError::evaluation(format!("the mixture `{name}` has no parts")));
        }
        self.columns.push(Column { name: name.to_owned(), what: ColumnKind::Mixture(parts) });
        Ok(())
    }

    /// Adds a whole trained model as a column.
    pub fn add_model(&mut self, name: &str, model: WholeModel) {
        self.columns.push(Column { name: name.to_owned(), what: ColumnKind::Whole(Box::new(model)) });
    }

    /// The names of the columns; the first is the base's.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The loss of every row in nats, for each column, 0 where the target does not count.
    ///
    /// # Errors
    /// The device fails.
    pub fn row_losses(&self, text: &TextBatch) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut losses = Vec::with_capacity(self.columns.len());
        self.each_column(&text.ids, text.batch, None, |_, normed, head| {
            let rows = gradients::cross_entropy_rows(&normed, head, &text.targets, HEAD_ROWS)?;
            losses.push((rows * &text.mask)?.to_vec1()?);
            Ok(())
        })?;
        Ok(losses)
    }

    /// Calls `with` for each column, or for the wanted ones, with its index, the normed hidden states `[rows, hidden]`
    /// that the head reads, and the head.
    pub(super) fn each_column(
        &self,
        ids: &Tensor,
        batch: Batch,
        wanted: Option<&[usize]>,
        mut with: impl FnMut(usize, Tensor, &Tensor) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let is_wanted = |index: &usize| wanted.is_none_or(|wanted| wanted.contains(index));
        let before = self.base.before_slot(ids, batch)?;
        let mut outputs: Vec<Option<Tensor>> = vec![None; self.experts.len()];
        for (index, column) in self.columns.iter().enumerate().filter(|(index, _)| is_wanted(index)) {
            match &column.what {
                ColumnKind::Whole(model) => with(index, model.hidden(ids, batch)?, model.head())?,
                ColumnKind::Mixture(parts) => {
                    for &(expert, _) in parts {
                        if outputs[expert].is_none() {
                            outputs[expert] = Some(self.experts[expert].forward(&before, batch)?);
                        }
                    }
                    let behind = self.base.behind_slot(&mixed(parts, &outputs, before.dtype())?, batch)?;
                    with(index, behind.detach(), self.base.head())?;
                }
            }
            // An expert whose last column this was need not stay on the device.
            for (expert, output) in outputs.iter_mut().enumerate() {
                let later = self.columns[index + 1..].iter();
                if !later.into_iter().any(|column| column.uses(expert)) {
                    *output = None;
                }
            }
        }
        Ok(())
    }

    /// The losses of a corpus' documents, in their order; documents without a window are left out. `progress` is told
    /// how many of how many tokens are done.
    ///
    /// # Errors
    /// No text, a loss that is no number, a device that fails.
    pub fn score(
        &self,
        corpus: &TokenizedCorpus,
        options: &ScoreOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<DocumentScore>, TrainError> {
        let windows = window_choice::choose(corpus, options.length, options.loss_on, options.max_tokens);
        let total: u64 = windows.iter().map(|window| window.targets().len() as u64).sum();
        if total == 0 {
            return Err(TrainError::evaluation("the text holds no token to predict"));
        }
        let mut sums = Sums::new(corpus.len(), self.columns.len());
        let mut done = 0;
        progress(done, total);
        for group in window_choice::groups(&windows, options.rows) {
            let group: Vec<&Window> = group.into_iter().map(|index| &windows[index]).collect();
            let text = TextBatch::of_windows(&group, &self.base.compute().device)?;
            let losses = self.row_losses(&text).map_err(|error| self.explained(error, text.batch))?;
            for (place, window) in group.iter().enumerate() {
                let rows = place * text.batch.length..place * text.batch.length + window.targets().len();
                sums.add(window, |column| {
                    losses[column][rows.clone()].iter().map(|&loss| f64::from(loss)).sum()
                });
                done += window.targets().len() as u64;
            }
            progress(done, total);
        }
        sums.into_scores(corpus, |column| &self.columns[column].name)
    }

    fn explained(&self, error: TrainError, batch: Batch) -> TrainError {
        if !error.is_out_of_memory() {
            return error;
        }
        let advice = match batch.sequences {
            1 => format!("use windows shorter than {} tokens", batch.length),
            sequences => format!("use {} rows of a pass or fewer", sequences / 2 * batch.length),
        };
        TrainError::OutOfMemory {
            device: self.base.compute().device_name().into(),
            rows: batch.sequences,
            length: batch.length,
            advice: advice.into(),
        }
    }
}

impl Column {
    fn uses(&self, expert: usize) -> bool {
        match &self.what {
            ColumnKind::Mixture(parts) => parts.iter().any(|(used, _)| *used == expert),
            ColumnKind::Whole(_) => false,
        }
    }
}

/// The weighted sum of experts' outputs. One expert with the weight 1 is its output itself, to the bit.
fn mixed(parts: &[(usize, f64)], outputs: &[Option<Tensor>], dtype: DType) -> Result<Tensor, TrainError> {
    let output = |expert: usize| {
        outputs[expert].as_ref().ok_or_else(|| TrainError::evaluation("an expert has no output"))
    };
    if let &[(expert, 1.0)] = parts {
        return Ok(output(expert)?.clone());
    }
    let mut sum: Option<Tensor> = None;
    for &(expert, weight) in parts {
        let part = (output(expert)?.to_dtype(DType::F32)? * weight)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let sum = sum.ok_or_else(|| TrainError::evaluation("a mixture has no parts"))?;
    Ok(sum.to_dtype(dtype)?)
}

/// Sums by document.
struct Sums {
    /// Targets that were looked at, counted or not, and those that count.
    targets: Vec<(u64, u64)>,
    /// Nats by document and column.
    nats: Vec<Vec<f64>>,
}

impl Sums {
    fn new(documents: usize, columns: usize) -> Self {
        Self { targets: vec![(0, 0); documents], nats: vec![vec![0.0; columns]; documents] }
    }

    fn add(&mut self, window: &Window, loss: impl Fn(usize) -> f64) {
        let (seen, counted) = &mut self.targets[window.document];
        *seen += window.targets().len() as u64;
        *counted += window.counts.iter().filter(|counts| **counts).count() as u64;
        for (column, nats) in self.nats[window.document].iter_mut().enumerate() {
            *nats += loss(column);
        }
    }

    fn into_scores<'a>(
        self,
        corpus: &TokenizedCorpus,
        column_name: impl Fn(usize) -> &'a str,
    ) -> Result<Vec<DocumentScore>, TrainError> {
        let mut scores = Vec::new();
        for (document, ((seen, counted), nats)) in
            corpus.documents().zip(self.targets.into_iter().zip(self.nats))
        {
            if counted == 0 {
                continue;
            }
            if let Some(column) = nats.iter().position(|nats| !nats.is_finite()) {
                return Err(TrainError::evaluation(format!(
                    "the loss of the document `{}` is {} in the column `{}`: its weights are damaged",
                    document.id,
                    nats[column],
                    column_name(column)
                )));
            }
            let share = seen as f64 / document.ids.len().max(1) as f64;
            scores.push(DocumentScore {
                id: document.id.to_owned(),
                source: document.source.unwrap_or_default().to_owned(),
                tokens: counted,
                bytes: document.text_bytes as f64 * share,
                nats,
            });
        }
        Ok(scores)
    }
}
