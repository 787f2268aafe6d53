//! Files that are written.

use std::process::Stdio;

use compat::store::StoreErrorKind;

use super::{MAX_LISTING, Rsync, Way, failure};
use crate::error::Failure;
use crate::helper::{self, Ended};
use crate::spool::{STDIN_PATH, Spool};

impl Rsync {
    /// The other side compares a hash of the whole before it gives the file its name.
    pub(super) fn send(&self, file: &Spool, name: &str) -> Result<(), Failure> {
        self.run(file.stdin()?, |folder| {
            let fixed = ["--copy-links", "--whole-file", "--ignore-times", "--", STDIN_PATH];
            fixed.map(str::to_owned).into_iter().chain([format!("{folder}{name}")]).collect()
        })
    }

    /// An empty folder is brought in line with the other side, with eyes for one name alone.
    pub(super) fn delete(&self, name: &str) -> Result<(), Failure> {
        let empty = empty_folder()?;
        let own = format!("{}/", empty.path().display());
        self.run(Stdio::null(), |folder| {
            let include = format!("--include=/{}", pattern(name));
            let fixed = ["--dirs", "--delete", "--existing"].map(str::to_owned).into_iter();
            fixed.chain([include, "--exclude=*".to_owned(), "--".to_owned(), own, folder.to_owned()]).collect()
        })
    }

    pub(super) fn send_folder(&self) -> Result<(), Failure> {
        let empty = empty_folder()?;
        let own = format!("{}/", empty.path().display());
        self.run(Stdio::null(), |folder| {
            vec!["--dirs".to_owned(), "--mkpath".to_owned(), "--".to_owned(), own, folder.to_owned()]
        })
    }

    /// Runs the program with arguments made from the folder, which has a slash at its end.
    fn run(&self, input: Stdio, arguments: impl FnOnce(&str) -> Vec<String>) -> Result<(), Failure> {
        let way = self.way();
        let (mut command, folder) = self.command(way);
        command.args(arguments(&folder));
        let (_, ended) = helper::run_with(&mut command, input, helper::NO_LIMIT, MAX_LISTING)?;
        match ended.code {
            Some(0) => Ok(()),
            _ if no_folder(&ended) => Err(Failure::new(StoreErrorKind::NoStore, "no such folder")),
            _ if ended.said.trim().is_empty() => Err(self.guess(&ended, way)),
            _ => Err(failure(&ended, way, StoreErrorKind::NotFound)),
        }
    }

    /// The program ends `ssh` before that has passed on the other side's last words: most often that there is no folder.
    fn guess(&self, ended: &Ended, way: Way) -> Failure {
        match self.list_by(way) {
            Err(failure) => failure,
            // Another time it may say what is the matter.
            Ok(_) => Failure { kind: StoreErrorKind::Unreachable, ..failure(ended, way, StoreErrorKind::NotFound) },
        }
    }
}

/// What the other side says of a folder that it cannot write in because there is none.
fn no_folder(ended: &Ended) -> bool {
    let said = ended.said.to_lowercase();
    let missing = said.contains("no such file") || said.contains("not a directory");
    missing && ["mkdir", "change_dir", "mkstemp", "[receiver]"].iter().any(|word| said.contains(word))
}

fn empty_folder() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new().prefix("deduplicity-rsync").tempdir().map_err(|e| Failure::local(&e))
}

/// A pattern that nothing but the name matches. A backslash is one where nothing is special.
fn pattern(name: &str) -> String {
    if !name.contains(['*', '?', '[']) {
        return name.to_owned();
    }
    let escape = |c: char| if matches!(c, '*' | '?' | '[' | '\\') { vec!['\\', c] } else { vec![c] };
    name.chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns() {
        for (name, expected) in [("a b]", "a b]"), ("a\\b", "a\\b"), ("a*[b]?\\", "a\\*\\[b]\\?\\\\")] {
            assert_eq!(pattern(name), expected);
        }
    }
}
