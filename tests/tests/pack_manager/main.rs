//! The pack manager under requests, on real hosts with real packs: what users of other systems were hurt by.

mod arrivals;
mod machine_faults;
mod passing;
mod replacement;
mod streams;
