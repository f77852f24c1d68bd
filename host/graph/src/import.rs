//! From the ABI's open, untrusted form to the host's typed one.

use std::collections::HashSet;

use pack_abi::{Attr, AttrKind, AttrValue, OpKind};

use crate::{Graph, GraphError, InputKind, Node, NodeId, OPSET, Op, RopeLayout, RopeSpec, WeightSpec};

/// Far above any network that fits a device; a bound, so that a hostile graph cannot exhaust the host.
const MAX_NODES: usize = 100_000;
const MAX_INPUTS: usize = 64;
const MAX_ATTRS: usize = 16;
/// Largest dimension of a weight, and number of heads, layers or experts.
const MAX_DIMENSION: usize = 1 << 31;

impl Graph {
    /// Copies a graph out of a pack's memory, types its operators and sorts it.
    ///
    /// # Errors
    /// An opset, operator, attribute, name or edge that the host does not accept, and cycles; the node is named.
    pub fn from_abi(graph: &pack_abi::Graph) -> Result<Self, GraphError> {
        if graph.opset == 0 || graph.opset > OPSET {
            return Err(GraphError::Opset { found: graph.opset });
        }
        let limit = |what, found, limit| match found > limit {
            true => Err(GraphError::TooLarge { what, found, limit }),
            false => Ok(()),
        };
        limit("nodes", graph.nodes.len(), MAX_NODES)?;
        limit("outputs", graph.outputs.len(), MAX_INPUTS)?;

        let mut names = HashSet::with_capacity(graph.nodes.len());
        let mut nodes = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let name = node.name.as_str();
            let refuse = |reason| GraphError::Name { index, name: name.to_owned(), reason };
            if name.is_empty() {
                return Err(refuse("empty"));
            }
            if !names.insert(name) {
                return Err(refuse("used before"));
            }
            limit("inputs of one node", node.inputs.len(), MAX_INPUTS)?;
            limit("attributes of one node", node.attrs.len(), MAX_ATTRS)?;
            let inputs = node
                .inputs
                .iter()
                .map(|&input| in_range(input, graph.nodes.len(), || format!("node `{name}`")))
                .collect::<Result<_, _>>()?;
            nodes.push(Node { name: name.to_owned(), op: typed_op(node)?, inputs });
        }
        let outputs = graph
            .outputs
            .iter()
            .enumerate()
            .map(|(i, &output)| in_range(output, nodes.len(), || format!("output {i}")))
            .collect::<Result<_, _>>()?;
        sorted(nodes, outputs)
    }
}

fn in_range(index: u32, nodes: usize, user: impl Fn() -> String) -> Result<NodeId, GraphError> {
    let id = index as usize;
    if id < nodes { Ok(id) } else { Err(GraphError::Dangling { user: user(), index, nodes }) }
}

/// Puts every node after its inputs, keeping the pack's order where it already is one. Nodes that no output needs
/// are kept: their shapes are checked too.
fn sorted(nodes: Vec<Node>, outputs: Vec<NodeId>) -> Result<Graph, GraphError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    for root in 0..nodes.len() {
        // An explicit stack of (node, next input), since a pack decides how deep the graph is.
        let mut stack = vec![(root, 0)];
        while let Some((id, next)) = stack.pop() {
            if next == 0 {
                if marks[id] == Mark::Done {
                    continue;
                }
                marks[id] = Mark::Open;
            }
            let Some(&input) = nodes[id].inputs.get(next) else {
                marks[id] = Mark::Done;
                order.push(id);
                continue;
            };
            stack.push((id, next + 1));
            match marks[input] {
                Mark::New => stack.push((input, 0)),
                Mark::Done => {}
                Mark::Open => {
                    let start = stack.iter().position(|&(on_path, _)| on_path == input).unwrap_or(0);
                    let mut path: Vec<_> =
                        stack[start..].iter().map(|&(n, _)| nodes[n].name.clone()).collect();
                    path.push(nodes[input].name.clone());
                    return Err(GraphError::Cycle { path });
                }
            }
        }
    }
    let mut place = vec![0; nodes.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    let mut slots: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let nodes = order
        .iter()
        .filter_map(|&old| slots[old].take())
        .map(|mut node| {
            node.inputs.iter_mut().for_each(|input| *input = place[*input]);
            node
        })
        .collect();
    Ok(Graph { nodes, outputs: outputs.into_iter().map(|output| place[output]).collect() })
}

/// Reads a node's attributes once each, so that what is left over can be refused.
struct Attributes<'a> {
    node: &'a str,
    all: &'a [Attr],
    /// Bit `i`: attribute `i` was read. At most [`MAX_ATTRS`].
    read: u32,
}

impl<'a> Attributes<'a> {
    fn error(&self, attr: &str, reason: impl Into<String>) -> GraphError {
        GraphError::Attribute { node: self.node.to_owned(), attr: attr.to_owned(), reason: reason.into() }
    }

    fn optional(&mut self, name: &str, kind: AttrKind) -> Result<Option<&'a AttrValue>, GraphError> {
        let mut named = self.all.iter().enumerate().filter(|(_, attr)| attr.name.as_str() == name);
        let Some((position, attr)) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err(self.error(name, "is given twice"));
        }
        self.read |= 1 << position;
        if attr.value.kind == kind {
            return Ok(Some(&attr.value));
        }
        let word = |kind| match kind {
            AttrKind::INTS => "ints".to_owned(),
            AttrKind::FLOATS => "floats".to_owned(),
            AttrKind::TEXT => "text".to_owned(),
            AttrKind(other) => format!("unknown kind {other}"),
        };
        Err(self.error(name, format!("should be {}, found {}", word(kind), word(attr.value.kind))))
    }

    fn required(&mut self, name: &str, kind: AttrKind) -> Result<&'a AttrValue, GraphError> {
        self.optional(name, kind)?.ok_or_else(|| self.error(name, "is missing"))
    }

    fn count(&mut self, name: &str, smallest: usize) -> Result<usize, GraphError> {
        match self.required(name, AttrKind::INTS)?.ints.as_slice() {
            &[value] => self.dimension(name, value, smallest),
            other => Err(self.error(name, format!("should be one integer, found {other:?}"))),
        }
    }

    fn dimension(&self, name: &str, value: i64, smallest: usize) -> Result<usize, GraphError> {
        usize::try_from(value).ok().filter(|value| (smallest..=MAX_DIMENSION).contains(value)).ok_or_else(
            || self.error(name, format!("should be from {smallest} to {MAX_DIMENSION}, found {value}")),
        )
    }

    fn number(&mut self, name: &str) -> Result<f64, GraphError> {
        match self.required(name, AttrKind::FLOATS)?.floats.as_slice() {
            &[value] if value.is_finite() => Ok(value),
            other => Err(self.error(name, format!("should be one finite number, found {other:?}"))),
        }
    }

    fn text(&mut self, name: &str) -> Result<&'a str, GraphError> {
        Ok(self.required(name, AttrKind::TEXT)?.text.as_str())
    }

    fn eps(&mut self) -> Result<f32, GraphError> {
        let eps = self.number("eps")?;
        match (0.0..1.0).contains(&eps) {
            true => Ok(eps as f32),
            false => Err(self.error("eps", format!("should be from 0 to 1, found {eps}"))),
        }
    }

    fn finish(self) -> Result<(), GraphError> {
        match self.all.iter().enumerate().find(|(position, _)| self.read & (1 << position) == 0) {
            None => Ok(()),
            Some((_, attr)) => Err(self.error(attr.name.as_str(), "is not known to this operator")),
        }
    }
}

fn typed_op(node: &pack_abi::Node) -> Result<Op, GraphError> {
    let mut attrs = Attributes { node: node.name.as_str(), all: node.attrs.as_slice(), read: 0 };
    let op = match node.op {
        OpKind::INPUT => match attrs.text("kind")? {
            "tokens" => Op::Input(InputKind::Tokens),
            "hidden" => Op::Input(InputKind::Hidden { width: attrs.count("width", 1)? }),
            other => {
                return Err(attrs.error("kind", format!("should be `hidden` or `tokens`, found `{other}`")));
            }
        },
        OpKind::WEIGHT => Op::Weight(weight_spec(&mut attrs)?),
        OpKind::LINEAR => Op::Linear,
        OpKind::EMBEDDING => Op::Embedding,
        OpKind::RMS_NORM => Op::RmsNorm { eps: attrs.eps()? },
        OpKind::LAYER_NORM => Op::LayerNorm { eps: attrs.eps()? },
        OpKind::ROPE => Op::Rope(rope_spec(&mut attrs)?),
        OpKind::ATTENTION => Op::Attention {
            layer: attrs.count("layer", 0)?,
            heads: attrs.count("heads", 1)?,
            kv_heads: attrs.count("kv_heads", 1)?,
            causal: match attrs.count("causal", 0)? {
                0 => false,
                1 => true,
                other => return Err(attrs.error("causal", format!("should be 0 or 1, found {other}"))),
            },
        },
        OpKind::SILU => Op::Silu,
        OpKind::GELU => Op::Gelu,
        OpKind::SILU_MUL => Op::SiluMul,
        OpKind::ADD => Op::Add,
        OpKind::MUL => Op::Mul,
        OpKind::SCALE => Op::Scale { factor: attrs.number("factor")? as f32 },
        OpKind::SOFTMAX => Op::Softmax,
        OpKind::CONCAT => Op::Concat,
        OpKind::MOE_FFN => {
            Op::MoeFfn { experts: attrs.count("experts", 1)?, top_k: attrs.count("top_k", 1)? }
        }
        OpKind(op) => return Err(GraphError::UnknownOp { node: node.name.to_string(), op }),
    };
    attrs.finish()?;
    Ok(op)
}

fn weight_spec(attrs: &mut Attributes<'_>) -> Result<WeightSpec, GraphError> {
    let shape = attrs.required("shape", AttrKind::INTS)?;
    let shape: Vec<usize> =
        shape.ints.iter().map(|&value| attrs.dimension("shape", value, 1)).collect::<Result<_, _>>()?;
    let elements = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if !(1..=2).contains(&shape.len()) || elements.is_none_or(|n| n > MAX_DIMENSION) {
        let reason =
            format!("should have 1 or 2 dimensions and at most {MAX_DIMENSION} values, found {shape:?}");
        return Err(attrs.error("shape", reason));
    }
    let init = attrs.text("init")?.parse().map_err(|reason: String| attrs.error("init", reason))?;
    Ok(WeightSpec { shape, init })
}

fn rope_spec(attrs: &mut Attributes<'_>) -> Result<RopeSpec, GraphError> {
    let head_dim = attrs.count("head_dim", 2)?;
    if head_dim % 2 != 0 {
        return Err(attrs.error("head_dim", format!("should be even, found {head_dim}")));
    }
    let theta = attrs.number("theta")?;
    if theta <= 0.0 {
        return Err(attrs.error("theta", format!("should be above 0, found {theta}")));
    }
    let layout = match attrs.text("layout")? {
        "half" => RopeLayout::Half,
        "interleaved" => RopeLayout::Interleaved,
        other => {
            return Err(attrs.error("layout", format!("should be `half` or `interleaved`, found `{other}`")));
        }
    };
    let freq_scale = match attrs.optional("freq_scale", AttrKind::FLOATS)? {
        None => None,
        Some(value) => {
            let scale: Vec<f32> = value.floats.iter().map(|&factor| factor as f32).collect();
            if scale.len() != head_dim / 2 || scale.iter().any(|factor| !factor.is_finite()) {
                let reason = format!("should be {} finite numbers, found {}", head_dim / 2, scale.len());
                return Err(attrs.error("freq_scale", reason));
            }
            Some(scale)
        }
    };
    Ok(RopeSpec { head_dim, theta, layout, freq_scale })
}
