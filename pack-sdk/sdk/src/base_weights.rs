//! Canonical names of a base's weights: what `copy_from_base` names, whatever file the base came from.
//!
//! Matrices are `[out, in]`. The rows of `attn_q` and `attn_k` lie for half-split RoPE, as in Hugging Face files.

use crate::BaseShape;

/// `[vocab, hidden]`.
pub const TOKEN_EMBD: &str = "token_embd";
/// `[hidden]`.
pub const OUTPUT_NORM: &str = "output_norm";
/// `[vocab, hidden]`; where the base ties its head, the same tensor as [`TOKEN_EMBD`].
pub const OUTPUT: &str = "output";

/// `[hidden]`.
pub const ATTN_NORM: &str = "attn_norm";
/// `[heads * head_dim, hidden]`.
pub const ATTN_Q: &str = "attn_q";
/// `[kv_heads * head_dim, hidden]`.
pub const ATTN_K: &str = "attn_k";
/// `[kv_heads * head_dim, hidden]`.
pub const ATTN_V: &str = "attn_v";
/// `[heads * head_dim]`, where the base has QKV biases.
pub const ATTN_Q_BIAS: &str = "attn_q_bias";
/// `[kv_heads * head_dim]`.
pub const ATTN_K_BIAS: &str = "attn_k_bias";
/// `[kv_heads * head_dim]`.
pub const ATTN_V_BIAS: &str = "attn_v_bias";
/// `[hidden, heads * head_dim]`.
pub const ATTN_OUTPUT: &str = "attn_output";
/// `[hidden]`.
pub const FFN_NORM: &str = "ffn_norm";
/// `[ffn, hidden]`.
pub const FFN_GATE: &str = "ffn_gate";
/// `[ffn, hidden]`.
pub const FFN_UP: &str = "ffn_up";
/// `[hidden, ffn]`.
pub const FFN_DOWN: &str = "ffn_down";

/// What the weights of layer `layer` are prefixed with: `layers.18`.
pub fn layer_prefix(layer: usize) -> String {
    format!("layers.{layer}")
}

/// Full name of weight `weight` of layer `layer`: `layers.18.attn_q`.
pub fn layer_weight(layer: usize, weight: &str) -> String {
    format!("layers.{layer}.{weight}")
}

/// Shape that the weight of that name has in a base; `None` where the base has no such weight.
pub fn shape_of(base: &BaseShape, name: &str) -> Option<Vec<usize>> {
    let (hidden, ffn) = (base.hidden_size, base.intermediate_size);
    let (query, kv) = (base.query_width(), base.kv_width());
    match name {
        TOKEN_EMBD | OUTPUT => return Some(vec![base.vocab_size, hidden]),
        OUTPUT_NORM => return Some(vec![hidden]),
        _ => {}
    }
    let (layer, weight) = name.strip_prefix("layers.")?.split_once('.')?;
    // Only the canonical spelling: no sign, no leading zero.
    let number = layer.parse::<usize>().ok().filter(|number| number.to_string() == layer)?;
    if number >= base.num_layers {
        return None;
    }
    match weight {
        ATTN_NORM | FFN_NORM => Some(vec![hidden]),
        ATTN_Q => Some(vec![query, hidden]),
        ATTN_K | ATTN_V => Some(vec![kv, hidden]),
        ATTN_Q_BIAS if base.qkv_bias => Some(vec![query]),
        ATTN_K_BIAS | ATTN_V_BIAS if base.qkv_bias => Some(vec![kv]),
        ATTN_OUTPUT => Some(vec![hidden, query]),
        FFN_GATE | FFN_UP => Some(vec![ffn, hidden]),
        FFN_DOWN => Some(vec![hidden, ffn]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base_graphs, blocks::test_shape};
    use pack_abi::OpKind;

    #[test]
    fn shapes_agree_with_the_bases_own_graphs() {
        for qkv_bias in [false, true] {
            let base = BaseShape { qkv_bias, ..test_shape() };
            let graphs = [
                base_graphs::understanding(&base, 2),
                base_graphs::layers(&base, 2..base.num_layers),
                base_graphs::head(&base),
            ];
            let nodes = graphs.iter().flat_map(|graph| graph.nodes.iter());
            for node in nodes.filter(|node| node.op == OpKind::WEIGHT) {
                let attr = node.attrs.iter().find(|attr| attr.name == "shape").unwrap();
                let shape: Vec<usize> = attr.value.ints.iter().map(|&n| n as usize).collect();
                assert_eq!(shape_of(&base, node.name.as_str()), Some(shape), "{}", node.name);
            }
        }
    }

    #[test]
    fn names_that_no_base_has_give_none() {
        let base = test_shape();
        for name in [
            "layers.4.attn_q",
            "layers.04.attn_q",
            "layers.1",
            "layers.1.attn_q_bias",
            "attn_q",
            "layers.x.attn_q",
        ] {
            assert_eq!(shape_of(&base, name), None, "{name}");
        }
    }
}
