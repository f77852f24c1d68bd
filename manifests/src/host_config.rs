//! The host's configuration: what a user fixes once instead of on every command line.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::byte_size::ByteSize;
use crate::context_config::{ContextConfig, ContextSettings};
use crate::device::DeviceChoice;
use crate::document::{self, Document, Problem, SCHEMA_VERSION};
use crate::dtype::Dtype;
use crate::error::ManifestError;
use crate::mixture::MixtureChoice;
use crate::packs_config::{PacksConfig, PacksSettings};
use crate::routing_config::RoutingConfig;
use crate::sampling::Sampling;
use crate::trust_config::{TrustConfig, TrustSettings};

/// The base where nothing is said.
pub const DEFAULT_BASE: &str = "smollm2-135m-instruct";

/// The configuration as written; every field but the version may be absent.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Version of this format.
    pub schema_version: u32,
    /// The watched folder of packs; default: see `folders::default_packs_folder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packs_dir: Option<PathBuf>,
    /// Device memory for base, caches and packs together; default: what the base needs, and 512MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<ByteSize>,
    /// Name of a base, or path of a base manifest, model file or folder; default `smollm2-135m-instruct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Where the model runs; default `cpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
    /// How the base's weights are held; default: as the file holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Threads that compute, from 1; default: as many as the process may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Which packs answer; default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<MixtureChoice>,
    /// How tokens are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Which packs stay on the device, and how long what may take.
    #[serde(default)]
    pub packs: PacksConfig,
    /// Whose packs are let in.
    #[serde(default)]
    pub trust: TrustConfig,
    /// Texts longer than a window.
    #[serde(default)]
    pub context: ContextConfig,
    /// How the router's scores become a mixture.
    #[serde(default)]
    pub routing: RoutingConfig,
}

/// The configuration with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSettings {
    /// The folder of packs; `None`: nobody said one, and the user has no home folder either.
    pub packs_dir: Option<PathBuf>,
    /// Device memory for base, caches and packs together; `None`: what the base needs, and 512 MiB.
    pub budget: Option<ByteSize>,
    /// Name of a base, or path of a base manifest, model file or folder.
    pub base: String,
    /// Where the model runs.
    pub device: DeviceChoice,
    /// How the base's weights are held; `None`: as the file holds them.
    pub dtype: Option<Dtype>,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// Which packs answer.
    pub mixture: MixtureChoice,
    /// What was said of sampling; the base's manifest fills the rest.
    pub sampling: Sampling,
    /// Which packs stay on the device, and how long what may take.
    pub packs: PacksSettings,
    /// Whose packs are let in.
    pub trust: TrustSettings,
    /// Texts longer than a window.
    pub context: ContextSettings,
    /// What was said of routing; the router pack says the rest.
    pub routing: RoutingConfig,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            packs_dir: None,
            budget: None,
            base: None,
            device: None,
            dtype: None,
            threads: None,
            mixture: None,
            sampling: Sampling::default(),
            packs: PacksConfig::default(),
            trust: TrustConfig::default(),
            context: ContextConfig::default(),
            routing: RoutingConfig::default(),
        }
    }
}

impl HostConfig {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        document::read(path)
    }

    /// Parses and checks a configuration's text.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        document::parse(text)
    }

    /// Parses and checks a configuration's bytes.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        document::parse_bytes(bytes)
    }

    /// Every fault of meaning; empty when the configuration holds.
    pub fn problems(&self) -> Vec<Problem> {
        Document::problems(self)
    }

    /// The configuration as TOML: what is parsed from it equals this configuration.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// What this level says, else what `lower` says: the command line over the file.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            schema_version: self.schema_version,
            packs_dir: self.packs_dir.or(lower.packs_dir),
            budget: self.budget.or(lower.budget),
            base: self.base.or(lower.base),
            device: self.device.or(lower.device),
            dtype: self.dtype.or(lower.dtype),
            threads: self.threads.or(lower.threads),
            mixture: self.mixture.or(lower.mixture),
            sampling: self.sampling.or(lower.sampling),
            packs: self.packs.or(lower.packs),
            trust: self.trust.or(lower.trust),
            context: self.context.or(lower.context),
            routing: self.routing.or(lower.routing),
        }
    }

    /// With the built-in values where nothing was said.
    pub fn settings(self) -> HostSettings {
        let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        HostSettings {
            packs_dir: self.packs_dir.or_else(crate::folders::default_packs_folder),
            budget: self.budget,
            base: self.base.unwrap_or_else(|| DEFAULT_BASE.to_string()),
            device: self.device.unwrap_or_default(),
            dtype: self.dtype,
            threads: self.threads.map_or_else(available, |threads| threads as usize),
            mixture: self.mixture.unwrap_or_default(),
            sampling: self.sampling,
            packs: self.packs.settings(),
            trust: self.trust.settings(),
            context: self.context.settings(),
            routing: self.routing,
        }
    }
}

impl Document for HostConfig {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.packs_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            problems.push(
                Problem::new(&["packs_dir"], "packs_dir is empty").help("leave it out for the default"),
            );
        }
        if self.base.as_ref().is_some_and(|base| base.trim().is_empty()) {
            problems.push(Problem::new(&["base"], "base is empty").help("leave it out for the default"));
        }
        if let Some(dtype) = self.dtype.filter(|dtype| dtype.is_delta()) {
            let message = format!("dtype: the base's weights can't be held as {dtype}");
            let problem = Problem::new(&["dtype"], message);
            problems.push(
                problem.help("deltas are a format of packs' files; [packs] delta says how they are held"),
            );
        }
        match self.threads {
            Some(threads) if threads == 0 || threads > 4096 => {
                let problem =
                    Problem::new(&["threads"], format!("threads must be 1 to 4096, found {threads}"));
                problems.push(problem.help("leave it out to use every core"));
            }
            _ => {}
        }
        problems.extend(self.sampling.problems("sampling"));
        problems.extend(self.packs.problems());
        problems.extend(self.trust.problems());
        problems.extend(self.context.problems());
        problems.extend(self.routing.problems());
        problems
    }
}
