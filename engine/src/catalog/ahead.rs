//! A catalog read by a thread of its own, a few leaves ahead of the consumer.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use super::CatalogReader;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::repo::Reader;

/// Leaves between the thread and the consumer. A leaf is at most 128 KiB as stored, about four times that in memory.
const LEAVES: usize = 4;

/// All entries of a catalog in order, decoded ahead. For consumers that are busy with each entry: fetching, decrypting and
/// parsing nodes then costs them nothing.
pub struct CatalogAhead {
    /// None once there is nothing more to come.
    leaves: Option<Receiver<Result<Vec<Entry>>>>,
    leaf: std::vec::IntoIter<Entry>,
    thread: Option<JoinHandle<()>>,
}

impl CatalogAhead {
    /// Starts at the first entry. An error in the first node shows with the first entry.
    pub fn new(reader: Arc<Reader>, root: Option<BlobId>) -> Result<Self> {
        let (sender, leaves) = bounded(LEAVES);
        let work = move || {
            let mut catalog = match CatalogReader::new(&reader, root) {
                Ok(catalog) => catalog,
                // Nobody listens any more if this fails, here and below.
                Err(e) => return drop(sender.send(Err(e))),
            };
            loop {
                let leaf = catalog.next_leaf();
                let is_last = leaf.as_ref().map_or(true, Vec::is_empty);
                if sender.send(leaf).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("catalog".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Error::Invalid(format!("cannot start a thread: {e}")))?;
        Ok(Self { leaves: Some(leaves), leaf: Vec::new().into_iter(), thread: Some(thread) })
    }

    /// The next entry; `None` at the end. After an error there is nothing more.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            let Some(leaves) = &self.leaves else { return Ok(None) };
            match leaves.recv() {
                Ok(Ok(leaf)) if !leaf.is_empty() => self.leaf = leaf.into_iter(),
                Ok(Ok(_)) => self.leaves = None,
                Ok(Err(e)) => {
                    self.leaves = None;
                    return Err(e);
                }
                Err(_) => return Err(Error::Invalid("the thread that reads the catalog failed".to_owned())),
            }
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
