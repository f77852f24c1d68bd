//! What is trained: named tensors in f32.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use crate::TrainError;

/// Master weights by name, in the order of the names.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    variables: BTreeMap<String, Var>,
}

impl Parameters {
    /// Adds a variable with these first values.
    ///
    /// # Errors
    /// The device has no room.
    pub fn add(
        &mut self,
        name: &str,
        values: Vec<f32>,
        shape: &[usize],
        device: &Device,
    ) -> Result<Var, TrainError> {
        let variable = Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?;
        self.variables.insert(name.to_owned(), variable.clone());
        Ok(variable)
    }

    /// A variable by its name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.variables.get(name)
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    /// Number of variables.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.variables.values().map(|variable| variable.elem_count()).sum()
    }

    /// The values now, in host memory.
    ///
    /// # Errors
    /// The device fails.
    pub fn values(&self) -> Result<BTreeMap<String, Tensor>, TrainError> {
        let mut values = BTreeMap::new();
        for (name, variable) in self.iter() {
            values.insert(name.to_owned(), variable.as_tensor().to_device(&Device::Cpu)?.copy()?);
        }
        Ok(values)
    }

    /// Takes over values.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for a name or shape that is not this set's.
    pub fn set(&self, values: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        if let Some(name) = values.keys().find(|name| !self.variables.contains_key(*name)) {
            return Err(TrainError::checkpoint(format!("`{name}` is no parameter of this model")));
        }
        for (name, variable) in &self.variables {
            let value =
                values.get(name).ok_or_else(|| TrainError::checkpoint(format!("`{name}` is missing")))?;
            if value.dims() != variable.dims() {
                let (expected, found) = (variable.dims(), value.dims());
                return Err(TrainError::checkpoint(format!(
                    "`{name}` should be {expected:?}, found {found:?}"
                )));
            }
            variable.set(&value.to_device(variable.device())?)?;
        }
        Ok(())
    }
}
