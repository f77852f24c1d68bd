//! What all layers of a text want of its cold blocks, step after step.
//!
//! A few layers see which block an answer lies in, in the upper half mostly, and the layers below them need it as well. So
//! a text's last rows are read twice before an answer: a first time to *look*, where each layer chooses for itself, and
//! then in earnest, where what layers wanted before counts for all of them. Rows of the answer go on from there.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows at a text's end, at most, that are read twice.
pub(crate) const LOOK_ROWS: usize = 32;

/// How much more what any layer wanted in the step before counts than what a layer wants now.
const BEFORE: f32 = 4.0;

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Purpose {
    /// More of the text comes behind them.
    #[default]
    Reading,
    /// To find the blocks that an answer needs; they are read again.
    Looking,
    /// An answer comes behind them.
    Answering,
}

/// How much the layers of a text want each cold block: of the votes of its heads, from 0 to 1, the most that any layer had
/// for it.
#[derive(Debug, Default)]
pub(crate) struct BlockInterest(Mutex<Steps>);

#[derive(Debug, Default)]
struct Steps {
    purpose: Purpose,
    before: Vec<f32>,
    now: Vec<f32>,
}

impl BlockInterest {
    /// A step begins that is read for `purpose`.
    pub(crate) fn begin(&self, purpose: Purpose) {
        let mut steps = self.lock();
        steps.purpose = purpose;
        let now = std::mem::take(&mut steps.now);
        if purpose != Purpose::Answering {
            steps.before.clear();
        } else if !now.is_empty() {
            steps.before = now;
        }
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.lock().purpose
    }

    /// Takes note of a layer's votes, one for each block, and adds what layers wanted in the step before.
    pub(super) fn share(&self, votes: &mut [f32]) {
        let mut steps = self.lock();
        let Steps { before, now, .. } = &mut *steps;
        now.resize(votes.len(), 0.0);
        for (most, vote) in now.iter_mut().zip(&*votes) {
            *most = most.max(*vote);
        }
        votes.iter_mut().zip(before).for_each(|(vote, before)| *vote += BEFORE * *before);
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let steps = self.lock();
        (steps.before.capacity() + steps.now.capacity()) * size_of::<f32>()
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_layer_wanted_counts_for_all_in_the_next_step_and_not_before() {
        let interest = BlockInterest::default();
        let votes = |votes: [f32; 3]| {
            let mut votes = votes;
            interest.share(&mut votes);
            votes
        };
        interest.begin(Purpose::Looking);
        assert_eq!(interest.purpose(), Purpose::Looking);
        assert_eq!(votes([0.5, 0.25, 0.0]), [0.5, 0.25, 0.0]);
        assert_eq!(votes([0.0, 0.75, 0.0]), [0.0, 0.75, 0.0], "each layer for itself");
        interest.begin(Purpose::Answering);
        assert_eq!(votes([0.0, 0.0, 1.0]), [2.0, 3.0, 1.0]);
        interest.begin(Purpose::Answering);
        assert_eq!(votes([0.5, 0.0, 0.0]), [0.5, 0.0, 4.0]);
        interest.begin(Purpose::Answering);
        interest.begin(Purpose::Answering);
        assert_eq!(votes([0.0; 3]), [2.0, 0.0, 0.0], "a step in which none chose changes nothing");
        interest.begin(Purpose::Reading);
        interest.begin(Purpose::Answering);
        assert_eq!(votes([0.0; 3]), [0.0; 3]);
    }
}
