//! What a probe finds.

use std::time::Duration;

use crate::backend::ObjectKey;

/// How thorough to be.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// How often an object is stored, listed, read and deleted.
    pub rounds: usize,
    /// Size of the one large object in bytes: as large as packs get.
    pub large: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { rounds: 20, large: 24 << 20 }
    }
}

/// Something that a repository needs of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// What was stored is read back, byte for byte.
    Read,
    /// Ranges are exactly what was asked for; beyond the end is an error.
    Ranges,
    /// A listing names everything that was stored before it, and nothing that was deleted.
    List,
    /// Of many writers of one name exactly one succeeds, and nobody replaces its object.
    Create,
    /// Objects as large as packs.
    Large,
    /// Objects can be deleted, and are gone then.
    Delete,
}

impl Promise {
    /// All of them, the indispensable first.
    pub const ALL: [Self; 6] = [Self::Read, Self::Ranges, Self::List, Self::Large, Self::Delete, Self::Create];
}

/// How a promise was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub promise: Promise,
    /// Why it was not kept, for people; none if it was.
    pub broken: Option<String>,
}

/// How long calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub median: Duration,
    /// The slowest one.
    pub worst: Duration,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// One for each of [`Promise::ALL`], in that order.
    pub findings: Vec<Finding>,
    /// Storing an object of 4 KiB.
    pub create: Latency,
    /// Reading it.
    pub read: Latency,
    /// Listing a few.
    pub list: Latency,
    /// Deleting it.
    pub delete: Latency,
    /// Size of the large object, and how long it took to store and to read it.
    pub large: Option<(u64, Duration, Duration)>,
    /// How far the store's clock is ahead of this machine's, in seconds, known to within the call's duration; none if the store does not
    /// tell the time. Nothing depends on it but signatures of requests, which servers refuse after some minutes.
    pub clock_ahead: Option<f64>,
    /// Objects that could not be deleted.
    pub left_behind: Vec<ObjectKey>,
}

impl ProbeReport {
    /// Whether a promise was kept.
    #[must_use]
    pub fn keeps(&self, promise: Promise) -> bool {
        self.findings.iter().any(|f| f.promise == promise && f.broken.is_none())
    }

    /// Whether backups can be made, restored and checked here.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        [Promise::Read, Promise::Ranges, Promise::List, Promise::Large].into_iter().all(|p| self.keeps(p))
    }
}
