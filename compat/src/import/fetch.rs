//! Files of an archive, fetched, compared with their hash, decrypted and decompressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use md5::Md5;
use sha1::{Digest, Sha1};

use engine::error::Error;

use super::Archive;
use crate::collection::SetFile;
use crate::inflate::Gunzip;
use crate::manifest::VolumeHash;
use crate::name::Encoding;
use crate::pgp::{Integrity, Keyring, PgpError, PgpErrorKind};
use crate::store::{Store, StoreError, StoreErrorKind};

/// Read at a time from files and stores.
const BLOCK: usize = 256 << 10;

/// Why a file of the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// The store cannot give it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The connection or the decoding broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what the manifest says.
    #[error("its {algorithm} hash is not the one in the manifest")]
    Hash { algorithm: &'static str },
    /// The manifest names an algorithm that nobody used.
    #[error("the manifest has no hash of it that can be checked, but one of '{0}'")]
    UnknownHash(String),
    /// It cannot be decrypted.
    #[error("{0}")]
    OpenPgp(#[from] PgpError),
    /// It is in a container that is not read.
    #[error("S/MIME (gpgsm) is not supported")]
    Smime,
}

impl Unusable {
    /// Whether the whole import has to stop: the place cannot be reached now, and what is there may be whole.
    pub fn is_passing(&self) -> bool {
        let kind = match self {
            Self::Store(error) => Some(error.kind),
            Self::Io(error) => error.get_ref().and_then(|e| e.downcast_ref::<StoreError>()).map(|e| e.kind),
            _ => None,
        };
        matches!(
            kind,
            Some(StoreErrorKind::Unreachable | StoreErrorKind::Denied | StoreErrorKind::NoStore | StoreErrorKind::Unusable)
        )
    }
}

impl Unusable {
    /// Whether it is a matter of keys and pass phrases: another file will hardly fare better.
    pub fn is_locked(&self) -> bool {
        self.lacks_key() || matches!(self.pgp(), Some(PgpErrorKind::WrongPassphrase { .. }))
    }

    /// Whether it is encrypted to a key that cannot be used here.
    pub fn lacks_key(&self) -> bool {
        use PgpErrorKind::{Agent, LockedKey, NoSecretKey};
        matches!(self.pgp(), Some(LockedKey { .. } | NoSecretKey { .. } | Agent(_)))
    }

    fn pgp(&self) -> Option<&PgpErrorKind> {
        match self {
            Self::OpenPgp(error) => Some(&error.kind),
            Self::Io(error) => error.get_ref().and_then(|e| e.downcast_ref::<PgpError>()).map(|error| &error.kind),
            _ => None,
        }
    }
}

/// An import that cannot go on.
pub(crate) fn ends_import(error: &Unusable) -> Error {
    Error::Invalid(error.to_string())
}

/// How files of one archive are opened. Shared by the threads that do it.
pub(crate) struct Opener {
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    /// Fingerprint of the key that must have signed everything.
    required_signer: Option<String>,
}

/// What is known of a file beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub name: String,
    pub encoding: Encoding,
    /// What its bytes must hash to.
    pub hash: Option<VolumeHash>,
    /// Whether that hash comes from where nobody else can write.
    pub hash_is_trusted: bool,
}

/// A decoded file and what is known of it.
pub(crate) struct Opened {
    pub content: Box<dyn Read + Send>,
    /// Whether nobody without a key can have made or changed it.
    pub authenticated: bool,
    /// Whether it is encrypted without protection against changes.
    pub unprotected: bool,
}

impl Wanted {
    /// A file of which nothing is known beforehand.
    pub fn unlisted(file: &SetFile) -> Self {
        Self { name: file.file.name.clone(), encoding: file.encoding, hash: None, hash_is_trusted: false }
    }
}

impl Opener {
    pub fn new(archive: &Archive) -> Self {
        Self {
            store: Arc::clone(&archive.store),
            keyring: Arc::clone(&archive.keyring),
            required_signer: archive.required_signer.clone(),
        }
    }

    /// Opens a file. Where nothing vouches for its bytes beforehand, it is decoded to its end once before anything of it
    /// is given out. Takes memory for one block; remote files lie in an unnamed temporary file meanwhile.
    pub fn open(&self, wanted: &Wanted) -> Result<Opened, Unusable> {
        let mut file = self.fetch(wanted)?;
        let encrypted = wanted.encoding == Encoding::OpenPgp;
        let vouched_for = wanted.hash.is_some() && (wanted.hash_is_trusted || !encrypted);
        if !vouched_for || (encrypted && self.required_signer.is_some()) {
            self.read_through(&mut file, wanted)?;
        }
        file.seek(SeekFrom::Start(0))?;
        let blocks = BufReader::with_capacity(BLOCK, file);
        let (content, integrity): (Box<dyn Read + Send>, _) = match kind(wanted.encoding, blocks)? {
            Decoder::Plain(reader) => (Box::new(reader), None),
            Decoder::Gzip(reader) => (Box::new(reader), None),
            Decoder::OpenPgp(reader) => {
                let plain = self.keyring.decrypt(reader, &wanted.name)?;
                let integrity = plain.integrity();
                (Box::new(plain), Some(integrity))
            }
        };
        let unprotected = integrity == Some(Integrity::None);
        Ok(Opened { content, authenticated: integrity.is_some() && !unprotected, unprotected })
    }

    /// The file as a local one, its hash checked.
    fn fetch(&self, wanted: &Wanted) -> Result<File, Unusable> {
        let mut hasher = wanted.hash.as_ref().map(Hasher::new).transpose()?;
        let mut update = |block: &[u8]| hasher.iter_mut().for_each(|h| h.update(block));
        let mut file = match self.store.open_local(&wanted.name) {
            Some(file) => {
                let mut file = file?;
                if wanted.hash.is_some() {
                    copy(&mut file, |block| {
                        update(block);
                        Ok(())
                    })?;
                }
                file
            }
            None => {
                let mut spool = tempfile::tempfile()?;
                let mut remote = self.store.open(&wanted.name)?;
                copy(&mut remote, |block| {
                    update(block);
                    spool.write_all(block)
                })?;
                spool
            }
        };
        file.seek(SeekFrom::Start(0))?;
        hasher.map_or(Ok(()), Hasher::compare)?;
        Ok(file)
    }

    /// Decodes everything once, so that its end proves it whole.
    fn read_through(&self, file: &mut File, wanted: &Wanted) -> Result<(), Unusable> {
        let blocks = BufReader::with_capacity(BLOCK, file.try_clone()?);
        match kind(wanted.encoding, blocks)? {
            Decoder::Plain(_) => {}
            Decoder::Gzip(mut reader) => drop(io::copy(&mut reader, &mut io::sink())?),
            Decoder::OpenPgp(reader) => {
                let report = self.keyring.decrypt(reader, &wanted.name)?.finish()?;
                if let Some(signer) = &self.required_signer {
                    report.require_signature(signer)?;
                }
            }
        }
        Ok(())
    }
}

enum Decoder<R: io::BufRead> {
    Plain(R),
    Gzip(Gunzip<R>),
    OpenPgp(R),
}

/// What a file is by its name; old unencrypted archives hold gzip data under bare names.
fn kind<R: io::BufRead>(encoding: Encoding, mut reader: R) -> Result<Decoder<R>, Unusable> {
    Ok(match encoding {
        Encoding::OpenPgp => Decoder::OpenPgp(reader),
        Encoding::Gzip => Decoder::Gzip(Gunzip::new(reader)?),
        Encoding::Plain if reader.fill_buf()?.starts_with(&[0x1f, 0x8b, 8]) => Decoder::Gzip(Gunzip::new(reader)?),
        Encoding::Plain => Decoder::Plain(reader),
        Encoding::Smime => return Err(Unusable::Smime),
    })
}

fn copy(from: &mut dyn Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => to(block.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

enum Hasher {
    Sha1(Sha1, [u8; 20]),
    Md5(Md5, [u8; 16]),
}

impl Hasher {
    fn new(hash: &VolumeHash) -> Result<Self, Unusable> {
        match hash {
            VolumeHash::Sha1(digest) => Ok(Self::Sha1(Sha1::new(), *digest)),
            VolumeHash::Md5(digest) => Ok(Self::Md5(Md5::new(), *digest)),
            VolumeHash::Other { algorithm, .. } => Err(Unusable::UnknownHash(algorithm.clone())),
        }
    }

    fn update(&mut self, block: &[u8]) {
        match self {
            Self::Sha1(hasher, _) => hasher.update(block),
            Self::Md5(hasher, _) => hasher.update(block),
        }
    }

    fn compare(self) -> Result<(), Unusable> {
        let (algorithm, equal) = match self {
            Self::Sha1(hasher, digest) => ("SHA-1", hasher.finalize()[..] == digest),
            Self::Md5(hasher, digest) => ("MD5", hasher.finalize()[..] == digest),
        };
        if equal { Ok(()) } else { Err(Unusable::Hash { algorithm }) }
    }
}
