//! Training runs of packs on a tiny checkpoint.

mod distillation;
mod endings;
mod fixture;
