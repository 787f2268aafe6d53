//! From the name of a key to its fingerprint.

use std::path::Path;

use sequoia_openpgp::cert::{Cert, CertParser};
use sequoia_openpgp::parse::Parse;

use super::gpg::Gnupg;

/// The fingerprint, in upper-case hexadecimal, of the key that the user's gpg has under a name: an id or a part of a user id. Of
/// a subkey its own. `None` if there is no such key, or more than one fits.
#[must_use]
pub fn gnupg_fingerprint(home: Option<&Path>, name: &str) -> Option<String> {
    fingerprint(&Gnupg::new(home).export_any(name), name)
}

fn fingerprint(exported: &[u8], name: &str) -> Option<String> {
    let certs: Vec<Cert> = CertParser::from_bytes(exported).ok()?.filter_map(Result::ok).collect();
    let bare = name.strip_prefix("0x").unwrap_or(name).replace(' ', "").to_uppercase();
    let is_id = matches!(bare.len(), 8 | 16 | 32 | 40 | 64) && bare.bytes().all(|b| b.is_ascii_hexdigit());
    let mut found: Vec<String> = if is_id {
        let keys = certs.iter().flat_map(|cert| cert.keys());
        keys.map(|ka| format!("{:X}", ka.key().fingerprint())).filter(|print| print.ends_with(&bare)).collect()
    } else {
        certs.iter().map(|cert| format!("{:X}", cert.fingerprint())).collect()
    };
    found.sort();
    found.dedup();
    let first = found.pop();
    first.filter(|_| found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_length() {
        let Some(keys) = crate::test_support::fixtures().map(|root| root.join("keys/rsa.pub.asc")) else { return };
        let exported = std::fs::read(keys).expect("readable");
        let cert = Cert::from_bytes(&exported).expect("a key");
        let primary = format!("{:X}", cert.fingerprint());
        for digits in [8, 16, 40] {
            assert_eq!(fingerprint(&exported, &primary[primary.len() - digits..]).as_ref(), Some(&primary));
            assert_eq!(
                fingerprint(&exported, &format!("0x{}", primary[primary.len() - digits..].to_lowercase())).as_ref(),
                Some(&primary)
            );
        }
        assert_eq!(fingerprint(&exported, "0123456789ABCDEF"), None);
        assert_eq!(fingerprint(&exported, "somebody@example.org").as_ref(), Some(&primary));
        assert_eq!(fingerprint(b"", "x"), None);
    }
}
