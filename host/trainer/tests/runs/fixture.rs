//! A tiny base, a pack of its own layers in the slot, and texts of two kinds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use modularbase_core::BaseFile;
use modularbase_corpus::TokenCache;
use modularbase_graph::{Graph, infer_shapes};
use modularbase_trainer::{
    BaseEncoder, BatchConfig, Compute, DataConfig, Ending, EvaluationConfig, Metric, PackModel, Run,
    TextSource, TrainConfig, TrainError, TrainingBase, TrainingText, read_metrics,
};
use pack_sdk::{SlotRange, base_graphs};

const SLOT: SlotRange = SlotRange { start: 1, end: 3 };

pub struct Fixture {
    pub folder: tempfile::TempDir,
    base: Arc<TrainingBase>,
    encoder: BaseEncoder,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints/tiny-llama3");
        let file = BaseFile::open(checkpoint).unwrap();
        let base = Arc::new(TrainingBase::load(file, SLOT, Compute::cpu()).unwrap());
        let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
        let write = |name: &str, line: &dyn Fn(usize) -> String| {
            let lines: Vec<String> =
                (0..60).map(|index| format!("{{\"text\": \"{}\"}}\n", line(index))).collect();
            std::fs::write(folder.path().join(name), lines.concat()).unwrap();
        };
        write("domain.jsonl", &|index| {
            format!("{} shall pay the fee of section {}.", ["A", "B"][index % 2], index % 7)
        });
        write("general.jsonl", &|index| {
            format!(
                "In {} rain fell on {} hills, and we went home.",
                1900 + index,
                ["green", "bare"][index % 2]
            )
        });
        Self { folder, base, encoder }
    }

    fn text(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A short run on the domain's text, looked at at its end.
    pub fn config(&self) -> TrainConfig {
        let mut config = TrainConfig {
            steps: 24,
            data: DataConfig {
                train: vec![self.text("domain.jsonl")],
                validation: vec![self.text("domain.jsonl")],
                general_validation: vec![self.text("general.jsonl")],
                ..DataConfig::default()
            },
            batch: BatchConfig { rows: 4, length: 16, rows_at_once: 2 },
            evaluation: EvaluationConfig { every: 0, ..EvaluationConfig::default() },
            ..TrainConfig::default()
        };
        config.optimizer.learning_rate = 1e-2;
        config.optimizer.warmup = 2;
        config
    }

    /// The same with this share of general rows.
    pub fn mixed(&self, share: f64) -> TrainConfig {
        let mut config = self.config();
        config.data.general = vec![self.text("general.jsonl")];
        config.data.general_share = share;
        config
    }

    /// Trains in the folder `name`, or goes on there, until its end or `stop`.
    pub fn train(&self, config: &TrainConfig, name: &str, stop: &AtomicBool) -> Result<Ending, TrainError> {
        let graph = Graph::from_abi(&base_graphs::layers(self.base.shape(), SLOT.start..SLOT.end)).unwrap();
        let model = PackModel::new(self.base.clone(), infer_shapes(graph).unwrap(), config.seed)?;
        let cache = TokenCache::new(self.folder.path().join("tokens"));
        let source = TextSource { cache: &cache, encoder: &self.encoder, progress: &() };
        let text = TrainingText::open(config, &source)?;
        Run::open(config, &model, &text, &self.text(name), "tiny")?.train(stop, &mut ())
    }

    /// Trains in the folder `name` to the end; gives its metrics.
    pub fn metrics(&self, config: &TrainConfig, name: &str) -> Vec<Metric> {
        self.train(config, name, &AtomicBool::new(false)).unwrap();
        read_metrics(&self.text(name)).unwrap()
    }
}
