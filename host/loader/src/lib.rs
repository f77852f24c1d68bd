//! From a folder to a checked pack: manifest, hashes, ELF inspection, probe, library handle.
