//! The two root structs: what a pack exports and what a host offers to its `build`.

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{ROption, RResult, RStr, RString},
};

use crate::Graph;

/// Why a call into a pack failed.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The pack panicked; the unwind was caught inside the pack.
    pub const PANIC: Self = Self(1);
    /// The configuration does not suit the pack.
    pub const INVALID_CONFIG: Self = Self(2);
    /// Anything else the pack reports.
    pub const INTERNAL: Self = Self(3);
}

/// An error from inside a pack. Its text is allocated by the pack: copy it before the library closes.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct PackError {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What happened, for a person.
    pub message: RString,
}

/// Result of a call into a pack.
pub type AbiResult<T> = RResult<T, PackError>;

/// What a pack says of itself.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct PackInfo {
    /// Crate name.
    pub name: RString,
    /// Crate version.
    pub version: RString,
    /// Compiler, as `rustc --version` prints it.
    pub rustc: RString,
    /// Version of the SDK the pack was built with.
    pub sdk_version: RString,
}

/// Severity of a message that a pack hands to [`HostApi::log`].
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogLevel(pub u32);

impl LogLevel {
    /// Something failed.
    pub const ERROR: Self = Self(1);
    /// Something is odd.
    pub const WARN: Self = Self(2);
    /// For operators.
    pub const INFO: Self = Self(3);
    /// For pack authors.
    pub const DEBUG: Self = Self(4);
}

/// What the host offers while `build` runs. Lives as long as the call; grows at its end only.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostApi_Ref, prefix_fields = HostApi_Prefix)))]
#[sabi(missing_field(option))]
pub struct HostApi {
    /// Writes one line to the host's log, attributed to the pack.
    pub log: extern "C" fn(LogLevel, RStr<'_>),
    /// A host extension by string id and revision (`"org.modularbase.custom-op/1"`), as CLAP does: the address of a
    /// struct that the extension's own documentation describes, or 0 where the host does not have it.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(RStr<'_>) -> usize,
}

/// The root module of a pack. Fields after `build` are optional on older packs.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PackModule_Ref, prefix_fields = PackModule_Prefix)))]
#[sabi(missing_field(option))]
pub struct PackModule {
    /// Name, version, compiler.
    pub info: extern "C" fn() -> PackInfo,
    /// `build(host, config)` gives the pack's graph. `config` is the JSON text that the pack manifest's `[config]`
    /// table and the base's shape make up; see the SDK's `Config`.
    #[sabi(last_prefix_field)]
    pub build: extern "C" fn(HostApi_Ref, RStr<'_>) -> AbiResult<Graph>,
    /// A pack's extension by id and revision, like [`HostApi::extension`].
    pub extension: ROption<extern "C" fn(RStr<'_>) -> usize>,
}

impl RootModule for PackModule_Ref {
    declare_root_module_statics! {PackModule_Ref}
    const BASE_NAME: &'static str = "modularbase_pack";
    const NAME: &'static str = "modularbase_pack";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
