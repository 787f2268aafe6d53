//! What the parts of the pipeline reach in a row on one core, by the engine's own functions: `parts FOLDER FILE [KIB]` reads the
//! folder's files, then stores what is new in them in FILE, reads that again, and makes as many empty files beside it; with
//! chunks of KIB on average if that is given. Prints megabytes of content per second of processor time, which is the limit
//! that a backup, a check and a restore are to be held against. Run it twice for a warm cache.

#![allow(clippy::print_stdout)]

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use engine::chunker::{ChunkSizes, Chunker, DEFAULT_SIZES};
use engine::codec::{DEFAULT_LEVEL, compress, decompress};
use engine::crypto::frames::{PackCipher, Suite};
use engine::crypto::{Key, Keyring};
use engine::format::pack::Compression;
use engine::id::{BlobId, RepoId};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// As the pipeline's own.
const BATCH: usize = 2 << 20;
const ROLE: u8 = 0;

fn files(dir: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), out)?;
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
    Ok(())
}

/// Nanoseconds that this thread has run for (Documentation/scheduler/sched-stats.rst).
fn used() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no figures of the scheduler")?.parse()?)
}

/// Makes so many empty files in a new folder, each with an owner, a mode and a time of its own, as a restore must.
fn make_files(dir: &Path, count: usize) -> Outcome<()> {
    std::fs::create_dir(dir)?;
    let time = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for number in 0..count {
        let file = File::options().write(true).create_new(true).open(dir.join(number.to_string()))?;
        std::os::unix::fs::fchown(&file, Some(1), Some(1))?;
        file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
        file.set_times(time)?;
    }
    Ok(())
}

fn report(what: &str, bytes: u64, since: u64) -> Outcome<()> {
    let nanos = used()? - since;
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let rate = bytes as f64 * 1e3 / nanos as f64;
    println!("{what}: {} MB, {:.2} CPU s, {rate:.0} MB per CPU second", bytes / 1_000_000, nanos as f64 / 1e9);
    Ok(())
}

struct Parts {
    chunker: Chunker,
    keys: Keyring,
    cipher: PackCipher,
}

/// A frame in the file: its length there, its content's, how it is encoded, and the chunks in it.
struct Frame {
    stored: usize,
    plain: usize,
    encoding: Compression,
    chunks: Vec<(usize, BlobId)>,
}

impl Parts {
    /// Reads all files and gives each chunk away; how many bytes.
    fn chunks(&self, paths: &[PathBuf], mut each: impl FnMut(BlobId, &[u8]) -> Outcome<()>) -> Outcome<u64> {
        let longest = self.chunker.sizes().max as usize;
        let (mut window, mut total) = (vec![0; BATCH.max(2 * longest)], 0);
        for path in paths {
            let (mut file, mut filled, mut ended) = (File::open(path)?, 0, false);
            while !ended || filled > 0 {
                while !ended && filled < window.len() {
                    let n = file.read(&mut window[filled..])?;
                    (filled, ended) = (filled + n, n == 0);
                }
                let mut at = 0;
                while at < filled && (ended || filled - at >= longest) {
                    let length = self.chunker.cut(&window[at..filled]);
                    let chunk = &window[at..at + length];
                    each(self.keys.blob_id(chunk), chunk)?;
                    at += length;
                }
                window.copy_within(at..filled, 0);
                filled -= at;
                total += at as u64;
            }
        }
        Ok(total)
    }

    fn store(&self, number: u64, plain: &[u8], chunks: Vec<(usize, BlobId)>, out: &mut File) -> Outcome<Frame> {
        let (mut sealed, mut scratch) = (Vec::new(), Vec::new());
        let encoding = compress(plain, DEFAULT_LEVEL, &mut sealed, &mut scratch)?;
        if encoding == Compression::None {
            sealed.extend_from_slice(plain);
        }
        let tag = self.cipher.seal(number, ROLE, &mut sealed);
        sealed.extend_from_slice(&tag);
        out.write_all(&sealed)?;
        Ok(Frame { stored: sealed.len(), plain: plain.len(), encoding, chunks })
    }

    fn backup(&self, paths: &[PathBuf], out: &mut File) -> Outcome<(u64, Vec<Frame>)> {
        let (mut known, mut frames) = (HashSet::new(), Vec::new());
        let (mut plain, mut chunks) = (Vec::with_capacity(BATCH), Vec::new());
        let total = self.chunks(paths, |id, chunk| {
            if known.insert(id) {
                if plain.len() + chunk.len() > BATCH {
                    frames.push(self.store(frames.len() as u64, &plain, std::mem::take(&mut chunks), out)?);
                    plain.clear();
                }
                plain.extend_from_slice(chunk);
                chunks.push((chunk.len(), id));
            }
            Ok(())
        })?;
        frames.push(self.store(frames.len() as u64, &plain, chunks, out)?);
        out.sync_all()?;
        Ok((total, frames))
    }

    /// Reads the frames again, and writes their content to `out` if there is one.
    fn restore(&self, file: &mut File, frames: &[Frame], mut out: Option<File>) -> Outcome<u64> {
        let (mut sealed, mut plain, mut total) = (Vec::new(), Vec::new(), 0);
        file.seek(SeekFrom::Start(0))?;
        for (number, frame) in (0..).zip(frames) {
            sealed.resize(frame.stored, 0);
            file.read_exact(&mut sealed)?;
            let opened = self.cipher.open(number, ROLE, &mut sealed)?;
            let content = match frame.encoding {
                Compression::None => &*opened,
                Compression::Zstd => {
                    decompress(opened, frame.plain, &mut plain)?;
                    &plain
                }
            };
            let mut at = 0;
            for (length, id) in &frame.chunks {
                if self.keys.blob_id(&content[at..at + length]) != *id {
                    return Err("a chunk has changed".into());
                }
                at += length;
            }
            out.as_mut().map_or(Ok(()), |out| out.write_all(content))?;
            total += at as u64;
        }
        Ok(total)
    }
}

fn main() -> Outcome<()> {
    let mut args = std::env::args_os().skip(1);
    let folder = PathBuf::from(args.next().ok_or("which folder?")?);
    let place = PathBuf::from(args.next().ok_or("into which file?")?);
    let sizes = match args.next() {
        Some(kib) => {
            let average: u32 = kib.to_str().ok_or("no number")?.parse()?;
            ChunkSizes { min: average << 8, average: average << 10, max: average << 12 }
        }
        None => DEFAULT_SIZES,
    };
    if !sizes.are_valid() {
        return Err("chunks from 4 KiB to 2 MiB on average".into());
    }
    let root = Key::random();
    let suite = Suite::fastest();
    let parts = Parts {
        chunker: Chunker::new(&root, sizes),
        cipher: PackCipher::new(&root, suite, &RepoId([0; 16]), &[0; 32], b""),
        keys: Keyring::new(root),
    };
    let mut paths = Vec::new();
    files(&folder, &mut paths)?;
    println!("{} files, {suite:?}", paths.len());
    let start = used()?;
    report("read, cut, hash", parts.chunks(&paths, |_, _| Ok(()))?, start)?;
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&place)?;
    let start = used()?;
    let (total, frames) = parts.backup(&paths, &mut file)?;
    report("the same, compress and check what is new, seal, write", total, start)?;
    println!("stored: {} MB", frames.iter().map(|frame| frame.stored as u64).sum::<u64>() / 1_000_000);
    let start = used()?;
    report("read, open, decompress, compare with the ids", parts.restore(&mut file, &frames, None)?, start)?;
    let beside = place.with_extension("restored");
    let start = used()?;
    report("the same, and write", parts.restore(&mut file, &frames, Some(File::create(&beside)?))?, start)?;
    std::fs::remove_file(&beside)?;
    let start = used()?;
    make_files(&beside, paths.len())?;
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let seconds = (used()? - start) as f64 / 1e9;
    println!("make {} files with owner, mode and time: {seconds:.2} CPU s", paths.len());
    std::fs::remove_dir_all(beside)?;
    Ok(std::fs::remove_file(place)?)
}
