//! Files that are written, with many requests under way.

use std::collections::HashSet;
use std::io::Read;

use compat::store::StoreErrorKind;

use super::wire::{self, Part, Reply};
use super::{Session, refusal};
use crate::error::Failure;
use crate::spool::Spool;

/// Bytes per request: what every server takes at once.
const PIECE: usize = 32 * 1024;
/// Requests under way: 1 MiB.
const WINDOW: usize = 32;

impl Session {
    pub(super) fn put(&mut self, file: &Spool, path: &str, unfinished: &str) -> Result<(), Failure> {
        let open = [Part::Text(unfinished), Part::U32(wire::FLAGS_NEW), Part::U32(0)];
        let handle = match self.call(wire::OPEN, &open)? {
            Reply::Handle(handle) => handle,
            reply => return Err(refusal(reply, StoreErrorKind::NoStore, "no such folder")),
        };
        if let Err(failure) = self.write_all(&handle, file) {
            if !failure.is_temporary() {
                let _ = self.call(wire::CLOSE, &[Part::Bytes(&handle)]);
            }
            return Err(failure);
        }
        let size = match self.call(wire::FSTAT, &[Part::Bytes(&handle)])? {
            Reply::Attrs(attrs) => attrs.size,
            _ => None,
        };
        // A full disk may show only now.
        self.done(wire::CLOSE, &[Part::Bytes(&handle)])?;
        if let Some(found) = size.filter(|found| *found != file.size()) {
            return Err(Failure::torn(found, file.size()));
        }
        self.replace(unfinished, path)
    }

    /// All answers are awaited, whatever they are: the connection may be used again.
    fn write_all(&mut self, handle: &[u8], file: &Spool) -> Result<(), Failure> {
        let mut reader = file.reader();
        let mut piece = vec![0; PIECE];
        let mut under_way = HashSet::new();
        let mut offset = 0_u64;
        let mut refused = None;
        loop {
            let n = match refused {
                None => read_full(&mut reader, &mut piece).unwrap_or_else(|failure| {
                    refused = Some(failure);
                    0
                }),
                Some(_) => 0,
            };
            if n > 0 {
                under_way.insert(self.send(wire::WRITE, &[Part::Bytes(handle), Part::U64(offset), Part::Bytes(&piece[..n])])?);
                offset = offset.saturating_add(n as u64);
            }
            while under_way.len() >= if n > 0 { WINDOW } else { 1 } {
                let (id, reply) = self.receive()?;
                if !under_way.remove(&id) {
                    return Err(Failure::nonsense("an answer to no question"));
                }
                if let Err(failure) = done(reply) {
                    refused.get_or_insert(failure);
                }
            }
            if n == 0 {
                return refused.map_or(Ok(()), Err);
            }
        }
    }

    /// At once, where the server knows how; else the old file goes first.
    fn replace(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        let at_once = [Part::Text(wire::POSIX_RENAME), Part::Text(from), Part::Text(to)];
        if self.call(wire::EXTENDED, &at_once)?.is_ok() {
            return Ok(());
        }
        let rename = [Part::Text(from), Part::Text(to)];
        if self.call(wire::RENAME, &rename)?.is_ok() {
            return Ok(());
        }
        self.call(wire::REMOVE, &[Part::Text(to)])?;
        self.done(wire::RENAME, &rename)
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<(), Failure> {
        match self.call(wire::REMOVE, &[Part::Text(path)])? {
            reply if reply.is_ok() => Ok(()),
            reply => Err(refusal(reply, StoreErrorKind::NotFound, "no such file")),
        }
    }

    /// From the folder up to one that is there: not all that is above can be seen by everybody.
    pub(super) fn make_folder(&mut self, path: &str) -> Result<(), Failure> {
        let make = [Part::Text(path), Part::U32(0)];
        let failure = match self.done(wire::MKDIR, &make) {
            Err(failure) => failure,
            Ok(()) => return Ok(()),
        };
        match path.trim_end_matches('/').rsplit_once('/') {
            Some((above, _)) if failure.kind == StoreErrorKind::NoStore && !above.is_empty() => {
                self.make_folder(above)?;
                self.done(wire::MKDIR, &make)
            }
            // Somebody may have been faster; servers do not say so.
            _ => match self.call(wire::STAT, &[Part::Text(path)])? {
                Reply::Attrs(_) => Ok(()),
                _ => Err(failure),
            },
        }
    }

    fn done(&mut self, kind: u8, parts: &[Part<'_>]) -> Result<(), Failure> {
        done(self.call(kind, parts)?)
    }
}

impl Reply {
    fn is_ok(&self) -> bool {
        matches!(self, Self::Status { code: wire::STATUS_OK, .. })
    }
}

fn done(reply: Reply) -> Result<(), Failure> {
    if reply.is_ok() { Ok(()) } else { Err(refusal(reply, StoreErrorKind::NoStore, "no such folder")) }
}

/// As much as there is, up to the buffer's size.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
