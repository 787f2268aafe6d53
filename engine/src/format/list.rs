//! Nodes of blob lists as bytes.

use minicbor::Decoder;

use super::cbor::{self, CborError, required};
use super::node::MAX_NODE;
use crate::id::BlobId;

/// A line of a blob list: a blob and how many bytes of the file lie in or below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListItem {
    /// A data blob, or a list node one level down.
    pub id: BlobId,
    /// Bytes of content.
    pub length: u64,
}

const LIST_ITEM_LEN: usize = 40;

/// Encodes a node of a blob list.
#[must_use]
pub fn encode_list(level: u8, items: &[ListItem]) -> Vec<u8> {
    cbor::encode(|e| {
        e.map(3)?.u8(0)?.u8(2)?.u8(1)?.u8(level)?.u8(2)?.bytes_len((items.len() * LIST_ITEM_LEN) as u64)?;
        for item in items {
            e.writer_mut().extend_from_slice(&item.id.0);
            e.writer_mut().extend_from_slice(&item.length.to_le_bytes());
        }
        Ok(())
    })
}

/// Reads a node of a blob list that must be of `level`.
pub fn parse_list(bytes: &[u8], level: u8) -> cbor::Result<Vec<ListItem>> {
    if bytes.len() > MAX_NODE {
        return Err(CborError::Invalid("node too large"));
    }
    let mut d = Decoder::new(bytes);
    let (mut kind, mut found, mut items) = (None, None, None);
    cbor::map(&mut d, |field, d| {
        match field {
            0 => kind = Some(d.u8()?),
            1 => found = Some(d.u8()?),
            2 => items = Some(d.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    let (chunks, rest) = required(items, 2)?.as_chunks::<LIST_ITEM_LEN>();
    if kind != Some(2) || found != Some(level) || !rest.is_empty() || chunks.is_empty() {
        return Err(CborError::Invalid("not the list node expected here"));
    }
    let mut out = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let (id, length) = chunk.split_first_chunk::<32>().ok_or(CborError::Invalid("list item"))?;
        let length = length.try_into().map_err(|_| CborError::Invalid("list item"))?;
        out.push(ListItem { id: BlobId(*id), length: u64::from_le_bytes(length) });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip() {
        let items = vec![ListItem { id: BlobId([1; 32]), length: 5 }, ListItem { id: BlobId([2; 32]), length: u64::MAX }];
        let bytes = encode_list(1, &items);
        assert_eq!(parse_list(&bytes, 1).expect("parses"), items);
        assert!(parse_list(&bytes, 2).is_err());
        assert!(parse_list(&bytes[..bytes.len() - 1], 1).is_err());
    }
}
