//! Manifests: what was read is written and read again as the same.
#![no_main]

use compat::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(manifest) = Manifest::parse(text) else { return };
    let _ = manifest.check();
    let _ = manifest.volumes();
    let mut written = Vec::new();
    manifest.write(&mut written).expect("memory takes everything");
    let again = Manifest::parse(&written).expect("what was written is a manifest");
    assert_eq!(again.records, manifest.records);
});
