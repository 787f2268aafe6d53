//! What is chosen: entries by patterns, snapshots by host, tags and paths.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use engine::fs::PathFilter;
use engine::path::EntryPath;
use engine::snapshot::SnapshotRecord;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::args::FilterArgs;

/// Patterns as in a `.gitignore` at the root of the file system, except that only a leading slash ties one to the root.
#[derive(Debug)]
pub struct Patterns(Gitignore);

impl Patterns {
    /// Patterns given as arguments, then those in files; the last one that fits decides.
    pub fn new(patterns: &[String], files: &[PathBuf]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        // A pattern with a mistake in it would silently leave nothing out.
        builder.allow_unclosed_class(false);
        for pattern in patterns {
            // In an argument, # is no comment.
            let escaped = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.clone() };
            add(&mut builder, &escaped).with_context(|| format!("pattern '{pattern}'"))?;
        }
        for file in files {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read the patterns in {}", file.display()))?;
            for (number, line) in text.lines().enumerate() {
                add(&mut builder, line).with_context(|| format!("{}, line {}", file.display(), number + 1))?;
            }
        }
        Ok(Self(builder.build()?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the last pattern that fits this very path takes it (and does not begin with `!`).
    fn fits(&self, path: &Path, is_dir: bool) -> bool {
        self.0.matched(path, is_dir).is_ignore()
    }

    /// Whether this path, or else the nearest directory above it that some pattern fits, is taken.
    fn covers(&self, path: &Path, is_dir: bool) -> bool {
        matches!(self.0.matched_path_or_any_parents(path, is_dir), Match::Ignore(_))
    }
}

fn add(builder: &mut GitignoreBuilder, line: &str) -> Result<()> {
    builder.add_line(None, &from_anywhere(line)?).map_err(|error| anyhow!(error)).map(drop)
}

/// A pattern with a slash in its middle would be tied to the root: there is no directory here that it could rather be
/// relative to, so that it means any depth.
fn from_anywhere(line: &str) -> Result<String> {
    let (not, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest));
    if pattern.starts_with("./") || pattern.starts_with("../") {
        bail!("a pattern has no current directory: begin it with / for an absolute path");
    }
    if let Some(rest) = pattern.strip_prefix("~/") {
        let home = std::env::var("HOME").context("~ in a pattern, and HOME is not set")?;
        return Ok(format!("{not}{}/{rest}", home.trim_end_matches('/')));
    }
    let relative = !pattern.starts_with('/') && !pattern.starts_with("**/") && !pattern.starts_with('#');
    if relative && pattern.trim_end().trim_end_matches('/').contains('/') {
        return Ok(format!("{not}**/{pattern}"));
    }
    Ok(line.to_owned())
}

/// What a backup leaves out: patterns, and directories of the program's own.
#[derive(Debug)]
pub struct Excludes {
    patterns: Patterns,
    own: Vec<PathBuf>,
}

impl Excludes {
    /// `own` as the walk spells them.
    pub fn new(patterns: Patterns, own: Vec<PathBuf>) -> Self {
        Self { patterns, own }
    }
}

impl PathFilter for Excludes {
    fn excluded(&self, absolute_path: &[u8], is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(absolute_path));
        is_dir && self.own.iter().any(|own| own == path) || self.patterns.fits(path, is_dir)
    }
}

/// What a restore takes: all but what `exclude` covers, and of that only what `include` covers, if there is an include.
pub fn restored(include: &Patterns, exclude: &Patterns, path: &EntryPath, is_dir: bool) -> bool {
    let absolute = [b"/", path.as_bytes()].concat();
    let path = Path::new(OsStr::from_bytes(&absolute));
    (include.is_empty() || include.covers(path, is_dir)) && !exclude.covers(path, is_dir)
}

/// Paths to back up as they are stored: absolute, without `.`, `..` and a slash at the end, sorted, each once.
pub fn roots(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut roots = paths.iter().map(|path| root(path)).collect::<Result<Vec<_>>>()?;
    roots.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    roots.dedup();
    Ok(roots)
}

fn root(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        bail!("an empty path");
    }
    let absolute = std::path::absolute(path).context("cannot tell the current directory")?;
    if !absolute.components().any(|c| c == std::path::Component::ParentDir) {
        return Ok(absolute.components().collect());
    }
    // Only the file system can tell what a `..` behind a symlink means.
    let real = |path: &Path| fs::canonicalize(path).with_context(|| path.display().to_string());
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(real(parent)?.join(name)),
        _ => real(&absolute),
    }
}

/// How a walk over `roots` spells the paths at which it meets the directory `dir`.
pub fn spelled_by_walk(roots: &[PathBuf], dir: &Path) -> Vec<PathBuf> {
    let dir = real(dir);
    roots.iter().filter_map(|root| Some(root.join(dir.strip_prefix(real_root(root)).ok()?))).collect()
}

/// A root that is the directory `dir` or lies in it.
pub fn within<'a>(roots: &'a [PathBuf], dir: &Path) -> Option<&'a PathBuf> {
    let dir = real(dir);
    roots.iter().find(|root| real_root(root).starts_with(&dir))
}

/// A path without symlinks; as much of it as exists, for the rest may be made later.
fn real(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|above| Some(fs::canonicalize(above).ok()?.join(path.strip_prefix(above).ok()?)))
        .map_or_else(|| path.to_owned(), |path| path.components().collect())
}

/// Where a root really is: a walk follows symlinks above a root, but not the root itself.
fn real_root(root: &Path) -> PathBuf {
    match (root.parent(), root.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => root.to_owned(),
    }
}

/// The paths in a `--files-from` file: NUL-separated if there is a NUL in it, else one to a line.
pub fn path_list(bytes: &[u8]) -> Vec<PathBuf> {
    let separator = if bytes.contains(&0) { 0 } else { b'\n' };
    let lines = bytes.split(|b| *b == separator).filter(|line| !line.is_empty());
    lines.map(|line| PathBuf::from(OsString::from_vec(line.to_vec()))).collect()
}

/// Chooses snapshots.
#[derive(Debug)]
pub struct Filter {
    hosts: Vec<String>,
    tags: Vec<Vec<String>>,
    paths: Vec<PathBuf>,
}

impl Filter {
    /// Makes the paths absolute.
    pub fn new(args: &FilterArgs) -> Result<Self> {
        let tags = args.tags.iter().map(|all| all.split(',').map(str::to_owned).collect()).collect();
        Ok(Self { hosts: args.hosts.clone(), tags, paths: roots(&args.paths)? })
    }

    /// Whether the host is one of those, all tags of one set are there, and so are all paths.
    pub fn accepts(&self, record: &SnapshotRecord) -> bool {
        let snapshot = &record.snapshot;
        let has_tag = |tag: &String| tag.is_empty() && snapshot.tags.is_empty() || snapshot.tags.contains(tag);
        let has_path = |path: &PathBuf| snapshot.paths.iter().any(|p| p == path.as_os_str().as_bytes());
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.tags.is_empty() || self.tags.iter().any(|all| all.iter().all(has_tag)))
            && self.paths.iter().all(has_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        Patterns::new(&list, &[]).expect("valid")
    }

    #[test]
    fn patterns_fit_at_any_depth_unless_they_begin_with_a_slash() {
        let some = patterns(&["*.o", "/tmp", "cache/", "a/b", "!keep.o", "#x"]);
        for (path, is_dir, fits) in [
            ("/home/x.o", false, true),
            ("/home/keep.o", false, false),
            ("/tmp", true, true),
            ("/home/tmp", true, false),
            ("/home/cache", true, true),
            ("/home/cache", false, false),
            ("/a/b", false, true),
            ("/home/a/b", true, true),
            ("/home/xa/b", true, false),
            ("/home/#x", false, true),
        ] {
            assert_eq!(some.fits(Path::new(path), is_dir), fits, "{path}");
        }
        let raw = Path::new(OsStr::from_bytes(b"/home/\xff.o"));
        assert!(some.fits(raw, false));
    }

    #[test]
    fn patterns_that_cannot_work_are_refused() {
        for bad in ["./x", "../x", "!./x", "a[", "{a"] {
            assert!(Patterns::new(&[bad.to_owned()], &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_restore_takes_what_is_in_an_included_directory() {
        let path = |p: &str| EntryPath::new(p).expect("valid");
        let (include, exclude) = (patterns(&["/home/a", "*.c"]), patterns(&["*.o"]));
        for (entry, taken) in [("home/a", true), ("home/a/b", true), ("home/a/b.o", false), ("x/y.c", true), ("x/y", false)] {
            assert_eq!(restored(&include, &exclude, &path(entry), false), taken, "{entry}");
        }
        assert!(restored(&patterns(&[]), &exclude, &path("x"), false));
    }

    #[test]
    fn lists_of_paths() {
        assert_eq!(path_list(b"a\nb c\n\n"), [PathBuf::from("a"), PathBuf::from("b c")]);
        assert_eq!(path_list(b"a\nb\0c\0"), [PathBuf::from("a\nb"), PathBuf::from("c")]);
    }

    #[test]
    fn directories_of_our_own_are_found_behind_symlinks_and_before_they_exist() {
        let dir = tempfile::tempdir().expect("a directory");
        let top = dir.path();
        fs::create_dir_all(top.join("real/home")).expect("mkdir");
        std::os::unix::fs::symlink("real", top.join("alias")).expect("symlink");
        let roots = [top.join("alias/home"), top.join("real/home/x"), top.join("real/homely")];
        assert_eq!(spelled_by_walk(&roots, &top.join("real/home/repo")), [top.join("alias/home/repo")]);
        assert_eq!(within(&roots, &top.join("real/home/x")), Some(&roots[1]));
        assert_eq!(within(&roots, &top.join("real/hom")), None);
    }

    #[test]
    fn roots_are_normal() {
        let list: Vec<PathBuf> = ["/usr/", "/usr/./bin", "/usr", "/usr/lib/.."].map(PathBuf::from).to_vec();
        assert_eq!(roots(&list).expect("exist"), [PathBuf::from("/usr"), PathBuf::from("/usr/bin")]);
        assert!(roots(&[PathBuf::new()]).is_err());
    }
}
