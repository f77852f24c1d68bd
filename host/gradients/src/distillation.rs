//! Distillation (Hinton et al. 2015) through a head: how far rows are from what a teacher says of the next token, over
//! the whole vocabulary, without the logits of all rows at once.

use candle_core::{DType, Result, Tensor};

use crate::{
    OpError, product::product_f32, row_divergences::row_divergences, through_head::summed_through_head,
};

const OP: &str = "distillation";

/// The sum over rows of `weights[i] * KL(softmax(teacher[i] teacher_head^T) || softmax(hidden[i] head^T))`, a scalar in
/// f32, in nats: `hidden` and `teacher [rows, width]` in f32 or bf16, the heads `[vocabulary, width]` in f32 or that type,
/// `weights [rows]` f32. A row of weight 0 is skipped. Gradients go to `hidden`, and to `head` if it is tracked;
/// `chunk_rows` rows are computed at a time. Near the teacher the gradient is a small difference of two distributions:
/// logits are f32, whatever the rows are.
///
/// # Errors
/// Other shapes or element types, `chunk_rows` of 0.
pub fn distillation(
    hidden: &Tensor,
    head: &Tensor,
    teacher: &Tensor,
    teacher_head: &Tensor,
    weights: &Tensor,
    chunk_rows: usize,
) -> Result<Tensor> {
    let rows = hidden.dims().first();
    let fits = hidden.rank() == 2
        && head.rank() == 2
        && hidden.dims()[1] == head.dims()[1]
        && teacher.dims() == hidden.dims()
        && teacher.dtype() == hidden.dtype()
        && teacher_head.dims() == head.dims()
        && weights.rank() == 1
        && weights.dims().first() == rows
        && weights.dtype() == DType::F32;
    if !fits || chunk_rows == 0 {
        let expected = "hidden and teacher [rows, width] of one type, heads [vocabulary, width], weights [rows] F32 and \
                        chunks of at least one row";
        return Err(OpError::inputs(OP, expected, &[hidden, head, teacher, teacher_head, weights]).into());
    }
    let teacher = teacher.detach().contiguous()?;
    let teacher_head = teacher_head.detach().to_dtype(hidden.dtype())?.contiguous()?;
    let weights = weights.detach().contiguous()?;
    summed_through_head(OP, hidden, head, chunk_rows, |chunk| {
        let (first, rows) = (chunk.rows.start, chunk.rows.len());
        let logits = product_f32(chunk.hidden, &chunk.head.t()?)?;
        let teacher = product_f32(&teacher.narrow(0, first, rows)?, &teacher_head.t()?)?;
        let weights = weights.narrow(0, first, rows)?;
        let (divergences, dlogits) = row_divergences(logits, &teacher, &weights, chunk.with_gradient)?;
        // The difference is taken: what it is multiplied with may be rounded as in all products.
        Ok((divergences, dlogits.to_dtype(chunk.hidden.dtype())?))
    })
}
