//! Deltas over a basis: the first two bytes say where the basis ends.
#![no_main]

use std::io::Read;

use compat::librsync::{DeltaReader, is_identity};
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (basis, delta) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let mut content = Vec::new();
    let result = DeltaReader::new(delta, basis, LIMIT).read_to_end(&mut content);
    assert!(content.len() as u64 <= LIMIT);
    if is_identity(delta, basis.len() as u64) {
        result.expect("a copy of everything is a delta");
        assert_eq!(content, basis);
    }
});
