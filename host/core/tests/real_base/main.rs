//! Tests on the real default base, in one program: one link instead of many.

mod announced_bytes;
mod base;
mod default_base_text;
mod detached;
mod invariants;
mod quantized_loss;
mod reference_logits;
mod window;
