//! Names of users and groups, as duplicity goes by them: a name that this machine knows counts more than a number.

use std::collections::HashMap;
use std::path::Path;

use crate::tar::Header;

/// The numbers this machine has for names.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

impl Names {
    /// Reads the machine's files; one that cannot be read counts as empty.
    pub fn load() -> Self {
        let read = |path: &str| parse(&std::fs::read(Path::new(path)).unwrap_or_default());
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    /// Only numbers count.
    pub fn numeric() -> Self {
        Self::default()
    }

    /// The user and group that a member belongs to here.
    pub fn owner(&self, header: &Header) -> (u32, u32) {
        let user = self.users.get(&header.uname).copied().unwrap_or(header.uid);
        let group = self.groups.get(&header.gname).copied().unwrap_or(header.gid);
        (user, group)
    }
}

/// Lines of `name:password:number:...`; the first line for a name counts.
fn parse(text: &[u8]) -> HashMap<Vec<u8>, u32> {
    let mut numbers = HashMap::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
        if let Some(number) = number.filter(|_| !name.is_empty()) {
            numbers.entry(name.to_vec()).or_insert(number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_more_than_numbers() {
        let users = parse(b"root:x:0:0::/:\nu:x:7:7::/:\nu:x:8:8::/:\nbroken\n:x:9:\n");
        let names = Names { users, groups: HashMap::new() };
        let header = |uname: &[u8]| Header { uid: 1, gid: 2, uname: uname.to_vec(), ..Header::default() };
        assert_eq!(names.owner(&header(b"u")), (7, 2));
        assert_eq!(names.owner(&header(b"nobody here")), (1, 2));
        assert_eq!(names.owner(&header(b"")), (1, 2));
        assert_eq!(Names::numeric().owner(&header(b"u")), (1, 2));
    }
}
