//! Baselines on a tiny checkpoint: they start as the base, learn, and are evaluated as they were trained.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use modularbase_core::BaseFile;
use modularbase_corpus::{TokenCache, TokenizedCorpus};
use modularbase_trainer::baseline::{Baseline, FullModel, LoraModel, LoraOptions};
use modularbase_trainer::evaluation::{Evaluator, ScoreOptions, WholeModel};
use modularbase_trainer::{
    BaseEncoder, BatchConfig, Compute, DataConfig, EvaluationConfig, Run, TextSource, TrainConfig,
    TrainingBase, TrainingText,
};
use pack_sdk::SlotRange;

fn base() -> Arc<TrainingBase> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints/tiny-llama3");
    let file = BaseFile::open(folder).unwrap();
    Arc::new(TrainingBase::load(file, SlotRange { start: 1, end: 3 }, Compute::cpu()).unwrap())
}

fn of_kind(kind: &str) -> Baseline {
    match kind {
        "full" => Baseline::Full(FullModel::new(base()).unwrap()),
        _ => Baseline::Lora(LoraModel::new(base(), LoraOptions::of_rank(4, 1)).unwrap()),
    }
}

#[test]
fn a_baseline_learns_and_its_file_gives_the_loss_that_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.jsonl");
    let lines: Vec<String> = (0..40)
        .map(|index| {
            format!(
                "{{\"text\": \"{} shall pay the fee of section {}.\"}}\n",
                ["A", "B"][index % 2],
                index % 7
            )
        })
        .collect();
    std::fs::write(&path, lines.concat()).unwrap();
    let base = base();
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let corpus = TokenizedCorpus::of_path(&path, &encoder).unwrap();
    for (kind, rate) in [("full", 3e-3), ("lora", 1e-2)] {
        let mut config = TrainConfig {
            steps: 12,
            data: DataConfig {
                train: vec![path.clone()],
                validation: vec![path.clone()],
                ..DataConfig::default()
            },
            batch: BatchConfig { rows: 4, length: 16, rows_at_once: 2 },
            evaluation: EvaluationConfig { every: 0, ..EvaluationConfig::default() },
            ..TrainConfig::default()
        };
        config.optimizer.learning_rate = rate;
        config.optimizer.warmup = 2;
        let cache = TokenCache::new(folder.path().join("tokens"));
        let source = TextSource { cache: &cache, encoder: &encoder, progress: &() };
        let text = TrainingText::open(&config, &source).unwrap();
        let baseline = of_kind(kind);
        let out = folder.path().join(kind);
        let mut run = Run::open(&config, baseline.model(), &text, &out, kind).unwrap();
        run.train(&AtomicBool::new(false), &mut ()).unwrap();
        let (checkpoint, _) = run.best().unwrap();
        let trained = checkpoint.state.best.expect("a look").loss;
        let file = out.join("model.safetensors");
        assert!(baseline.write(&checkpoint, &file).unwrap() > 1000);

        let mut evaluator = Evaluator::new(base.clone()).unwrap();
        evaluator.add_model(kind, WholeModel::read(&file, &base).unwrap());
        let options = ScoreOptions { length: 16, ..ScoreOptions::default() };
        let scores = evaluator.score(&corpus, &options, &mut |_, _| {}).unwrap();
        let tokens: u64 = scores.iter().map(|score| score.tokens).sum();
        let mean = |column: usize| scores.iter().map(|score| score.nats[column]).sum::<f64>() / tokens as f64;
        assert!(mean(1) < mean(0) - 0.3, "{kind}: {} should be well below {}", mean(1), mean(0));
        // The full model's file is in bf16.
        assert!((mean(1) - trained).abs() < 0.02 * trained, "{kind}: {} and {trained}", mean(1));
    }
}

#[test]
fn lora_adapts_every_linear_layer_and_nothing_else() {
    let base = base();
    let shape = base.shape().clone();
    let model = LoraModel::new(base.clone(), LoraOptions::of_rank(4, 1)).unwrap();
    let adapted = model.adapted();
    assert_eq!(adapted.len(), 7 * shape.num_layers);
    assert!(adapted.contains("layers.0.ffn_down") && !adapted.contains("token_embd"), "{adapted:?}");
    let error = LoraModel::new(base, LoraOptions::of_rank(0, 1)).err().unwrap().to_string();
    assert!(error.contains("rank of at least 1"), "{error}");
}
