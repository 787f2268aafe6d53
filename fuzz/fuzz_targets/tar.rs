//! Tar members of volumes: the reader ends, and never gives more data than there is.
#![no_main]

use std::io::Read;

use compat::member::{Member, Owners, entry_kind};
use compat::tar::TarReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut tar, mut owners, mut given) = (TarReader::new(bytes), Owners::default(), 0);
    loop {
        match tar.next() {
            Ok(Some(header)) => {
                let _ = Member::parse(&header);
                let _ = entry_kind(&header);
                let _ = owners.metadata(&header);
                let mut data = Vec::new();
                let _ = (&mut tar).read_to_end(&mut data);
                given += data.len();
                assert!(given <= bytes.len());
            }
            Ok(None) => return,
            Err(error) if error.is_fatal() => return,
            Err(_) => {}
        }
    }
});
