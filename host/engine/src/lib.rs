//! Sessions: prompts, mixtures, generation, scoring.
