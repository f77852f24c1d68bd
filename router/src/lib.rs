//! Intent: which packs answer, and with which weights.
