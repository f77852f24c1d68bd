//! The typed way to write a graph of opset 1: one method an operator.

use abi_stable::std_types::{RString, RVec};
use pack_abi::{Attr, AttrKind, AttrValue, Graph, Init, Node, OPSET, OpKind};

/// A value in the graph: the output of a node. Only meaningful for the builder that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(u32);

/// Settings of a rotary embedding (Su et al. 2021), half-split layout.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSettings {
    /// Width of a head.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Factors of the inverse frequencies, `[head_dim / 2]`.
    pub freq_scale: Option<Vec<f32>>,
}

/// Collects nodes; [`GraphBuilder::finish`] gives the graph. Shapes are checked by the host, which names the node it
/// objects to.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    scope: String,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the operators that `body` adds `scope/...`, for error messages. Weight names stay as given.
    pub fn in_scope<T>(&mut self, scope: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer_length = self.scope.len();
        self.scope.push_str(scope);
        self.scope.push('/');
        let result = body(self);
        self.scope.truncate(outer_length);
        result
    }

    /// The hidden state that enters the slot, `[tokens, width]`. Every pack has exactly one input.
    pub fn hidden_input(&mut self, width: usize) -> Value {
        self.push(OpKind::INPUT, "hidden", &[], vec![text("kind", "hidden"), int("width", width)])
    }

    /// Token ids, `[tokens]`: how the base's understanding layers begin.
    pub fn tokens_input(&mut self) -> Value {
        self.push(OpKind::INPUT, "tokens", &[], vec![text("kind", "tokens")])
    }

    /// A parameter. `name` is its key in the weights file and unique in the graph; reuse the value to tie weights.
    pub fn weight(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> Value {
        let shape = ints("shape", shape.iter().copied());
        self.push_named(OpKind::WEIGHT, name.into(), &[], vec![shape, text("init", &init.to_string())])
    }

    /// `x [tokens, in]` times the transpose of `weight [out, in]`: `[tokens, out]`.
    pub fn linear(&mut self, x: Value, weight: Value) -> Value {
        self.push(OpKind::LINEAR, "linear", &[x, weight], vec![])
    }

    /// [`GraphBuilder::linear`] plus `bias [out]`.
    pub fn linear_with_bias(&mut self, x: Value, weight: Value, bias: Value) -> Value {
        self.push(OpKind::LINEAR, "linear", &[x, weight, bias], vec![])
    }

    /// The rows of `table [vocab, width]` that the token ids name: `[tokens, width]`.
    pub fn embedding(&mut self, tokens: Value, table: Value) -> Value {
        self.push(OpKind::EMBEDDING, "embedding", &[tokens, table], vec![])
    }

    /// `x / sqrt(mean(x^2) + eps) * weight`, `weight [n]` (Zhang and Sennrich 2019).
    pub fn rms_norm(&mut self, x: Value, weight: Value, eps: f64) -> Value {
        self.push(OpKind::RMS_NORM, "rms_norm", &[x, weight], vec![float("eps", eps)])
    }

    /// Layer norm with `weight [n]` and `bias [n]` (Ba et al. 2016).
    pub fn layer_norm(&mut self, x: Value, weight: Value, bias: Value, eps: f64) -> Value {
        self.push(OpKind::LAYER_NORM, "layer_norm", &[x, weight, bias], vec![float("eps", eps)])
    }

    /// Rotary embedding of `x [tokens, heads * head_dim]` by the token's position, half-split layout.
    pub fn rope(&mut self, x: Value, settings: &RopeSettings) -> Value {
        let mut attrs =
            vec![int("head_dim", settings.head_dim), float("theta", settings.theta), text("layout", "half")];
        if let Some(scale) = &settings.freq_scale {
            attrs.push(floats("freq_scale", scale.iter().copied().map(f64::from)));
        }
        self.push(OpKind::ROPE, "rope", &[x], attrs)
    }

    /// Causal attention with the KV cache of key `layer`, unique in the graph. `q [tokens, heads * d]`, `k` and `v`
    /// `[tokens, kv_heads * d]`: `[tokens, heads * d]`.
    pub fn attention(&mut self, [q, k, v]: [Value; 3], layer: usize, heads: usize, kv_heads: usize) -> Value {
        let attrs =
            vec![int("layer", layer), int("heads", heads), int("kv_heads", kv_heads), int("causal", 1)];
        self.push(OpKind::ATTENTION, "attention", &[q, k, v], attrs)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&mut self, x: Value) -> Value {
        self.push(OpKind::SILU, "silu", &[x], vec![])
    }

    /// The tanh form of GELU (Hendrycks and Gimpel 2016).
    pub fn gelu(&mut self, x: Value) -> Value {
        self.push(OpKind::GELU, "gelu", &[x], vec![])
    }

    /// `silu(gate) * up`.
    pub fn silu_mul(&mut self, gate: Value, up: Value) -> Value {
        self.push(OpKind::SILU_MUL, "silu_mul", &[gate, up], vec![])
    }

    /// Elementwise sum of two values of one shape.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.push(OpKind::ADD, "add", &[a, b], vec![])
    }

    /// Elementwise product; `b` may also be a weight `[n]` or `[1]`, broadcast over tokens.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.push(OpKind::MUL, "mul", &[a, b], vec![])
    }

    /// `x * factor`.
    pub fn scale(&mut self, x: Value, factor: f64) -> Value {
        self.push(OpKind::SCALE, "scale", &[x], vec![float("factor", factor)])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: Value) -> Value {
        self.push(OpKind::SOFTMAX, "softmax", &[x], vec![])
    }

    /// Two or more values joined on the last axis.
    pub fn concat(&mut self, values: &[Value]) -> Value {
        self.push(OpKind::CONCAT, "concat", values, vec![])
    }

    /// A mixture of `experts` gated FFNs, `top_k` of them for each token. Weights `[router, gate, up, down]`:
    /// `[experts, n]`, `[experts * f, n]`, `[experts * f, n]`, `[experts * n, f]`. The softmax over the router's
    /// logits is renormalised over the chosen experts (Mixtral, Jiang et al. 2024).
    pub fn moe_ffn(&mut self, x: Value, weights: [Value; 4], experts: usize, top_k: usize) -> Value {
        let [router, gate, up, down] = weights;
        let attrs = vec![int("experts", experts), int("top_k", top_k)];
        self.push(OpKind::MOE_FFN, "moe_ffn", &[x, router, gate, up, down], attrs)
    }

    /// The graph whose results are `outputs`. A pack has one, `[tokens, hidden]`.
    pub fn finish(self, outputs: &[Value]) -> Graph {
        Graph {
            opset: OPSET,
            nodes: self.nodes.into_iter().collect(),
            outputs: outputs.iter().map(|value| value.0).collect(),
        }
    }

    fn push(&mut self, op: OpKind, label: &str, inputs: &[Value], attrs: Vec<Attr>) -> Value {
        // '#' keeps automatic names apart from weight names; the index makes them unique.
        let name = format!("{}{label}#{}", self.scope, self.nodes.len());
        self.push_named(op, name, inputs, attrs)
    }

    fn push_named(&mut self, op: OpKind, name: String, inputs: &[Value], attrs: Vec<Attr>) -> Value {
        let index = self.nodes.len() as u32;
        let inputs = inputs.iter().map(|value| value.0).collect();
        self.nodes.push(Node { op, inputs, name: name.into(), attrs: attrs.into_iter().collect() });
        Value(index)
    }
}

fn attr(name: &str, kind: AttrKind, ints: RVec<i64>, floats: RVec<f64>, text: RString) -> Attr {
    Attr { name: name.into(), value: AttrValue { kind, ints, floats, text } }
}

fn ints(name: &str, values: impl Iterator<Item = usize>) -> Attr {
    // A size beyond i64 can't be meant; saturating keeps it absurd, so the host refuses it.
    let values = values.map(|value| i64::try_from(value).unwrap_or(i64::MAX)).collect();
    attr(name, AttrKind::INTS, values, RVec::new(), RString::new())
}

fn int(name: &str, value: usize) -> Attr {
    ints(name, std::iter::once(value))
}

fn floats(name: &str, values: impl Iterator<Item = f64>) -> Attr {
    attr(name, AttrKind::FLOATS, RVec::new(), values.collect(), RString::new())
}

fn float(name: &str, value: f64) -> Attr {
    floats(name, std::iter::once(value))
}

fn text(name: &str, value: &str) -> Attr {
    attr(name, AttrKind::TEXT, RVec::new(), RVec::new(), value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_scopes_nest() {
        let mut builder = GraphBuilder::new();
        let x = builder.hidden_input(8);
        let y = builder.in_scope("outer", |builder| {
            let y = builder.silu(x);
            builder.in_scope("inner", |builder| builder.gelu(y))
        });
        let z = builder.add(x, y);
        let graph = builder.finish(&[z]);
        let names: Vec<_> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["hidden#0", "outer/silu#1", "outer/inner/gelu#2", "add#3"]);
        assert_eq!(graph.outputs.as_slice(), [3]);
        assert_eq!(graph.opset, OPSET);
    }
}
