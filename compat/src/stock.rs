//! Tests: the real archives made by stock duplicity.

use std::fs;
use std::path::{Path, PathBuf};

use crate::name::Prefixes;
use crate::store::StoredFile;

/// One of them.
pub struct Fixture {
    pub name: String,
    pub dir: PathBuf,
    pub info: serde_json::Value,
}

/// All of them, by name; empty, with a word about it, where they are absent.
pub fn fixtures() -> Vec<Fixture> {
    let root = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("shared/duplicity/fixtures"))
            .find(|dir| dir.is_dir()),
    };
    let Some(root) = root else {
        println!("skipped: no folder shared/duplicity/fixtures above this one, and DEDUPLICITY_FIXTURES is not set");
        return Vec::new();
    };
    let mut dirs: Vec<PathBuf> = fs::read_dir(root.join("public")).expect("public").map(|e| e.expect("entry").path()).collect();
    dirs.retain(|dir| dir.join("info.json").is_file());
    dirs.sort();
    assert!(!dirs.is_empty(), "no fixture in {}", root.display());
    dirs.into_iter().map(Fixture::open).collect()
}

impl Fixture {
    fn open(dir: PathBuf) -> Self {
        let info = serde_json::from_slice(&fs::read(dir.join("info.json")).expect("info.json")).expect("JSON");
        Self { name: dir.file_name().expect("name").to_string_lossy().into_owned(), dir, info }
    }

    pub fn files(&self) -> Vec<StoredFile> {
        let entries = fs::read_dir(self.dir.join("archive")).expect("archive").map(|e| e.expect("entry"));
        entries
            .map(|e| StoredFile {
                name: e.file_name().into_string().expect("UTF-8"),
                size: Some(e.metadata().expect("metadata").len()),
            })
            .collect()
    }

    /// As the restore options give them.
    pub fn prefixes(&self) -> Prefixes {
        let options = self.info["extra_restore_options"].as_array().cloned().unwrap_or_default();
        let option = |name: &str| {
            let at = options.iter().position(|o| o.as_str() == Some(name));
            at.and_then(|at| options.get(at + 1)?.as_str()).unwrap_or_default().to_owned()
        };
        Prefixes {
            all: option("--file-prefix"),
            archive: option("--file-prefix-archive"),
            manifest: option("--file-prefix-manifest"),
            signature: option("--file-prefix-signature"),
            jsonstat: option("--file-prefix-jsonstat"),
        }
    }
}
