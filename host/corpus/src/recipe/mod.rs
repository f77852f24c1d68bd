//! Recipes: public text fetched, taken out of its packages, cleaned and split.

mod cleaning;
mod client_program;
mod download_store;
mod error;
mod extraction;
mod making;
mod man_page;
mod markup;
mod mdoc;
mod package;
mod package_clients;
mod progress;
mod records;
mod report;
mod troff_text;

pub use error::{RecipeError, SourceFault};
pub use making::{RecipeMaker, make_recipe, split_files};
pub use package_clients::Hub;
pub use progress::RecipeProgress;
pub use report::{REPORT_FILE, RecipeReport, ReportedFile, ReportedSource};
