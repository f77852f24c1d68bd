//! Experts and the mixtures they are fused in.

use std::{any::Any, sync::Arc};

use crate::{Activations, CoreError, Plan, PlanInput, SequenceRows};

/// A pack's network on the device, ready to stand in the slot.
pub struct Expert {
    name: String,
    generation: String,
    plan: Arc<dyn Plan>,
    resident_bytes: usize,
    /// Last, since fields are dropped in order: the weights go first, then what was set aside for them.
    held: Vec<Box<dyn Any + Send + Sync>>,
}

impl Expert {
    pub(crate) fn new(name: &str, generation: &str, plan: Arc<dyn Plan>, resident_bytes: usize) -> Self {
        let (name, generation) = (name.to_owned(), generation.to_owned());
        Self { name, generation, plan, resident_bytes, held: Vec::new() }
    }

    /// Keeps `memory`, such as a reservation of its bytes, until its weights are gone: exactly as long as the last
    /// `Arc<Expert>` lives, if nobody keeps [`Expert::plan`] beyond that.
    pub fn holding(mut self, memory: Box<dyn Any + Send + Sync>) -> Self {
        self.held.push(memory);
        self
    }

    /// The pack's name, for people; never an identity.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity that caches are keyed by.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Device bytes of its own weights; those shared with the base count there.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Bytes of its compiled plan beside its weights.
    pub fn plan_bytes(&self) -> usize {
        self.plan.plan_bytes()
    }

    /// What it makes of a whole text in front of the slot, `[tokens, hidden]`, without any cache.
    ///
    /// # Errors
    /// A failing device.
    pub fn output(&self, hidden: &Activations) -> Result<Activations, CoreError> {
        let mut cache = self.plan.new_cache();
        let mut sequence = [SequenceRows { rows: hidden.rows(), cache: &mut cache }];
        self.plan.forward(PlanInput::Hidden(hidden), &mut sequence)
    }

    /// Its executable graph.
    pub fn plan(&self) -> &Arc<dyn Plan> {
        &self.plan
    }
}

impl std::fmt::Debug for Expert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expert({} {})", self.name, self.generation)
    }
}

/// Experts and their weights, `w_i > 0`, `sum w_i = 1`, no generation twice.
#[derive(Debug, Clone)]
pub struct Mixture(Vec<(Arc<Expert>, f32)>);

impl Mixture {
    /// Scales `weights` to a sum of 1 and drops experts of weight 0. A generation given twice counts once, with both
    /// weights.
    ///
    /// # Errors
    /// A weight that is negative or not finite, or none above 0.
    pub fn new(parts: Vec<(Arc<Expert>, f32)>) -> Result<Self, CoreError> {
        let mut merged: Vec<(Arc<Expert>, f32)> = Vec::with_capacity(parts.len());
        for (expert, weight) in parts {
            if !weight.is_finite() || weight < 0.0 {
                let found = format!("{weight} for {}", expert.name());
                return Err(CoreError::mismatch("mixture weight", "a finite number >= 0", found));
            }
            match merged.iter_mut().find(|(known, _)| known.generation() == expert.generation()) {
                Some((_, sum)) => *sum += weight,
                None => merged.push((expert, weight)),
            }
        }
        merged.retain(|(_, weight)| *weight > 0.0);
        let sum: f32 = merged.iter().map(|(_, weight)| weight).sum();
        if merged.is_empty() || !sum.is_finite() {
            return Err(CoreError::mismatch("mixture", "at least one weight above 0", "none"));
        }
        merged.iter_mut().for_each(|(_, weight)| *weight /= sum);
        Ok(Self(merged))
    }

    /// One expert with all the weight.
    pub fn single(expert: Arc<Expert>) -> Self {
        Self(vec![(expert, 1.0)])
    }

    /// The experts with their weights.
    pub fn parts(&self) -> &[(Arc<Expert>, f32)] {
        &self.0
    }

    /// What caches made behind the slot under this mixture are keyed by.
    pub fn key(&self) -> MixtureKey {
        let part = |(expert, weight): &(Arc<Expert>, f32)| (expert.generation().to_owned(), weight.to_bits());
        MixtureKey(self.0.iter().map(part).collect())
    }

    /// Whether caches made behind the slot under one mixture are valid under the other: the same generations in the
    /// same order with the same weights, to the bit.
    pub fn same_as(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

/// The identity of a mixture: its generations in order with their weights, to the bit. Holds no expert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MixtureKey(Vec<(String, u32)>);

impl MixtureKey {
    /// Of generations and the bits of their weights, in the mixture's order.
    pub(crate) fn of(parts: Vec<(String, u32)>) -> Self {
        Self(parts)
    }

    /// The generations with the bits of their weights.
    pub(crate) fn parts(&self) -> &[(String, u32)] {
        &self.0
    }

    /// The generations in order.
    pub fn generations(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(generation, _)| generation.as_str())
    }
}
