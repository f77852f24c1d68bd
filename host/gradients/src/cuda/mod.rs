//! The operators on CUDA: one file of kernels, compiled to PTX, for each idea, and here how they are started.

pub(crate) mod activations;
pub(crate) mod adamw;
pub(crate) mod attention_scores;
mod device;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod flash_attention;
mod launch;
pub(crate) mod layer_norm;
pub(crate) mod norm_weights;
pub(crate) mod product;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod row_divergences;
pub(crate) mod row_losses;
pub(crate) mod softmax;

pub(crate) use device::{pool_bytes, prepare, smallest_storage};
