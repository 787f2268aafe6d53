//! A snapshot compared with what the archive's signature file says of the set.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use engine::backup::BackupOutcome;
use engine::catalog::CatalogReader;
use engine::content::copy_to;
use engine::entry::{Entry, Kind};
use engine::error::{Error, Result};
use engine::monitor::Problem;
use engine::repo::Reader;

use super::Import;
use super::fetch::ends_import;
use super::plan::SetPlan;
use crate::librsync::SignatureCheck;
use crate::member::{Owners, entry_kind};
use crate::sigtar::{SigtarEntry, SigtarKind, SigtarReader};

impl Import<'_> {
    /// Compares all that the set changed. Returns how many paths that were; `None` if there is no signature file to tell.
    /// Differences are problems. What is known to be lost is not looked for.
    pub(super) fn verify(&self, plan: &SetPlan, imported: &BackupOutcome) -> Result<Option<u64>> {
        let not_verified = |why: &str| {
            self.monitor.problem(Problem { subject: plan.name.clone(), message: format!("not verified: {why}") });
            Ok(None)
        };
        let (Some(name), Some(file)) = (imported.snapshot, &plan.signature) else {
            return not_verified("its signature file is missing");
        };
        self.monitor.stage("verifying");
        let opened = match self.opener.open(file) {
            Ok(opened) => opened,
            Err(error) if error.is_passing() => return Err(ends_import(&error)),
            Err(error) => return not_verified(&format!("{}: {error}", file.name)),
        };
        let reader = Reader::open(Arc::clone(self.repo), self.options.cache_dir.as_deref(), &**self.monitor)?;
        let root = self.repo.read_snapshot(&name)?.root;
        let mut sigtar = SigtarReader::new(BufReader::new(opened.content));
        let mut catalog = CatalogReader::new(&reader, root)?;
        let (mut next, mut owners, mut verified) = (catalog.next_entry()?, Owners::default(), 0);
        loop {
            let expected = match sigtar.next() {
                Ok(Some(expected)) => expected,
                Ok(None) => return Ok(Some(verified)),
                Err(error) => return not_verified(&format!("{}: {error}", file.name)),
            };
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            while next.as_ref().is_some_and(|entry| entry.path < expected.path) {
                next = catalog.next_entry()?;
            }
            let found = next.as_ref().filter(|entry| entry.path == expected.path);
            if found.is_none() && expected.kind != SigtarKind::Deleted && imported.problems > 0 {
                continue;
            }
            match compare(&reader, found, &expected, &mut sigtar, &mut owners)? {
                None => verified += 1,
                Some(how) => {
                    let message = format!("differs from the archive's signatures: {how}");
                    self.monitor.problem(Problem { subject: format!("/{}", expected.path.display()), message });
                }
            }
        }
    }
}

/// How an entry differs from what it should be, if it does.
fn compare(
    reader: &Reader,
    found: Option<&Entry>,
    expected: &SigtarEntry,
    signature: &mut dyn Read,
    owners: &mut Owners,
) -> Result<Option<String>> {
    let differs = |how: &str| Ok(Some(how.to_owned()));
    let Some(found) = found else {
        return if expected.kind == SigtarKind::Deleted { Ok(None) } else { differs("it is missing") };
    };
    let kind = match expected.kind {
        SigtarKind::Deleted => return differs("it should be gone"),
        SigtarKind::Signature => Kind::File,
        SigtarKind::Snapshot => match entry_kind(&expected.header) {
            Ok(kind) => kind,
            Err(error) => return differs(&error.to_string()),
        },
    };
    // Garbled link targets of old versions differ between the two files.
    let same_kind = std::mem::discriminant(&kind) == std::mem::discriminant(&found.kind);
    if !same_kind || (kind != found.kind && !matches!(kind, Kind::Symlink(_))) {
        return differs("it is of another kind");
    }
    let meta = owners.metadata(&expected.header);
    if (meta.mode, meta.owner.uid, meta.owner.gid, meta.mtime)
        != (found.meta.mode, found.meta.owner.uid, found.meta.owner.gid, found.meta.mtime)
    {
        return differs("its mode, owner or time");
    }
    if expected.kind != SigtarKind::Signature {
        return Ok(None);
    }
    let check = match SignatureCheck::new(signature) {
        Ok(check) => check,
        Err(error) => return differs(&error.to_string()),
    };
    let mut sink = Sink(check);
    if let Err(error) = copy_to(reader, found, &mut sink) {
        return match error {
            Error::Io { source, .. } => differs(&source.to_string()),
            other => Err(other),
        };
    }
    match sink.0.finish() {
        Ok(true) => Ok(None),
        Ok(false) => differs("its content"),
        Err(error) => differs(&error.to_string()),
    }
}

struct Sink<R>(SignatureCheck<R>);

impl<R: Read> Write for Sink<R> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.0.feed(content).map_err(io::Error::other)?;
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
