//! Index segments as bytes: the directories of packs, one after another.

use minicbor::Decoder;

use super::ObjectKind;
use super::cbor::{self, required};
use super::object::{self, FormatError};
use super::pack::{Directory, MAX_HEADER_LEN, MAX_PACK, PackRecord};
use crate::crypto::Key;
use crate::id::{Epoch, ObjectId, RepoId};

/// Seals a segment under `epoch`.
pub fn seal(key: &Key, repo: RepoId, epoch: Epoch, packs: &[PackRecord]) -> Result<Vec<u8>, FormatError> {
    let directories = packs.iter().map(|p| p.directory.to_bytes()).collect::<Result<Vec<_>, _>>()?;
    let body = cbor::encode(|e| {
        e.map(1)?.u8(0)?.array(packs.len() as u64)?;
        for (pack, directory) in packs.iter().zip(&directories) {
            e.map(5)?;
            e.u8(0)?.u64(pack.epoch)?.u8(1)?.bytes(&pack.id.0)?.u8(2)?.u64(pack.size)?;
            e.u8(3)?.bytes(&pack.header)?.u8(4)?.bytes(directory)?;
        }
        Ok(())
    });
    object::seal(key, ObjectKind::Segment, repo, epoch, &body)
}

/// Opens a segment.
pub fn open(key: &Key, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<Vec<PackRecord>, FormatError> {
    let body = object::open(key, ObjectKind::Segment, repo, epoch, bytes)?;
    let mut d = Decoder::new(&body);
    let mut packs = None;
    cbor::map(&mut d, |field, d| {
        match field {
            0 => packs = Some(cbor::array(d, pack_record)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    Ok(required(packs, 0)?)
}

fn pack_record(d: &mut Decoder<'_>) -> cbor::Result<PackRecord> {
    let (mut epoch, mut id, mut size, mut header, mut directory) = (None, None, None, None, None);
    cbor::map(d, |field, d| {
        match field {
            0 => epoch = Some(d.u64()?),
            1 => id = Some(ObjectId(cbor::fixed(d)?)),
            2 => size = Some(d.u64()?),
            3 => header = Some(d.bytes()?.to_vec()),
            4 => directory = Some(Directory::parse(d.bytes()?).map_err(|_| cbor::CborError::Invalid("a broken pack directory"))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let header = required(header, 3)?;
    if header.len() > MAX_HEADER_LEN {
        return Err(cbor::CborError::Invalid("a pack header of an impossible length"));
    }
    let (size, directory) = (required(size, 2)?, required(directory, 4)?);
    let end = directory.frames.last().map_or(0, |f| u64::from(f.offset) + u64::from(f.sealed));
    if end > size || size > MAX_PACK {
        return Err(cbor::CborError::Invalid("frames outside of their pack"));
    }
    Ok(PackRecord { epoch: required(epoch, 0)?, id: required(id, 1)?, size, header, directory })
}
