//! The answer to PROPFIND (RFC 4918).

use compat::store::StoredFile;
use percent_encoding::percent_decode_str;
use roxmltree::{Document, Node, ParsingOptions};

use crate::MAX_FILES;
use crate::error::Failure;

const DAV: &str = "DAV:";
/// Elements and texts in all: bounds the memory.
const MAX_NODES: u32 = 8_000_000;

/// The files; folders, the asked one included, are left out.
pub(super) fn files(text: &str) -> Result<Vec<StoredFile>, Failure> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|e| Failure::nonsense(e.to_string()))?;
    let root = document.root_element();
    if !root.has_tag_name((DAV, "multistatus")) {
        return Err(Failure::nonsense("no multistatus"));
    }
    let files: Vec<_> = root.children().filter(|n| n.has_tag_name((DAV, "response"))).filter_map(file).collect();
    if files.len() > MAX_FILES {
        return Err(Failure::nonsense("a listing without end"));
    }
    Ok(files)
}

fn file(response: Node<'_, '_>) -> Option<StoredFile> {
    let href = child(response, "href")?.text()?.trim();
    let mut size = None;
    for propstat in response.children().filter(|n| n.has_tag_name((DAV, "propstat"))) {
        // One of the status lines is about what the server does not know.
        let status = child(propstat, "status").and_then(|n| n.text()).unwrap_or_default();
        let Some(properties) = child(propstat, "prop").filter(|_| status.contains(" 200")) else { continue };
        if child(properties, "resourcetype").is_some_and(|kind| child(kind, "collection").is_some()) {
            return None;
        }
        let length = child(properties, "getcontentlength").and_then(|n| n.text());
        size = size.or_else(|| length.and_then(|n| n.trim().parse().ok()));
    }
    let path = href.split(['?', '#']).next().unwrap_or_default();
    if path.ends_with('/') {
        return None;
    }
    let name = percent_decode_str(path.rsplit('/').next()?).decode_utf8().ok()?;
    Some(StoredFile { name: name.into_owned(), size })
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.has_tag_name((DAV, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(href: &str, properties: &str) -> String {
        format!(
            "<x:response><x:href>{href}</x:href><x:propstat><x:prop>{properties}</x:prop>\
             <x:status>HTTP/1.1 200 OK</x:status></x:propstat></x:response>"
        )
    }

    fn list(responses: &[String]) -> Result<Vec<StoredFile>, Failure> {
        files(&format!("<?xml version='1.0'?><x:multistatus xmlns:x='DAV:'>{}</x:multistatus>", responses.concat()))
    }

    #[test]
    fn lists_files() {
        let found = list(&[
            response("/d/", "<x:resourcetype><x:collection/></x:resourcetype>"),
            response("/d/sub", "<x:resourcetype><x:collection/></x:resourcetype>"),
            response("http://h/d/a%20%C3%BC+b", "<x:resourcetype/><x:getcontentlength>7</x:getcontentlength>"),
            response("/d/n", "<x:resourcetype/>"),
            response("/d/%ff", "<x:resourcetype/>"),
        ]);
        let file = |name: &str, size| StoredFile { name: name.to_owned(), size };
        assert_eq!(found.unwrap(), [file("a ü+b", Some(7)), file("n", None)]);
    }

    #[test]
    fn what_a_server_does_not_know_says_nothing() {
        let text = "<m:multistatus xmlns:m='DAV:'><m:response><m:href>/d/f</m:href>\
            <m:propstat><m:prop><m:getcontentlength>9</m:getcontentlength></m:prop><m:status>HTTP/1.1 404 Not Found</m:status></m:propstat>\
            </m:response></m:multistatus>";
        assert_eq!(files(text).unwrap(), [StoredFile { name: "f".into(), size: None }]);
    }

    #[test]
    fn refuses_what_is_no_listing() {
        assert!(files("<html/>").is_err());
        assert!(files("<multistatus/>").is_err());
        assert!(list(&["<x:response>".to_owned()]).is_err());
        let bomb = "<!DOCTYPE m [<!ENTITY a 'aaaa'>]><m:multistatus xmlns:m='DAV:'>&a;</m:multistatus>";
        assert!(files(bomb).is_err());
    }
}
