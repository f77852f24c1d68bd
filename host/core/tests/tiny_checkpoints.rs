//! Two tiny random checkpoints in Hugging Face layout against logits that a forward pass in NumPy gave, in float64.

use std::{path::Path, sync::Arc};

use modularbase_core::{
    Advance, Backend, BaseCore, BaseFile, CpuBackend, KvDtype, LogitRows, Mixture, Sequence, TensorBackend,
    Tokenizer, WeightDtype,
};
use pack_sdk::SlotRange;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    token_ids: Vec<u32>,
    /// `[tokens, vocab]`.
    logits: Vec<Vec<f32>>,
}

fn check(name: &str) {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints").join(name);
    let expected: Expected =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    assert!(!expected.cases.is_empty());
    let file = BaseFile::open(&folder).unwrap();
    let tokenizer = Tokenizer::of_base(&file).unwrap();
    let backends: [Arc<dyn Backend>; 2] =
        [Arc::new(CpuBackend::new(2, KvDtype::F32)), Arc::new(TensorBackend::cpu())];
    for backend in backends {
        let slot = SlotRange { start: 1, end: 3 };
        let core = BaseCore::load(&file, slot, backend, WeightDtype::F32, &mut |_, _| {}).unwrap();
        let mixture = Mixture::single(core.own_slot_layers().unwrap().into());
        for case in &expected.cases {
            assert_eq!(
                tokenizer.encode_prompt(&case.prompt, false).unwrap(),
                case.token_ids,
                "{}",
                case.prompt
            );
            let mut sequence = Sequence::new(&core, mixture.clone());
            let step = Advance { sequence: &mut sequence, tokens: &case.token_ids, logits: LogitRows::All };
            let logits = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
            let expected: Vec<f32> = case.logits.concat();
            assert_eq!(logits.len(), expected.len());
            let size = expected.iter().map(|logit| logit.abs()).fold(0.0, f32::max);
            let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4 * size, "{name}, {:?}: off by {worst} of {size}", case.prompt);
        }
    }
}

#[test]
fn a_qwen2_shape_with_biases_and_a_tied_head_gives_the_independent_logits() {
    check("tiny-qwen2");
}

#[test]
fn a_llama3_shape_with_rope_scaling_shards_and_its_own_head_gives_the_independent_logits() {
    check("tiny-llama3");
}
