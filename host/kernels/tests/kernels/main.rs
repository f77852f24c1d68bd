//! Behaviour of the public kernels, at every instruction set that this machine has.

mod attention;
mod attention_chunking;
mod common;
mod deltas;
mod key_scores;
mod linear;
mod matrix;
mod operations;
mod scratch;
mod thread_pool;
