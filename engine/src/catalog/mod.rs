//! The catalog: all entries of a snapshot in order, as a search tree whose nodes end at borders that depend on paths
//! alone (a prolly tree), so that two snapshots share every node where nothing changed.

mod ahead;
mod build;
mod list;
mod read;

pub use ahead::{CatalogAhead, Gap, Step};
pub use build::CatalogBuilder;
pub use list::{ListBuilder, ListReader};
pub use read::{CatalogReader, Span, lookup};

use crate::error::Result;
use crate::id::BlobId;

/// Where finished nodes go.
pub trait NodeSink {
    /// Stores a node unless it is known, and returns its address.
    fn store(&mut self, node: Vec<u8>) -> Result<BlobId>;
}
