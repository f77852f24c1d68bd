//! Evaluation on the tiny checkpoints: what is scored, and that columns are what they claim to be.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use manifests::{Dtype, WeightsRecord};
use modularbase_core::BaseFile;
use modularbase_corpus::{Document, TokenizedCorpus};
use modularbase_deltas::{DeltaFormat, GROUP, fit_levels};
use modularbase_graph::{CheckedGraph, Graph, infer_shapes};
use modularbase_loader::{NewWeight, WeightsFile, weights_of, write_weights};
use modularbase_trainer::evaluation::{
    DeltaRounding, DocumentScore, Evaluator, SampleOptions, ScoreOptions, SlotExpert, WholeModel,
    pack_weights,
};
use modularbase_trainer::{BaseEncoder, Compute, TrainingBase};
use pack_sdk::{SlotRange, base_graphs};

const SLOT: SlotRange = SlotRange { start: 1, end: 3 };

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints").join(name)
}

fn base(name: &str) -> Arc<TrainingBase> {
    let file = BaseFile::open(checkpoint(name)).unwrap();
    Arc::new(TrainingBase::load(file, SLOT, Compute::cpu()).unwrap())
}

/// Documents of very different lengths from two sources.
fn corpus(base: &TrainingBase) -> TokenizedCorpus {
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let documents = (0..9_usize).map(|index| {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(1 + (index * index) % 7);
        let source = Some(if index % 2 == 0 { "even" } else { "odd" }.to_owned());
        Ok(Document { source, ..Document::text(format!("d{index}"), format!("{index}: {text}")) })
    });
    TokenizedCorpus::encode(documents, &encoder, &()).unwrap()
}

fn slot_graph(base: &TrainingBase) -> CheckedGraph {
    let graph = base_graphs::layers(base.shape(), SLOT.layers());
    infer_shapes(Graph::from_abi(&graph).unwrap()).unwrap()
}

/// The base's own values of the slot's weights, each changed by `change`.
fn slot_values(base: &TrainingBase, change: impl Fn(usize, f32) -> f32) -> BTreeMap<String, Tensor> {
    let graph = slot_graph(base);
    weights_of(graph.graph())
        .map(|(name, spec)| {
            let values = base.file().read_f32(name).unwrap();
            let values: Vec<f32> = values.iter().enumerate().map(|(at, value)| change(at, *value)).collect();
            (name.to_owned(), Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu).unwrap())
        })
        .collect()
}

fn shaken(at: usize, value: f32) -> f32 {
    value + 0.02 * (at as f32 * 1.3).sin()
}

fn options() -> ScoreOptions {
    ScoreOptions { length: 16, ..ScoreOptions::default() }
}

fn score(evaluator: &Evaluator, corpus: &TokenizedCorpus, options: &ScoreOptions) -> Vec<DocumentScore> {
    evaluator.score(corpus, options, &mut |_, _| {}).unwrap()
}

#[test]
fn every_token_of_every_document_is_scored_once() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let evaluator = Evaluator::new(base).unwrap();
    let mut seen = Vec::new();
    let scores = evaluator.score(&corpus, &options(), &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(scores.len(), corpus.len());
    for (score, document) in scores.iter().zip(corpus.documents()) {
        assert_eq!((score.id.as_str(), score.tokens), (document.id, document.ids.len() as u64));
        assert_eq!(score.bytes, document.text_bytes as f64);
        assert_eq!(Some(score.source.as_str()), document.source);
    }
    assert_eq!(seen.last(), Some(&(corpus.tokens(), corpus.tokens())));
    // Random weights say about as much as chance: the logarithm of the vocabulary.
    let nats: f64 = scores.iter().map(|score| score.nats[0]).sum();
    let chance = (evaluator.base().shape().vocab_size as f64).ln();
    let mean = nats / corpus.tokens() as f64;
    assert!((mean / chance - 1.0).abs() < 0.5, "{mean} against {chance}");
}

#[test]
fn what_is_computed_together_changes_no_loss_beyond_rounding() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let evaluator = Evaluator::new(base).unwrap();
    let many = score(&evaluator, &corpus, &options());
    let one = score(&evaluator, &corpus, &ScoreOptions { rows: 1, ..options() });
    for (many, one) in many.iter().zip(&one) {
        assert!((many.nats[0] - one.nats[0]).abs() < 1e-4 * one.nats[0], "{many:?} {one:?}");
    }
}

#[test]
fn a_part_of_the_text_is_spread_over_all_of_it() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let evaluator = Evaluator::new(base).unwrap();
    let most = corpus.tokens() / 3;
    let part = score(&evaluator, &corpus, &ScoreOptions { max_tokens: Some(most), ..options() });
    let tokens: u64 = part.iter().map(|score| score.tokens).sum();
    assert!(tokens.abs_diff(most) <= 16, "{tokens} of {most}");
    assert!(part.len() >= corpus.len() / 3 && part.last().unwrap().id == "d8", "{part:?}");
    let share = part.iter().map(|score| score.bytes).sum::<f64>() / corpus.text_bytes() as f64;
    assert!((share - 1.0 / 3.0).abs() < 0.15, "{share} of the bytes");
}

#[test]
fn the_general_pack_alone_is_the_base_to_the_bit() {
    for name in ["tiny-llama3", "tiny-qwen2"] {
        let base = base(name);
        let corpus = corpus(&base);
        let mut evaluator = Evaluator::new(base.clone()).unwrap();
        // As a pack without weights, as a pack with the base's values in its file, and as a mixture of one.
        let none = BTreeMap::new();
        evaluator.add_expert(SlotExpert::of_pack("shared", &base, slot_graph(&base), &none).unwrap());
        let own = slot_values(&base, |_, value| value);
        evaluator.add_expert(SlotExpert::of_pack("owned", &base, slot_graph(&base), &own).unwrap());
        for pack in ["shared", "owned", "general"] {
            evaluator.add_mixture(pack, &[(pack, 1.0)]).unwrap();
        }
        // And the whole model, which was never cut at the slot.
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing.safetensors");
        candle_core::safetensors::save(&HashMap::<String, Tensor>::new(), &nothing).unwrap();
        evaluator.add_model("whole", WholeModel::read(&nothing, &base).unwrap());
        for score in score(&evaluator, &corpus, &options()) {
            assert_eq!(score.nats.len(), 5);
            assert!(
                score.nats.iter().all(|nats| nats.to_bits() == score.nats[0].to_bits()),
                "{name}: {score:?}"
            );
        }
    }
}

#[test]
fn a_mixture_lies_where_its_weights_say() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let mut evaluator = Evaluator::new(base.clone()).unwrap();
    let pack = SlotExpert::of_pack("pack", &base, slot_graph(&base), &slot_values(&base, shaken)).unwrap();
    evaluator.add_expert(pack);
    evaluator.add_mixture("pack", &[("pack", 1.0)]).unwrap();
    evaluator.add_mixture("nearly all", &[("pack", 0.9999), ("general", 0.0001)]).unwrap();
    evaluator.add_mixture("nearly none", &[("pack", 0.0001), ("general", 0.9999)]).unwrap();
    let nats = |column: usize| -> f64 {
        score(&evaluator, &corpus, &options()).iter().map(|score| score.nats[column]).sum()
    };
    let [base, pack, all, none] = [nats(0), nats(1), nats(2), nats(3)];
    let apart = (pack - base).abs();
    assert!(apart > 0.01, "the pack does something: {base} {pack}");
    assert!(
        (all - pack).abs() < apart / 50.0 && (none - base).abs() < apart / 50.0,
        "{base} {pack} {all} {none}"
    );
    assert_eq!(evaluator.columns().collect::<Vec<_>>(), ["base", "pack", "nearly all", "nearly none"]);
    let error = evaluator.add_mixture("x", &[("pakc", 1.0)]).unwrap_err().to_string();
    assert_eq!(error, "no pack is named `pakc`; there are: general, pack");
}

#[test]
fn damaged_weights_are_told_and_not_averaged() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let mut evaluator = Evaluator::new(base.clone()).unwrap();
    let values = slot_values(&base, |at, value| if at == 5 { f32::NAN } else { value });
    evaluator.add_expert(SlotExpert::of_pack("bad", &base, slot_graph(&base), &values).unwrap());
    evaluator.add_mixture("bad", &[("bad", 1.0)]).unwrap();
    let error = evaluator.score(&corpus, &options(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("`d0` is NaN in the column `bad`"), "{error}");
    let mut values = slot_values(&base, |_, value| value);
    values.insert("layers.9.attn_q".into(), values["layers.1.attn_q"].clone());
    let error = SlotExpert::of_pack("bad", &base, slot_graph(&base), &values).unwrap_err().to_string();
    assert!(error.contains("no weight for `layers.9.attn_q`"), "{error}");
}

#[test]
fn deltas_are_added_up_in_full_or_as_the_host_holds_them() {
    let base = base("tiny-llama3");
    let wanted = slot_values(&base, shaken);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let weights: Vec<NewWeight> = wanted
        .iter()
        .filter(|(_, value)| value.rank() == 2 && value.dims()[1].is_multiple_of(GROUP))
        .map(|(name, value)| {
            let own = base.file().read_f32(name).unwrap();
            let value_list = value.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let delta: Vec<f32> = value_list.iter().zip(&own).map(|(value, own)| value - own).collect();
            let levels = fit_levels(&delta, DeltaFormat::Q3).unwrap();
            NewWeight::of_delta(name, value.dims(), name, &delta, &levels).unwrap()
        })
        .collect();
    write_weights(&path, &weights).unwrap();
    let record = WeightsRecord {
        file: "weights.safetensors".parse().unwrap(),
        sha256: manifests::Sha256::of_bytes(b""),
        size: std::fs::metadata(&path).unwrap().len(),
        dtype: Dtype::DeltaQ3,
    };
    let file = WeightsFile::open(&path, &record).unwrap();
    let read = |rounding| pack_weights(&file, &base, rounding).unwrap();
    let (exact, q8_0) = (read(DeltaRounding::Exact), read(DeltaRounding::Q8_0));
    assert_eq!(exact.len(), weights.len());
    let distance = |a: &Tensor, b: &Tensor| -> f32 {
        let squares = (a - b).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        squares.sqrt()
    };
    for (name, value) in &exact {
        let own = Tensor::from_vec(base.file().read_f32(name).unwrap(), value.dims(), &Device::Cpu).unwrap();
        let moved = distance(&wanted[name], &own);
        assert!(distance(value, &wanted[name]) < 0.25 * moved, "`{name}`: 3 bits keep most of a delta");
        let rounded = distance(&q8_0[name], value);
        assert!(rounded > 0.0 && rounded < 0.2 * moved, "`{name}`: {rounded} of {moved}");
    }
}

#[test]
fn a_trained_model_is_read_whole_or_as_lora() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let name = "layers.0.attn_q";
    let shape = base.file().tensor(name).unwrap().shape.clone();
    let matrix = |rows: usize, columns: usize, phase: f32| {
        let values: Vec<f32> = (0..rows * columns).map(|at| 0.1 * (at as f32 * 0.9 + phase).sin()).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    };
    let (a, b) = (matrix(2, shape[1], 0.0), matrix(shape[0], 2, 1.0));
    let own = Tensor::from_vec(base.file().read_f32(name).unwrap(), shape, &Device::Cpu).unwrap();
    let whole = (own + (b.matmul(&a).unwrap() * 0.5).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, tensors: Vec<(String, Tensor)>, scale: Option<&str>| {
        let path = folder.path().join(file);
        let metadata =
            scale.map(|scale| HashMap::from([("modularbase.lora_scale".to_owned(), scale.to_owned())]));
        let tensors: Vec<(String, Tensor)> = tensors;
        safetensors::serialize_to_file(tensors, metadata, &path).unwrap();
        path
    };
    let lora = write(
        "lora.safetensors",
        vec![(format!("{name}.lora_a"), a.clone()), (format!("{name}.lora_b"), b)],
        Some("0.5"),
    );
    let full = write("full.safetensors", vec![(name.to_owned(), whole)], None);
    let mut evaluator = Evaluator::new(base.clone()).unwrap();
    evaluator.add_model("lora", WholeModel::read(&lora, &base).unwrap());
    evaluator.add_model("full", WholeModel::read(&full, &base).unwrap());
    for score in score(&evaluator, &corpus, &options()) {
        assert!(score.nats[1] != score.nats[0], "it does something");
        assert!((score.nats[1] - score.nats[2]).abs() < 1e-4 * score.nats[1], "{score:?}");
    }
    let refused = |file: &str, tensors, scale| {
        WholeModel::read(&write(file, tensors, scale), &base).unwrap_err().to_string()
    };
    let unknown = refused("unknown.safetensors", vec![("layers.77.attn_q".to_owned(), a.clone())], None);
    assert!(unknown.contains("no weight for `layers.77.attn_q`"), "{unknown}");
    let shape = refused("shape.safetensors", vec![(name.to_owned(), a.clone())], None);
    assert!(shape.contains("`layers.0.attn_q` should be"), "{shape}");
    let scale = refused("scale.safetensors", vec![(name.to_owned(), a)], Some("much"));
    assert!(scale.contains("found `much`"), "{scale}");
}

#[test]
fn samples_continue_documents_the_same_way_each_time() {
    let base = base("tiny-llama3");
    let corpus = corpus(&base);
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let evaluator = Evaluator::new(base).unwrap();
    let options = SampleOptions { documents: 2, prompt: 6, tokens: 5 };
    let decode = |ids: &[u32]| encoder.tokenizer().decode(ids);
    let sample = || evaluator.samples(&corpus, &[0], options, &decode).unwrap();
    let samples = sample();
    assert_eq!(samples, sample());
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|sample| sample.continuations.len() == 1 && !sample.prompt.is_empty()));
    let too_long = SampleOptions { prompt: 100_000, ..options };
    assert!(evaluator.samples(&corpus, &[0], too_long, &decode).unwrap().is_empty());
}
