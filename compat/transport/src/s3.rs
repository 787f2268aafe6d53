//! Buckets, through the project's own backend.

use std::net::IpAddr;
use std::sync::Arc;

use compat::store::{StoreErrorKind, StoredFile};
use engine::backend::{BackendError, ErrorKind};
use engine_s3::{S3Backend, S3Options};

use crate::MAX_FILES;
use crate::error::Failure;
use crate::location::S3Location;
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::Spool;

const CONNECTIONS: usize = 8;
/// Classes of which nothing is read before it was asked for and hours have passed.
const COLD: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

#[derive(Debug)]
pub(crate) struct S3 {
    backend: Arc<S3Backend>,
    connections: usize,
    class: Option<String>,
    /// The bucket may be a host's name that was not taken for one.
    host_like: bool,
}

impl S3 {
    /// The store, and where it is once everything was looked up.
    pub(crate) fn new(place: &S3Location, options: &Options) -> Result<Self, Failure> {
        let unusable = |e: &dyn std::fmt::Display| Failure::new(StoreErrorKind::Unusable, e.to_string());
        let mut s3 = S3Options::new(&place.bucket, &place.prefix).map_err(|e| unusable(&e))?;
        let connections = options.connections_or(CONNECTIONS);
        s3.endpoint = place.endpoint.as_ref().map(|e| with_scheme(e, options)).or_else(|| options.s3_endpoint.clone());
        s3.region = options.s3_region.clone().or_else(|| place.region.clone());
        s3.profile = options.s3_profile.clone();
        s3.credentials = options.s3_credentials.as_ref().map(|(access, secret)| (access.clone(), secret.to_string()));
        s3.connect_timeout = options.connect_timeout;
        s3.attempt_timeout = options.pause;
        s3.connections = connections;
        let host_like = place.endpoint.is_none() && place.bucket.contains('.');
        let backend = S3Backend::open(s3).map_err(|e| of(e, StoreErrorKind::NoStore))?;
        Ok(Self { backend: Arc::new(backend), connections, class: options.s3_storage_class.clone(), host_like })
    }
}

impl Protocol for S3 {
    fn concurrency(&self) -> usize {
        self.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        let mut files = Vec::new();
        let mut collect = |name: &str, size| {
            if files.len() <= MAX_FILES {
                files.push(StoredFile { name: name.to_owned(), size: Some(size) });
            }
        };
        self.backend.list_raw(&mut collect).map_err(|error| {
            let mut failure = of(error, StoreErrorKind::NoStore);
            if matches!(failure.kind, StoreErrorKind::NoStore | StoreErrorKind::Denied) && self.host_like {
                failure.message.push_str("; if this is the name of a server, write s3:https://HOST/BUCKET/PREFIX");
            }
            failure
        })?;
        if files.len() > MAX_FILES {
            return Err(Failure::nonsense("a listing without end"));
        }
        Ok(files)
    }

    fn start(&self, name: &str, offset: u64, _: Option<u64>) -> Result<Started, Failure> {
        let reader = self.backend.read_raw(name, offset).map_err(|e| of(e, StoreErrorKind::NotFound))?;
        let size = reader.size();
        Ok(Started { reader: Box::new(reader), size: Some(size) })
    }

    /// An object appears at once.
    fn put(&self, file: &Spool, name: &str, _: &str) -> Result<(), Failure> {
        let class = self.class.as_deref().filter(|class| suits(class, name));
        self.backend.put_raw(name, file.file(), file.size(), class).map_err(|e| of(e, StoreErrorKind::NoStore))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.backend.delete_raw(name).map_err(|e| of(e, StoreErrorKind::NotFound))
    }
}

/// Whether a file may be in a storage class.
fn suits(class: &str, name: &str) -> bool {
    !COLD.contains(&class) || name.contains(".difftar")
}

fn of(error: BackendError, not_found: StoreErrorKind) -> Failure {
    let kind = match error.kind {
        ErrorKind::NotFound => not_found,
        ErrorKind::NoStore => StoreErrorKind::NoStore,
        ErrorKind::Denied => StoreErrorKind::Denied,
        ErrorKind::Timeout | ErrorKind::Throttled => StoreErrorKind::Unreachable,
        ErrorKind::Unsupported => StoreErrorKind::Unusable,
        // A 500 passes as often as not.
        ErrorKind::Other => StoreErrorKind::Unreachable,
        _ => StoreErrorKind::Other,
    };
    Failure::new(kind, error.message)
}

/// A bare host, as old versions of duplicity spell it, gets TLS unless that makes no sense.
fn with_scheme(endpoint: &str, options: &Options) -> String {
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    let bare = endpoint.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let host = bare.unwrap_or_else(|| endpoint.split(':').next().unwrap_or_default());
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let plain = options.s3_unencrypted || loopback || endpoint.ends_with(":80");
    format!("{}://{endpoint}", if plain { "http" } else { "https" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_backup_reads_is_never_cold() {
        let names = ["duplicity-full.T.vol1.difftar.gpg", "duplicity-full.T.manifest", "duplicity-full-signatures.T.sigtar.gz"];
        assert_eq!(names.map(|name| suits("DEEP_ARCHIVE", name)), [true, false, false]);
        assert_eq!(names.map(|name| suits("GLACIER_IR", name)), [true; 3]);
    }

    #[test]
    fn hosts_get_a_scheme() {
        let mut options = Options::default();
        for (host, url) in [
            ("s3.example.org", "https://s3.example.org"),
            ("h:80", "http://h:80"),
            ("127.0.0.1:8333", "http://127.0.0.1:8333"),
            ("[::1]:8333", "http://[::1]:8333"),
            ("http://x:1", "http://x:1"),
        ] {
            assert_eq!(with_scheme(host, &options), url);
        }
        options.s3_unencrypted = true;
        assert_eq!(with_scheme("h:8333", &options), "http://h:8333");
    }
}
