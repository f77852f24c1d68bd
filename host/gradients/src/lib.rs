//! Differentiable operators on candle tensors, for the CPU and CUDA, and a fused AdamW.
//!
//! Every operator takes and gives tensors of candle's own graph, so `backward` and other operators of candle mix with
//! them. Rows are `[sequences * length, width]`, sequence after sequence; values are f32 or bf16 and the arithmetic is
//! f32. Masters of weights are f32 whatever the rows are.
//!
//! *Deliberately not here*: pack graphs, data, schedules, checkpoints' files.

mod activations;
mod adamw;
mod adamw_update;
mod attention;
mod attention_scores;
mod backward;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod distillation;
mod elementwise;
mod embedding;
mod host_values;
mod layer_norm;
mod linear;
mod op_error;
mod product;
mod recorded;
mod rms_norm;
mod rope;
mod row_divergences;
mod row_losses;
mod softmax;
mod straight_through;
mod through_head;

pub use activations::{gelu, silu, silu_mul};
pub use adamw::{AdamW, AdamWConfig, Parameter, accumulate};
pub use attention::attention;
pub use backward::{backward, is_recorded};
pub use cross_entropy::{cross_entropy, cross_entropy_rows};
pub use device::{PoolBytes, pool_bytes, prepare_device};
pub use distillation::distillation;
pub use elementwise::{add, cast, columns, concat, mul, rows, scale};
pub use embedding::embedding;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use op_error::OpError;
pub use rms_norm::rms_norm;
pub use rope::{RopeLayout, RopeTable, rope};
pub use softmax::softmax;
pub use straight_through::straight_through;
