//! Shape inference: what every value of a graph looks like, and whether the edges fit.

use std::collections::HashSet;

use crate::{Graph, GraphError, InputKind, Node, NodeId, Op};

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `[tokens, width]`, f32.
    Rows(usize),
    /// `[tokens]`, token ids.
    Tokens,
    /// A weight of fixed dimensions.
    Weight(Vec<usize>),
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(width) => write!(f, "[tokens, {width}]"),
            Self::Tokens => f.write_str("[tokens] ids"),
            Self::Weight(shape) => write!(f, "weight {shape:?}"),
        }
    }
}

/// One layer of a graph's KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayer {
    /// The attention node's `layer` attribute: its key.
    pub layer: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Values a head.
    pub head_dim: usize,
}

impl KvLayer {
    /// Values of K (and again of V) a token.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// A graph whose edges all fit.
#[derive(Debug, Clone)]
pub struct CheckedGraph {
    graph: Graph,
    shapes: Vec<Shape>,
    input: Option<(NodeId, InputKind)>,
    kv_layers: Vec<KvLayer>,
}

impl CheckedGraph {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Shape of every node's value, in the order of [`Graph::nodes`].
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The input node and its kind, if the graph has one.
    pub fn input(&self) -> Option<(NodeId, InputKind)> {
        self.input
    }

    /// The KV caches its attention nodes need, by order of execution.
    pub fn kv_layers(&self) -> &[KvLayer] {
        &self.kv_layers
    }

    /// Checks that the graph can stand in a slot: hidden `[tokens, width]` in, the same out, one output.
    ///
    /// # Errors
    /// [`GraphError::Unsuitable`] with expected and found.
    pub fn suits_slot(&self, width: usize) -> Result<(), GraphError> {
        let unsuitable = |text: String| Err(GraphError::Unsuitable(text));
        match self.input {
            Some((_, InputKind::Hidden { width: found })) if found == width => {}
            Some((_, found)) => {
                return unsuitable(format!(
                    "takes {found:?}, the slot gives hidden states [tokens, {width}]"
                ));
            }
            None => return unsuitable("has no input node, a pack must use the hidden states".into()),
        }
        match self.graph.outputs.as_slice() {
            &[output] if self.shapes[output] == Shape::Rows(width) => Ok(()),
            &[output] => {
                unsuitable(format!("gives {}, the slot needs [tokens, {width}]", self.shapes[output]))
            }
            outputs => unsuitable(format!("has {} outputs, the slot takes one", outputs.len())),
        }
    }
}

/// Infers and checks all shapes.
///
/// # Errors
/// The first node whose inputs do not fit, with expected and found; more than one input node; two attention nodes
/// of one layer.
pub fn infer_shapes(graph: Graph) -> Result<CheckedGraph, GraphError> {
    let mut shapes: Vec<Shape> = Vec::with_capacity(graph.nodes.len());
    let mut input = None;
    let mut kv_layers: Vec<KvLayer> = Vec::new();
    let mut layers_seen = HashSet::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if let Some(&later) = node.inputs.iter().find(|&&input| input >= id) {
            let user = format!("node `{}`", node.name);
            return Err(GraphError::Dangling { user, index: later as u32, nodes: id });
        }
        let edge = Edge { node, shapes: &shapes };
        let shape = edge.infer()?;
        if let Op::Input(kind) = node.op
            && input.replace((id, kind)).is_some()
        {
            return Err(GraphError::Unsuitable(format!("has a second input node, `{}`", node.name)));
        }
        if let Op::Attention { layer, kv_heads, .. } = node.op {
            if !layers_seen.insert(layer) {
                return Err(edge.error("a KV layer of its own", format!("layer {layer} a second time")));
            }
            let head_dim = edge.rows(1)? / kv_heads;
            kv_layers.push(KvLayer { layer, kv_heads, head_dim });
        }
        shapes.push(shape);
    }
    if let Some(&output) = graph.outputs.iter().find(|&&output| output >= shapes.len()) {
        let user = "an output".to_owned();
        return Err(GraphError::Dangling { user, index: output as u32, nodes: shapes.len() });
    }
    Ok(CheckedGraph { graph, shapes, input, kv_layers })
}

struct Edge<'a> {
    node: &'a Node,
    shapes: &'a [Shape],
}

impl Edge<'_> {
    fn error(&self, expected: impl Into<String>, found: impl Into<String>) -> GraphError {
        GraphError::Shape {
            node: self.node.name.clone(),
            op: self.node.op.name(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn arity(&self, least: usize, most: usize) -> Result<(), GraphError> {
        let found = self.node.inputs.len();
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let expected =
            if least == most { format!("{least} inputs") } else { format!("{least} to {most} inputs") };
        Err(self.error(expected, found.to_string()))
    }

    fn shape(&self, input: usize) -> &Shape {
        &self.shapes[self.node.inputs[input]]
    }

    fn rows(&self, input: usize) -> Result<usize, GraphError> {
        match self.shape(input) {
            Shape::Rows(width) => Ok(*width),
            other => Err(self.error(format!("[tokens, n] as input {input}"), other.to_string())),
        }
    }

    fn matrix(&self, input: usize) -> Result<(usize, usize), GraphError> {
        match self.shape(input) {
            Shape::Weight(shape) if shape.len() == 2 => Ok((shape[0], shape[1])),
            other => Err(self.error(format!("a weight [rows, columns] as input {input}"), other.to_string())),
        }
    }

    fn expect(&self, input: usize, expected: Shape) -> Result<(), GraphError> {
        match *self.shape(input) == expected {
            true => Ok(()),
            false => Err(self.error(format!("{expected} as input {input}"), self.shape(input).to_string())),
        }
    }

    fn infer(&self) -> Result<Shape, GraphError> {
        match &self.node.op {
            Op::Input(kind) => {
                self.arity(0, 0)?;
                Ok(match kind {
                    InputKind::Tokens => Shape::Tokens,
                    InputKind::Hidden { width } => Shape::Rows(*width),
                })
            }
            Op::Weight(spec) => {
                self.arity(0, 0)?;
                Ok(Shape::Weight(spec.shape.clone()))
            }
            Op::Linear => {
                self.arity(2, 3)?;
                let (width, (out, columns)) = (self.rows(0)?, self.matrix(1)?);
                if columns != width {
                    return Err(self.error(format!("a weight [out, {width}]"), format!("[{out}, {columns}]")));
                }
                if self.node.inputs.len() == 3 {
                    self.expect(2, Shape::Weight(vec![out]))?;
                }
                Ok(Shape::Rows(out))
            }
            Op::Embedding => {
                self.arity(2, 2)?;
                self.expect(0, Shape::Tokens)?;
                Ok(Shape::Rows(self.matrix(1)?.1))
            }
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => {
                let inputs = if matches!(self.node.op, Op::RmsNorm { .. }) { 2 } else { 3 };
                self.arity(inputs, inputs)?;
                let width = self.rows(0)?;
                (1..inputs).try_for_each(|i| self.expect(i, Shape::Weight(vec![width])))?;
                Ok(Shape::Rows(width))
            }
            Op::Rope(rope) => {
                self.arity(1, 1)?;
                let width = self.rows(0)?;
                match width % rope.head_dim {
                    0 => Ok(Shape::Rows(width)),
                    _ => {
                        Err(self
                            .error(format!("a multiple of head_dim {}", rope.head_dim), width.to_string()))
                    }
                }
            }
            Op::Attention { heads, kv_heads, .. } => {
                self.arity(3, 3)?;
                let (q, k) = (self.rows(0)?, self.rows(1)?);
                if heads % kv_heads != 0 {
                    return Err(
                        self.error("heads as a multiple of kv_heads", format!("{heads} and {kv_heads}"))
                    );
                }
                if q % heads != 0 || k % kv_heads != 0 || q / heads != k / kv_heads {
                    let expected = format!("q and k of one head size for {heads} and {kv_heads} heads");
                    return Err(self.error(expected, format!("widths {q} and {k}")));
                }
                self.expect(2, Shape::Rows(k))?;
                Ok(Shape::Rows(q))
            }
            Op::Silu | Op::Gelu | Op::Scale { .. } | Op::Softmax => {
                self.arity(1, 1)?;
                Ok(Shape::Rows(self.rows(0)?))
            }
            Op::SiluMul | Op::Add => {
                self.arity(2, 2)?;
                let width = self.rows(0)?;
                self.expect(1, Shape::Rows(width))?;
                Ok(Shape::Rows(width))
            }
            Op::Mul => {
                self.arity(2, 2)?;
                let width = self.rows(0)?;
                match self.shape(1) {
                    Shape::Rows(other) if *other == width => {}
                    Shape::Weight(shape) if *shape == [width] || *shape == [1] => {}
                    other => {
                        let expected = format!("[tokens, {width}], weight [{width}] or weight [1]");
                        return Err(self.error(expected, other.to_string()));
                    }
                }
                Ok(Shape::Rows(width))
            }
            Op::Concat => {
                self.arity(2, 64)?;
                let widths = (0..self.node.inputs.len()).map(|input| self.rows(input));
                Ok(Shape::Rows(widths.sum::<Result<usize, _>>()?))
            }
            Op::MoeFfn { experts, top_k } => {
                self.arity(5, 5)?;
                let width = self.rows(0)?;
                self.expect(1, Shape::Weight(vec![*experts, width]))?;
                if top_k > experts {
                    return Err(self.error(format!("top_k of at most {experts}"), top_k.to_string()));
                }
                let (rows, columns) = self.matrix(2)?;
                if columns != width || rows % experts != 0 {
                    let expected = format!("gate [{experts} * f, {width}]");
                    return Err(self.error(expected, format!("[{rows}, {columns}]")));
                }
                self.expect(3, Shape::Weight(vec![rows, width]))?;
                self.expect(4, Shape::Weight(vec![experts * width, rows / experts]))?;
                Ok(Shape::Rows(width))
            }
        }
    }
}
