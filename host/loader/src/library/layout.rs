//! From an opened library to its root module, with every type that crosses the border compared first.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule},
    sabi_types::VersionStrings,
};
use libloading::os::unix::Library;
use pack_abi::PackModule_Ref;

use super::LibraryError;
use crate::text::clipped;

type Version = (u32, u32, u32);

/// The root module of a library. What it gives is valid while the library is open.
///
/// `RootModule::load_*` is not used: it leaks the library on purpose, and its layout cache would point into the closed
/// library afterwards.
pub(super) fn root_module(library: &Library) -> Result<PackModule_Ref, LibraryError> {
    // SAFETY: the symbol is a `LibHeader` in every library that exports it under this name (abi_stable's contract,
    // written by `export_pack!`), so a pointer to it is an `AbiHeaderRef`. `upgrade` checks its magic before use.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL) }
        .map_err(|error| LibraryError::NoExport(error.to_string()))?;
    let header = header.upgrade().map_err(|error| LibraryError::Header(error.to_string()))?;
    check_layout(header)?;
    // SAFETY: `check_layout` compared the layouts of `PackModule` and everything it reaches.
    unsafe { header.unchecked_layout::<PackModule_Ref>() }
        .map_err(|error| LibraryError::Constructor(format!("{error:?}")))
}

fn check_layout(header: &'static LibHeader) -> Result<(), LibraryError> {
    let pack_version = version(header.version_strings())?;
    let host_version = version(PackModule_Ref::VERSION_STRINGS)?;
    if pack_version.0 != host_version.0 {
        return Err(LibraryError::AbiMajor { expected: host_version.0, found: pack_version.0 });
    }
    let pack = header.layout().ok_or(LibraryError::NoLayout)?;
    let host = <PackModule_Ref as StableAbi>::LAYOUT;
    // The checker wants the second to have all that the first has. A newer host has more fields than an older pack,
    // so then the pack is what is asked for.
    let (interface, implementation) = if pack_version < host_version { (pack, host) } else { (host, pack) };
    // Fresh ones each time: they hold pointers into the pack, and abi_stable's own would outlive it.
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(interface, implementation, &globals)
        .map_err(|errors| LibraryError::Layout(first_lines(&errors.to_string())))
}

fn version(strings: VersionStrings) -> Result<Version, LibraryError> {
    let version = strings.parsed().map_err(|error| LibraryError::Header(error.to_string()))?;
    Ok((version.major, version.minor, version.patch))
}

/// abi_stable describes a mismatch over hundreds of lines; the first ones name the type and the field.
fn first_lines(text: &str) -> String {
    const LINES: usize = 24;
    const BYTES: usize = 4_000;
    let text: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).take(LINES).collect();
    clipped(&text.join("\n"), BYTES).to_owned()
}
