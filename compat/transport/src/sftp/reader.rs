//! A file over sftp, with many requests under way.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use compat::store::StoreErrorKind;

use super::wire::{self, Part, Reply};
use super::{Inner, Session, refusal};
use crate::error::Failure;
use crate::remote::Started;

/// Bytes per request: what every server gives at once.
const PIECE: u32 = 32 * 1024;
/// Requests under way: 1 MiB, which fills 80 Mbit/s over 100 ms.
const WINDOW: usize = 32;

/// A part of the file that was asked for.
struct Slot {
    id: u32,
    offset: u64,
    length: u32,
    /// Empty at the end of the file.
    data: Option<Vec<u8>>,
}

pub(super) struct SftpReader {
    /// Gone after the end or a failure.
    session: Option<Session>,
    inner: Arc<Inner>,
    handle: Vec<u8>,
    /// `None`: the server does not say.
    size: Option<u64>,
    /// Where the next request starts.
    next: u64,
    slots: VecDeque<Slot>,
    /// The front slot's data as far as it was not read yet.
    ready: io::Cursor<Vec<u8>>,
}

impl SftpReader {
    pub(super) fn open(mut session: Session, inner: &Arc<Inner>, path: &str, offset: u64) -> Result<Started, Failure> {
        let open = [Part::Text(path), Part::U32(wire::FLAG_READ), Part::U32(0)];
        let handle = match session.call(wire::OPEN, &open)? {
            Reply::Handle(handle) => handle,
            reply => {
                let failure = refusal(reply, StoreErrorKind::NotFound, "no such file");
                if !failure.is_temporary() {
                    inner.give_back(session);
                }
                return Err(failure);
            }
        };
        let size = match session.call(wire::FSTAT, &[Part::Bytes(&handle)])? {
            Reply::Attrs(attrs) if attrs.is_file() == Some(false) => return Err(Failure::not_found()),
            Reply::Attrs(attrs) => attrs.size,
            _ => None,
        };
        let reader = Self {
            session: Some(session),
            inner: Arc::clone(inner),
            handle,
            size,
            next: offset,
            slots: VecDeque::new(),
            ready: io::Cursor::default(),
        };
        Ok(Started { reader: Box::new(reader), size })
    }

    fn ask(session: &mut Session, handle: &[u8], offset: u64, length: u32) -> Result<Slot, Failure> {
        let id = session.send(wire::READ, &[Part::Bytes(handle), Part::U64(offset), Part::U32(length)])?;
        Ok(Slot { id, offset, length, data: None })
    }

    /// Keeps the window full.
    fn ask_ahead(&mut self, session: &mut Session) -> Result<(), Failure> {
        // Without a size only one, lest the end be asked for many times.
        let window = if self.size.is_some() { WINDOW } else { 1 };
        while self.slots.len() < window {
            let left = self.size.map_or(u64::MAX, |size| size.saturating_sub(self.next));
            let length = u32::try_from(left).unwrap_or(PIECE).min(PIECE);
            if length == 0 {
                break;
            }
            self.slots.push_back(Self::ask(session, &self.handle, self.next, length)?);
            self.next = self.next.saturating_add(u64::from(length));
        }
        Ok(())
    }

    /// The next bytes of the file; empty at its end.
    fn next_piece(&mut self, session: &mut Session) -> Result<Vec<u8>, Failure> {
        self.ask_ahead(session)?;
        loop {
            let Some(front) = self.slots.front_mut() else { return Ok(Vec::new()) };
            if let Some(data) = front.data.take() {
                let got = u32::try_from(data.len()).unwrap_or(u32::MAX);
                if got == 0 {
                    return Ok(data);
                }
                // Less than was asked for is no end.
                let (offset, rest) = (front.offset + u64::from(got), front.length - got);
                self.slots.pop_front();
                if rest > 0 {
                    self.slots.push_front(Self::ask(session, &self.handle, offset, rest)?);
                }
                return Ok(data);
            }
            let (id, reply) = session.receive()?;
            let slot = self.slots.iter_mut().find(|slot| slot.id == id && slot.data.is_none());
            let slot = slot.ok_or_else(|| Failure::nonsense("an answer to no question"))?;
            match reply {
                Reply::Data(data) if !data.is_empty() && data.len() as u64 <= u64::from(slot.length) => slot.data = Some(data),
                Reply::Status { code: wire::STATUS_EOF, .. } => slot.data = Some(Vec::new()),
                Reply::Data(_) => return Err(Failure::nonsense("data of another length")),
                reply => return Err(refusal(reply, StoreErrorKind::NotFound, "the file is gone")),
            }
        }
    }

    /// Keeps the connection for the next file if nothing is under way.
    fn end(&mut self, mut session: Session) {
        if self.slots.is_empty() && session.call(wire::CLOSE, &[Part::Bytes(&self.handle)]).is_ok() {
            self.inner.give_back(session);
        }
    }
}

impl Read for SftpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.ready.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let Some(mut session) = self.session.take() else { return Ok(0) };
            let piece = self.next_piece(&mut session)?;
            if piece.is_empty() {
                self.end(session);
                return Ok(0);
            }
            self.session = Some(session);
            self.ready = io::Cursor::new(piece);
        }
    }
}
