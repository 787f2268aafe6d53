//! The repository: configuration and keys, the view of what counts, reading blobs, and a writer's session.

mod epochs;
mod history;
mod locked;
mod pin;
mod reader;
mod segments;
mod slots;
mod view;

use std::sync::Arc;

pub use crate::names::{self, SnapshotName};
pub use crate::parallel;
pub use epochs::EpochStore;
pub use history::{HeadName, Watch};
pub(crate) use locked::lock_from_now;
pub use reader::Reader;
pub(crate) use reader::is_missing;
pub use segments::load_segment;
pub(crate) use segments::{count_unnamed, sync_those_that_open};
pub use slots::SlotInfo;
pub use view::View;

use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::chunker::{ChunkSizes, DEFAULT_SIZES};
use crate::crypto::frames::Suite;
use crate::crypto::password::{Cost, DEFAULT_COST};
use crate::crypto::{Key, Keyring, random_bytes};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::config::{Config, FEATURE_LOCK, MAX_CONFIG, MAX_PARITY, PACK_TARGETS, Retention};
use crate::format::object;
use crate::format::snapshot::{self, Snapshot};
use crate::id::{ObjectId, RepoId};
use crate::parity::{self, ParityStore, Setting};

/// A pack is finished when its frames exceed this many bytes. Two or three packs are open at a time and a few more on
/// their way to the store, all in memory: 16 MiB keeps that within the budget and still makes 65,000 objects of a TiB.
pub const DEFAULT_PACK_TARGET: u32 = 16 << 20;

/// Choices made once, at init.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Cost of the first password.
    pub cost: Cost,
    /// Sizes of chunks.
    pub chunks: ChunkSizes,
    /// Size of packs in bytes.
    pub pack_target: u32,
    /// Parity that objects get, in percent of their size, at most 100; 0 is none.
    pub parity: u8,
    /// Name of the first key slot.
    pub label: String,
    /// Who makes the repository: user and machine.
    pub origin: String,
    /// How long the store is to keep objects, whoever asks to delete them; for stores that can lock objects.
    pub retention: Option<Retention>,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            cost: DEFAULT_COST,
            chunks: DEFAULT_SIZES,
            pack_target: DEFAULT_PACK_TARGET,
            parity: 0,
            label: String::new(),
            origin: String::new(),
            retention: None,
        }
    }
}

/// An opened repository.
#[derive(Debug)]
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: Config,
    keys: Keyring,
    suite: Suite,
    slot: ObjectId,
    parity: Arc<Setting>,
    by_parity: Vec<ObjectKey>,
    watch: Watch,
    pin: Option<pin::PinFile>,
}

impl Repository {
    /// Makes a new repository: the first key slot, then the config, whose presence makes the store a repository.
    pub fn create(mut backend: Arc<dyn Backend>, password: &[u8], options: &InitOptions) -> Result<Self> {
        if Self::exists(&*backend)? {
            return Err(Error::RepositoryExists { location: backend.location() });
        }
        if !options.chunks.are_valid() || !PACK_TARGETS.contains(&options.pack_target) {
            return Err(Error::Invalid("chunk or pack sizes out of range".into()));
        }
        if options.parity > MAX_PARITY {
            return Err(Error::Invalid(format!("{} % is no amount of parity: at most {MAX_PARITY}", options.parity)));
        }
        backend.prepare()?;
        if let Some(retention) = options.retention {
            backend = locked::begin(backend, retention)?;
        }
        let keys = Keyring::new(Key::random());
        let config = Config {
            repo: RepoId(random_bytes()),
            created: now(),
            chunks: Some(options.chunks),
            pack_target: options.pack_target,
            parity: options.parity,
            read_features: vec![],
            write_features: options.retention.iter().map(|_| FEATURE_LOCK.to_owned()).collect(),
            maintain_features: vec![],
            retention: options.retention,
        };
        let (backend, parity) = with_parity(backend, &config);
        let note = format_note(&options.label, &options.origin);
        let slot = slots::store(&*backend, config.repo, &keys, password, options.cost, &note)?;
        backend.barrier()?;
        if let Some(retention) = options.retention {
            locked::verify(&*backend, &names::slot(&slot), retention)?;
        }
        let bytes = config.to_bytes(&keys.config).map_err(|e| Error::Invalid(e.to_string()))?;
        backend.create(&names::config(), bytes.into())?;
        backend.barrier()?;
        Ok(Self::opened(backend, config, keys, slot, parity))
    }

    fn opened(backend: Arc<dyn Backend>, config: Config, keys: Keyring, slot: ObjectId, parity: Arc<Setting>) -> Self {
        let (by_parity, watch) = (Vec::new(), Watch::default());
        Self { backend, config, keys, suite: Suite::fastest(), slot, parity, by_parity, watch, pin: None }
    }

    /// Whether there is a config object, or one that is lost and can be brought back.
    pub fn exists(backend: &dyn Backend) -> Result<bool> {
        for object in [names::config(), names::parity_of(&names::config())] {
            match backend.size(&object) {
                Ok(_) => return Ok(true),
                Err(e) if e.kind == ErrorKind::NoStore => break,
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }

    /// Opens a repository with a password. Where the config is damaged or lost, its parity does, if there is any.
    pub fn open(backend: Arc<dyn Backend>, password: &[u8]) -> Result<Self> {
        let object = names::config();
        let stored = backend.read(&object, MAX_CONFIG).map_err(|e| match e.kind {
            ErrorKind::NotFound | ErrorKind::NoStore => Error::NoRepository { location: backend.location() },
            _ => e.into(),
        });
        let opened = stored.and_then(|bytes| Self::open_by(Arc::clone(&backend), password, &bytes));
        match opened {
            Err(error) if error.is_local() || matches!(error, Error::NoRepository { .. }) => {
                match parity::rebuild(&*backend, &object) {
                    Ok(Some(bytes)) => {
                        let mut opened = Self::open_by(backend, password, &bytes)?;
                        opened.by_parity.push(object);
                        Ok(opened)
                    }
                    _ => Err(error),
                }
            }
            opened => opened,
        }
    }

    /// Opens a repository of which these are the config's bytes.
    fn open_by(backend: Arc<dyn Backend>, password: &[u8], bytes: &[u8]) -> Result<Self> {
        let damaged = |e| Error::damaged(names::config(), e);
        let repo = Config::peek(bytes).map_err(damaged)?;
        let slots::Unlocked { slot, keys, by_parity } = slots::unlock(&*backend, repo, password)?;
        let config = Config::parse(&keys.config, bytes).map_err(damaged)?;
        if let Some(feature) = config.read_features.first() {
            return Err(Error::Unsupported(format!("the repository uses '{feature}': a newer program is needed to read it")));
        }
        let backend = match config.retention {
            Some(retention) => Arc::new(locked::Locked::new(backend, retention)) as _,
            None => backend,
        };
        let (backend, parity) = with_parity(backend, &config);
        let mut opened = Self::opened(backend, config, keys, slot, parity);
        opened.by_parity.extend(by_parity.then(|| names::slot(&slot)));
        Ok(opened)
    }

    /// Objects that are damaged or lost, and that opening has taken from their parity.
    #[must_use]
    pub fn opened_by_parity(&self) -> &[ObjectKey] {
        &self.by_parity
    }

    /// Fails if this program must not write to the repository.
    pub fn check_writable(&self) -> Result<()> {
        match (self.config.write_features.iter().find(|feature| *feature != FEATURE_LOCK), self.config.chunks) {
            (None, Some(_)) => Ok(()),
            (None, None) => {
                Err(Error::Unsupported("the repository's chunker is unknown: a newer program is needed to write to it".into()))
            }
            (Some(f), _) => {
                Err(Error::Unsupported(format!("the repository uses '{f}': a newer program is needed to write to it")))
            }
        }
    }

    /// Fails if this program must not run maintenance. `exclusive` says that the caller answers for it that no other
    /// maintenance runs, so that the store need not be able to tell who created an object first.
    pub fn check_maintainable(&self, exclusive: bool) -> Result<()> {
        self.check_writable()?;
        if let Some(feature) = self.config.maintain_features.first() {
            return Err(Error::Unsupported(format!("the repository uses '{feature}': a newer program is needed to maintain it")));
        }
        // An S3 server does not say, so it is tried out.
        if exclusive || crate::probe::create_is_exclusive(&*self.backend)? {
            return Ok(());
        }
        let place = self.backend.location();
        Err(Error::Unsupported(format!(
            "{place}: this store replaces objects where it should refuse to, so two maintenance runs at a time could destroy \
             data; make sure that only one machine runs maintenance, and run it with --exclusive"
        )))
    }

    /// What was set at init.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Identity.
    #[must_use]
    pub fn id(&self) -> RepoId {
        self.config.repo
    }

    /// The store.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// How much parity objects get.
    #[must_use]
    pub fn parity(&self) -> &Setting {
        &self.parity
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The AEAD of new packs.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key slot that the repository was opened with.
    #[must_use]
    pub fn slot(&self) -> &ObjectId {
        &self.slot
    }

    /// Reads one snapshot object.
    pub fn read_snapshot(&self, name: &SnapshotName) -> Result<Snapshot> {
        let object = names::snapshot(name);
        let bytes = self.read_named(&object, &name.id, object::MAX_SIZE)?;
        snapshot::open(&self.keys.meta, self.id(), name.epoch, &bytes).map_err(|e| Error::damaged(&object, e))
    }

    /// A whole object, checked against the hash in its name.
    pub fn read_named(&self, object: &ObjectKey, id: &ObjectId, max: u64) -> Result<bytes::Bytes> {
        let bytes = self.backend.read(object, max)?;
        if ObjectId::of(&bytes) != *id {
            return Err(Error::damaged(object, "its bytes do not have the hash that its name says (damaged or replaced)"));
        }
        Ok(bytes)
    }
}

/// The store as the repository uses it: with parity, as much as is set.
fn with_parity(backend: Arc<dyn Backend>, config: &Config) -> (Arc<dyn Backend>, Arc<Setting>) {
    let setting = Arc::new(Setting::new(config.parity));
    (Arc::new(ParityStore::new(backend, config.repo, Arc::clone(&setting))), setting)
}

fn format_note(label: &str, origin: &str) -> crate::format::slot::Note {
    crate::format::slot::Note { created: now(), origin: origin.to_owned(), label: label.to_owned() }
}

/// This machine's clock. Never decides what is kept: see `docs/format.md`, "Epochs".
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
