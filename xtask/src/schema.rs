//! `schema`: the JSON schemas of the manifests, kept in the repository for editors.

use anyhow::{Context, bail};

use crate::cargo_workspace::CargoWorkspace;

/// Writes `manifests/schema/*.schema.json`; with `check` only tells whether they are current.
pub(crate) fn schema(check: bool) -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    let folder = workspace.root.join("manifests/schema");
    if !workspace.packages.iter().any(|package| package == "manifests") {
        bail!(
            "{} has no crate `manifests`: the schemas are kept in ModularBase's own repository",
            workspace.root.display()
        );
    }
    for (name, text) in manifests::schema_files() {
        let path = folder.join(name);
        let is_current = std::fs::read_to_string(&path).is_ok_and(|found| found == text);
        if check && !is_current {
            bail!("{} is not current: run `cargo xtask schema`", path.display());
        }
        if !is_current {
            std::fs::create_dir_all(&folder)?;
            manifests::write_atomically(&path, text.as_bytes())
                .with_context(|| format!("can't write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(())
}
