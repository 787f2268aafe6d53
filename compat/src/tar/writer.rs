//! Headers byte for byte as Python's `tarfile` (3.8 and later) writes them for duplicity.

use super::error::{NumberProblem, TarErrorKind};
use super::header::{Header, TarKind};
use super::{BLOCK, MAX_EXTENSION};

/// Size of the records that a tar is filled up to, in bytes.
const RECORD: u64 = 10_240;
/// First values that the octal fields cannot hold.
const LIMIT_7: u64 = 1 << 21;
const LIMIT_11: u64 = 1 << 33;

/// Appends a member's headers: a pax header where one is needed, then the main one. `header.size` bytes of data and
/// [`padding`] have to follow. The name is written as it is: a directory's has to end with a slash.
///
/// Fails for a NUL in a text, a device number of 2^21 or more, or texts that do not fit into a pax header.
pub fn write_header(out: &mut Vec<u8>, header: &Header) -> Result<(), TarErrorKind> {
    if [&header.name, &header.link, &header.uname, &header.gname].iter().any(|text| text.contains(&0)) {
        return Err(TarErrorKind::Nul);
    }
    let records = pax_records(header);
    let size = records.len() as u64;
    if size > MAX_EXTENSION {
        return Err(TarErrorKind::ExtensionTooLarge(size));
    }
    let main = block(header)?;
    if size > 0 {
        let extension = Header { name: b"././@PaxHeader".to_vec(), kind: TarKind::Other(b'x'), size, ..Header::default() };
        out.extend_from_slice(&block(&extension)?);
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(size), 0);
    }
    out.extend_from_slice(&main);
    Ok(())
}

/// Zeros that have to follow `size` bytes of data.
#[must_use]
pub fn padding(size: u64) -> usize {
    let past = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if past == 0 { 0 } else { BLOCK - past }
}

/// Zeros that end a tar of `written` bytes: up to the next multiple of 10,240, and 10,240 where that is none.
#[must_use]
pub fn terminator(written: u64) -> u64 {
    RECORD - written % RECORD
}

fn pax_records(header: &Header) -> Vec<u8> {
    let mut fields: Vec<(&str, Vec<u8>)> = Vec::new();
    let texts = [
        ("path", &header.name, 100),
        ("linkpath", &header.link, 100),
        ("uname", &header.uname, 32),
        ("gname", &header.gname, 32),
    ];
    for (key, text, room) in texts {
        if !text.is_ascii() || text.len() > room {
            fields.push((key, text.clone()));
        }
    }
    let mut number = |key, is_needed: bool, value: i128| {
        if is_needed {
            fields.push((key, value.to_string().into_bytes()));
        }
    };
    number("uid", u64::from(header.uid) >= LIMIT_7, header.uid.into());
    number("gid", u64::from(header.gid) >= LIMIT_7, header.gid.into());
    number("size", header.size >= LIMIT_11, header.size.into());
    number("mtime", fitting_time(header.mtime).is_none(), header.mtime.into());

    let mut records = Vec::new();
    if fields.iter().any(|(_, value)| std::str::from_utf8(value).is_err()) {
        records.extend_from_slice(b"21 hdrcharset=BINARY\n");
    }
    for (key, value) in fields {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + decimal_digits(length) {
            length = rest + decimal_digits(length);
        }
        records.extend_from_slice(format!("{length} {key}=").as_bytes());
        records.extend_from_slice(&value);
        records.push(b'\n');
    }
    records
}

fn decimal_digits(n: usize) -> usize {
    n.to_string().len()
}

fn fitting_time(mtime: i64) -> Option<u64> {
    u64::try_from(mtime).ok().filter(|m| *m < LIMIT_11)
}

/// One header block; what does not fit is cut or 0, as pax says it in full.
fn block(header: &Header) -> Result<[u8; BLOCK], TarErrorKind> {
    let mut block = [0; BLOCK];
    let fitting = |value: u64, limit: u64| if value < limit { value } else { 0 };
    text(&mut block[..100], &header.name);
    octal(&mut block[100..108], u64::from(header.mode & 0o7777));
    octal(&mut block[108..116], fitting(header.uid.into(), LIMIT_7));
    octal(&mut block[116..124], fitting(header.gid.into(), LIMIT_7));
    octal(&mut block[124..136], fitting(header.size, LIMIT_11));
    octal(&mut block[136..148], fitting_time(header.mtime).unwrap_or(0));
    block[148..156].fill(b' ');
    block[156] = header.kind.code();
    text(&mut block[157..257], &header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    text(&mut block[265..297], &header.uname);
    text(&mut block[297..329], &header.gname);
    if matches!(header.kind, TarKind::CharDevice | TarKind::BlockDevice) {
        for (at, number, field) in [(329, header.major, "major device number"), (337, header.minor, "minor device number")] {
            if u64::from(number) >= LIMIT_7 {
                return Err(TarErrorKind::Number { field, problem: NumberProblem::Overflow });
            }
            octal(&mut block[at..at + 8], number.into());
        }
    }
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    Ok(block)
}

/// Digits filling the field but for the NUL behind them.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    field[width] = 0;
}

/// Text cut to the field, each character that is not ASCII replaced by `?`, as is each byte that is no character.
fn text(field: &mut [u8], text: &[u8]) {
    let ascii = text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?'));
        valid.chain(chunk.invalid().iter().map(|_| b'?'))
    });
    for (place, byte) in field.iter_mut().zip(ascii) {
        *place = byte;
    }
}
