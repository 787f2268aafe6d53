//! Reading manifests: as tolerant as stock, with bounds.

use std::io::{BufRead, Read};

use super::quote::{hex_byte, is_space};
use super::{
    ChangedFile, FileAction, Manifest, ManifestError, ManifestErrorKind as Kind, Position, VolumeHash, VolumeRecord, unquote,
};

/// Longest text that is read, in bytes: room for ten million changed files with long names.
pub const MAX_BYTES: u64 = 4 << 30;
/// Most that is kept in memory of a manifest, in bytes: room for 200,000 volumes with paths of usual length.
pub const MAX_KEPT: u64 = 64 << 20;
/// Longest path in bytes, unquoted. What the kernel allows is shorter, what a tree can nest is not.
pub const MAX_PATH: usize = 64 << 10;
/// Longest line: a path of which each byte is quoted, and what stands around it.
const MAX_LINE: u64 = 4 * MAX_PATH as u64 + 64;

/// What to do with the list of changed files, which can be far longer than all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileList {
    /// It goes to [`Manifest::files`].
    Keep,
    /// It is passed over, whatever its length.
    Skip,
}

impl Manifest {
    /// From a stream, decrypted and decompressed.
    ///
    /// Like stock: lines that are not known are passed over, the host, the folder, hashes and the list of files may be absent,
    /// and numbers may come more than once. Unlike stock: the paths that are named must be well quoted, and hashes well formed.
    ///
    /// # Errors
    ///
    /// The text is no manifest, damaged, longer than [`MAX_BYTES`], or has more than [`MAX_KEPT`] bytes to be kept. Errors of
    /// the stream come as [`ManifestErrorKind::Read`](Kind::Read).
    pub fn read(mut stream: impl BufRead, files: FileList) -> Result<Self, ManifestError> {
        let mut parser = Parser { files, ..Parser::default() };
        let (mut number, mut bytes) = (0_u64, 0_u64);
        let mut line = Vec::new();
        loop {
            number += 1;
            let at = |kind| ManifestError { line: Some(number), kind };
            line.clear();
            let read = stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| at(Kind::Read(e)))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > MAX_BYTES {
                return Err(at(Kind::TooLarge { limit: MAX_BYTES }));
            }
            let ended = line.pop_if(|byte| *byte == b'\n').is_some();
            if !ended && read as u64 == MAX_LINE {
                return Err(at(Kind::PathTooLong));
            }
            parser.line(&line).map_err(at)?;
            if parser.kept > MAX_KEPT {
                return Err(at(Kind::TooLarge { limit: MAX_KEPT }));
            }
        }
        parser.finish()
    }
}

/// A volume record that is being read.
struct Open {
    number: u32,
    start: Option<Position>,
    end: Option<Position>,
    hash: Option<VolumeHash>,
}

struct Parser {
    files: FileList,
    manifest: Manifest,
    open: Option<Open>,
    in_files: bool,
    /// Bytes in memory, about.
    kept: u64,
}

impl Default for Parser {
    fn default() -> Self {
        Self { files: FileList::Skip, manifest: Manifest::default(), open: None, in_files: false, kept: 0 }
    }
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), Kind> {
        if let Some(rest) = line.strip_prefix(b"Volume ") {
            self.close()?;
            self.in_files = false;
            self.open = Some(Open { number: volume_number(rest)?, start: None, end: None, hash: None });
        } else if line.starts_with(b"Filelist ") {
            self.close()?;
            self.in_files = true;
            if self.files == FileList::Keep {
                self.manifest.files.get_or_insert_default();
            }
        } else if let (None, Some(host)) = (&self.manifest.host, after_word(line, b"hostname")) {
            self.kept += host.len() as u64;
            self.manifest.host = Some(host.to_vec());
        } else if let (None, Some(source)) = (&self.manifest.source, after_word(line, b"localdir")) {
            self.kept += source.len() as u64;
            self.manifest.source = Some(unquote(source).unwrap_or_else(|| source.to_vec()));
        } else if self.in_files {
            self.file(line)?;
        } else if let Some(open) = &mut self.open {
            open.field(line)?;
        }
        Ok(())
    }

    fn file(&mut self, line: &[u8]) -> Result<(), Kind> {
        let Some(files) = &mut self.manifest.files else { return Ok(()) };
        let mut fields = fields(line);
        let (Some(word), Some(path)) = (fields.next(), fields.next()) else { return Ok(()) };
        let Some(action) = FileAction::ALL.into_iter().find(|action| action.word().as_bytes() == word) else { return Ok(()) };
        let path = path_of(path)?;
        self.kept += (size_of::<ChangedFile>() + path.len()) as u64;
        files.push(ChangedFile { action, path });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Kind> {
        let Some(Open { number, start, end, hash }) = self.open.take() else { return Ok(()) };
        let (Some(start), Some(end)) = (start, end) else { return Err(Kind::MissingPath { number }) };
        let other = if let Some(VolumeHash::Other { algorithm, digest }) = &hash { algorithm.len() + digest.len() } else { 0 };
        self.kept += (size_of::<VolumeRecord>() + start.path.len() + end.path.len() + other) as u64;
        self.manifest.records.push(VolumeRecord { number, start, end, hash });
        Ok(())
    }

    fn finish(mut self) -> Result<Manifest, ManifestError> {
        self.close()?;
        if self.manifest.records.is_empty() {
            return Err(Kind::NoVolumes.into());
        }
        Ok(self.manifest)
    }
}

impl Open {
    fn field(&mut self, line: &[u8]) -> Result<(), Kind> {
        let mut fields = fields(line);
        match fields.next() {
            Some(b"StartingPath") => self.start = Some(position(fields)?),
            Some(b"EndingPath") => self.end = Some(position(fields)?),
            Some(b"Hash") => {
                let (algorithm, digest) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
                let hash = hash_of(algorithm, digest).ok_or_else(|| Kind::Hash(shown(digest)))?;
                if self.hash.as_ref().is_none_or(|old| rank(&hash) > rank(old)) {
                    self.hash = Some(hash);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What stock prefers.
fn rank(hash: &VolumeHash) -> u8 {
    match hash {
        VolumeHash::Sha1(_) => 2,
        VolumeHash::Md5(_) => 1,
        VolumeHash::Other { .. } => 0,
    }
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| is_space(*byte)).filter(|field| !field.is_empty())
}

/// What follows a word, in any case, and one white space.
fn after_word<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(word.len())?;
    let (&space, rest) = rest.split_first()?;
    (start.eq_ignore_ascii_case(word) && is_space(space)).then_some(rest)
}

/// `1:`, and whatever follows.
fn volume_number(text: &[u8]) -> Result<u32, Kind> {
    let end = text.iter().position(|byte| *byte == b':');
    let number = end.and_then(|end| number(&text[..end])).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| Kind::VolumeNumber(shown(text)))
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

fn position<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Result<Position, Kind> {
    let path = path_of(fields.next().unwrap_or(b"\""))?;
    let block = match fields.next() {
        Some(text) => Some(number(text).ok_or_else(|| Kind::Block(shown(text)))?),
        None => None,
    };
    Ok(Position { path, block })
}

fn path_of(text: &[u8]) -> Result<Vec<u8>, Kind> {
    let mut path = unquote(text).ok_or_else(|| Kind::Path(shown(text)))?;
    if path.len() > MAX_PATH {
        return Err(Kind::PathTooLong);
    }
    if path == b"." {
        path.clear();
    }
    path.shrink_to_fit();
    Ok(path)
}

fn hash_of(algorithm: &[u8], digest: &[u8]) -> Option<VolumeHash> {
    match algorithm {
        b"SHA1" => bytes_of(digest).map(VolumeHash::Sha1),
        b"MD5" => bytes_of(digest).map(VolumeHash::Md5),
        _ if algorithm.is_empty() || digest.is_empty() => None,
        _ => Some(VolumeHash::Other { algorithm: text_of(algorithm)?, digest: text_of(digest)? }),
    }
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Exactly so many bytes, in hexadecimal.
fn bytes_of<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = pairs.iter().map(|pair| hex_byte(*pair)).collect();
    bytes?.try_into().ok()
}

/// The beginning of a text, for a message.
fn shown(text: &[u8]) -> String {
    engine::path::display_bytes(&text[..text.len().min(80)])
}
