//! Whole-system tests over real packs and the real base.
