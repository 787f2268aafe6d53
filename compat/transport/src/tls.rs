//! One TLS configuration for all: rustls on ring, trusting what the system trusts.

use std::sync::Arc;

use compat::store::StoreErrorKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Failure;
use crate::options::Options;

/// The system's root certificates, or those of `SSL_CERT_FILE`; and those of the options.
pub(crate) fn roots(options: &Options) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let mut found = rustls_native_certs::load_native_certs().certs;
    if let Some(path) = &options.ca_file {
        let failed = |e| Failure::new(StoreErrorKind::Unusable, format!("{}: no certificates in PEM: {e}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            found.push(certificate.map_err(failed)?);
        }
    }
    if found.is_empty() {
        let message = "no root certificates found: install ca-certificates or set SSL_CERT_FILE";
        return Err(Failure::new(StoreErrorKind::Unusable, message));
    }
    Ok(found)
}

/// For one server; keeps its sessions, so that data connections can take up the one of the control connection.
pub(crate) fn client(options: &Options) -> Result<Arc<ClientConfig>, Failure> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots(options)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(StoreErrorKind::Other, format!("TLS: {e}")))?;
    Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
}

/// Whether an error's text is about a certificate: no repetition will mend that.
pub(crate) fn is_distrust(text: &str) -> bool {
    text.to_ascii_lowercase().contains("certificate")
}
