//! Experts' outputs fused token by token, each token by what it makes of them: measured, and not what answers are made with.

use modularbase_core::{Activations, CoreError};

/// `sum_k a_k(t) y_k(t)` of outputs `y_k` `[tokens, hidden]` with weights `w_k`, where `a_k(t)` is in proportion to
/// `w_k exp(sharpness cos(h(t), y_k(t)))` and sums to 1: scaled dot-product attention (Vaswani et al. 2017) with the hidden state
/// `h` in front of the slot as query, the outputs as keys and values, and all lengths 1. At 0 it is the weighted sum; below 0
/// outputs that moved the hidden state more count more.
///
/// # Errors
/// Activations that do not lie in host memory.
pub(crate) fn attended(
    hidden: &Activations,
    outputs: &[(Activations, f32)],
    sharpness: f32,
) -> Result<Activations, CoreError> {
    fn on_host(activations: &Activations) -> Result<&[f32], CoreError> {
        activations.as_host().ok_or_else(|| CoreError::Mismatch {
            what: "attention over outputs",
            expected: "activations in host memory".to_owned(),
            found: "those of a device".to_owned(),
        })
    }
    let (rows, width) = (hidden.rows(), hidden.width());
    let queries = on_host(hidden)?;
    let outputs = outputs
        .iter()
        .map(|(output, weight)| Ok((on_host(output)?, *weight)))
        .collect::<Result<Vec<_>, CoreError>>()?;
    let mut fused = vec![0.0; rows * width];
    for (row, fused) in fused.chunks_exact_mut(width).enumerate() {
        let at = row * width..(row + 1) * width;
        let query = &queries[at.clone()];
        let shares = outputs
            .iter()
            .map(|(output, weight)| weight * (sharpness * cosine(query, &output[at.clone()])).exp());
        let shares: Vec<f32> = shares.collect();
        let sum: f32 = shares.iter().sum();
        for ((output, _), share) in outputs.iter().zip(&shares) {
            fused.iter_mut().zip(&output[at.clone()]).for_each(|(to, value)| *to += share / sum * value);
        }
    }
    Activations::from_host(rows, width, fused)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32]) -> Activations {
        Activations::from_host(values.len() / 2, 2, values.to_vec()).unwrap()
    }

    #[test]
    fn each_token_attends_to_the_output_that_is_more_like_its_hidden_state() {
        let hidden = rows(&[1.0, 0.0, 0.0, 1.0]);
        let outputs = [(rows(&[2.0, 0.0, 2.0, 0.0]), 0.5), (rows(&[0.0, 4.0, 0.0, 4.0]), 0.5)];
        let fused = |sharpness| attended(&hidden, &outputs, sharpness).unwrap().to_vec().unwrap();
        assert_eq!(fused(0.0), [1.0, 2.0, 1.0, 2.0], "the weighted sum");
        let near = |found: Vec<f32>, expected: [f32; 4]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3)
        };
        assert!(near(fused(20.0), [2.0, 0.0, 0.0, 4.0]) && near(fused(-20.0), [0.0, 4.0, 2.0, 0.0]));
    }
}
