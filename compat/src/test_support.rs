//! What tests of several modules share.

use std::path::PathBuf;

/// The folder of real archives; `None`, with a word about it, where it is absent.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let found = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("shared/duplicity/fixtures"))
            .find(|dir| dir.is_dir()),
    };
    if found.is_none() {
        println!("skipped: no folder shared/duplicity/fixtures above this one, and DEDUPLICITY_FIXTURES is not set");
    }
    found
}
