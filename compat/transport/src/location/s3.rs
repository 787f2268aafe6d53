//! The many spellings of a bucket.

use std::fmt;
use std::net::IpAddr;

use super::{InvalidUrl, Location, Result, S3Location, decode, host_and_port, invalid};

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        match &self.endpoint {
            None => write!(f, "s3://{}{slash}{}", self.bucket, self.prefix),
            Some(url) if url.contains("://") => write!(f, "s3:{url}/{}{slash}{}", self.bucket, self.prefix),
            Some(host) => write!(f, "s3://{host}/{}{slash}{}", self.bucket, self.prefix),
        }
    }
}

/// `s3://bucket/prefix`, `s3:///bucket/prefix` (duplicity from 2.0 on), or `s3://host[:port]/bucket/prefix` (before).
pub(super) fn parse(rest: &str) -> Result<Location> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return invalid("credentials of S3 do not belong into the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    if authority.is_empty() || !is_host(authority) {
        return bucket_first(rest);
    }
    let (host, _) = host_and_port(authority)?;
    let (bucket, prefix) = bucket_and_prefix(path)?;
    let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    let endpoint = if aws { None } else { Some(authority.to_owned()) };
    let region = if aws { region_of(&host) } else { None };
    Ok(Location::S3(S3Location { endpoint, region, bucket, prefix }))
}

/// Bucket, then prefix, however many slashes there are.
pub(super) fn bucket_first(rest: &str) -> Result<Location> {
    let (bucket, prefix) = bucket_and_prefix(rest)?;
    Ok(Location::S3(S3Location { endpoint: None, region: None, bucket, prefix }))
}

/// `http(s)://host/bucket/prefix`, what follows `s3:` in this project's own URLs.
pub(super) fn own_spelling(rest: &str) -> Result<Location> {
    let (scheme, place) = rest.split_once("://").ok_or_else(|| InvalidUrl("no // after the scheme".to_owned()))?;
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    if authority.contains('@') {
        return invalid("credentials of S3 do not belong into the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    host_and_port(authority)?;
    let (bucket, prefix) = bucket_and_prefix(path)?;
    Ok(Location::S3(S3Location { endpoint: Some(format!("{scheme}://{authority}")), region: None, bucket, prefix }))
}

/// Empty parts count for nothing, as in duplicity.
fn bucket_and_prefix(path: &str) -> Result<(String, String)> {
    let path = decode(path)?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let Some(bucket) = parts.next() else {
        return invalid("no bucket");
    };
    Ok((bucket.to_owned(), parts.collect::<Vec<_>>().join("/")))
}

/// Ends of the names of well-known servers; what old versions of duplicity want before the bucket.
const PROVIDERS: [&str; 14] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".backblazeb2.com",
    ".cloudflarestorage.com",
    ".digitaloceanspaces.com",
    ".dream.io",
    ".idrivee2.com",
    ".linodeobjects.com",
    ".ovh.net",
    ".scw.cloud",
    ".vultrobjects.com",
    ".wasabisys.com",
    ".yandexcloud.net",
    ".your-objectstorage.com",
];

/// Whether this can only be, or by its name is, a server and not a bucket.
fn is_host(authority: &str) -> bool {
    if authority.contains([':', '[']) {
        return true;
    }
    let name = authority.to_ascii_lowercase();
    let known = PROVIDERS.iter().any(|end| name.ends_with(end)) || name == "storage.googleapis.com";
    let s3_like = name.contains('.') && (name.starts_with("s3.") || name.starts_with("s3-"));
    known || s3_like || name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// `eu-west-1` of `s3-eu-west-1.amazonaws.com` or `s3.eu-west-1.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let name = host.split(".amazonaws.com").next().unwrap_or_default();
    let region = name.strip_prefix("s3.dualstack.").or_else(|| name.strip_prefix("s3.")).or_else(|| name.strip_prefix("s3-"));
    region.filter(|r| r.contains('-') && !r.contains('.') && *r != "external-1").map(str::to_owned)
}
