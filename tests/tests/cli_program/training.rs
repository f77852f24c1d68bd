//! `train`: from a library and text to a pack that is served, stopped and killed on the way.

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture_packs::library;
use manifests::{Dtype, PackManifest};
use system_tests::small_base;

use crate::program::{Ended, binary, modularbase, names, signal, wait_until};

/// A few documents of a language of its own, general text, a cache, and packs that have no weights yet.
struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("packs")).unwrap();
        let write = |name: &str, line: &dyn Fn(usize) -> String| {
            let lines: String =
                (0..120).map(|index| format!("{{\"text\": \"{}\"}}\n", line(index))).collect();
            std::fs::write(folder.path().join(name), lines).unwrap();
        };
        let places = ["roof", "cellar", "garden", "gate"];
        let domain = |index: usize| {
            let (place, section) = (places[index % 4], 3 + index % 17);
            format!(
                "Section {section}. The lessee of the {place} shall, under section {section}, keep the {place} in \
                 good repair, and shall pay the lessor for any damage to the {place}."
            )
        };
        write("domain.jsonl", &domain);
        write("held.jsonl", &|index| domain(7 * index + 2));
        write("general.jsonl", &|index| {
            format!(
                "In the year {} the king rode out to hunt with {} of his men.",
                1200 + index,
                2 + index % 9
            )
        });
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder with the library of a fixture and its author's manifest.
    fn pack(&self, fixture: &str) -> PathBuf {
        let folder = self.path(fixture);
        std::fs::create_dir(&folder).unwrap();
        let built = library(fixture);
        std::fs::copy(&built, folder.join(built.file_name().unwrap())).unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/{fixture}/pack.toml"));
        std::fs::copy(manifest, folder.join("pack.toml")).unwrap();
        folder
    }

    /// Settings of a short run.
    fn config(&self, more: &str) -> PathBuf {
        let path = self.path("train.toml");
        let text = format!(
            "steps = 40\n{more}\n[batch]\nrows = 4\nlength = 48\n[evaluation]\nevery = 0\ntokens = 2000\n\
             [optimizer]\nlearning_rate = 3e-3\nwarmup = 4\n[checkpoints]\nevery = 4\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let base = small_base().display().to_string();
        let packs = self.path("packs").display().to_string();
        let mut command = modularbase(["--base", &base, "--packs-dir", &packs].iter().chain(arguments));
        command.env("MODULARBASE_CACHE", self.path("cache"));
        command
    }

    fn training(&self, pack: &Path, config: &Path, out: &Path) -> Command {
        self.program(&[
            "train",
            "pack",
            pack.to_str().unwrap(),
            "--train-config",
            config.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ])
    }
}

const DATA: &str = "[data]\ntrain = [\"domain.jsonl\"]\nvalidation = [\"held.jsonl\"]\n";
const GENERAL: &str = "general = [\"general.jsonl\"]\ngeneral_validation = [\"general.jsonl\"]\ngeneral_share = 0.25\n\
                       general_loss = \"distillation\"\n";

/// The gain that a trained pack's manifest states for its own domain, nats a token.
fn gain(folder: &Path, name: &str) -> f64 {
    let manifest = PackManifest::read(&folder.join("pack.toml")).unwrap();
    let figures = &manifest.evaluation[name];
    figures["base_nll"] - figures["nll"]
}

#[test]
fn a_pack_of_the_small_base_is_trained_quantized_verified_and_served() {
    let workshop = Workshop::new();
    let quantization = "[quantization]\nformat = \"delta-q2\"\nsteps = 12\n[finish]\nrouting_prompts = 40\n";
    let config = workshop.config(&format!("{DATA}{GENERAL}{quantization}"));
    let run = workshop.path("run");
    let ended = Ended::of(workshop.training(&workshop.pack("own-slot"), &config, &run)).success();
    assert!(ended.stdout.contains("own-slot: 40 steps"), "{}", ended.stdout);

    let pack = run.join("pack");
    let files =
        ["DATA.md", "libfixture_own_slot.so", "pack.toml", "routing-key.safetensors", "weights.safetensors"];
    assert_eq!(names(&pack), files);
    assert!(gain(&pack, "own-slot") > 0.5, "the domain is learned: {}", gain(&pack, "own-slot"));
    assert!(gain(&pack, "general").abs() < 0.5, "general text is held: {}", gain(&pack, "general"));
    let manifest = PackManifest::read(&pack.join("pack.toml")).unwrap();
    assert_eq!(manifest.weights.as_ref().map(|weights| weights.dtype), Some(Dtype::DeltaQ2));
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("shipped, delta-q2") && report.contains("trained, f32"), "before and after");
    let card = std::fs::read_to_string(pack.join("DATA.md")).unwrap();
    assert!(card.contains("General text mixed in") && card.contains("general_loss = \"distillation\""));

    let here = workshop.folder.path().to_str().unwrap();
    assert!(!card.contains(here) && card.contains("train = [\"domain.jsonl\"]"), "the card travels: {card}");

    Ended::of(workshop.program(&["packs", "verify", pack.to_str().unwrap()])).success();
    std::fs::rename(&pack, workshop.path("packs").join("own-slot")).unwrap();
    let prompt = "Section 5. The lessee of the";
    let arguments = ["run", prompt, "--raw", "--json", "--mixture", "own-slot", "--max-tokens", "12"];
    let answer = Ended::of(workshop.program(&[arguments.as_slice(), &["--temperature", "0"]].concat()));
    let answer = answer.success().json();
    let text = answer["text"].as_str().unwrap();
    assert!(["roof", "cellar", "garden", "gate"].iter().any(|place| text.contains(place)), "{text}");
}

#[test]
fn packs_of_other_architectures_are_trained_through_the_abi_and_improve_their_domain() {
    let workshop = Workshop::new();
    let config = workshop.config(&format!("{DATA}[finish]\nrouting_key = false\n"));
    for fixture in ["side-network", "moe"] {
        let run = workshop.path(&format!("run-{fixture}"));
        let ended = Ended::of(workshop.training(&workshop.pack(fixture), &config, &run)).success();
        let gain = gain(&run.join("pack"), fixture);
        assert!(gain > 0.3, "{fixture} gains {gain}: {}", ended.stderr);
        assert!(!run.join("pack/routing-key.safetensors").exists(), "it was switched off");
    }
}

/// Each step's loss, from the metrics of a run; what a killed run left half is left out.
fn losses(run: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let values = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let step = |value: serde_json::Value| Some((value["step"].as_u64()?, value["loss"].as_f64()?));
    values.filter(|value| value["kind"] == "step").filter_map(step).collect()
}

#[test]
fn a_run_that_was_killed_or_stopped_goes_on_with_the_same_numbers() {
    let workshop = Workshop::new();
    let without = "[finish]\nreport = false\nrouting_key = false\ndata_card = false\nmanifest = false\n";
    let config = workshop.config(&format!("{DATA}{GENERAL}{without}"));
    let pack = workshop.pack("own-slot");
    let whole = workshop.path("whole");
    Ended::of(workshop.training(&pack, &config, &whole)).success();
    assert_eq!(losses(&whole).len(), 40);
    let weights = |run: &Path| std::fs::read(run.join("pack/weights.safetensors")).unwrap();
    for name in ["KILL", "INT"] {
        let run = workshop.path(name);
        let child = workshop.training(&pack, &config, &run).spawn().unwrap();
        wait_until("the tenth step", || losses(&run).len() >= 10);
        signal(&child, name);
        let stopped = Ended::from(child.wait_with_output().unwrap());
        assert!(losses(&run).len() < 40, "it was stopped on the way");
        assert!(!run.join("pack").exists());
        if name == "INT" {
            assert_eq!(stopped.code, Some(130), "{}", stopped.stderr);
            assert!(stopped.stderr.contains("the same command goes on from"), "{}", stopped.stderr);
        }
        let again = Ended::of(workshop.training(&pack, &config, &run)).success();
        assert!(again.stderr.contains("going on from step"), "{}", again.stderr);
        assert_eq!(losses(&run), losses(&whole), "after {name}");
        assert!(weights(&run) == weights(&whole), "after {name} the weights are others");
    }
}

#[test]
fn a_disk_that_is_full_ends_a_run_that_then_goes_on() {
    let workshop = Workshop::new();
    let config = workshop.config(&format!("{DATA}[finish]\nrouting_key = false\n"));
    let (pack, run) = (workshop.pack("own-slot"), workshop.path("run"));
    let training = workshop.training(&pack, &config, &run);
    // No file may grow beyond a megabyte; a checkpoint does.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]).arg(binary());
    limited.args(training.get_args());
    for (name, value) in training.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let full = Ended::of(limited);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    assert!(full.stderr.contains("weights.safetensors"), "the file is named: {}", full.stderr);
    assert!(!run.join("pack").exists(), "nothing unfinished looks like a pack");
    Ended::of(workshop.training(&pack, &config, &run)).success();
    assert_eq!(losses(&run).len(), 40);
}

#[test]
fn a_base_is_trained_from_nothing_and_answers() {
    let workshop = Workshop::new();
    let recipe = workshop.path("base.toml");
    let text = "[base]\nhidden_size = 64\nintermediate_size = 128\nnum_layers = 4\nnum_heads = 2\nnum_kv_heads = 1\n\
                max_position = 128\n[tokenizer]\nvocab_size = 512\n[training]\nsteps = 30\n\
                [training.data]\ntrain = [\"domain.jsonl\", \"general.jsonl\"]\nvalidation = [\"held.jsonl\"]\n\
                [training.batch]\nrows = 4\nlength = 32\n[training.optimizer]\nlearning_rate = 3e-3\nwarmup = 4\n";
    std::fs::write(&recipe, text).unwrap();
    let out = workshop.path("base");
    let arguments = ["train", "base", recipe.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    let trained = Ended::of(workshop.program(&arguments)).success().json();
    let (first, last) = (losses(&out)[0].1, trained["best"]["loss"].as_f64().unwrap());
    assert!(first > 5.0 && last < first - 2.0, "from {first} to {last}");
    let base = out.join("base");
    // The likeliest tokens: a drawn one may be the end of the text.
    let greedy = ["--raw", "--json", "--max-tokens", "8", "--temperature", "0"];
    let mut answer = modularbase(["run", "Section"].iter().chain(&greedy));
    answer.arg("--base").arg(&base).arg("--packs-dir").arg(workshop.path("packs"));
    answer.env("MODULARBASE_CACHE", workshop.path("cache"));
    let answer = Ended::of(answer).success().json();
    assert!(!answer["text"].as_str().unwrap().is_empty(), "{answer}");
}
