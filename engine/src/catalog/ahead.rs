//! A catalog read by a thread of its own, a few leaves ahead of the consumer.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{CatalogReader, Span};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::repo::Reader;

/// Leaves between the thread and the consumer. A leaf is at most 128 KiB as stored, about four times that in memory.
const LEAVES: usize = 4;

/// A part of a catalog that cannot be read.
#[derive(Debug)]
pub struct Gap {
    /// What was there, if anybody knows.
    pub span: Option<Span>,
    /// Why it cannot be read.
    pub error: Error,
}

/// The next of a catalog that may have gaps.
#[derive(Debug)]
pub enum Step {
    /// An entry.
    Entry(Box<Entry>),
    /// Some entries are lost here; more may follow.
    Gap(Gap),
}

enum Message {
    /// Empty at the end.
    Leaf(Vec<Entry>),
    Gap(Gap),
}

/// All entries of a catalog in order, decoded ahead. For consumers that are busy with each entry: fetching, decrypting and
/// parsing nodes then costs them nothing.
pub struct CatalogAhead {
    /// None once there is nothing more to come.
    leaves: Option<Receiver<Result<Message>>>,
    leaf: std::vec::IntoIter<Entry>,
    thread: Option<JoinHandle<()>>,
}

impl CatalogAhead {
    /// Starts at the first entry. An error in the first node shows with the first entry.
    pub fn new(reader: Arc<Reader>, root: Option<BlobId>) -> Result<Self> {
        let (sender, leaves) = bounded(LEAVES);
        let thread = std::thread::Builder::new().name("catalog".to_owned()).spawn(move || read(&reader, root, &sender));
        let thread = thread.map_err(|e| Error::Invalid(format!("cannot start a thread: {e}")))?;
        Ok(Self { leaves: Some(leaves), leaf: Vec::new().into_iter(), thread: Some(thread) })
    }

    /// The next entry; `None` at the end. After an error, a gap among them, there is nothing more.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        match self.next_step()? {
            None => Ok(None),
            Some(Step::Entry(entry)) => Ok(Some(*entry)),
            Some(Step::Gap(gap)) => {
                self.leaves = None;
                Err(gap.error)
            }
        }
    }

    /// The next entry or gap; `None` at the end. After an error there is nothing more.
    pub fn next_step(&mut self) -> Result<Option<Step>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(Step::Entry(Box::new(entry))));
            }
            let Some(leaves) = &self.leaves else { return Ok(None) };
            match leaves.recv() {
                Ok(Ok(Message::Leaf(leaf))) if !leaf.is_empty() => self.leaf = leaf.into_iter(),
                Ok(Ok(Message::Leaf(_))) => self.leaves = None,
                Ok(Ok(Message::Gap(gap))) => return Ok(Some(Step::Gap(gap))),
                Ok(Err(e)) => {
                    self.leaves = None;
                    return Err(e);
                }
                Err(_) => return Err(Error::Invalid("the thread that reads the catalog failed".to_owned())),
            }
        }
    }
}

/// Sends leaves and gaps until the end, an error, or until nobody listens any more.
fn read(reader: &Reader, root: Option<BlobId>, sender: &Sender<Result<Message>>) {
    let mut catalog = CatalogReader::lazy(reader, root);
    loop {
        let message = match catalog.next_leaf() {
            Ok(leaf) => Ok(Message::Leaf(leaf)),
            Err(error) if error.is_local() => Ok(Message::Gap(Gap { span: catalog.failed().cloned(), error })),
            Err(error) => Err(error),
        };
        let is_last = match &message {
            Ok(Message::Leaf(leaf)) => leaf.is_empty(),
            Ok(Message::Gap(_)) => false,
            Err(_) => true,
        };
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

impl Drop for CatalogAhead {
    fn drop(&mut self) {
        // The thread ends when nobody listens any more.
        self.leaves = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has shown itself already.
            let _ = thread.join();
        }
    }
}
