//! The tiny checkpoints in `tests/fixtures`, and what a base loaded from them must give.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the tests here need of `expected.json`, which `generate.py` writes.
#[derive(Deserialize)]
pub struct Expected {
    /// `[head_dim / 2]`, RoPE scaling included.
    pub inverse_frequencies: Vec<f64>,
    /// The first four values of some tensors, by their Hugging Face names.
    pub first_values: HashMap<String, [f32; 4]>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub prompt: String,
    pub token_ids: Vec<u32>,
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints").join(name)
}

pub fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(folder(name).join("expected.json")).unwrap()).unwrap()
}

/// A copy that a test may damage.
pub fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}
