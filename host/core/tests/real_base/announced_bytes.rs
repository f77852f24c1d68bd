//! What the core says beforehand of the bytes it will take.

use modularbase_core::{
    Advance, BaseFile, CoreError, LogitRows, Mixture, Sequence, StepSize, Tokenizer, WeightDtype,
};

use crate::{
    base,
    invariants::{TOKENS, advance, general, scaled},
};

#[test]
fn caches_take_the_bytes_that_were_announced() {
    for core in [base::on_cpu(WeightDtype::AsStored), base::on_tensors(WeightDtype::AsStored)] {
        let mixture = general(&core);
        let mut sequence = Sequence::new(&core, mixture.clone());
        let text: Vec<u32> = TOKENS.iter().copied().cycle().take(300).collect();
        let mut length = 0;
        for piece in [1, 200, 54, 1, 1, 43] {
            advance(&core, &mut sequence, &text[length..length + piece]);
            length += piece;
            assert_eq!(sequence.bytes(), Sequence::bytes_for(&core, &mixture, length), "{length} tokens");
        }
        let _ = sequence.detach();
        assert_eq!(sequence.bytes(), Sequence::detached_bytes_for(&core, length));
    }
}

#[test]
fn the_workspace_takes_nearly_what_was_announced_and_never_more() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let tokenizer = Tokenizer::of_base(&BaseFile::open(base::path()).unwrap()).unwrap();
    let tokens = tokenizer.encode(include_str!("../data/novel.txt"), false).unwrap();
    let (one, other) = (core.own_slot_layers().unwrap(), scaled(&core, 0.9));
    let step = StepSize::of_sequences(1, 2, 700);
    let passing = step.rows * core.shape().hidden_size * 4 * 4 + core.shape().vocab_size * 4;
    let announced = core.scratch_bytes([&one, &*other], &step);
    let mixture = Mixture::new(vec![(one.into(), 0.5), (other, 0.5)]).unwrap();
    let mut sequence = Sequence::new(&core, mixture);
    for piece in [&tokens[..690], &tokens[690..691], &tokens[691..700]] {
        let step = Advance { sequence: &mut sequence, tokens: piece, logits: LogitRows::Last };
        core.advance(&mut [step]).unwrap();
        assert!(core.workspace_bytes() <= announced, "{} of {announced}", core.workspace_bytes());
    }
    let expected = announced - passing;
    let found = core.workspace_bytes();
    assert!(found * 20 >= expected * 19, "{found} bytes of {expected} announced");
}

#[test]
fn plans_take_no_more_than_was_announced() -> Result<(), CoreError> {
    for core in [base::on_cpu(WeightDtype::AsStored), base::on_tensors(WeightDtype::AsStored)] {
        let layers = pack_sdk::base_graphs::layers(core.shape(), core.slot().layers());
        let graph = modularbase_graph::infer_shapes(modularbase_graph::Graph::from_abi(&layers)?)?;
        let (announced, found) = (core.plan_bytes_for(&graph), core.own_slot_layers()?.plan_bytes());
        assert!(
            0 < found && found <= announced && announced < 200_000,
            "{found} bytes, {announced} announced"
        );
    }
    Ok(())
}
