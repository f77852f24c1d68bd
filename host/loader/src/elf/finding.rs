//! What the inspection of a library brings to light.

use serde::{Deserialize, Serialize};

/// What follows from a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Shown; the pack may load.
    Warn,
    /// The library is not opened.
    Refuse,
}

/// One thing about a library that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// No ELF file at all, or one the host's dynamic loader could not open.
    #[error("not an ELF shared library for this machine: {0}")]
    NotLoadable(String),
    /// The file ends before something it declares.
    #[error("the file is cut off or damaged: {0}")]
    Damaged(String),
    /// Memory would be writable and executable at once.
    #[error("{0}")]
    ExecutableMemory(String),
    /// It was not built with the SDK.
    #[error("it carries no pack note: build it with the pack SDK's export_pack!")]
    NoteMissing,
    /// The note can't be read.
    #[error("its pack note is malformed: {0}")]
    NoteMalformed(String),
    /// Another major version of the ABI.
    #[error(
        "built for ABI {found}, this host has ABI {expected}: rebuild it with a pack SDK of ABI {expected}"
    )]
    AbiMajor {
        /// The host's.
        expected: u32,
        /// The pack's.
        found: u32,
    },
    /// A newer operator set.
    #[error("it builds graphs of opset {found}, this host knows opsets up to {newest}: use a newer host")]
    Opset {
        /// The newest this host knows.
        newest: u32,
        /// The pack's.
        found: u32,
    },
    /// Another target.
    #[error("built for {found}, this host is {expected}: rebuild it for that target")]
    Target {
        /// The host's.
        expected: String,
        /// The pack's.
        found: String,
    },
    /// The symbol that leads into the pack is missing.
    #[error("it does not export a pack: use export_pack! once in a crate of type cdylib")]
    NoExport,
    /// A library that a pack has no need of.
    #[error("it needs the library `{0}`; a pack may need only libc, libm, libgcc_s and the dynamic loader")]
    ForeignLibrary(String),
    /// A search path of its own.
    #[error("it brings its own library search path ({0}); link it without rpath")]
    SearchPath(String),
    /// Marks that keep the library mapped for ever or let it stand in for others.
    #[error("it is linked with {0}")]
    LinkFlag(String),
    /// A symbol that the dynamic loader makes unique in the process, which keeps the library mapped for ever.
    #[error("its symbol `{0}` is GNU_UNIQUE, so it would never unload")]
    UniqueSymbol(String),
    /// Code that runs at `dlopen`, beyond what any Rust library has.
    #[error("it runs {found} functions when it is opened, plain Rust has {usual}")]
    Constructors {
        /// Found.
        found: u64,
        /// In a plain Rust library.
        usual: u64,
    },
    /// Something a description of a graph has no need of.
    #[error("it can {does} (imports `{symbol}`)")]
    Import {
        /// The imported function.
        symbol: String,
        /// What that is for.
        does: String,
        /// Whether that alone is enough to refuse it.
        refuse: bool,
    },
}

impl Finding {
    /// What follows.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Constructors { .. } | Self::Import { refuse: false, .. } => Severity::Warn,
            _ => Severity::Refuse,
        }
    }
}
