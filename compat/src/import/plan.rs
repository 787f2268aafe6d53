//! What is known of a set before its volumes are read.

use std::io::BufReader;

use engine::error::Result;
use engine::path::EntryPath;

use super::fetch::{Opener, Unusable, Wanted, ends_import};
use super::set::Part;
use crate::collection::{BackupSet, SetFile};
use crate::manifest::{FileList, Manifest, ManifestErrorKind, VolumeRecord};

/// How one set is to be read.
#[derive(Clone, Debug)]
pub(super) struct SetPlan {
    /// For messages.
    pub name: String,
    pub time: i64,
    pub full: bool,
    /// Name of the machine that was backed up.
    pub host: Option<String>,
    pub parts: Vec<Part>,
    pub signature: Option<Wanted>,
    /// There is no manifest to say what belongs to the set; why.
    pub unlisted: Option<String>,
    /// Why it cannot be imported.
    pub refused: Option<String>,
    /// What is wrong with the set as a whole.
    pub problems: Vec<String>,
    /// Things to say that are no problems.
    pub notes: Vec<String>,
    /// Names the set by what it holds.
    identity: blake3::Hash,
}

/// What a set builds on.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    /// Origin of the set before; empty for full sets, and where that is missing.
    pub origin: String,
    /// The set before is not there; why.
    pub missing: Option<String>,
}

impl SetPlan {
    /// The volumes that are there.
    pub fn files(&self) -> Vec<Wanted> {
        self.parts.iter().filter_map(|part| part.file.clone()).collect()
    }

    /// The same whenever the same set is imported on the same base.
    pub fn origin(&self, base: &Base) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.identity.as_bytes()).update(base.origin.as_bytes());
        format!("duplicity {} {}", self.name, &hasher.finalize().to_hex()[..32])
    }
}

/// Reads the manifest of a set and puts its volumes next to it.
pub(super) fn plan(set: &BackupSet, base: &Base, opener: &Opener) -> Result<SetPlan> {
    let mut plan = SetPlan {
        name: set.times().to_string(),
        time: set.end_time().epoch(),
        full: set.is_full(),
        host: None,
        parts: Vec::new(),
        signature: set.signature().map(Wanted::unlisted),
        unlisted: None,
        refused: None,
        problems: Vec::new(),
        notes: Vec::new(),
        identity: blake3::hash(b""),
    };
    let manifest = match set.manifest() {
        Some(file) => match read_manifest(file, opener) {
            Ok(manifest) => Some(manifest),
            Err(error) if error.is_passing() || error.is_locked() => return Err(ends_import(&error)),
            Err(error) => {
                plan.unlisted = Some(format!("the manifest {} is of no use: {error}", file.file.name));
                None
            }
        },
        None => {
            plan.unlisted = Some("the set has no manifest".to_owned());
            None
        }
    };
    match manifest {
        Some((manifest, trusted)) => plan.list(set, &manifest, trusted),
        None => plan.guess(set),
    }
    if let Some(why) = &base.missing {
        plan.problems.push(format!("{why}: only what this backup holds in full is imported"));
    }
    if !plan.parts.is_empty() && plan.parts.iter().all(|part| part.file.is_none()) {
        plan.refused = Some("none of its volumes is there".to_owned());
    }
    Ok(plan)
}

impl SetPlan {
    /// The volumes of the manifest.
    fn list(&mut self, set: &BackupSet, manifest: &Manifest, trusted: bool) {
        if let Err(error) = manifest.check() {
            self.problems.push(format!("the manifest contradicts itself: {error}"));
        }
        self.host = manifest.host.as_deref().map(|host| String::from_utf8_lossy(host).into_owned());
        let volumes = manifest.volumes();
        let mut hasher = blake3::Hasher::new();
        // Writing to a hasher cannot fail.
        let _ = Manifest { files: None, ..manifest.clone() }.write(&mut hasher);
        for (number, record) in &volumes {
            let file = set.volumes().get(number);
            if file.is_none() {
                hasher.update(&number.to_le_bytes());
            }
            self.parts.push(part(*number, file, record, trusted));
        }
        for (number, file) in set.volumes().iter().filter(|(number, _)| !volumes.contains_key(number)) {
            self.notes.push(format!("{}: volume {number} is not in the manifest and is ignored", file.file.name));
        }
        self.identity = hasher.finalize();
    }

    /// Without a manifest: the volumes that are there.
    fn guess(&mut self, set: &BackupSet) {
        let why = self.unlisted.clone().unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        let last = set.volumes().keys().last().copied().unwrap_or(0);
        for (number, file) in set.volumes() {
            hasher.update(file.file.name.as_bytes()).update(&file.file.size.unwrap_or(0).to_le_bytes());
            self.parts.push(Part { number: *number, file: Some(Wanted::unlisted(file)), paths: None });
        }
        self.identity = hasher.finalize();
        if set.volumes().is_empty() {
            self.refused = Some(format!("{why}, and no volumes"));
        } else if set.volumes().len() as u64 != u64::from(last) {
            self.problems.push("some of its volumes are missing".to_owned());
        }
        match (&self.signature, self.full) {
            (Some(_), _) => self.problems.push(format!("{why}; its volumes cannot be checked against their hashes")),
            (None, true) => self.problems.push(format!(
                "{why} and no signature file: it was interrupted, and nobody knows what is missing behind its last volume"
            )),
            (None, false) => {
                let what = "and no signature file: it was interrupted, and nobody knows what it left unsaid";
                self.refused = Some(format!("{why} {what}"));
            }
        }
    }
}

fn part(number: u32, file: Option<&SetFile>, record: &VolumeRecord, trusted: bool) -> Part {
    let path = |raw: &[u8]| EntryPath::new(raw).ok();
    let paths = path(&record.start.path).zip(path(&record.end.path));
    let file = file.map(|file| Wanted { hash: record.hash.clone(), hash_is_trusted: trusted, ..Wanted::unlisted(file) });
    Part { number, file, paths }
}

/// The manifest, and whether only those with a key can have written it.
fn read_manifest(file: &SetFile, opener: &Opener) -> Result<(Manifest, bool), Unusable> {
    let opened = opener.open(&Wanted::unlisted(file))?;
    let manifest = Manifest::read(BufReader::new(opened.content), FileList::Skip).map_err(|error| match error.kind {
        ManifestErrorKind::Read(error) => Unusable::Io(error),
        _ => Unusable::Io(std::io::Error::other(error)),
    })?;
    Ok((manifest, opened.authenticated))
}
