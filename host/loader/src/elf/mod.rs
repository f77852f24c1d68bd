//! Reads a library's ELF structures without loading it: nothing of a pack runs before this found no reason against it.

mod dynamic;
mod finding;
mod imports;
mod inspection;
mod note;

pub use finding::{Finding, Severity};
pub use inspection::{ElfInspection, inspect_library};
pub use note::PackNote;
