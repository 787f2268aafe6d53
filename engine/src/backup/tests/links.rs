//! Files with several names.

use super::*;

/// A name of a file: what was listed of it, and what reading it gives, if it can be read.
#[derive(Clone)]
struct Name {
    path: &'static str,
    meta: Metadata,
    content: Option<&'static [u8]>,
    opened: Arc<AtomicUsize>,
}

struct Open(Name, usize);

impl LazyEntry for Name {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        match self.content {
            Some(_) => Ok(Box::new(Open(self.clone(), 0))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl OpenFile for Open {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Err(io::Error::other("no attributes today"))
    }
    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((self.0.meta.clone(), self.0.content.map_or(0, |content| content.len() as u64)))
    }
    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(vec![])
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.content.map_or(&[][..], |content| &content[self.1..]);
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.1 += n;
        Ok(n)
    }
}

/// Backs up names of one inode, with the second that each was changed in; what is saved, problems, and files opened.
fn saved(names: &[(&'static str, i64, Option<&'static [u8]>)]) -> (Tree, u64, usize) {
    let (world, opened) = (World::new(), Arc::new(AtomicUsize::new(0)));
    let mut source = |_: &Arc<Reader>| {
        let entries = names.iter().map(|(path, seconds, content)| {
            let stamp = Timestamp { seconds: *seconds, nanos: 1 };
            let meta = Metadata { mtime: stamp, ctime: stamp, inode: 9, device: 1, links: 5, ..meta(9, b"") };
            let name = Name { path, meta: meta.clone(), content: *content, opened: Arc::clone(&opened) };
            let size = content.map_or(0, |content| content.len() as u64);
            let path = EntryPath::new(name.path).expect("valid");
            SourceEntry { path, kind: Kind::File, meta, size, content: SourceContent::Lazy(Box::new(name)) }
        });
        Ok(Box::new(TestSource(entries.collect::<Vec<_>>().into_iter())) as Box<dyn EntrySource>)
    };
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let outcome = run(&world.repo, &mut source, &world.options(), &monitor).expect("backs up");
    let contents = world.contents(&outcome.snapshot.expect("committed"));
    (contents, outcome.problems, opened.load(Ordering::Relaxed))
}

fn tree(files: &[(&str, &[u8])]) -> Tree {
    files.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect()
}

#[test]
fn another_name_is_not_read_again() {
    let (contents, _, opened) = saved(&[("a", 1, Some(b"one")), ("b", 1, Some(b"one")), ("c", 1, Some(b"one"))]);
    assert_eq!((contents, opened), (tree(&[("a", b"one"), ("b", b"one"), ("c", b"one")]), 1));
}

/// An inode number may be given out again while a backup runs, and a file may be written to between two of its names.
#[test]
fn another_file_of_that_number_is_read() {
    let (contents, _, opened) = saved(&[("a", 1, Some(b"one")), ("b", 2, Some(b"another")), ("c", 2, Some(b"another"))]);
    assert_eq!((contents, opened), (tree(&[("a", b"one"), ("b", b"another"), ("c", b"another")]), 2));
    let (contents, ..) = saved(&[("a", 1, Some(b"one")), ("b", 2, Some(b"two"))]);
    assert_eq!(contents, tree(&[("a", b"one"), ("b", b"two")]));
}

#[test]
fn a_name_that_is_gone_takes_no_other_with_it() {
    let (contents, problems, _) = saved(&[("a", 1, None), ("b", 1, Some(b"one")), ("c", 1, Some(b"one"))]);
    assert_eq!(contents, tree(&[("b", b"one"), ("c", b"one")]));
    // One for the name, one for the attributes, which cost no content.
    assert_eq!(problems, 2);
}
