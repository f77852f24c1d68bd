//! `run`: from a fresh clone to an answer.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;

use crate::cargo_workspace::CargoWorkspace;
use crate::host_binary::HostBinary;
use crate::pack_build::{LazyHost, default_out, lay_out_built, lay_out_weights, weights_out};

/// Where the host looks for packs.
const PACKS_DIR: &str = "MODULARBASE_PACKS_DIR";

/// Builds, lays out, fetches, and becomes `modularbase`.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    let mut packages = vec!["modularbase"];
    packages.extend(workspace.packs().iter().map(|pack| pack.package.as_str()));
    workspace.build(&packages)?;
    let host = HostBinary::built_in(&workspace);
    let base_is_set = std::env::var_os("MODULARBASE_BASE").is_some_and(|base| !base.is_empty());
    let has_base = !base_is_set && needs_default_base(arguments);
    if has_base {
        host.fetch_base()?;
    }
    lay_out_packs(&workspace, &host, has_base)?;
    let (chosen, example) = (arguments, example_arguments());
    let mut program = host.program().args(if chosen.is_empty() { &example } else { chosen });
    if std::env::var_os(PACKS_DIR).is_none_or(|folder| folder.is_empty()) {
        program = program.env(PACKS_DIR, workspace.packs_folder());
    }
    Err(program.exec().into())
}

/// Lays out every pack of the workspace, already built, in `target/packs`; `has_base`: the base was fetched.
pub(crate) fn lay_out_packs(
    workspace: &CargoWorkspace,
    host: &HostBinary,
    has_base: bool,
) -> anyhow::Result<()> {
    let mut help = LazyHost::ready(host.clone(), has_base);
    for pack in workspace.packs() {
        lay_out_built(workspace, pack, &default_out(workspace, pack)?, &mut help)?;
    }
    for folder in workspace.weight_packs()? {
        lay_out_weights(&folder, &weights_out(workspace, &folder)?)?;
    }
    Ok(())
}

/// What is started when nothing is asked for: a conversation where there is somebody to talk to, else an example.
fn example_arguments() -> Vec<OsString> {
    let words: &[&str] = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        &["chat"]
    } else {
        &["run", "What is gravity?", "--max-tokens", "48"]
    };
    words.iter().map(OsString::from).collect()
}

/// Whether the command works with the default base: asking for help or another base must not start a download.
fn needs_default_base(arguments: &[OsString]) -> bool {
    let is_another_base = |word: &OsStr| word == "--base" || word.to_string_lossy().starts_with("--base=");
    let is_help = |word: &OsStr| ["--help", "-h", "--version", "-V", "help"].iter().any(|help| word == *help);
    let manages_bases = arguments.first().is_some_and(|word| word == "base");
    !manages_bases && !arguments.iter().any(|word| is_another_base(word) || is_help(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_that_use_the_default_base_fetch_it() {
        let needs =
            |words: &[&str]| needs_default_base(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(needs(&[]));
        assert!(needs(&["run", "base"]));
        assert!(needs(&["packs", "list"]));
        assert!(!needs(&["base", "list"]));
        assert!(!needs(&["run", "x", "--base", "other.gguf"]));
        assert!(!needs(&["run", "x", "--base=other.gguf"]));
        assert!(!needs(&["--help"]));
    }
}
