//! Signature files: paths go up strictly.
#![no_main]

use compat::sigtar::SigtarReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut sigtar, mut last) = (SigtarReader::new(bytes), None);
    loop {
        match sigtar.next() {
            Ok(Some(entry)) => {
                assert!(last.as_ref().is_none_or(|last| *last < entry.path));
                last = Some(entry.path);
            }
            Ok(None) => return,
            Err(error) if error.is_fatal() => return,
            Err(_) => {}
        }
    }
});
