//! Compiles the CUDA kernels to PTX, under the feature `cuda` only.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const KERNELS: &str = "src/cuda/kernels";
/// The oldest architecture with bf16 tensor cores; its PTX runs on all newer ones.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={KERNELS}");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let nvcc = nvcc();
    let files = std::fs::read_dir(KERNELS).expect("the folder of the kernels");
    for file in files {
        let path = file.expect("an entry of the folder of the kernels").path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let name = path.file_stem().expect("a name before the extension");
            compile(&nvcc, &path, &out.join(name).with_extension("ptx"));
        }
    }
}

/// `$NVCC`, else the one of `$CUDA_HOME` or `$CUDA_PATH`, else the first in `$PATH`.
fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = env::var_os(variable) {
            let nvcc = Path::new(&root).join("bin/nvcc");
            if nvcc.exists() {
                return nvcc;
            }
        }
    }
    "nvcc".into()
}

fn compile(nvcc: &Path, source: &Path, output: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE, "-o"]).arg(output).arg(source);
    match command.output() {
        Ok(result) if result.status.success() => {}
        Ok(result) => {
            panic!("{command:?} failed with {}:\n{}", result.status, String::from_utf8_lossy(&result.stderr))
        }
        Err(error) => panic!(
            "the feature cuda needs nvcc, CUDA's compiler: {} can't be started ({error}); install the CUDA toolkit or \
             name it by NVCC or CUDA_HOME",
            nvcc.display()
        ),
    }
}
