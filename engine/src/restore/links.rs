//! Files with several names: the first one seen is restored as a file, the others become links to it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::entry::{Content, Entry};
use crate::path::EntryPath;

/// The first name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Where it is beneath the target.
    pub path: EntryPath,
    /// Its number.
    pub number: u64,
}

struct Seen {
    first: First,
    /// Guards against an inode number that was used again while the backup ran.
    print: u64,
    /// Names that have not come yet.
    left: u64,
}

/// Names seen so far, of files of which more are to come: grows with the files that have names elsewhere.
#[derive(Default)]
pub struct Links(HashMap<(u64, u64), Seen>);

impl Links {
    /// The first name of what this is another name of.
    pub fn first(&mut self, entry: &Entry) -> Option<First> {
        if !may_be_linked(entry) {
            return None;
        }
        let key = (entry.meta.device, entry.meta.inode);
        let seen = self.0.get_mut(&key).filter(|seen| seen.print == fingerprint(entry))?;
        seen.left = seen.left.saturating_sub(1);
        if seen.left > 0 {
            return Some(seen.first.clone());
        }
        self.0.remove(&key).map(|seen| seen.first)
    }

    /// Remembers an entry that is no other name of something.
    pub fn remember(&mut self, entry: &Entry, number: u64) {
        if may_be_linked(entry) {
            let (first, print) = (First { path: entry.path.clone(), number }, fingerprint(entry));
            let seen = Seen { first, print, left: entry.meta.links - 1 };
            self.0.entry((entry.meta.device, entry.meta.inode)).or_insert(seen);
        }
    }
}

fn may_be_linked(entry: &Entry) -> bool {
    entry.meta.links > 1 && !entry.is_directory()
}

fn fingerprint(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", entry.kind).hash(&mut hasher);
    (entry.size, entry.meta.mtime).hash(&mut hasher);
    match &entry.content {
        Content::Empty => {}
        Content::Blobs(ids) => ids.hash(&mut hasher),
        Content::Tree { root, .. } => root.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Metadata};

    fn entry(path: &str, inode: u64, links: u64, size: u64) -> Entry {
        Entry {
            path: EntryPath::new(path).expect("valid"),
            kind: Kind::File,
            meta: Metadata { inode, links, ..Metadata::default() },
            xattrs: vec![],
            size,
            content: Content::Empty,
            holes: vec![],
        }
    }

    #[test]
    fn forgets_when_all_names_were_seen_and_tells_reused_inodes_apart() {
        let mut links = Links::default();
        for (number, path) in ["a", "b"].into_iter().enumerate() {
            let e = entry(path, 7, 3, 0);
            let first = links.first(&e);
            assert_eq!(first.is_some(), number > 0);
            if first.is_none() {
                links.remember(&e, 0);
            }
        }
        assert_eq!(links.first(&entry("other", 7, 3, 1)), None);
        let first = links.first(&entry("c", 7, 3, 0)).expect("third name");
        assert_eq!((first.path.as_bytes(), first.number), (&b"a"[..], 0));
        assert!(links.0.is_empty());
        assert_eq!(links.first(&entry("single", 8, 1, 0)), None);
    }
}
