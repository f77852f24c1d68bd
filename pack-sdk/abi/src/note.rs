//! The ELF note that tells a host what a library is before any of its code runs.

/// Section that holds the note.
pub const NOTE_SECTION: &str = ".note.modularbase.pack";
/// Owner of the note, with its terminating zero.
pub const NOTE_NAME: [u8; 12] = *b"MODULARBASE\0";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;

/// A well-formed ELF note (`ld.so` walks them): little-endian words, owner padded to 4 bytes.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy)]
pub struct AbiNote {
    /// Bytes of `name`.
    pub name_size: u32,
    /// Bytes after `name`.
    pub descriptor_size: u32,
    /// [`NOTE_TYPE`].
    pub note_type: u32,
    /// [`NOTE_NAME`].
    pub name: [u8; 12],
    /// Major version of `pack-abi`: the ABI.
    pub abi_major: u32,
    /// Minor version of `pack-abi`.
    pub abi_minor: u32,
    /// Patch version of `pack-abi`.
    pub abi_patch: u32,
    /// Operator set of the graphs it builds.
    pub opset: u32,
    /// Target triple, zero-padded.
    pub target: [u8; 48],
    /// `rustc --version`, zero-padded.
    pub rustc: [u8; 64],
}

impl AbiNote {
    /// The note of a pack compiled with this version of the crate.
    pub const fn current() -> Self {
        Self {
            name_size: NOTE_NAME.len() as u32,
            descriptor_size: (core::mem::size_of::<Self>() - 12 - NOTE_NAME.len()) as u32,
            note_type: NOTE_TYPE,
            name: NOTE_NAME,
            abi_major: decimal(env!("CARGO_PKG_VERSION_MAJOR")),
            abi_minor: decimal(env!("CARGO_PKG_VERSION_MINOR")),
            abi_patch: decimal(env!("CARGO_PKG_VERSION_PATCH")),
            opset: crate::OPSET,
            target: fixed_bytes(crate::TARGET),
            rustc: fixed_bytes(crate::RUSTC),
        }
    }
}

/// `text` cut or zero-padded to `N` bytes.
pub const fn fixed_bytes<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let mut out = [0; N];
    let mut index = 0;
    while index < bytes.len() && index < N {
        out[index] = bytes[index];
        index += 1;
    }
    out
}

const fn decimal(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let mut value = 0;
    let mut index = 0;
    while index < bytes.len() {
        value = value * 10 + (bytes[index] - b'0') as u32;
        index += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_states_this_crates_version_and_target() {
        let note = AbiNote::current();
        let version = format!("{}.{}.{}", note.abi_major, note.abi_minor, note.abi_patch);
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert!(note.target.starts_with(crate::TARGET.as_bytes()));
        assert_eq!(12 + note.name_size + note.descriptor_size, core::mem::size_of::<AbiNote>() as u32);
    }
}
