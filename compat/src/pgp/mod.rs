//! Decryption and encryption of duplicity's OpenPGP files, without gpg.
//!
//! A [`Keyring`] holds what may open files; [`Keyring::decrypt`] gives the content as a stream. Packet framing, the containers and
//! the choice of the key are here, because old archives need what libraries have given up: data without integrity protection, and
//! the AEAD packets of GnuPG. Ciphers, public keys, compression and signatures are sequoia's.
//!
//! An [`Encryption`] says to whom and by whom; [`Encryption::encrypt`] writes files that any gpg since 1.4 reads.
//!
//! # What is guaranteed when
//!
//! - An orderly end of the stream means: the message is whole, it is the only thing in the file, and where [`Integrity`] is not
//!   `None` it is what the one who knew the key encrypted. Anyone who has the public key can do that; only signatures tell who.
//! - Before the end, with [`Integrity::Mdc`], what was read may be forged (an attacker can change it blindly, or cut it off). So
//!   what comes out first must only meet parsers that bear hostile data, and nothing may be made final before the end. A caller
//!   that compared the file's hash with a trusted manifest is free of this; so is one that decrypts twice, the first time with
//!   [`Decrypted::finish`] alone.
//! - Truncation is an error at every byte. In archives without integrity protection it is found by lengths only.
//! - Memory is bounded, about 1 MiB for each file, whatever it says; with AEAD two chunks more, of 16 MiB at most. The length of the content is not
//!   bounded: compressed data can grow a thousandfold, and the caller has to know how much it wants.
//!
//! Signatures are checked as far as keys are there, and reported; none is required, unless a caller asks with
//! [`Report::require_signature`].

mod aead;
mod armour;
mod certs;
mod container;
mod encrypt;
mod error;
mod esk;
mod frame;
mod gpg;
mod keyring;
mod layers;
mod lookup;
mod message;
mod s2k;
#[cfg(test)]
mod tests;

pub use container::Integrity;
pub use encrypt::{Compression, Encryption, Encryptor, Recipiency, gnupg_public_keys, gnupg_secret_keys};
pub use error::{PgpError, PgpErrorKind};
pub use keyring::Keyring;
pub use lookup::gnupg_fingerprint;
pub use message::{Decrypted, Report, Signature, SignatureStatus};
