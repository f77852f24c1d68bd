//! The model: base files, weights, plans, KV caches, the slot, sampling.
