//! rclone's connection strings.

use std::fmt;

use zeroize::Zeroizing;

use super::{RcloneRemote, Result, invalid};

impl fmt::Display for RcloneRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.name, if self.parameters.is_empty() { "" } else { ",…" }, self.path)
    }
}

impl fmt::Debug for RcloneRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RcloneRemote({self})")
    }
}

/// Reads `name:path`, `:backend:path`, and parameters after either. A parameter's value may be quoted, a quote in it then
/// is doubled; without a value it is `true`.
pub(super) fn parse(text: &str) -> Result<RcloneRemote> {
    let start = usize::from(text.starts_with(':'));
    let Some(end) = text[start..].find([',', ':']).map(|at| at + start).filter(|end| *end > start) else {
        return invalid("write rclone:REMOTE:PATH");
    };
    let name = &text[..end];
    if name.starts_with('-') || name.contains('/') {
        return invalid("no usable name of a remote");
    }
    let mut parameters = Vec::new();
    let mut rest = &text[end..];
    while let Some(tail) = rest.strip_prefix(',') {
        let Some(end) = tail.find(['=', ',', ':']) else { return invalid("a remote without a colon at its end") };
        let key = &tail[..end];
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return invalid("no usable name of a parameter");
        }
        let value;
        (value, rest) = match tail[end..].strip_prefix('=') {
            None => ("true".to_owned(), &tail[end..]),
            Some(tail) => self::value(tail)?,
        };
        parameters.push((key.to_owned(), Zeroizing::new(value)));
    }
    let Some(path) = rest.strip_prefix(':') else { return invalid("a remote without a colon at its end") };
    Ok(RcloneRemote { name: name.to_owned(), parameters, path: path.to_owned() })
}

/// A value and what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let end = text.find([',', ':']).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut rest = &text[1..];
    loop {
        let Some((before, after)) = rest.split_once(quote) else { return invalid("a quote that does not end") };
        value.push_str(before);
        match after.strip_prefix(quote) {
            None => return Ok((value, after)),
            Some(after) => {
                value.push(quote);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_remotes() {
        let read = |text: &str| {
            let remote = parse(text).unwrap();
            let parameters: Vec<_> = remote.parameters.iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect();
            (remote.name, parameters.join(" "), remote.path)
        };
        let is = |name: &str, parameters: &str, path: &str| (name.to_owned(), parameters.to_owned(), path.to_owned());
        assert_eq!(read("r:"), is("r", "", ""));
        assert_eq!(read("my remote:/a:b,c"), is("my remote", "", "/a:b,c"));
        assert_eq!(read(":local:/a"), is(":local", "", "/a"));
        assert_eq!(read("r,flag,a=b:p"), is("r", "flag=true a=b", "p"));
        assert_eq!(read(":webdav,url=\"http://h:1\",pass='it''s':x"), is(":webdav", "url=http://h:1 pass=it's", "x"));
        assert_eq!(read("r,a=\"\":p"), is("r", "a=", "p"));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "r", ":", "::x", "-r:x", "a/b:c", "r,a", "r,=x:p", "r,a=\"b:p", "r,a b=c:p", "r,a=b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
