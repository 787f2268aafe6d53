//! The start of a walk: its roots, and the directories above them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use super::ahead::Slot;
use super::list::{Batch, Item, Lister, Listing, Work};
use crate::error::{Error, Result};
use crate::fs::dirs::{Dir, OpenDirs};
use crate::fs::meta::Stat;
use crate::path::EntryPath;

/// The first entries of a walk: usable roots and the directories above them, in order.
pub fn examine(roots: &[PathBuf], lister: &mut Lister) -> Result<Batch> {
    let mut paths = roots.iter().map(|root| entry_path(root)).collect::<Result<Vec<_>>>()?;
    paths.sort_unstable();
    paths.dedup();
    let top = Dir::top(OpenDirs::new()).map_err(|source| Error::Io { path: "/".into(), action: "cannot open", source })?;
    let mut above = BTreeMap::from([(EntryPath::root(), top)]);
    let mut items: BTreeMap<EntryPath, Item> = BTreeMap::new();
    let mut outer: Option<EntryPath> = None;
    for path in paths {
        if let Some(outer) = outer.as_ref().filter(|outer| path.is_within(outer)) {
            if items.get(outer).is_some_and(|item| item.contents.is_none()) {
                lister.common.problem(path.as_bytes(), format!("left out: /{} is no directory", outer.display()));
            }
            continue;
        }
        match examine_root(&path, &mut above, &mut items, lister) {
            Ok(Some(item)) => {
                items.insert(path.clone(), item);
                outer = Some(path);
            }
            Ok(None) => {}
            Err(error) => lister.common.problem(path.as_bytes(), format!("cannot examine: {error}")),
        }
    }
    if outer.is_none() {
        return Err(Error::Invalid("there is nothing at any of the given paths".to_owned()));
    }
    lister.announce(items.values());
    Ok(Batch { items: items.into_values().collect(), more: Vec::new() })
}

fn entry_path(root: &Path) -> Result<EntryPath> {
    let refuse = |why: &str| Error::Invalid(format!("{}: {why}", root.display()));
    if !root.is_absolute() {
        return Err(refuse("not an absolute path"));
    }
    let mut bytes = Vec::new();
    for component in root.components() {
        match component {
            Component::Normal(name) => {
                if !bytes.is_empty() {
                    bytes.push(b'/');
                }
                bytes.extend_from_slice(name.as_bytes());
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("'..' in the path")),
        }
    }
    EntryPath::new(bytes).map_err(|error| refuse(&error.to_string()))
}

type Above = BTreeMap<EntryPath, Arc<Dir>>;

/// The item of a root; adds the directories above it to `above`, and to `items` where they are new.
fn examine_root(
    path: &EntryPath,
    above: &mut Above,
    items: &mut BTreeMap<EntryPath, Item>,
    lister: &mut Lister,
) -> std::io::Result<Option<Item>> {
    let name = if path.is_root() { c".".to_owned() } else { CString::new(path.name())? };
    let parents = parents(path);
    // Opened to the end first: a root that is not there leaves no directories behind.
    let mut chain = Vec::new();
    let mut parent = Arc::clone(&above[&EntryPath::root()]);
    for path in parents {
        let dir = match above.get(&path) {
            Some(dir) => Arc::clone(dir),
            None => Dir::ancestor(&parent, &CString::new(path.name())?, path),
        };
        dir.fd()?;
        chain.push(Arc::clone(&dir));
        parent = dir;
    }
    let stat = Stat::at(parent.fd()?, &name)?;
    for dir in chain {
        if !above.contains_key(&dir.path) {
            if let Some(item) = item_above(&dir, lister)? {
                items.insert(dir.path.clone(), item);
            }
            above.insert(dir.path.clone(), dir);
        }
    }
    let item = root_item(path, &name, &parent, &stat, lister)?;
    Ok(item)
}

fn root_item(
    path: &EntryPath,
    name: &CStr,
    parent: &Arc<Dir>,
    stat: &Stat,
    lister: &mut Lister,
) -> std::io::Result<Option<Item>> {
    let contents = (stat.file_type() == FileType::Directory).then(|| {
        let dir = Dir::child(parent, name, path.clone());
        Slot::new(path.clone(), Work::List(dir))
    });
    let listing = Listing::single(Arc::clone(parent), name);
    let entry = lister.entry(&*parent.fd()?, &listing, 0, path.clone(), stat);
    Ok(entry.map(|entry| Item { entry, contents }))
}

/// Named by `.` in itself, since its own name may be a symlink to it.
fn item_above(dir: &Arc<Dir>, lister: &mut Lister) -> std::io::Result<Option<Item>> {
    let listing = Listing::single(Arc::clone(dir), c".");
    let fd = dir.fd()?;
    let stat = Stat::at(&fd, c".")?;
    let entry = lister.entry(&fd, &listing, 0, dir.path.clone(), &stat);
    Ok(entry.map(|entry| Item { entry, contents: None }))
}

/// The directories above `path` from the top, without the root.
fn parents(path: &EntryPath) -> Vec<EntryPath> {
    let mut parents: Vec<EntryPath> =
        std::iter::successors(path.parent(), EntryPath::parent).filter(|path| !path.is_root()).collect();
    parents.reverse();
    parents
}
