//! What is written parses to the same manifest, and no input makes the parser panic.

use std::convert::Infallible;

use manifests::{
    BUILTIN_BASES, BaseManifest, ByteSize, ContextConfig, DeltaWeights, Dtype, HostConfig, MemoryDeclaration,
    PackManifest, PackSource, PacksConfig, RoutingConfig, Sha256, TargetTriple, TrustConfig, TrustMode,
    builtin_base,
};
use proptest::prelude::*;

const SOURCE: &str = r#"
schema_version = 1

[pack]
id = "org.example.law"
name = "law"
version = "0.1.0"
kind = "expert"
description = "Ein \"Gesetz\": §§ 1-2\nzwei Zeilen."
license = "Apache-2.0"
keywords = ["law"]

[abi]
version = "1.0.0"
opset = 1

[base]
fingerprint = "any"
slot = { start = 18, end = 24 }

[library]
file = "liblaw.so"

[weights]
file = "weights.safetensors"
dtype = "bf16"

[data_card]
file = "DATA.md"

[dependencies]
"org.example.other" = ">=1.2, <3"

[evaluation."german law"]
base_nll = 3.093

[signer]
key_id = "example"
public_key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
signature = "pack.minisig"

[config]
layers = 6
made = 2024-05-01
nested = { names = ["a", "b"], on = true, rate = 0.5 }
"#;

const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

fn completed() -> PackManifest {
    let source = PackSource::parse(SOURCE).unwrap();
    let memory = MemoryDeclaration { resident_bytes: [(Dtype::F32, 400), (Dtype::Q8_0, 100)].into() };
    source
        .complete(memory, |name| {
            Ok::<_, Infallible>((Sha256::of_bytes(name.as_str().as_bytes()), name.as_str().len() as u64))
        })
        .unwrap()
}

#[test]
fn a_source_manifest_is_completed_with_hashes_sizes_target_and_memory() {
    let manifest = completed();
    assert!(manifest.problems().is_empty());
    let library = manifest.library.as_ref().unwrap();
    assert_eq!((library.sha256, library.size), (Sha256::of_bytes(b"liblaw.so"), 9));
    assert_eq!(manifest.abi.target, TargetTriple::current());
    assert_eq!(manifest.memory.resident_bytes[&Dtype::Q8_0], 100);
    let files: Vec<String> = manifest.files().into_iter().map(|record| record.file.to_string()).collect();
    assert_eq!(files, ["liblaw.so", "weights.safetensors", "DATA.md"]);
}

#[test]
fn a_pack_manifest_survives_writing_and_writes_the_same_text_again() {
    let manifest = completed();
    let text = manifest.to_toml().unwrap();
    let parsed = PackManifest::parse(&text).unwrap();
    assert_eq!(parsed, manifest);
    assert_eq!(parsed.to_toml().unwrap(), text);
}

#[test]
fn bases_and_host_configurations_survive_writing() {
    for (name, _) in BUILTIN_BASES {
        let manifest = builtin_base(name).unwrap().unwrap();
        assert_eq!(BaseManifest::parse(&manifest.to_toml().unwrap()).unwrap(), manifest);
    }
    let config = HostConfig {
        budget: Some(ByteSize::mib(512)),
        mixture: Some("general=0.25,law=0.75".parse().unwrap()),
        device: Some("cuda:1".parse().unwrap()),
        dtype: Some(Dtype::Q8_0),
        packs_dir: Some("packs".into()),
        threads: Some(2),
        packs: PacksConfig {
            keep: Some(vec!["general".parse().unwrap()]),
            priorities: [("law".parse().unwrap(), -3)].into(),
            rescan_ms: Some(50),
            cache_limit: Some(ByteSize::mib(64)),
            delta: Some(DeltaWeights::Bf16),
            ..PacksConfig::default()
        },
        trust: TrustConfig {
            policy: Some(TrustMode::RequireSigned),
            keys: [("example".to_string(), KEY.parse().unwrap())].into(),
        },
        routing: RoutingConfig {
            top_k: Some(3),
            priors: [("law".parse().unwrap(), -0.5)].into(),
            caps: [("law".parse().unwrap(), 0.5)].into(),
            ..RoutingConfig::default()
        },
        context: ContextConfig { enabled: Some(true), bits: Some(4), ..ContextConfig::default() },
        ..HostConfig::default()
    };
    assert_eq!(HostConfig::parse(&config.to_toml().unwrap()).unwrap(), config);
    let settings = config.settings();
    assert_eq!((settings.budget, settings.threads), (Some(ByteSize::mib(512)), 2));
    assert_eq!(settings.base, manifests::DEFAULT_BASE);
    assert_eq!((settings.packs.rescan.as_millis(), settings.packs.settle.as_millis()), (50, 2000));
    assert_eq!((settings.packs.keep.len(), settings.packs.cache_limit), (1, ByteSize::mib(64)));
    assert_eq!(settings.packs.delta, DeltaWeights::Bf16);
    assert_eq!((settings.trust.policy, settings.trust.keys.len()), (TrustMode::RequireSigned, 1));
    assert_eq!(
        (settings.context.enabled, settings.context.bits, settings.context.hot_tokens),
        (true, 4, 2048)
    );
}

#[test]
fn a_host_without_configuration_takes_unsigned_packs_and_keeps_none() {
    let settings = HostConfig::parse("schema_version = 1\n").unwrap().settings();
    assert_eq!(settings.trust, manifests::TrustSettings::default());
    assert_eq!((settings.trust.policy, settings.trust.keys.len()), (TrustMode::AllowUnsigned, 0));
    assert_eq!(settings.packs, manifests::PacksSettings::default());
    assert_eq!(settings.packs.admission_wait.as_millis(), 2000);
    assert_eq!(settings.packs.cache_limit.to_string(), "8GiB");
    assert!(!settings.context.enabled);
    assert!(settings.packs.keep.is_empty() && settings.packs.priorities.is_empty());
}

#[test]
fn trust_policies_print_and_parse_by_the_names_that_configurations_use() {
    for mode in TrustMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
    }
    let error = "trust-me".parse::<TrustMode>().unwrap_err();
    assert_eq!(error.help, "one of allow-unsigned, require-signed, require-known-signer");
}

#[test]
fn the_upper_level_of_a_configuration_wins_field_by_field() {
    let upper = HostConfig::parse("schema_version = 1\nthreads = 2\n[sampling]\ntop_k = 5\n").unwrap();
    let lower =
        HostConfig::parse("schema_version = 1\nthreads = 8\nbase = \"b\"\n[sampling]\ntop_k = 9\nseed = 1\n")
            .unwrap();
    let both = upper.or(lower);
    assert_eq!((both.threads, both.base.as_deref()), (Some(2), Some("b")));
    assert_eq!((both.sampling.top_k, both.sampling.seed), (Some(5), Some(1)));
}

#[test]
fn priorities_and_keys_of_two_levels_are_joined_and_the_upper_one_wins_each() {
    let other = KEY.replace("GFO3", "GFO4");
    let third = KEY.replace("GFO3", "GFO5");
    let parse = |text: String| HostConfig::parse(&format!("schema_version = 1\n{text}")).unwrap();
    let upper = parse(format!(
        "[packs]\nkeep = []\npriorities = {{ a = 1 }}\nrescan_ms = 7\n[trust.keys]\nx = \"{KEY}\"\n"
    ));
    let lower = parse(format!(
        "[packs]\nkeep = [\"a\"]\npriorities = {{ a = 2, b = 3 }}\nsettle_ms = 9\n[trust]\n\
         policy = \"require-signed\"\n[trust.keys]\nx = \"{third}\"\ny = \"{other}\"\n"
    ));
    let settings = upper.or(lower).settings();
    assert_eq!(settings.packs.keep, [], "an empty list is something said");
    let priorities: Vec<_> = settings.packs.priorities.iter().map(|(name, p)| (name.as_str(), *p)).collect();
    assert_eq!(priorities, [("a", 1), ("b", 3)]);
    assert_eq!((settings.packs.rescan.as_millis(), settings.packs.settle.as_millis()), (7, 9));
    let keys: Vec<_> = settings.trust.keys.iter().map(|(name, key)| (name.as_str(), key.as_str())).collect();
    assert_eq!(keys, [("x", KEY), ("y", other.as_str())]);
    assert_eq!(settings.trust.policy, TrustMode::RequireSigned);
}

#[test]
fn a_config_table_is_passed_on_as_json() {
    let json = serde_json::json!({
        "layers": 6, "made": "2024-05-01", "nested": {"names": ["a", "b"], "on": true, "rate": 0.5}
    });
    assert_eq!(completed().config_json(), json);
}

#[test]
fn the_json_schemas_in_the_repository_are_current() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (name, expected) in manifests::schema_files() {
        let found = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(found == expected, "{name} is not current: run `cargo xtask schema`");
    }
}

#[test]
fn the_json_schemas_refuse_unknown_fields_and_demand_the_version() {
    for (name, text) in manifests::schema_files() {
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert_eq!(schema["properties"]["schema_version"]["const"], manifests::SCHEMA_VERSION, "{name}");
        assert!(schema["required"].as_array().unwrap().contains(&"schema_version".into()), "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = PackManifest::parse_bytes(&bytes);
        let _ = BaseManifest::parse_bytes(&bytes);
        let _ = HostConfig::parse_bytes(&bytes);
    }

    #[test]
    fn a_damaged_manifest_never_panics(at in 0..SOURCE.len(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = completed().to_toml().unwrap().into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(manifest) = PackManifest::parse_bytes(&bytes) {
            prop_assert!(manifest.problems().is_empty());
        }
    }

    #[test]
    fn every_number_of_bytes_prints_and_parses_back(bytes in 0..=i64::MAX as u64) {
        prop_assert_eq!(ByteSize::new(bytes).to_string().parse(), Ok(ByteSize::new(bytes)));
    }

    #[test]
    fn arbitrary_text_never_panics_as_a_value(text in ".{0,60}") {
        let _ = text.parse::<ByteSize>();
        let _ = text.parse::<Sha256>();
        let _ = text.parse::<manifests::MixtureChoice>();
        let _ = text.parse::<manifests::FileName>();
        let _ = text.parse::<manifests::PackId>();
        let _ = text.parse::<manifests::PublicKey>();
    }
}
