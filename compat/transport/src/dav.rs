//! WebDAV over HTTP: one PROPFIND for the folder, one GET per file; PUT and MOVE to write.

mod multistatus;
mod write;

use std::io::{self, Read};
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use compat::store::{StoreErrorKind, StoredFile};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Method, Request, Response, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, Body};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::location::{Server, Tls};
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::Spool;
use crate::tls;

const CONNECTIONS: usize = 6;
/// Largest listing: some hundred thousand files.
const MAX_LISTING: u64 = 64 * 1024 * 1024;
/// What every server understands unescaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const QUESTION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <D:propfind xmlns:D=\"DAV:\"><D:prop><D:resourcetype/><D:getcontentlength/></D:prop></D:propfind>";

pub(crate) struct Dav {
    agent: Agent,
    /// Of the folder, with the slash at its end.
    url: String,
    authorization: Option<Zeroizing<String>>,
    connections: usize,
}

impl std::fmt::Debug for Dav {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dav").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Dav {
    pub(crate) fn new(server: &Server, tls: Tls, options: &Options) -> Result<Self, Failure> {
        let scheme = if tls == Tls::On { "https" } else { "http" };
        let parts = server.path.split('/').filter(|part| !part.is_empty());
        let path: String = parts.map(|part| format!("{}/", escape(part))).collect();
        let url = format!("{scheme}://{}/{path}", server.authority());
        let password = server.password.clone().or_else(|| options.password.clone());
        let authorization = server.user.as_ref().map(|user| {
            let pair = Zeroizing::new(format!("{user}:{}", password.as_deref().map_or("", String::as_str)));
            Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
        });
        let connections = options.connections_or(CONNECTIONS);
        Ok(Self { agent: agent(tls, options, connections)?, url, authorization, connections })
    }

    /// A request whose answer is a success.
    fn ask(
        &self,
        request: ureq::http::request::Builder,
        body: impl AsSendBody,
        missing: StoreErrorKind,
    ) -> Result<Response<Body>, Failure> {
        let request = match &self.authorization {
            None => request,
            Some(value) => request.header(header::AUTHORIZATION, value.as_str()),
        };
        let broken = |e: ureq::http::Error| Failure::new(StoreErrorKind::Unusable, format!("no usable URL: {e}"));
        let answer = self.agent.run(request.body(body).map_err(broken)?).map_err(|e| of(&e))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(&answer, missing)) }
    }
}

fn agent(tls: Tls, options: &Options, connections: usize) -> Result<Agent, Failure> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        // A redirection elsewhere is for the user to see, not to follow with a password.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("deduplicity/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_recv_response(Some(options.pause))
        .timeout_per_read(Some(options.pause))
        .timeout_per_write(Some(options.pause))
        .max_idle_connections_per_host(connections);
    if tls == Tls::On {
        let roots: Vec<_> = tls::roots(options)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).unversioned_rustls_crypto_provider(provider);
        config = config.tls_config(tls.build());
    }
    Ok(config.build().new_agent())
}

impl Protocol for Dav {
    fn concurrency(&self) -> usize {
        self.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        let request = Request::builder().method(method("PROPFIND")?).uri(&self.url).header("Depth", "1");
        let request = request.header(header::CONTENT_TYPE, "application/xml; charset=\"utf-8\"");
        let answer = self.ask(request, QUESTION, StoreErrorKind::NoStore)?;
        if answer.status().as_u16() != 207 {
            return Err(Failure::new(StoreErrorKind::Unusable, "the server does not speak WebDAV here"));
        }
        let mut text = Vec::new();
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader().take(MAX_LISTING);
        let got = body.read_to_end(&mut text).map_err(|e| broken_body(&e))?;
        if got as u64 == MAX_LISTING {
            return Err(Failure::nonsense("a listing without end"));
        }
        let text = String::from_utf8(text).map_err(|_| Failure::nonsense("a listing that is not UTF-8"))?;
        multistatus::files(&text)
    }

    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure> {
        let mut request = Request::builder().method(Method::GET).uri(format!("{}{}", self.url, escape(name)));
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let answer = self.ask(request, (), StoreErrorKind::NotFound)?;
        let text = |name: header::HeaderName| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let length = text(header::CONTENT_LENGTH).and_then(|v| v.trim().parse::<u64>().ok());
        let chunked = text(header::TRANSFER_ENCODING).is_some();
        let (skip, whole) = match (answer.status().as_u16(), text(header::CONTENT_RANGE)) {
            (206, Some(range)) => {
                (0, Some(range_total(&range, offset).ok_or_else(|| Failure::nonsense(format!("range {range}")))?))
            }
            (206, None) => return Err(Failure::nonsense("a part of the file, and not which")),
            // The server does not know ranges and sends all of it.
            _ => (offset, length),
        };
        if whole.is_none() && size.is_none() && !chunked {
            return Err(Failure::new(StoreErrorKind::Unusable, "the server does not say where the file ends"));
        }
        let mut reader = BodyReader(answer.into_body().into_with_config().limit(u64::MAX).reader());
        let skipped = io::copy(&mut reader.by_ref().take(skip), &mut io::sink()).map_err(Failure::from)?;
        if skipped < skip {
            return Err(Failure::unreachable("broke off"));
        }
        Ok(Started { reader: Box::new(reader), size: whole })
    }

    fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        self.put_and_move(file, name, unfinished)
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.delete(name)
    }

    fn make_folder(&self) -> Result<(), Failure> {
        self.make_collection(&self.url)
    }

    fn clear(&self, unfinished: &str) {
        let _ = self.delete(unfinished);
    }
}

fn method(name: &str) -> Result<Method, Failure> {
    Method::from_bytes(name.as_bytes()).map_err(|e| Failure::new(StoreErrorKind::Other, e.to_string()))
}

/// `bytes 5-9/10`: the whole size, if the part begins where it should and goes to the end.
fn range_total(range: &str, offset: u64) -> Option<u64> {
    let (part, total) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first == offset && last.checked_add(1) == Some(total)).then_some(total)
}

/// Whatever ends a body early is a broken connection.
struct BodyReader<R>(R);

impl<R: Read> Read for BodyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| broken_body(&e).into())
    }
}

fn broken_body(error: &io::Error) -> Failure {
    Failure::unreachable(format!("the reply broke off: {error}"))
}

fn escape(part: &str) -> String {
    utf8_percent_encode(part, ESCAPED).to_string()
}

fn of(error: &ureq::Error) -> Failure {
    let text = error.to_string();
    let kind = match error {
        _ if tls::is_distrust(&text) => StoreErrorKind::Denied,
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Tls(_) => StoreErrorKind::Unreachable,
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => StoreErrorKind::Unusable,
        _ => StoreErrorKind::Other,
    };
    Failure::new(kind, text.trim_start_matches("io: "))
}

fn refusal(answer: &Response<Body>, missing: StoreErrorKind) -> Failure {
    let status = answer.status();
    let kind = match status.as_u16() {
        401 | 403 | 407 => StoreErrorKind::Denied,
        404 | 410 => missing,
        // What a GET of a folder gets.
        405 if missing == StoreErrorKind::NotFound => missing,
        300..=399 if missing == StoreErrorKind::NotFound && location(answer).is_some_and(|l| l.ends_with('/')) => missing,
        408 | 425 | 429 | 500 | 502 | 503 | 504 => StoreErrorKind::Unreachable,
        300..=399 | 405 | 501 => StoreErrorKind::Unusable,
        _ => StoreErrorKind::Other,
    };
    let hint = match status.as_u16() {
        401 if offers_no_basic(answer) => " (the server takes no passwords by the Basic scheme)".to_owned(),
        401 => " (check user and password)".to_owned(),
        300..=399 => {
            let target = location(answer).unwrap_or("another address");
            let shown = target.rsplit_once('@').map_or(target, |(_, place)| place);
            format!(" (the server redirects to {shown}: use that URL)")
        }
        _ => String::new(),
    };
    Failure::new(kind, format!("{status}{hint}"))
}

fn location(answer: &Response<Body>) -> Option<&str> {
    answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok())
}

fn offers_no_basic(answer: &Response<Body>) -> bool {
    let mut offers = answer.headers().get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).peekable();
    offers.peek().is_some() && !offers.any(|v| v.to_ascii_lowercase().contains("basic"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ranges_must_be_those_asked_for() {
        assert_eq!(range_total("bytes 5-9/10", 5), Some(10));
        for range in ["bytes 0-9/10", "bytes 5-8/10", "bytes 5-9/*", "items 5-9/10", "bytes */10", ""] {
            assert_eq!(range_total(range, 5), None, "{range}");
        }
        assert_eq!(range_total("bytes 5-18446744073709551615/10", 5), None);
    }

    #[test]
    fn escapes_names() {
        assert_eq!(escape("a b+ü%#?.gz"), "a%20b%2B%C3%BC%25%23%3F.gz");
    }

    #[test]
    fn shows_no_secrets() {
        let server = Server {
            user: Some("u".into()),
            password: Some(Zeroizing::new("hush".into())),
            host: "::1".into(),
            port: Some(1),
            path: "a b//c/".into(),
        };
        let options = Options { pause: Duration::from_secs(1), ..Options::default() };
        let dav = Dav::new(&server, Tls::Off, &options).unwrap();
        assert_eq!(format!("{dav:?}"), "Dav { url: \"http://[::1]:1/a%20b/c/\", .. }");
    }
}
