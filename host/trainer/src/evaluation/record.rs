//! A whole evaluation, as it is written to disk.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{BootstrapOptions, DomainResult, MeanResult, Sample};

/// What was evaluated, how, and what came out.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The base.
    pub base: BaseFacts,
    /// How it was computed.
    pub settings: SettingsFacts,
    /// The packs whose weights were read.
    pub packs: Vec<PackFacts>,
    /// The columns; the first is the base.
    pub columns: Vec<ColumnFacts>,
    /// How the intervals were made.
    pub bootstrap: BootstrapOptions,
    /// Every domain.
    pub domains: Vec<DomainResult>,
    /// The mean over domains.
    pub mean: MeanResult,
    /// Continuations by domain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub samples: BTreeMap<String, Vec<Sample>>,
}

/// The base of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BaseFacts {
    /// Its name.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// First layer of the slot, and the one behind its last.
    pub slot: [usize; 2],
}

/// How an evaluation was computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingsFacts {
    /// Version of the program.
    pub version: String,
    /// The command line.
    pub command: String,
    /// The device.
    pub device: String,
    /// What flows on it.
    pub dtype: String,
    /// How weights that are stored as deltas are held.
    pub deltas: String,
    /// Targets of a window, at most.
    pub length: usize,
    /// Tokens of a domain, about; `None`: all.
    pub max_tokens: Option<u64>,
    /// Time spent on losses, s.
    pub seconds: f64,
    /// Tokens a second, each counted once for all columns.
    pub tokens_per_second: f64,
}

/// A pack of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its generation; `None` where other weights than its own were read.
    pub generation: Option<String>,
    /// The weights file that was read; `None`: all weights are the base's.
    pub weights: Option<String>,
    /// How that file stores matrices.
    pub dtype: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A column of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ColumnType,
    /// Of packs and mixtures: the parts with their weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<(String, f64)>,
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// The base as it is.
    Base,
    /// One pack alone.
    Pack,
    /// Several packs.
    Mixture,
    /// A whole trained model.
    Baseline,
}

impl Evaluation {
    /// The column of the pack that is meant for a domain.
    pub fn own_column(&self, domain: &str) -> Option<usize> {
        own_column(&self.columns, domain)
    }
}

/// The column of the pack that has a domain's name, `-` and `_` being one.
pub fn own_column(columns: &[ColumnFacts], domain: &str) -> Option<usize> {
    let spelled = |name: &str| name.replace('_', "-").to_lowercase();
    columns
        .iter()
        .position(|column| column.kind == ColumnType::Pack && spelled(&column.name) == spelled(domain))
        .filter(|_| spelled(domain) != "general")
}
