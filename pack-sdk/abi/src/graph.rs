//! The graph a pack returns: nodes in any order, named, with typed attributes.

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

/// Operator set this crate describes. A graph states the opset it was written for; the host refuses a newer one.
pub const OPSET: u32 = 1;

/// What a node computes. Shapes: `[tokens, n]` for values that flow, fixed shapes for weights.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpKind(pub u32);

impl OpKind {
    /// The graph's input. Attribute `kind`: `"hidden"` (`[tokens, width]`, attribute `width`) or `"tokens"` (ids).
    pub const INPUT: Self = Self(0);
    /// A parameter. Attributes `shape` (ints), `init` (text, see [`crate::Init`]); the node's name is its key.
    pub const WEIGHT: Self = Self(1);
    /// Inputs `x [tokens, in]`, `w [out, in]`, optionally `bias [out]`; gives `x w^T + bias`, `[tokens, out]`.
    pub const LINEAR: Self = Self(2);
    /// Inputs token ids and `table [vocab, width]`; gives `[tokens, width]`.
    pub const EMBEDDING: Self = Self(3);
    /// Inputs `x`, `weight [n]`; attribute `eps` (Zhang and Sennrich 2019).
    pub const RMS_NORM: Self = Self(4);
    /// Inputs `x`, `weight [n]`, `bias [n]`; attribute `eps` (Ba et al. 2016).
    pub const LAYER_NORM: Self = Self(5);
    /// Input `x [tokens, heads * head_dim]`; attributes `head_dim`, `theta`, `layout` (`"half"` or `"interleaved"`),
    /// optionally `freq_scale` (floats, `head_dim / 2`) that multiplies the inverse frequencies (Su et al. 2021).
    pub const ROPE: Self = Self(6);
    /// Inputs `q [tokens, heads * d]`, `k` and `v [tokens, kv_heads * d]`; attributes `layer` (key of the KV cache,
    /// unique in the graph), `heads`, `kv_heads`, `causal` (0 or 1); scores are scaled by `1 / sqrt(d)`.
    pub const ATTENTION: Self = Self(7);
    /// `x * sigmoid(x)`.
    pub const SILU: Self = Self(8);
    /// The tanh form of GELU (Hendrycks and Gimpel 2016).
    pub const GELU: Self = Self(9);
    /// Inputs `gate`, `up`; gives `silu(gate) * up`.
    pub const SILU_MUL: Self = Self(10);
    /// Elementwise sum of two values of one shape.
    pub const ADD: Self = Self(11);
    /// Elementwise product; the second input may also be a weight `[n]` or `[1]`, broadcast over tokens.
    pub const MUL: Self = Self(12);
    /// Input `x`; attribute `factor`.
    pub const SCALE: Self = Self(13);
    /// Over the last axis.
    pub const SOFTMAX: Self = Self(14);
    /// Two or more inputs joined on the last axis.
    pub const CONCAT: Self = Self(15);
    /// A mixture of experts inside the pack. Inputs `x [tokens, n]`, `router [experts, n]`, `gate [experts * f, n]`,
    /// `up [experts * f, n]`, `down [experts * n, f]`; attributes `experts`, `top_k`. The softmax over the router's
    /// logits is renormalised over the chosen experts (Mixtral).
    pub const MOE_FFN: Self = Self(16);
}

/// Which field of an [`AttrValue`] holds the value.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttrKind(pub u32);

impl AttrKind {
    /// `ints`.
    pub const INTS: Self = Self(1);
    /// `floats`.
    pub const FLOATS: Self = Self(2);
    /// `text`.
    pub const TEXT: Self = Self(3);
}

/// A typed attribute value. Fields other than the one `kind` names are empty.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AttrValue {
    /// The field in use.
    pub kind: AttrKind,
    /// Integers; a single one is a list of length one.
    pub ints: RVec<i64>,
    /// Floating-point numbers.
    pub floats: RVec<f64>,
    /// UTF-8 text.
    pub text: RString,
}

/// A named attribute of a node.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct Attr {
    /// Name as the operator's documentation gives it.
    pub name: RString,
    /// Its value.
    pub value: AttrValue,
}

/// One operation.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct Node {
    /// What it computes.
    pub op: OpKind,
    /// Indices of the nodes whose values it takes.
    pub inputs: RVec<u32>,
    /// Unique in the graph; the key of a weight, and what errors call the node.
    pub name: RString,
    /// Attributes, each name at most once.
    pub attrs: RVec<Attr>,
}

/// A pack's network.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct Graph {
    /// The operator set it was written for.
    pub opset: u32,
    /// Nodes in any order.
    pub nodes: RVec<Node>,
    /// Indices of the nodes whose values leave the graph.
    pub outputs: RVec<u32>,
}
