//! Sequences between requests: they keep no expert alive, and their caches are keyed by generation.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use modularbase_core::{Advance, CoreError, Expert, LogitRows, Mixture, Plan, Sequence, WeightDtype};

use crate::{
    base,
    invariants::{TOKENS, advance, assert_same_bits, cold, general, scaled},
};

#[test]
fn a_detached_and_attached_sequence_gives_the_bits_of_one_that_never_was() {
    for core in [base::on_cpu(WeightDtype::AsStored), base::on_tensors(WeightDtype::AsStored)] {
        let fused = || {
            let own = core.own_slot_layers().unwrap().into();
            Mixture::new(vec![(scaled(&core, 0.9), 0.25), (own, 0.75)]).unwrap()
        };
        let mut never = Sequence::new(&core, fused());
        advance(&core, &mut never, &TOKENS[..9]);
        let expected = advance(&core, &mut never, &TOKENS[9..14]);

        let mut sequence = Sequence::new(&core, fused());
        advance(&core, &mut sequence, &TOKENS[..9]);
        let whole = sequence.bytes();
        let caches = sequence.detach().unwrap();
        assert!(sequence.mixture().is_none() && sequence.detach().is_none());
        assert_eq!(caches.generations().collect::<Vec<_>>(), ["scaled 0.9", "base"]);
        // The tokens are known to both.
        assert_eq!(caches.bytes() + sequence.bytes(), whole + 9 * size_of::<u32>());
        // The experts are compiled anew: only the generations count.
        sequence.attach(&core, fused(), Some(caches));
        assert_same_bits(&advance(&core, &mut sequence, &TOKENS[9..14]), &expected, &core.backend().device());
    }
}

#[test]
fn caches_are_keyed_by_generation() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let shares = |first: f32| {
        let own: Arc<Expert> = core.own_slot_layers().unwrap().into();
        Mixture::new(vec![(own, first), (scaled(&core, 0.9), 1.0 - first)]).unwrap()
    };
    let cases = [
        (general(&core), Mixture::single(scaled(&core, 0.9)), "another generation"),
        (shares(0.25), shares(0.5), "other weights"),
        (
            shares(0.25),
            Mixture::new(shares(0.25).parts().iter().rev().cloned().collect()).unwrap(),
            "another order",
        ),
    ];
    for (before, after, what) in cases {
        let mut sequence = Sequence::new(&core, before);
        advance(&core, &mut sequence, &TOKENS[..9]);
        let caches = sequence.detach();
        let held = sequence.bytes();
        sequence.attach(&core, after.clone(), caches);
        assert_eq!(sequence.bytes(), held, "{what}: the caches are not kept");
        let row = advance(&core, &mut sequence, &TOKENS[9..10]);
        let expected = cold(&core, &after, &TOKENS[..10]);
        assert_same_bits(&row, &expected[9 * core.shape().vocab_size..], what);
    }
}

#[test]
fn caches_of_other_tokens_are_used_as_far_as_the_tokens_agree() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let mut sequence = Sequence::new(&core, general(&core));
    advance(&core, &mut sequence, &TOKENS[..12]);
    let caches = sequence.detach();
    sequence.truncate(7);
    assert_eq!(sequence.tokens(), &TOKENS[..7]);
    // In the meantime the text goes on in another way under another mixture.
    sequence.attach(&core, Mixture::single(scaled(&core, 0.9)), None);
    advance(&core, &mut sequence, &TOKENS[20..26]);
    sequence.detach();
    sequence.attach(&core, general(&core), caches);
    let row = advance(&core, &mut sequence, &TOKENS[..1]);
    let tokens: Vec<u32> = TOKENS[..7].iter().chain(&TOKENS[20..26]).chain(&TOKENS[..1]).copied().collect();
    let expected = cold(&core, &general(&core), &tokens);
    assert_same_bits(&row, &expected[13 * core.shape().vocab_size..], "after a detour");
}

#[test]
fn a_detached_sequence_is_not_advanced() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let mut sequence = Sequence::detached(&core);
    let step = Advance { sequence: &mut sequence, tokens: &TOKENS[..1], logits: LogitRows::Last };
    let error = core.advance(&mut [step]).unwrap_err();
    assert!(matches!(error, CoreError::Detached), "{error}");
    assert!(sequence.tokens().is_empty());
}

/// Looks at the plan when it is dropped.
struct Reservation {
    plan: Arc<Mutex<Option<Weak<dyn Plan>>>>,
    given_back_after_the_weights: Arc<AtomicBool>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let gone = self.plan.lock().unwrap().as_ref().is_some_and(|plan| plan.strong_count() == 0);
        self.given_back_after_the_weights.store(gone, Ordering::Relaxed);
    }
}

#[test]
fn bytes_are_given_back_after_the_weights_and_only_when_the_last_sequence_lets_go() {
    let core = base::on_cpu(WeightDtype::AsStored);
    let (plan, given_back) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let reservation =
        Reservation { plan: Arc::clone(&plan), given_back_after_the_weights: Arc::clone(&given_back) };
    let memory: Box<dyn Any + Send + Sync> = Box::new(reservation);
    let expert: Arc<Expert> = core.own_slot_layers().unwrap().holding(memory).into();
    *plan.lock().unwrap() = Some(Arc::downgrade(expert.plan()));
    let mut sequence = Sequence::new(&core, Mixture::single(expert));
    advance(&core, &mut sequence, &TOKENS[..2]);
    assert!(!given_back.load(Ordering::Relaxed));
    let caches = sequence.detach();
    assert!(given_back.load(Ordering::Relaxed), "with the sequence detached nothing holds the expert");
    assert!(caches.is_some_and(|caches| caches.bytes() > 0));
}
