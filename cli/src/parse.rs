//! What single arguments mean: times, snapshots with paths, shares, compression, places of repositories.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use compat::time::{Time, TimeError};
use engine::check::Share;
use engine::codec::{DEFAULT_LEVEL, FAST_LEVEL, Level};
use engine::entry::Timestamp;
use engine::maintain::policy::{GroupBy, Span};
use engine::path::EntryPath;

use crate::args::Unused;

/// A time: RFC 3339, without an offset in this machine's time zone, or `@` and seconds since 1970.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let parsed = match text.strip_prefix('@') {
        Some(seconds) => epoch(seconds),
        None => text.parse().ok().or_else(|| {
            let local: jiff::civil::DateTime = text.parse().ok()?;
            Some(local.to_zoned_datetime(jiff::tz::TimeZone::system()).ok()?.timestamp())
        }),
    };
    let time = parsed.ok_or_else(|| "not a time: use RFC 3339 (2026-01-31T08:15:00Z) or @SECONDS".to_owned())?;
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    Ok(Timestamp { seconds, nanos: nanos.unsigned_abs() })
}

fn epoch(text: &str) -> Option<jiff::Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    jiff::Timestamp::new(whole.parse().ok()?, nanos * sign).ok()
}

/// A time as duplicity takes it.
pub fn duplicity_time(text: &str) -> Result<Time, TimeError> {
    let now = Time::new(engine::repo::now().seconds).unwrap_or(Time::MAX);
    compat::time::parse_time_argument(text, now)
}

/// A compression level.
pub fn compression(text: &str) -> Result<Level, String> {
    match text {
        "off" => Ok(Level::Off),
        "fast" => Ok(FAST_LEVEL),
        "auto" => Ok(DEFAULT_LEVEL),
        number => match number.parse() {
            Ok(level @ 1..=19) => Ok(Level::Zstd(level)),
            _ => Err("use off, fast, auto, or a number from 1 to 19".to_owned()),
        },
    }
}

/// Which part of the packs to read: `N/T` or `P%`.
pub fn subset(text: &str) -> Result<Share, String> {
    let found = match text.split_once('/') {
        Some(("next", t)) => t.parse().ok().map(|of| Share::Next { of }),
        Some((n, t)) => n.parse().ok().zip(t.parse().ok()).map(|(number, of)| Share::Part { number, of }),
        None => text.strip_suffix('%').and_then(|p| p.parse().ok()).map(Share::Percent),
    };
    found
        .filter(|share| match *share {
            Share::Part { number, of } => (1..=of).contains(&number),
            Share::Next { of } => of > 0,
            Share::Percent(percent) => percent > 0.0 && percent <= 100.0,
        })
        .ok_or_else(|| "use N/T with N from 1 to T, next/T, or P% above 0 and up to 100".to_owned())
}

/// How many snapshots a rule keeps: a number, or `unlimited`.
pub fn keep_count(text: &str) -> Result<u32, String> {
    match text {
        "unlimited" => Ok(u32::MAX),
        number => number.parse().map_err(|_| "use a number, or 'unlimited'".to_owned()),
    }
}

/// A length of time such as `2y5m7d3h`.
pub fn span(text: &str) -> Result<Span, String> {
    let bad = || "not a length of time: use years, months, days and hours, as in 2y5m7d3h".to_owned();
    let (mut span, mut rest) = (Span::default(), text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest.get(..digits).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        let field = match rest.as_bytes().get(digits) {
            Some(b'y') => &mut span.years,
            Some(b'm') => &mut span.months,
            Some(b'd') => &mut span.days,
            Some(b'h') => &mut span.hours,
            _ => return Err(bad()),
        };
        *field = number;
        rest = rest.get(digits + 1..).unwrap_or_default();
    }
    if span == Span::default() { Err(bad()) } else { Ok(span) }
}

/// What snapshots of a group have in common.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part {
            "host" => by.host = true,
            "paths" | "path" => by.paths = true,
            "tags" | "tag" => by.tags = true,
            other => return Err(format!("'{other}': use host, paths and tags, with commas in between")),
        }
    }
    Ok(by)
}

/// An amount of parity: whole percent, from 0 to 100.
pub fn parity(text: &str) -> Result<u8, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "use a whole number from 0% to 100%".to_owned())
}

/// What part may stay unused: `P%`, `0` or `unlimited`.
pub fn unused(text: &str) -> Result<Unused, String> {
    if text == "unlimited" {
        return Ok(Unused(None));
    }
    if text == "0" {
        return Ok(Unused(Some(0.0)));
    }
    let percent = text.strip_suffix('%').and_then(|p| p.parse().ok()).filter(|p| (0.0..=100.0).contains(p));
    percent.map(|p| Unused(Some(p))).ok_or_else(|| "use P% from 0 to 100, or 'unlimited'".to_owned())
}

/// A number of bytes, with K, M, G or T for powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || "not a size: use bytes, or a number with K, M, G or T".to_owned();
    let (number, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (text.get(..text.len() - 1), 10),
        Some(b'M') => (text.get(..text.len() - 1), 20),
        Some(b'G') => (text.get(..text.len() - 1), 30),
        Some(b'T') => (text.get(..text.len() - 1), 40),
        _ => (Some(text), 0),
    };
    let number: u64 = number.and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// A snapshot, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPath {
    /// Start of an id, `latest` or `latest~N`.
    pub reference: String,
    /// The path after the colon, if there is one.
    pub path: Option<EntryPath>,
}

/// Takes `SNAPSHOT[:PATH]` apart; the path may be any bytes, with or without a slash in front.
pub fn snapshot_path(text: &OsStr) -> Result<SnapshotPath, String> {
    let bytes = text.as_bytes();
    let (reference, path) = match bytes.iter().position(|b| *b == b':') {
        Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
        None => (bytes, None),
    };
    let reference = std::str::from_utf8(reference).map_err(|_| "not a snapshot: use an id, 'latest' or 'latest~N'")?;
    if reference.is_empty() {
        return Err("no snapshot: use an id, 'latest' or 'latest~N'".to_owned());
    }
    let path = path.map(entry_path).transpose()?;
    Ok(SnapshotPath { reference: reference.to_owned(), path })
}

/// A path as people write it: slashes in front, at the end and in a row do not count.
pub fn entry_path(path: &[u8]) -> Result<EntryPath, String> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
    EntryPath::new(parts.join(&b'/')).map_err(|error| format!("not a path in a snapshot: {error}"))
}

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Local(PathBuf),
    /// A bucket, as the S3 backend reads it.
    S3(String),
}

/// Where `-r` points to.
pub fn place(text: &OsStr) -> Result<Place, String> {
    let known = "use a PATH, s3://BUCKET/PREFIX or s3:https://HOST/BUCKET/PREFIX";
    if text.is_empty() {
        return Err(format!("the repository's place is empty: {known}"));
    }
    let Some(utf8) = text.to_str() else { return Ok(Place::Local(text.into())) };
    let s3 = |rest: &str| rest.starts_with("//") || rest.starts_with("http://") || rest.starts_with("https://");
    if utf8.strip_prefix("s3:").is_some_and(s3) {
        return Ok(Place::S3(utf8.to_owned()));
    }
    if let Some(path) = utf8.strip_prefix("file://") {
        return Ok(Place::Local(path.into()));
    }
    let scheme_char = |b: u8| b.is_ascii_alphanumeric() || b == b'+';
    let foreign = ["s3:", "sftp:", "rest:", "b2:", "azure:", "gs:", "swift:", "rclone:"];
    let url = utf8.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(scheme_char));
    if url || foreign.iter().any(|scheme| utf8.starts_with(scheme)) {
        return Err(format!("'{utf8}' is no kind of repository that is known here: {known}"));
    }
    Ok(Place::Local(utf8.into()))
}

/// For clap: arguments that may be any bytes.
#[derive(Clone)]
pub struct SnapshotPathParser;

impl TypedValueParser for SnapshotPathParser {
    type Value = SnapshotPath;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        snapshot_path(value).map_err(|why| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let value = OsString::from(value);
            let text = format!("invalid value '{}' for '{name}': {why}", value.display());
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_sizes_and_groups() {
        assert_eq!(span("1y2m3d4h"), Ok(Span { years: 1, months: 2, days: 3, hours: 4 }));
        assert_eq!(span("30d").map(|s| s.days), Ok(30));
        for bad in ["", "3", "d", "3x", "3d4", "-3d", "0d", "99999999999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert_eq!((size("12"), size("3k"), size("2G")), (Ok(12), Ok(3 << 10), Ok(2 << 30)));
        for bad in ["", "G", "1.5G", "99999999999T", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(group_by("tags,host"), Ok(GroupBy { host: true, paths: false, tags: true }));
        assert_eq!(group_by(""), Ok(GroupBy { host: false, paths: false, tags: false }));
        assert_eq!((unused("0%"), unused("0"), unused("unlimited")), (unused("0.0%"), Ok(Unused(Some(0.0))), Ok(Unused(None))));
        assert!(unused("5").is_err() && unused("-1%").is_err() && keep_count("x").is_err());
    }

    #[test]
    fn times() {
        let at = |seconds, nanos| Ok(Timestamp { seconds, nanos });
        assert_eq!(time("1970-01-02T00:00:00Z"), at(86400, 0));
        assert_eq!(time("1970-01-01T01:00:00.5+01:00"), at(0, 500_000_000));
        assert_eq!(time("1969-12-31T23:59:59.25Z"), at(-1, 250_000_000));
        assert_eq!(time("@1700000000"), at(1_700_000_000, 0));
        assert_eq!(time("@1.000000001"), at(1, 1));
        assert_eq!(time("@-1"), at(-1, 0));
        assert_eq!(time("@-0.25"), at(-1, 750_000_000));
        assert!(time("2026-01-31 08:15:00").is_ok());
        for bad in ["", "@", "@x", "@1.", "@1.0000000000", "yesterday", "2026-13-01T00:00:00Z", "@99999999999999"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn levels() {
        assert_eq!(compression("off"), Ok(Level::Off));
        assert_eq!(compression("19"), Ok(Level::Zstd(19)));
        for bad in ["0", "20", "-1", "", "max"] {
            assert!(compression(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subsets() {
        assert_eq!(subset("1/1"), Ok(Share::Part { number: 1, of: 1 }));
        assert_eq!(subset("next/30"), Ok(Share::Next { of: 30 }));
        assert_eq!(subset("2.5%"), Ok(Share::Percent(2.5)));
        for bad in ["0/2", "3/2", "1/0", "0%", "101%", "nan%", "50", "1/x", "-1%", "next/0", "next"] {
            assert!(subset(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn snapshots_with_paths() {
        let parsed = |text: &str| snapshot_path(OsStr::new(text)).map(|s| (s.reference, s.path.map(|p| p.display())));
        assert_eq!(parsed("latest"), Ok(("latest".into(), None)));
        assert_eq!(parsed("ab12:"), Ok(("ab12".into(), Some(String::new()))));
        assert_eq!(parsed("latest~2:/a//b/"), Ok(("latest~2".into(), Some("a/b".into()))));
        assert_eq!(parsed("x:a:b"), Ok(("x".into(), Some("a:b".into()))));
        assert!(parsed(":/a").is_err());
        assert!(parsed("latest:/a/../b").is_err());
        let raw = snapshot_path(OsStr::from_bytes(b"latest:/\xff")).expect("any bytes");
        assert_eq!(raw.path.expect("a path").as_bytes(), b"\xff");
    }

    #[test]
    fn places() {
        let local = |path: &str| Ok(Place::Local(path.into()));
        for path in ["/a", "a", "./s3:x", "a:b", "dir/x://y", "s3"] {
            assert_eq!(place(OsStr::new(path)), local(path));
        }
        assert_eq!(place(OsStr::new("file:///a")), local("/a"));
        for url in ["s3://bucket/p", "s3:http://h:1/b", "s3:https://h/b/p"] {
            assert_eq!(place(OsStr::new(url)), Ok(Place::S3(url.into())));
        }
        for bad in ["", "s3:bucket", "https://x/y", "sftp:host:/x", "rest:http://x"] {
            assert!(place(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
