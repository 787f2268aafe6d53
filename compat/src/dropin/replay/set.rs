//! The members of one set in order, out of volume after volume.

use std::io::{self, Read};
use std::sync::Arc;

use engine::path::EntryPath;

use crate::dropin::failure::{Failure, Result, code};
use crate::dropin::log::Log;
use crate::import::ahead::{Ahead, Volume};
use crate::import::fetch::{Opener, Wanted};
use crate::import::pipe;
use crate::member::{Member, MemberKind};
use crate::tar::{Header, TarReader};

/// A member that was not taken yet.
pub(super) struct Head {
    pub member: Member,
    pub header: Header,
}

/// A set being read.
pub(super) struct SetReader {
    names: std::vec::IntoIter<String>,
    name: String,
    ahead: Ahead,
    tar: Option<TarReader<pipe::Reader>>,
    head: Option<Head>,
    /// The last path that was begun: what does not come behind it is out of order.
    last: Option<EntryPath>,
    ignore_errors: bool,
    log: Arc<Log>,
}

impl SetReader {
    /// Begins with the first volume. `window` volumes are decoded at a time.
    pub fn new(opener: &Arc<Opener>, volumes: Vec<Wanted>, window: usize, ignore_errors: bool, log: Arc<Log>) -> Result<Self> {
        let names: Vec<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
        let ahead = Ahead::with_window(opener, volumes, window);
        let (names, name) = (names.into_iter(), String::new());
        let mut this = Self { names, name, ahead, tar: None, head: None, last: None, ignore_errors, log };
        this.advance()?;
        Ok(this)
    }

    /// The member that comes next.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Goes on to the next member; what was not read of the one before is passed over.
    pub fn advance(&mut self) -> Result<()> {
        self.head = None;
        loop {
            let Some(tar) = &mut self.tar else {
                if !self.open_next()? {
                    return Ok(());
                }
                continue;
            };
            match tar.next() {
                Ok(Some(header)) => match Member::parse(&header) {
                    Ok(member) if self.is_in_order(&member) => {
                        self.last = Some(member.path.clone());
                        self.head = Some(Head { member, header });
                        return Ok(());
                    }
                    Ok(member) => {
                        self.log.warn(&format!("{}: '{}' is out of order, and left out", self.name, member.path.display()));
                    }
                    Err(error) => return Err(self.failed(&error)),
                },
                Ok(None) => self.tar = None,
                Err(error) if !error.is_fatal() => return Err(self.failed(&error)),
                Err(error) => {
                    self.give_up(Failure::from(io::Error::other(error)))?;
                    self.tar = None;
                }
            }
        }
    }

    fn is_in_order(&self, member: &Member) -> bool {
        let is_piece = matches!(member.kind, MemberKind::SnapshotPiece(2..) | MemberKind::DiffPiece(2..));
        self.last.as_ref().is_none_or(|last| *last < member.path || (is_piece && *last == member.path))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(code::EXCEPTION, format!("{}: {error}", self.name))
    }

    /// Opens the next volume; `false` if there is none.
    fn open_next(&mut self) -> Result<bool> {
        let Some(answer) = self.ahead.next() else { return Ok(false) };
        self.name = self.names.next().unwrap_or_default();
        match answer {
            Ok(Volume { content, unprotected }) => {
                if unprotected {
                    let text = "encrypted without protection against changes, as very old archives are";
                    self.log.warn(&format!("{}: {text}", self.name));
                }
                self.tar = Some(TarReader::new(content));
            }
            Err(error) => {
                let failure = Failure::from(error);
                let message = format!("{}: {}", self.name, failure.message);
                self.give_up(Failure { message, ..failure })?;
            }
        }
        Ok(true)
    }

    /// Ends the command, or with `--ignore-errors` the volume.
    fn give_up(&self, failure: Failure) -> Result<()> {
        if !self.ignore_errors {
            return Err(failure);
        }
        self.log.warn(&format!("{}; the volume is left out", failure.message));
        Ok(())
    }

    /// Passes over what is left of a path.
    pub fn pass_over(&mut self, path: &EntryPath) -> Result<()> {
        while self.head.as_ref().is_some_and(|head| head.member.path == *path) {
            self.advance()?;
        }
        Ok(())
    }
}

/// The bytes of a path, piece after piece.
pub(super) struct Pieces<'s> {
    set: &'s mut SetReader,
    path: EntryPath,
    /// Number of the piece being read; `None` for a member that is no piece.
    piece: Option<u64>,
    ended: bool,
}

impl<'s> Pieces<'s> {
    /// Of the member that comes next in a set. Fails if it is a later piece of something.
    pub fn new(set: &'s mut SetReader) -> io::Result<Self> {
        let head = set.head.as_ref().ok_or_else(|| io::Error::other("there is no member"))?;
        let (path, piece) = (head.member.path.clone(), piece_of(head.member.kind));
        if piece.is_some_and(|number| number != 1) {
            return Err(io::Error::other(Lost("its first pieces are missing")));
        }
        Ok(Self { set, path, piece, ended: false })
    }

    /// Goes on to the next piece, if there is one.
    fn go_on(&mut self) -> io::Result<()> {
        let Some(number) = self.piece else {
            self.ended = true;
            return Ok(());
        };
        self.set.advance().map_err(io::Error::other)?;
        match self.set.head.as_ref().filter(|head| head.member.path == self.path).map(|head| piece_of(head.member.kind)) {
            Some(next) if next == number.checked_add(1) => self.piece = next,
            Some(_) => return Err(io::Error::other(Lost("its pieces are not complete and in order"))),
            None => self.ended = true,
        }
        Ok(())
    }
}

/// What is wrong with one path only.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lost(pub &'static str);

fn piece_of(kind: MemberKind) -> Option<u64> {
    match kind {
        MemberKind::SnapshotPiece(number) | MemberKind::DiffPiece(number) => Some(number),
        _ => None,
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.ended {
            let n = match &mut self.set.tar {
                Some(tar) => tar.read(buffer)?,
                None => 0,
            };
            if n > 0 {
                return Ok(n);
            }
            self.go_on()?;
        }
        Ok(0)
    }
}
