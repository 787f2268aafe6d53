//! File names and collections of them: whatever a folder holds, nothing panics, and a name that is taken apart is put together the
//! same.
#![no_main]

use compat::collection::Collection;
use compat::name::{Prefixes, parse};
use compat::store::StoredFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let prefixes = Prefixes::default();
    let files: Vec<StoredFile> = text.lines().map(|name| StoredFile { name: name.to_owned(), size: None }).collect();
    let known = files.iter().filter(|file| parse(&file.name, &prefixes).is_some()).count();
    let collection = Collection::new(files, &prefixes);
    assert!(collection.sets().len() <= known);
});
