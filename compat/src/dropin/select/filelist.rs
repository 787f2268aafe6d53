//! Files with a pattern in each line.

/// The patterns of a list, with the sign that each has, if any: `true` for `+`. Empty lines and comments are left out.
pub(super) fn lines(text: &[u8], null_separator: bool) -> Vec<(Option<bool>, Vec<u8>)> {
    let separator = if null_separator { 0 } else { b'\n' };
    text.split(|b| *b == separator).filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<(Option<bool>, Vec<u8>)> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return None;
    }
    let (sign, rest) = match line {
        [b'+', b' ', rest @ ..] => (Some(true), rest),
        [b'-', b' ', rest @ ..] => (Some(false), rest),
        rest => (None, rest),
    };
    let pattern = match rest {
        [open @ (b'\'' | b'"'), inner @ .., close] if open == close => inner,
        [b'\'' | b'"'] => b"",
        rest => rest,
    };
    (!pattern.is_empty()).then(|| (sign, pattern.to_vec()))
}
