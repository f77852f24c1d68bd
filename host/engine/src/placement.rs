//! How a checked pack comes to the device: bytes reserved, weights placed, plan compiled.

use std::{collections::HashMap, sync::Arc};

use manifests::{DeltaWeights, Dtype};
use modularbase_core::{
    BaseCore, BaseFile, CoreError, DeltaTensor, Expert, PackTensor, PackTensorKind, StoredDtype,
    StoredTensor, SumDtype, WeightDtype,
};
use modularbase_loader::{Generation, LoadStage, LoadedPack, QuarantineReason, WeightView, resident_bytes};
use modularbase_manager::{PlaceError, PlacePacks, Placed};
use modularbase_residency::{Owner, Room};

use crate::parked_caches::ParkedCaches;

/// Places packs beside a base.
pub(crate) struct Placement {
    pub(crate) core: Arc<BaseCore>,
    /// What deltas are added to.
    pub(crate) base: BaseFile,
    pub(crate) dtype: WeightDtype,
    /// How deltas are held where `dtype` leaves it open.
    pub(crate) delta: DeltaWeights,
    /// That a load may use.
    pub(crate) threads: usize,
    /// Caches of sessions between two answers.
    pub(crate) parked: Arc<ParkedCaches>,
}

impl PlacePacks for Placement {
    type Resident = Arc<Expert>;

    fn place(&self, pack: &LoadedPack, room: &Room<'_>) -> Result<Placed<Arc<Expert>>, PlaceError> {
        let stored = stored_weights(pack);
        let dtype = |name: &str| stored.get(name).map(|weight| self.kind(weight));
        let needed = self.core.expert_bytes(&pack.graph, &dtype).map_err(bad)? as u64;
        self.declaration_holds(pack, needed)?;
        let generation = pack.generation.to_hex();
        let plan = self.core.plan_bytes_for(&pack.graph) as u64;
        let passing = self.passing_bytes(&stored).map_err(bad)? as u64;
        let wanted =
            [(Owner::Pack(generation.clone()), needed), (Owner::Plan, plan), (Owner::Scratch, passing)];
        let [mut memory, mut plan, passing] = room.reserve_all(wanted).map_err(PlaceError::NoRoom)?;
        let expert = self.compile(pack, &stored, &generation).map_err(bad)?;
        drop(passing);
        let measured = expert.resident_bytes() as u64;
        if measured.abs_diff(needed) * 20 > needed.max(measured) {
            let reason = format!(
                "{needed} bytes were to be placed on the device, {measured} were: its weights are not what its graph states"
            );
            return Err(PlaceError::Bad(QuarantineReason { stage: LoadStage::Weights, reason }));
        }
        memory.resize(measured).map_err(PlaceError::NoRoom)?;
        plan.resize(expert.plan_bytes() as u64).map_err(PlaceError::NoRoom)?;
        Ok(Placed { resident: Arc::new(expert.holding(Box::new((memory, plan)))), bytes: measured })
    }

    fn evicted(&self, generation: Generation) {
        self.parked.forget(&generation.to_hex());
    }
}

impl Placement {
    fn compile(
        &self,
        pack: &LoadedPack,
        stored: &HashMap<&str, WeightView<'_>>,
        generation: &str,
    ) -> Result<Expert, CoreError> {
        let own = |name: &str| {
            let Some(weight) = stored.get(name) else { return Ok(None) };
            Ok(Some(match (as_delta(weight), self.kind(weight)) {
                (Some(delta), PackTensorKind::Delta(_)) => PackTensor::Delta(delta),
                (Some(delta), PackTensorKind::Whole(_)) => {
                    PackTensor::Whole(delta.add_up(&self.base, self.sum(), self.threads)?)
                }
                (None, _) => PackTensor::Whole(StoredTensor {
                    name: name.to_owned(),
                    shape: weight.shape.to_vec(),
                    dtype: self.dtype_of(weight),
                    bytes: weight.bytes.into(),
                }),
            }))
        };
        self.core.compile_expert(pack.manifest.pack.name.as_str(), generation, &pack.graph, &own)
    }

    /// How deltas are held: as it was wished, where the executor can.
    fn held(&self) -> DeltaWeights {
        match self.delta {
            DeltaWeights::Packed if !self.core.backend().multiplies_deltas() => DeltaWeights::Q8_0,
            delta => delta,
        }
    }

    /// What a delta that is added up becomes before it is placed. Where all is held in one format, it goes there
    /// unrounded.
    fn sum(&self) -> SumDtype {
        match (self.dtype, self.held()) {
            (WeightDtype::AsStored, DeltaWeights::Bf16) => SumDtype::BF16,
            (WeightDtype::AsStored, DeltaWeights::Q8_0 | DeltaWeights::Packed) => SumDtype::Q8_0,
            _ => SumDtype::F32,
        }
    }

    /// The format in which a weight that is not packed comes to the executor.
    fn dtype_of(&self, weight: &WeightView<'_>) -> StoredDtype {
        StoredDtype::try_from(weight.dtype).unwrap_or_else(|_| self.sum().stored())
    }

    /// How a weight comes to the executor.
    fn kind(&self, weight: &WeightView<'_>) -> PackTensorKind {
        match (self.dtype, self.held(), weight.delta) {
            (WeightDtype::AsStored, DeltaWeights::Packed, Some(delta)) => {
                PackTensorKind::Delta(delta.levels.format())
            }
            _ => PackTensorKind::Whole(self.dtype_of(weight)),
        }
    }

    /// Bytes that the load allocates beside what it places, at most.
    fn passing_bytes(&self, stored: &HashMap<&str, WeightView<'_>>) -> Result<usize, CoreError> {
        let mut most = 0;
        for weight in stored.values() {
            if let (Some(delta), PackTensorKind::Whole(_)) = (as_delta(weight), self.kind(weight)) {
                most = most.max(delta.passing_bytes(&self.base, self.sum(), self.threads)?);
            }
        }
        Ok(most)
    }

    /// Compares what the manifest declares for the way this host holds weights with what they will take: up to a
    /// twentieth apart, and beyond that only by the rows that the device pads.
    fn declaration_holds(&self, pack: &LoadedPack, needed: u64) -> Result<(), PlaceError> {
        let dtype = match (self.dtype, &pack.weights) {
            (WeightDtype::AsStored, Some(weights)) if weights.dtype().is_delta() => {
                // Beside deltas a file may hold matrices as it likes, for which no one format was declared.
                let all_deltas =
                    weights.weights().all(|weight| weight.delta.is_some() || weight.shape.len() != 2);
                match all_deltas {
                    true => self.held().dtype(weights.dtype()),
                    false => return Ok(()),
                }
            }
            (WeightDtype::AsStored, Some(weights)) => weights.dtype(),
            (WeightDtype::AsStored, None) => return Ok(()),
            (WeightDtype::F32, _) => Dtype::F32,
            (WeightDtype::F16, _) => Dtype::F16,
            (WeightDtype::BF16, _) => Dtype::Bf16,
            (WeightDtype::Q8_0, _) => Dtype::Q8_0,
            (WeightDtype::Q4_0, _) => Dtype::Q4_0,
            (WeightDtype::Q4_1, _) => Dtype::Q4_1,
        };
        let Some(&declared) = pack.manifest.memory.resident_bytes.get(&dtype) else { return Ok(()) };
        let padding = needed.saturating_sub(resident_bytes(pack.graph.graph(), &pack.owned_weights, dtype));
        if needed.abs_diff(declared) > declared.max(needed) / 20 + padding {
            let reason = format!(
                "it declares {declared} resident bytes, it takes {needed}: rebuild it with `cargo xtask pack build`"
            );
            return Err(PlaceError::Bad(QuarantineReason { stage: LoadStage::Weights, reason }));
        }
        Ok(())
    }
}

fn bad(error: CoreError) -> PlaceError {
    PlaceError::Bad(QuarantineReason { stage: LoadStage::Weights, reason: error.to_string() })
}

fn as_delta<'a>(weight: &WeightView<'a>) -> Option<DeltaTensor<'a>> {
    let delta = weight.delta?;
    Some(DeltaTensor {
        name: weight.name,
        shape: weight.shape,
        base: delta.base,
        levels: delta.levels,
        blocks: weight.bytes,
    })
}

/// The weights of a pack's own file by name.
fn stored_weights(pack: &LoadedPack) -> HashMap<&str, WeightView<'_>> {
    let weights = pack.weights.iter().flat_map(|file| file.weights());
    weights.map(|weight| (weight.name, weight)).collect()
}
