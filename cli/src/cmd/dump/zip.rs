//! A zip archive, for those who have nothing else.

use std::io::{self, Read, Write};

use engine::entry::{Entry, Kind, Timestamp};
use jiff::tz::TimeZone;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{Added, Archive};

/// Files from this size on get the headers for large ones; leaves room for what deflate may add.
const LARGE: u64 = (4 << 30) - (16 << 20);

/// Memory: about 300 bytes for each entry, since zip has its directory at the end.
pub struct Zip<W: Write>(ZipWriter<StreamWriter<W>>);

impl<W: Write> Zip<W> {
    pub fn new(out: W) -> Self {
        Self(ZipWriter::new_stream(out))
    }
}

impl<W: Write> Archive for Zip<W> {
    fn add(&mut self, name: &[u8], entry: &Entry, content: &mut dyn Read) -> io::Result<Added> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(Added::No("its name is not UTF-8, which zip needs")) };
        let mut options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(entry.size >= LARGE)
            .unix_permissions(entry.meta.mode);
        if let Some(time) = local(entry.meta.mtime) {
            options = options.last_modified_time(time);
        }
        match &entry.kind {
            Kind::File => {
                self.0.start_file(name, options)?;
                io::copy(content, &mut self.0)?;
            }
            // Nothing to be named.
            Kind::Directory if name == "." => {}
            Kind::Directory => self.0.add_directory(name, options)?,
            Kind::Symlink(target) => match std::str::from_utf8(target) {
                Ok(target) => self.0.add_symlink(name, target, options)?,
                Err(_) => return Ok(Added::No("its target is not UTF-8, which zip needs")),
            },
            Kind::Fifo | Kind::CharDevice(..) | Kind::BlockDevice(..) => return Ok(Added::No("zip has no such kind of file")),
        }
        Ok(Added::Yes)
    }

    fn link(&mut self, _: &[u8], _: &Entry, _: &[u8]) -> io::Result<bool> {
        Ok(false)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.finish()?.into_inner().flush()
    }
}

/// zip's times are local ones from 1980 on, in steps of two seconds.
fn local(time: Timestamp) -> Option<DateTime> {
    let time = jiff::Timestamp::from_second(time.seconds).ok()?.to_zoned_datetime(TimeZone::system());
    let part = |n: i8| u8::try_from(n).ok();
    let (month, day) = (part(time.month())?, part(time.day())?);
    let (hour, minute, second) = (part(time.hour())?, part(time.minute())?, part(time.second())?);
    DateTime::from_date_and_time(u16::try_from(time.year()).ok()?, month, day, hour, minute, second).ok()
}
