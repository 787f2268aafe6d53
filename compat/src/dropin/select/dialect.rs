//! Regular expressions of Python's `re` as the `regex` crate writes them. What means something else there, or is no expression in
//! Python, is refused; so is what that crate does not have (references to groups, looking ahead and behind).

/// What stands before the next character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that can be repeated.
    Nothing,
    Item,
    Repeated,
}

/// Translates an expression.
///
/// # Errors
///
/// Python's complaint, or what is not supported.
pub(super) fn from_python(text: &str) -> Result<String, &'static str> {
    let (mut out, mut before, mut rest) = (String::with_capacity(text.len()), Before::Nothing, text);
    while let Some(c) = rest.chars().next() {
        let from = rest;
        rest = &rest[c.len_utf8()..];
        if let Some((repeat, after)) = repeat(from) {
            match before {
                Before::Nothing => return Err("nothing to repeat"),
                Before::Repeated => return Err("multiple repeat"),
                Before::Item => out += &repeat,
            }
            (before, rest) = (Before::Repeated, after);
            if let Some(after) = rest.strip_prefix('?') {
                out.push('?');
                rest = after;
            } else if rest.starts_with('+') {
                return Err("possessive repeats are not supported");
            }
            continue;
        }
        before = if matches!(c, '^' | '$' | '(' | '|') { Before::Nothing } else { Before::Item };
        match c {
            '\\' => {
                let escaped = rest.chars().next().ok_or("bad escape (end of pattern)")?;
                rest = &rest[escaped.len_utf8()..];
                match escaped {
                    'A' | 'b' | 'B' | 'Z' => {
                        before = Before::Nothing;
                        out.extend(['\\', if escaped == 'Z' { 'z' } else { escaped }]);
                    }
                    'p' | 'P' | 'z' => return Err("bad escape"),
                    '<' | '>' => out.push(escaped),
                    _ => out.extend(['\\', escaped]),
                }
            }
            '[' => rest = class(rest, &mut out).ok_or("unterminated character set")?,
            '(' => {
                let start = if rest.starts_with('?') { "(?" } else { "(" };
                out += start;
                rest = &from[start.len()..];
            }
            '{' => out += r"\{",
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// How often something is repeated, and what follows. A brace that begins no numbers is itself.
fn repeat(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('{') else {
        return text.starts_with(['*', '+', '?']).then(|| (text[..1].to_owned(), &text[1..]));
    };
    let (inner, after) = inner.split_once('}')?;
    let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if inner.is_empty() || !digits(least) || !most.is_none_or(digits) {
        return None;
    }
    let most = most.map_or(String::new(), |most| format!(",{most}"));
    Some((format!("{{{}{most}}}", if least.is_empty() { "0" } else { least }), after))
}

/// Copies a set of characters from behind its bracket on; returns what follows it. Sets in sets, and operations on them, are
/// unknown to Python.
fn class<'t>(text: &'t str, out: &mut String) -> Option<&'t str> {
    let (negated, text) = text.strip_prefix('^').map_or(("", text), |rest| ("^", rest));
    out.push('[');
    out.push_str(negated);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ']' if at > 0 => {
                out.push(']');
                return Some(&text[at + 1..]);
            }
            '\\' => out.extend(['\\', chars.next()?.1]),
            ']' | '[' | '&' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn what_python_refuses_is_refused() {
        for text in ["a**", "/**", "a*+", "a{2}{3}", "a+*", "a??*", "*a", "^*", r"\b*", "a|*", "(*)", "[a", r"a\", r"\p{L}", "[]"]
        {
            assert!(from_python(text).is_err(), "{text}");
        }
    }

    /// The last one is what Python's `re.search` says.
    #[test]
    fn what_means_the_same_is_found_the_same() {
        let cases = [
            ("a{x}", "a{x}", true),
            ("a{,2}b", "b", true),
            ("^a{2}$", "aa", true),
            ("^a{2,}?$", "aaaa", true),
            ("a{}", "a{}", true),
            ("[[]", "[", true),
            ("^[]a]+$", "]a", true),
            ("^[^]a]+$", "]", false),
            ("^[a&&b]+$", "&", true),
            (r"^[\]x]+$", "]x", true),
            (r"a\<b", "a<b", true),
            (r"a\Z", "ab", false),
            ("(?:ab)*?c", "c", true),
            ("(?i)AB", "xab", true),
            ("(a*)*b", "aab", true),
            ("ä*é", "ääé", true),
        ];
        for (text, subject, found) in cases {
            let regex = Regex::new(&from_python(text).expect(text)).expect(text);
            assert_eq!(regex.is_match(subject), found, "{text} in {subject}");
        }
    }
}
