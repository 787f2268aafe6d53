//! Opening an archive of duplicity.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use compat::import::Archive;
use compat::pgp::Keyring;
use compat::store::{StoreError, StoreErrorKind, Target};

use crate::args::ArchiveArgs;
use crate::context::Context;
use crate::exit::advise;
use crate::password::{self, Source};

/// The archive behind a URL, with everything that may open it.
///
/// # Errors
///
/// If the URL or a file with a secret makes no sense. The archive itself is not looked at.
pub fn open(context: &Context, args: &ArchiveArgs, required_signer: Option<String>) -> Result<Archive> {
    let store = target(context, &args.url)?;
    Ok(Archive { store, prefixes: args.prefixes.prefixes(), keyring: Arc::new(keyring(args)?), required_signer })
}

/// The place behind a URL, to be read and written. No server is asked anything yet.
///
/// # Errors
///
/// If the URL makes no sense, or something is missing that reaches it.
pub fn target(context: &Context, url: &str) -> Result<Arc<dyn Target>> {
    let location = transport::parse(url)
        .map_err(|error| advise(error.to_string(), "see 'import duplicity --help' for what a URL may be"))?;
    let mut options = transport::Options::from_environment();
    context.s3_for(&mut options);
    transport::open_target(&location, &options).map_err(explain)
}

/// Adds the secret keys in files.
pub fn add_keys(keyring: &mut Keyring, files: &[PathBuf]) -> Result<()> {
    for file in files {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read the secret key {}", file.display()))?;
        keyring.add_keys(&bytes, &file.display().to_string())?;
    }
    Ok(())
}

/// An error of the store with advice where there is some.
pub fn explain(error: StoreError) -> anyhow::Error {
    match error.kind {
        StoreErrorKind::Denied => advise(error.to_string(), "check user, password and keys"),
        StoreErrorKind::Unreachable => {
            advise(error.to_string(), "check host and port; the same command goes on where it stopped")
        }
        _ => error.into(),
    }
}

fn keyring(args: &ArchiveArgs) -> Result<Keyring> {
    let mut keyring = Keyring::new();
    let files = args.passphrase_file.iter().chain(&args.sign_passphrase_file);
    let given: Vec<PathBuf> = files.cloned().collect();
    for file in given {
        keyring.add_passphrase(password::read_passphrase(Source::File(file))?.to_vec());
    }
    for variable in ["PASSPHRASE", "SIGN_PASSPHRASE"] {
        if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
            keyring.add_passphrase(password::read_passphrase(Source::Value(value))?.to_vec());
        }
    }
    add_keys(&mut keyring, &args.secret_key)?;
    keyring.use_gnupg(args.gnupg_home.as_deref());
    Ok(keyring)
}
