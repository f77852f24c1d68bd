//! Texts in a window, on the real base.

use std::sync::Arc;

use modularbase_context::{ColdStore, ContextOptions, KvBits};
use modularbase_core::{
    Advance, BaseCore, BaseFile, Context, LogitRows, Sequence, StepSize, Tokenizer, WeightDtype, WindowShape,
};

use crate::{
    base,
    invariants::{assert_same_bits, cold, general},
};

fn novel() -> Vec<u32> {
    let tokenizer = Tokenizer::of_base(&BaseFile::open(base::path()).unwrap()).unwrap();
    tokenizer.encode(include_str!("../data/novel.txt"), false).unwrap()
}

fn options(hot_tokens: usize, bits: KvBits) -> ContextOptions {
    ContextOptions { hot_tokens, bits, retrieved_blocks: 2, ..ContextOptions::default() }
}

fn within(core: &BaseCore, options: &ContextOptions) -> Sequence {
    let shape = WindowShape::new(options, core.shape().max_position).unwrap();
    let store = ColdStore::temporary(&std::env::temp_dir(), "base", options).unwrap();
    let mut sequence = Sequence::within(core, Context { shape, store: Arc::new(store) }).unwrap();
    sequence.attach(core, general(core), None);
    sequence
}

fn advance(core: &BaseCore, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
    let step = Advance { sequence, tokens, logits: LogitRows::All };
    core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap()
}

/// Mean `-ln p` of each token after the first.
fn loss(logits: &[f32], tokens: &[u32]) -> f64 {
    let rows = logits.chunks_exact(logits.len() / tokens.len());
    let of_row = |(row, &next): (&[f32], &u32)| {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from((logit - best).exp())).sum();
        f64::from(best) + sum.ln() - f64::from(row[next as usize])
    };
    rows.zip(&tokens[1..]).map(of_row).sum::<f64>() / (tokens.len() - 1) as f64
}

#[test]
fn a_text_no_longer_than_the_hot_window_equals_one_without_a_window_to_the_bit() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens = &novel()[..576];
    let expected = cold(&core, &general(&core), tokens);
    let mut sequence = within(&core, &options(512, KvBits::B8));
    let mut found = advance(&core, &mut sequence, &tokens[..570]);
    found.extend(advance(&core, &mut sequence, &tokens[570..]));
    assert_same_bits(&found, &expected, "in a window of 512 and 64 sinks");
    assert_eq!(sequence.context_tokens().unwrap().cold, 0);
}

#[test]
fn a_window_whose_blocks_all_come_back_predicts_as_the_whole_context_does() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens = &novel()[..576];
    let expected = loss(&cold(&core, &general(&core), tokens), tokens);
    for (bits, allowed) in [(KvBits::B16, 0.01), (KvBits::B8, 0.01), (KvBits::B4, 0.03)] {
        let options = ContextOptions { retrieved_blocks: 8, ..options(256, bits) };
        let mut sequence = within(&core, &options);
        let found = loss(&advance(&core, &mut sequence, tokens), tokens);
        assert!((found - expected).abs() < allowed, "{bits:?}: {found} and without a window {expected}");
        let counts = sequence.context_tokens().unwrap();
        assert_eq!((counts.tokens, counts.cold), (576, 576 - 256 - 64));
        assert!(counts.store.blocks > 0);
    }
}

#[test]
fn the_same_steps_in_a_window_give_the_same_bits_and_the_memory_stops_growing() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(1_800).collect();
    let options = options(256, KvBits::B8);
    let run = || {
        let mut sequence = within(&core, &options);
        advance(&core, &mut sequence, &tokens[..1_500]);
        let before = sequence.bytes();
        let logits = advance(&core, &mut sequence, &tokens[1_500..]);
        (logits, before, sequence.bytes())
    };
    let (first, before, after) = run();
    assert_same_bits(&run().0, &first, "again");
    assert!(after < before + (64 << 10), "{before} bytes at 1,500 tokens, {after} at 1,800");
    let mixture = general(&core);
    let context = within(&core, &options).context().unwrap().clone();
    let announced = Sequence::bytes_within(&core, &mixture, 1_800, Some(&context));
    assert!(after <= announced && announced < after * 11 / 10, "{after} bytes, {announced} announced");
}

#[test]
fn a_text_that_was_cut_back_goes_on_as_one_that_was_never_longer() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(1_100).collect();
    let options = options(256, KvBits::B16);
    let mut never = within(&core, &options);
    advance(&core, &mut never, &tokens[..640]);
    let expected = loss(&advance(&core, &mut never, &tokens[640..700]), &tokens[640..700]);
    let mut sequence = within(&core, &options);
    advance(&core, &mut sequence, &tokens);
    assert_eq!(sequence.truncate(650), 640, "cut where a block ends");
    let found = loss(&advance(&core, &mut sequence, &tokens[640..700]), &tokens[640..700]);
    assert!((found - expected).abs() < 0.01, "{found}, never longer {expected}");
    assert_eq!(sequence.truncate(300), 0, "what fits the window is computed again");
    let again = advance(&core, &mut sequence, &tokens[..100]);
    assert_same_bits(&again, &cold(&core, &general(&core), &tokens[..100]), "from the start");
}

#[test]
fn the_workspace_of_a_window_takes_no_more_than_was_announced() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(1_300).collect();
    let mut sequence = within(&core, &options(256, KvBits::B8));
    let window = Some(sequence.context().unwrap().shape);
    let experts = sequence.mixture().unwrap().parts().to_vec();
    let step = StepSize { window, ..StepSize::of_sequences(1, 1, tokens.len()) };
    let (announced, _) = core.scratch_parts(experts.iter().map(|(expert, _)| &**expert), &step);
    let advance = |sequence: &mut Sequence, tokens: &[u32]| {
        core.advance(&mut [Advance { sequence, tokens, logits: LogitRows::Last }]).unwrap();
        let found = core.workspace_bytes();
        assert!(found <= announced, "{found} bytes, {announced} announced");
        found
    };
    advance(&mut sequence, &tokens);
    let kept = sequence.truncate(700);
    let found = advance(&mut sequence, &tokens[kept..701]);
    assert!(found * 10 >= announced * 9, "{found} bytes, {announced} announced");
}
