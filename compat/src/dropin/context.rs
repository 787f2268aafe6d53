//! What all commands work with, and reading an archive's files through the cache.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::cache::Cache;
use super::failure::{Failure, Result, code};
use super::log::{Level, Log};
use super::options::Options;
use crate::collection::{BackupSet, Chain, Collection, SetFile};
use crate::export::Sealing;
use crate::import::Archive;
use crate::import::fetch::{Opener, Wanted};
use crate::manifest::{FileList, Manifest};
use crate::name::{Encoding, FileKind};
use crate::sigtar::SigtarReader;
use crate::store::{StoreError, StoreErrorKind, StoredFile, Target};
use crate::time::Time;

/// What a command works with.
pub struct Context {
    /// What the command line says.
    pub options: Options,
    /// Who is told.
    pub log: Arc<Log>,
    /// The archive, to be read.
    pub archive: Archive,
    /// The archive, to be written; `None` where that cannot be done.
    pub target: Option<Arc<dyn Target>>,
    /// How files are wrapped that are written.
    pub sealing: Sealing,
    /// The local cache.
    pub cache: Cache,
    /// The archive's URL as it was given.
    pub url: String,
    /// When the command began.
    pub now: Time,
    /// Set when the user asks to stop.
    pub cancelled: Arc<AtomicBool>,
}

pub(super) type Content = Box<dyn Read + Send>;

impl Context {
    /// Fails once the user has asked to stop.
    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Failure::new(code::INTERRUPTED, "interrupted")) } else { Ok(()) }
    }

    /// All files of the archive; none if its folder does not exist yet.
    pub(super) fn files(&self) -> Result<Vec<StoredFile>> {
        match self.archive.store.list() {
            Ok(files) => Ok(files),
            Err(StoreError { kind: StoreErrorKind::NoStore, .. }) if self.target.is_some() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The archive's sets.
    pub(super) fn collection(&self) -> Result<Collection> {
        Ok(Collection::new(self.files()?, &self.archive.prefixes))
    }

    /// Says when the last full backup was, as duplicity does.
    pub(super) fn say_last_full(&self, collection: &Collection) {
        let last = collection.chains().iter().map(Chain::start_time).max();
        let last = last.map_or_else(|| "none".to_owned(), |time| time.human(&crate::time::TimeZone::system()));
        self.log.notice(&format!("Last full backup date: {last}"));
    }

    /// The time whose state is wanted.
    pub(super) fn wanted_time(&self) -> Time {
        self.options.time.unwrap_or(self.now)
    }

    /// The sets whose replay gives the wanted state, with a word about what has to be left aside.
    pub(super) fn wanted_sets(&self, collection: &Collection) -> Result<Vec<Arc<BackupSet>>> {
        let none = || Failure::new(code::EXCEPTION, format!("{}: No backup chains found", self.archive.store.location()));
        let time = self.wanted_time();
        let named = collection.chain_at(time).ok_or_else(none)?;
        // If nothing is whole, an error says so as soon as the manifest is wanted.
        let chain = whole_chain_at(collection, time).unwrap_or(named);
        super::status::warn_of_leftovers(self, collection);
        let mut sets = chain.sets_at(time).to_vec();
        let mut left = Vec::new();
        if !chain.whole().is_empty() {
            // Runs that were broken off just before their end; a gap further back is an error.
            left = sets.split_off(chain.whole().len().min(sets.len()));
        }
        if named.start_time() != chain.start_time() {
            left.extend(named.sets_at(time).iter().filter(|set| set.end_time() <= time).cloned());
        }
        for set in left.iter().filter(|set| set.manifest().is_none()) {
            let text = format!("the backup {} was never completed, and is left aside", set.times());
            self.log.say(Level::WARNING, super::log::code::INCOMPLETE_BACKUP, "", &text);
        }
        Ok(sets)
    }

    pub(super) fn target(&self) -> Result<&Arc<dyn Target>> {
        let none = || Failure::new(code::BACKEND, format!("{}: nothing can be written there", self.archive.store.location()));
        self.target.as_ref().ok_or_else(none)
    }

    /// Removes files of the archive.
    pub(super) fn remove<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
        let target = self.target()?;
        for name in names {
            self.check_cancelled()?;
            self.log.info(&format!("Deleting {name}"));
            target.remove(name)?;
        }
        Ok(())
    }

    /// The manifest of a set, and whether nobody else can have written it: out of the cache, or of the archive, and then kept.
    pub(super) fn manifest(&self, set: &BackupSet, files: FileList) -> Result<(Manifest, bool)> {
        let name = set.times();
        let bad = |e: &dyn std::fmt::Display| Failure::new(code::EXCEPTION, format!("the manifest of the {name}: {e}"));
        if let Some(local) = self.cache.open(FileKind::Manifest, name)? {
            return Ok((Manifest::read(BufReader::new(local), files).map_err(|e| bad(&e))?, true));
        }
        let missing = || bad(&"it is missing, so that nobody knows what belongs to the backup; 'cleanup' removes such sets");
        let file = set.manifest().ok_or_else(missing)?;
        refuse_open(set, file)?;
        let opened = Opener::new(&self.archive).open(&Wanted::unlisted(file))?;
        let authenticated = opened.authenticated;
        // What anybody may have written must not count for more the next time.
        let is_open = set.volumes().values().all(|volume| volume.encoding != Encoding::OpenPgp);
        if authenticated || is_open {
            let mut content = opened.content.take(crate::manifest::MAX_BYTES);
            self.cache.keep(FileKind::Manifest, name, &mut content)?;
            if let Some(local) = self.cache.open(FileKind::Manifest, name)? {
                return Ok((Manifest::read(BufReader::new(local), files).map_err(|e| bad(&e))?, authenticated));
            }
        }
        Ok((Manifest::read(BufReader::new(opened_again(self, file)?), files).map_err(|e| bad(&e))?, authenticated))
    }

    /// The manifest of a set as it lies in the archive; `None` where nothing is at hand to open it with. A pass
    /// phrase that does not fit is an error: what is written with it could not be read with the right one.
    pub(super) fn remote_manifest(&self, set: &BackupSet) -> Result<Option<Manifest>> {
        let Some(file) = set.manifest() else { return Ok(None) };
        let content = match Opener::new(&self.archive).open(&Wanted::unlisted(file)) {
            Ok(opened) => opened.content,
            Err(error) if error.lacks_key() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let manifest = Manifest::read(BufReader::new(content), FileList::Skip);
        manifest.map(Some).map_err(|e| Failure::new(code::EXCEPTION, format!("{}: {e}", file.file.name)))
    }

    /// The signatures of a set, decoded: out of the cache, or of the archive, and then kept.
    pub(super) fn signatures(&self, set: &BackupSet) -> Result<SigtarReader<BufReader<Content>>> {
        let times = set.times();
        if self.cache.open(FileKind::Signature, times)?.is_none() {
            let missing = || Failure::new(18, format!("the signature file of the {times} is missing"));
            let file = set.signature().ok_or_else(missing)?;
            refuse_open(set, file)?;
            self.log.info(&format!("Copying {} to local cache.", file.file.name));
            let mut content = opened_again(self, file)?;
            self.cache.keep(FileKind::Signature, times, &mut content)?;
        }
        let local = self.cache.open(FileKind::Signature, times)?;
        let local = local.ok_or_else(|| Failure::new(code::ARCHIVE_DIR, "a file has gone out of the archive directory"))?;
        let content: Content = Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, local)));
        Ok(SigtarReader::new(BufReader::with_capacity(64 << 10, content)))
    }

    /// A warning about a file.
    pub(super) fn warn_of(&self, warning: u32, path: &[u8], text: &str) {
        self.log.say(Level::WARNING, warning, &super::log::quoted(path), text);
    }
}

/// A set is encrypted as a whole: what lies open beside encrypted volumes comes from somebody without the key.
fn refuse_open(set: &BackupSet, file: &SetFile) -> Result<()> {
    let is_encrypted = |file: &SetFile| file.encoding == Encoding::OpenPgp;
    if is_encrypted(file) || !set.volumes().values().any(is_encrypted) {
        return Ok(());
    }
    let text = format!(
        "{} is not encrypted, though the volumes of its backup are: it is not believed; bring back the one that belongs there, or remove it",
        file.file.name
    );
    Err(Failure::new(code::EXCEPTION, text))
}

/// As [`Collection::chain_at`], of the chains that can be restored, each up to its last complete set.
fn whole_chain_at(collection: &Collection, time: Time) -> Option<&Chain> {
    let end = |chain: &Chain| chain.whole().last().map(|set| set.end_time());
    let whole = || collection.chains().iter().filter(|chain| !chain.whole().is_empty());
    let spanning = whole().rev().find(|chain| chain.start_time() <= time && end(chain) >= Some(time));
    let before = || whole().filter(|chain| end(chain) < Some(time)).max_by_key(|chain| end(chain));
    spanning.or_else(before).or_else(|| whole().next())
}

fn opened_again(context: &Context, file: &SetFile) -> Result<Content> {
    Ok(Opener::new(&context.archive).open(&Wanted::unlisted(file))?.content)
}
