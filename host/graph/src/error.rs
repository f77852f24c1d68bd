//! Why a graph is refused. Every variant names the node.

use crate::OPSET;

/// A graph that the host will not run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Written for an operator set this host does not know.
    #[error(
        "the graph uses opset {found}, this host runs 1 to {OPSET}: build the pack with an older SDK or use a newer host"
    )]
    Opset {
        /// Stated by the graph.
        found: u32,
    },
    /// More nodes or attributes than any real network has.
    #[error("the graph has {found} {what}, at most {limit} are allowed")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// Found.
        found: usize,
        /// Allowed.
        limit: usize,
    },
    /// An operator number that opset 1 does not have.
    #[error("node `{node}`: unknown operator {op} (opset 1 has 0 to 16)")]
    UnknownOp {
        /// The node.
        node: String,
        /// Its operator number.
        op: u32,
    },
    /// Two nodes of one name, or a node without one.
    #[error("node {index}: the name `{name}` is {reason}; every node needs a name of its own")]
    Name {
        /// Position in the list.
        index: usize,
        /// As found.
        name: String,
        /// `empty` or `used before`.
        reason: &'static str,
    },
    /// An input or output that names no node.
    #[error("{user} refers to value {index}, but the graph has only {nodes} nodes")]
    Dangling {
        /// `node \`x\`` or `output 0`.
        user: String,
        /// The index it names.
        index: u32,
        /// How many nodes there are.
        nodes: usize,
    },
    /// Nodes that need each other's values.
    #[error("the graph is cyclic: {}", .path.join(" -> "))]
    Cycle {
        /// The nodes of one cycle, the first repeated at the end.
        path: Vec<String>,
    },
    /// An attribute that is missing, unknown, of the wrong kind or out of range.
    #[error("node `{node}`: attribute `{attr}` {reason}")]
    Attribute {
        /// The node.
        node: String,
        /// The attribute.
        attr: String,
        /// Expected and found.
        reason: String,
    },
    /// Shapes or counts of inputs that do not fit the operator.
    #[error("node `{node}` ({op}): expected {expected}, found {found}")]
    Shape {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Expected.
        expected: String,
        /// Found.
        found: String,
    },
    /// The graph as a whole does not suit its place.
    #[error("the graph {0}")]
    Unsuitable(String),
}
