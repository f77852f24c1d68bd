//! Values a second of the codec on one thread: `cargo run --release -p modularbase-deltas --example delta_speed`.
//! Prints a line of JSON a format.

use std::{hint::black_box, time::Instant};

use modularbase_deltas::{DeltaFormat, add_to, encode, fit_levels};

const VALUES: usize = 54_656 * 64;

fn main() {
    let mut state = 1u64;
    // A sum of uniform numbers is near enough to a normal one here.
    let delta: Vec<f32> = (0..VALUES)
        .map(|_| {
            let mut sum = 0.0;
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            }
            0.01 * sum
        })
        .collect();
    for format in DeltaFormat::ALL {
        let start = Instant::now();
        let levels = fit_levels(&delta, format).unwrap_or_else(|error| panic!("{error}"));
        let fit = start.elapsed();
        let start = Instant::now();
        let blocks = encode(&delta, &levels).unwrap_or_else(|error| panic!("{error}"));
        let encoding = start.elapsed();
        let mut sums = vec![0.0f32; VALUES];
        let mut best = f64::INFINITY;
        for _ in 0..8 {
            let start = Instant::now();
            add_to(black_box(&blocks), &levels, &mut sums).unwrap_or_else(|error| panic!("{error}"));
            best = best.min(start.elapsed().as_secs_f64());
        }
        black_box(&sums);
        println!(
            "{{\"format\":\"{format}\",\"values\":{VALUES},\"fit_ms\":{},\"encode_ms\":{},\
             \"decode_million_values_per_s\":{:.0}}}",
            fit.as_millis(),
            encoding.as_millis(),
            VALUES as f64 / best / 1e6
        );
    }
}
