//! Random command lines of duplicity's: options in every spelling, rules that make sense and rules that do not.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::random::Random;

/// Arguments that belong together.
pub type Words = Vec<OsString>;

/// An option with a value: glued on, or as the next argument where that cannot be taken for an option.
pub fn valued(random: &Random, name: &str, value: impl AsRef<OsStr>) -> Words {
    let value = value.as_ref();
    let is_plain = !value.is_empty() && !value.as_bytes().starts_with(b"-");
    if is_plain && random.one_in(2) {
        return vec![name.into(), value.to_owned()];
    }
    let mut word = OsString::from(name);
    word.push("=");
    word.push(value);
    vec![word]
}

/// One argument.
pub fn word(text: impl Into<OsString>) -> Words {
    vec![text.into()]
}

/// Mixes two lists; each keeps its order.
pub fn mixed(random: &Random, first: Vec<Words>, second: Vec<Words>) -> Words {
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    let mut line = Vec::new();
    while let (Some(_), Some(_)) = (first.peek(), second.peek()) {
        line.extend(if random.one_in(2) { first.next() } else { second.next() }.into_iter().flatten());
    }
    line.extend(first.chain(second).flatten());
    line
}

/// How a backup is said.
pub fn backup_command(random: &Random) -> Vec<Words> {
    let command = random.pick(&["", "", "backup", "bu", "full", "fb", "incremental", "inc", "incr", "ib"]);
    if command.is_empty() { Vec::new() } else { vec![word(command)] }
}

/// Options that hold for everything that is done with an archive.
pub fn archive_options(random: &Random) -> Vec<Words> {
    let mut options = Vec::new();
    if !random.one_in(4) {
        options.push(word(random.pick(&["--no-encryption", "--no-encryption", "--no-encr"])));
    }
    if random.one_in(4) {
        options.push(valued(random, "--file-prefix", "p-"));
    }
    for name in ["--file-prefix-archive", "--file-prefix-manifest", "--file-prefix-signature"] {
        if random.one_in(8) {
            options.push(valued(random, name, &name[14..]));
        }
    }
    if random.one_in(5) {
        options.push(valued(random, "--name", "a name"));
    }
    options
}

/// Options of a backup that change nothing about what is selected.
pub fn backup_options(random: &Random) -> Vec<Words> {
    let age = random.pick(&["1D", "7D", "1M", "2h30m", "1Y"]);
    let all = [
        (4, valued(random, "--full-if-older-than", age)),
        (2, valued(random, random.pick(&["--volsize", "--vols"]), "1")),
        (8, valued(random, "--num-retries", "2")),
        (3, verbosity(random)),
        (6, word("--allow-source-mismatch")),
        (6, word("--no-compression")),
        (6, word("--skip-if-no-change")),
        (8, word("--ignore-errors")),
        (8, word("--no-files-changed")),
        (8, word("--jsonstat")),
        (10, word("--dry-run")),
    ];
    all.into_iter().filter(|(n, _)| random.one_in(*n)).map(|(_, words)| words).collect()
}

/// How much is said.
pub fn verbosity(random: &Random) -> Words {
    match random.below(4) {
        0 => vec!["-v".into(), random.below(10).to_string().into()],
        1 => word(format!("-v{}", random.below(10))),
        2 => valued(random, "--verbosity", random.below(10).to_string()),
        _ => {
            let level = random.pick(&["error", "warning", "notice", "info", "debug", "e", "W", "N", "i", "d", "Notice"]);
            valued(random, "--verbosity", level)
        }
    }
}

/// A point in time, seconds since 1970, as people write it. `None`: the last backup.
pub fn time(random: &Random, time: i64) -> String {
    let (day, second) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // Days to a date, by Howard Hinnant's algorithm.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    match random.below(7) {
        0 | 1 => time.to_string(),
        2 => format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z"),
        3 => format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}"),
        4 => format!("{year:04}{month:02}{date:02}T{hour:02}{minute:02}{second:02}Z"),
        5 => format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}+00:00"),
        _ => format!("{year}/{month}/{date}"),
    }
}

/// What rules are made from.
#[derive(Debug)]
pub struct Ground<'g> {
    /// The source as the command line says it.
    pub base: &'g str,
    /// What is in it.
    pub paths: &'g [PathBuf],
    /// Where file lists may be written.
    pub lists: &'g Path,
}

/// Rules of a selection, in their order; none once in three times.
pub fn rules(random: &Random, ground: &Ground<'_>) -> Vec<Words> {
    if random.one_in(3) {
        return Vec::new();
    }
    let count = 1 + random.below(4);
    let mut rules: Vec<Words> = (0..count).map(|number| rule(random, ground, number)).collect();
    match random.below(10) {
        0 => {}
        1..=4 => rules.push(valued(random, "--exclude", "**")),
        _ => {
            let pattern = pattern(random, ground);
            rules.push(valued(random, "--exclude", OsString::from_vec(pattern)));
        }
    }
    rules
}

fn rule(random: &Random, ground: &Ground<'_>, number: usize) -> Words {
    match random.below(20) {
        0 => {
            let name = random.pick(&[".nobackup", "a", "x.txt", "none"]);
            valued(random, "--exclude-if-present", name)
        }
        1 => word("--exclude-device-files"),
        2 => word("--exclude-other-filesystems"),
        3 => {
            let limit = random.pick(&["2010-01-01", "1500000000", "5Y", "10Y", "2015-06-30T12:00:00Z", "3/9/2012"]);
            valued(random, "--exclude-older-than", limit)
        }
        4 | 5 => {
            let text = filelist(random, ground);
            let file = ground.lists.join(format!("list{number}"));
            fs::write(&file, text).expect("a list");
            let file = file.file_name().expect("a name").to_owned();
            let name = random.pick(&["--include-filelist", "--exclude-filelist"]);
            valued(random, name, file)
        }
        6 | 7 => {
            let expression = regexp(random, ground);
            let name = random.pick(&["--include-regexp", "--exclude-regexp"]);
            valued(random, name, expression)
        }
        8 => word(random.pick(&[
            "--filter-literal",
            "--filter-ignorecase",
            "--filter-strictcase",
            "--filter-globbing",
            "--filter-regexp",
        ])),
        other => {
            let name = if other % 2 == 0 { "--include" } else { "--exclude" };
            let pattern = pattern(random, ground);
            valued(random, name, OsString::from_vec(pattern))
        }
    }
}

/// A path as text: the base, and what is below it.
fn some_path(random: &Random, ground: &Ground<'_>) -> Vec<u8> {
    let base = ground.base.as_bytes();
    match ground.paths {
        [] => base.to_vec(),
        paths => [base, b"/", random.pick(paths).as_os_str().as_bytes()].concat(),
    }
}

const IMPLAUSIBLE: &[&[u8]] = &[
    b"nowhere/x",
    b"/",
    b"src//a",
    b"**/",
    b"[",
    b"[!",
    b"../src",
    b"src[",
    b"*",
    b"?rc/a",
    b"src/",
    b"**a",
    b"a**",
    b"[]",
    b"[!]x]",
    b"src/[z-a]",
    b"ignorecase:SRC/a",
    b"ignorecase:**/A",
    b"src/./a",
    b"src/**/**",
    b"/nowhere/**",
    b".",
    b"S*",
    b"src/[a]b]",
];

/// A pattern for a shell.
fn pattern(random: &Random, ground: &Ground<'_>) -> Vec<u8> {
    match random.below(20) {
        0 => return random.pick(IMPLAUSIBLE).to_vec(),
        1 => return b"**".to_vec(),
        2 | 3 => {
            let path = some_path(random, ground);
            let last = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            return [b"**/", last].concat();
        }
        _ => {}
    }
    let mut path = some_path(random, ground);
    for _ in 0..random.below(3) {
        path = loosened(random, &path);
    }
    path
}

/// A pattern that matches more, or other things.
fn loosened(random: &Random, path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
    let at = random.below(parts.len());
    let part = &mut parts[at];
    let letters: Vec<usize> = (0..part.len()).filter(|i| part[*i].is_ascii_alphanumeric()).collect();
    match (random.below(9), letters.as_slice()) {
        (0, _) => *part = random.pick(&[&b"*"[..], b"**", b"?*", b"*.txt"]).to_vec(),
        (1, [_, ..]) => part[random.pick(&letters)] = b'?',
        (2, [_, ..]) => {
            let at = random.pick(&letters);
            let class =
                [&b"["[..], random.pick(&[&b""[..], b"!", b"^"]), &[part[at]], random.pick(&[&b"xyz"[..], b"a-z", b"-"]), b"]"];
            part.splice(at..=at, class.concat());
        }
        (3, _) => drop(parts.pop().filter(|_| at > 0)),
        (4, _) => parts.push(Vec::new()),
        (5, _) => parts.push(b"**".to_vec()),
        (6, [_, ..]) => part.truncate(random.pick(&letters)),
        (7, _) => part.push(b'*'),
        _ => {
            let swapped =
                path.iter().map(|b| if b.is_ascii_lowercase() { b.to_ascii_uppercase() } else { b.to_ascii_lowercase() });
            return b"ignorecase:".iter().copied().chain(swapped).collect();
        }
    }
    parts.join(&b'/')
}

fn regexp(random: &Random, ground: &Ground<'_>) -> String {
    let fixed = [
        ".*\\.txt$",
        "^src/a",
        "[ab]$",
        "x",
        "(a|b)$",
        "a{1,2}",
        "\\d",
        "(?i)x",
        "[",
        "*x",
        "a$",
        "/[^/]*\\.b",
        "\\.",
        "$",
        "^.{9}$",
    ];
    if random.one_in(2) {
        return (random.pick(&fixed)).to_owned();
    }
    let path = some_path(random, ground);
    let part = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let letters: String = String::from_utf8_lossy(part).chars().filter(char::is_ascii_alphanumeric).take(6).collect();
    if letters.is_empty() { ".".to_owned() } else { letters + random.pick(&["", "$", ".*", "[^/]*$"]) }
}

/// A list with a pattern in each line, comments, and lines that need looking at twice.
fn filelist(random: &Random, ground: &Ground<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..1 + random.below(5) {
        let pattern = pattern(random, ground);
        if std::str::from_utf8(&pattern).is_err() || pattern.contains(&b'\n') {
            continue;
        }
        text.extend(random.pick(&[&b""[..], b"", b"+ ", b"- ", b"  ", b"-", b"+  "]));
        let quote = random.pick(&[&b""[..], b"", b"", b"'", b"\""]);
        text.extend([quote, &pattern, quote].concat());
        text.extend(random.pick(&[&b"\n"[..], b"\n", b" \n", b"\n\n", b"\n# a comment\n", b"\r\n"]));
    }
    text
}
