//! What the architecture promises of every answer, on the real base.

use std::sync::Arc;

use modularbase_core::{
    Advance, BaseCore, BaseFile, Expert, LogitRows, Mixture, Sequence, Tokenizer, WeightDtype,
};
use modularbase_graph::{CheckedGraph, Graph, infer_shapes};
use pack_sdk::GraphBuilder;

use crate::base;

/// Some text, as ids.
pub const TOKENS: [u32; 26] = [
    142, 240, 484, 662, 5437, 312, 18736, 28, 17097, 241, 115, 40993, 179, 120, 248, 216, 11100, 224, 10391,
    134, 11100, 226, 216, 33, 34, 35,
];

pub fn general(core: &BaseCore) -> Mixture {
    Mixture::single(core.own_slot_layers().unwrap().into())
}

/// The slot's own layers, then a factor: an expert with an effect that needs no weights of its own.
pub fn scaled(core: &BaseCore, factor: f64) -> Arc<Expert> {
    let mut builder = GraphBuilder::new();
    let hidden = builder.hidden_input(core.shape().hidden_size);
    let layers = pack_sdk::LlamaBlock::of_base(core.shape(), 18).apply(&mut builder, hidden);
    let scaled = builder.scale(layers, factor);
    let graph: CheckedGraph = infer_shapes(Graph::from_abi(&builder.finish(&[scaled])).unwrap()).unwrap();
    core.compile_expert("scaled", &format!("scaled {factor}"), &graph, &|_| Ok(None)).unwrap().into()
}

pub fn advance(core: &BaseCore, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
    let step = Advance { sequence, tokens, logits: LogitRows::All };
    core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap()
}

pub fn cold(core: &BaseCore, mixture: &Mixture, tokens: &[u32]) -> Vec<f32> {
    advance(core, &mut Sequence::new(core, mixture.clone()), tokens)
}

#[track_caller]
pub fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let different = found.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let largest = largest_difference(found, expected);
    assert!(different == 0, "{what}: {different} of {} logits differ, by up to {largest}", found.len());
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_slots_own_layers_equal_the_unmodified_base_to_the_bit() {
    for core in [
        base::on_cpu(WeightDtype::AsStored),
        base::on_cpu(WeightDtype::F32),
        base::on_tensors(WeightDtype::AsStored),
    ] {
        let plain = core.plain_logits(&TOKENS).unwrap().to_vec().unwrap();
        assert_same_bits(&cold(&core, &general(&core), &TOKENS), &plain, &core.backend().device());
    }
}

#[test]
fn prefill_in_one_piece_in_chunks_and_token_by_token_agree_to_the_bit() {
    for dtype in [WeightDtype::AsStored, WeightDtype::Q8_0, WeightDtype::F32] {
        let core = base::on_cpu(dtype);
        let mixture = general(&core);
        let whole = cold(&core, &mixture, &TOKENS);
        for size in [1, 7] {
            let mut sequence = Sequence::new(&core, mixture.clone());
            let pieces: Vec<f32> =
                TOKENS.chunks(size).flat_map(|piece| advance(&core, &mut sequence, piece)).collect();
            assert_same_bits(&pieces, &whole, &format!("{dtype:?} in pieces of {size}"));
        }
    }
}

#[test]
fn a_long_text_gives_the_same_bits_in_any_chunks_and_after_a_change_of_mixture() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokenizer = Tokenizer::of_base(&BaseFile::open(base::path()).unwrap()).unwrap();
    let tokens = tokenizer.encode(include_str!("../data/novel.txt"), false).unwrap();
    let tokens = &tokens[..700];
    let last = |pieces: &[usize], detour: bool| {
        let mut sequence = Sequence::new(&core, general(&core));
        let (mut rest, mut row) = (tokens, Vec::new());
        for &size in pieces {
            let (piece, after) = rest.split_at(size);
            let step = Advance { sequence: &mut sequence, tokens: piece, logits: LogitRows::Last };
            row = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
            rest = after;
            if detour {
                sequence.set_mixture(&core, Mixture::single(scaled(&core, 0.9)));
                sequence.set_mixture(&core, general(&core));
            }
        }
        assert!(rest.is_empty());
        row
    };
    let whole = last(&[700], false);
    assert_same_bits(&last(&[699, 1], false), &whole, "699 and 1");
    assert_same_bits(&last(&[100, 255, 1, 257, 87], false), &whole, "uneven pieces");
    assert_same_bits(&last(&[300, 390, 1, 9], true), &whole, "with another mixture in between");
}

#[test]
fn prefill_in_chunks_on_the_tensor_executor_agrees_within_a_thousandth() {
    // candle's products sum in an order that depends on the number of rows.
    let core = base::on_tensors(WeightDtype::F32);
    let mixture = general(&core);
    let whole = cold(&core, &mixture, &TOKENS);
    let size = whole.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
    let mut sequence = Sequence::new(&core, mixture);
    let pieces: Vec<f32> = TOKENS.chunks(7).flat_map(|piece| advance(&core, &mut sequence, piece)).collect();
    let difference = largest_difference(&whole, &pieces);
    assert!(difference <= 1e-3 * size, "{difference} of {size}");
}

#[test]
fn a_sequence_alone_equals_itself_in_a_batch_of_eight() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let mixture = general(&core);
    let other = Mixture::single(scaled(&core, 1.1));
    let alone = cold(&core, &mixture, &TOKENS[..11]);
    let mut sequences: Vec<Sequence> = (0..8)
        .map(|index| Sequence::new(&core, if index % 3 == 2 { other.clone() } else { mixture.clone() }))
        .collect();
    let lengths = [3, 11, 7, 26, 1, 5, 9, 2];
    let mut batch: Vec<Advance<'_>> = sequences
        .iter_mut()
        .zip(lengths)
        .map(|(sequence, length)| Advance { sequence, tokens: &TOKENS[..length], logits: LogitRows::All })
        .collect();
    let logits = core.advance(&mut batch).unwrap();
    let batched = logits[1].as_ref().unwrap().to_vec().unwrap();
    assert_same_bits(&batched, &alone, "alone and in a batch of eight");
}

#[test]
fn an_answer_depends_on_tokens_and_mixture_never_on_the_history_of_routing() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let (first, second) = (general(&core), Mixture::single(scaled(&core, 0.9)));
    let fused =
        Mixture::new(vec![(scaled(&core, 0.9), 0.25), (core.own_slot_layers().unwrap().into(), 0.75)])
            .unwrap();
    let mut sequence = Sequence::new(&core, first.clone());
    advance(&core, &mut sequence, &TOKENS[..9]);
    sequence.set_mixture(&core, second.clone());
    advance(&core, &mut sequence, &TOKENS[9..12]);
    for mixture in [fused, second, first] {
        sequence.set_mixture(&core, mixture.clone());
        let row = advance(&core, &mut sequence, &TOKENS[12..13]);
        let expected = cold(&core, &mixture, &TOKENS[..13]);
        let last = &expected[12 * core.shape().vocab_size..];
        assert_same_bits(&row, last, &format!("{mixture:?}"));
        sequence.truncate(12);
    }
}

#[test]
fn a_failed_step_leaves_the_sequence_as_it_was() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let mut sequence = Sequence::new(&core, general(&core));
    advance(&core, &mut sequence, &TOKENS[..5]);
    let bad = [TOKENS[5], 49_152];
    let step = Advance { sequence: &mut sequence, tokens: &bad, logits: LogitRows::Last };
    let error = core.advance(&mut [step]).unwrap_err().to_string();
    assert!(error.contains("49152"), "{error}");
    assert_eq!(sequence.tokens(), &TOKENS[..5]);
    let row = advance(&core, &mut sequence, &TOKENS[5..6]);
    let expected = cold(&core, &general(&core), &TOKENS[..6]);
    assert_same_bits(&row, &expected[5 * core.shape().vocab_size..], "after a failed step");
}

#[test]
fn the_cpu_executor_agrees_with_the_tensor_executor_on_every_operator() {
    let (cpu, tensors) = (base::on_cpu(WeightDtype::F32), base::on_tensors(WeightDtype::F32));
    let run = |core: &BaseCore| {
        let mut builder = GraphBuilder::new();
        let width = core.shape().hidden_size;
        let hidden = builder.hidden_input(width);
        let gain =
            builder.weight("gain", &[width], pack_sdk::Init::CopyFromBase("layers.3.attn_norm".into()));
        let shift =
            builder.weight("shift", &[width], pack_sdk::Init::CopyFromBase("layers.4.ffn_norm".into()));
        let square =
            builder.weight("q", &[width, width], pack_sdk::Init::CopyFromBase("layers.5.attn_q".into()));
        let narrow =
            builder.weight("k", &[192, width], pack_sdk::Init::CopyFromBase("layers.5.attn_k".into()));
        let normed = builder.layer_norm(hidden, gain, shift, 1e-5);
        let projected = builder.linear_with_bias(normed, square, gain);
        let gelu = builder.gelu(projected);
        let silu = builder.silu(projected);
        let product = builder.mul(gelu, silu);
        let weighted = builder.mul(product, gain);
        let narrowed = builder.linear(weighted, narrow);
        let shares = builder.softmax(narrowed);
        let joined = builder.concat(&[shares, narrowed, shares]);
        let doubled = builder.add(joined, joined);
        let gated = builder.silu_mul(doubled, normed);
        let out = builder.scale(gated, 0.5);
        let graph = infer_shapes(Graph::from_abi(&builder.finish(&[out])).unwrap()).unwrap();
        let expert = core.compile_expert("all operators", "all operators", &graph, &|_| Ok(None)).unwrap();
        let hidden = core.hidden_before_slot(&TOKENS).unwrap();
        let mut cache = expert.plan().new_cache();
        let mut rows = [modularbase_core::SequenceRows { rows: TOKENS.len(), cache: &mut cache }];
        let input = modularbase_core::PlanInput::Hidden(&hidden);
        expert.plan().forward(input, &mut rows).unwrap().to_vec().unwrap()
    };
    let (a, b) = (run(&cpu), run(&tensors));
    let size = b.iter().map(|value| value.abs()).fold(0.0, f32::max);
    assert!(size > 0.01, "the graph gives next to nothing: {size}");
    assert!(largest_difference(&a, &b) <= 1e-4 * size, "{} of {size}", largest_difference(&a, &b));
}
