//! Tells the crate its target triple and compiler, which go into the note that every pack carries.

use std::{env, process::Command};

fn main() {
    let target = env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=PACK_ABI_TARGET={target}");
    println!("cargo:rustc-env=PACK_ABI_RUSTC={}", version.trim());
    println!("cargo:rerun-if-changed=build.rs");
}
