//! Which bucket, and how to talk to it.

use std::time::Duration;

/// Longest prefix: with the longest object name below it still within the 1024 bytes that S3 allows.
const MAX_PREFIX: usize = 700;

/// Where a repository is and how to reach it. What is `None` comes from the environment, else from the profile.
#[derive(Clone)]
pub struct S3Options {
    /// Name of the bucket, which must exist.
    pub bucket: String,
    /// What all names of objects start with: empty, or parts that end in `/`.
    pub prefix: String,
    /// `http://` or `https://` URL of the server, for others than AWS.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` if nothing says otherwise.
    pub region: Option<String>,
    /// Profile in the AWS configuration files.
    pub profile: Option<String>,
    /// Access key and secret key, instead of looking for them where AWS tools do.
    pub credentials: Option<(String, String)>,
    /// Bucket in the path rather than in the host name; by default with any endpoint other than AWS's own.
    pub path_style: Option<bool>,
    /// Storage class of new objects, in S3's words. Servers that lack one refuse it or drop it.
    pub storage_class: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a call may take, the transfer of large bodies not counted; also the longest pause within a reply.
    pub attempt_timeout: Duration,
    /// An upload slower than this many bytes per second is given up: it is taken for hung.
    pub slowest_upload: u64,
    /// How many calls at once.
    pub connections: usize,
}

impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the credentials.
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// A URL that names no bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the address of a bucket: {0}; write s3://BUCKET/PREFIX or s3:https://HOST/BUCKET/PREFIX")]
pub struct InvalidUrl(pub &'static str);

impl S3Options {
    /// Defaults for a bucket and a prefix.
    pub fn new(bucket: &str, prefix: &str) -> Result<Self, InvalidUrl> {
        let bucket_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(bucket_char) {
            return Err(InvalidUrl("no usable bucket name"));
        }
        let prefix = prefix.trim_matches('/');
        let part_ok = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control());
        if prefix.len() > MAX_PREFIX || !(prefix.is_empty() || prefix.split('/').all(part_ok)) {
            return Err(InvalidUrl("the prefix is too long or has empty or odd parts"));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            endpoint: None,
            region: None,
            profile: None,
            credentials: None,
            path_style: None,
            storage_class: None,
            connect_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(60),
            slowest_upload: 32 * 1024,
            connections: 16,
        })
    }

    /// Reads `s3://bucket/prefix`, `s3:http://host:port/bucket/prefix` or `s3:https://host/bucket/prefix`.
    pub fn from_url(url: &str) -> Result<Self, InvalidUrl> {
        let rest = url.strip_prefix("s3:").ok_or(InvalidUrl("it does not start with s3:"))?;
        if let Some(path) = rest.strip_prefix("//") {
            let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
            return Self::new(bucket, prefix);
        }
        let (scheme, path) = rest.split_once("://").ok_or(InvalidUrl("neither // nor http(s):// after s3:"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(InvalidUrl("only http and https are known"));
        }
        let (host, path) = path.split_once('/').ok_or(InvalidUrl("no bucket after the host"))?;
        if host.is_empty() || host.contains('@') || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(InvalidUrl("no usable host name (credentials do not belong here)"));
        }
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self { endpoint: Some(format!("{scheme}://{host}")), ..Self::new(bucket, prefix)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (Option<String>, String, String) {
        let options = S3Options::from_url(url).unwrap();
        (options.endpoint, options.bucket, options.prefix)
    }

    #[test]
    fn reads_urls() {
        let none = |bucket: &str, prefix: &str| (None, bucket.to_owned(), prefix.to_owned());
        assert_eq!(parts("s3://bucket"), none("bucket", ""));
        assert_eq!(parts("s3://bucket/"), none("bucket", ""));
        assert_eq!(parts("s3://my.bucket/a/b"), none("my.bucket", "a/b/"));
        assert_eq!(parts("s3://bucket/a/b/"), none("bucket", "a/b/"));
        let other = |url: &str, bucket: &str, prefix: &str| (Some(url.into()), bucket.to_owned(), prefix.to_owned());
        assert_eq!(parts("s3:http://127.0.0.1:8333/b"), other("http://127.0.0.1:8333", "b", ""));
        assert_eq!(parts("s3:https://s3.example/b/p/q"), other("https://s3.example", "b", "p/q/"));
        assert_eq!(parts("s3:http://[::1]:80/b"), other("http://[::1]:80", "b", ""));
    }

    #[test]
    fn refuses_what_names_no_bucket() {
        for url in [
            "",
            "s3",
            "s3:",
            "s3:bucket",
            "s3://",
            "s3:///x",
            "S3://b",
            "http://h/b",
            "s3:http://",
            "s3:http://h",
            "s3:http://h/",
            "s3:http:///b",
            "s3:ftp://h/b",
            "s3:http://user:pw@h/b",
            "s3://b/a//b",
            "s3://b/../c",
            "s3://b ucket",
            "s3://b/a\nb",
            "s3://b?x=1",
        ] {
            assert!(S3Options::from_url(url).is_err(), "{url:?}");
        }
        assert!(S3Options::new("b", &"x".repeat(701)).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = S3Options::from_url("s3://b").unwrap();
        options.credentials = Some(("access".into(), "hush".into()));
        assert!(!format!("{options:?}").contains("hush"));
    }
}
