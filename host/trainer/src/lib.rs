//! The second executor of pack graphs: training, quantization, evaluation, routing keys.

#![forbid(unsafe_code)]
