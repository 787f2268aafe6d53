//! Files with a pattern in each line.

/// The patterns of a list, with the sign that each has, if any: `true` for `+`. Empty lines and comments are left out.
///
/// Lines end as in any text that Python reads: with a line feed, a carriage return, or both.
pub(super) fn lines(text: &[u8], null_separator: bool) -> Vec<(Option<bool>, Vec<u8>)> {
    let separators: &[u8] = if null_separator { b"\0" } else { b"\r\n" };
    text.split(|b| separators.contains(b)).filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<(Option<bool>, Vec<u8>)> {
    let line = trim(line);
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

/// Without what is white to Python's `str.strip`.
fn trim(line: &[u8]) -> &[u8] {
    let is_white = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    std::str::from_utf8(line).map_or(line.trim_ascii(), |line| line.trim_matches(is_white).as_bytes())
}
