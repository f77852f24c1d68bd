//! What a pack may hand over, and what is refused in which words.

use modularbase_graph::{Graph, GraphError, InputKind, Op, Shape, infer_shapes};
use pack_abi::{Attr, AttrKind, AttrValue, Node, OpKind};

fn ints(name: &str, values: &[i64]) -> Attr {
    attr(name, AttrKind::INTS, values, &[], "")
}

fn floats(name: &str, values: &[f64]) -> Attr {
    attr(name, AttrKind::FLOATS, &[], values, "")
}

fn text(name: &str, value: &str) -> Attr {
    attr(name, AttrKind::TEXT, &[], &[], value)
}

fn attr(name: &str, kind: AttrKind, ints: &[i64], floats: &[f64], text: &str) -> Attr {
    let value = AttrValue { kind, ints: ints.into(), floats: floats.into(), text: text.into() };
    Attr { name: name.into(), value }
}

fn node(op: OpKind, name: &str, inputs: &[u32], attrs: Vec<Attr>) -> Node {
    Node { op, name: name.into(), inputs: inputs.into(), attrs: attrs.into() }
}

fn input(width: i64) -> Node {
    node(OpKind::INPUT, "input", &[], vec![text("kind", "hidden"), ints("width", &[width])])
}

fn weight(name: &str, shape: &[i64]) -> Node {
    node(OpKind::WEIGHT, name, &[], vec![ints("shape", shape), text("init", "zeros")])
}

fn graph(nodes: Vec<Node>, outputs: &[u32]) -> pack_abi::Graph {
    pack_abi::Graph { opset: 1, nodes: nodes.into(), outputs: outputs.into() }
}

fn refusal(nodes: Vec<Node>, outputs: &[u32]) -> String {
    let checked = Graph::from_abi(&graph(nodes, outputs)).and_then(infer_shapes);
    checked.expect_err("the graph is refused").to_string()
}

#[test]
fn nodes_in_any_order_are_sorted_and_their_shapes_inferred() {
    let nodes = vec![
        node(OpKind::ADD, "sum", &[1, 3], vec![]),
        node(OpKind::LINEAR, "projected", &[3, 2], vec![]),
        weight("w", &[4, 4]),
        input(4),
    ];
    let checked = infer_shapes(Graph::from_abi(&graph(nodes, &[0])).unwrap()).unwrap();
    let graph = checked.graph();
    for (id, node) in graph.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|&input| input < id), "{}", node.name);
    }
    assert_eq!(graph.nodes[graph.outputs[0]].name, "sum");
    assert_eq!(checked.shapes()[graph.outputs[0]], Shape::Rows(4));
    assert_eq!(checked.input().unwrap().1, InputKind::Hidden { width: 4 });
    assert!(checked.suits_slot(4).is_ok());
    assert!(checked.suits_slot(8).unwrap_err().to_string().contains("[tokens, 8]"));
    assert!(graph.nodes.iter().any(|node| node.op == Op::Linear));
}

#[test]
fn a_cycle_is_named_from_end_to_end() {
    let nodes = vec![
        input(4),
        node(OpKind::ADD, "a", &[0, 3], vec![]),
        node(OpKind::SILU, "b", &[1], vec![]),
        node(OpKind::GELU, "c", &[2], vec![]),
    ];
    let error = Graph::from_abi(&graph(nodes, &[1])).unwrap_err();
    assert!(matches!(error, GraphError::Cycle { .. }));
    let words = error.to_string();
    assert!(["a", "b", "c"].iter().all(|name| words.contains(name)), "{words}");
}

#[test]
fn dangling_edges_unknown_operators_and_newer_opsets_are_refused_by_name() {
    assert!(refusal(vec![input(4), node(OpKind::SILU, "s", &[7], vec![])], &[1]).contains("node `s`"));
    assert!(refusal(vec![input(4)], &[3]).contains("output 0"));
    assert!(refusal(vec![input(4), node(OpKind(1000), "odd", &[0], vec![])], &[1]).contains("`odd`"));
    let newer = pack_abi::Graph { opset: 2, nodes: vec![input(4)].into(), outputs: [0].as_slice().into() };
    assert_eq!(Graph::from_abi(&newer), Err(GraphError::Opset { found: 2 }));
}

#[test]
fn names_must_be_there_and_be_unique() {
    assert!(refusal(vec![input(4), node(OpKind::SILU, "", &[0], vec![])], &[0]).contains("empty"));
    assert!(refusal(vec![input(4), node(OpKind::SILU, "input", &[0], vec![])], &[0]).contains("used before"));
}

#[test]
fn attributes_are_checked_one_by_one() {
    let scale = |attrs| refusal(vec![input(4), node(OpKind::SCALE, "s", &[0], attrs)], &[1]);
    assert!(scale(vec![]).contains("`factor` is missing"));
    assert!(scale(vec![ints("factor", &[1])]).contains("should be floats, found ints"));
    assert!(scale(vec![floats("factor", &[f64::NAN])]).contains("finite"));
    assert!(scale(vec![floats("factor", &[1.0]), floats("factor", &[2.0])]).contains("twice"));
    assert!(scale(vec![floats("factor", &[1.0]), text("speed", "high")]).contains("`speed` is not known"));
    let rope = |head_dim, layout: &str| {
        let attrs = vec![ints("head_dim", &[head_dim]), floats("theta", &[1e4]), text("layout", layout)];
        refusal(vec![input(4), node(OpKind::ROPE, "r", &[0], attrs)], &[1])
    };
    assert!(rope(3, "half").contains("even"));
    assert!(rope(2, "spiral").contains("`spiral`"));
    assert!(rope(8, "half").contains("multiple of head_dim 8"));
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_expected_and_found() {
    let linear = |shape: &[i64]| {
        refusal(vec![input(4), weight("w", shape), node(OpKind::LINEAR, "l", &[0, 1], vec![])], &[2])
    };
    assert_eq!(linear(&[2, 5]), "node `l` (linear): expected a weight [out, 4], found [2, 5]");
    assert!(linear(&[4]).contains("expected a weight [rows, columns]"));
    assert!(linear(&[1 << 20, 1 << 20]).contains("at most"));
    assert!(linear(&[0, 4]).contains("found 0"));
    let heads = vec![ints("layer", &[0]), ints("heads", &[2]), ints("kv_heads", &[1]), ints("causal", &[1])];
    let attention = vec![input(4), node(OpKind::ATTENTION, "a", &[0, 0, 0], heads)];
    assert!(refusal(attention, &[1]).contains("one head size"));
    let moe = vec![ints("experts", &[2]), ints("top_k", &[3])];
    let nodes = vec![
        input(4),
        weight("router", &[2, 4]),
        weight("up", &[8, 4]),
        weight("down", &[8, 4]),
        node(OpKind::MOE_FFN, "m", &[0, 1, 2, 2, 3], moe),
    ];
    assert!(refusal(nodes, &[4]).contains("top_k of at most 2"));
}

#[test]
fn two_attention_nodes_may_not_share_a_cache() {
    let attention = |name: &str| {
        let heads =
            vec![ints("layer", &[7]), ints("heads", &[1]), ints("kv_heads", &[1]), ints("causal", &[1])];
        node(OpKind::ATTENTION, name, &[0, 0, 0], heads)
    };
    assert!(refusal(vec![input(4), attention("a"), attention("b")], &[1]).contains("layer 7 a second time"));
}
