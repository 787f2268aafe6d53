//! A snapshot of another repository as a source of entries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::{CatalogAhead, Gap, Step};
use crate::content::StoredFiles;
use crate::entry::{Content, Entry, EntrySource, Kind, LazyEntry, OpenFile, SourceContent, SourceEntry, StoredContent, Xattrs};
use crate::error::Result;
use crate::id::BlobId;
use crate::monitor::{Monitor, Problem};
use crate::path::EntryPath;
use crate::repo::Reader;

/// Decoded frames that are kept: one for each thread that reads, and some for the next ones.
const FRAMES: usize = 20 << 20;
/// How often to look whether all files have been read.
const LOOK: Duration = Duration::from_millis(2);

/// What the repository that is written to has already.
enum Known {
    Nothing,
    /// What a copied snapshot has, too.
    Base(Box<Base>),
    /// Everything: it is the same one.
    All,
}

/// See the module.
pub(crate) struct CopySource {
    catalog: CatalogAhead,
    files: Arc<StoredFiles>,
    known: Known,
    /// What comes next, if that is known.
    next: Option<Result<SourceEntry>>,
    ended: bool,
    lost: u64,
    monitor: Arc<dyn Monitor>,
}

impl CopySource {
    /// The entries below `root` of `from`. `base` are the roots of a snapshot of `from` and of its copy, which `to` reads.
    pub(crate) fn new(
        from: &Arc<Reader>,
        root: Option<BlobId>,
        base: Option<(Option<BlobId>, Option<BlobId>)>,
        to: &Arc<Reader>,
        monitor: Arc<dyn Monitor>,
    ) -> Result<Self> {
        let known = match base {
            Some((theirs, ours)) => {
                let theirs = Ordered { catalog: CatalogAhead::new(Arc::clone(from), theirs)?, next: None };
                let ours = Ordered { catalog: CatalogAhead::new(Arc::clone(to), ours)?, next: None };
                Known::Base(Box::new(Base { theirs, ours }))
            }
            None => Known::Nothing,
        };
        Self::with(from, root, known, monitor)
    }

    /// The entries of a snapshot of the repository that is written to: only what cannot be referred to any more is read.
    pub(crate) fn own(reader: &Arc<Reader>, root: Option<BlobId>, monitor: Arc<dyn Monitor>) -> Result<Self> {
        Self::with(reader, root, Known::All, monitor)
    }

    fn with(from: &Arc<Reader>, root: Option<BlobId>, known: Known, monitor: Arc<dyn Monitor>) -> Result<Self> {
        let files = StoredFiles::with_cache(Arc::clone(from), FRAMES);
        let catalog = CatalogAhead::new(Arc::clone(from), root)?;
        Ok(Self { catalog, files, known, next: None, ended: false, lost: 0, monitor })
    }

    fn fill(&mut self) {
        while self.next.is_none() && !self.ended {
            match self.catalog.next_step() {
                Ok(Some(Step::Entry(entry))) => self.next = Some(self.source_entry(*entry)),
                Ok(Some(Step::Gap(gap))) => self.gap(&gap),
                Ok(None) => self.ended = true,
                Err(error) => self.next = Some(Err(error)),
            }
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let what = match &gap.span {
            Some(span) => {
                self.lost = self.lost.saturating_add(span.entries);
                format!("the {} entries that end at {} are lost", span.entries, span.last.display())
            }
            None => {
                self.lost = self.lost.saturating_add(1);
                "all entries are lost".to_owned()
            }
        };
        self.monitor.problem(Problem { subject: "catalog".to_owned(), message: format!("{}; {what}", gap.error) });
    }

    fn source_entry(&mut self, entry: Entry) -> Result<SourceEntry> {
        let content = match &entry.kind {
            Kind::File if entry.size == 0 && entry.xattrs.is_empty() => SourceContent::None,
            Kind::File => {
                let lazy = self.files.stored(&entry, entry.meta.clone()).lazy;
                match self.known(&entry)? {
                    Some(content) => SourceContent::Stored(Box::new(StoredContent {
                        content,
                        size: entry.size,
                        holes: entry.holes.clone(),
                        xattrs: entry.xattrs.clone(),
                        lazy,
                    })),
                    None => SourceContent::Lazy(lazy),
                }
            }
            _ if entry.xattrs.is_empty() => SourceContent::None,
            _ => SourceContent::Lazy(Box::new(Attributes(entry.xattrs.clone()))),
        };
        let size = entry.data_size();
        Ok(SourceEntry { path: entry.path, kind: entry.kind, meta: entry.meta, size, content })
    }

    /// Where the repository that is written to has the same content, if it does.
    fn known(&mut self, entry: &Entry) -> Result<Option<Content>> {
        match &mut self.known {
            Known::Nothing => Ok(None),
            Known::All => Ok(Some(entry.content.clone())),
            Known::Base(base) => match base.find(entry) {
                Err(error) if error.is_local() => {
                    // Comparing is only for speed.
                    self.monitor.note(format!("{error}; reading all files"));
                    self.known = Known::Nothing;
                    Ok(None)
                }
                found => Ok(found?.map(|entry| entry.content)),
            },
        }
    }

    /// The store failed while a file was read.
    fn check(&self) -> Result<()> {
        self.files.take_failure().map_or(Ok(()), Err)
    }
}

impl EntrySource for CopySource {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        self.fill();
        self.check()?;
        self.next.take().transpose()
    }

    /// The end is at hand only when every file was read: until then the store may fail.
    fn wait(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        self.fill();
        // Whatever is still to be read or being read holds on to the files.
        while self.next.is_none() && Arc::strong_count(&self.files) > 1 {
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}

/// Extended attributes of what is no file.
struct Attributes(Xattrs);

impl LazyEntry for Attributes {
    fn xattrs(&self) -> std::io::Result<Xattrs> {
        Ok(self.0.clone())
    }

    fn open(&self) -> std::io::Result<Box<dyn OpenFile>> {
        Err(std::io::Error::other("not a regular file"))
    }
}

/// A snapshot and its copy, read alongside.
struct Base {
    theirs: Ordered,
    ours: Ordered,
}

impl Base {
    /// The copy of a file that was the same then.
    fn find(&mut self, entry: &Entry) -> Result<Option<Entry>> {
        let same = |other: &Entry| other.kind == Kind::File && (other.size, &other.holes) == (entry.size, &entry.holes);
        let theirs = self.theirs.seek(&entry.path)?;
        let ours = self.ours.seek(&entry.path)?;
        if theirs.is_some_and(|theirs| same(&theirs) && theirs.content == entry.content) {
            Ok(ours.filter(same))
        } else {
            Ok(None)
        }
    }
}

/// A catalog in which paths are looked up in order.
struct Ordered {
    catalog: CatalogAhead,
    next: Option<Entry>,
}

impl Ordered {
    fn seek(&mut self, path: &EntryPath) -> Result<Option<Entry>> {
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => match self.catalog.next_entry()? {
                    Some(next) => next,
                    None => return Ok(None),
                },
            };
            if next.path == *path {
                return Ok(Some(next));
            }
            if next.path > *path {
                self.next = Some(next);
                return Ok(None);
            }
        }
    }
}
