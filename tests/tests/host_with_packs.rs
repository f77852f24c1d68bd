//! A host on the real base with real packs, good and bad.

use std::{path::Path, sync::atomic::AtomicBool};

use fixture_packs::{lay_out, lay_out_with};
use manifests::{BaseFingerprint, DeviceChoice, Dtype, Sha256};
use modularbase_core::{LogitRows, Mixture, SamplingOptions, Sequence};
use modularbase_engine::{AnswerLimits, EngineError, Host, HostOptions, PackState, Session};
use modularbase_loader::{ProbeLimits, Prober};
use modularbase_residency::Owner;
use pack_sdk::SlotRange;
use tempfile::TempDir;

const PROMPT: &str = "The capital of France is";

struct Folders {
    packs: TempDir,
    cache: TempDir,
}

impl Folders {
    fn with(fixtures: &[&str]) -> Self {
        let folders = Self { packs: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
        fixtures.iter().for_each(|name| drop(lay_out(name, folders.packs.path())));
        folders
    }

    fn host(&self) -> Host {
        self.host_with(None, None).unwrap()
    }

    fn host_with(&self, dtype: Option<Dtype>, budget: Option<u64>) -> Result<Host, EngineError> {
        let manifest = manifests::builtin_base(manifests::DEFAULT_BASE).unwrap().unwrap();
        let base = manifest.file.unwrap().name.in_folder(&manifests::folders::bases_folder().unwrap());
        assert!(base.exists(), "{} is missing: run `cargo xtask test`, which fetches it", base.display());
        let options = HostOptions {
            base,
            base_version: None,
            slot: Some(SlotRange { start: 18, end: 24 }),
            device: DeviceChoice::Cpu,
            dtype,
            threads: 2,
            packs_dir: Some(self.packs.path().to_owned()),
            budget,
            cache_dir: self.cache.path().to_owned(),
            prober: Prober::new(probe_program(), ProbeLimits::default()),
        };
        Host::open(options, &mut |_, _| {})
    }
}

/// `target/release/pack-probe`, which cargo builds with the loader's tests.
fn probe_program() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("pack-probe");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    program
}

fn mixture(host: &Host, choice: &str) -> Result<Mixture, EngineError> {
    host.mixture(&choice.parse().unwrap())
}

fn logits(host: &Host, mixture: Mixture) -> Vec<f32> {
    let tokens = host.tokenizer().encode_prompt(PROMPT, false).unwrap();
    let mut sequence = Sequence::new(host.core(), mixture);
    let step = modularbase_core::Advance { sequence: &mut sequence, tokens: &tokens, logits: LogitRows::All };
    host.core().advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap()
}

fn answer(host: &Host, choice: &str) -> String {
    let prompt = host.tokenizer().encode_prompt(PROMPT, false).unwrap();
    let mut session = Session::new(host, mixture(host, choice).unwrap()).unwrap();
    let limits = AnswerLimits { max_tokens: 6, stop: Vec::new() };
    let cancel = AtomicBool::new(false);
    session.answer(&prompt, &SamplingOptions::greedy(), &limits, &cancel, &mut |_| {}).unwrap().text
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn the_general_pack_equals_the_base_without_packs_to_the_bit() {
    let folders = Folders::with(&["general"]);
    for dtype in [None, Some(Dtype::F32)] {
        let host = folders.host_with(dtype, None).unwrap();
        let general = mixture(&host, "auto").unwrap();
        assert_eq!(general.parts()[0].0.name(), "general");
        assert_eq!(general.parts()[0].0.resident_bytes(), 0, "its weights are the base's own");
        let tokens = host.tokenizer().encode_prompt(PROMPT, false).unwrap();
        let plain = host.core().plain_logits(&tokens).unwrap().to_vec().unwrap();
        assert!(same_bits(&logits(&host, general), &plain));
        assert!(same_bits(&logits(&host, mixture(&host, "none").unwrap()), &plain));
        assert!(answer(&host, "general").starts_with(" Paris"), "{}", answer(&host, "general"));
    }
}

#[test]
fn one_request_fuses_several_weighted_packs() {
    let folders = Folders::with(&["general", "scaled", "side-network", "moe"]);
    let host = folders.host();
    let general = logits(&host, mixture(&host, "general").unwrap());
    for name in ["scaled", "side-network", "moe"] {
        let alone = logits(&host, mixture(&host, name).unwrap());
        assert!(!same_bits(&alone, &general), "`{name}` changes nothing");
        let fused = logits(&host, mixture(&host, &format!("general=3,{name}=1")).unwrap());
        assert!(!same_bits(&fused, &general) && !same_bits(&fused, &alone), "{name}");
    }
    let all = mixture(&host, "general=1,scaled=1,side-network=1,moe=1").unwrap();
    assert_eq!(all.parts().len(), 4);
    assert!(all.parts().iter().all(|(_, weight)| (weight - 0.25).abs() < 1e-6));
    assert!(logits(&host, all).iter().all(|logit| logit.is_finite()));
    let weightless = logits(&host, mixture(&host, "general=1,scaled=0").unwrap());
    assert!(same_bits(&weightless, &general), "a pack of weight 0 leaves no trace");
}

#[test]
fn bad_pack_is_quarantined_and_others_keep_serving() {
    let bad = [
        "panics",
        "loops",
        "allocates",
        "exits",
        "other-layout",
        "other-major",
        "cyclic",
        "dangling",
        "unknown-op",
        "shape-mismatch",
        "lies-about-bytes",
        "crashes",
        "networked",
        "keeps-thread",
    ];
    let folders = Folders::with(&["general", "scaled"]);
    bad.iter().for_each(|name| drop(lay_out(name, folders.packs.path())));
    std::fs::create_dir(folders.packs.path().join("broken")).unwrap();
    std::fs::write(folders.packs.path().join("broken/pack.toml"), "schema_version = 1\n[pack").unwrap();
    let host = folders.host();
    let (general, scaled) =
        (logits(&host, mixture(&host, "general").unwrap()), logits(&host, mixture(&host, "scaled").unwrap()));
    for name in bad {
        let error = mixture(&host, name).unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains(name), "`{name}` is not named: {error}");
        assert!(same_bits(&logits(&host, mixture(&host, "general").unwrap()), &general), "after {name}");
    }
    assert!(same_bits(&logits(&host, mixture(&host, "scaled").unwrap()), &scaled));
    for entry in host.packs() {
        let quarantined = matches!(entry.state, PackState::Quarantined(_));
        assert_eq!(quarantined, !["general", "scaled"].contains(&entry.name.as_str()), "{}", entry.name);
    }
    // Asked again, the reason is the same and nothing is tried a second time.
    let again = mixture(&host, "panics").unwrap_err().to_string();
    assert!(again.contains("quarantined"), "{again}");
}

#[test]
fn pack_for_another_base_is_refused() {
    let folders = Folders::with(&["general"]);
    lay_out_with("scaled", folders.packs.path(), |manifest| {
        manifest.base.fingerprint = BaseFingerprint::Exact(Sha256::of_bytes(b"another base"));
    });
    let host = folders.host();
    let error = mixture(&host, "scaled").unwrap_err().to_string();
    assert!(error.contains("scaled") && error.contains(&host.fingerprint().to_string()), "{error}");
    assert!(answer(&host, "auto").starts_with(" Paris"));
}

#[test]
fn declared_bytes_equal_measured_bytes() {
    let folders = Folders::with(&["general", "side-network", "moe"]);
    for dtype in [None, Some(Dtype::Q8_0), Some(Dtype::F32)] {
        let host = folders.host_with(dtype, None).unwrap();
        mixture(&host, "general=1,side-network=1,moe=1").unwrap();
        let memory = host.memory();
        for entry in host.packs() {
            let PackState::Resident(pack) = &entry.state else {
                panic!("{} is {}", entry.name, entry.state.word())
            };
            let held = host.ledger().held_by(&Owner::Pack(entry.generation.unwrap().to_hex()));
            assert_eq!(held, pack.resident_bytes() as u64, "{}", entry.name);
            let reported = memory.packs.iter().find(|pack| pack.pack == entry.name).unwrap();
            assert_eq!(reported.resident_bytes, held);
        }
        assert_eq!(memory.base_bytes, host.core().resident_bytes() as u64);
    }
}

#[test]
fn budget_is_bytes_and_is_never_exceeded() {
    let folders = Folders::with(&["general", "side-network"]);
    let base = folders.host().memory().base_bytes;
    let refused = folders.host_with(None, Some(base - 1)).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("base needs") && refused.contains("--budget"), "{refused}");

    // Room for the base and a short answer, not for the pack.
    let room = 12 << 20;
    let host = folders.host_with(None, Some(base + room)).unwrap();
    assert!(answer(&host, "general").starts_with(" Paris"));
    let held: u64 = host.ledger().holders().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(held, base, "the answer's caches came back");
    let _filler = host.ledger().reserve(Owner::Scratch, room - 1000).unwrap();
    let error = mixture(&host, "side-network").unwrap_err();
    assert!(matches!(error, EngineError::Budget(_)), "{error}");
    let state = host.packs().into_iter().find(|entry| entry.name == "side-network").unwrap().state;
    assert_eq!(state.word(), "registered", "a full budget is no fault of the pack");
}

#[test]
fn an_unknown_pack_is_refused_with_the_names_there_are() {
    let folders = Folders::with(&["general"]);
    let error = mixture(&folders.host(), "medical").unwrap_err().to_string();
    assert!(error.contains("medical") && error.contains("general"), "{error}");
}

#[test]
fn two_packs_of_one_name_are_told_apart_and_the_second_is_kept_out() {
    let folders = Folders::with(&["general", "scaled"]);
    let copy = folders.packs.path().join("zz-copy");
    copy_folder(&folders.packs.path().join("scaled"), &copy);
    let host = folders.host();
    let quarantined: Vec<_> = host
        .packs()
        .into_iter()
        .filter(|entry| matches!(entry.state, PackState::Quarantined(_)))
        .map(|entry| entry.path)
        .collect();
    assert_eq!(quarantined, [copy]);
    assert!(mixture(&host, "scaled").is_ok());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
