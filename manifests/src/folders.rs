//! Where the host keeps its files.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of everything that can be fetched or made again: `$MODULARBASE_CACHE`, else `$XDG_CACHE_HOME/modularbase`,
/// else `~/.cache/modularbase`. `None` when none of the three variables is set.
pub fn cache_folder() -> Option<PathBuf> {
    cache_folder_from(|name| std::env::var_os(name))
}

/// The folder of base files: `bases` in [`cache_folder`].
pub fn bases_folder() -> Option<PathBuf> {
    Some(cache_folder()?.join("bases"))
}

/// The packs folder where nothing else is said: `$MODULARBASE_PACKS_DIR`, else `$XDG_DATA_HOME/modularbase/packs`, else
/// `~/.local/share/modularbase/packs`.
pub fn default_packs_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    if let Some(folder) = set(&variable, "MODULARBASE_PACKS_DIR") {
        return Some(folder);
    }
    Some(user_folder(&variable, "XDG_DATA_HOME", ".local/share")?.join("packs"))
}

/// The folder of sessions, which are texts that nobody can fetch again: `$MODULARBASE_SESSIONS_DIR`, else
/// `$XDG_STATE_HOME/modularbase/sessions`, else `~/.local/state/modularbase/sessions`.
pub fn sessions_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    if let Some(folder) = set(&variable, "MODULARBASE_SESSIONS_DIR") {
        return Some(folder);
    }
    Some(user_folder(&variable, "XDG_STATE_HOME", ".local/state")?.join("sessions"))
}

/// The host's configuration file: `$MODULARBASE_CONFIG`, else `$XDG_CONFIG_HOME/modularbase/config.toml`, else
/// `~/.config/modularbase/config.toml`. It need not exist.
pub fn config_file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    if let Some(file) = set(&variable, "MODULARBASE_CONFIG") {
        return Some(file);
    }
    Some(user_folder(&variable, "XDG_CONFIG_HOME", ".config")?.join("config.toml"))
}

fn cache_folder_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    set(&variable, "MODULARBASE_CACHE").or_else(|| user_folder(&variable, "XDG_CACHE_HOME", ".cache"))
}

fn user_folder(variable: &impl Fn(&str) -> Option<OsString>, xdg: &str, in_home: &str) -> Option<PathBuf> {
    let parent = set(variable, xdg).or_else(|| Some(set(variable, "HOME")?.join(in_home)))?;
    Some(parent.join("modularbase"))
}

/// An empty variable counts as unset.
fn set(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_folder_follows_the_first_variable_that_is_set() {
        let with = |set: &'static [(&str, &str)]| {
            cache_folder_from(move |name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(with(&[("MODULARBASE_CACHE", "/m"), ("HOME", "/h")]), Some("/m".into()));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some("/x/modularbase".into()));
        assert_eq!(with(&[("XDG_CACHE_HOME", ""), ("HOME", "/h")]), Some("/h/.cache/modularbase".into()));
        assert_eq!(with(&[]), None);
    }
}
