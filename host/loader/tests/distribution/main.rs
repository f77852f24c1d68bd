//! How packs travel: signed, as archives, and into a packs directory.

mod archives;
mod installs;
mod made_by_xtask;
mod small_pack;
mod trust;
