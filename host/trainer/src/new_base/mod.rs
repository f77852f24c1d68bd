//! A base from nothing: sizes, a tokenizer of its own, first weights, in the folder form of Hugging Face, which the host
//! loads like any other. Training then is that of an existing base.

mod folder;
mod recipe;
mod tokenizer;

pub use folder::{create_base, write_base};
pub use recipe::{BaseRecipe, BaseSizes, TokenizerKind, TokenizerRecipe};
