//! The queue of those who wait for bytes, and when it is unfair to serve others first.

use std::collections::VecDeque;

use crate::byte_ledger::ByteLedger;

/// A place in the queue; smaller ones came earlier.
pub(crate) type Number = u64;

#[derive(Debug)]
struct Waiter {
    number: Number,
    bytes: u64,
    /// How many were served although they came later.
    overtaken: u32,
}

impl Waiter {
    fn is_due(&self) -> bool {
        self.overtaken >= ByteLedger::MOST_OVERTAKEN
    }
}

/// Those who wait, in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: VecDeque<Waiter>,
    next: Number,
}

impl Waiters {
    pub(crate) fn join(&mut self, bytes: u64) -> Number {
        let number = self.next;
        self.next += 1;
        self.queue.push_back(Waiter { number, bytes, overtaken: 0 });
        number
    }

    /// Takes a waiter out; says whether bytes were kept for it, which others can have now.
    pub(crate) fn leave(&mut self, number: Number) -> bool {
        let place = self.queue.iter().position(|waiter| waiter.number == number);
        place.and_then(|place| self.queue.remove(place)).is_some_and(|waiter| waiter.is_due())
    }

    /// Bytes that are out of reach for a waiter, or for somebody who is not in the queue.
    pub(crate) fn kept_from(&self, number: Option<Number>) -> u64 {
        self.before(number)
            .filter(|waiter| waiter.is_due())
            .fold(0, |sum, waiter| sum.saturating_add(waiter.bytes))
    }

    /// Notes that somebody has got bytes: a waiter, who needs no place any more, or somebody from outside. Says whether
    /// bytes were kept for that waiter.
    pub(crate) fn served(&mut self, number: Option<Number>, bytes: u64) -> bool {
        if bytes > 0 {
            let before = self.before(number).count();
            for waiter in self.queue.iter_mut().take(before) {
                waiter.overtaken = waiter.overtaken.saturating_add(1);
            }
        }
        number.is_some_and(|number| self.leave(number))
    }

    /// Those who came before; everybody, for somebody who is not in the queue.
    fn before(&self, number: Option<Number>) -> impl Iterator<Item = &Waiter> {
        self.queue.iter().take_while(move |waiter| number.is_none_or(|number| waiter.number < number))
    }
}
