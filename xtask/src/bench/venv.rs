//! A Python environment in the cache folder that holds the engine to compare with.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::command::Program;

/// A virtual environment with one package.
pub(crate) struct Venv {
    folder: PathBuf,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
}

impl Venv {
    /// The environment with this version of the package, made now if it is not there. A marker is written when it is
    /// done, so that one whose making was interrupted is made again (an environment can't be renamed).
    pub(crate) fn with(package: &'static str, version: &'static str) -> anyhow::Result<Self> {
        let cache = manifests::folders::cache_folder()
            .context("there is no cache folder: set HOME, XDG_CACHE_HOME or MODULARBASE_CACHE")?;
        let folder = cache.join("bench").join(format!("{package}-{version}"));
        let done = folder.join("installed");
        if !done.is_file() {
            if folder.exists() {
                std::fs::remove_dir_all(&folder)
                    .with_context(|| format!("can't remove {}", folder.display()))?;
            }
            eprintln!(
                "bench: installing {package} {version} (its source may have to be compiled, for minutes)"
            );
            install(&folder, package, version).with_context(|| {
                format!("can't install {package}: it needs python3 with venv, and perhaps cmake and a C++ compiler")
            })?;
            manifests::write_atomically(&done, b"")?;
        }
        Ok(Self { folder, package, version })
    }

    /// Its interpreter.
    pub(crate) fn python(&self) -> Program {
        Program::new(self.folder.join("bin/python"))
    }
}

fn install(folder: &Path, package: &str, version: &str) -> anyhow::Result<()> {
    let Some(parent) = folder.parent() else { bail!("{} has no parent", folder.display()) };
    std::fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
    Program::new("python3").args(["-m", "venv"]).args([folder]).run_quietly()?;
    let requirement = format!("{package}=={version}");
    let pip = Program::new(folder.join("bin/python")).args(["-m", "pip", "install", "--quiet", &requirement]);
    Ok(pip.run_quietly()?)
}
