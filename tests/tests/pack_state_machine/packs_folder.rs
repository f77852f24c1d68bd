//! What people do with files, done to a packs folder, and noted in the model before the host can see it.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    folder_model::{Content, FolderModel},
    operations::{Damage, Form},
    shelf::{Made, NAMES, Shelf},
};

/// A packs folder, and one beside it on the same file system where packs are made ready.
pub struct PacksFolder<'a> {
    pub shelf: &'a Shelf,
    pub model: FolderModel<'a>,
    pub packs: PathBuf,
    aside: PathBuf,
    barriers: usize,
}

impl<'a> PacksFolder<'a> {
    /// `packs` is empty, `aside` is there.
    pub fn new(shelf: &'a Shelf, packs: &Path, aside: &Path) -> Self {
        let model = FolderModel::new(shelf);
        Self { shelf, model, packs: packs.to_owned(), aside: aside.to_owned(), barriers: 0 }
    }

    fn folder(&self, name: usize) -> PathBuf {
        self.packs.join(NAMES[name])
    }

    fn archive(&self, name: usize) -> PathBuf {
        self.packs.join(format!("{}.mbpack", NAMES[name]))
    }

    /// A good pack comes.
    pub fn drop_in(&mut self, name: usize, look: usize, form: Form) {
        let made = self.shelf.good(name, look);
        match form {
            Form::Folder | Form::Link => {
                self.take_out_folder(name);
                self.model.folder(name, Content::Good(look));
                self.move_in(name, made, form == Form::Link);
            }
            Form::Archive => {
                let ready = self.aside.join("ready.mbpack");
                fs::copy(&made.archive, &ready).unwrap();
                self.model.archive(name, Content::Good(look));
                fs::rename(ready, self.archive(name)).unwrap();
            }
            Form::SlowArchive => {
                let bytes = fs::read(&made.archive).unwrap();
                self.model.archive(name, Content::Bad);
                let mut file = File::create(self.archive(name)).unwrap();
                let (first, second) = bytes.split_at(bytes.len() / 2);
                file.write_all(first).unwrap();
                self.model.archive(name, Content::Good(look));
                file.write_all(second).unwrap();
            }
        }
    }

    /// A pack comes that fails its probe.
    pub fn drop_bad(&mut self, name: usize, fixture: usize) {
        self.take_out_folder(name);
        self.model.folder(name, Content::Bad);
        self.move_in(name, self.shelf.bad(name, fixture), false);
    }

    fn move_in(&self, name: usize, made: &Made, as_link: bool) {
        if as_link {
            std::os::unix::fs::symlink(&made.folder, self.folder(name)).unwrap();
        } else {
            let ready = self.aside.join("ready");
            made.copy_to(&ready);
            fs::rename(ready, self.folder(name)).unwrap();
        }
    }

    fn take_out_folder(&mut self, name: usize) {
        let folder = self.folder(name);
        if folder.symlink_metadata().is_err() {
            return;
        }
        self.model.folder(name, Content::Nothing);
        let old = self.aside.join("old");
        fs::rename(folder, &old).unwrap();
        if old.is_symlink() {
            fs::remove_file(old).unwrap();
        } else {
            fs::remove_dir_all(old).unwrap();
        }
    }

    /// Folder and archive of a name go.
    pub fn remove(&mut self, name: usize) {
        if self.folder(name).is_symlink() {
            self.take_out_folder(name);
        } else if self.folder(name).exists() {
            // File by file, as `rm -r` does.
            self.model.folder(name, Content::Bad);
            self.model.folder(name, Content::Nothing);
            fs::remove_dir_all(self.folder(name)).unwrap();
        }
        if self.archive(name).exists() {
            self.model.archive(name, Content::Nothing);
            fs::remove_file(self.archive(name)).unwrap();
        }
    }

    /// Files of a good pack are written over whatever lies there; `but_last`: the last one does not come.
    pub fn copy_in_place(&mut self, name: usize, look: usize, manifest_first: bool, but_last: bool) {
        if self.folder(name).is_symlink() {
            self.take_out_folder(name);
        }
        let made = self.shelf.good(name, look);
        let mut files = made.files();
        if manifest_first {
            files.rotate_right(1);
        }
        self.model.folder(name, Content::Bad);
        if !self.folder(name).exists() {
            self.model.folder(name, Content::Nothing);
            fs::create_dir(self.folder(name)).unwrap();
        }
        let last = files.pop().unwrap();
        for file in files {
            self.model.folder(name, Content::Bad);
            // As `cp` does: the file that is there is shortened to nothing and written anew.
            fs::copy(&file, self.folder(name).join(file.file_name().unwrap())).unwrap();
        }
        let place = self.folder(name).join(last.file_name().unwrap());
        if but_last {
            let _ = fs::remove_file(place);
            let has_manifest = self.folder(name).join("pack.toml").exists();
            self.model.folder(name, if has_manifest { Content::Bad } else { Content::Nothing });
            return;
        }
        self.model.folder(name, Content::Good(look));
        fs::copy(&last, place).unwrap();
    }

    /// Damages what lies there; false where there is nothing to damage.
    pub fn damage(&mut self, name: usize, damage: Damage) -> bool {
        let folder = self.folder(name);
        if damage == Damage::Archive {
            let Ok(metadata) = fs::metadata(self.archive(name)) else { return false };
            self.model.archive(name, Content::Bad);
            let file = File::options().write(true).open(self.archive(name)).unwrap();
            file.set_len(metadata.len() / 2).unwrap();
            return true;
        }
        if folder.is_symlink() || !folder.join("pack.toml").exists() {
            return false;
        }
        let file = match damage {
            Damage::Flip => "libfixture_sized.so",
            Damage::Manifest => "pack.toml",
            Damage::Truncate | Damage::Missing | Damage::Archive => "weights.safetensors",
        };
        let path = folder.join(file);
        // A pack that fails its probe may have no such file.
        if !path.exists() {
            return false;
        }
        self.model.folder(name, Content::Bad);
        let mut file = File::options().write(true).open(&path).unwrap();
        match damage {
            Damage::Truncate => file.set_len(file.metadata().unwrap().len() / 2).unwrap(),
            Damage::Flip => {
                file.seek(SeekFrom::Start(5_000)).unwrap();
                file.write_all(b"\x00damage\xff").unwrap();
            }
            Damage::Manifest => file.write_all(b"[[damage").unwrap(),
            Damage::Missing | Damage::Archive => fs::remove_file(&path).unwrap(),
        }
        true
    }

    /// An entry that the host sees after everything that happened before. It goes with the next barrier.
    pub fn barrier(&mut self) -> String {
        self.lift_barrier();
        self.barriers += 1;
        let name = self.barrier_name();
        File::create(self.packs.join(format!("{name}.mbpack"))).unwrap();
        name
    }

    /// Takes the barrier away.
    pub fn lift_barrier(&self) {
        let _ = fs::remove_file(self.packs.join(format!("{}.mbpack", self.barrier_name())));
    }

    fn barrier_name(&self) -> String {
        format!("barrier-{}", self.barriers)
    }
}
