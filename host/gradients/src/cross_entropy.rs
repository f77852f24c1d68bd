//! Cross entropy through a head, without the logits of all rows at once.

use candle_core::{DType, Result, Tensor};

use crate::{
    OpError,
    product::{product, product_f32},
    row_losses::row_losses,
    through_head::{chunks, summed_through_head},
};

const OP: &str = "cross_entropy";

/// The sum over rows of `weights[i] * -log softmax(hidden[i] head^T)[targets[i]]`, a scalar in f32, in nats:
/// `hidden [rows, width]` in f32 or bf16, `head [vocabulary, width]` in f32 or `hidden`'s type, `targets [rows]` u32,
/// `weights [rows]` f32. A row of weight 0 is skipped, whatever its target is. Gradients go to `hidden`, and to `head` if
/// it is tracked; `chunk_rows` rows are computed at a time.
///
/// # Errors
/// Other shapes or element types, `chunk_rows` of 0; on the CPU a target outside of the head (on CUDA the loss is then
/// NaN).
pub fn cross_entropy(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    weights: &Tensor,
    chunk_rows: usize,
) -> Result<Tensor> {
    check(hidden, head, targets, Some(weights), chunk_rows)?;
    let weights = weights.detach().contiguous()?;
    summed_through_head(OP, hidden, head, chunk_rows, |chunk| {
        let (first, rows) = (chunk.rows.start, chunk.rows.len());
        let logits = logits_for_training(chunk.hidden, chunk.head)?;
        let (targets, weights) = (targets.narrow(0, first, rows)?, weights.narrow(0, first, rows)?);
        row_losses(logits, &targets, Some(&weights), chunk.with_gradient)
    })
}

/// `-log softmax(hidden[i] head^T)[targets[i]]` of each row, `[rows]` f32, in nats, without gradients: shapes and types
/// as for [`cross_entropy`], the logits in f32.
///
/// # Errors
/// As for [`cross_entropy`].
pub fn cross_entropy_rows(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    chunk_rows: usize,
) -> Result<Tensor> {
    check(hidden, head, targets, None, chunk_rows)?;
    let input = hidden.detach().contiguous()?;
    let matrix = head.detach().to_dtype(hidden.dtype())?.contiguous()?;
    let mut losses = Vec::new();
    for rows in chunks(input.dims()[0], chunk_rows) {
        let logits = product_f32(&input.narrow(0, rows.start, rows.len())?, &matrix.t()?)?;
        losses.push(row_losses(logits, &targets.narrow(0, rows.start, rows.len())?, None, false)?.0);
    }
    if losses.is_empty() {
        return Tensor::zeros(0, DType::F32, hidden.device());
    }
    Tensor::cat(&losses, 0)
}

/// The CPU has no product in bf16: there the logits stay in f32.
fn logits_for_training(chunk: &Tensor, head: &Tensor) -> Result<Tensor> {
    if chunk.device().is_cpu() { product_f32(chunk, &head.t()?) } else { product(chunk, &head.t()?) }
}

fn check(
    hidden: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    chunk_rows: usize,
) -> Result<()> {
    let fits = match (hidden.dims(), head.dims(), targets.dims()) {
        (&[rows, width], &[_, head_width], &[target_rows]) => {
            width == head_width
                && rows == target_rows
                && targets.dtype() == DType::U32
                && weights.is_none_or(|weights| weights.dims() == [rows] && weights.dtype() == DType::F32)
        }
        _ => false,
    };
    if fits && chunk_rows > 0 {
        return Ok(());
    }
    let found: Vec<&Tensor> = [hidden, head, targets].into_iter().chain(weights).collect();
    let expected = "hidden [rows, width], head [vocabulary, width], targets [rows] U32, weights [rows] F32 and chunks of \
                    at least one row";
    Err(OpError::inputs(OP, expected, &found).into())
}
