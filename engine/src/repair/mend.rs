//! Whether an object is what it should be, and what parity makes of it if not.

use std::collections::HashSet;

use bytes::Bytes;

use crate::backend::{Backend, ErrorKind, ObjectKey, ObjectMeta};
use crate::error::Result;
use crate::format::config::Config;
use crate::format::object::{FormatError, Header};
use crate::format::{ObjectKind, epoch};
use crate::id::{Epoch, ObjectId, RepoId};
use crate::names::{self, Claim, Protects};
use crate::parity::{self, group};
use crate::repo::{Repository, parallel};

/// What is known of a store whose objects are to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge<'a> {
    /// Without keys, but the id of the repository, if it is known: config and epoch objects are judged by their headers, and
    /// cannot be brought back, since nothing tells whether their parity is of the right ones.
    Host(Option<RepoId>),
    /// With the keys: what is not named by its hash has to authenticate.
    Keys(&'a Repository),
}

impl Judge<'_> {
    /// What is wrong with an object's bytes.
    pub(crate) fn fault(&self, claim: &Claim, bytes: &[u8]) -> Option<String> {
        match (claim.id, self) {
            (Some(id), _) if ObjectId::of(bytes) == id => None,
            (Some(_), _) => Some("its bytes do not have the hash that its name says (damaged or replaced)".to_owned()),
            (None, Self::Host(repo)) => header_fault(claim, *repo, bytes),
            (None, Self::Keys(repo)) => open(repo, claim, bytes).err().map(|e| e.to_string()),
        }
    }

    /// Reads an object of a size, and says what is wrong with it. Nothing is wrong with one that went away: maintenance and
    /// sessions delete theirs.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) fn inspect(&self, backend: &dyn Backend, object: &Stored) -> Result<Option<String>> {
        match backend.read(&object.key, object.size) {
            Ok(bytes) => Ok(self.fault(&object.claim, &bytes)),
            Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
            Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::Other) => Ok(Some(e.message)),
            Err(error) => Err(error.into()),
        }
    }

    /// The repository, if it is known which it is.
    pub(crate) fn repo(&self) -> Option<RepoId> {
        match self {
            Self::Host(repo) => *repo,
            Self::Keys(repo) => Some(repo.id()),
        }
    }

    /// Whether bytes that were rebuilt may be stored as this object.
    fn accepts(&self, claim: &Claim, bytes: &[u8]) -> bool {
        (claim.id.is_some() || matches!(self, Self::Keys(_))) && self.fault(claim, bytes).is_none()
    }
}

fn header_fault(claim: &Claim, repo: Option<RepoId>, bytes: &[u8]) -> Option<String> {
    match Header::parse(bytes, claim.kind) {
        Err(e) => Some(e.to_string()),
        Ok(header) if repo.is_some_and(|repo| repo != header.repo) => Some("belongs to another repository".to_owned()),
        Ok(header) if claim.epoch != header.epoch => Some("belongs to another epoch".to_owned()),
        Ok(_) => None,
    }
}

/// Authenticates an object that is named by its role.
fn open(repo: &Repository, claim: &Claim, bytes: &[u8]) -> Result<(), FormatError> {
    let (key, id) = (&repo.keys().epochs, repo.id());
    match claim.kind {
        ObjectKind::Config => Config::parse(&repo.keys().config, bytes).map(drop),
        ObjectKind::Close => epoch::open_close(key, id, claim.epoch, bytes).map(drop),
        ObjectKind::Seal => epoch::open_seal(key, id, claim.epoch, bytes).map(drop),
        kind => epoch::open_mark(key, kind, id, claim.epoch, bytes),
    }
}

/// An object in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) key: ObjectKey,
    pub(crate) claim: Claim,
    pub(crate) size: u64,
}

impl Stored {
    /// Whether parity may cover objects of its kind.
    pub(crate) fn is_protected(&self) -> bool {
        self.claim.kind != ObjectKind::Session
    }
}

/// What is in a store, by its listing.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What belongs to a repository, but parity; in order.
    pub(crate) objects: Vec<Stored>,
    /// Objects that have parity inside, whether they are there or not, each with the size of that; in order.
    pub(crate) inside: Vec<Stored>,
    /// Parity of groups.
    pub(crate) groups: Vec<(ObjectMeta, Epoch, ObjectId)>,
    /// Number of objects with other names.
    pub(crate) others: u64,
}

impl Survey {
    /// Lists the store. Memory: about 200 bytes for each object.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) fn new(backend: &dyn Backend) -> Result<Self> {
        Self::below(backend, &[""])
    }

    /// Lists what parity covers where so many percent are set: with 0, only what is vital.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) fn covered(backend: &dyn Backend, percent: u8) -> Result<Self> {
        if percent > 0 {
            return Self::new(backend);
        }
        let mut survey = Self::below(backend, &["keys/", "epochs/", "parity/"])?;
        let key = names::config();
        match (backend.size(&key), names::parse(&key)) {
            (Ok(size), Some(claim)) => survey.objects.insert(0, Stored { key, claim, size }),
            (Err(e), _) if e.kind != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        survey.only_vital();
        Ok(survey)
    }

    /// Leaves out what is not vital, unless some of that has parity; whether it did.
    pub(crate) fn narrow(&mut self) -> bool {
        let narrow = self.groups.is_empty() && self.inside.iter().all(|object| object.claim.kind.is_vital());
        if narrow {
            self.only_vital();
        }
        narrow
    }

    fn only_vital(&mut self) {
        self.objects.retain(|object| object.claim.kind.is_vital());
    }

    /// Whether there can be parity of an object.
    pub(crate) fn may_have(&self, object: &Stored) -> bool {
        !self.groups.is_empty() || self.inside.binary_search_by(|other| other.key.cmp(&object.key)).is_ok()
    }

    /// Objects that have no parity inside.
    pub(crate) fn unprotected(&self) -> u64 {
        Self::without(&self.objects, &self.inside).filter(|object| object.is_protected()).count() as u64
    }

    fn below(backend: &dyn Backend, prefixes: &[&str]) -> Result<Self> {
        let mut survey = Self::default();
        for prefix in prefixes {
            backend.list(prefix, &mut |meta| match (names::parse(&meta.key), names::parse_parity(&meta.key)) {
                (Some(claim), _) => survey.objects.push(Stored { key: meta.key, claim, size: meta.size }),
                (_, Some(Protects::Object(key, claim))) => survey.inside.push(Stored { key, claim, size: meta.size }),
                (_, Some(Protects::Group(epoch, id))) => survey.groups.push((meta, epoch, id)),
                (None, None) => survey.others += 1,
            })?;
        }
        survey.objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        survey.inside.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(survey)
    }

    /// Those of `some` whose names `others` does not have.
    pub(crate) fn without<'s>(some: &'s [Stored], others: &'s [Stored]) -> impl Iterator<Item = &'s Stored> {
        some.iter().filter(|one| others.binary_search_by(|other| other.key.cmp(&one.key)).is_err())
    }

    /// Objects that are lost, though their parity is there: not those that were stored or deleted during the listing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) fn lost(&self, backend: &dyn Backend) -> Result<Vec<Stored>> {
        let mut lost = Vec::new();
        for object in Self::without(&self.inside, &self.objects) {
            if !is_there(backend, &object.key)? && is_there(backend, &names::parity_of(&object.key))? {
                lost.push(object.clone());
            }
        }
        Ok(lost)
    }
}

/// Whether there is an object of this name.
pub(crate) fn is_there(backend: &dyn Backend, key: &ObjectKey) -> Result<bool> {
    match backend.size(key) {
        Ok(_) => Ok(true),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Brings objects back by parity. Changes nothing.
pub(crate) struct Mender<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) judge: Judge<'a>,
    /// Groups of the store, and the names of their members, once they were needed.
    groups: Option<Vec<(ObjectKey, HashSet<ObjectKey>)>>,
}

impl<'a> Mender<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, judge: Judge<'a>) -> Self {
        Self { backend, judge, groups: None }
    }

    /// The right bytes of an object; `None` if parity cannot tell them.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) fn rebuild(&mut self, object: &ObjectKey, claim: &Claim) -> Result<Option<Bytes>> {
        let accepted = |bytes: Option<Bytes>| bytes.filter(|bytes| self.judge.accepts(claim, bytes));
        if let Some(bytes) = accepted(parity::rebuild(self.backend, object)?) {
            return Ok(Some(bytes));
        }
        if !matches!(claim.kind, ObjectKind::Pack | ObjectKind::Segment) {
            return Ok(None);
        }
        if self.groups.is_none() {
            self.groups = Some(self.load_groups()?);
        }
        for (group, members) in self.groups.iter().flatten() {
            if members.contains(object)
                && let Some(bytes) = group::rebuild(self.backend, group, object)?
                && self.judge.accepts(claim, &bytes)
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn load_groups(&self) -> Result<Vec<(ObjectKey, HashSet<ObjectKey>)>> {
        let mut listed = Vec::new();
        self.backend.list("parity/groups/", &mut |meta| listed.push(meta))?;
        listed.retain(|meta| matches!(names::parse_parity(&meta.key), Some(Protects::Group(..))));
        let read = parallel::map(self.backend.concurrency(), &listed, |meta| group::members(self.backend, &meta.key, meta.size));
        let mut groups = Vec::with_capacity(listed.len());
        for (meta, members) in listed.into_iter().zip(read) {
            let keys = members?.into_iter().flatten().filter_map(|m| names::protected(m.kind, m.epoch, &m.id));
            groups.push((meta.key, keys.collect()));
        }
        Ok(groups)
    }
}
