//! Whether a pack belongs to the base that serves.

use std::collections::BTreeSet;

use manifests::{BaseFingerprint, Dtype, PackManifest, Sha256, Version};
use modularbase_graph::{Graph, Init};
use pack_sdk::{BaseShape, SlotRange, base_weights};

use crate::weights_file::weights_of;

/// The base that serves, as packs need to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseContext {
    /// Hash over its config, tokenizer and weights.
    pub fingerprint: Sha256,
    /// Its version, where its manifest states one.
    pub version: Option<Version>,
    /// Its sizes.
    pub shape: BaseShape,
    /// Its slot.
    pub slot: SlotRange,
}

/// Why a pack does not belong to a base.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BaseMismatch {
    /// Made for another base.
    #[error(
        "made for the base sha256:{expected}, this base is sha256:{found}: use a pack made for this base"
    )]
    Fingerprint {
        /// In the manifest.
        expected: Sha256,
        /// The base's.
        found: Sha256,
    },
    /// Made for another width.
    #[error("made for hidden states of width {expected}, this base has width {found}")]
    HiddenSize {
        /// In the manifest.
        expected: usize,
        /// The base's.
        found: usize,
    },
    /// Made for other layers.
    #[error("made for the slot [{}, {}), this base has the slot [{}, {})", expected.start, expected.end, found.start, found.end)]
    Slot {
        /// In the manifest.
        expected: SlotRange,
        /// The base's.
        found: SlotRange,
    },
    /// Made for other versions of the base.
    #[error("made for versions {expected} of the base, this one is {found}")]
    Version {
        /// In the manifest.
        expected: String,
        /// The base's.
        found: String,
    },
    /// A weight that copies from a tensor the base does not have.
    #[error("weight `{weight}` copies from the base's `{name}`, which this base does not have")]
    NoSuchTensor {
        /// The pack's weight.
        weight: String,
        /// The base's tensor.
        name: String,
    },
    /// A weight that copies from a tensor of another shape.
    #[error("weight `{weight}` of shape {expected:?} copies from the base's `{name}` of shape {found:?}")]
    TensorShape {
        /// The pack's weight.
        weight: String,
        /// The base's tensor.
        name: String,
        /// In the graph.
        expected: Vec<usize>,
        /// In the base.
        found: Vec<usize>,
    },
}

/// A manifest that states other memory than the pack takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the manifest declares {declared} resident bytes for {dtype}, its weights take {expected}: rebuild the manifest \
     with `cargo xtask pack build`"
)]
pub struct WrongResidentBytes {
    /// The host dtype.
    pub dtype: Dtype,
    /// In the manifest.
    pub declared: u64,
    /// From the shapes.
    pub expected: u64,
}

/// Checks what the manifest asks of the base.
///
/// # Errors
/// The first requirement that the base does not meet.
pub fn fits_base(manifest: &PackManifest, base: &BaseContext) -> Result<(), BaseMismatch> {
    let wanted = &manifest.base;
    if let BaseFingerprint::Exact(expected) = wanted.fingerprint
        && expected != base.fingerprint
    {
        return Err(BaseMismatch::Fingerprint { expected, found: base.fingerprint });
    }
    if let Some(expected) = wanted.hidden_size.map(|size| size as usize)
        && expected != base.shape.hidden_size
    {
        return Err(BaseMismatch::HiddenSize { expected, found: base.shape.hidden_size });
    }
    if let Some(slot) = wanted.slot {
        let expected = SlotRange { start: slot.start() as usize, end: slot.end() as usize };
        if expected != base.slot {
            return Err(BaseMismatch::Slot { expected, found: base.slot });
        }
    }
    if let (Some(expected), Some(found)) = (&wanted.version, &base.version)
        && !expected.matches(found)
    {
        return Err(BaseMismatch::Version { expected: expected.to_string(), found: found.to_string() });
    }
    Ok(())
}

/// Checks that the weights which copy from the base find tensors of their shapes there.
///
/// # Errors
/// The first weight that does not.
pub fn copies_fit_base(graph: &Graph, base: &BaseShape) -> Result<(), BaseMismatch> {
    for (weight, spec) in weights_of(graph) {
        let Init::CopyFromBase(name) = &spec.init else { continue };
        let (weight, name) = (weight.to_owned(), name.clone());
        match base_weights::shape_of(base, &name) {
            None => return Err(BaseMismatch::NoSuchTensor { weight, name }),
            Some(found) if found != spec.shape => {
                return Err(BaseMismatch::TensorShape { weight, name, expected: spec.shape.clone(), found });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Device bytes of the weights of those names, loaded as `dtype`: matrices in that format where its blocks divide their
/// rows and at 16 bits where not, vectors as f32.
pub fn resident_bytes(graph: &Graph, owned: &BTreeSet<String>, dtype: Dtype) -> u64 {
    let (block, block_bytes) = block_of(dtype);
    let bytes = |shape: &[usize]| {
        let elements: usize = shape.iter().product();
        let elements = elements as u64;
        match shape {
            [_, width] if (*width as u64).is_multiple_of(block) => elements / block * block_bytes,
            [_, _] => elements * 2,
            _ => elements * 4,
        }
    };
    weights_of(graph).filter(|(name, _)| owned.contains(*name)).map(|(_, spec)| bytes(&spec.shape)).sum()
}

/// Compares the manifest's declaration with the shapes. Padding and packing are the host's business, so a declaration
/// may be up to a quarter above; a twentieth below is already a broken promise, since the budget relies on it.
///
/// # Errors
/// The first dtype whose declaration is out of these bounds.
pub fn declaration_holds(
    manifest: &PackManifest,
    graph: &Graph,
    owned: &BTreeSet<String>,
) -> Result<(), WrongResidentBytes> {
    for (&dtype, &declared) in &manifest.memory.resident_bytes {
        let expected = resident_bytes(graph, owned, dtype);
        if declared < expected - expected / 20 || declared > expected + expected / 4 {
            return Err(WrongResidentBytes { dtype, declared, expected });
        }
    }
    Ok(())
}

/// Values and bytes of a block (ggml's formats, and those of `modularbase-deltas`).
fn block_of(dtype: Dtype) -> (u64, u64) {
    match dtype {
        Dtype::F32 => (1, 4),
        Dtype::F16 | Dtype::Bf16 => (1, 2),
        Dtype::Q8_0 => (32, 34),
        Dtype::Q4_0 => (32, 18),
        Dtype::Q4_1 => (32, 20),
        Dtype::Q5_0 => (32, 22),
        Dtype::Q5_1 => (32, 24),
        Dtype::Q2K => (256, 84),
        Dtype::Q3K => (256, 110),
        Dtype::Q4K => (256, 144),
        Dtype::Q5K => (256, 176),
        Dtype::Q6K => (256, 210),
        Dtype::DeltaQ1 => (64, 10),
        Dtype::DeltaQ2 => (64, 18),
        Dtype::DeltaQ3 => (64, 26),
    }
}
