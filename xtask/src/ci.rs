//! `ci`: what has to hold before a change lands.

use crate::cargo_workspace::CargoWorkspace;
use crate::command::Program;

/// Minutes of the soak.
const SOAK_MINUTES: f64 = 2.0;

/// Format, lints, a short soak, tests; the first failure ends it. The quick ones come first, cargo test's summary last.
pub(crate) fn ci() -> anyhow::Result<()> {
    let workspace = CargoWorkspace::current()?;
    let cargo =
        |arguments: &[&str]| Program::cargo().args(arguments).in_folder(&workspace.root).run_quietly();
    cargo(&["fmt", "--all", "--check"])?;
    // The release profile shares its build scripts and macros with the tests' build.
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    crate::soak::soak(SOAK_MINUTES, &[])?;
    crate::test::test(&[])
}
