//! Routing keys made with a tiny checkpoint.

use std::path::Path;

use manifests::Sha256;
use modularbase_core::BaseFile;
use modularbase_corpus::{Document, TokenizedCorpus};
use modularbase_trainer::routing::{
    KeyOptions, PromptForm, PromptOptions, held_out_check, make_routing_key, prompts,
};
use modularbase_trainer::{BaseEncoder, Compute, TrainingBase};
use pack_sdk::SlotRange;
use router::RoutingKey;

const OPTIONS: KeyOptions = KeyOptions { each_form: 60, rank: 16, seed: 3 };

fn base() -> TrainingBase {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-checkpoints/tiny-llama3");
    let file = BaseFile::open(folder).unwrap();
    TrainingBase::load(file, SlotRange { start: 1, end: 3 }, Compute::cpu()).unwrap()
}

/// Words of one kind in an order that depends on `seed`.
fn corpus(base: &TrainingBase, words: &[&str], seed: usize) -> TokenizedCorpus {
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let documents = (0..20_usize).map(|index| {
        let text: Vec<&str> =
            (0..400).map(|at| words[(at * at * 7 + at * (seed + 3) + index * 5) % words.len()]).collect();
        Ok(Document::text(format!("{index}"), text.join(" ")))
    });
    TokenizedCorpus::encode(documents, &encoder, &()).unwrap()
}

const LAW: [&str; 7] = ["party", "shall", "agreement", "court", "hereof", "statute", "section"];
const SUMS: [&str; 7] = ["12", "+", "7", "=", "19", "*", "304"];

#[test]
fn prompts_are_cut_by_the_seed_alone_in_both_forms() {
    let base = base();
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let law = corpus(&base, &LAW, 1);
    let cut = |seed| {
        let options = PromptOptions { each_form: 40, lengths: (8, 128), seed };
        prompts(&[&law], encoder.tokenizer(), options).unwrap()
    };
    assert_eq!(cut(1), cut(1));
    assert_ne!(cut(1), cut(2));
    let all = cut(1);
    assert_eq!(all.iter().filter(|prompt| prompt.form == PromptForm::Raw).count(), 40);
    assert_eq!(all.iter().filter(|prompt| prompt.form == PromptForm::Chat).count(), 40);
    assert!(all.iter().all(|prompt| (8..=128).contains(&prompt.length)));
    assert!(all.iter().any(|prompt| prompt.length < 16) && all.iter().any(|prompt| prompt.length > 64));
    let short = TokenizedCorpus::encode([Ok(Document::text("x", "a"))], &encoder, &()).unwrap();
    let options = PromptOptions { each_form: 1, lengths: (8, 128), seed: 1 };
    let error = prompts(&[&short], encoder.tokenizer(), options).unwrap_err().to_string();
    assert!(error.contains("no document has 8 tokens"), "{error}");
}

#[test]
fn a_key_follows_from_its_text_and_tells_it_from_other_text() {
    let base = base();
    let encoder = BaseEncoder::new(base.file(), "tiny").unwrap();
    let fingerprint = Sha256::of_bytes(b"tiny");
    let key = |text: &TokenizedCorpus| {
        make_routing_key(&base, fingerprint, encoder.tokenizer(), &[text], OPTIONS, &mut |_, _| {}).unwrap()
    };
    let (law, sums) = (corpus(&base, &LAW, 1), corpus(&base, &SUMS, 1));
    let mut law_key = key(&law);
    assert_eq!(law_key, key(&law));
    assert_eq!(law_key.facts.prompts, law_key.facts.counts.values().sum::<u64>());
    assert!(law_key.facts.counts.keys().any(|name| name.starts_with("chat ")), "{:?}", law_key.facts.counts);
    let (law_held, sums_held) = (corpus(&base, &LAW, 2), corpus(&base, &SUMS, 2));
    let texts = [&[&law_held][..], &[&sums_held][..]];
    let check = held_out_check(&base, encoder.tokenizer(), &law_key, &key(&sums), texts, OPTIONS).unwrap();
    assert_eq!(check.right.keys().copied().collect::<Vec<_>>(), [16, 32, 128]);
    assert!(check.right.values().all(|share| *share > 0.9), "{check:?}");
    law_key.facts.check = Some(check);
    let back = RoutingKey::from_bytes(&law_key.to_bytes().unwrap()).unwrap();
    assert_eq!(back.facts, law_key.facts);
}
