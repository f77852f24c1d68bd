//! From an opened library to its root module, with every type that crosses the border compared first.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{
        AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
    },
    library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule},
    sabi_types::VersionStrings,
};
use libloading::os::unix::Library;

use super::LibraryError;
use crate::text::clipped;

type Version = (u32, u32, u32);

/// The root module of a library. What it gives is valid while the library is open.
///
/// `RootModule::load_*` is not used: it leaks the library on purpose, and its layout cache would point into the closed
/// library afterwards.
///
/// `Module` is [`pack_abi::PackModule_Ref`] everywhere but in tests.
pub(super) fn root_module<Module: RootModule>(library: &Library) -> Result<Module, LibraryError> {
    // SAFETY: the symbol is a `LibHeader` in every library that exports it under this name (abi_stable's contract,
    // written by `export_pack!`), so a pointer to it is an `AbiHeaderRef`. `upgrade` checks its magic before use.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL) }
        .map_err(|error| LibraryError::NoExport(error.to_string()))?;
    let header = header.upgrade().map_err(|error| LibraryError::Header(error.to_string()))?;
    check_layout::<Module>(header)?;
    // SAFETY: `check_layout` compared the layouts of `Module` and everything it reaches.
    unsafe { header.unchecked_layout::<Module>() }
        .map_err(|error| LibraryError::Constructor(format!("{error:?}")))
}

fn check_layout<Module: RootModule>(header: &'static LibHeader) -> Result<(), LibraryError> {
    let pack_version = version(header.version_strings())?;
    let host_version = version(Module::VERSION_STRINGS)?;
    if pack_version.0 != host_version.0 {
        return Err(LibraryError::AbiMajor { expected: host_version.0, found: pack_version.0 });
    }
    let pack = header.layout().ok_or(LibraryError::NoLayout)?;
    let host = <Module as StableAbi>::LAYOUT;
    // The checker wants the second to have all that the first has. A newer host has more fields than an older pack,
    // so then the pack is what is asked for.
    let (interface, implementation) = if pack_version < host_version { (pack, host) } else { (host, pack) };
    // Fresh ones each time: they hold pointers into the pack, and abi_stable's own would outlive it.
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(interface, implementation, &globals)
        .map_err(|errors| LibraryError::Layout(first_mismatch(&errors)))
}

fn version(strings: VersionStrings) -> Result<Version, LibraryError> {
    let version = strings.parsed().map_err(|error| LibraryError::Header(error.to_string()))?;
    Ok((version.major, version.minor, version.patch))
}

/// The way to the first type that differs, and how. abi_stable's own text has hundreds of lines.
fn first_mismatch(errors: &AbiInstabilityErrors) -> String {
    const BYTES: usize = 1_000;
    let Some(error) = errors.errors.iter().find(|error| !error.errs.is_empty()) else {
        return "no details".to_owned();
    };
    // A field prints as several lines, its name and its type first.
    let field = |text: String| text.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ");
    let way: Vec<_> = error.stack_trace.iter().map(|step| field(step.found.to_string())).collect();
    let what: Vec<_> = error.errs.iter().map(|error| format!("{error:?}")).collect();
    let text = format!("{}: {}", way.join(" > "), what.join("; "));
    clipped(&text.split_whitespace().collect::<Vec<_>>().join(" "), BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use abi_stable::{prefix_type::PrefixTypeTrait, std_types::RStr};
    use fixture_abi_next as next;
    use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

    use super::*;

    fn open(name: &str) -> Library {
        // SAFETY: a fixture of this workspace, without constructors of its own.
        unsafe { Library::open(Some(fixture_packs::library(name)), RTLD_NOW | RTLD_LOCAL) }.unwrap()
    }

    #[test]
    fn a_newer_host_accepts_an_older_pack_and_sees_its_missing_field_as_absent() {
        extern "C" fn log(_: next::LogLevel, _: RStr<'_>) {}
        extern "C" fn extension(_: RStr<'_>) -> usize {
            0
        }
        extern "C" fn now_micros() -> u64 {
            1
        }
        let library = open("scaled");
        let module = root_module::<next::PackModule_Ref>(&library).unwrap();
        assert!(module.describe().and_then(|describe| describe.into_option()).is_none());
        assert_eq!((module.info())().name, "fixture-scaled");
        // The older pack takes the newer host's table, which is longer than the one it knows.
        let host = next::HostApi { log, extension, now_micros }.leak_into_prefix();
        let config = pack_sdk::config_json(
            &fixture_packs::smollm2_shape(),
            fixture_packs::SMOLLM2_SLOT,
            &serde_json::Value::Null,
        );
        let graph = (module.build())(host, RStr::from_str(&config)).into_result().unwrap();
        assert_eq!(graph.nodes.len(), 2);
        drop(graph);
        library.close().unwrap();
    }

    #[test]
    fn an_older_host_accepts_a_newer_pack() {
        let library = open("newer-minor");
        let module = root_module::<pack_abi::PackModule_Ref>(&library).unwrap();
        assert_eq!((module.info())().name, "fixture-newer-minor");
        assert!(module.extension().and_then(|extension| extension.into_option()).is_none());
    }

    #[test]
    fn one_changed_field_under_the_same_major_version_is_found_and_named() {
        let error = root_module::<pack_abi::PackModule_Ref>(&open("other-layout")).err().unwrap();
        let LibraryError::Layout(text) = error else { panic!("{error}") };
        assert!(text.contains("inputs") && text.contains("u32") && text.contains("u64"), "{text}");
    }

    #[test]
    fn another_major_version_is_refused_before_layouts_are_compared() {
        let error = root_module::<pack_abi::PackModule_Ref>(&open("other-major")).err().unwrap();
        assert_eq!(error, LibraryError::AbiMajor { expected: 1, found: 2 });
    }
}
