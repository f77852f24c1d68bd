//! Training text: recipes, readers, splits, near duplicates, packing, token caches.

#![forbid(unsafe_code)]
