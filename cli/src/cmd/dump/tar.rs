//! A pax archive: names and links of any length and any bytes, times to the nanosecond, extended attributes.

use std::io::{self, Read, Write};

use engine::entry::{Entry, Kind, Timestamp};
use tar::{Builder, EntryType, Header};

use super::{Added, Archive};

/// Bytes of a name or a link that the header itself has room for.
const ROOM: usize = 100;
/// Of names of owners; the last one ends the text.
const OWNER_ROOM: usize = 31;
/// Numbers beyond do not fit into the header's octal digits.
const MAX_ID: u32 = (1 << 21) - 1;

pub struct Tar<W: Write> {
    builder: Builder<W>,
    finish: fn(W) -> io::Result<()>,
}

impl<W: Write> Tar<W> {
    pub fn new(out: W) -> Self {
        Self { builder: Builder::new(out), finish: |mut out| out.flush() }
    }
}

impl<W: Write> Tar<zstd::Encoder<'static, W>> {
    pub fn compressed(out: W) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self { builder: Builder::new(encoder), finish: |encoder| encoder.finish()?.flush() })
    }
}

impl<W: Write> Tar<W> {
    fn member(&mut self, name: &[u8], entry: &Entry, kind: EntryType, link: &[u8], content: &mut dyn Read) -> io::Result<()> {
        let (meta, owner) = (&entry.meta, &entry.meta.owner);
        let size = if kind == EntryType::Regular { entry.size } else { 0 };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_size(size);
        header.set_mtime(u64::try_from(meta.mtime.seconds).unwrap_or(0));
        header.set_uid(owner.uid.min(MAX_ID).into());
        header.set_gid(owner.gid.min(MAX_ID).into());
        if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = entry.kind {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
        let old = header.as_old_mut();
        for (key, text, field) in [("path", name, &mut old.name), ("linkpath", link, &mut old.linkname)] {
            let short = &text[..text.len().min(ROOM)];
            field[..short.len()].copy_from_slice(short);
            if text.len() > ROOM {
                pax.push((key.into(), text.to_vec()));
            }
        }
        for (key, name) in [("uname", &owner.user), ("gname", &owner.group)] {
            let Some(name) = name else { continue };
            match (key, name.len() <= OWNER_ROOM) {
                ("uname", true) => header.set_username(name)?,
                (_, true) => header.set_groupname(name)?,
                _ => pax.push((key.into(), name.clone().into_bytes())),
            }
        }
        for (key, id) in [("uid", owner.uid), ("gid", owner.gid)] {
            if id > MAX_ID {
                pax.push((key.into(), id.to_string().into_bytes()));
            }
        }
        if meta.mtime.nanos > 0 || meta.mtime.seconds < 0 {
            pax.push(("mtime".into(), decimal(meta.mtime).into_bytes()));
        }
        // What tar has no key for is no text: such names of attributes are not made by any system.
        let attributes = entry.xattrs.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
        let key = |name: &str| format!("SCHILY.xattr.{}", name.replace('%', "%25").replace('=', "%3D"));
        pax.extend(attributes.map(|(name, value)| (key(name), value.clone())));
        self.builder.append_pax_extensions(pax.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
        header.set_cksum();
        self.builder.append(&header, content)
    }
}

impl<W: Write> Archive for Tar<W> {
    fn add(&mut self, name: &[u8], entry: &Entry, content: &mut dyn Read) -> io::Result<Added> {
        let (kind, link) = match &entry.kind {
            Kind::File => (EntryType::Regular, &[][..]),
            Kind::Directory => (EntryType::Directory, &[][..]),
            Kind::Symlink(target) => (EntryType::Symlink, &target[..]),
            Kind::Fifo => (EntryType::Fifo, &[][..]),
            Kind::CharDevice(..) => (EntryType::Char, &[][..]),
            Kind::BlockDevice(..) => (EntryType::Block, &[][..]),
        };
        if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = entry.kind
            && major.max(minor) > MAX_ID
        {
            return Ok(Added::No("its device number is too large for a tar"));
        }
        let slash: &[u8] = if entry.is_directory() { b"/" } else { b"" };
        self.member(&[name, slash].concat(), entry, kind, link, content)?;
        Ok(Added::Yes)
    }

    fn link(&mut self, name: &[u8], entry: &Entry, first: &[u8]) -> io::Result<bool> {
        self.member(name, entry, EntryType::Link, first, &mut io::empty())?;
        Ok(true)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        (self.finish)(self.builder.into_inner()?)
    }
}

/// Seconds since 1970 with their fraction, as pax writes them.
fn decimal(time: Timestamp) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, fraction) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    format!("{sign}{seconds}.{fraction:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let text = |seconds, nanos| decimal(Timestamp { seconds, nanos });
        assert_eq!(text(1, 5), "1.000000005");
        assert_eq!(text(-1, 0), "-1.000000000");
        assert_eq!(text(-1, 500_000_000), "-0.500000000");
    }
}
