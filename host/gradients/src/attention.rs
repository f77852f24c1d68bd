//! Attention over whole sequences, with grouped queries and without keeping the probabilities: backward computes them
//! again from the queries and keys.

use candle_core::{DType, Result, Tensor};

use crate::{
    OpError,
    attention_scores::{dscores, probabilities},
    product::product,
    recorded::record,
};

const OP: &str = "attention";

/// What the rows are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Tokens a sequence.
    pub(crate) length: usize,
    pub(crate) sequences: usize,
    pub(crate) causal: bool,
}

impl AttentionShape {
    /// Query heads that share a key head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The factor of the scores.
    pub(crate) fn scale(&self) -> f32 {
        (self.head_dim as f32).sqrt().recip()
    }
}

/// Softmax attention within each sequence of `length` rows: `q [rows, heads * d]` against `k` and `v`
/// `[rows, kv_heads * d]`, all f32 or all bf16; query head `h` reads key head `h * kv_heads / heads`. With `causal` a row
/// sees its own and earlier ones. Memory beyond the output is bounded, and nothing but the inputs is kept for backward.
///
/// # Errors
/// Shapes that differ from these: rows that are not of whole sequences, heads that don't divide.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    kv_heads: usize,
    length: usize,
    causal: bool,
) -> Result<Tensor> {
    let shape = checked(q, k, v, (heads, kv_heads, length, causal))?;
    let (a, b, c) = (q.detach().contiguous()?, k.detach().contiguous()?, v.detach().contiguous()?);
    #[cfg(feature = "cuda")]
    if crate::cuda::flash_attention::supports(&a, &shape) {
        return crate::cuda::flash_attention::attention([q, k, v], [a, b, c], shape);
    }
    let output = forward(&a, &b, &c, &shape)?;
    record(OP, output, [q, k, v], move |gradient, _| {
        let [dq, dk, dv] = backward(&a, &b, &c, gradient, &shape)?;
        Ok([Some(dq), Some(dk), Some(dv)])
    })
}

fn checked(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    (heads, kv_heads, length, causal): (usize, usize, usize, bool),
) -> Result<AttentionShape> {
    let shape = match (q.dims(), k.dims(), v.dims()) {
        (&[rows, width], &[k_rows, k_width], &[v_rows, v_width])
            if heads > 0
                && kv_heads > 0
                && length > 0
                && heads % kv_heads == 0
                && width % heads == 0
                && rows % length == 0
                && (rows, width / heads * kv_heads) == (k_rows, k_width)
                && (k_rows, k_width) == (v_rows, v_width)
                && q.dtype() == k.dtype()
                && k.dtype() == v.dtype() =>
        {
            let head_dim = width / heads;
            Some(AttentionShape { heads, kv_heads, head_dim, length, sequences: rows / length, causal })
        }
        _ => None,
    };
    shape.ok_or_else(|| {
        let expected = format!(
            "q [sequences * {length}, {heads} * d], k and v [sequences * {length}, {kv_heads} * d], \
             {heads} a multiple of {kv_heads}, one type"
        );
        OpError::inputs(OP, &expected, &[q, k, v]).into()
    })
}

/// A block of query rows of some sequences and the keys that it sees.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// First row in its sequence.
    first: usize,
    rows: usize,
    /// Keys `0..keys` of the sequence.
    keys: usize,
}

/// How the work is cut so that the scores stay in bounds.
struct Cut {
    /// Sequences at a time.
    sequences: usize,
    blocks: Vec<Block>,
}

impl Cut {
    fn new(shape: &AttentionShape, on_cpu: bool) -> Self {
        // On the CPU the scores should stay near the cache, and short blocks skip what the causal mask hides.
        let (budget, longest) = if on_cpu { (1 << 21, 128) } else { (1 << 27, shape.length) };
        let row = shape.heads * shape.length;
        let rows = (budget / row).clamp(1, longest.min(shape.length));
        let sequences = if rows < shape.length && !on_cpu { 1 } else { (budget / (row * rows)).max(1) };
        let blocks = (0..shape.length)
            .step_by(rows)
            .map(|first| {
                let rows = rows.min(shape.length - first);
                Block { first, rows, keys: if shape.causal { first + rows } else { shape.length } }
            })
            .collect();
        Self { sequences: sequences.min(shape.sequences.max(1)), blocks }
    }
}

/// `[n * length, heads * d]` as `[n * kv_heads, group, length, d]`.
fn by_query_head(x: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
    let n = x.dims()[0] / shape.length;
    let (kv, group, d) = (shape.kv_heads, shape.group(), shape.head_dim);
    let split = x.reshape((n, shape.length, kv, group, d))?.permute((0, 2, 3, 1, 4))?.contiguous()?;
    split.reshape((n * kv, group, shape.length, d))
}

/// `[n * length, kv_heads * d]` as `[n * kv_heads, length, d]`.
fn by_key_head(x: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
    let n = x.dims()[0] / shape.length;
    let split =
        x.reshape((n, shape.length, shape.kv_heads, shape.head_dim))?.transpose(1, 2)?.contiguous()?;
    split.reshape((n * shape.kv_heads, shape.length, shape.head_dim))
}

/// The inverse of [`by_query_head`].
fn query_rows(x: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
    let (kv, group, d) = (shape.kv_heads, shape.group(), shape.head_dim);
    let n = x.dims()[0] / kv;
    let rows = x.reshape((n, kv, group, shape.length, d))?.permute((0, 3, 1, 2, 4))?.contiguous()?;
    rows.reshape((n * shape.length, kv * group * d))
}

/// The inverse of [`by_key_head`].
fn key_rows(x: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
    let (kv, d) = (shape.kv_heads, shape.head_dim);
    let n = x.dims()[0] / kv;
    let rows = x.reshape((n, kv, shape.length, d))?.transpose(1, 2)?.contiguous()?;
    rows.reshape((n * shape.length, kv * d))
}

/// Rows of a block of `[n * kv_heads, group, length, d]` as `[n * kv_heads, group * rows, d]`.
fn block_of(x: &Tensor, block: &Block) -> Result<Tensor> {
    let part = x.narrow(2, block.first, block.rows)?.contiguous()?;
    let (heads, group, rows, d) = part.dims4()?;
    part.reshape((heads, group * rows, d))
}

/// Parts of [`block_of`] put together again, as `[n * kv_heads, group, length, d]`.
fn joined(parts: Vec<Tensor>, blocks: &[Block], shape: &AttentionShape) -> Result<Tensor> {
    let whole: Vec<Tensor> = parts
        .into_iter()
        .zip(blocks)
        .map(|(part, block)| part.reshape(((), shape.group(), block.rows, shape.head_dim)))
        .collect::<Result<_>>()?;
    match whole.as_slice() {
        [one] => Ok(one.clone()),
        parts => Tensor::cat(parts, 2),
    }
}

/// Products of bf16 on the CPU are made in f32 anyway: there everything is widened once.
fn working(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// The rows of some sequences.
fn part_of(x: &Tensor, first: usize, sequences: usize, shape: &AttentionShape) -> Result<Tensor> {
    working(&x.narrow(0, first * shape.length, sequences * shape.length)?)
}

fn forward(q: &Tensor, k: &Tensor, v: &Tensor, shape: &AttentionShape) -> Result<Tensor> {
    let cut = Cut::new(shape, q.device().is_cpu());
    let mut outputs = Vec::new();
    for first in (0..shape.sequences).step_by(cut.sequences) {
        let n = cut.sequences.min(shape.sequences - first);
        let queries = by_query_head(&part_of(q, first, n, shape)?, shape)?;
        let keys = by_key_head(&part_of(k, first, n, shape)?, shape)?;
        let values = by_key_head(&part_of(v, first, n, shape)?, shape)?;
        let mut parts = Vec::with_capacity(cut.blocks.len());
        for block in &cut.blocks {
            let (keys, values) = (seen(&keys, block)?, seen(&values, block)?);
            let p = block_probabilities(&block_of(&queries, block)?, &keys, block, shape)?;
            parts.push(product(&p, &values)?);
        }
        outputs.push(query_rows(&joined(parts, &cut.blocks, shape)?, shape)?.to_dtype(q.dtype())?);
    }
    together(outputs, q)
}

/// With `p` the probabilities: `dv = p^T g`, `ds = scale p (g v^T - sum(p (g v^T)))`, `dq = ds k`, `dk = ds^T q`.
fn backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    gradient: &Tensor,
    shape: &AttentionShape,
) -> Result<[Tensor; 3]> {
    let cut = Cut::new(shape, q.device().is_cpu());
    let mut outputs = [Vec::new(), Vec::new(), Vec::new()];
    for first in (0..shape.sequences).step_by(cut.sequences) {
        let n = cut.sequences.min(shape.sequences - first);
        let queries = by_query_head(&part_of(q, first, n, shape)?, shape)?;
        let keys = by_key_head(&part_of(k, first, n, shape)?, shape)?;
        let values = by_key_head(&part_of(v, first, n, shape)?, shape)?;
        let incoming = by_query_head(&part_of(gradient, first, n, shape)?, shape)?;
        let mut dq = Vec::with_capacity(cut.blocks.len());
        let (mut dk, mut dv) = (None, None);
        for block in &cut.blocks {
            let (seen_keys, seen_values) = (seen(&keys, block)?, seen(&values, block)?);
            let (q, g) = (block_of(&queries, block)?, block_of(&incoming, block)?);
            let p = block_probabilities(&q, &seen_keys, block, shape)?;
            dv = Some(added(dv, product(&p.transpose(1, 2)?, &g)?, shape.length)?);
            let dp = product(&g, &seen_values.transpose(1, 2)?)?;
            let ds = dscores(&p, dp, shape.scale())?;
            dq.push(product(&ds, &seen_keys)?);
            dk = Some(added(dk, product(&ds.transpose(1, 2)?, &q)?, shape.length)?);
        }
        outputs[0].push(query_rows(&joined(dq, &cut.blocks, shape)?, shape)?.to_dtype(q.dtype())?);
        for (outputs, sum) in outputs[1..].iter_mut().zip([dk, dv].into_iter().flatten()) {
            outputs.push(key_rows(&sum, shape)?.to_dtype(q.dtype())?);
        }
    }
    let [dq, dk, dv] = outputs;
    Ok([together(dq, q)?, together(dk, k)?, together(dv, v)?])
}

/// The keys or values `[n * kv_heads, length, d]` that a block sees.
fn seen(x: &Tensor, block: &Block) -> Result<Tensor> {
    x.narrow(1, 0, block.keys)?.contiguous()
}

fn block_probabilities(
    queries: &Tensor,
    keys: &Tensor,
    block: &Block,
    shape: &AttentionShape,
) -> Result<Tensor> {
    let scores = product(queries, &keys.transpose(1, 2)?)?;
    let first = shape.causal.then_some(block.first);
    probabilities(scores, block.rows, first, shape.scale())
}

/// `sum + part`, where `part` may lack the last keys.
fn added(sum: Option<Tensor>, part: Tensor, length: usize) -> Result<Tensor> {
    let missing = length - part.dims()[1];
    let part = if missing == 0 { part } else { part.pad_with_zeros(1, 0, missing)? };
    match sum {
        None => Ok(part),
        Some(sum) => sum + part,
    }
}

fn together(parts: Vec<Tensor>, like: &Tensor) -> Result<Tensor> {
    match parts.as_slice() {
        [] => like.zeros_like(),
        [one] => Ok(one.clone()),
        parts => Tensor::cat(parts, 0),
    }
}
