//! Names of users and groups.
//!
//! Read from `/etc/passwd` and `/etc/group` once per walk. Users that only a directory service knows have no name
//! here: asking the system's name service would load foreign code into every process and may block for seconds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::entry::Owner;

/// The names this machine has for numbers.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads the machine's files; one that cannot be read counts as empty.
    pub fn load() -> Self {
        Self { users: read(Path::new("/etc/passwd")), groups: read(Path::new("/etc/group")) }
    }
}

fn read(path: &Path) -> HashMap<u32, String> {
    parse(&std::fs::read(path).unwrap_or_default())
}

/// Lines of `name:password:number:...`; the first line for a number counts, as in the C library.
fn parse(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// Hands out one shared [`Owner`] per pair of numbers. One per thread.
pub(super) struct Owners {
    names: Arc<Names>,
    known: HashMap<(u32, u32), Arc<Owner>>,
    last: Arc<Owner>,
}

impl Owners {
    pub fn new(names: Arc<Names>) -> Self {
        let last = make(&names, 0, 0);
        Self { names, known: HashMap::new(), last }
    }

    /// The owner with these numbers.
    pub fn get(&mut self, uid: u32, gid: u32) -> Arc<Owner> {
        // Neighbours mostly have the same owner.
        if (self.last.uid, self.last.gid) != (uid, gid) {
            let names = &self.names;
            self.last = Arc::clone(self.known.entry((uid, gid)).or_insert_with(|| make(names, uid, gid)));
        }
        Arc::clone(&self.last)
    }
}

fn make(names: &Names, uid: u32, gid: u32) -> Arc<Owner> {
    let (user, group) = (names.users.get(&uid).cloned(), names.groups.get(&gid).cloned());
    Arc::new(Owner { uid, gid, user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_counts_and_broken_lines_do_not() {
        let names = parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nbroken\nno:x:number\n\xff:x:5:\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn owners_are_shared() {
        let mut owners = Owners::new(Arc::new(Names::default()));
        let first = owners.get(1, 2);
        owners.get(3, 4);
        assert!(Arc::ptr_eq(&first, &owners.get(1, 2)));
    }
}
