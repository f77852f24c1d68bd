//! Pages of HTML about runs and evaluations: one file each, no network, readable in light and dark.

mod axis;
mod evaluation_page;
mod interval_chart;
mod line_chart;
mod page;
mod run_page;

pub use evaluation_page::evaluation_page;
pub use run_page::{FormLoss, RunFacts, WeightFacts, write_report};
