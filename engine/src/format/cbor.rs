//! CBOR (RFC 8949) maps with integer keys: the shape of every metadata body.
//!
//! Readers pass over keys they do not know, so that fields can be added; nothing is allocated by an announced length.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Why a body does not decode.
#[derive(Debug, thiserror::Error)]
pub enum CborError {
    /// Not CBOR, or another type than expected.
    #[error("malformed CBOR: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// A key that must be there is not.
    #[error("field {0} is missing")]
    Missing(u32),
    /// A value out of its range.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Decoding results.
pub type Result<T> = std::result::Result<T, CborError>;

/// An encoder into memory; see [`infallible`].
pub type Out<'a> = Encoder<&'a mut Vec<u8>>;

/// Runs an encoding into memory, which cannot fail.
pub fn encode(build: impl FnOnce(&mut Out<'_>) -> EncodeResult) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, build);
    bytes
}

/// Appends an encoding to `bytes`.
pub fn encode_into(bytes: &mut Vec<u8>, build: impl FnOnce(&mut Out<'_>) -> EncodeResult) {
    build(&mut Encoder::new(bytes)).expect("writing to memory does not fail");
}

/// What encoders return.
pub type EncodeResult = std::result::Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Calls `field` for each key of a map, which must ascend; it returns `false` for a key it does not know, whose value is then
/// skipped. Negative keys are kept for fields that must not be skipped.
pub fn map<'b>(d: &mut Decoder<'b>, mut field: impl FnMut(u32, &mut Decoder<'b>) -> Result<bool>) -> Result<()> {
    let entries = d.map()?.ok_or(CborError::Invalid("maps have a definite length"))?;
    let mut last = None;
    for _ in 0..entries {
        if d.datatype()? == Type::I8 {
            return Err(CborError::Invalid("a field that must not be passed over: use a newer program"));
        }
        let key = d.u32()?;
        if last >= Some(key) {
            return Err(CborError::Invalid("fields out of order"));
        }
        last = Some(key);
        if !field(key, d)? {
            d.skip()?;
        }
    }
    Ok(())
}

/// Decodes an array element by element.
pub fn array<'b, T>(d: &mut Decoder<'b>, mut item: impl FnMut(&mut Decoder<'b>) -> Result<T>) -> Result<Vec<T>> {
    let count = d.array()?.ok_or(CborError::Invalid("arrays have a definite length"))?;
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(item(d)?);
    }
    Ok(out)
}

/// A byte string of exactly `N` bytes.
pub fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N]> {
    d.bytes()?.try_into().map_err(|_| CborError::Invalid("byte string of the wrong length"))
}

/// `None` for CBOR null.
pub fn optional<'b, T>(d: &mut Decoder<'b>, item: impl FnOnce(&mut Decoder<'b>) -> Result<T>) -> Result<Option<T>> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    item(d).map(Some)
}

/// Fails unless everything was read.
pub fn finish(d: &Decoder<'_>) -> Result<()> {
    if d.position() == d.input().len() { Ok(()) } else { Err(CborError::Invalid("bytes after the end")) }
}

/// The value of a key that must be there.
pub fn required<T>(value: Option<T>, key: u32) -> Result<T> {
    value.ok_or(CborError::Missing(key))
}
