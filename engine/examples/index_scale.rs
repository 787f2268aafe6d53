//! Measures the local index: `index_scale BLOBS DIR` builds one of made-up blobs in DIR and prints rates and memory.
//!
//! Run it twice: the second time finds the index built, and shows the memory of look-ups alone.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use engine::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry, PackRecord, SegmentName};
use engine::id::{BlobId, ObjectId, RepoId};
use engine::index::Index;

const SEGMENT: u64 = 100_000;
const PACK: u64 = 50;
const LENGTH: u32 = 512 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let blobs: u64 = args.next().ok_or("how many blobs?")?.parse()?;
    let dir = args.next().ok_or("which directory?")?;
    let open = || Index::open(Some(Path::new(&dir)), RepoId([1; 16]));

    let start = Instant::now();
    let index = open()?;
    let names: Vec<_> = (0..blobs.div_ceil(SEGMENT)).map(name).collect();
    index.sync(&names, &|wanted| Ok(segment(wanted.epoch)))?;
    let built = start.elapsed().as_secs_f64();
    println!("built {} entries in {built:.1} s, peak {} MiB", index.len(), memory("VmHWM:"));
    drop(index);

    let start = Instant::now();
    let index = open()?;
    println!("opened in {:.3} s, {} MiB", start.elapsed().as_secs_f64(), memory("VmRSS:"));
    for threads in [1, 2] {
        rate("hot hits", &index, threads, 2_000_000, &|n| n * 7 % 1000);
        rate("misses", &index, threads, 1_000_000, &|n| blobs * 2 + n);
        rate("random hits", &index, threads, 200_000, &|n| word(n) % blobs);
    }
    println!("after look-ups {} MiB", memory("VmRSS:"));
    Ok(())
}

/// Prints the median over pieces of a thousand look-ups, which other load on the machine disturbs least.
fn rate(what: &str, index: &Index, threads: u64, count: u64, number: &(dyn Fn(u64) -> u64 + Sync)) {
    const PIECE: u64 = 1000;
    let busy = |thread: u64| {
        let (mut times, mut found) = (Vec::new(), 0_u64);
        for piece in 0..count / PIECE {
            // Made beforehand, so that only look-ups are timed.
            let ids: Vec<_> = (0..PIECE).map(|n| blob(number(thread * count + piece * PIECE + n))).collect();
            let start = Instant::now();
            found += ids.iter().map(|id| u64::from(matches!(index.locate(id, &|_| true), Ok(Some(_))))).sum::<u64>();
            times.push(start.elapsed().as_nanos());
        }
        (times, found)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || busy(thread))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let found: u64 = results.iter().map(|(_, found)| found).sum();
    let mut times: Vec<_> = results.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    let nanos = times[times.len() / 2] / u128::from(PIECE);
    println!("{threads} threads, {what}: {nanos} ns each per thread ({found} of {} found)", count * threads);
}

fn name(number: u64) -> SegmentName {
    SegmentName { epoch: number, id: ObjectId([0; 32]) }
}

fn segment(number: u64) -> Vec<PackRecord> {
    let first = number * SEGMENT;
    (0..SEGMENT / PACK).map(|pack| make_pack(first + pack * PACK)).collect()
}

fn make_pack(first: u64) -> PackRecord {
    let frame = |offset| FrameEntry {
        offset,
        sealed: LENGTH,
        raw: 2 * LENGTH,
        compression: Compression::Zstd,
        kind: BlobKind::Data,
        blobs: 2,
    };
    let directory = Directory {
        frames: (0..25).map(|frame_number| frame(frame_number * LENGTH)).collect(),
        blobs: (first..first + PACK).map(|number| BlobEntry { id: blob(number), length: LENGTH }).collect(),
    };
    PackRecord { epoch: 1, id: ObjectId(blob(first).0), size: 32 << 20, header: vec![0; 96], directory }
}

fn blob(number: u64) -> BlobId {
    let mut id = [0; 32];
    for (part, out) in (0..).zip(id.chunks_exact_mut(8)) {
        out.copy_from_slice(&word(number * 4 + part).to_le_bytes());
    }
    BlobId(id)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn word(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A line of this process's status, in MiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).and_then(|l| l.split_whitespace().next());
    value.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
