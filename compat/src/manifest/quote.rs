//! Quoted paths.

/// White space as duplicity has it: with the vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn is_special(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b'\\' | b'"' | b'\'')
}

/// A path as it stands in a manifest: itself, or in quotes with `\xHH` for white space, quotes and backslashes.
#[must_use]
pub fn quote(path: &[u8]) -> Vec<u8> {
    if !path.iter().copied().any(is_special) {
        return path.to_vec();
    }
    let mut text = vec![b'"'];
    for &byte in path {
        if is_special(byte) {
            text.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            text.push(byte);
        }
    }
    text.push(b'"');
    text
}

/// The path that a text stands for; `None` if it begins with a quote and does not go on as [`quote`] writes it.
#[must_use]
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = text.strip_prefix(b"\"") else { return Some(text.to_vec()) };
    let mut rest = inner.strip_suffix(b"\"")?;
    let mut path = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            path.push(byte);
            continue;
        }
        let (digits, after) = rest.strip_prefix(b"x")?.split_first_chunk::<2>()?;
        path.push(hex_byte(*digits)?);
        rest = after;
    }
    Some(path)
}

/// A byte in two hexadecimal digits.
pub(super) fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|d| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok()));
    Some(high? << 4 | low?)
}
