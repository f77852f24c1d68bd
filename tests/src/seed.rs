//! Where random runs begin.

/// The seed of `MODULARBASE_SEED`, else always the same: what a run finds depends on the code alone, and another seed looks
/// elsewhere. Printed, so that a failure can be repeated.
///
/// # Panics
/// If the variable holds no number.
pub fn seed() -> u64 {
    let seed = match std::env::var("MODULARBASE_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("MODULARBASE_SEED is a number, found `{seed}`")),
        Err(_) => 2026,
    };
    println!("MODULARBASE_SEED={seed}");
    seed
}
