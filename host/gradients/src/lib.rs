//! Differentiable operators on candle tensors, for the CPU and CUDA, and a fused AdamW.
