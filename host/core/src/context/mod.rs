//! A text longer than the window: which tokens are hot, where the others go, and which of them come back.
//!
//! Of a text beyond the hot window each layer's cache holds, one after the other: the *sinks* (the first
//! tokens, with the system prompt), the *retrieved* blocks, and the *hot* tokens. What lies between sinks and
//! hot tokens is *cold*: whole blocks of keys before their rotation and of values, quantized, in a
//! [`ColdStore`](modularbase_context::ColdStore). Hot keys stay rotated by their own positions, so their
//! distances are the true ones however long the text; sinks and retrieved blocks are placed right before the
//! hot tokens, in their order, so no distance is ever longer than the window (Xiao et al. 2024, "InfLLM",
//! arXiv 2402.04617).
//!
//! A window moves on by an eighth of the hot tokens at a time, and where it begins depends on the position alone. A text
//! no longer than the hot tokens and the sinks is held as if there were no window.

mod attention_mass;
mod block_choice;
mod block_interest;
mod in_parallel;
mod kept_caches;
mod layer_window;
mod window_shape;

pub use kept_caches::{KeptPart, RestoredCaches};
pub use window_shape::{Context, ContextTokens, WINDOW_VERSION, WindowShape};

pub(crate) use block_interest::Purpose;
pub(crate) use layer_window::{
    Group, KeyRotation, LayerWindow, Queries, WindowScratch, WindowStep, WindowedLayer, kernel_layout,
};
pub(crate) use window_shape::layer_bytes;
