//! Reads the restored files again and compares them with the snapshot, blob by blob.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;

use crossbeam_channel::{Receiver, bounded};

use super::context::Context;
use super::file::{FileWork, Layout};
use super::finish::for_each;
use super::select::Expected;
use super::survey::stored_size;
use crate::catalog::ListReader;
use crate::entry::{Content, Entry, Kind};
use crate::error::{Error, Result};
use crate::fs::{DestError, Destination};

/// Files handed on and not yet begun.
const AHEAD: usize = 64;

/// Compares all files that are as the snapshot has them: restored now, or found unchanged.
pub(super) fn run(context: &Context, dest: &Destination, gaps: &Expected) -> Result<()> {
    let (jobs, queue) = bounded::<(u64, Entry)>(AHEAD);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            let queue: Receiver<(u64, Entry)> = queue.clone();
            scope.spawn(move || work(context, dest, &queue));
        }
        drop(queue);
        let streamed = for_each(context, gaps, |number, entry, first| {
            let wanted = entry.kind == Kind::File && !context.failed.has(number) && !context.kept.has(number);
            if wanted && first.is_none() {
                // Fails only if all workers are gone, and then the scope ends with their panic.
                let _ = jobs.send((number, entry));
            }
            Ok(())
        });
        drop(jobs);
        streamed
    })?;
    context.check()
}

fn work(context: &Context, dest: &Destination, queue: &Receiver<(u64, Entry)>) {
    let mut buffer = Vec::new();
    for (number, entry) in queue {
        if context.stopped() {
            continue;
        }
        let path = entry.path.clone();
        match compare(context, dest, entry, &mut buffer) {
            Ok(()) => context.verified(),
            Err(Wrong::Content(what)) => context.fail(number, &path, what),
            Err(Wrong::Dest(e)) => context.refused(dest, number, e),
            Err(Wrong::Source(e)) => context.fail(number, &path, format!("cannot be verified: {e}")),
        }
    }
}

enum Wrong {
    Content(String),
    Dest(DestError),
    Source(Error),
}

fn compare(context: &Context, dest: &Destination, mut entry: Entry, buffer: &mut Vec<u8>) -> Result<(), Wrong> {
    let file = dest.open_existing(&entry.path).map_err(Wrong::Dest)?;
    let cannot_read = |e: std::io::Error| Wrong::Content(format!("cannot be read again: {e}"));
    let size = file.metadata().map_err(cannot_read)?.len();
    if size != entry.size {
        return Err(Wrong::Content(format!("has {size} bytes after restoring instead of {}", entry.size)));
    }
    let (data, content) = (stored_size(&entry), std::mem::take(&mut entry.content));
    if content == Content::Empty {
        return Ok(());
    }
    let (expected, mut layout) = (FileWork::new(0, entry, data), Layout::default());
    let source = &context.source;
    for id in ListReader::new(source.reader, &content) {
        let id = id.map_err(Wrong::Source)?;
        let length = source.locate(&id).map_err(Wrong::Source)?.length;
        let offset = layout.place(&expected, length);
        let offset = offset.ok_or_else(|| Wrong::Content("its pieces are longer than the file".to_owned()))?;
        read(&file, &expected, offset, length as usize, buffer).map_err(cannot_read)?;
        if !source.reader.verify(&id, buffer) {
            return Err(Wrong::Content(format!("differs after restoring, in {length} bytes of data from offset {offset}")));
        }
    }
    Ok(())
}

/// Reads data around the holes.
fn read(file: &File, expected: &FileWork, mut offset: u64, length: usize, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.resize(length, 0);
    let mut left = buffer.as_mut_slice();
    let mut holes = &expected.holes[expected.holes.partition_point(|hole| hole.offset < offset)..];
    while !left.is_empty() {
        while let Some((hole, rest)) = holes.split_first().filter(|(hole, _)| hole.offset == offset) {
            offset += hole.length;
            holes = rest;
        }
        let room = holes.first().map_or(u64::MAX, |hole| hole.offset - offset);
        let now = usize::try_from(room).unwrap_or(usize::MAX).min(left.len());
        let (part, rest) = left.split_at_mut(now);
        file.read_exact_at(part, offset)?;
        offset += now as u64;
        left = rest;
    }
    Ok(())
}
