//! The memory of a loss over a large vocabulary.

use std::alloc::System;

use candle_core::{DType, Device, Tensor, Var};
use cap::Cap;
use modularbase_gradients::cross_entropy;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Rows, width, vocabulary: the logits of all rows are 64 MiB, of a chunk of 16 rows 1 MiB.
const SHAPE: (usize, usize, usize) = (1024, 32, 16384);

#[test]
fn forward_and_backward_never_hold_the_logits_of_the_whole_batch() {
    let (rows, width, vocabulary) = SHAPE;
    let device = Device::Cpu;
    let hidden = Var::rand(-1f32, 1.0, (rows, width), &device).unwrap();
    let head = Var::rand(-1f32, 1.0, (vocabulary, width), &device).unwrap();
    let targets = Tensor::zeros(rows, DType::U32, &device).unwrap();
    let weights = Tensor::ones(rows, DType::F32, &device).unwrap();
    let (before, reached) = (ALLOCATOR.allocated(), ALLOCATOR.max_allocated());
    let loss = cross_entropy(&hidden, &head, &targets, &weights, 16).unwrap();
    let gradients = loss.backward().unwrap();
    assert!(gradients.get(&hidden).is_some() && gradients.get(&head).is_some());
    let peak = ALLOCATOR.max_allocated().saturating_sub(before.min(reached));
    // Logits of a chunk and their copies, the head's gradient with its parts (2 MiB each), what threads keep.
    assert!(peak < 24 << 20, "{} MiB at most", peak >> 20);
}
