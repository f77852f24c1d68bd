//! Folders that are not what their manifest says.

use std::{fs, os::unix::fs::symlink, path::Path};

use fixture_packs::{TestHost, lay_out};
use modularbase_loader::{FolderError, LoadFailure, inspect};

fn folder_error(folder: &Path) -> (FolderError, String) {
    let error = inspect(folder).unwrap_err();
    let text = error.to_string();
    let LoadFailure::Folder(error) = *error.failure else { panic!("{text}") };
    (error, text)
}

#[test]
fn a_changed_a_cut_off_and_a_missing_file_are_named() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("scaled", &host.packs());
    let library = folder.join("libfixture_scaled.so");
    let sound = fs::read(&library).unwrap();

    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    fs::write(&library, &flipped).unwrap();
    let (error, text) = folder_error(&folder);
    assert!(matches!(error, FolderError::Hash { .. }) && text.contains("libfixture_scaled.so"), "{text}");

    fs::write(&library, &sound[..sound.len() - 1]).unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::Size { .. }));

    fs::remove_file(&library).unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::Read { .. }));

    fs::write(&library, &sound).unwrap();
    inspect(&folder).unwrap();
}

#[test]
fn links_out_of_the_folder_pipes_and_directories_are_refused_without_waiting() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = lay_out("scaled", &host.packs());
    let library = folder.join("libfixture_scaled.so");
    let outside = host.root.path().join("outside.so");
    fs::rename(&library, &outside).unwrap();

    symlink(&outside, &library).unwrap();
    let (error, text) = folder_error(&folder);
    assert!(matches!(error, FolderError::LeavesFolder { .. }) && text.contains("outside.so"), "{text}");

    fs::remove_file(&library).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &library,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::NotRegular(_)));

    fs::remove_file(&library).unwrap();
    fs::create_dir(&library).unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::NotRegular(_)));

    // A link within the folder is none of our business.
    fs::remove_dir(&library).unwrap();
    fs::rename(&outside, folder.join("real.so")).unwrap();
    symlink("real.so", &library).unwrap();
    inspect(&folder).unwrap();
}

#[test]
fn a_folder_without_a_sound_manifest_is_named_by_its_own_name() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let folder = host.packs().join("empty");
    assert!(inspect(&folder).unwrap_err().to_string().starts_with("pack `empty`: can't read"));
    fs::create_dir_all(&folder).unwrap();
    let (error, text) = folder_error(&folder);
    assert!(matches!(error, FolderError::Read { .. }) && text.contains("pack.toml"), "{text}");

    fs::write(folder.join("pack.toml"), "schema_version = 1\n[pack]\nid = 3").unwrap();
    let (error, text) = folder_error(&folder);
    assert!(matches!(error, FolderError::Manifest(_)) && text.contains("pack.toml:3"), "{text}");

    fs::write(folder.join("pack.toml"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::Manifest(_)));

    fs::write(folder.join("pack.toml"), vec![b'#'; 2 << 20]).unwrap();
    assert!(matches!(folder_error(&folder).0, FolderError::ManifestTooLarge(_)));
}

#[test]
fn a_replaced_file_is_another_generation_and_a_copied_folder_is_the_same() {
    let host = TestHost::new(env!("CARGO_BIN_EXE_pack-probe"));
    let generation = |folder: &Path| inspect(folder).unwrap().folder.generation;
    let first = generation(&lay_out("scaled", &host.packs()));
    assert_eq!(first, generation(&lay_out("scaled", &host.root.path().join("elsewhere"))));
    let other = fixture_packs::lay_out_with("scaled", &host.packs(), |manifest| {
        manifest.pack.description.push('!');
    });
    assert_ne!(first, generation(&other));
}
