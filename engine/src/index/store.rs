//! The database file: opening, making anew, transactions, and what its failures mean.
//!
//! Knows tables and keys, not what the records mean. redb trusts its file: one that was altered may make it panic instead of
//! fail, so every call into it goes through [`guarded`], which takes a panic for damage.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction};

use super::packs::PackKey;
use crate::error::Error;

/// State of the cache as a whole, under [`STATE_KEY`]; and whether there may be packs that no run refers to, under [`UNUSED_KEY`].
pub(super) const STATE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("state");
/// Runs by number.
pub(super) const RUNS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("runs");
/// Pages by run (upper half) and number (lower half).
pub(super) const PAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pages");
/// Summaries of packs by ordinal.
pub(super) const PACKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("packs");
/// Ordinals of packs by epoch and name.
pub(super) const PACK_IDS: TableDefinition<'_, &PackKey, u32> = TableDefinition::new("pack_ids");

pub(super) const STATE_KEY: u32 = 0;
/// There from the moment that runs are dropped until their packs are forgotten, whatever happens in between.
pub(super) const UNUSED_KEY: u32 = 1;

/// Name of the file in the cache's directory.
const FILE: &str = "index.redb";

/// What redb itself may hold in memory: half for dirty pages, half for inner nodes of its trees. Pages of runs have our cache.
const REDB_CACHE: usize = 8 << 20;

/// Why the database did not answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is damaged; only making it anew helps.
    Damaged(String),
    /// Another process has it.
    Busy,
    /// The system refused, e.g. for lack of space.
    Failed(String),
    /// Not the database's fault.
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        use rustix::io::Errno;
        let spoiled = [Errno::IO, Errno::LOOP].map(Errno::raw_os_error);
        match error.raw_os_error() {
            // E.g. no space, no permission, too many open files: the file may well be good.
            Some(code) if !spoiled.contains(&code) => Self::Failed(error.to_string()),
            // A bad disk, a symbolic link, or something that redb made up, e.g. an unexpected end.
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        use redb::Error as E;
        match error {
            E::DatabaseAlreadyOpen => Self::Busy,
            E::Io(error) => error.into(),
            E::PreviousIo => Self::Failed("an earlier write failed".into()),
            E::ValueTooLarge(size) => Self::Failed(format!("a record of {size} bytes is too large")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! fault_from {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for Fault {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
fault_from!(DatabaseError, StorageError, TableError, TransactionError, CommitError);

/// Runs something that calls redb. A panic in there is [`Fault::Damaged`].
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Fault::Damaged("the database stopped at an impossible state".into())))
}

/// The database, in a file or in memory.
pub(super) struct Store {
    database: Option<Database>,
    path: Option<PathBuf>,
    unlinked: AtomicBool,
}

impl Store {
    /// A database in memory.
    pub(super) fn in_memory() -> Result<Self, Fault> {
        Self::with_backend(InMemoryBackend::new(), None)
    }

    /// The database in `dir`, which is made if there is none.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, Fault> {
        let path = dir.join(FILE);
        let file = open_file(&path)?;
        guarded(|| Self::with_backend(FileBackend::new(file)?, Some(path)))
    }

    fn with_backend(backend: impl StorageBackend, path: Option<PathBuf>) -> Result<Self, Fault> {
        let database = Builder::new().set_cache_size(REDB_CACHE).create_with_backend(backend)?;
        Ok(Self { database: Some(database), path, unlinked: AtomicBool::new(false) })
    }

    /// Whether it lies in a file.
    pub(super) fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// Reads in one transaction.
    pub(super) fn read<T>(&self, call: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
        guarded(|| call(&self.database()?.begin_read()?))
    }

    /// Writes in one transaction, which is durable when this returns and has no effect when it fails.
    pub(super) fn write<T>(&self, call: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> Result<T, Fault> {
        guarded(|| {
            let mut transaction = self.database()?.begin_write()?;
            // Without it, opening after a crash reads the whole file.
            transaction.set_quick_repair(true);
            let answer = call(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        })
    }

    /// Takes away the file of a damaged database, so that the next to open it makes it anew.
    pub(super) fn unlink(&self) {
        // Only once: the name may be that of a new file by now.
        if let Some(path) = &self.path
            && !self.unlinked.swap(true, Ordering::Relaxed)
        {
            // Failing is harmless: the next to open it will find the damage again.
            let _ = std::fs::remove_file(path);
        }
    }

    fn database(&self) -> Result<&Database, Fault> {
        self.database.as_ref().ok_or_else(|| Fault::Failed("closed".into()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing writes, and on a damaged file may panic like any other call.
        let database = self.database.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(database)));
    }
}

/// Removes the database of a directory; there need not be one.
pub(super) fn remove(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FILE);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path, action: "cannot remove the index cache", source })
        }
        _ => Ok(()),
    }
}

/// Opens or creates a regular file that only its owner may read; never follows a symbolic link.
fn open_file(path: &Path) -> std::io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
