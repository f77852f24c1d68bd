//! Packs whose weights are stored as deltas to the base's own.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use fixture_packs::write_manifest;
use manifests::{DeltaWeights, Dtype, FileName, PackManifest, Sha256, WeightsRecord};
use modularbase_core::{Advance, BaseFile, LogitRows, Sequence};
use modularbase_deltas::add_to;
use modularbase_engine::Host;
use modularbase_loader::{NewWeight, WeightsFile, write_weights};
use modularbase_residency::Owner;
use system_tests::{Folders, first_logits, same_bits};

const WEIGHTS: &str = "weights.safetensors";

/// The folder of a pack with deltas of that format.
fn delta_pack(folders: &Folders, format: Dtype) -> std::path::PathBuf {
    let name = format!("stored-as-{format}");
    let pack = folders.fixture("own-slot").named(&name).delta(format, folders.fingerprint());
    pack.lay_out(folders.packs.path())
}

/// Another pack of the same values, each stored as a whole in `dtype` (vectors in f32).
fn whole_pack(folders: &Folders, delta: &Path, name: &str, dtype: Dtype) {
    let base = BaseFile::open(folders.options().base).unwrap();
    let folder = folders.packs.path().join(name);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(delta).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let mut manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
    let record = manifest.weights.take().unwrap();
    let stored = WeightsFile::open(&delta.join(WEIGHTS), &record).unwrap();
    let weights: Vec<NewWeight> = stored
        .weights()
        .map(|weight| {
            let delta = weight.delta.expect("all are deltas");
            let mut values = base.read_f32(delta.base).unwrap();
            add_to(weight.bytes, delta.levels, &mut values).unwrap();
            NewWeight::of_values(weight.name, weight.shape, &values, dtype).unwrap()
        })
        .collect();
    write_weights(&folder.join(WEIGHTS), &weights).unwrap();
    manifest.pack.name = name.parse().unwrap();
    manifest.pack.id = format!("org.modularbase.fixture.{name}").parse().unwrap();
    record_weights(&folder, &mut manifest, dtype);
    write_manifest(&folder, &manifest);
}

/// States what lies in the weights file now.
fn record_weights(folder: &Path, manifest: &mut PackManifest, dtype: Dtype) {
    let (sha256, size) = Sha256::of_file(&folder.join(WEIGHTS)).unwrap();
    let file: FileName = WEIGHTS.parse().unwrap();
    manifest.weights = Some(WeightsRecord { file, sha256, size, dtype });
}

fn logits(host: &Host, choice: &str) -> Vec<f32> {
    first_logits(host, choice).unwrap()
}

#[test]
fn a_delta_pack_gives_the_bits_of_the_same_values_stored_whole() {
    for format in [Dtype::DeltaQ1, Dtype::DeltaQ2, Dtype::DeltaQ3] {
        let folders = Folders::with(&["general"]);
        let delta = delta_pack(&folders, format);
        let name = format!("stored-as-{format}");
        for (held, dtype) in [(DeltaWeights::Q8_0, Dtype::Q8_0), (DeltaWeights::Bf16, Dtype::Bf16)] {
            let whole = format!("whole-{}", dtype.name().replace('_', "-"));
            whole_pack(&folders, &delta, &whole, dtype);
            let host = folders.host_with(|options| options.delta = held).unwrap();
            let from_delta = logits(&host, &name);
            assert!(same_bits(&from_delta, &logits(&host, &whole)), "{format} as {dtype}");
            assert!(!same_bits(&from_delta, &logits(&host, "general")), "{format} changes nothing");
        }
    }
}

#[test]
fn a_delta_packs_bytes_are_declared_reserved_and_held_alike_in_every_format() {
    let folders = Folders::with(&["general"]);
    let folder = delta_pack(&folders, Dtype::DeltaQ2);
    let manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
    let declared: BTreeMap<Dtype, u64> = manifest.memory.resident_bytes;
    let cases = [
        (None, DeltaWeights::Q8_0, Dtype::Q8_0),
        (None, DeltaWeights::Bf16, Dtype::Bf16),
        (None, DeltaWeights::Packed, Dtype::DeltaQ2),
        (Some(Dtype::F32), DeltaWeights::Packed, Dtype::F32),
        (Some(Dtype::Q4_0), DeltaWeights::Bf16, Dtype::Q4_0),
    ];
    for (dtype, delta, held_as) in cases {
        let host = folders
            .host_with(|options| {
                options.dtype = dtype;
                options.delta = delta;
            })
            .unwrap();
        let lease = || host.turn(&"stored-as-delta-q2".parse().unwrap()).unwrap();
        drop(lease());
        let loads: Vec<Duration> = (0..5)
            .map(|_| {
                host.manager().evict("stored-as-delta-q2").unwrap();
                let begin = Instant::now();
                drop(lease());
                begin.elapsed()
            })
            .collect();
        println!("held as {held_as}: loaded in {loads:?}");
        let turn = lease();
        let (expert, _) = &turn.mixture().parts()[0];
        let held = host.ledger().held_by(&Owner::Pack(expert.generation().to_owned()));
        assert_eq!((held, expert.resident_bytes() as u64), (declared[&held_as], declared[&held_as]));
        assert_eq!(host.ledger().held_by(&Owner::Scratch), 0, "the load gave back what it worked in");
    }
}

#[test]
fn packed_deltas_give_nearly_the_logits_of_the_sum_and_the_same_bits_in_any_chunks() {
    let folders = Folders::with(&["general"]);
    delta_pack(&folders, Dtype::DeltaQ3);
    let host = |delta| folders.host_with(|options| options.delta = delta).unwrap();
    let (packed, summed, exact) =
        (host(DeltaWeights::Packed), host(DeltaWeights::Q8_0), host(DeltaWeights::Bf16));
    let name = "stored-as-delta-q3";
    let distance = |a: &[f32], b: &[f32]| {
        let square: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (square / a.len() as f64).sqrt()
    };
    let exact = logits(&exact, name);
    let by_packing = distance(&logits(&packed, name), &exact);
    let by_summing = distance(&logits(&summed, name), &exact);
    let by_the_delta = distance(&logits(&packed, "general"), &exact);
    println!(
        "logits from those of bf16: packed {by_packing:.4}, q8_0 {by_summing:.4}, base {by_the_delta:.4}"
    );
    // In bf16 nothing is rounded to 8 bits: rounding activations is most of either distance.
    assert!(by_packing < 1.2 * by_summing && by_packing < by_the_delta);

    // Token by token and all at once.
    let turn = packed.turn(&name.parse().unwrap()).unwrap();
    let tokens = packed.tokenizer().encode_prompt("The capital of France is", false).unwrap();
    let mut sequence = Sequence::new(packed.core(), turn.mixture().clone());
    let mut rows = Vec::new();
    for token in &tokens {
        let step = Advance { sequence: &mut sequence, tokens: &[*token], logits: LogitRows::All };
        let row = packed.core().advance(&mut [step]).unwrap().remove(0).unwrap();
        rows.extend(row.to_vec().unwrap());
    }
    assert!(same_bits(&rows, &logits(&packed, name)));
    assert!(same_bits(&logits(&packed, "general"), &logits(&summed, "general")), "the base stays the base");
}

#[test]
fn deltas_for_another_base_are_refused() {
    let folders = Folders::with(&["general"]);
    let other = Sha256::of_bytes(b"another base");
    folders.fixture("own-slot").delta(Dtype::DeltaQ2, other).lay_out(folders.packs.path());
    let host = folders.host();
    let error = first_logits(&host, "own-slot").map(|logits| logits.len()).unwrap_err().to_string();
    assert!(error.contains("own-slot") && error.contains(&host.fingerprint().to_string()), "{error}");
    assert!(first_logits(&host, "general").is_ok());
}

#[test]
fn damaged_deltas_are_refused_when_they_are_loaded() {
    let folders = Folders::with(&["general"]);
    let folder = delta_pack(&folders, Dtype::DeltaQ2);
    let path = folder.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 18;
    bytes[last..last + 2].copy_from_slice(&[0, 0x7c]);
    fs::write(&path, bytes).unwrap();
    let mut manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
    record_weights(&folder, &mut manifest, Dtype::DeltaQ2);
    write_manifest(&folder, &manifest);
    let host = folders.host();
    let error = first_logits(&host, "stored-as-delta-q2").map(|logits| logits.len()).unwrap_err().to_string();
    assert!(error.contains("has scale inf: expected a finite one"), "{error}");
    assert!(first_logits(&host, "general").is_ok());
}
