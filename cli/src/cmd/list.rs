//! `snapshots`, `ls`, `cat`

use std::time::SystemTime;

use anyhow::{Result, bail};
use engine::catalog::{CatalogReader, lookup};
use engine::content;
use engine::entry::{Entry, Kind, Timestamp};
use engine::error::Error;
use engine::format::snapshot::SnapshotKind;
use engine::id::BlobId;
use engine::maintain;
use engine::path::{EntryPath, display_bytes};
use engine::repo::Reader;
use engine::snapshot::{self, SnapshotRecord};

use crate::args::{CatArgs, FilterArgs, LsArgs};
use crate::context::Context;
use crate::exit::{Status, advise};
use crate::select::Filter;
use crate::ui::{Out, human, json};

/// Entries of a directory that are read one by one before the catalog is searched for its end.
const READ_ON: u32 = 64;

/// Heading of a table of snapshots.
pub const HEADING: [&str; 6] = ["ID", "Time", "Host", "Tags", "Paths", " Size"];

pub fn snapshots(context: &Context, args: &FilterArgs) -> Result<Status> {
    let filter = Filter::new(args)?;
    let repo = context.open()?;
    let view = repo.load_view(&*context.ui)?;
    let mut all = snapshot::list(&repo, &view, &*context.ui)?;
    all.retain(|record| filter.accepts(record));
    let names: Vec<_> = all.iter().map(|record| record.name).collect();
    let locks = maintain::locked_until(&repo, &view, &names)?;
    let mut out = context.ui.out();
    if context.ui.json() {
        for (record, lock) in all.iter().zip(&locks) {
            let mut value = json::snapshot(record);
            if repo.config().retention.is_some() {
                value["locked_until"] = lock.map_or(serde_json::Value::Null, |until| json::time(Timestamp::from(until)));
            }
            out.json(&value)?;
        }
    } else {
        let (mut heading, mut rows) = (HEADING.to_vec(), all.iter().map(row).collect::<Vec<_>>());
        if repo.config().retention.is_some() {
            heading.push("Locked until");
            let text = |until: &Option<SystemTime>| until.map_or("not locked".to_owned(), |at| human::time(Timestamp::from(at)));
            rows.iter_mut().zip(&locks).for_each(|(row, until)| row.push(text(until)));
        }
        out.bytes(human::table(&heading, &rows).as_bytes())?;
        out.line(format_args!("{}", human::plural(all.len() as u64, "snapshot")))?;
    }
    out.flush()?;
    Ok(context.status())
}

/// A snapshot's row in a table.
pub fn row(record: &SnapshotRecord) -> Vec<String> {
    let snapshot = &record.snapshot;
    let lines = |texts: Vec<String>| texts.join("\n");
    let text = |text: &String| display_bytes(text.as_bytes());
    let mut tags: Vec<String> = snapshot.tags.iter().map(text).collect();
    if snapshot.kind == SnapshotKind::Partial {
        tags.push("(interrupted)".to_owned());
    }
    vec![
        record.name.id.short(),
        human::time(snapshot.time),
        text(&snapshot.host),
        lines(tags),
        lines(snapshot.paths.iter().map(|path| display_bytes(path)).collect()),
        human::bytes(snapshot.totals.bytes),
    ]
}

pub fn ls(context: &Context, args: &LsArgs) -> Result<Status> {
    let reader = context.reader()?;
    let record = context.find(&reader, &args.snapshot.reference, &args.filter)?;
    let base = args.snapshot.path.clone().unwrap_or_default();
    if !base.is_root() && lookup(&reader, record.snapshot.root, &base)?.is_none() {
        return Err(not_found(&record, &base));
    }
    let depth = if args.recursive { Depth::All } else { Depth::One };
    let mut below = Below::new(&reader, &record, base.clone(), depth)?;
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json::snapshot(&record))?;
    }
    while let Some(entry) = below.next_entry()? {
        if context.ui.was_cancelled() {
            return Err(Error::Interrupted.into());
        }
        // Of a directory, the contents; anything else itself.
        if entry.path == base && entry.is_directory() {
            continue;
        }
        match context.ui.json() {
            true => out.json(&json::entry(&entry))?,
            false => print(&mut out, &entry, args.long)?,
        }
    }
    out.flush()?;
    Ok(context.status())
}

fn print(out: &mut Out, entry: &Entry, long: bool) -> Result<()> {
    if long {
        out.bytes(human::details(entry).as_bytes())?;
        out.bytes(b" ")?;
    }
    let mut name = json::absolute(entry.path.as_bytes());
    if let (Kind::Symlink(target), true) = (&entry.kind, long) {
        name.extend_from_slice(b" -> ");
        name.extend_from_slice(target);
    }
    // A terminal must not obey what is in a name; a program wants the very bytes.
    if Out::is_terminal() {
        name = display_bytes(&name).into_bytes();
    }
    name.push(b'\n');
    out.bytes(&name)
}

/// How deep to list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

/// A directory and what is in it, in order.
struct Below<'r> {
    reader: &'r Reader,
    root: Option<BlobId>,
    catalog: CatalogReader<'r>,
    base: EntryPath,
    depth: Depth,
    /// A directory whose contents are passed over, and how many of them have been.
    passing: Option<(EntryPath, u32)>,
}

impl<'r> Below<'r> {
    fn new(reader: &'r Reader, record: &SnapshotRecord, base: EntryPath, depth: Depth) -> Result<Self> {
        let root = record.snapshot.root;
        let catalog = CatalogReader::at(reader, root, &base)?;
        Ok(Self { reader, root, catalog, base, depth, passing: None })
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        while let Some(entry) = self.catalog.next_entry()? {
            if let Some((dir, passed)) = self.passing.as_mut().filter(|(dir, _)| entry.path.is_within(dir)) {
                *passed += 1;
                if let Some(end) = end_of(dir).filter(|_| *passed == READ_ON) {
                    self.catalog = CatalogReader::at(self.reader, self.root, &end)?;
                }
                continue;
            }
            if !entry.path.is_within(&self.base) {
                return Ok(None);
            }
            if self.depth == Depth::One && entry.is_directory() && entry.path != self.base {
                self.passing = Some((entry.path.clone(), 0));
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }
}

/// The least path after everything in a directory: no name is less than the directory's own with a byte 1 after it
/// and greater than the directory's own with a slash after it. None if that would be too long.
fn end_of(dir: &EntryPath) -> Option<EntryPath> {
    EntryPath::new([dir.as_bytes(), &[1]].concat()).ok()
}

pub(super) fn not_found(record: &SnapshotRecord, path: &EntryPath) -> anyhow::Error {
    advise(
        format!("/{}: not in snapshot {}", path.display(), record.name.id.short()),
        format!("'deduplicity ls {}' lists what is in it", record.name.id.short()),
    )
}

pub fn cat(context: &Context, args: &CatArgs) -> Result<Status> {
    let Some(path) = args.snapshot.path.as_ref().filter(|path| !path.is_root()) else {
        bail!("which file? write SNAPSHOT:PATH");
    };
    let reader = context.reader()?;
    let record = context.find(&reader, &args.snapshot.reference, &args.filter)?;
    let Some(entry) = lookup(&reader, record.snapshot.root, path)? else { return Err(not_found(&record, path)) };
    if entry.kind != Kind::File {
        bail!("/{}: not a regular file", path.display());
    }
    let mut out = context.ui.out();
    content::copy_to(&reader, &entry, &mut out)?;
    out.flush()?;
    Ok(context.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_directory_is_before_its_next_sibling() {
        let path = |p: &str| EntryPath::new(p).expect("valid");
        let end = end_of(&path("a/b")).expect("short enough");
        assert!(path("a/b/\u{7f}") < end);
        assert!(end < path("a/b ") && end < path("a/b-") && end < path("a/c"));
        assert_eq!(end_of(&path(&"x".repeat(255))), None);
    }
}
