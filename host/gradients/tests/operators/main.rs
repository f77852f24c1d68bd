//! Operators against finite differences, candle's own operators and written-out references, on the CPU.

mod adamw;
mod against_pytorch;
mod against_stock;
mod bad_inputs;
mod bf16;
mod fast_backward;
mod finite_differences;
mod only_where_needed;
mod support;
