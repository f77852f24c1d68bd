//! The default base against logits that were computed independently (float32 in NumPy over the dequantized weights).

use modularbase_core::{Advance, BaseCore, LogitRows, Mixture, Sequence, WeightDtype};
use serde::Deserialize;

use crate::base;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    token_ids: Vec<u32>,
    top_logits: Vec<(u32, f32)>,
    mean_nll: f64,
    h18_first8: Vec<f32>,
    greedy: Vec<u32>,
}

fn reference() -> Vec<Case> {
    let reference: Reference = serde_json::from_str(include_str!("../data/smollm2-135m.json")).unwrap();
    assert_eq!(reference.cases.len(), 5);
    reference.cases
}

fn close(found: f32, expected: f32, relative: f32) -> bool {
    (found - expected).abs() <= relative * expected.abs().max(1.0)
}

fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(index, _)| index as u32).unwrap()
}

/// Mean of -ln p(token) over all tokens but the first, nats.
fn mean_nll(logits: &[f32], tokens: &[u32]) -> f64 {
    let vocabulary = logits.len() / tokens.len();
    let rows = logits.chunks_exact(vocabulary).zip(&tokens[1..]);
    let total: f64 = rows
        .map(|(row, &next)| {
            let best = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let sum: f64 = row.iter().map(|&logit| (f64::from(logit) - best).exp()).sum();
            best + sum.ln() - f64::from(row[next as usize])
        })
        .sum();
    total / (tokens.len() - 1) as f64
}

fn check_f32(core: &BaseCore) {
    let general = Mixture::single(core.own_slot_layers().unwrap().into());
    for case in reference() {
        let mut sequence = Sequence::new(core, general.clone());
        let step = Advance { sequence: &mut sequence, tokens: &case.token_ids, logits: LogitRows::All };
        let logits = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();

        let hidden = sequence.hidden().unwrap().to_vec().unwrap();
        let h18 = &hidden[(case.token_ids.len() - 1) * core.shape().hidden_size..];
        for (&found, &expected) in h18.iter().zip(&case.h18_first8) {
            assert!(close(found, expected, 1e-3), "{}: h18 {found}, expected {expected}", case.prompt);
        }
        let last = &logits[logits.len() - core.shape().vocab_size..];
        for &(token, expected) in &case.top_logits {
            let found = last[token as usize];
            assert!(close(found, expected, 1e-3), "{}: logit {found}, expected {expected}", case.prompt);
        }
        let nll = mean_nll(&logits, &case.token_ids);
        assert!((nll - case.mean_nll).abs() < 1e-3 * case.mean_nll, "{}: {nll}", case.prompt);

        let mut greedy = vec![argmax(last)];
        while greedy.len() < case.greedy.len() {
            let token = [greedy[greedy.len() - 1]];
            let step = Advance { sequence: &mut sequence, tokens: &token, logits: LogitRows::Last };
            let row = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
            greedy.push(argmax(&row));
        }
        assert_eq!(greedy, case.greedy, "{}", case.prompt);
    }
}

#[test]
fn cpu_kernels_in_f32_give_the_reference_logits_and_tokens() {
    check_f32(&base::on_cpu(WeightDtype::F32));
}

#[test]
fn tensor_executor_in_f32_gives_the_reference_logits_and_tokens() {
    check_f32(&base::on_tensors(WeightDtype::F32));
}

/// Runs where there is a GPU: `cargo test --release -p modularbase-core --features cuda`.
#[cfg(feature = "cuda")]
#[test]
fn tensor_executor_on_cuda_in_f32_gives_the_reference_logits_and_tokens() {
    check_f32(&base::on_cuda(WeightDtype::F32));
}
