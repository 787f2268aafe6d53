//! duplicity's URLs.

mod rclone;
mod s3;

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// A text that is no URL of an archive. Never quotes it, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of an archive: {0}")]
pub struct InvalidUrl(pub(crate) String);

/// Shorthand for results of this module.
pub type Result<T, E = InvalidUrl> = std::result::Result<T, E>;

fn invalid<T>(why: impl Into<String>) -> Result<T> {
    Err(InvalidUrl(why.into()))
}

/// Where an archive lies. Printed without credentials.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A folder of this machine.
    File(PathBuf),
    /// A bucket.
    S3(S3Location),
    /// A folder behind ssh.
    Sftp(Server),
    /// A folder of an FTP server.
    Ftp(Server, FtpTls),
    /// A folder of a WebDAV server; with TLS if the flag says so.
    Dav(Server, Tls),
    /// A folder behind rsync.
    Rsync(Server, RsyncRoute),
    /// A remote of rclone.
    Rclone(RcloneRemote),
}

/// `name,key=value:path` or `:backend,key=value:path`, as rclone has it.
#[derive(Clone, PartialEq, Eq)]
pub struct RcloneRemote {
    /// Of a configured remote, or `:` and a backend.
    pub name: String,
    /// What is set besides or instead of the configuration; may be secret.
    pub parameters: Vec<(String, Zeroizing<String>)>,
    /// Path in the remote.
    pub path: String,
}

/// A bucket and what all names in it start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// URL or bare `host[:port]` of the server; `None`: of the options or the environment, else AWS.
    pub endpoint: Option<String>,
    /// Region, if the host's name tells.
    pub region: Option<String>,
    /// Name of the bucket.
    pub bucket: String,
    /// Parts joined by `/`, or empty.
    pub prefix: String,
}

/// Whether there is TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// No.
    Off,
    /// Yes.
    On,
}

/// How TLS begins on an FTP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FtpTls {
    /// Not at all: `ftp://`.
    Off,
    /// At once, or after a greeting and `AUTH TLS`, whichever the server expects: `ftps://`.
    Either,
    /// After `AUTH TLS`: `ftpes://`.
    Explicit,
}

/// Through what rsync reaches its other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsyncRoute {
    /// A daemon; the path begins with the module: `rsync://host::module/path`.
    Daemon,
    /// ssh: `rsync://host//path`.
    Ssh,
    /// What answers: `rsync://host/path` is a module and a path for rsync, and a path below the home for duplicity.
    Either,
}

/// A folder of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Name of the user.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Zeroizing<String>>,
    /// Name or address; addresses of IPv6 without brackets.
    pub host: String,
    /// Port, if not the usual one.
    pub port: Option<u16>,
    /// Decoded path without the slash that ends the host: begins with `/` if it is absolute.
    pub path: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port, path, password: _ } = self;
        f.debug_struct("Server")
            .field("user", user)
            .field("host", host)
            .field("port", port)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// `host` or `[host]`, as URLs have it.
    pub(crate) fn host_in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// `host[:port]`.
    pub(crate) fn authority(&self) -> String {
        match self.port {
            None => self.host_in_url(),
            Some(port) => format!("{}:{port}", self.host_in_url()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.authority(), self.path.trim_end_matches('/'))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::S3(place) => place.fmt(f),
            Self::Sftp(server) => write!(f, "sftp://{server}"),
            Self::Ftp(server, FtpTls::Off) => write!(f, "ftp://{server}"),
            Self::Ftp(server, _) => write!(f, "ftps://{server}"),
            Self::Dav(server, Tls::Off) => write!(f, "webdav://{server}"),
            Self::Dav(server, Tls::On) => write!(f, "webdavs://{server}"),
            Self::Rsync(server, RsyncRoute::Daemon) => {
                let path = server.path.trim_end_matches('/');
                write!(f, "rsync://{}::{path}", server.authority())
            }
            Self::Rsync(server, _) => write!(f, "rsync://{server}"),
            Self::Rclone(remote) => write!(f, "rclone:{remote}"),
        }
    }
}

/// Reads a URL as duplicity spells it, a plain path, or this project's own `s3:https://host/bucket/prefix`.
///
/// Paths, users and passwords are percent-decoded; `?` and `#` end a URL, as in duplicity, and are `%3F` and `%23`
/// within names.
///
/// # Errors
///
/// If the scheme is unknown, or a part that the scheme needs is missing or odd.
pub fn parse(url: &str) -> Result<Location> {
    if url.is_empty() {
        return invalid("it is empty");
    }
    if url.contains(|c: char| c.is_control()) {
        return invalid("it has control characters in it");
    }
    let Some((scheme, rest)) = split_scheme(url) else {
        return Ok(Location::File(PathBuf::from(url)));
    };
    if scheme == "rclone" {
        return rclone::parse(&decode(rest.strip_prefix("//").unwrap_or(rest))?).map(Location::Rclone);
    }
    if scheme == "s3" && (rest.starts_with("http://") || rest.starts_with("https://")) {
        return s3::own_spelling(rest);
    }
    let Some(rest) = rest.strip_prefix("//") else {
        return invalid(format!("no // after {scheme}:"));
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    match scheme.as_str() {
        "file" => match decode(rest)? {
            path if path.is_empty() => invalid("no path after file://"),
            path => Ok(Location::File(PathBuf::from(path))),
        },
        "s3" => s3::parse(rest),
        "s3+http" | "boto+s3" | "boto3+s3" => s3::bucket_first(rest),
        "sftp" | "scp" | "ssh" | "paramiko+sftp" | "paramiko+scp" | "paramiko+ssh" | "pexpect+sftp" | "pexpect+scp" => {
            server(rest).map(Location::Sftp)
        }
        "ftp" | "lftp+ftp" | "ncftp+ftp" => server(rest).map(|s| Location::Ftp(s, FtpTls::Off)),
        "ftps" | "lftp+ftps" => server(rest).map(|s| Location::Ftp(s, FtpTls::Either)),
        "ftpes" | "lftp+ftpes" => server(rest).map(|s| Location::Ftp(s, FtpTls::Explicit)),
        "webdav" | "lftp+webdav" => server(rest).map(|s| Location::Dav(s, Tls::Off)),
        "webdavs" | "lftp+webdavs" => server(rest).map(|s| Location::Dav(s, Tls::On)),
        "rsync" => rsync(rest),
        other => invalid(format!(
            "the scheme {other}: is unknown (known are file, s3, boto3+s3, sftp, scp, ftp, ftps, webdav, webdavs, rsync, rclone)"
        )),
    }
}

/// Scheme in lower case and what follows its colon; `None` for a path.
fn split_scheme(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let first = scheme.chars().next()?;
    let scheme_like = first.is_ascii_alphabetic() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let scheme = scheme.to_ascii_lowercase();
    // A path may have a colon in it.
    let url_like = rest.starts_with("//") || scheme == "rclone" || (scheme == "s3" && rest.starts_with("http"));
    (scheme_like && url_like).then_some((scheme, rest))
}

fn decode(text: &str) -> Result<String> {
    let Ok(decoded) = percent_decode_str(text).decode_utf8() else {
        return invalid("its %XX do not make UTF-8");
    };
    if decoded.contains(|c: char| c.is_control()) {
        return invalid("it has control characters in it");
    }
    Ok(decoded.into_owned())
}

/// `[user[:password]@]host[:port][/path]`.
fn server(rest: &str) -> Result<Server> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, place) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((credentials, place)) => (Some(credentials), place),
    };
    let (user, password) = match credentials.map(|c| c.split_once(':').map_or((c, None), |(u, p)| (u, Some(p)))) {
        None => (None, None),
        Some((user, password)) => (Some(decode(user)?).filter(|u| !u.is_empty()), password),
    };
    let password = password.map(decode).transpose()?.filter(|p| !p.is_empty()).map(Zeroizing::new);
    let (host, port) = host_and_port(place)?;
    // Either would be taken for an option by the programs that get them.
    if host.starts_with('-') || user.as_ref().is_some_and(|u| u.starts_with('-')) {
        return invalid("a host or user that begins with -");
    }
    Ok(Server { user, password, host, port, path: decode(path)? })
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) if rest.starts_with(':') => (host, Some(&rest[1..])),
            _ => return invalid("an address in brackets that does not end"),
        },
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let host = decode(host)?;
    if host.is_empty() {
        return invalid("no host after //");
    }
    if host.contains(|c: char| c.is_whitespace() || "/@[]'\"\\".contains(c)) {
        return invalid("no usable host name (percent-encode what is odd in user and password)");
    }
    let port = match port.filter(|p| !p.is_empty()).map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return invalid("no usable port after the host (percent-encode what is odd in user and password)"),
    };
    Ok((host, port))
}

fn rsync(rest: &str) -> Result<Location> {
    // duplicity looks for :: from the end, so that addresses of IPv6 do not matter.
    let after_user = rest.rfind('@').map_or(0, |at| at + 1);
    let double = rest.rfind("::").filter(|at| *at > after_user && !rest[at + 2..].contains([':', ']']));
    if let Some(at) = double {
        let path = decode(rest[at + 2..].trim_start_matches('/'))?;
        if path.is_empty() {
            return invalid("no module after ::");
        }
        return Ok(Location::Rsync(Server { path, ..server(&rest[..at])? }, RsyncRoute::Daemon));
    }
    let server = server(rest)?;
    let route = if server.path.starts_with('/') || server.path.is_empty() { RsyncRoute::Ssh } else { RsyncRoute::Either };
    Ok(Location::Rsync(server, route))
}

#[cfg(test)]
mod tests;
