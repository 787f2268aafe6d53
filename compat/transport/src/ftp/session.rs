//! A connection and what it can do but write.

use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;

use compat::store::{StoreErrorKind, StoredFile};
use suppaftp::types::FileType;
use suppaftp::{FtpError, RustlsFtpStream, Status, TransferStream};

use super::{Inner, Stream, list, of};
use crate::MAX_FILES;
use crate::error::Failure;

/// Longest line of a listing.
const MAX_LINE: u64 = 16 * 1024;

/// A connection, logged in and in the folder.
pub(super) struct Session {
    pub ftp: RustlsFtpStream,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn connect(inner: &Inner) -> Result<Self, Failure> {
        let mut session = Self::log_in(inner)?;
        let path = inner.server.path.trim_end_matches('/');
        // lftp, which duplicity uses, takes an empty path for the root.
        session.ftp.cwd(if path.is_empty() { "/" } else { path }).map_err(|e| of(e, StoreErrorKind::NoStore))?;
        Ok(session)
    }

    /// A connection that is in no folder yet.
    pub(super) fn log_in(inner: &Inner) -> Result<Self, Failure> {
        let mut ftp = inner.greet()?;
        let failed = |e| of(e, StoreErrorKind::NoStore);
        ftp.login(inner.user.as_str(), inner.password.as_str()).map_err(|error| match of(error, StoreErrorKind::Denied) {
            failure if failure.kind == StoreErrorKind::Other => Failure { kind: StoreErrorKind::Denied, ..failure },
            failure => failure,
        })?;
        ftp.transfer_type(FileType::Binary).map_err(failed)?;
        // Servers that know no UTF-8 say so, and are none the worse for it.
        if let Err(failure) = ftp.opts("UTF8", Some("ON")).map_err(failed)
            && failure.is_temporary()
        {
            return Err(failure);
        }
        Ok(Self { ftp })
    }

    /// `None` if the server does not tell.
    pub(super) fn size(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        match self.ftp.size(name) {
            Ok(size) => Ok(Some(size as u64)),
            Err(FtpError::BadResponse) => Ok(None),
            // For some servers the size of what is missing, and of what is no file, is as unknown.
            Err(FtpError::UnexpectedResponse(r)) if r.status != Status::NotAvailable => Ok(None),
            Err(error) => Err(of(error, StoreErrorKind::NotFound)),
        }
    }

    pub(super) fn list(&mut self) -> Result<Vec<StoredFile>, Failure> {
        match self.lines("MLSD", list::machine_line) {
            Err(Lines::Unknown) => {}
            Err(Lines::Failed(failure)) => return Err(failure),
            Ok(files) => return Ok(files),
        }
        self.lines("LIST", list::long_line).map_err(|e| match e {
            Lines::Unknown => Failure::new(StoreErrorKind::Unusable, "the server can list no folder"),
            Lines::Failed(failure) => failure,
        })
    }

    fn lines(&mut self, command: &str, parse: fn(&str) -> Option<StoredFile>) -> Result<Vec<StoredFile>, Lines> {
        let opened = self.ftp.custom_data_command(command, &[Status::AboutToSend, Status::AlreadyOpen]);
        let (_, transfer) = opened.map_err(|error| match error {
            FtpError::UnexpectedResponse(r)
                if matches!(
                    r.status,
                    Status::BadCommand
                        | Status::BadArguments
                        | Status::NotImplemented
                        | Status::CommandNotImplemented
                        | Status::NotImplementedParameter
                ) =>
            {
                Lines::Unknown
            }
            error => Lines::Failed(of(error, StoreErrorKind::NoStore)),
        })?;
        let mut input = BufReader::new(transfer);
        let mut files = Vec::new();
        let outcome = read_lines(&mut input, |line| files.extend(parse(line)));
        if let Err(failure) = outcome {
            // Else it would wait for the server's last word.
            let _ = self.ftp_socket_shutdown(input.into_inner());
            return Err(Lines::Failed(failure));
        }
        input.into_inner().finish().map_err(|e| Lines::Failed(of(e, StoreErrorKind::NoStore)))?;
        Ok(files)
    }

    pub(super) fn ftp_socket_shutdown(&self, transfer: TransferStream<Stream>) -> io::Result<()> {
        let outcome = self.ftp.get_ref().shutdown(Shutdown::Both);
        drop(transfer);
        outcome
    }
}

enum Lines {
    /// The server does not know the command.
    Unknown,
    Failed(Failure),
}

fn read_lines(input: &mut impl BufRead, mut each: impl FnMut(&str)) -> Result<(), Failure> {
    let mut line = Vec::new();
    for _ in 0..=MAX_FILES {
        line.clear();
        let n = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(());
        }
        if n as u64 == MAX_LINE {
            return Err(Failure::nonsense("a line without end"));
        }
        if let Ok(text) = std::str::from_utf8(&line) {
            each(text.trim_end_matches(['\r', '\n']));
        }
    }
    Err(Failure::nonsense("a listing without end"))
}
