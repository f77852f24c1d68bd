//! AdamW, Loshchilov and Hutter 2019, over f32 masters.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor, Var, backprop::GradStore};

use crate::{
    OpError,
    adamw_update::{Update, global_norm, update},
};

/// The constants of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of the gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the squares.
    pub eps: f64,
    /// Decay of the weights, per unit of the learning rate, decoupled from the gradients.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// A tensor that is trained.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Unique among the parameters; the key of its state.
    pub name: String,
    /// The master, f32.
    pub var: Var,
    /// Whether the weight decay applies.
    pub decay: bool,
}

impl Parameter {
    /// With weight decay, unless it is a vector (a norm or a bias).
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        let decay = var.rank() > 1;
        Self { name: name.into(), var, decay }
    }
}

/// The optimizer: parameters with the means of their gradients (`m`) and of the squares (`v`), both f32.
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<State>,
    steps: u32,
}

pub(crate) struct State {
    pub(crate) parameter: Parameter,
    pub(crate) m: Tensor,
    pub(crate) v: Tensor,
}

/// The key of the number of steps in [`AdamW::state`].
const STEPS: &str = "steps";

impl AdamW {
    /// An optimizer at step 0.
    ///
    /// # Errors
    /// A parameter that is not a contiguous f32 tensor; those of the device.
    pub fn new(parameters: Vec<Parameter>, config: AdamWConfig) -> Result<Self> {
        let parameters = parameters
            .into_iter()
            .map(|parameter| {
                let var = &parameter.var;
                if var.dtype() != DType::F32 || !var.is_contiguous() {
                    return Err(
                        OpError::inputs("adamw", "contiguous masters in F32", &[var.as_tensor()]).into()
                    );
                }
                let (m, v) = (var.zeros_like()?.detach(), var.zeros_like()?.detach());
                Ok(State { m, v, parameter })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, parameters, steps: 0 })
    }

    /// One update. `clip` is the largest global norm of the gradients: larger ones are scaled down to it (by
    /// `clip / (norm + 1e-6)`). Parameters without a gradient stay as they are.
    ///
    /// Returns the global norm before clipping, an f32 scalar on the parameters' device: reading it waits for the
    /// device, so read it only when it is shown. If it is not finite the step changed nothing but [`AdamW::steps`].
    ///
    /// # Errors
    /// Gradients of another shape or type; those of the device.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64, clip: Option<f64>) -> Result<Tensor> {
        self.steps += 1;
        let mut with_gradient = Vec::with_capacity(self.parameters.len());
        for state in &self.parameters {
            if let Some(gradient) = gradients.get(state.parameter.var.as_tensor()) {
                let var = state.parameter.var.as_tensor();
                if gradient.dims() != var.dims() || gradient.dtype() != DType::F32 {
                    let expected = format!("a gradient like {}", state.parameter.name);
                    return Err(OpError::inputs("adamw", &expected, &[var, gradient]).into());
                }
                with_gradient.push((state, gradient.contiguous()?));
            }
        }
        let Some((first, _)) = with_gradient.first() else {
            return Tensor::new(0f32, &candle_core::Device::Cpu);
        };
        let device = first.parameter.var.device().clone();
        let norm = global_norm(with_gradient.iter().map(|(_, gradient)| gradient), &device)?;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let steps = f64::from(self.steps);
        let common = Update {
            learning_rate: learning_rate as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            keep: 1.0,
            correct_m: (1.0 / (1.0 - beta1.powf(steps))) as f32,
            correct_v: (1.0 / (1.0 - beta2.powf(steps))) as f32,
            clip: clip.map_or(0.0, |clip| clip as f32),
        };
        for (state, gradient) in &with_gradient {
            let decay = if state.parameter.decay { learning_rate * weight_decay } else { 0.0 };
            update(state, gradient, &norm, &Update { keep: (1.0 - decay) as f32, ..common })?;
        }
        Ok(norm)
    }

    /// Updates so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The parameters, in the order given.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().map(|state| &state.parameter)
    }

    /// What a checkpoint needs: `NAME.m` and `NAME.v` of each parameter, and `steps` (one u32). The tensors are the live
    /// ones: write them before the next step.
    ///
    /// # Errors
    /// Those of the device.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut all = HashMap::with_capacity(2 * self.parameters.len() + 1);
        for State { parameter, m, v } in &self.parameters {
            all.insert(format!("{}.m", parameter.name), m.clone());
            all.insert(format!("{}.v", parameter.name), v.clone());
        }
        all.insert(STEPS.to_owned(), Tensor::new(&[self.steps], &candle_core::Device::Cpu)?);
        Ok(all)
    }

    /// Takes up a state that [`AdamW::state`] gave, of the same parameters.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape; the optimizer is then as it was.
    pub fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let find = |name: &str, shape: &[usize], dtype: DType| -> Result<&Tensor> {
            let expected = || format!("{shape:?} {dtype:?}").into_boxed_str();
            let found = match state.get(name) {
                Some(tensor) if tensor.dims() == shape && tensor.dtype() == dtype => return Ok(tensor),
                Some(tensor) => format!("{:?} {:?}", tensor.dims(), tensor.dtype()),
                None => "nothing".to_owned(),
            };
            let error = OpError::State { name: name.into(), expected: expected(), found: found.into() };
            Err(error.into())
        };
        let mut moments = Vec::with_capacity(self.parameters.len());
        for State { parameter, .. } in &self.parameters {
            let moment = |suffix: &str| {
                let tensor = find(&format!("{}.{suffix}", parameter.name), parameter.var.dims(), DType::F32)?;
                // A copy of its own: a later step must not write into the caller's tensor.
                tensor.to_device(parameter.var.device())?.force_contiguous()
            };
            moments.push((moment("m")?, moment("v")?));
        }
        let steps = find(STEPS, &[1], DType::U32)?.to_vec1::<u32>()?;
        for (state, (m, v)) in self.parameters.iter_mut().zip(moments) {
            (state.m, state.v) = (m, v);
        }
        self.steps = steps.first().copied().unwrap_or(0);
        Ok(())
    }
}

/// Adds the gradients of another part of the batch to `total`.
///
/// # Errors
/// Those of the device.
pub fn accumulate(total: &mut GradStore, more: GradStore) -> Result<()> {
    total.extend(more)
}
