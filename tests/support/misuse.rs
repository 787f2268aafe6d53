//! Random command lines of duplicity's that make no sense.

use crate::lines::Words;
use crate::random::Random;

/// Lines, good or bad; `URL` has one backup, `full` has something in it and `empty` has not; `missing` is not there. Nothing is
/// verified against it: stock makes a folder and finds no difference, which we do not.
const LINES: &[&str] = &[
    "full src URL",
    "inc src URL",
    "src URL",
    "backup src URL",
    "verify URL src",
    "restore URL empty",
    "URL empty",
    "st URL",
    "ls URL",
    "cleanup URL",
    "ra 1 URL",
    "ri 1 URL",
    "ro 1D URL",
    "full missing URL",
    "restore URL full",
    "URL full",
    "restore URL .",
    "restore -r none URL empty",
    "ro never URL",
    "ra x URL",
    "full URL src",
    "restore src URL",
    "st src",
    "ls",
    "full",
    "src",
    "URL",
    "src src",
    "URL URL",
    "bogus src URL",
    "st URL URL",
    "full src bogus://x/y",
    "full src file://relative",
    "st file:///nowhere/at/all",
    "restore file:///nowhere/at/all empty",
    "ls -t 2001-01-01 URL",
    "verify -t 1000 URL src",
    "ro 1X URL",
    "ro now URL",
    "full src /plain/path",
];

/// What may come in between.
const WRONG: &[&str] = &[
    "--bogus",
    "-x",
    "--file",
    "--exclu=x",
    "--no",
    "--volsize=x",
    "--volsize=",
    "-v10",
    "-vx",
    "-v",
    "--verbosity=loud",
    "--time=never",
    "-t 32/32/2001",
    "--full-if-n-inc=x",
    "--num-retries=x",
    "--exclude=",
    "--include=",
    "--exclude-filelist=missing",
    "--force=1",
    "--dry-run=yes",
    "--exclude-older-than=never",
    "--exclude-regexp=(",
    "--include=src/a",
    "--exclude=elsewhere",
    "--exclude=src//a",
    "--filter-globbing",
    "--filter-literal",
    "--filter-strictcase --exclude=src/a",
    "--full-if-older-than=1X",
    "--name",
    "--rename a",
    "--log-fd=x",
    "--concurrency=x",
    "--exclude-if-present=",
    "--files-from=missing",
    "--restore-time=",
    "--show-changes-in-set=x",
    "--path-to-restore=none",
    "--no-compression --compression",
    "--exclude=[z-a]",
    "--exclude-device-files=x",
];

/// A command line with something wrong, or hardly right.
pub fn line(random: &Random, url: &str) -> Words {
    let mut words: Vec<&str> = random.pick(LINES).split(' ').collect();
    if !random.one_in(3) {
        let at = random.below(words.len() + 1);
        words.splice(at..at, random.pick(WRONG).split(' '));
    }
    words.into_iter().map(|word| word.replace("URL", url).into()).collect()
}
