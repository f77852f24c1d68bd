//! Texts in a window, on the real base.

use std::sync::Arc;

use modularbase_context::{ColdStore, ContextOptions, KvBits, Levels, Sessions};
use modularbase_core::{
    Advance, BaseCore, BaseFile, Context, CpuBackend, KvDtype, LogitRows, Sequence, StepSize, Tokenizer,
    WeightDtype, WindowShape,
};

use crate::{
    base,
    invariants::{assert_same_bits, cold, general},
};

fn novel() -> Vec<u32> {
    novel_for(&BaseFile::open(base::path()).unwrap())
}

fn novel_for(file: &BaseFile) -> Vec<u32> {
    Tokenizer::of_base(file).unwrap().encode(include_str!("../data/novel.txt"), false).unwrap()
}

fn options(hot_tokens: usize, bits: KvBits) -> ContextOptions {
    ContextOptions { hot_tokens, bits, retrieved_blocks: 2, ..ContextOptions::default() }
}

fn within(core: &BaseCore, options: &ContextOptions) -> Sequence {
    let shape = WindowShape::new(options, core.shape().max_position).unwrap();
    let store = ColdStore::temporary(&std::env::temp_dir(), "base", options).unwrap();
    let mut sequence = Sequence::within(core, Context::new(shape, Arc::new(store)));
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
    // What is known of five more blocks in each layer, and the tokens.
    assert!(after < before + (160 << 10), "{before} bytes at 1,500 tokens, {after} at 1,800");
    let mixture = general(&core);
    let context = within(&core, &options).context().unwrap().clone();
    let announced = Sequence::bytes_within(&core, &mixture, 1_800, Some(&context));
    assert!(after <= announced && announced < after * 11 / 10, "{after} bytes, {announced} announced");
}

/// The last token's logits.
fn last(core: &BaseCore, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
    let step = Advance { sequence, tokens, logits: LogitRows::Last };
    core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap()
}

#[test]
fn the_look_before_an_answer_leaves_the_text_as_one_that_is_read_once() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(800).collect();
    let options = options(256, KvBits::B8);
    // Alone, within a step, and where the window moves on among the rows that are read twice: at 640 and every 64.
    for (before, end) in [(690, 700), (690, 691), (500, 700), (630, 650), (639, 641), (600, 704)] {
        let run = |logits: fn(&BaseCore, &mut Sequence, &[u32]) -> Vec<f32>| {
            let mut sequence = within(&core, &options);
            advance(&core, &mut sequence, &tokens[..before]);
            let found = logits(&core, &mut sequence, &tokens[before..end]);
            (found, sequence)
        };
        let (once, read) = run(advance);
        let (twice, looked) = run(last);
        assert_eq!(looked.tokens(), &tokens[..end]);
        let counts = |sequence: &Sequence| {
            let counts = sequence.context_tokens().unwrap();
            (counts.tokens, counts.hot, counts.cold, counts.retrieved)
        };
        assert_eq!(counts(&looked), counts(&read), "{before} to {end}");
        let row = &once[once.len() - twice.len()..];
        let far = row.iter().zip(&twice).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far > 0.0 && far < 8.0, "other blocks, not other tokens: {far} for {before} to {end}");
        assert_same_bits(&run(last).0, &twice, "again");
    }
}

#[test]
fn attention_decides_which_blocks_are_kept_whole_and_which_as_means() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(1_300).collect();
    let run = |levels: Levels| {
        let mut sequence = within(&core, &ContextOptions { levels, ..options(256, KvBits::B4) });
        let logits = advance(&core, &mut sequence, &tokens);
        sequence.context().unwrap().store.flush().unwrap();
        (logits, sequence.context_tokens().unwrap().store)
    };
    let (_, alike) = run(Levels::default());
    assert_eq!((alike.critical_blocks, alike.redundant_blocks), (0, 0));
    let (logits, critical) = run(Levels { critical: 150, redundant: 0 });
    assert!(critical.critical_blocks > 0 && critical.redundant_blocks == 0, "{critical:?}");
    assert!(critical.critical_blocks * 2 < critical.blocks, "{critical:?}");
    assert!(critical.stored_bytes > alike.stored_bytes, "{critical:?}");
    let (again, counts) = run(Levels { critical: 150, redundant: 0 });
    assert_same_bits(&again, &logits, "again");
    assert_eq!(counts.critical_blocks, critical.critical_blocks);
    let (_, redundant) = run(Levels { critical: 150, redundant: 70 });
    assert!(redundant.redundant_blocks > 0 && redundant.critical_blocks > 0, "{redundant:?}");
    assert!(redundant.stored_bytes < critical.stored_bytes, "{redundant:?}");
}

#[test]
fn a_text_that_was_cut_back_goes_on_as_one_that_was_never_longer() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(1_100).collect();
    // All that is cold comes back, so that no choice between blocks that are nearly as good is looked at here.
    let options = ContextOptions { retrieved_blocks: 8, ..options(256, KvBits::B16) };
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
    let levels = Levels { critical: 150, redundant: 50 };
    workspace_is_announced(&core, &tokens, &ContextOptions { levels, ..options(256, KvBits::B8) });
    // A workspace only grows.
    let core = base::on_cpu(WeightDtype::AsStored);
    let found = workspace_is_announced(&core, &tokens, &options(256, KvBits::B8));
    assert!(found.0 * 10 >= found.1 * 9, "{} bytes, {} announced", found.0, found.1);
}

/// Bytes of the workspace in the end, and those that were announced.
fn workspace_is_announced(core: &BaseCore, tokens: &[u32], options: &ContextOptions) -> (usize, usize) {
    let mut sequence = within(core, options);
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
    advance(&mut sequence, tokens);
    let kept = sequence.truncate(700);
    (advance(&mut sequence, &tokens[kept..701]), announced)
}

#[test]
fn a_text_that_was_kept_goes_on_in_another_sequence_to_the_bit() {
    let tokens: Vec<u32> = novel().iter().copied().cycle().take(900).collect();
    let options = options(256, KvBits::B4);
    let levels = Levels { critical: 150, redundant: 70 };
    let core = base::on_cpu(WeightDtype::AsStored);
    goes_on_to_the_bit(&core, &tokens, &options);
    goes_on_to_the_bit(&core, &tokens, &ContextOptions { levels, ..options });
}

fn goes_on_to_the_bit(core: &BaseCore, tokens: &[u32], options: &ContextOptions) {
    let root = tempfile::tempdir().unwrap();
    let open = || {
        let session = Sessions::new(root.path()).open("novel", "base", options, &[]).unwrap();
        let shape = WindowShape::new(options, core.shape().max_position).unwrap();
        let store = Arc::clone(session.store());
        (Sequence::within(core, Context::new(shape, store)), session)
    };
    for length in [200, 700] {
        let (mut sequence, session) = open();
        sequence.attach(core, general(core), None);
        sequence.truncate(0);
        session.store().truncate(0);
        advance(core, &mut sequence, &tokens[..length]);
        let behind = sequence.detach().unwrap();
        let parts = sequence.kept_caches(Some(&behind)).unwrap();
        let parts: Vec<(&str, &[u8])> = parts.iter().map(|(name, bytes)| (name.as_str(), &**bytes)).collect();
        session.save("", &parts, false).unwrap();
        sequence.attach(core, general(core), Some(behind));
        let expected = advance(core, &mut sequence, &tokens[length..]);
        drop((sequence, session));

        let (mut sequence, mut session) = open();
        let saved = session.take_saved().unwrap();
        assert_eq!(saved.tokens, tokens[..length]);
        let restored = sequence.restore_caches(core, &saved.tokens, saved.parts).unwrap();
        sequence.attach(core, general(core), restored.behind);
        assert_eq!(sequence.tokens(), &tokens[..length]);
        let found = advance(core, &mut sequence, &tokens[length..]);
        assert_same_bits(&found, &expected, &format!("kept at {length} tokens"));
        let announced = Sequence::bytes_within(core, &general(core), 900, Some(sequence.context().unwrap()));
        assert!(sequence.bytes() <= announced, "{} bytes, {announced} announced", sequence.bytes());
    }
}

#[test]
fn a_text_within_its_window_on_tensors_equals_one_without_a_window_to_the_bit() {
    for backend in base::tensor_backends() {
        let core = base::passkey_on(backend);
        let tokens = &novel_for(&base::passkey_file())[..576];
        let expected = cold(&core, &general(&core), tokens);
        let mut sequence = within(&core, &options(512, KvBits::B8));
        let found = advance(&core, &mut sequence, tokens);
        assert_same_bits(&found, &expected, &core.backend().device());
        assert_eq!(sequence.context_tokens().unwrap().cold, 0);
    }
}

#[test]
fn a_window_on_tensors_predicts_as_one_on_the_projects_own_kernels_does() {
    let tokens: Vec<u32> = novel_for(&base::passkey_file()).into_iter().cycle().take(1_500).collect();
    let levels = Levels { critical: 150, redundant: 70 };
    let options = ContextOptions { levels, ..options(256, KvBits::B8) };
    let run = |core: &BaseCore| {
        let mut sequence = within(core, &options);
        let mut logits = advance(core, &mut sequence, &tokens[..1_200]);
        assert_eq!(sequence.truncate(850), 832, "cut where a block ends");
        logits.truncate(832 * core.shape().vocab_size);
        // Two that come alone, then many: by the choice of another row, and by their own.
        for part in [&tokens[832..833], &tokens[833..834], &tokens[834..]] {
            logits.extend(advance(core, &mut sequence, part));
        }
        let announced = Sequence::bytes_within(core, &general(core), tokens.len(), sequence.context());
        assert!(sequence.bytes() <= announced, "{} bytes, {announced} announced", sequence.bytes());
        let counts = sequence.context_tokens().unwrap();
        (loss(&logits, &tokens), [counts.cold, counts.retrieved, counts.store.blocks])
    };
    let expected = run(&base::passkey_on(Arc::new(CpuBackend::new(2, KvDtype::F32))));
    for backend in base::tensor_backends() {
        let device = backend.device();
        let found = run(&base::passkey_on(backend));
        assert!((found.0 - expected.0).abs() < 0.01, "{device}: {found:?}, own kernels {expected:?}");
        assert_eq!(found.1, expected.1, "{device}");
    }
}

#[test]
fn a_window_on_tensors_is_kept_to_the_bit_and_takes_no_more_than_was_announced() {
    let tokens: Vec<u32> = novel_for(&base::passkey_file()).into_iter().cycle().take(1_300).collect();
    for backend in base::tensor_backends() {
        let core = base::passkey_on(backend);
        workspace_is_announced(&core, &tokens, &options(256, KvBits::B8));
        goes_on_to_the_bit(&core, &tokens[..900], &options(256, KvBits::B4));
    }
}

#[test]
fn sequences_of_one_batch_on_tensors_predict_as_each_alone_in_a_window_or_not() {
    let tokens: Vec<u32> = novel_for(&base::passkey_file()).into_iter().take(600).collect();
    for backend in base::tensor_backends() {
        let core = base::passkey_on(backend);
        let long = loss(&advance(&core, &mut within(&core, &options(256, KvBits::B8)), &tokens), &tokens);
        let short = loss(&cold(&core, &general(&core), &tokens[..40]), &tokens[..40]);
        let (mut in_window, mut whole) =
            (within(&core, &options(256, KvBits::B8)), Sequence::new(&core, general(&core)));
        // The short one has no rows left when the long one goes on.
        let mut batch = [
            Advance { sequence: &mut whole, tokens: &tokens[..40], logits: LogitRows::All },
            Advance { sequence: &mut in_window, tokens: &tokens, logits: LogitRows::All },
        ];
        let found = core.advance(&mut batch).unwrap();
        let found = found.into_iter().map(|logits| logits.unwrap().to_vec().unwrap());
        let found: Vec<f64> =
            found.zip([&tokens[..40], &tokens]).map(|(logits, tokens)| loss(&logits, tokens)).collect();
        assert!(
            (found[0] - short).abs() < 0.01 && (found[1] - long).abs() < 0.01,
            "{found:?}, {short}, {long}"
        );
        assert!(in_window.context_tokens().unwrap().cold > 0);
    }
}
