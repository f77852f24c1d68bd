//! The host's own form of a pack's graph: validation, shape inference.
