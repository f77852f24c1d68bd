//! CPU kernels: packed weights, matrix products, attention, and the thread pool they run on.
//!
//! Everything is safe to call: sizes are checked, and the instruction set is chosen at run time (AVX-512 VNNI, AVX2,
//! or plain code, see [`CpuLevel`]). All tensors are row-major f32 unless stated; `m` is the number of token rows.
//! The crate knows nothing of models: it neither allocates nor remembers anything beyond [`Matrix`], [`Scratch`]
//! and the [`ThreadPool`].

mod activations;
mod aligned;
mod attention;
mod attention_chunk;
mod attention_decode;
mod attention_prefill;
mod chunk_scheduler;
mod cpu_level;
mod delta_kernels;
mod delta_matrix;
mod elementwise;
mod error;
mod exp;
mod half_floats;
mod key_scores;
mod linear;
mod linear_kernels;
mod norm;
mod packed_matrix;
mod quantize;
mod rope;
mod scratch;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
mod simd_scalar;
mod thread_pool;
mod weight_format;
mod whole_dots;

pub use attention::{AttentionJob, AttentionShape, KvSlice, attention, attention_scratch};
pub use chunk_scheduler::ChunkScheduler;
pub use cpu_level::CpuLevel;
pub use delta_matrix::DeltaMatrix;
pub use elementwise::{add, add_to, argmax, axpy, gelu, gelu_erf, mul, scale, silu, silu_mul, softmax_rows};
pub use error::KernelError;
pub use half_floats::{f16_to_f32, f32_to_f16};
pub use key_scores::key_scores;
pub use linear::{LinearOutput, linear, linear_scratch};
pub use norm::{layer_norm, rms_norm};
pub use packed_matrix::Matrix;
pub use quantize::append_ggml_blocks;
pub use rope::{RopeAngles, RopeLayout, rope, rope_rows};
pub use scratch::{Scratch, ScratchSizes};
pub use thread_pool::{ThreadPool, split_range};
pub use weight_format::{GgmlBlock, WeightFormat};
pub use whole_dots::whole_dots;
