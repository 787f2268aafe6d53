//! What `rsync --list-only` prints.

use compat::store::StoredFile;

use crate::MAX_FILES;
use crate::error::Failure;

/// The plain files among `-rw-r--r--          1234 2023/11/14 22:13:20 name` and the like.
pub(super) fn files(output: &[u8]) -> Result<Vec<StoredFile>, Failure> {
    let mut files = Vec::new();
    for line in output.split(|b| *b == b'\n').filter(|line| line.first() == Some(&b'-')) {
        let Some((size, name)) = parts(line) else {
            return Err(Failure::nonsense(format!("a listing with {}", String::from_utf8_lossy(line))));
        };
        let Ok(name) = String::from_utf8(unescape(name)) else { continue };
        files.push(StoredFile { name, size: Some(size) });
        if files.len() > MAX_FILES {
            return Err(Failure::nonsense("a listing without end"));
        }
    }
    Ok(files)
}

/// Size and name. Exactly one space stands before the name, which may begin with more.
fn parts(line: &[u8]) -> Option<(u64, &[u8])> {
    let (_, rest) = word(line)?;
    let (size, rest) = word(rest)?;
    let (_, rest) = word(rest)?;
    let (_, name) = word(rest)?;
    // Some builds group digits whatever they are told.
    let digits: String = std::str::from_utf8(size).ok()?.chars().filter(|c| !matches!(c, ',' | '.')).collect();
    Some((digits.parse().ok()?, name))
}

/// The next word, and what follows the one space after it.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = line.iter().position(|b| *b != b' ')?;
    let line = &line[start..];
    let end = line.iter().position(|b| *b == b' ')?;
    Some((&line[..end], &line[end + 1..]))
}

/// `\#012` is byte 10; a backslash that such digits follow is `\#134`.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.strip_prefix(b"#").and_then(|t| t.get(..3)).and_then(octal).filter(|_| *first == b'\\');
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[4..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let value = digits.iter().try_fold(0_u32, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
        _ => None,
    });
    u8::try_from(value?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines() {
        let output = "drwxr-xr-x          4,096 2023/11/14 22:13:20 .\n\
            -rw-r--r--      1,234,567 2023/11/14 22:13:20 a.gz\n\
            -rw-r--r--              0 2023/11/14 22:13:20  b ü\\#134#012\\#012c\\#\n\
            lrwxrwxrwx              3 2023/11/14 22:13:20 l -> a\n";
        let expected = [("a.gz", 1_234_567), (" b ü\\#012\nc\\#", 0)];
        let expected = expected.map(|(name, size)| StoredFile { name: name.to_owned(), size: Some(size) });
        assert_eq!(files(output.as_bytes()).unwrap(), expected);
        assert_eq!(files(b"-rw-r--r-- 1 2023/11/14 22:13:20 \xff\n").unwrap(), []);
    }

    #[test]
    fn refuses_half_a_line() {
        for line in ["-rw-r--r--", "-rw-r--r-- x 2023/11/14 22:13:20 n", "-rw-r--r-- 5 2023/11/14"] {
            assert!(files(line.as_bytes()).is_err(), "{line}");
        }
    }
}
