//! Packets of version 3 of the SFTP protocol (draft-ietf-secsh-filexfer-02), as far as reading and writing need them.
#![expect(clippy::big_endian_bytes, reason = "the order of the protocol")]

/// Longest packet that is taken. Servers answer with at most 256 KiB of data.
pub(super) const MAX_PACKET: u32 = 256 * 1024 + 1024;

const INIT: u8 = 1;
const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const FSTAT: u8 = 8;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const EXTENDED: u8 = 200;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

pub(super) const STATUS_OK: u32 = 0;
pub(super) const STATUS_EOF: u32 = 1;
pub(super) const STATUS_NO_SUCH_FILE: u32 = 2;
pub(super) const STATUS_PERMISSION_DENIED: u32 = 3;
pub(super) const STATUS_NO_CONNECTION: u32 = 6;
pub(super) const STATUS_CONNECTION_LOST: u32 = 7;

/// Of [`OPEN`]: for reading.
pub(super) const FLAG_READ: u32 = 1;
/// Of [`OPEN`]: for writing; made if need be, and empty.
pub(super) const FLAGS_NEW: u32 = 2 | 8 | 16;
/// OpenSSH's own [`EXTENDED`] request: a rename that replaces.
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// A part of a request.
pub(super) enum Part<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    U32(u32),
    U64(u64),
}

/// What of a file's attributes matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub size: Option<u64>,
    /// With the kind of file in it.
    pub permissions: Option<u32>,
}

impl Attrs {
    /// `None` if the server does not say.
    pub(super) fn is_file(self) -> Option<bool> {
        self.permissions.map(|p| p & 0o170_000 == 0o100_000)
    }

    pub(super) fn is_link(self) -> bool {
        self.permissions.is_some_and(|p| p & 0o170_000 == 0o120_000)
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Version(u32),
    Status { code: u32, message: String },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(Vec<u8>, Attrs)>),
    Attrs(Attrs),
}

/// Of the packet that follows.
pub(super) fn packet_length(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

/// The first packet.
pub(super) fn hello() -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 5, INIT];
    packet.extend(3_u32.to_be_bytes());
    packet
}

/// Lengths fit: names are at most as long as URLs.
pub(super) fn request(kind: u8, id: u32, parts: &[Part<'_>]) -> Vec<u8> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut body = vec![kind];
    body.extend(id.to_be_bytes());
    for part in parts {
        match part {
            Part::Text(text) => {
                body.extend(length(text.len()));
                body.extend(text.as_bytes());
            }
            Part::Bytes(bytes) => {
                body.extend(length(bytes.len()));
                body.extend(*bytes);
            }
            Part::U32(n) => body.extend(n.to_be_bytes()),
            Part::U64(n) => body.extend(n.to_be_bytes()),
        }
    }
    let mut packet = length(body.len()).to_vec();
    packet.extend(body);
    packet
}

/// Number of the request (0 for the version) and the answer; `None` if it is malformed. Allocates no more than the
/// packet's own length a few times over.
pub(super) fn parse(packet: &[u8]) -> Option<(u32, Reply)> {
    let mut input = Input(packet);
    let kind = input.u8()?;
    let number = input.u32()?;
    let reply = match kind {
        // Its extensions follow.
        VERSION => return Some((0, Reply::Version(number))),
        STATUS => {
            let code = input.u32()?;
            // Old servers leave message and language out.
            let message = input.string().map(|m| String::from_utf8_lossy(m).into_owned()).unwrap_or_default();
            Reply::Status { code, message }
        }
        HANDLE => Reply::Handle(input.string().filter(|h| h.len() <= 256)?.to_vec()),
        DATA => Reply::Data(input.string()?.to_vec()),
        ATTRS => Reply::Attrs(input.attrs()?),
        NAME => {
            let count = input.u32()?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = input.string()?.to_vec();
                // What `ls -l` would print.
                input.string()?;
                names.push((name, input.attrs()?));
            }
            Reply::Names(names)
        }
        _ => return None,
    };
    Some((number, reply))
}

/// What is left of a packet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    fn attrs(&mut self) -> Option<Attrs> {
        let flags = self.u32()?;
        let size = if flags & 1 != 0 { Some(self.u64()?) } else { None };
        if flags & 2 != 0 {
            self.take(8)?; // Owner and group.
        }
        let permissions = if flags & 4 != 0 { Some(self.u32()?) } else { None };
        if flags & 8 != 0 {
            self.take(8)?; // Times.
        }
        if flags & 0x8000_0000 != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Some(Attrs { size, permissions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn names() -> Vec<u8> {
        let mut packet = vec![NAME, 0, 0, 0, 9, 0, 0, 0, 2];
        packet.extend([text(b"a"), text(b"-rw a"), vec![0, 0, 0, 5]].concat());
        packet.extend(7_u64.to_be_bytes());
        packet.extend(0o100_644_u32.to_be_bytes());
        packet.extend([text(b"\xff"), text(b""), vec![0x80, 0, 0, 0, 0, 0, 0, 1], text(b"x"), text(b"y")].concat());
        packet
    }

    #[test]
    fn reads_answers() {
        let file = Attrs { size: Some(7), permissions: Some(0o100_644) };
        let expected = vec![(b"a".to_vec(), file), (vec![0xff], Attrs::default())];
        assert_eq!(parse(&names()), Some((9, Reply::Names(expected))));
        assert_eq!((file.is_file(), file.is_link(), Attrs::default().is_file()), (Some(true), false, None));
        assert_eq!(parse(&[2, 0, 0, 0, 3]), Some((0, Reply::Version(3))));
        let status = Reply::Status { code: 2, message: String::new() };
        assert_eq!(parse(&[STATUS, 0, 0, 0, 1, 0, 0, 0, 2]), Some((1, status)));
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        let packet = names();
        for end in 0..packet.len() {
            assert_eq!(parse(&packet[..end]), None, "{end}");
        }
        // Four thousand million names are announced, and none comes.
        assert_eq!(parse(&[NAME, 0, 0, 0, 1, 255, 255, 255, 255]), None);
        assert_eq!(parse(&[200, 0, 0, 0, 1]), None);
        assert_eq!(parse(&[&[HANDLE, 0, 0, 0, 1][..], &text(&[0; 257])].concat()), None);
    }

    #[test]
    fn writes_requests() {
        assert_eq!(hello(), [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let packet = request(READ, 1, &[Part::Bytes(b"h"), Part::U64(2), Part::U32(3)]);
        assert_eq!(packet, [0, 0, 0, 22, 5, 0, 0, 0, 1, 0, 0, 0, 1, b'h', 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]);
    }
}
