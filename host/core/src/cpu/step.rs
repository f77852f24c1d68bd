//! The steps a graph is lowered to.

use std::sync::Arc;

use modularbase_graph::{KvLayer, RopeSpec};
use modularbase_kernels::Matrix;

/// Number of a buffer `[rows, width]` of the workspace.
pub(super) type Buffer = usize;

/// One matrix product of a [`Step::Linear`].
pub(super) struct LinearTarget {
    pub(super) weight: Arc<Matrix>,
    pub(super) bias: Option<Arc<[f32]>>,
    pub(super) out: Buffer,
    /// Adds to what `out` holds, which is how a residual connection costs nothing.
    pub(super) accumulate: bool,
}

/// The weights of one expert of a [`Step::Moe`].
pub(super) struct MoeExpert {
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// One operation; `x` and its like are read, `out` buffers written, `inout` buffers changed in place.
pub(super) enum Step {
    Embedding {
        table: Arc<Matrix>,
        out: Buffer,
    },
    Linear {
        x: Buffer,
        targets: Vec<LinearTarget>,
    },
    RmsNorm {
        x: Buffer,
        weight: Arc<[f32]>,
        eps: f32,
        out: Buffer,
    },
    LayerNorm {
        x: Buffer,
        weight: Arc<[f32]>,
        bias: Arc<[f32]>,
        eps: f32,
        out: Buffer,
    },
    Rope {
        inout: Buffer,
        rope: usize,
    },
    Attention {
        q: Buffer,
        k: Buffer,
        v: Buffer,
        key_rope: Option<usize>,
        cache: usize,
        heads: usize,
        causal: bool,
        out: Buffer,
    },
    Silu {
        x: Buffer,
        out: Buffer,
    },
    Gelu {
        x: Buffer,
        out: Buffer,
    },
    SiluMul {
        gate: Buffer,
        up: Buffer,
        out: Buffer,
    },
    Add {
        a: Buffer,
        b: Buffer,
        out: Buffer,
    },
    Mul {
        a: Buffer,
        b: Buffer,
        out: Buffer,
    },
    MulVector {
        inout: Buffer,
        vector: Arc<[f32]>,
    },
    Scale {
        x: Buffer,
        factor: f32,
        out: Buffer,
    },
    Softmax {
        inout: Buffer,
    },
    Concat {
        parts: Vec<Buffer>,
        out: Buffer,
    },
    Moe {
        x: Buffer,
        router: Arc<Matrix>,
        experts: Vec<MoeExpert>,
        top_k: usize,
        out: Buffer,
    },
    Copy {
        x: Buffer,
        out: Buffer,
    },
}

/// A lowered graph.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// Width of each buffer.
    pub(super) widths: Vec<usize>,
    pub(super) input: Option<(modularbase_graph::InputKind, Option<Buffer>)>,
    pub(super) output: Buffer,
    /// The distinct rotary embeddings of the graph; their tables are made once a call.
    pub(super) ropes: Vec<RopeSpec>,
    pub(super) kv_layers: Vec<KvLayer>,
    /// Bytes of weights that had to be copied for it, beyond those of the originals that went.
    pub(super) copied_bytes: usize,
}
