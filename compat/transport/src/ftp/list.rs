//! Lines of FTP listings.

use compat::store::StoredFile;
use suppaftp::list::ListParser;

/// `type=file;size=5; name` of MLSD (RFC 3659); `None` for what is no file.
pub(super) fn machine_line(line: &str) -> Option<StoredFile> {
    let (facts, name) = line.split_once(' ')?;
    let mut is_file = false;
    let mut size = None;
    for fact in facts.split(';') {
        let Some((key, value)) = fact.split_once('=') else { continue };
        match key.to_ascii_lowercase().as_str() {
            "type" => is_file = value.eq_ignore_ascii_case("file"),
            "size" => size = value.parse().ok(),
            _ => {}
        }
    }
    (is_file && !name.is_empty()).then(|| StoredFile { name: name.to_owned(), size })
}

/// A line of LIST, which looks as each server likes; `None` for what is no file or not understood.
pub(super) fn long_line(line: &str) -> Option<StoredFile> {
    let file = ListParser::parse_posix(line).or_else(|_| ListParser::parse_dos(line)).ok()?;
    file.is_file().then(|| StoredFile { name: file.name().to_owned(), size: Some(file.size() as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, size: Option<u64>) -> Option<StoredFile> {
        Some(StoredFile { name: name.to_owned(), size })
    }

    #[test]
    fn reads_machine_lines() {
        assert_eq!(machine_line("modify=1;Type=file;Size=7;unix.mode=0644; a b;c "), file("a b;c ", Some(7)));
        assert_eq!(machine_line("type=file;size=x; n"), file("n", None));
        for line in ["type=dir; d", "type=cdir; .", "size=1; n", "type=file;", "type=OS.unix=slink:/x; l", ""] {
            assert_eq!(machine_line(line), None, "{line}");
        }
    }

    #[test]
    fn reads_long_lines() {
        let line = "-rw-r--r--   1 root     root      1234567 Nov 14  2023 duplicity-full.20231114T221320Z.vol1.difftar.gz";
        assert_eq!(long_line(line), file("duplicity-full.20231114T221320Z.vol1.difftar.gz", Some(1_234_567)));
        assert_eq!(long_line("-rw-r--r-- 1 u g 5 Nov 14 2023 a b"), file("a b", Some(5)));
        assert_eq!(long_line("11-14-23  10:13PM       42 n.txt"), file("n.txt", Some(42)));
        for line in ["drwxr-xr-x 2 u g 4096 Nov 14 2023 d", "total 12", "", "11-14-23  10:13PM  <DIR>  d"] {
            assert_eq!(long_line(line), None, "{line}");
        }
    }
}
