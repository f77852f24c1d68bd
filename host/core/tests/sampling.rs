//! Sampling: what each option keeps, and that the same seed gives the same draws.

use modularbase_core::{Sampler, SamplingError, SamplingOptions};

/// Every token kept, at temperature 1.
fn plain() -> SamplingOptions {
    SamplingOptions { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7, ..SamplingOptions::default() }
}

fn draws(options: SamplingOptions, logits: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(options).unwrap();
    (0..count).map(|_| sampler.sample(logits, &[]).unwrap()).collect()
}

fn kept(options: SamplingOptions, logits: &[f32]) -> Vec<u32> {
    let mut drawn = draws(options, logits, 4000);
    drawn.sort_unstable();
    drawn.dedup();
    drawn
}

/// ln of the probabilities, shifted: a shift changes nothing.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() + 3.0).collect()
}

/// As many logits as the default base gives, no two alike.
fn many() -> Vec<f32> {
    (0..49_152u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6).collect()
}

#[test]
fn greedy_takes_the_likeliest_and_of_equals_the_first() {
    let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
    assert_eq!(sampler.sample(&[0.0, 2.0, -1.0, 2.0], &[]).unwrap(), 1);
    let logits = many();
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    assert_eq!(sampler.sample(&logits, &[]).unwrap(), best as u32);
}

#[test]
fn draws_follow_the_probabilities() {
    let probabilities = [0.5, 0.3, 0.15, 0.05];
    let drawn = draws(plain(), &logits(&probabilities), 20_000);
    for (token, expected) in probabilities.iter().enumerate() {
        let share = drawn.iter().filter(|drawn| **drawn == token as u32).count() as f32 / 20_000.0;
        assert!((share - expected).abs() < 0.015, "token {token}: {share}, expected {expected}");
    }
}

#[test]
fn temperature_sharpens_and_flattens() {
    let logits = logits(&[0.6, 0.4]);
    let share = |temperature| {
        let drawn = draws(SamplingOptions { temperature, ..plain() }, &logits, 10_000);
        drawn.iter().filter(|token| **token == 0).count() as f32 / 10_000.0
    };
    // p^(1/T), normalized.
    assert!((share(0.25) - 0.835).abs() < 0.02);
    assert!((share(4.0) - 0.525).abs() < 0.02);
}

#[test]
fn a_tiny_temperature_is_greedy_and_does_not_overflow() {
    let options = SamplingOptions { temperature: 1e-30, ..plain() };
    assert_eq!(kept(options, &[1.0, 1000.0, 999.0]), [1]);
}

#[test]
fn top_k_keeps_the_likeliest() {
    let logits = logits(&[0.1, 0.4, 0.2, 0.3]);
    assert_eq!(kept(SamplingOptions { top_k: 2, ..plain() }, &logits), [1, 3]);
    assert_eq!(kept(SamplingOptions { top_k: 1, ..plain() }, &logits), [1]);
    assert_eq!(kept(SamplingOptions { top_k: 99, ..plain() }, &logits), [0, 1, 2, 3]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let logits = logits(&[0.1, 0.4, 0.2, 0.3]);
    assert_eq!(kept(SamplingOptions { top_p: 0.65, ..plain() }, &logits), [1, 3]);
    assert_eq!(kept(SamplingOptions { top_p: 0.75, ..plain() }, &logits), [1, 2, 3]);
    assert_eq!(kept(SamplingOptions { top_p: 0.01, ..plain() }, &logits), [1]);
    // After top-k the rest is renormalized: of 0.4 and 0.3 the first has 0.57.
    assert_eq!(kept(SamplingOptions { top_k: 2, top_p: 0.55, ..plain() }, &logits), [1]);
}

#[test]
fn min_p_drops_what_is_far_below_the_likeliest() {
    let logits = logits(&[0.1, 0.4, 0.2, 0.3]);
    assert_eq!(kept(SamplingOptions { min_p: 0.6, ..plain() }, &logits), [1, 3]);
    assert_eq!(kept(SamplingOptions { min_p: 0.3, top_p: 0.99, ..plain() }, &logits), [1, 2, 3]);
    assert_eq!(kept(SamplingOptions { min_p: 1.0, ..plain() }, &logits), [1]);
}

#[test]
fn a_nucleus_wider_than_one_partial_sort_is_the_one_of_a_full_sort() {
    // Nearly even: the nucleus holds about half of 5,000 tokens.
    let logits: Vec<f32> =
        (0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 1e6).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let mut reached = 0.0;
    let nucleus: Vec<u32> = order
        .into_iter()
        .take_while(|token| {
            let before = reached;
            reached += f64::from(logits[*token]).exp() / total;
            before < 0.5
        })
        .map(|token| token as u32)
        .collect();
    let drawn = draws(SamplingOptions { top_p: 0.5, ..plain() }, &logits, 5_000);
    assert!(drawn.iter().all(|token| nucleus.contains(token)));
    let mut distinct = drawn;
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 1_500, "{}", distinct.len());
}

#[test]
fn the_repetition_penalty_reaches_back_over_its_window() {
    let options = |window| SamplingOptions {
        repetition_penalty: 2.0,
        repetition_window: window,
        ..SamplingOptions::greedy()
    };
    let logits = [3.0, 2.0, -1.0, -1.5];
    let pick = |window, history: &[u32], logits: &[f32]| {
        Sampler::new(options(window)).unwrap().sample(logits, history).unwrap()
    };
    assert_eq!(pick(64, &[0], &logits), 1);
    assert_eq!(pick(64, &[0, 0, 0], &logits), 1, "once, however often it occurred");
    assert_eq!(pick(2, &[0, 3, 3], &logits), 0, "behind the window");
    assert_eq!(pick(0, &[0, 3, 3], &logits), 1, "0 means all");
    assert_eq!(pick(64, &[0, 1], &logits), 0);
    assert_eq!(pick(64, &[2], &logits[2..]), 0, "an id outside the vocabulary does nothing");
    assert_eq!(pick(64, &[0], &[-1.0, -1.5]), 1, "a negative logit becomes more so");
    let sampled = SamplingOptions { temperature: 0.01, ..options(64) };
    assert_eq!(Sampler::new(sampled).unwrap().sample(&logits, &[0]).unwrap(), 1);
}

#[test]
fn the_same_seed_gives_the_same_draws_and_another_seed_others() {
    let logits = many();
    let options = SamplingOptions { temperature: 5.0, top_k: 200, top_p: 0.9, min_p: 0.001, ..plain() };
    let first = draws(options.clone(), &logits, 50);
    assert_eq!(first, draws(options.clone(), &logits, 50));
    assert_ne!(first, draws(SamplingOptions { seed: 8, ..options }, &logits, 50));
}

#[test]
fn logits_that_are_not_finite_are_an_error_that_names_the_token() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for options in [SamplingOptions::greedy(), plain()] {
            let mut logits = many();
            logits[40_000] = bad;
            let error = Sampler::new(options).unwrap().sample(&logits, &[]).unwrap_err();
            assert!(matches!(error, SamplingError::NotFinite { token: 40_000, .. }), "{error}");
        }
    }
    assert_eq!(Sampler::new(plain()).unwrap().sample(&[], &[]), Err(SamplingError::Empty));
}

#[test]
fn options_out_of_range_are_named() {
    for (options, name) in [
        (SamplingOptions { temperature: -1.0, ..plain() }, "temperature"),
        (SamplingOptions { temperature: f32::NAN, ..plain() }, "temperature"),
        (SamplingOptions { top_p: 0.0, ..plain() }, "top-p"),
        (SamplingOptions { top_p: 1.5, ..plain() }, "top-p"),
        (SamplingOptions { min_p: -0.1, ..plain() }, "min-p"),
        (SamplingOptions { repetition_penalty: 0.0, ..plain() }, "repetition penalty"),
    ] {
        let error = Sampler::new(options).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
