//! The reference pages in `docs/reference` are what the program writes.

use std::path::Path;

use crate::cli::rig::{Folder, bingo};

#[test]
fn the_reference_pages_are_what_the_program_writes() {
    let folder = Folder::new("reference");
    let written = folder.path("reference");
    let result = bingo(&["reference", "--dir", &written.display().to_string()]);
    assert_eq!(result.code, 0, "{}", result.stderr);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let remedy = "write them anew: cargo run -p bingo -- reference --dir docs/reference";
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&kept), names(&written), "{remedy}");
    for name in names(&written) {
        let new = std::fs::read_to_string(written.join(&name)).unwrap();
        let old = std::fs::read_to_string(kept.join(&name)).unwrap();
        let differs = old.lines().zip(new.lines()).find(|(old, new)| old != new);
        assert!(
            old == new,
            "docs/reference/{} has drifted: {differs:?}; {remedy}",
            name.display()
        );
    }
}

#[test]
fn every_key_of_every_configuration_file_has_its_meaning_written_down() {
    let folder = Folder::new("meaning");
    let written = folder.path("reference").display().to_string();
    assert_eq!(bingo(&["reference", "--dir", &written]).code, 0);
    let page = std::fs::read_to_string(folder.path("reference/configuration.md")).unwrap();
    let silent: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `") && line.ends_with("|  |"))
        .collect();
    assert!(silent.is_empty(), "doc comments are missing: {silent:#?}");
}
