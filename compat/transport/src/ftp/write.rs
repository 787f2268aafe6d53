//! Files that are written.

use std::io;
use std::time::Duration;

use compat::store::StoreErrorKind;

use super::{Session, of};
use crate::error::Failure;
use crate::spool::Spool;

/// How long a server may take to say why it broke off.
const LAST_WORD: Duration = Duration::from_secs(3);

impl Session {
    /// The end of a file is the end of its connection, so that a server takes a broken one for the whole: the name comes last.
    pub(super) fn put(&mut self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        let failed = |e| of(e, StoreErrorKind::Other);
        let mut transfer = self.ftp.put_with_stream(unfinished).map_err(failed)?;
        if let Err(error) = io::copy(&mut file.reader(), &mut transfer) {
            let failure = Failure::from(error);
            if !failure.is_temporary() {
                let _ = self.ftp_socket_shutdown(transfer);
                return Err(failure);
            }
            // The server may have said why it takes no more, or know nothing of it.
            let _ = self.ftp.get_ref().set_read_timeout(Some(LAST_WORD));
            return Err(transfer.finish().err().map_or(failure, failed));
        }
        transfer.finish().map_err(failed)?;
        if let Some(found) = self.size(unfinished)?.filter(|found| *found != file.size()) {
            return Err(Failure::torn(found, file.size()));
        }
        if let Err(failure) = self.ftp.rename(unfinished, name).map_err(failed) {
            // Not every server replaces.
            if failure.is_temporary() || self.ftp.rm(name).is_err() {
                return Err(failure);
            }
            self.ftp.rename(unfinished, name).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let outcome = self.ftp.rm(name).map_err(|e| of(e, StoreErrorKind::NotFound));
        match outcome {
            // The same answer may mean that it may not be removed.
            Err(failure) if failure.kind == StoreErrorKind::NotFound => match self.size(name) {
                Ok(Some(_)) => Err(Failure { kind: StoreErrorKind::Denied, ..failure }),
                _ => Err(failure),
            },
            outcome => outcome,
        }
    }

    /// Step by step: what is missing and what is forbidden look the same.
    pub(super) fn make_folder(&mut self, path: &str) -> Result<(), Failure> {
        let failed = |e| of(e, StoreErrorKind::NoStore);
        if path.starts_with('/') {
            self.ftp.cwd("/").map_err(failed)?;
        }
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if self.ftp.cwd(part).is_err() {
                let made = self.ftp.mkdir(part).map_err(failed);
                // Somebody may have been faster.
                self.ftp.cwd(part).map_err(|e| made.err().unwrap_or_else(|| failed(e)))?;
            }
        }
        Ok(())
    }
}
