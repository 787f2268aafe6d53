//! What duplicity says: lines for people by their level, and stanzas for programs.
//!
//! FORMAT §16, users.md: `KEYWORD code args`, the text with `. ` before each line, an empty line.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// How much is said; more the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// What ends the run.
    pub const ERROR: Self = Self(0);
    /// What is not as it should be.
    pub const WARNING: Self = Self(2);
    /// What a person wants to know by default.
    pub const NOTICE: Self = Self(3);
    /// More.
    pub const INFO: Self = Self(5);
    /// Everything.
    pub const DEBUG: Self = Self(9);

    /// A number from 0 to 9, or a name or its first letter, as `--verbosity` takes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        match &*lower {
            "e" | "error" => Some(Self::ERROR),
            "w" | "warning" => Some(Self::WARNING),
            "n" | "notice" => Some(Self::NOTICE),
            "i" | "info" => Some(Self::INFO),
            "d" | "debug" => Some(Self::DEBUG),
            _ => lower.parse().ok().filter(|number| *number <= 9).map(Self),
        }
    }

    fn keyword(self) -> &'static str {
        match self.0 {
            0..=1 => "ERROR",
            2 => "WARNING",
            3..=4 => "NOTICE",
            5..=8 => "INFO",
            _ => "DEBUG",
        }
    }
}

/// Codes of stanzas that programs rely on.
pub mod code {
    /// Of anything.
    pub const GENERIC: u32 = 1;
    /// Progress of a backup.
    pub const PROGRESS: u32 = 2;
    /// The text of `collection-status`.
    pub const COLLECTION_STATUS: u32 = 3;
    /// A file is new.
    pub const DIFF_NEW: u32 = 4;
    /// A file has changed.
    pub const DIFF_CHANGED: u32 = 5;
    /// A file is gone.
    pub const DIFF_DELETED: u32 = 6;
    /// A file is written by a restore.
    pub const PATCH_WRITING: u32 = 7;
    /// A file of a listing.
    pub const FILE_LIST: u32 = 10;
    /// A warning: backups that belong to no chain.
    pub const ORPHANED_BACKUP: u32 = 6;
    /// A warning: backups that are not complete.
    pub const INCOMPLETE_BACKUP: u32 = 5;
    /// A warning: a file cannot be read.
    pub const CANNOT_READ: u32 = 10;
    /// A warning: a file cannot be dealt with.
    pub const CANNOT_PROCESS: u32 = 12;
}

/// Where lines and stanzas go.
pub struct Log {
    verbosity: Level,
    lines: Mutex<Box<dyn Write + Send>>,
    errors: Mutex<Box<dyn Write + Send>>,
    stanzas: Vec<Mutex<Box<dyn Write + Send>>>,
    timestamps: bool,
}

impl Log {
    /// `lines` gets what is below a warning, `errors` the rest.
    #[must_use]
    pub fn new(verbosity: Level, lines: Box<dyn Write + Send>, errors: Box<dyn Write + Send>) -> Self {
        Self { verbosity, lines: Mutex::new(lines), errors: Mutex::new(errors), stanzas: Vec::new(), timestamps: false }
    }

    /// Puts the time before each line.
    #[must_use]
    pub fn with_timestamps(mut self, wanted: bool) -> Self {
        self.timestamps = wanted;
        self
    }

    /// Adds a place for stanzas.
    pub fn add_stanzas(&mut self, out: Box<dyn Write + Send>) {
        self.stanzas.push(Mutex::new(out));
    }

    /// Says something. `args` stand behind the code in the stanza. Whoever does not listen any more is no error.
    pub fn say(&self, level: Level, code: u32, args: &str, text: &str) {
        self.say_bytes(level, code, args, text.as_bytes());
    }

    /// The same for a text that is not UTF-8.
    pub fn say_bytes(&self, level: Level, code: u32, args: &str, text: &[u8]) {
        if level > self.verbosity {
            return;
        }
        let out = if level <= Level::WARNING { &self.errors } else { &self.lines };
        self.line(out, text);
        self.stanza(level.keyword(), code, args, text);
    }

    /// A result: a line whatever the verbosity, and for programs a stanza of the keyword INFO.
    pub fn result(&self, code: u32, args: &str, text: &[u8]) {
        self.line(&self.lines, text);
        self.stanza("INFO", code, args, text);
    }

    /// Statistics: a notice whatever the verbosity.
    pub fn statistics(&self, text: &str) {
        self.line(&self.lines, text.as_bytes());
        self.stanza(Level::NOTICE.keyword(), code::GENERIC, "", text.as_bytes());
    }

    fn line(&self, out: &Mutex<Box<dyn Write + Send>>, text: &[u8]) {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = if self.timestamps { now() } else { String::new() };
        let _ = out.write_all(&[stamp.as_bytes(), text, b"\n"].concat());
        let _ = out.flush();
    }

    /// A stanza for programs only, whatever the verbosity.
    pub fn stanza(&self, keyword: &str, code: u32, args: &str, text: &[u8]) {
        if self.stanzas.is_empty() {
            return;
        }
        let space = if args.is_empty() { "" } else { " " };
        let mut stanza = format!("{keyword} {code}{space}{args}\n").into_bytes();
        for line in text.split(|b| *b == b'\n') {
            stanza.extend_from_slice(b". ");
            stanza.extend_from_slice(line);
            stanza.push(b'\n');
        }
        stanza.push(b'\n');
        for out in &self.stanzas {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = out.write_all(&stanza);
            let _ = out.flush();
        }
    }

    /// Something a person wants to know.
    pub fn notice(&self, text: &str) {
        self.say(Level::NOTICE, code::GENERIC, "", text);
    }

    /// Something for those who want to know more.
    pub fn info(&self, text: &str) {
        self.say(Level::INFO, code::GENERIC, "", text);
    }

    /// Something that is not as it should be.
    pub fn warn(&self, text: &str) {
        self.say(Level::WARNING, code::GENERIC, "", text);
    }

    /// What ends the run; the stanza says with which exit code.
    pub fn fatal(&self, exit: u8, args: &str, text: &str) {
        self.say(Level::ERROR, exit.into(), args, text);
    }
}

fn now() -> String {
    let zone = crate::time::TimeZone::system();
    format!("{} ", jiff::Timestamp::now().to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S"))
}

/// A path as the arguments of stanzas have it: in single quotes, escaped as by Python's `unicode-escape`. Bytes that are not
/// UTF-8 are the surrogates that Python has for them.
#[must_use]
pub fn quoted(path: &[u8]) -> String {
    let mut text = String::from("'");
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match (c, u32::from(c)) {
                ('\\', _) => text += r"\\",
                ('\t', _) => text += r"\t",
                ('\n', _) => text += r"\n",
                ('\r', _) => text += r"\r",
                (' '..='~', _) if c != '\'' => text.push(c),
                (_, number @ ..=0xff) => text += &format!(r"\x{number:02x}"),
                (_, number @ ..=0xffff) => text += &format!(r"\u{number:04x}"),
                (_, number) => text += &format!(r"\U{number:08x}"),
            }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!(r"\udc{byte:02x}"));
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").write(data)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn levels_have_numbers_names_and_letters() {
        for (text, level) in
            [("0", Some(0)), ("9", Some(9)), ("info", Some(5)), ("N", Some(3)), ("w", Some(2)), ("10", None), ("x", None)]
        {
            assert_eq!(Level::parse(text).map(|l| l.0), level, "{text}");
        }
    }

    #[test]
    fn stanzas_follow_the_verbosity_of_lines() {
        let (lines, errors, stanzas) = (Buffer::default(), Buffer::default(), Buffer::default());
        let mut log = Log::new(Level::NOTICE, Box::new(lines.clone()), Box::new(errors.clone()));
        log.add_stanzas(Box::new(stanzas.clone()));
        log.notice("one\ntwo");
        log.info("not said");
        log.warn("careful");
        log.result(3, "args", b"told");
        log.fatal(19, "", "x not found");
        let text = |buffer: &Buffer| String::from_utf8(buffer.0.lock().expect("lock").clone()).expect("UTF-8");
        assert_eq!(text(&lines), "one\ntwo\ntold\n");
        assert_eq!(text(&errors), "careful\nx not found\n");
        assert_eq!(
            text(&stanzas),
            "NOTICE 1\n. one\n. two\n\nWARNING 1\n. careful\n\nINFO 3 args\n. told\n\nERROR 19\n. x not found\n\n"
        );
    }

    #[test]
    fn results_are_always_told() {
        let lines = Buffer::default();
        let log = Log::new(Level::ERROR, Box::new(lines.clone()), Box::new(Buffer::default()));
        log.notice("not said");
        log.result(3, "", b"told");
        log.statistics("counted");
        assert_eq!(*lines.0.lock().expect("lock"), b"told\ncounted\n");
    }

    #[test]
    fn paths_in_stanzas() {
        assert_eq!(quoted(b"a b'\\\n\xff\x01\x7f"), r"'a b\x27\\\n\udcff\x01\x7f'");
        assert_eq!(quoted("\t\r\u{a0}é€\u{1f600}".as_bytes()), r"'\t\r\xa0\xe9\u20ac\U0001f600'");
    }
}
