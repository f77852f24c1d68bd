//! What holds for this process: command line over environment over configuration file; the base's manifest and the
//! built-in values fill the rest.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use manifests::{HostConfig, HostSettings, Sampling, SamplingSettings, Slot, folders};

use crate::arguments::{AnswerOptions, DtypeChoice, GlobalOptions};
use crate::failure::{Exit, Failure};

/// The settings of this process; sampling is resolved by [`sampling`] once the base is known.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Settings of the host with nothing left open.
    pub(crate) host: HostSettings,
    /// A slot that stands above the base's own.
    pub(crate) slot: Option<Slot>,
    /// Whether results are printed as JSON.
    pub(crate) json: bool,
}

impl Settings {
    /// Resolves the settings.
    pub(crate) fn resolve(options: &GlobalOptions) -> anyhow::Result<Self> {
        let mut config = from_options(options).or(from_environment(|name| std::env::var_os(name))?);
        if let Some(file) = config_file(options.config.as_deref()) {
            config = config.or(HostConfig::read(&file).map_err(|error| {
                anyhow::Error::new(error).context(Failure::usage("the configuration file can't be used"))
            })?);
        }
        if let Some(problem) = config.problems().into_iter().next() {
            let failure = Failure::usage(problem.message);
            return Err(match problem.help {
                Some(help) => failure.help(help),
                None => failure,
            }
            .into());
        }
        if let Some(folder) = options.packs_dir.as_deref().filter(|folder| !folder.is_dir()) {
            let failure = Failure::usage(format!("--packs-dir: {} is no folder", folder.display()));
            return Err(failure.help("name the folder that holds a folder for each pack").into());
        }
        let mut host = config.settings();
        if options.dtype == Some(DtypeChoice::Auto) {
            host.dtype = None;
        }
        Ok(Self { host, slot: options.slot.map(|slot| slot.0), json: options.json })
    }

    /// The folder of packs. Error: nobody said one and there is no home folder.
    pub(crate) fn packs_dir(&self) -> anyhow::Result<&Path> {
        self.host.packs_dir.as_deref().ok_or_else(|| {
            let failure = Failure::usage("there is no folder of packs: neither --packs-dir nor HOME is set");
            failure.help("say --packs-dir DIR").into()
        })
    }
}

/// The cache folder. Error: nobody said one and there is no home folder.
pub(crate) fn cache_folder() -> anyhow::Result<PathBuf> {
    folders::cache_folder().ok_or_else(|| {
        let failure =
            Failure::usage("there is no cache folder: MODULARBASE_CACHE, XDG_CACHE_HOME and HOME are unset");
        failure.help("set MODULARBASE_CACHE to a folder that may be written").into()
    })
}

/// The folder of sessions. Error: nobody said one and there is no home folder.
pub(crate) fn sessions_folder() -> anyhow::Result<PathBuf> {
    folders::sessions_folder().ok_or_else(|| {
        let failure = Failure::usage(
            "there is no folder of sessions: MODULARBASE_SESSIONS_DIR, XDG_STATE_HOME and HOME are unset",
        );
        failure.help("set MODULARBASE_SESSIONS_DIR to a folder that may be written").into()
    })
}

/// How tokens are drawn: command line over configuration over the base's manifest over built-in.
pub(crate) fn sampling(
    options: &AnswerOptions,
    host: &HostSettings,
    base: Sampling,
) -> anyhow::Result<SamplingSettings> {
    let said = Sampling {
        temperature: if options.greedy { Some(0.0) } else { options.temperature },
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
        max_tokens: options.max_tokens,
    };
    // The same judgement as for a file: only the words of the command line can still be wrong here.
    let judged = HostConfig { sampling: said, ..HostConfig::default() };
    match judged.problems().into_iter().next() {
        Some(problem) => Err(Failure::usage(problem.message).into()),
        None => Ok(said.or(host.sampling).or(base).settings()),
    }
}

/// Judges what the command line says of an answer before the base is loaded, which takes its time.
pub(crate) fn check_answer(options: &AnswerOptions, host: &HostSettings) -> anyhow::Result<()> {
    if options.stop.iter().any(String::is_empty) {
        return Err(Failure::usage("a --stop text is empty: it would end every answer at once").into());
    }
    sampling(options, host, Sampling::default()).map(|_| ())
}

fn config_file(said: Option<&Path>) -> Option<PathBuf> {
    // A file that was asked for must exist; the user's own may be absent.
    said.map(Path::to_path_buf).or_else(|| {
        let asked = std::env::var_os("MODULARBASE_CONFIG").is_some_and(|path| !path.is_empty());
        folders::config_file().filter(|path| asked || path.exists())
    })
}

fn from_options(options: &GlobalOptions) -> HostConfig {
    HostConfig {
        packs_dir: options.packs_dir.clone(),
        budget: options.budget,
        base: options.base.clone(),
        device: options.device,
        dtype: match options.dtype {
            Some(DtypeChoice::Fixed(dtype)) => Some(dtype),
            Some(DtypeChoice::Auto) | None => None,
        },
        threads: options.threads,
        mixture: options.mixture.clone(),
        ..HostConfig::default()
    }
}

/// The level of the environment; a variable that is set to nothing says nothing.
fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<HostConfig> {
    let text = |name: &str| -> anyhow::Result<Option<String>> {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let refuse = |value: OsString| Failure::usage(format!("{name}={} is not UTF-8", value.display()));
        Ok(Some(value.into_string().map_err(refuse)?))
    };
    fn parsed<T: FromStr<Err: Display>>(name: &str, text: Option<String>) -> anyhow::Result<Option<T>> {
        let parse = |text: String| {
            text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{name}: {error}")))
        };
        Ok(text.map(parse).transpose()?)
    }
    let dtype = parsed("MODULARBASE_DTYPE", text("MODULARBASE_DTYPE")?)?;
    Ok(HostConfig {
        packs_dir: variable("MODULARBASE_PACKS_DIR").filter(|path| !path.is_empty()).map(PathBuf::from),
        budget: parsed("MODULARBASE_BUDGET", text("MODULARBASE_BUDGET")?)?,
        base: text("MODULARBASE_BASE")?,
        device: parsed("MODULARBASE_DEVICE", text("MODULARBASE_DEVICE")?)?,
        dtype: match dtype {
            Some(DtypeChoice::Fixed(dtype)) => Some(dtype),
            Some(DtypeChoice::Auto) | None => None,
        },
        threads: parsed("MODULARBASE_THREADS", text("MODULARBASE_THREADS")?)?,
        mixture: parsed("MODULARBASE_MIXTURE", text("MODULARBASE_MIXTURE")?)?,
        ..HostConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::{ByteSize, DEFAULT_BASE, Dtype};

    fn options(config: &Path) -> GlobalOptions {
        GlobalOptions { config: Some(config.to_path_buf()), ..GlobalOptions::default() }
    }

    #[test]
    fn the_command_line_stands_above_the_file_and_the_file_above_what_is_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "schema_version = 1\nbudget = \"3MiB\"\ndtype = \"q8_0\"\nthreads = 3\n")
            .unwrap();
        let settings = Settings::resolve(&options(&file)).unwrap();
        assert_eq!((settings.host.budget, settings.host.threads), (Some(ByteSize::mib(3)), 3));
        assert_eq!(settings.host.dtype, Some(Dtype::Q8_0));
        assert_eq!(settings.host.base, DEFAULT_BASE);
        let said = GlobalOptions { threads: Some(2), dtype: Some(DtypeChoice::Auto), ..options(&file) };
        let settings = Settings::resolve(&said).unwrap();
        assert_eq!((settings.host.budget, settings.host.threads), (Some(ByteSize::mib(3)), 2));
        assert_eq!(settings.host.dtype, None, "`auto` overrides the file");
    }

    #[test]
    fn the_environment_is_read_and_its_errors_name_the_variable() {
        let of = |name: &'static str, value: &'static str| {
            from_environment(move |asked| (asked == name).then(|| value.into()))
        };
        assert_eq!(of("MODULARBASE_BUDGET", "2MiB").unwrap().budget, Some(ByteSize::mib(2)));
        assert_eq!(of("MODULARBASE_BUDGET", "").unwrap().budget, None);
        let message = of("MODULARBASE_BUDGET", "much").unwrap_err().to_string();
        assert!(message.starts_with("MODULARBASE_BUDGET: "), "{message}");
    }

    #[test]
    fn sampling_falls_through_every_level() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "schema_version = 1\n[sampling]\ntop_k = 7\n").unwrap();
        let host = Settings::resolve(&options(&file)).unwrap().host;
        let base = Sampling { temperature: Some(0.2), top_k: Some(9), ..Sampling::default() };
        let drawn = sampling(&AnswerOptions::default(), &host, base).unwrap();
        assert_eq!((drawn.temperature, drawn.top_k, drawn.max_tokens), (0.2, 7, 512));
        let greedy = AnswerOptions { greedy: true, ..AnswerOptions::default() };
        assert_eq!(sampling(&greedy, &host, base).unwrap().temperature, 0.0);
        let wrong = AnswerOptions { top_p: Some(1.5), ..AnswerOptions::default() };
        assert!(check_answer(&wrong, &host).unwrap_err().to_string().contains("top_p"));
        let empty = AnswerOptions { stop: vec![String::new()], ..AnswerOptions::default() };
        assert!(check_answer(&empty, &host).unwrap_err().to_string().contains("--stop"));
    }

    #[test]
    fn a_configuration_file_that_was_asked_for_must_exist() {
        assert!(Settings::resolve(&options(Path::new("/nowhere/config.toml"))).is_err());
    }
}
