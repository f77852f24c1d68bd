//! Tests on the real default base, in one program: one link instead of many.

mod base;
mod default_base_text;
mod invariants;
mod quantized_loss;
mod reference_logits;
