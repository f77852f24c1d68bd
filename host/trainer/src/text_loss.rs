//! The loss on text that is looked at, of a model in any form of its weights and of its base.

use candle_core::Tensor;
use modularbase_corpus::Window;
use modularbase_gradients::cross_entropy_rows;

use crate::model::HEAD_ROWS;
use crate::{TextBatch, TrainError, TrainedModel, TrainingBase, ValidationText, WeightValues};

/// Nats a token of `text` with these weights, `rows` windows at a time; NaN without a token.
///
/// # Errors
/// The device fails.
pub fn text_loss(
    model: &dyn TrainedModel,
    text: &ValidationText,
    weights: &WeightValues,
    rows: usize,
) -> Result<f64, TrainError> {
    let head = model.head(weights);
    mean(model.base(), text, rows, &head, |text| model.hidden(&text.ids, text.batch, weights))
}

/// Nats a token of `text` of the base alone.
///
/// # Errors
/// The device fails.
pub fn base_text_loss(base: &TrainingBase, text: &ValidationText, rows: usize) -> Result<f64, TrainError> {
    mean(base, text, rows, base.head(), |text| base.alone(&text.ids, text.batch))
}

fn mean(
    base: &TrainingBase,
    text: &ValidationText,
    rows: usize,
    head: &Tensor,
    hidden: impl Fn(&TextBatch) -> Result<Tensor, TrainError>,
) -> Result<f64, TrainError> {
    let (mut nats, mut tokens) = (0.0, 0);
    let windows: Vec<&Window> = text.windows().iter().collect();
    for part in windows.chunks(rows.max(1)) {
        let part = TextBatch::of_windows(part, &base.compute().device)?;
        let losses = cross_entropy_rows(&hidden(&part)?, head, &part.targets, HEAD_ROWS)?;
        let losses: Vec<f32> = (losses * &part.mask)?.to_vec1()?;
        nats += losses.into_iter().map(f64::from).sum::<f64>();
        tokens += part.counted;
    }
    Ok(nats / tokens as f64)
}
