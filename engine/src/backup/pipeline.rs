//! One round of a backup: source to snapshot under one epoch.

mod commit;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::budget::Budget;
use super::parent::{Compared, Parent, usable};
use super::queue::{BatchResult, Queue};
use super::read::{BATCH, Batch, Buffers, ReadContext, ReadUnit, UnitFile, read_unit};
use super::session::WriteSession;
use super::store::{Store, Upload};
use super::{Attempt, BackupOptions, BackupOutcome, ParentView, Round};
use crate::backend::ErrorKind;
use crate::catalog::CatalogBuilder;
use crate::chunker::{Chunker, DEFAULT_SIZES};
use crate::entry::{Content, Entry, EntrySource, Kind, LazyEntry, SourceContent, SourceEntry};
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::repo::{Reader, is_missing};

/// Bytes in open packs and packs on their way to the store, and what of the batches may get there.
const PACK_MEMORY: usize = 88 << 20;
/// Bytes in buffers that are being filled or worked on, for each processor and in all.
const BATCH_MEMORY: (usize, usize) = (3 * BATCH, 64 << 20);
/// Entries between the source and the catalog.
const MAX_QUEUED: usize = 16 * 1024;
/// Full packs of bytes (128 MiB by default) that may wait to be read: what is handed out is stored even if maintenance has ended the
/// epoch. A file counts as one pack at most.
const MAX_WAITING: u64 = 8;
/// A unit of small files holds at most this many bytes and files.
const UNIT_BYTES: u64 = (BATCH - (BATCH >> 3)) as u64;
const UNIT_FILES: usize = 1024;
/// How long a source may keep everyone waiting before what is pending is handed on.
const PATIENCE: Duration = Duration::from_millis(20);
/// More than processors: on a cold cache they mostly wait for the disk.
const READERS: usize = 6;

/// Runs the threads of one round around [`Coordinator`].
pub(super) fn round(
    reader: &Arc<Reader>,
    source: &mut dyn EntrySource,
    options: &BackupOptions,
    parent: Option<&ParentView>,
    attempt: Attempt,
    monitor: &Arc<dyn Monitor>,
) -> Result<Round> {
    let budget = Budget::new(PACK_MEMORY);
    let (upload_tx, upload_rx) = unbounded();
    let store =
        Store::new(Arc::clone(reader), Arc::clone(monitor), options.level, options.dry_run, Arc::clone(&budget), upload_tx)?;
    let store = Arc::new(store);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| Error::Invalid(e.to_string()))?;
    let config = reader.repo().config();
    let buffers = Arc::new(Buffers::default());
    let rooms = Budget::new((READERS * BATCH + threads * BATCH_MEMORY.0).min(BATCH_MEMORY.1));
    let context = ReadContext {
        rooms: Arc::clone(&rooms),
        chunker: Chunker::new(&reader.repo().keys().chunker, config.chunks.unwrap_or(DEFAULT_SIZES)),
        budget: Arc::clone(&budget),
        buffers: Arc::clone(&buffers),
    };
    let (unit_tx, unit_rx) = bounded(READERS * 2);
    let (result_tx, result_rx) = unbounded();
    let result = std::thread::scope(|scope| {
        for _ in 0..reader.repo().backend().concurrency().clamp(1, 8) {
            let (store, uploads) = (Arc::clone(&store), upload_rx.clone());
            scope.spawn(move || uploads.iter().for_each(|u: Upload| store.upload(u)));
        }
        for _ in 0..READERS {
            let hand_on = Processor { store: Arc::clone(&store), buffers: Arc::clone(&buffers), results: result_tx.clone() };
            let (units, context, pool) = (unit_rx.clone(), &context, &pool);
            scope.spawn(move || read_units(&units, context, pool, &hand_on));
        }
        drop((unit_rx, result_tx));
        let coordinator = Coordinator::new(&store, options, parent, attempt, monitor, (unit_tx, result_rx));
        // The first failure explains the others; those to come from the end of the threads explain nothing.
        let result = coordinator.and_then(|c| c.run(source)).or_else(|e| store.check().and(Err(e)));
        if result.is_err() {
            budget.close();
            rooms.close();
        }
        store.close_uploads();
        result
    });
    result.and_then(|round| store.check().map(|()| round))
}

fn read_units(units: &Receiver<ReadUnit>, context: &ReadContext, pool: &rayon::ThreadPool, processor: &Processor) {
    for unit in units {
        let mut emit = |batch| {
            let processor = processor.clone();
            pool.spawn(move || processor.process(batch));
        };
        if read_unit(unit, context, &mut emit).is_err() {
            return;
        }
    }
}

/// What is done with a batch on a rayon thread.
#[derive(Clone)]
struct Processor {
    store: Arc<Store>,
    buffers: Arc<Buffers>,
    results: Sender<BatchResult>,
}

impl Processor {
    fn process(&self, mut batch: Batch) {
        let put = self.store.put(&mut batch.buffer, &batch.pieces, &mut batch.permit);
        self.buffers.give(batch.buffer);
        drop((batch.permit, batch.room));
        match put {
            Ok(ids) => {
                let lengths = batch.pieces.iter().map(|p| u32::try_from(p.len()).unwrap_or(u32::MAX));
                let blobs =
                    batch.slots.into_iter().zip(ids).zip(lengths).map(|((slot, id), length)| (slot, id, length)).collect();
                let result =
                    BatchResult { unit: batch.unit, sequence: batch.sequence, last: batch.last, blobs, ends: batch.ends };
                // Nobody listens any more after a failure.
                drop(self.results.send(result));
            }
            Err(e) => self.store.fail(e),
        }
    }
}

/// How an entry is counted.
#[derive(Clone, Copy)]
enum Verdict {
    New = 0,
    Changed = 1,
    Same = 2,
}

struct Coordinator<'a> {
    store: &'a Arc<Store>,
    options: &'a BackupOptions,
    monitor: &'a Arc<dyn Monitor>,
    parent: Option<Parent<'a>>,
    parent_view: Option<&'a ParentView>,
    units: Option<Sender<ReadUnit>>,
    results: Receiver<BatchResult>,
    queue: Queue,
    pending: Vec<UnitFile>,
    pending_bytes: u64,
    next_unit: u64,
    outcome: BackupOutcome,
    session: WriteSession,
    /// A segment was written since the fence was looked for.
    look_for_fence: bool,
}

impl<'a> Coordinator<'a> {
    fn new(
        store: &'a Arc<Store>,
        options: &'a BackupOptions,
        parent_view: Option<&'a ParentView>,
        attempt: Attempt,
        monitor: &'a Arc<dyn Monitor>,
        (units, results): (Sender<ReadUnit>, Receiver<BatchResult>),
    ) -> Result<Self> {
        let parent = match parent_view.map(Parent::new) {
            Some(Err(e)) => {
                // Comparing is only for speed: without a readable parent, all files are read. Gone it may be because it was
                // forgotten and maintenance runs.
                if is_missing(&e) {
                    monitor.note(format!("the parent snapshot is gone ({e}); reading all files"));
                } else {
                    monitor.problem(Problem { subject: "parent snapshot".into(), message: format!("{e}; reading all files") });
                }
                None
            }
            other => other.transpose()?,
        };
        let catalog = CatalogBuilder::new(store.reader.repo().keys().borders.clone());
        Ok(Self {
            store,
            options,
            monitor,
            parent,
            parent_view,
            units: Some(units),
            results,
            queue: Queue::new(catalog),
            pending: Vec::new(),
            pending_bytes: 0,
            next_unit: 0,
            outcome: BackupOutcome::default(),
            session: WriteSession::begin(store, options, attempt),
            look_for_fence: false,
        })
    }

    fn run(mut self, source: &mut dyn EntrySource) -> Result<Round> {
        let result = self.run_to_commit(source);
        if matches!(result, Err(Error::Interrupted)) && !self.options.dry_run {
            self.save_what_is_stored()?;
        }
        self.session.end(self.store, matches!(result, Ok(Round::Done(_))));
        result
    }

    fn run_to_commit(&mut self, source: &mut dyn EntrySource) -> Result<Round> {
        while let Some(entry) = self.next(source)? {
            match self.admit(entry) {
                Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => return self.overtaken(),
                admitted => admitted?,
            }
            while let Ok(result) = self.results.try_recv() {
                self.take_in(result)?;
            }
            self.drain()?;
            while self.queue.len() >= MAX_QUEUED || self.queue.waiting() > MAX_WAITING * self.pack_size() {
                self.send_pending()?;
                self.wait_for_result()?;
            }
            let partial_is_due = !self.options.dry_run && self.session.partial_is_due(self.stored_bytes());
            if partial_is_due && let Some(again) = self.commit_partial()? {
                return Ok(again);
            }
            if std::mem::take(&mut self.look_for_fence)
                && let Some(again) = self.move_on_if_fenced()?
            {
                return Ok(again);
            }
        }
        self.drain_all()?;
        self.commit(source.lost())
    }

    fn next(&mut self, source: &mut dyn EntrySource) -> Result<Option<SourceEntry>> {
        loop {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            self.store.check()?;
            if source.wait(PATIENCE) {
                return source.next_entry();
            }
            // It may wait for what it has handed out to be read.
            self.send_pending()?;
            while let Ok(result) = self.results.try_recv() {
                self.take_in(result)?;
            }
            self.drain()?;
        }
    }

    fn pack_size(&self) -> u64 {
        self.store.reader.repo().config().pack_target.into()
    }

    fn stored_bytes(&self) -> u64 {
        self.store.figures.stored.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Decides what is to be done with an entry.
    fn admit(&mut self, mut source: SourceEntry) -> Result<()> {
        if let SourceContent::Stored(stored) = source.content {
            if usable(&stored.content, &self.store.reader, self.store)? {
                self.count(&source.kind, Verdict::Same);
                self.queue.push_ready(Entry {
                    path: source.path,
                    kind: source.kind,
                    meta: source.meta,
                    xattrs: stored.xattrs,
                    size: stored.size,
                    content: stored.content,
                    holes: stored.holes,
                });
                return Ok(());
            }
            source.content = SourceContent::Lazy(stored.lazy);
        }
        let compared = match &mut self.parent {
            Some(parent) => match parent.compare(&source, self.store) {
                Err(Error::Damaged { object, detail }) => self.without_parent(&object, &detail),
                Err(e @ Error::MissingBlob { .. }) => self.without_parent("parent snapshot", &e.to_string()),
                Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound && !self.is_overtaken()? => {
                    self.without_parent(&e.key, &e.message)
                }
                other => other?,
            },
            None => Compared::New,
        };
        match compared {
            Compared::Same(entry) => {
                self.count(&source.kind, Verdict::Same);
                self.queue.push_ready(*entry);
                Ok(())
            }
            Compared::New => {
                self.count(&source.kind, Verdict::New);
                self.take_new(source)
            }
            Compared::Changed => {
                self.count(&source.kind, Verdict::Changed);
                self.take_new(source)
            }
        }
    }

    fn without_parent(&mut self, subject: &str, detail: &str) -> Compared {
        self.parent = None;
        self.monitor.problem(Problem { subject: subject.to_owned(), message: format!("{detail}; reading all files") });
        Compared::Changed
    }

    fn count(&mut self, kind: &Kind, verdict: Verdict) {
        let o = &mut self.outcome;
        let counters = match kind {
            Kind::File => [&mut o.files_new, &mut o.files_changed, &mut o.files_unmodified],
            Kind::Directory => [&mut o.dirs_new, &mut o.dirs_changed, &mut o.dirs_unmodified],
            _ => return,
        };
        *counters[verdict as usize] += 1;
    }

    fn take_new(&mut self, source: SourceEntry) -> Result<()> {
        let SourceEntry { path, kind, meta, size, content } = source;
        let mut entry = Entry { path, kind, meta, xattrs: Vec::new(), size: 0, content: Content::Empty, holes: Vec::new() };
        if entry.kind != Kind::File {
            match content.lazy().map_or(Ok(Vec::new()), LazyEntry::xattrs) {
                Ok(xattrs) => entry.xattrs = xattrs,
                Err(e) => {
                    self.queue.problems += 1;
                    let subject = format!("/{}", entry.path.display());
                    self.monitor.problem(Problem { subject, message: format!("cannot read extended attributes: {e}") });
                }
            }
            self.queue.push_ready(entry);
            return Ok(());
        }
        let (lazy, at_once) = match content {
            SourceContent::None => {
                self.queue.push_ready(entry);
                return Ok(());
            }
            SourceContent::Lazy(lazy) => (lazy, false),
            SourceContent::Stream(lazy) => (lazy, true),
            SourceContent::Stored(stored) => (stored.lazy, false),
        };
        // What a stream says of its size means nothing.
        let weight = if at_once { 0 } else { size.min(self.pack_size()) };
        // A stream cannot be read later: its source would wait for it.
        if !at_once && self.queue.may_be_link(&entry) {
            self.queue.push_link(entry, size, lazy, weight);
            return Ok(());
        }
        let slot = self.queue.push_reading(entry, weight);
        // A stream lasts until its source is through: a unit of its own.
        if at_once || self.pending_bytes.saturating_add(size) > UNIT_BYTES {
            self.send_pending()?;
        }
        self.pending_bytes = self.pending_bytes.saturating_add(size);
        self.pending.push(UnitFile { slot, size, lazy });
        if at_once || self.pending_bytes >= UNIT_BYTES || self.pending.len() >= UNIT_FILES {
            self.send_pending()?;
        }
        Ok(())
    }

    fn send_pending(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let unit = ReadUnit { number: self.next_unit, files: std::mem::take(&mut self.pending) };
        self.next_unit += 1;
        self.pending_bytes = 0;
        let sent = self.units.as_ref().is_some_and(|tx| tx.send(unit).is_ok());
        if sent { Ok(()) } else { self.stopped() }
    }

    /// Moves what is finished into the catalog, and has read what that needs.
    fn drain(&mut self) -> Result<()> {
        if let Some(file) = self.queue.drain(self.store, &**self.monitor)? {
            self.send_pending()?;
            self.pending.push(file);
            self.send_pending()?;
        }
        Ok(())
    }

    /// The other threads are gone: because of a failure, which is the answer then.
    fn stopped(&self) -> Result<()> {
        self.store.check()?;
        Err(Error::Invalid("the backup's threads have stopped".into()))
    }

    fn take_in(&mut self, result: BatchResult) -> Result<()> {
        if self.store.segment_is_due() {
            self.store.write_segment()?;
            self.look_for_fence = true;
        }
        self.queue.accept(result, self.store, &**self.monitor)
    }

    /// Waits for a batch to come back, and looks now and then whether something failed.
    fn wait_for_result(&mut self) -> Result<()> {
        match self.results.recv_timeout(Duration::from_millis(50)) {
            Ok(result) => self.take_in(result)?,
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                if self.monitor.cancelled() {
                    return Err(Error::Interrupted);
                }
                self.store.check()?;
            }
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => self.stopped()?,
        }
        self.drain()
    }

    /// Reads what is pending and waits until every entry is in the catalog.
    fn drain_all(&mut self) -> Result<()> {
        self.send_pending()?;
        self.drain()?;
        while self.queue.len() > 0 {
            self.wait_for_result()?;
        }
        Ok(())
    }

    /// Finishes open packs, waits for their upload, and names them in a segment.
    fn store_all(&self) -> Result<()> {
        self.store.finish_open()?;
        while self.store.packs_in_flight() > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.store.check()?;
        self.store.write_segment()
    }

    /// After an interruption: everything read so far is indexed, so that the next run does not store it again.
    fn save_what_is_stored(&mut self) -> Result<()> {
        self.units = None;
        while self.results.recv_timeout(Duration::from_secs(60)).is_ok() {}
        self.store_all()
    }
}
