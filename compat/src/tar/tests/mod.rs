mod differential;
mod hostile;
mod reading;

use std::io::Read;

use super::*;

/// A header block of a regular file with the given changes, its checksum made to fit.
fn block(change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(&mut out, &Header { name: b"a".to_vec(), mode: 0o644, ..Header::default() }).expect("valid");
    let mut block: [u8; BLOCK] = out.try_into().expect("one block");
    change(&mut block);
    seal(&mut block);
    block.to_vec()
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn put(block: &mut [u8; BLOCK], at: usize, text: &[u8]) {
    block[at..at + text.len()].copy_from_slice(text);
}

/// An extension header with its payload.
fn extension(code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = block(|b| {
        b[156] = code;
        put(b, 124, format!("{:011o}\0", payload.len()).as_bytes());
    });
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// A file's block and data.
fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { name: name.to_vec(), size: data.len() as u64, ..Header::default() };
    write_header(&mut out, &header).expect("valid");
    out.extend_from_slice(data);
    out.resize(out.len() + padding(header.size), 0);
    out
}

type Members = Vec<(Header, Vec<u8>)>;

/// All members with their data, and whether the end was marked.
fn read_all(tar: &[u8]) -> Result<(Members, bool), TarError> {
    let mut reader = TarReader::new(tar);
    let mut members = Vec::new();
    while let Some(header) = reader.next()? {
        let mut data = Vec::new();
        if let Err(e) = reader.read_to_end(&mut data) {
            return Err(e.downcast::<TarError>().expect("a tar error"));
        }
        members.push((header, data));
    }
    Ok((members, reader.ended_by_terminator()))
}

fn error_of(tar: &[u8]) -> TarError {
    read_all(tar).expect_err("hostile input")
}
