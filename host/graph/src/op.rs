//! Operators with their attributes as types.

use pack_abi::Init;
use serde::{Deserialize, Serialize};

/// Position of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// What flows into the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputKind {
    /// Hidden states `[tokens, width]`.
    Hidden {
        /// Values a token.
        width: usize,
    },
    /// Token ids `[tokens]`.
    Tokens,
}

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RopeLayout {
    /// `i` with `i + head_dim / 2` (GPT-NeoX, Hugging Face).
    Half,
    /// `2 i` with `2 i + 1` (the original paper, GGUF "llama" files).
    Interleaved,
}

/// Rotary position embedding, Su et al. 2021: the angle of pair `i` at position `p` is
/// `p * theta^(-2 i / head_dim) * freq_scale[i]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeSpec {
    /// Elements a head.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Pairing.
    pub layout: RopeLayout,
    /// `[head_dim / 2]` factors of the inverse frequencies; Llama 3's scaling is expressed by them.
    pub freq_scale: Option<Vec<f32>>,
}

impl RopeSpec {
    /// Inverse frequencies, `[head_dim / 2]`, in radians a position.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let plain = self.theta.powf(-2.0 * i as f64 / self.head_dim as f64);
                let scale = self.freq_scale.as_ref().map_or(1.0, |scale| f64::from(scale[i]));
                (plain * scale) as f32
            })
            .collect()
    }
}

/// A parameter of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightSpec {
    /// Dimensions, outermost first: `[out, in]` or `[n]`.
    pub shape: Vec<usize>,
    /// First values, and where a weight comes from that the pack's file does not hold.
    #[serde(with = "init_text")]
    pub init: Init,
}

impl WeightSpec {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a node computes; see `pack_abi::OpKind` for inputs and shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the attributes are documented at pack_abi::OpKind")]
pub enum Op {
    Input(InputKind),
    Weight(WeightSpec),
    Linear,
    Embedding,
    RmsNorm { eps: f32 },
    LayerNorm { eps: f32 },
    Rope(RopeSpec),
    Attention { layer: usize, heads: usize, kv_heads: usize, causal: bool },
    Silu,
    Gelu,
    SiluMul,
    Add,
    Mul,
    Scale { factor: f32 },
    Softmax,
    Concat,
    MoeFfn { experts: usize, top_k: usize },
}

impl Op {
    /// Its name in errors and listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Weight(_) => "weight",
            Self::Linear => "linear",
            Self::Embedding => "embedding",
            Self::RmsNorm { .. } => "rms_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Rope(_) => "rope",
            Self::Attention { .. } => "attention",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::SiluMul => "silu_mul",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Scale { .. } => "scale",
            Self::Softmax => "softmax",
            Self::Concat => "concat",
            Self::MoeFfn { .. } => "moe_ffn",
        }
    }
}

/// One operation and where its inputs come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the graph; the key of a weight.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Earlier nodes.
    pub inputs: Vec<NodeId>,
}

/// A graph whose nodes are in an order that can be executed: every input is an earlier node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// In execution order.
    pub nodes: Vec<Node>,
    /// The values that leave it.
    pub outputs: Vec<NodeId>,
}

mod init_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Init;

    pub fn serialize<S: Serializer>(init: &Init, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(init)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Init, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
