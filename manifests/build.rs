//! Hands the target triple to the crate: cargo tells it to build scripts only.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=MANIFESTS_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
