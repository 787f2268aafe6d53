//! Kinds of content that a source may give: streams, stored content, and what it had to leave out.

use super::*;

/// Gives the content of each file through a channel of a few bytes while it is being read, and nothing ahead of it.
mod streams {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded};
    use std::io::Read;
    use std::time::Duration;

    struct Pipe(Receiver<Vec<u8>>, Vec<u8>);

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.is_empty() {
                self.1 = self.0.recv().unwrap_or_default();
            }
            let n = self.1.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.1[..n]);
            self.1.drain(..n);
            Ok(n)
        }
    }

    struct Stream(std::sync::Mutex<Option<Pipe>>);

    struct Open(Pipe, u64, bool);

    impl LazyEntry for Stream {
        fn xattrs(&self) -> io::Result<Xattrs> {
            Ok(vec![])
        }
        fn open(&self) -> io::Result<Box<dyn OpenFile>> {
            Ok(Box::new(Open(self.0.lock().expect("lock").take().expect("opened once"), 0, false)))
        }
    }

    impl OpenFile for Open {
        fn xattrs(&self) -> io::Result<Xattrs> {
            Ok(vec![])
        }
        fn stat(&self) -> io::Result<(Metadata, u64)> {
            Ok((meta(7, b""), if self.2 { self.1 } else { crate::entry::UNKNOWN_SIZE }))
        }
        fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
            Ok(vec![])
        }
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut filled = 0;
            while filled < buffer.len() {
                let n = self.0.read(&mut buffer[filled..])?;
                if n == 0 {
                    self.2 = true;
                    break;
                }
                filled += n;
            }
            self.1 += filled as u64;
            Ok(filled)
        }
    }

    /// Runs ahead of the backup by one entry at most.
    pub(super) struct Feed(Receiver<SourceEntry>, Option<SourceEntry>, bool);

    impl EntrySource for Feed {
        fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
            Ok(self.1.take().or_else(|| self.0.recv().ok()))
        }
        fn wait(&mut self, limit: Duration) -> bool {
            if self.1.is_none() && !self.2 {
                match self.0.recv_timeout(limit) {
                    Ok(entry) => self.1 = Some(entry),
                    Err(e) => self.2 = e.is_disconnected(),
                }
            }
            self.1.is_some() || self.2
        }
    }

    fn entry(path: String, content: SourceContent) -> SourceEntry {
        SourceEntry { path: EntryPath::new(path).expect("valid"), kind: Kind::File, meta: meta(7, b""), size: 0, content }
    }

    pub(super) fn feed(files: Vec<(String, Vec<u8>)>) -> Feed {
        let (tx, rx): (Sender<SourceEntry>, _) = bounded(0);
        std::thread::spawn(move || {
            for (path, bytes) in files {
                let (data, pipe) = bounded(0);
                let content = SourceContent::Stream(Box::new(Stream(std::sync::Mutex::new(Some(Pipe(pipe, vec![]))))));
                if tx.send(entry(path, content)).is_err() {
                    return;
                }
                // Nobody reads a file that was not wanted.
                bytes.chunks(100_000).all(|piece| data.send(piece.to_vec()).is_ok());
            }
        });
        Feed(rx, None, false)
    }
}

#[test]
fn streams_are_read_as_they_come_and_never_wait_for_each_other() {
    let world = World::new();
    let tree: Tree = (0..200_u32).map(|i| (format!("f{i:03}"), noise(i, (i as usize % 7) * 700_000))).collect();
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let mut source = |_: &Arc<Reader>| Ok(Box::new(streams::feed(tree.clone().into_iter().collect())) as Box<dyn EntrySource>);
    let outcome = run(&world.repo, &mut source, &world.options(), &monitor).expect("backs up");
    assert_eq!((outcome.problems, outcome.files_new), (0, 200));
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
}

#[test]
fn a_store_that_fails_ends_a_backup_of_streams() {
    let world = World::new();
    let fault = FaultBackend::new(Arc::clone(&world.backend) as Arc<dyn Backend>);
    fault.inject(Rule::new(Method::Create, Fault::Error(crate::backend::ErrorKind::NoSpace)).key("packs/"));
    let repo = Arc::new(Repository::open(Arc::new(fault), b"x").expect("opens"));
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let files = || (0..100_u32).map(|i| (format!("f{i:03}"), noise(i, 2_000_000))).collect();
    let mut source = |_: &Arc<Reader>| Ok(Box::new(streams::feed(files())) as Box<dyn EntrySource>);
    let result = run(&repo, &mut source, &world.options(), &monitor);
    assert!(matches!(result, Err(Error::Backend(_))), "{result:?}");
}

/// Stored entries of a snapshot, given again; `broken` packs are gone, but can still be read from elsewhere.
struct StoredSource(std::vec::IntoIter<crate::entry::Entry>, Arc<crate::content::StoredFiles>);

impl EntrySource for StoredSource {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        Ok(self.0.next().map(|entry| {
            let content = match entry.kind {
                Kind::File => SourceContent::Stored(Box::new(self.1.stored(&entry, entry.meta.clone()))),
                _ => SourceContent::None,
            };
            SourceEntry { path: entry.path, kind: entry.kind, meta: entry.meta, size: entry.size, content }
        }))
    }
}

#[test]
fn stored_content_is_taken_over_without_reading_and_read_where_it_must_be() {
    let (world, tree) = (World::new(), tree());
    let first = world.backup(&tree).expect("first").snapshot.expect("committed");
    let reader = Arc::new(world.reader());
    let root = world.repo.read_snapshot(&first).expect("snapshot").root;
    let mut entries = Vec::new();
    let mut catalog = CatalogReader::new(&reader, root).expect("catalog");
    while let Some(entry) = catalog.next_entry().expect("entry") {
        entries.push(entry);
    }
    let files = crate::content::StoredFiles::new(Arc::clone(&reader));
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let options = BackupOptions {
        parent: None,
        tags: vec!["t".into()],
        incomplete_tag: Some("partial".into()),
        origin: Some("x".into()),
        ..world.options()
    };
    let mut source =
        |_: &Arc<Reader>| Ok(Box::new(StoredSource(entries.clone().into_iter(), Arc::clone(&files))) as Box<dyn EntrySource>);
    let outcome = run(&world.repo, &mut source, &options, &monitor).expect("second");
    assert_eq!((outcome.files_unmodified, outcome.added_bytes), (3002, 0));
    let name = outcome.snapshot.expect("committed");
    assert_eq!(world.contents(&name), tree);
    let snapshot = world.repo.read_snapshot(&name).expect("snapshot");
    assert_eq!((snapshot.tags, snapshot.origin.as_deref()), (vec!["t".to_owned()], Some("x")));

    // All packs are condemned: nothing may refer to them, but they can still be read.
    let (keys, id) = (world.repo.keys(), world.repo.id());
    let mut condemned = Vec::new();
    reader.index().packs(|_, epoch, id, _| condemned.push((epoch, id))).expect("packs");
    let fence = seal_mark(&keys.epochs, ObjectKind::Fence, id, 0).expect("seals");
    let close = seal_close(&keys.epochs, id, 0, &Close { run: [1; 16], condemned, previous: None }).expect("seals");
    world.backend.create(&names::epoch(0, EpochRole::Close), close.into()).expect("creates");
    world.backend.create(&names::epoch(0, EpochRole::Fence), fence.into()).expect("creates");
    let outcome = run(&world.repo, &mut source, &options, &monitor).expect("third");
    assert!(outcome.added_bytes > 12_000_000, "read and stored again: {}", outcome.added_bytes);
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
}

#[test]
fn what_the_source_lost_counts_and_tags() {
    struct Losing;
    impl EntrySource for Losing {
        fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
            Ok(None)
        }
        fn lost(&self) -> u64 {
            3
        }
    }
    let world = World::new();
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let options = BackupOptions { incomplete_tag: Some("partial".into()), ..world.options() };
    let outcome = run(&world.repo, &mut |_| Ok(Box::new(Losing) as _), &options, &monitor).expect("runs");
    assert_eq!(outcome.problems, 3);
    let snapshot = world.repo.read_snapshot(&outcome.snapshot.expect("committed")).expect("snapshot");
    assert_eq!((snapshot.problems, snapshot.tags), (3, vec!["partial".to_owned()]));
}

#[test]
fn stored_files_read_at_random() {
    let world = World::new();
    let big = noise(3, 30_000_000);
    let tree = Tree::from([("big".into(), big.clone()), ("small".into(), noise(4, 1000)), ("none".into(), vec![])]);
    let name = world.backup(&tree).expect("backs up").snapshot.expect("committed");
    let reader = Arc::new(world.reader());
    let root = world.repo.read_snapshot(&name).expect("snapshot").root;
    let files = crate::content::StoredFiles::new(Arc::clone(&reader));
    let entry = |path: &str| {
        let path = EntryPath::new(path).expect("valid");
        crate::catalog::lookup(&reader, root, &path).expect("reads").expect("is there")
    };
    let mut entry_big = entry("big");
    let check = |entry: &crate::entry::Entry, expected: &[u8]| {
        let mut open = files.open(entry);
        assert_eq!(open.size(), expected.len() as u64);
        for (at, length) in [(0, 10), (29_999_990, 100), (1_048_570, 3_000_000), (5, 0), (40_000_000, 5), (17, 4096)] {
            let mut buffer = vec![1; length];
            let n = open.read_at(at as u64, &mut buffer).expect("reads");
            let from = at.min(expected.len());
            assert_eq!(&buffer[..n], &expected[from..(from + length).min(expected.len())], "at {at}");
        }
    };
    check(&entry_big, &big);
    check(&entry("none"), &[]);
    check(&entry("small"), &noise(4, 1000));
    // The same data around holes.
    entry_big.holes = vec![Hole { offset: 0, length: 7 }, Hole { offset: 1_048_580, length: 2_000_000 }];
    entry_big.size += 2_000_007;
    let mut sparse = vec![0; 7];
    sparse.extend_from_slice(&big[..1_048_573]);
    sparse.resize(sparse.len() + 2_000_000, 0);
    sparse.extend_from_slice(&big[1_048_573..]);
    check(&entry_big, &sparse);
}
