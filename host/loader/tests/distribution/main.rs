//! How packs travel: signed, as archives, and into a packs directory.

mod small_pack;
mod trust;
