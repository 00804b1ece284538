//! No false alarms on prose that people wrote: the runbooks under `adopt/`, and this project's own pages.

use std::fs;
use std::path::{Path, PathBuf};

use pgrunbook_document::secrets;

/// Every Markdown file below a folder that is part of the repository.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn prose_without_secrets_raises_no_alarm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    pages(&root, &mut found);
    assert!(found.len() >= 5, "the five runbooks at least: {found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let alarms: Vec<_> = secrets::find(&text)
            .into_iter()
            .map(|secret| (1 + text[..secret.range.start].matches('\n').count(), secret.what))
            .collect();
        assert_eq!(alarms, [], "{}", path.display());
    }
}
