//! The pass that restores: directories, nodes and files, in the order of the catalog.
//!
//! Directories and nodes are created on the way by the thread that streams the catalog, so that a directory is there before
//! anything in it is. The content of files is planned here and written by the workers, two windows behind at most.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::context::Context;
use super::file::{FileWork, Files, Layout};
use super::links::Links;
use super::select::{Expected, Level, Pass, Selected, Selection, Stack};
use super::source::is_missing;
use super::survey::{Decision, decide, stored_size};
use super::window::{Draft, Limits, Piece, Slot, Task, Window, WindowFile, cut};
use super::write::Worker;
use crate::catalog::ListReader;
use crate::entry::{Content, Entry, Kind};
use crate::error::Result;
use crate::fs::Destination;

/// Windows under way besides the one being planned.
const WINDOWS: usize = 2;

/// Most workers. Each holds a ranged read and a frame in memory.
const MOST_WORKERS: usize = 16;

/// Restores all but hard links and the metadata of directories.
pub(super) fn run(context: &Context, dest: &Destination, gaps: &Expected, limits: &Limits) -> Result<()> {
    let selection = Selection::new(context, Pass::Later(gaps))?;
    let files = Files::new(context, dest, limits.open);
    let (tasks, queue) = unbounded();
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let workers = context.source.reader.repo().backend().concurrency().max(cores).min(MOST_WORKERS);
    thread::scope(|scope| {
        for _ in 0..workers {
            let (queue, files): (Receiver<Task>, _) = (queue.clone(), &files);
            scope.spawn(move || Worker::new(files).run(&queue));
        }
        drop(queue);
        let mut planner = Planner::new(&files, limits, tasks);
        if let Err(e) = planner.run(selection) {
            context.stop(e);
            planner.abandon();
        }
    });
    context.check()
}

struct Planner<'a> {
    files: &'a Files<'a>,
    limits: &'a Limits,
    tasks: Sender<Task>,
    slots: (Sender<()>, Receiver<()>),
    stack: Stack,
    links: Links,
    draft: Draft,
    windows: u32,
}

impl<'a> Planner<'a> {
    fn new(files: &'a Files<'a>, limits: &'a Limits, tasks: Sender<Task>) -> Self {
        let (stack, links, draft) = (Stack::default(), Links::default(), Draft::default());
        Self { files, limits, tasks, slots: bounded(WINDOWS), stack, links, draft, windows: 0 }
    }

    fn run(&mut self, mut selection: Selection) -> Result<()> {
        while let Some(selected) = selection.next()? {
            self.entry(selected)?;
        }
        self.dispatch();
        Ok(())
    }

    /// Removes files whose pieces nobody is going to write. The workers do that for windows they have.
    fn abandon(&self) {
        for file in &self.draft.files {
            file.work.abandon(self.files);
        }
    }

    fn entry(&mut self, selected: Selected) -> Result<()> {
        let context = self.files.context;
        self.stack.enter(&selected, |_| {});
        if !selected.wanted || !self.make_directories() || selected.entry.is_directory() {
            return Ok(());
        }
        let Selected { number, entry, .. } = selected;
        if self.links.first(&entry).is_some() {
            context.note_link();
            return Ok(());
        }
        match decide(self.files.dest, context.options.overwrite, &entry) {
            Ok(Decision::Restore) => {}
            Ok(Decision::Unchanged) => {
                self.links.remember(&entry, number);
                context.skipped(stored_size(&entry));
                return Ok(());
            }
            Ok(Decision::Keep) => {
                context.kept.set(number);
                context.skipped(stored_size(&entry));
                return Ok(());
            }
            Err(e) => {
                self.links.remember(&entry, number);
                context.refused(self.files.dest, number, e);
                return Ok(());
            }
        }
        self.links.remember(&entry, number);
        if entry.kind == Kind::File {
            return self.file(number, entry);
        }
        self.node(number, &entry);
        Ok(())
    }

    /// Creates the directories around the current entry that are not there yet.
    fn make_directories(&mut self) -> bool {
        let (context, dest) = (self.files.context, self.files.dest);
        self.stack.use_all(|level: &mut Level| match dest.make_dir(&level.path) {
            Ok(()) if level.number.is_some() => context.restored(),
            Ok(()) => {}
            Err(e) => {
                level.blocked = true;
                match level.number {
                    Some(number) => context.refused(dest, number, e),
                    None => context.problem(e.into()),
                }
            }
        })
    }

    fn node(&self, number: u64, entry: &Entry) {
        let context = self.files.context;
        match self.files.dest.make_node(&entry.path, &entry.kind, &entry.meta, &entry.xattrs) {
            Ok(warnings) => {
                context.warn(&entry.path, warnings);
                context.restored();
            }
            Err(e) => context.refused(self.files.dest, number, e),
        }
    }

    fn file(&mut self, number: u64, mut entry: Entry) -> Result<()> {
        let (data, content) = (stored_size(&entry), std::mem::take(&mut entry.content));
        let work = FileWork::new(number, entry, data);
        match self.pieces(&work, &content) {
            Ok(None) => {}
            Ok(Some(wrong)) => work.fail(wrong, self.files),
            Err(e) => {
                work.abandon(self.files);
                return Err(e);
            }
        }
        work.release(1, self.files);
        if self.draft.is_full(&self.limits.of_window(self.windows)) {
            self.dispatch();
        }
        Ok(())
    }

    /// Plans the pieces of a file, through as many windows as it takes. Returns what is wrong with the file alone.
    fn pieces(&mut self, work: &Arc<FileWork>, content: &Content) -> Result<Option<String>> {
        let source = &self.files.context.source;
        let (mut layout, mut planned, mut retried) = (Layout::default(), 0, false);
        let mut first = self.begin(work, content);
        let mut list = ListReader::new(source.reader, content);
        while let Some(id) = list.next() {
            let found = id.and_then(|id| Ok((id, source.locate(&id)?)));
            let (id, place) = match found {
                Ok(found) => found,
                Err(e) if is_missing(&e) && !retried => {
                    source.reload()?;
                    retried = true;
                    list = ListReader::new(source.reader, content);
                    // What was planned was read without an error, and is passed over.
                    list.by_ref().take(planned).for_each(drop);
                    continue;
                }
                Err(e) if e.is_local() => return Ok(Some(e.to_string())),
                Err(e) => return Err(e),
            };
            let Some(offset) = layout.place(work, place.length) else {
                return Ok(Some("damaged: its pieces are longer than the file".to_owned()));
            };
            work.expect();
            planned += 1;
            let file = u32::try_from(self.draft.files.len() - 1).unwrap_or(u32::MAX);
            self.draft.content += u64::from(place.length);
            self.draft.pieces.push(Piece { place, id, file, offset });
            if self.draft.is_full(&self.limits.of_window(self.windows)) {
                self.files.context.check()?;
                self.dispatch();
                self.begin(work, content);
                first = None;
            }
        }
        if !layout.is_full(work) {
            return Ok(Some("damaged: its pieces are shorter than the file".to_owned()));
        }
        if let Some(file) = first.and_then(|first| self.draft.files.get_mut(first)) {
            file.whole = planned;
        }
        Ok(None)
    }

    /// Adds a file to the window, unless it has no pieces. Returns its number there.
    fn begin(&mut self, work: &Arc<FileWork>, content: &Content) -> Option<usize> {
        if *content == Content::Empty {
            return None;
        }
        self.draft.memory += work.weight();
        self.draft.files.push(WindowFile { work: Arc::clone(work), whole: 0 });
        Some(self.draft.files.len() - 1)
    }

    /// Hands the window on to the workers, when there are not too many under way.
    fn dispatch(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        if draft.pieces.is_empty() {
            return;
        }
        let limits = self.limits.of_window(self.windows);
        self.windows = self.windows.saturating_add(1);
        let Some(slot) = Slot::take(&self.slots) else { return };
        let window = Window::new(draft, slot);
        // Sending fails only if all workers are gone, and then the scope ends with their panic.
        cut(&window, self.files.context.source.reader.index(), &limits, |task| drop(self.tasks.send(task)));
    }
}
