//! Bases of every form and shape: what is sound is read, what is damaged is refused.

mod damaged_folders;
mod gguf_files;
mod small_gguf;
mod sound_folders;
mod tiny_checkpoint;
