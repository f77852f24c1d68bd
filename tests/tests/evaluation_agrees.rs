//! Evaluation against the host that serves: the same text, the same base, two executors.

use std::sync::Arc;

use manifests::MixtureChoice;
use modularbase_core::BaseFile;
use modularbase_corpus::{Document, TokenizedCorpus};
use modularbase_trainer::evaluation::{Evaluator, ScoreOptions};
use modularbase_trainer::{BaseEncoder, Compute, TrainingBase};
use system_tests::{Base, Folders};

const TEXT: &str = "Gravity is a fundamental interaction which causes mutual attraction between all things that have \
    mass. Gravity is, by far, the weakest of the four fundamental interactions. At larger scales this is the most \
    significant interaction between objects, and it determines the motion of planets, stars, galaxies and even light. \
    On Earth, gravity gives weight to physical objects, and the Moon's gravity causes tides in the oceans. Isaac \
    Newton's law of universal gravitation describes it as a force, Albert Einstein's general relativity as the \
    curvature of spacetime. The party of the first part shall pay the fee within thirty days of the notice.";

/// The host rounds activations to 8 bits on the CPU; the evaluator computes in f32.
#[test]
fn evaluation_and_the_serving_host_agree_on_the_loss_of_a_text() {
    let folders = Folders::for_base(Base::Real);
    let host = folders.host();
    let options = folders.options();
    let file = BaseFile::open(&options.base).unwrap();
    let encoder = BaseEncoder::new(&file, "real").unwrap();
    let corpus = TokenizedCorpus::encode([Ok(Document::text("gravity", TEXT))], &encoder, &()).unwrap();
    let document = corpus.document(0).unwrap();
    let tokens = [&[corpus.end_of_text()], document.ids].concat();
    let turn = host.turn(&MixtureChoice::None).unwrap();
    let served =
        modularbase_engine::score(&host, turn.mixture(), &tokens, tokens.len(), &mut |_, _| {}).unwrap();
    assert_eq!(served.tokens, document.ids.len());

    let base = TrainingBase::load(file, options.slot.unwrap(), Compute::cpu()).unwrap();
    let evaluator = Evaluator::new(Arc::new(base)).unwrap();
    let scores = evaluator.score(&corpus, &ScoreOptions::default(), &mut |_, _| {}).unwrap();
    let evaluated = scores[0].nats[0] / scores[0].tokens as f64;
    assert_eq!(scores[0].tokens as usize, served.tokens);
    let apart = (evaluated / served.mean_nll - 1.0).abs();
    println!("served {:.4}, evaluated {evaluated:.4}: {:.2} % apart", served.mean_nll, apart * 100.0);
    assert!(apart < 0.02, "served {}, evaluated {evaluated}", served.mean_nll);
}
