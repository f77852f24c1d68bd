//! The products of a slot of six layers (SmolLM2-135M's shapes) in three forms: the base's Q4_1 weights alone, base and
//! deltas added up as Q8_0, and base with packed deltas of 2 bits. The forms take turns, so that their ratios hold on a
//! busy machine too. `cargo run --release -p modularbase-kernels --example delta_bench [threads]` prints a line of JSON for
//! each number of rows.

use std::{sync::Arc, time::Instant};

use modularbase_deltas::{DeltaFormat, encode, fit_levels};
use modularbase_kernels::{DeltaMatrix, LinearOutput, Matrix, Scratch, ThreadPool, WeightFormat, linear};

type Error = Box<dyn std::error::Error>;

const LAYERS: usize = 6;

/// Products that share an input: outputs of each, and inputs.
const GROUPS: [(&[usize], usize); 4] =
    [(&[576, 192, 192], 576), (&[576], 576), (&[1536, 1536], 576), (&[576], 1536)];

/// For each layer and group: matrices of one input.
type Slot = Vec<(usize, Vec<Matrix>)>;

fn main() -> Result<(), Error> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let pool = ThreadPool::new(threads);
    let mut state = 1u64;
    let mut draw = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    };
    let names = ["base_q4_1", "sum_q8_0", "packed_delta_q1", "packed_delta_q2", "packed_delta_q3"];
    let mut slots: [Slot; 5] = Default::default();
    for _ in 0..LAYERS {
        for (outputs, cols) in GROUPS {
            let mut parts: [Vec<Matrix>; 5] = Default::default();
            for &rows in outputs {
                let base = draw(rows * cols);
                let delta: Vec<f32> = draw(rows * cols).iter().map(|value| 0.1 * value).collect();
                let sum: Vec<f32> = base.iter().zip(&delta).map(|(base, delta)| base + delta).collect();
                let base = Matrix::from_f32(WeightFormat::Q4_1, rows, cols, &base)?;
                for (place, format) in DeltaFormat::ALL.into_iter().enumerate() {
                    let levels = fit_levels(&delta, format)?;
                    let packed = DeltaMatrix::pack(rows, cols, &encode(&delta, &levels)?, &levels)?;
                    parts[2 + place].push(base.with_delta(Arc::new(packed))?);
                }
                parts[1].push(Matrix::from_f32(WeightFormat::Q8_0, rows, cols, &sum)?);
                parts[0].push(base);
            }
            for (slot, part) in slots.iter_mut().zip(parts) {
                slot.push((cols, part));
            }
        }
    }
    for m in [1, 2, 4, 16, 512] {
        let x = draw(m * 1536);
        let mut scratch = Scratch::new();
        let mut out: Vec<Vec<f32>> = vec![vec![0.0; m * 1536]; 3];
        let mut times: [Vec<f64>; 5] = Default::default();
        let rounds = if m == 512 { 15 } else { 400 };
        for _ in 0..rounds {
            for (slot, times) in slots.iter().zip(&mut times) {
                let begin = Instant::now();
                for (cols, matrices) in slot {
                    let mut outputs: Vec<LinearOutput<'_>> = matrices
                        .iter()
                        .zip(&mut out)
                        .map(|(weight, out)| LinearOutput {
                            weight,
                            bias: None,
                            out: &mut out[..m * weight.rows()],
                            accumulate: false,
                        })
                        .collect();
                    linear(&pool, &x[..m * cols], m, &mut outputs, &mut scratch)?;
                }
                times.push(begin.elapsed().as_secs_f64());
            }
        }
        let best = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 4]
        });
        let figures: Vec<String> = names
            .iter()
            .zip(best)
            .map(|(name, time)| {
                format!("\"{name}_us\":{:.0},\"{name}_to_q8_0\":{:.2}", time * 1e6, time / best[1])
            })
            .collect();
        println!(
            "{{\"rows\":{m},\"threads\":{threads},\"level\":\"{:?}\",{}}}",
            pool.level(),
            figures.join(",")
        );
    }
    Ok(())
}
