//! The order in which idle generations would be evicted.

use std::hash::Hash;

use lru::LruCache;

/// Idle generations by their last use.
pub(crate) struct LruOrder<K: Hash + Eq> {
    order: LruCache<K, ()>,
}

impl<K: Hash + Eq + Clone> Default for LruOrder<K> {
    fn default() -> Self {
        Self { order: LruCache::unbounded() }
    }
}

impl<K: Hash + Eq + Clone> LruOrder<K> {
    /// Enters one as the most recently used.
    pub(crate) fn push(&mut self, key: &K) {
        self.order.push(key.clone(), ());
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.order.pop(key);
    }

    /// The one with the lowest rank, among those the least recently used; `None` as a rank spares it.
    ///
    /// A walk over all of them, since ranks change without a change of the order: a device holds hundreds,
    /// and an eviction costs far more than that.
    pub(crate) fn victim(&self, rank: impl Fn(&K) -> Option<i32>) -> Option<K> {
        let ranked = self.order.iter().rev().filter_map(|(key, ())| Some((rank(key)?, key)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, key)| key.clone())
    }
}
