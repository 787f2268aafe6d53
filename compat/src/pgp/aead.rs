//! Packet 20 of the RFC 4880bis drafts, as GnuPG writes it: chunks, each with a tag, and a last tag over the length.

use std::io::{self, Read};

use sequoia_openpgp::crypto::AEADAlgorithm;
use sequoia_openpgp::types::SymmetricAlgorithm;

use super::container::{Complete, modified, unsupported};
use super::error::{Failure, PgpErrorKind};
use super::esk::Candidate;
use super::frame::Body;

/// Length of a tag of EAX and OCB.
const TAG: usize = 16;
/// A larger chunk would have to be held in memory before any of it can be believed. GnuPG writes 4 MiB at most.
const MAX_CHUNK: usize = 16 << 20;

/// The parameters before the chunks.
#[derive(Clone, Debug)]
pub(super) struct Aead {
    algo: SymmetricAlgorithm,
    aead: AEADAlgorithm,
    /// What the associated data of each chunk starts with.
    ad: [u8; 5],
    nonce: Vec<u8>,
    /// Plain bytes of each chunk but the last; larger than [`MAX_CHUNK`] only nominally.
    chunk: usize,
}

impl Aead {
    pub(super) fn read(body: &mut Body) -> io::Result<Self> {
        let mut fields = [0; 4];
        body.read_exact(&mut fields)?;
        let [version, algo, aead, size] = fields;
        if version != 1 {
            return Err(modified("the AEAD packet has an unknown version"));
        }
        let (cipher, mode) = (SymmetricAlgorithm::from(algo), AEADAlgorithm::from(aead));
        if !matches!(mode, AEADAlgorithm::EAX | AEADAlgorithm::OCB) || !cipher.is_supported() {
            return Err(unsupported(&format!("{cipher} with AEAD mode {mode}")));
        }
        let chunk = 1usize.checked_shl(u32::from(size) + 6).ok_or_else(|| modified("the AEAD chunks are impossibly large"))?;
        let mut nonce = vec![0; mode.nonce_size().map_err(io::Error::other)?];
        body.read_exact(&mut nonce)?;
        Ok(Self { algo: cipher, aead: mode, ad: [0xd4, version, algo, aead, size], nonce, chunk })
    }

    /// Adds to `sealed` until it holds a whole chunk and what may be the last tag, or the packet ends.
    pub(super) fn fill(&self, body: &mut Body, mut sealed: Vec<u8>) -> io::Result<Vec<u8>> {
        let want = self.chunk.min(MAX_CHUNK) + 2 * TAG;
        body.take((want - sealed.len()) as u64).read_to_end(&mut sealed)?;
        if sealed.len() == want && self.chunk > MAX_CHUNK {
            return Err(unsupported("an AEAD chunk of more than 16 MiB"));
        }
        Ok(sealed)
    }

    /// How much of `sealed` is a chunk with its tag; and whether it is the last one.
    fn split(&self, sealed: &[u8]) -> Option<(usize, bool)> {
        if sealed.len() == self.chunk.saturating_add(2 * TAG) {
            return Some((self.chunk + TAG, false));
        }
        match sealed.len().checked_sub(TAG)? {
            1..=TAG => None,
            n => Some((n, true)),
        }
    }

    /// Opens one chunk, or with `total` the last tag.
    #[allow(clippy::big_endian_bytes, reason = "OpenPGP is big-endian")]
    fn unseal(&self, candidate: &Candidate, index: u64, total: Option<u64>, sealed: &[u8]) -> Option<Vec<u8>> {
        if self.algo.key_size().ok()? != candidate.key.len() {
            return None;
        }
        let mut ad = self.ad.to_vec();
        ad.extend(index.to_be_bytes());
        ad.extend(total.map(u64::to_be_bytes).into_iter().flatten());
        let mut nonce = self.nonce.clone();
        let counter = nonce.len().checked_sub(8)?;
        nonce[counter..].iter_mut().zip(index.to_be_bytes()).for_each(|(n, i)| *n ^= i);
        let mut plain = vec![0; sealed.len().checked_sub(TAG)?];
        let context = self.aead.context(self.algo, &candidate.key, &ad, &nonce).ok()?;
        context.for_decryption().ok()?.decrypt_verify(&mut plain, sealed).ok()?;
        Some(plain)
    }

    pub(super) fn accepts(&self, candidate: &Candidate, head: &[u8]) -> bool {
        // Without an algorithm it comes out of a version-5 packet, which is authenticated itself.
        if candidate.algo.is_none() {
            return self.algo.key_size().ok() == Some(candidate.key.len());
        }
        match self.split(head) {
            Some((0, _)) => self.unseal(candidate, 0, Some(0), head).is_some(),
            Some((n, _)) => self.unseal(candidate, 0, None, &head[..n]).is_some(),
            None => false,
        }
    }
}

/// The content. Nothing of a chunk is given out before its tag was checked.
pub(super) struct AeadReader {
    aead: Aead,
    candidate: Candidate,
    body: Body,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    given: usize,
    index: u64,
    total: u64,
    failed: bool,
    failure: Failure,
    complete: Complete,
}

impl AeadReader {
    pub(super) fn new(
        aead: Aead,
        candidate: &Candidate,
        sealed: Vec<u8>,
        body: Body,
        failure: Failure,
        complete: Complete,
    ) -> Self {
        let candidate = candidate.clone();
        Self { aead, candidate, body, sealed, plain: Vec::new(), given: 0, index: 0, total: 0, failed: false, failure, complete }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        self.sealed = self.aead.fill(&mut self.body, std::mem::take(&mut self.sealed))?;
        let broken = || modified("an AEAD tag does not match");
        let (chunk, last) = self.aead.split(&self.sealed).ok_or_else(broken)?;
        (self.plain, self.given) = (Vec::new(), 0);
        if chunk > 0 {
            self.plain = self.aead.unseal(&self.candidate, self.index, None, &self.sealed[..chunk]).ok_or_else(broken)?;
            self.index += 1;
            self.total += self.plain.len() as u64;
        }
        if last {
            let tag = &self.sealed[chunk..];
            if self.aead.unseal(&self.candidate, self.index, Some(self.total), tag).is_none() {
                self.plain.clear();
                return Err(broken());
            }
            self.complete.set();
        }
        self.sealed.drain(..chunk);
        Ok(())
    }
}

impl Read for AeadReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() {
            if self.complete.get() {
                return Ok(0);
            }
            if self.failed {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if let Err(e) = self.next_chunk() {
                self.failed = true;
                return Err(match e.downcast::<PgpErrorKind>() {
                    Ok(kind) => self.failure.record(kind),
                    Err(e) => e,
                });
            }
        }
        let n = buf.len().min(self.plain.len() - self.given);
        buf[..n].copy_from_slice(&self.plain[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}
