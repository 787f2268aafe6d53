//! One header block and what it says together with the extension headers before it.

use super::error::{NumberProblem, TarErrorKind};
use super::pax::Pax;
use super::{BLOCK, MAX_NAME, number};

type Result<T> = std::result::Result<T, TarErrorKind>;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TarKind {
    /// Regular file; has data.
    #[default]
    Regular,
    /// Hard link to an earlier member.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// Any other type letter; may have data.
    Other(u8),
}

impl TarKind {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Regular => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Other(code) => code,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            b'0' | 0 => Self::Regular,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            other => Self::Other(other),
        }
    }

    fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }

    fn may_have_data(self) -> bool {
        matches!(self, Self::Regular | Self::Other(_))
    }
}

/// A member's header, extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// Raw name with any trailing slash; at most [`MAX_NAME`] bytes, no NUL.
    pub name: Vec<u8>,
    /// What it is. A regular file stays one if its name ends with a slash.
    pub kind: TarKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// User name; may be empty.
    pub uname: Vec<u8>,
    /// Group name; may be empty.
    pub gname: Vec<u8>,
    /// Whole seconds since 1970, rounded towards the past.
    pub mtime: i64,
    /// Bytes of data in this tar; 0 but for regular and other members.
    pub size: u64,
    /// Link target; at most [`MAX_NAME`] bytes, no NUL.
    pub link: Vec<u8>,
    /// Device number; 0 for all but devices.
    pub major: u32,
    /// Device number; 0 for all but devices.
    pub minor: u32,
}

/// Extension headers seen before a member's own header.
#[derive(Default)]
pub(super) struct Extensions {
    pub pax: Option<Pax>,
    pub long_name: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
}

impl Extensions {
    pub fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// A raw header block whose checksum fits.
pub(super) struct RawHeader<'b>(&'b [u8; BLOCK]);

impl<'b> RawHeader<'b> {
    /// Verifies the checksum, whether it was summed up from unsigned or (very old writers) signed bytes.
    pub fn new(block: &'b [u8; BLOCK]) -> Result<Self> {
        let stored = number::unsigned(&block[148..156]).map_err(|_| TarErrorKind::Checksum)?;
        let outside = || block[..148].iter().chain(&block[156..]);
        let unsigned = outside().map(|b| i64::from(*b)).sum::<i64>() + 8 * 32;
        let signed = outside().map(|b| i64::from(b.cast_signed())).sum::<i64>() + 8 * 32;
        let stored = i64::try_from(stored).map_err(|_| TarErrorKind::Checksum)?;
        if stored == unsigned || stored == signed { Ok(Self(block)) } else { Err(TarErrorKind::Checksum) }
    }

    pub fn code(&self) -> u8 {
        self.0[156]
    }

    /// The size field of the block itself, whatever pax says.
    pub fn own_size(&self) -> Result<u64> {
        number::unsigned(&self.0[124..136]).map_err(in_field("size"))
    }

    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    /// Name with the prefix of ustar.
    fn own_name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_posix() { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Where the member's data ends: size and kind. An error here means that nothing behind can be found.
    pub fn frame(&self, extensions: &Extensions) -> Result<(TarKind, u64)> {
        if self.code() == b'S' {
            return Err(TarErrorKind::Sparse);
        }
        let size = match extensions.pax.as_ref().and_then(|p| p.size.as_deref()) {
            Some(size) => number::decimal(size).map_err(in_field("size"))?,
            None => self.own_size()?,
        };
        if i64::try_from(size).is_err() {
            return Err(TarErrorKind::Number { field: "size", problem: NumberProblem::Overflow });
        }
        let kind = TarKind::of(self.code());
        if size > 0 && !kind.may_have_data() {
            return Err(TarErrorKind::UnexpectedData(size));
        }
        Ok((kind, size))
    }

    /// The member's name, for errors too.
    pub fn name(&self, extensions: &mut Extensions) -> Vec<u8> {
        let pax = extensions.pax.as_mut().and_then(|p| p.path.take());
        pax.or_else(|| extensions.long_name.take()).unwrap_or_else(|| self.own_name())
    }

    /// All the rest. An error here concerns this member only.
    pub fn finish(&self, name: Vec<u8>, frame: (TarKind, u64), extensions: Extensions, global: &Pax) -> Result<Header> {
        let (mut kind, size) = frame;
        let pax = extensions.pax.unwrap_or_default();
        let link = pax.linkpath.or(extensions.long_link).unwrap_or_else(|| text(&self.0[157..257]).to_vec());
        check_name(&name)?;
        check_name(&link)?;
        // How v7 marked directories, which it had no type for.
        if self.code() == 0 && size == 0 && name.ends_with(b"/") {
            kind = TarKind::Directory;
        }
        let has_owner_names = self.is_posix() || self.is_gnu();
        let owner_name = |pax: Option<Vec<u8>>, global: &Option<Vec<u8>>, at: usize| {
            let own = || if has_owner_names { text(&self.0[at..at + 32]).to_vec() } else { Vec::new() };
            pax.or_else(|| global.clone()).unwrap_or_else(own)
        };
        let (major, minor) = if kind.is_device() && has_owner_names {
            (self.device(329, "major device number")?, self.device(337, "minor device number")?)
        } else {
            (0, 0)
        };
        let mtime = match pax.mtime.as_ref().or(global.mtime.as_ref()) {
            Some(text) => number::time(text),
            None => number::signed(&self.0[136..148]),
        };
        Ok(Header {
            kind,
            mode: narrow(number::unsigned(&self.0[100..108]), "mode")? & 0o7777,
            uid: self.id(pax.uid.as_ref().or(global.uid.as_ref()), 108, "uid")?,
            gid: self.id(pax.gid.as_ref().or(global.gid.as_ref()), 116, "gid")?,
            uname: owner_name(pax.uname, &global.uname, 265),
            gname: owner_name(pax.gname, &global.gname, 297),
            mtime: mtime.map_err(in_field("mtime"))?,
            size,
            name,
            link,
            major,
            minor,
        })
    }

    fn id(&self, pax: Option<&Vec<u8>>, at: usize, field: &'static str) -> Result<u32> {
        let own = || number::unsigned(&self.0[at..at + 8]);
        narrow(pax.map_or_else(own, |text| number::decimal(text)), field)
    }

    fn device(&self, at: usize, field: &'static str) -> Result<u32> {
        narrow(number::unsigned(&self.0[at..at + 8]), field)
    }
}

fn narrow(value: std::result::Result<u64, NumberProblem>, field: &'static str) -> Result<u32> {
    value.and_then(|v| u32::try_from(v).map_err(|_| NumberProblem::Overflow)).map_err(in_field(field))
}

fn in_field(field: &'static str) -> impl Fn(NumberProblem) -> TarErrorKind {
    move |problem| TarErrorKind::Number { field, problem }
}

/// A field's text: what is before its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        _ if name.len() > MAX_NAME => Err(TarErrorKind::NameTooLong(name.len())),
        _ if name.contains(&0) => Err(TarErrorKind::Nul),
        _ => Ok(()),
    }
}
