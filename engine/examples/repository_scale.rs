//! Makes an existing local repository look large: `repository_scale DIR MILLIONS [BLOBS]` adds index segments of made-up blobs
//! in made-up packs. The password is that of `DEDUPLICITY_PASSWORD`. For measuring the memory of a backup, a restore and, with
//! BLOBS in each pack, of a prune: packs are then empty files of the right size; otherwise they do not exist.

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;

use engine::backend::local::LocalBackend;
use engine::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry, PackRecord, SegmentName};
use engine::format::segment;
use engine::id::{BlobId, ObjectId};
use engine::repo::{Repository, names};

/// As a backup of large files makes them: segments of 512 MiB are about this many blobs.
const BLOBS_PER_SEGMENT: u64 = 100_000;
const BLOB: u32 = 256 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which repository?")?);
    let millions: u64 = args.next().ok_or("how many million blobs?")?.parse()?;
    let per_pack: Option<u64> = args.next().map(|n| n.parse()).transpose()?;
    let blobs = per_pack.unwrap_or(100).clamp(1, BLOBS_PER_SEGMENT);
    let password = std::env::var("DEDUPLICITY_PASSWORD")?;
    let repo = Repository::open(Arc::new(LocalBackend::new(dir.clone())), password.as_bytes())?;
    for number in 0..millions * 1_000_000 / BLOBS_PER_SEGMENT {
        let packs: Vec<_> =
            (0..BLOBS_PER_SEGMENT / blobs).map(|pack| made_up((number * BLOBS_PER_SEGMENT) + pack * blobs, blobs)).collect();
        for pack in packs.iter().filter(|_| per_pack.is_some()) {
            let path = dir.join(names::pack(pack.epoch, &pack.id).as_str());
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::File::create(path)?.set_len(pack.size)?;
        }
        let bytes = segment::seal(&repo.keys().index, repo.id(), 0, &packs)?;
        let name = SegmentName { epoch: 0, id: ObjectId::of(&bytes) };
        repo.backend().create(&names::segment(&name), bytes.into())?;
    }
    println!("added {millions} million blobs");
    Ok(())
}

/// A pack of blobs numbered from `first`, each in a frame of its own.
fn made_up(first: u64, count: u64) -> PackRecord {
    // A pack has at most 256 MiB.
    let sealed = (BLOB / 4).min(u32::try_from((128 << 20) / count).unwrap_or(BLOB));
    let frames = (0..u32::try_from(count).unwrap_or(0))
        .map(|i| FrameEntry {
            offset: 1024 + i * sealed,
            sealed,
            raw: BLOB,
            blobs: 1,
            compression: Compression::Zstd,
            kind: BlobKind::Data,
        })
        .collect();
    let blobs =
        (first..first + count).map(|n| BlobEntry { id: BlobId(ObjectId::of(&n.to_le_bytes()).0), length: BLOB }).collect();
    let id = ObjectId::of(&[b"pack".as_slice(), &first.to_le_bytes()].concat());
    let size = 1024 + u64::from(sealed) * count + (64 << 10);
    PackRecord { epoch: 0, id, size, header: vec![0; 100], directory: Directory { frames, blobs } }
}
