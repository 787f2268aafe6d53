//! Files that are written.

use compat::store::StoreErrorKind;
use ureq::SendBody;
use ureq::http::{Method, Request, header};

use super::{Dav, escape, method};
use crate::error::Failure;
use crate::spool::Spool;

impl Dav {
    fn url_of(&self, name: &str) -> String {
        format!("{}{}", self.url, escape(name))
    }

    /// Servers differ in whether half a PUT leaves half a file: the name comes last.
    pub(super) fn put_and_move(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        match self.put_whole(file, unfinished) {
            // Many servers hang up on a body that they do not want: only what is asked without one is answered.
            Err(failure) if failure.is_temporary() => return Err(self.look().err().unwrap_or(failure)),
            outcome => outcome?,
        }
        if let Some(found) = self.size(unfinished)?.filter(|found| *found != file.size()) {
            return Err(Failure::torn(found, file.size()));
        }
        let request = Request::builder().method(method("MOVE")?).uri(self.url_of(unfinished));
        let request = request.header("Destination", self.url_of(name)).header("Overwrite", "T");
        self.ask(request, (), StoreErrorKind::NoStore).map(drop)
    }

    fn put_whole(&self, file: &Spool, name: &str) -> Result<(), Failure> {
        let request = Request::builder().method(Method::PUT).uri(self.url_of(name));
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        let request = request.header(header::CONTENT_LENGTH, file.size());
        let mut reader = file.reader();
        match self.ask(request, SendBody::from_reader(&mut reader), StoreErrorKind::NoStore) {
            // By the letter a conflict: there is no such folder.
            Err(failure) if failure.message.starts_with("409") => Err(Failure { kind: StoreErrorKind::NoStore, ..failure }),
            outcome => outcome.map(drop),
        }
    }

    /// `None` if the server does not tell.
    fn size(&self, name: &str) -> Result<Option<u64>, Failure> {
        let request = Request::builder().method(Method::HEAD).uri(self.url_of(name));
        let answer = self.ask(request.header(header::ACCEPT_ENCODING, "identity"), (), StoreErrorKind::NotFound)?;
        let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        Ok(length.and_then(|v| v.trim().parse().ok()))
    }

    /// Whether the folder is there and the server lets us in.
    fn look(&self) -> Result<(), Failure> {
        let request = Request::builder().method(method("PROPFIND")?).uri(&self.url).header("Depth", "0");
        self.ask(request, (), StoreErrorKind::NoStore).map(drop)
    }

    /// A name of a folder would take all that is in it along: there are only names of files.
    pub(super) fn delete(&self, name: &str) -> Result<(), Failure> {
        let request = Request::builder().method(Method::DELETE).uri(self.url_of(name));
        self.ask(request, (), StoreErrorKind::NotFound).map(drop)
    }

    /// From the folder up to one that is there: not all that is above is for us to ask for.
    pub(super) fn make_collection(&self, url: &str) -> Result<(), Failure> {
        let make = || {
            let request = Request::builder().method(method("MKCOL")?).uri(url);
            self.ask(request, (), StoreErrorKind::NoStore).map(drop)
        };
        match make() {
            // Is there: somebody was faster.
            Err(failure) if failure.message.starts_with("405") => Ok(()),
            Err(failure) if failure.kind == StoreErrorKind::NoStore || failure.message.starts_with("409") => match parent(url) {
                None => Err(failure),
                Some(above) => self.make_collection(above).and_then(|()| make()),
            },
            outcome => outcome,
        }
    }
}

/// `None` for the root.
fn parent(url: &str) -> Option<&str> {
    let (above, _) = url.strip_suffix('/')?.rsplit_once('/')?;
    let above = &url[..=above.len()];
    (!above.ends_with("://")).then_some(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_in_folders() {
        assert_eq!(parent("http://h/a/b/"), Some("http://h/a/"));
        assert_eq!(parent("http://h/a/"), Some("http://h/"));
        assert_eq!(parent("http://h/"), None);
    }
}
