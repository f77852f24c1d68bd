//! Packs that must not load: the host survives each, names it, and says why.

use std::{
    fs,
    time::{Duration, Instant},
};

use fixture_packs::{TestHost, build_request, lay_out, lay_out_with, library, probe_limits, write_manifest};
use manifests::{PackManifest, Sha256};
use modularbase_loader::{
    LoadError, LoadFailure, LoadStage, ProbeError, ProbeLimits, Prober, build_graph, open_pack,
};

fn refusal(host: &TestHost, name: &str) -> LoadError {
    let folder = lay_out(name, &host.packs());
    let start = Instant::now();
    let error = open_pack(&folder, &host.context).unwrap_err();
    eprintln!("{name} ({} ms): {error}", start.elapsed().as_millis());
    assert_eq!(error.pack, name);
    error
}

#[test]
fn every_bad_pack_is_refused_at_its_stage_with_its_reason() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    use LoadStage::{Inspection, Library, Probe, Weights};
    for (name, stage, reason) in [
        ("panics", Probe, "rank 577 is odd"),
        ("loops", Probe, "processor time"),
        ("allocates", Probe, "ran out of memory: more than 256 MiB"),
        ("exits", Probe, "exit code 7 instead of returning"),
        ("crashes", Probe, "SIGSEGV"),
        ("writes-file", Probe, "tried to write to a file"),
        ("keeps-thread", Probe, "left 1 thread(s) running"),
        ("cyclic", Probe, "cyclic: "),
        ("dangling", Probe, "refers to value 99"),
        ("unknown-op", Probe, "unknown operator 1000"),
        ("other-layout", Probe, "its types differ from this host's"),
        ("other-major", Inspection, "built for ABI 2, this host has ABI 1"),
        ("networked", Inspection, "use the network (imports `socket`)"),
        ("not-repeatable", Library, "another graph each time"),
        ("shape-mismatch", LoadStage::Graph, "expected"),
        ("lies-about-bytes", Weights, "declares 1000 resident bytes for f32"),
    ] {
        let error = refusal(&host, name);
        assert_eq!(error.failure.stage(), stage, "{error}");
        assert!(error.to_string().contains(reason), "expected `{reason}` in: {error}");
        let quarantine = error.quarantine_reason();
        assert_eq!(quarantine.stage, stage);
        assert!(quarantine.reason.contains(reason));
    }
    // After all of them, a good one loads.
    open_pack(&lay_out("scaled", &host.packs()), &host.context).unwrap();
}

#[test]
fn a_panics_text_and_place_reach_this_process_unharmed() {
    let error = build_graph(&build_request(&library("panics"))).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("panicked at") && text.contains("lib.rs:") && text.contains("rank 577 is odd"),
        "{text}"
    );
    assert!(
        !modularbase_loader::is_mapped(&library("panics")),
        "the hook or a thread-local of the panic pins it"
    );
}

#[test]
fn a_probe_that_sleeps_is_stopped_by_the_clock() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let sleeper = host.root.path().join("sleeper");
    fs::write(&sleeper, "#!/bin/sh\nsleep 60\n").unwrap();
    fs::set_permissions(&sleeper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let start = Instant::now();
    let limits = ProbeLimits { wall_time: Duration::from_secs(1), ..probe_limits() };
    let prober = Prober::new(&sleeper, limits);
    let error = prober.probe(&library("scaled"), "{}", 0).unwrap_err();
    assert!(matches!(error, ProbeError::TimedOut(_)), "{error}");
    // The shell's own child holds the pipes; it is ended too.
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn a_program_that_does_not_exist_is_no_fault_of_the_pack() {
    let error = Prober::new("/nowhere/probe", probe_limits());
    let error = error.probe(&library("scaled"), "{}", 0).unwrap_err();
    assert!(matches!(error, ProbeError::Start { .. }), "{error}");
}

#[test]
fn manifest_and_library_must_agree() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let contradiction = |change: &dyn Fn(&mut PackManifest)| {
        let folder = lay_out_with("scaled", &host.packs(), change);
        let error = open_pack(&folder, &host.context).unwrap_err();
        assert!(matches!(*error.failure, LoadFailure::Contradiction { .. }), "{error}");
        error.to_string()
    };
    let text = contradiction(&|manifest| manifest.abi.version = manifests::Version::new(2, 0, 0));
    assert!(text.contains("ABI 2") && text.contains("library 1"), "{text}");
    contradiction(&|manifest| manifest.abi.target = "aarch64-unknown-linux-gnu".parse().unwrap());
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("side-network", &host.packs());
    let manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
    let weights = folder.join("weights.safetensors");
    let sound = fs::read(&weights).unwrap();
    let with = |bytes: &[u8]| {
        fs::write(&weights, bytes).unwrap();
        let mut manifest = manifest.clone();
        let record = manifest.weights.as_mut().unwrap();
        record.size = bytes.len() as u64;
        record.sha256 = Sha256::of_bytes(bytes);
        write_manifest(&folder, &manifest);
        open_pack(&folder, &host.context).map(|_| ()).map_err(|error| {
            assert_eq!(error.failure.stage(), LoadStage::Weights, "{error}");
            error.to_string()
        })
    };
    with(&sound).unwrap();
    for length in [0usize, 7, 8, 100, sound.len() / 2, sound.len() - 1] {
        // An empty file is refused by the manifest already.
        if length > 0 {
            let text = with(&sound[..length]).unwrap_err();
            assert!(text.contains("no sound safetensors file"), "{length}: {text}");
        }
    }
    // The header's length is absurd.
    let mut absurd = sound.clone();
    absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(with(&absurd).unwrap_err().contains("no sound safetensors file"));
    // Another name of the same length: one weight too many, one missing.
    let renamed = replaced(&sound, b"side.down", b"side.dawn");
    assert!(with(&renamed).unwrap_err().contains("`side.dawn`, which the graph has no weight for"));
    let text = with(&replaced(&sound, b"[16,576]", b"[576,16]")).unwrap_err();
    assert!(text.contains("shape [16, 576], the file [576, 16]"), "{text}");
    let text = with(&replaced(&sound, b"\"BF16\"", b"\"F16\" ")).unwrap_err();
    assert!(text.contains("with bf16 in the manifest it should be stored as bf16, found f16"), "{text}");
    with(&sound).unwrap();
}

#[test]
fn a_pack_that_leaves_out_weights_of_its_own_is_refused() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out_with("side-network", &host.packs(), |manifest| {
        manifest.weights = None;
        manifest.memory.resident_bytes.values_mut().for_each(|bytes| *bytes = 0);
    });
    let text = open_pack(&folder, &host.context).unwrap_err().to_string();
    assert!(text.contains("weight `side.down` starts as `normal:0.1` and is in no file"), "{text}");
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}
