//! The tensors that a base consists of: canonical names, shapes, and what GGUF and Hugging Face call them.

use pack_sdk::BaseShape;

/// One tensor that a base's shape asks for.
#[derive(Debug, Clone)]
pub(crate) struct TensorSpec {
    /// The canonical name, e.g. `layers.3.attn_q`.
    pub name: String,
    pub gguf_name: String,
    pub hugging_face_name: String,
    /// Rows first: `[out, in]` for a linear layer, `[size]` for norms and biases.
    pub shape: Vec<usize>,
    /// For queries and keys, the number of heads: their rows lie interleaved in GGUF files of Llama models.
    pub rope_heads: Option<usize>,
}

/// Every tensor of the base, lazily: a damaged header may claim any number of layers, and the first one
/// missing ends the walk. With `tied`, the head `output` is left out.
pub(crate) fn expected_tensors(shape: &BaseShape, tied: bool) -> impl Iterator<Item = TensorSpec> + '_ {
    let ends = [
        Some((
            "token_embd",
            "token_embd.weight",
            "model.embed_tokens.weight",
            vec![shape.vocab_size, shape.hidden_size],
        )),
        Some(("output_norm", "output_norm.weight", "model.norm.weight", vec![shape.hidden_size])),
        (!tied).then(|| {
            ("output", "output.weight", "lm_head.weight", vec![shape.vocab_size, shape.hidden_size])
        }),
    ];
    let ends = ends.into_iter().flatten().map(|(name, gguf, hugging_face, shape)| TensorSpec {
        name: name.to_owned(),
        gguf_name: gguf.to_owned(),
        hugging_face_name: hugging_face.to_owned(),
        shape,
        rope_heads: None,
    });
    ends.chain((0..shape.num_layers).flat_map(|layer| layer_tensors(shape, layer)))
}

fn layer_tensors(shape: &BaseShape, layer: usize) -> Vec<TensorSpec> {
    let hidden = shape.hidden_size;
    let feed_forward = shape.intermediate_size;
    let queries = shape.num_heads * shape.head_dim;
    let keys = shape.num_kv_heads * shape.head_dim;
    let (q_heads, k_heads) = (Some(shape.num_heads), Some(shape.num_kv_heads));
    let mut rows = vec![
        ("attn_norm", "attn_norm.weight", "input_layernorm.weight", vec![hidden], None),
        ("attn_q", "attn_q.weight", "self_attn.q_proj.weight", vec![queries, hidden], q_heads),
        ("attn_k", "attn_k.weight", "self_attn.k_proj.weight", vec![keys, hidden], k_heads),
        ("attn_v", "attn_v.weight", "self_attn.v_proj.weight", vec![keys, hidden], None),
        ("attn_output", "attn_output.weight", "self_attn.o_proj.weight", vec![hidden, queries], None),
        ("ffn_norm", "ffn_norm.weight", "post_attention_layernorm.weight", vec![hidden], None),
        ("ffn_gate", "ffn_gate.weight", "mlp.gate_proj.weight", vec![feed_forward, hidden], None),
        ("ffn_up", "ffn_up.weight", "mlp.up_proj.weight", vec![feed_forward, hidden], None),
        ("ffn_down", "ffn_down.weight", "mlp.down_proj.weight", vec![hidden, feed_forward], None),
    ];
    if shape.qkv_bias {
        rows.extend([
            ("attn_q_bias", "attn_q.bias", "self_attn.q_proj.bias", vec![queries], q_heads),
            ("attn_k_bias", "attn_k.bias", "self_attn.k_proj.bias", vec![keys], k_heads),
            ("attn_v_bias", "attn_v.bias", "self_attn.v_proj.bias", vec![keys], None),
        ]);
    }
    rows.into_iter()
        .map(|(name, gguf, hugging_face, shape, rope_heads)| TensorSpec {
            name: format!("layers.{layer}.{name}"),
            gguf_name: format!("blk.{layer}.{gguf}"),
            hugging_face_name: format!("model.layers.{layer}.{hugging_face}"),
            shape,
            rope_heads,
        })
        .collect()
}

/// Where the rows of queries and keys lie in a GGUF file of a Llama model.
///
/// The converter stores the row `j * d/2 + i` of a head of size `d` (`j` in `{0, 1}`) as its row `2i + j`,
/// because ggml's RoPE turns neighbours where Hugging Face's turns halves. Row `r` of the result's order is
/// the stored row `map[r]`.
pub(crate) fn half_split_row_map(heads: usize, head_dim: usize) -> Vec<u32> {
    let half = head_dim / 2;
    (0..heads)
        .flat_map(|head| {
            (0..2).flat_map(move |j| (0..half).map(move |i| (head * head_dim + 2 * i + j) as u32))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_sorted_into_halves() {
        assert_eq!(half_split_row_map(2, 6), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
