//! Which part of the packs a check has read last, so that the next one reads the next: a line in a file beside the index cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::random_bytes;

/// The parts of a repository, one a run.
pub(super) struct Rotation {
    file: Option<PathBuf>,
    /// The part that this run reads, from 1.
    pub(super) number: u32,
    of: u32,
}

impl Rotation {
    /// The part after the one that was read last. Without a memory, or with one of another number of parts, any: all parts are read
    /// after `of` runs with a memory, and in the long run without.
    pub(super) fn next(cache_dir: Option<&Path>, of: u32) -> Self {
        let of = of.max(1);
        let file = cache_dir.map(|dir| dir.join("check-part"));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let last = text.and_then(|text| {
            let (number, parts) = text.trim_end().split_once('/')?;
            let number: u32 = number.parse().ok()?;
            (parts.parse() == Ok(of) && (1..=of).contains(&number)).then_some(number)
        });
        let number = match last {
            Some(last) => last % of + 1,
            None => u32::from_le_bytes(random_bytes()) % of + 1,
        };
        Self { file, number, of }
    }

    /// The part was read to its end.
    ///
    /// # Errors
    ///
    /// What the file system says: the next run reads the same part then.
    pub(super) fn done(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, format!("{}/{}\n", self.number, self.of))?;
        fs::rename(temporary, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_come_up_and_what_is_broken_off_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let next = || Rotation::next(Some(dir.path()), 5);
        let first = next();
        first.done().unwrap();
        let broken_off = next().number;
        assert_eq!(next().number, broken_off);
        let mut seen = vec![first.number];
        for _ in 0..4 {
            let part = next();
            seen.push(part.number);
            part.done().unwrap();
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        for (other, bad) in [(3, "5/5"), (3, "4/3"), (3, "x"), (1, "")] {
            fs::write(dir.path().join("check-part"), bad).unwrap();
            assert!((1..=other).contains(&Rotation::next(Some(dir.path()), other).number), "{bad}");
        }
    }
}
