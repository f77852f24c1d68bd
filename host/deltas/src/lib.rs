//! The codec of delta weights: what a trained pack adds to the base's own layers, in 1 to 3 bits a value.

#![forbid(unsafe_code)]
