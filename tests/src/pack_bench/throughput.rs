//! Requests with packs beside requests without: what routing costs those who use it, and those who do not.

use std::time::{Duration, Instant};

use modularbase_core::{Advance, LogitRows, Mixture, Sequence};
use modularbase_engine::{Host, Turn};
use serde_json::{Value, json};

use super::median_ratio;
use crate::{Base, Folders};

/// Decode steps of a measurement.
const STEPS: usize = 96;
/// Tokens of a prompt.
const PROMPT: usize = 256;

pub(super) fn measure(base: Base, rounds: usize) -> Value {
    let folders = Folders::for_base(base);
    let pack = |name: &str, seed: u64| {
        let fixture = folders.fixture("own-slot").named(name).seeded(seed);
        fixture.owning_everything().lay_out(folders.packs.path());
    };
    let host = folders.host();
    let turn = |choice: &str| host.turn(&choice.parse().expect("a mixture")).expect("a turn");
    let plain = turn("none");
    // Before any pack has come, and after: what packs that lie there cost requests without one.
    let alone = rate(&host, &[&plain], rounds);
    pack("law", 1);
    pack("poems", 2);
    let (one, other, both) = (turn("law"), turn("poems"), turn("law=1,poems=1"));
    let resident = rate(&host, &[&plain], rounds);
    let mixtures: [(&str, Vec<&Turn>); 6] = [
        ("base", vec![&plain]),
        ("one_pack", vec![&one]),
        ("two_packs_fused", vec![&both]),
        ("base_beside_base", vec![&plain, &plain]),
        ("base_beside_one_pack", vec![&plain, &one]),
        ("two_requests_with_different_packs", vec![&one, &other]),
    ];
    // In turns, so that all see the same machine.
    let mut decode = vec![Vec::new(); mixtures.len()];
    let mut prefill = vec![Vec::new(); mixtures.len()];
    for _ in 0..rounds {
        for (index, (_, turns)) in mixtures.iter().enumerate() {
            decode[index].push(tokens_a_second(&host, turns, 1, STEPS));
            prefill[index].push(tokens_a_second(&host, turns, PROMPT, 1));
        }
    }
    let ratio = |of: &[Vec<f64>], index: usize, to: usize| {
        median_ratio(of[index].iter().zip(&of[to]).map(|(one, other)| one / other).collect())
    };
    let of = |figures: &[Vec<f64>]| {
        let rates = mixtures.iter().zip(figures);
        let rates = rates.map(|((name, _), rates)| ((*name).to_owned(), json!(median_ratio(rates.clone()))));
        json!({
            "tokens_per_s": rates.collect::<serde_json::Map<_, _>>(),
            "one_pack_to_base": ratio(figures, 1, 0),
            "two_packs_fused_to_base": ratio(figures, 2, 0),
            // Two requests in one step: all tokens of the two.
            "base_beside_one_pack_to_base_beside_base": ratio(figures, 4, 3),
            "different_packs_to_base_beside_base": ratio(figures, 5, 3),
        })
    };
    json!({
        "decode": of(&decode),
        "prefill": of(&prefill),
        "base_with_packs_on_the_device_to_base_alone": (resident / alone * 1e3).round() / 1e3,
    })
}

fn rate(host: &Host, turns: &[&Turn], rounds: usize) -> f64 {
    median_ratio((0..rounds).map(|_| tokens_a_second(host, turns, 1, STEPS)).collect())
}

/// All tokens of all requests, which advance in one call.
fn tokens_a_second(host: &Host, turns: &[&Turn], tokens: usize, steps: usize) -> f64 {
    let start_of = |mixture: &Mixture| {
        let mut sequence = Sequence::new(host.core(), mixture.clone());
        advance(host, &mut [&mut sequence], &[1, 2, 3, 4]);
        sequence
    };
    let mut sequences: Vec<Sequence> = turns.iter().map(|turn| start_of(turn.mixture())).collect();
    let prompt: Vec<u32> = (0..tokens).map(|token| 5 + token as u32 % 500).collect();
    let mut took = Duration::ZERO;
    for _ in 0..steps {
        let mut all: Vec<&mut Sequence> = sequences.iter_mut().collect();
        let start = Instant::now();
        advance(host, &mut all, &prompt);
        took += start.elapsed();
    }
    (turns.len() * tokens * steps) as f64 / took.as_secs_f64()
}

fn advance(host: &Host, sequences: &mut [&mut Sequence], tokens: &[u32]) {
    let mut steps: Vec<Advance<'_>> =
        sequences.iter_mut().map(|sequence| Advance { sequence, tokens, logits: LogitRows::Last }).collect();
    host.core().advance(&mut steps).expect("a step");
}
