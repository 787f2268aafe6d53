//! Deltas of made-up contents: right, and as small as the change.

use std::io;
use std::sync::Arc;

use engine::content::StoredFiles;
use engine::entry::{Hole, Kind, LazyEntry, Metadata, OpenFile, SourceContent, SourceEntry, Timestamp, Xattrs};
use engine::error::Error;
use engine::path::EntryPath;

use super::super::delta;
use super::*;
use crate::librsync::DeltaReader;

/// A file of some runs of data, and holes.
#[derive(Clone, Default)]
struct Made {
    bytes: Arc<Vec<u8>>,
    holes: Vec<Hole>,
    at: usize,
}

impl Made {
    fn meta(&self) -> Metadata {
        Metadata { mode: 0o644, links: 1, mtime: Timestamp { seconds: 1000, nanos: 0 }, ..Metadata::default() }
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64 + self.holes.iter().map(|h| h.length).sum::<u64>()
    }

    /// The whole content.
    fn laid(&self) -> Vec<u8> {
        let mut all = self.bytes.to_vec();
        for hole in &self.holes {
            let at = usize::try_from(hole.offset).expect("small");
            all.splice(at..at, vec![0; usize::try_from(hole.length).expect("small")]);
        }
        all
    }
}

impl LazyEntry for Made {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(self.clone()))
    }
}

impl OpenFile for Made {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((self.meta(), self.size()))
    }
    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(self.holes.clone())
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.bytes.len() - self.at);
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

struct One(Vec<SourceEntry>);

impl EntrySource for One {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>, Error> {
        Ok(self.0.pop())
    }
}

fn source(made: &Made) -> One {
    let entry = |path: &str, kind, size, content| SourceEntry {
        path: EntryPath::new(path).expect("valid"),
        kind,
        meta: made.meta(),
        size,
        content,
    };
    One(vec![
        entry("f", Kind::File, made.size(), SourceContent::Lazy(Box::new(made.clone()))),
        entry("", Kind::Directory, 0, SourceContent::None),
    ])
}

fn random(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(seed >> 20).to_le_bytes()[..5]);
    }
    bytes.truncate(length);
    bytes
}

/// The size of the delta between two contents, which is applied and compared.
fn delta_size(old: &Made, new: &Made) -> usize {
    let world = World::new();
    world.backup(1_000_000_000, source(old));
    world.backup(1_000_000_001, source(new));
    let reader = world.reader();
    let entries: Vec<Entry> = (world.choices().iter())
        .map(|choice| {
            let path = EntryPath::new("f").expect("valid");
            engine::catalog::lookup(&reader, choice.record.snapshot.root, &path).expect("reads").expect("is there")
        })
        .collect();
    let mut bytes = Vec::new();
    let mut sink = |data: &[u8]| {
        bytes.extend_from_slice(data);
        Ok(())
    };
    delta::write(&reader, &StoredFiles::new(Arc::clone(&reader)), &entries[0], &entries[1], &mut sink).expect("a delta");
    let (basis, mut made) = (old.laid(), Vec::new());
    DeltaReader::new(&bytes[..], &basis[..], u64::MAX).read_to_end(&mut made).expect("valid");
    assert!(made == new.laid());
    bytes.len()
}

fn plain(bytes: Vec<u8>) -> Made {
    Made { bytes: Arc::new(bytes), ..Made::default() }
}

#[test]
fn small_changes_give_small_deltas() {
    let old = random(9 << 20, 1);
    let changed = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut new = old.clone();
        edit(&mut new);
        delta_size(&plain(old.clone()), &plain(new))
    };
    assert!(changed(&|new| new[5 << 20] ^= 1) < 200);
    assert!(changed(&|new| (0..9).for_each(|i| new[(i << 20) + 77] ^= 1)) < 1500);
    assert!(changed(&|new| drop(new.splice(4_000_000..4_000_000, *b"inserted"))) < 200);
    assert!(changed(&|new| drop(new.drain(100..5_000_000))) < 200);
    assert!(changed(&|new| new.extend_from_slice(b"appended")) < 200);
    assert!(changed(&|new| new.truncate(3_333_333)) < 200);
    assert!(changed(&|new| new.rotate_left(4 << 20)) < 4 << 20);
    assert_eq!(changed(&Vec::clear), 5);
}

#[test]
fn unlike_contents_are_literal() {
    for (old, new) in [(0, 300_000), (300_000, 100_000), (100, 3), (70_000, 70_000)] {
        let size = delta_size(&plain(random(old, 3)), &plain(random(new, 4)));
        assert!(size <= new + new / 1000 + 20, "{size}");
    }
}

#[test]
fn holes_are_no_obstacle() {
    let data = random(3 << 20, 5);
    let holes = |list: &[(u64, u64)]| list.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
    let old = Made { bytes: Arc::new(data.clone()), holes: holes(&[(1 << 20, 500_000), (3 << 20, 7)]), at: 0 };
    let mut edited = data.clone();
    edited[99] ^= 1;
    let new = Made { bytes: Arc::new(edited), holes: holes(&[(0, 4096), (2 << 20, 100_000)]), at: 0 };
    delta_size(&old, &new);
    assert!(delta_size(&old, &Made { bytes: Arc::new(data.clone()), ..old.clone() }) < 100);
    assert!(delta_size(&old, &plain(old.laid())) < 1 << 20);
    delta_size(&plain(data), &new);
}
