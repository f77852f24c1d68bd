//! The way back through a graph of this crate's operators.
//!
//! candle's own way back starts every gradient as zeros and adds to them, and copies the gradient at every sum: with
//! rows of some MiB that is most of the memory traffic of a training step. Here a gradient is what its first reader
//! gives, and a sum hands the same tensor to both sides.

use std::collections::HashMap;

use candle_core::{Result, Tensor, TensorId, backprop::GradStore};

use crate::{elementwise::sum_of, recorded::node_of};

/// The gradients of `loss` by the variables that it depends on: the same as [`Tensor::backward`], faster. Where the
/// graph holds an operator of candle's own (see [`is_recorded`]) candle's way is taken.
///
/// # Errors
/// Those of the operators.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    if !is_recorded(loss) {
        return loss.backward();
    }
    let mut pending: HashMap<TensorId, Tensor> = HashMap::new();
    pending.insert(loss.id(), loss.ones_like()?);
    let mut gradients = GradStore::default();
    for output in loss.sorted_nodes() {
        let Some(gradient) = pending.remove(&output.id()) else { continue };
        if output.is_variable() {
            gradients.insert(output, gradient);
            continue;
        }
        let Some(node) = node_of(output) else { continue };
        for (input, part) in node.inputs.iter().zip(node.gradients(&gradient, output)?) {
            let Some(part) = part else { continue };
            let sum = match pending.remove(&input.id()) {
                None => part,
                Some(sum) => sum_of(&sum, &part)?,
            };
            pending.insert(input.id(), sum);
        }
    }
    Ok(gradients)
}

/// Whether everything between `loss` and the variables was made by operators of this crate, on this thread: then
/// [`backward`] takes the fast way.
pub fn is_recorded(loss: &Tensor) -> bool {
    loss.sorted_nodes().iter().all(|node| node.is_variable() || node_of(node).is_some())
}
