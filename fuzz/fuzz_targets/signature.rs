//! Signatures against content: the first two bytes say where the content ends.
#![no_main]

use compat::librsync::SignatureCheck;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (content, signature) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let Ok(mut check) = SignatureCheck::new(signature) else { return };
    if check.feed(content).is_ok() {
        let _ = check.finish();
    }
});
