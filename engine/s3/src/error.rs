//! What the SDK's errors and the servers' codes mean.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use engine::backend::ErrorKind;

/// A failed request, in the engine's terms.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ErrorKind,
    /// HTTP status, 0 if there was no answer.
    pub status: u16,
    /// The server's code, or empty.
    pub code: String,
    /// One line for people, naming status and code.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, status: 0, code: String::new(), message: message.into() }
    }

    /// No answer within the time allowed.
    pub(crate) fn no_answer(seconds: f64) -> Self {
        Self::new(ErrorKind::Timeout, format!("no answer within {seconds:.0} s"))
    }

    /// A conditional write met an object.
    pub(crate) fn is_precondition(&self) -> bool {
        self.status == 412 || self.code == "PreconditionFailed"
    }

    /// Another conditional write was under way; not an answer yet.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == 409 && matches!(self.code.as_str(), "ConditionalRequestConflict" | "OperationAborted" | "")
    }

    /// The server does not know a header of the request.
    pub(crate) fn is_not_implemented(&self) -> bool {
        self.status == 501 || self.code == "NotImplemented"
    }

    /// The server did not understand how the body was checksummed, or the body arrived damaged.
    pub(crate) fn is_checksum_complaint(&self) -> bool {
        self.status == 400
            && (matches!(self.code.as_str(), "XAmzContentSHA256Mismatch" | "MissingContentMD5")
                || (self.code == "InvalidRequest" && self.message.to_ascii_lowercase().contains("checksum")))
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        if let Some(failure) = credentials_failure(&error) {
            return failure;
        }
        let status = error.raw_response().map_or(0, |r| r.status().as_u16());
        match &error {
            SdkError::ServiceError(service) => {
                let answer = service.err();
                let code = one_line(answer.code().unwrap_or_default());
                let text = one_line(answer.message().unwrap_or_default());
                let kind = kind_of(status, &code);
                Self { kind, status, message: describe(kind, status, &code, &text), code }
            }
            SdkError::ConstructionFailure(_) => Self::new(ErrorKind::Unsupported, chain(&error)),
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => {
                let message = chain(&error);
                let message = message.trim_start_matches("dispatch failure: ").trim_start_matches("io error: ");
                // A certificate that is not trusted now will not be trusted in a minute.
                let distrust = message.contains("certificate");
                Self::new(if distrust { ErrorKind::Denied } else { ErrorKind::Timeout }, message)
            }
            _ => Self { kind: kind_of_garbage(status), status, code: String::new(), message: chain(&error) },
        }
    }
}

/// Trouble with getting credentials at all.
fn credentials_failure<E>(error: &SdkError<E, HttpResponse>) -> Option<Failure>
where
    E: StdError + Send + Sync + 'static,
{
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(credentials) = inner.downcast_ref::<CredentialsError>() {
            let (kind, text) = match credentials {
                CredentialsError::CredentialsNotLoaded(_) => (ErrorKind::Denied, "none found".to_owned()),
                CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                    (ErrorKind::Timeout, chain(credentials))
                }
                _ => (ErrorKind::Denied, chain(credentials)),
            };
            let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile";
            return Some(Failure::new(kind, format!("no usable credentials: {text} ({hint})")));
        }
        cause = inner.source();
    }
    None
}

/// The kind of an answer with status 300 or more.
fn kind_of(status: u16, code: &str) -> ErrorKind {
    match code {
        "NoSuchBucket" => return ErrorKind::NoStore,
        "NoSuchKey" => return ErrorKind::NotFound,
        "PreconditionFailed" => return ErrorKind::AlreadyExists,
        "SlowDown"
        | "ServiceUnavailable"
        | "TooManyRequests"
        | "ConditionalRequestConflict"
        | "OperationAborted"
        | "ThrottlingException"
        | "RequestLimitExceeded" => return ErrorKind::Throttled,
        "RequestTimeout" | "IncompleteBody" => return ErrorKind::Timeout,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidRange" => return ErrorKind::Corrupt,
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => return ErrorKind::Denied,
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "StorageFull" => return ErrorKind::NoSpace,
        "InternalError" => return ErrorKind::Other,
        _ => {}
    }
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        408 | 502 | 504 => ErrorKind::Timeout,
        412 => ErrorKind::AlreadyExists,
        416 => ErrorKind::Corrupt,
        409 | 429 | 503 => ErrorKind::Throttled,
        507 => ErrorKind::NoSpace,
        501 | 300..=499 => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

/// The kind of an answer that could not be read.
fn kind_of_garbage(status: u16) -> ErrorKind {
    match status {
        0..300 => ErrorKind::Corrupt,
        status => kind_of(status, ""),
    }
}

fn describe(kind: ErrorKind, status: u16, code: &str, text: &str) -> String {
    let mut message = format!("{status}");
    for part in [code, text].iter().filter(|p| !p.is_empty()) {
        message.push_str(if message.contains(' ') { ": " } else { " " });
        message.push_str(part);
    }
    let hint = match (kind, code, status) {
        (_, "InvalidObjectState", _) => "the object is in cold storage: have it restored first",
        (_, "RequestTimeTooSkewed", _) => "set this machine's clock",
        (_, "InvalidStorageClass", _) => "this server does not have the storage class",
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, _, 301 | 307) => "the bucket is in another region: set AWS_REGION",
        (ErrorKind::Denied, ..) => "check the credentials and what they may do",
        (ErrorKind::NoStore, ..) => "create the bucket first, or check its name and the endpoint",
        _ => return message,
    };
    format!("{message} ({hint})")
}

/// An error and what caused it, without saying anything twice.
fn chain(error: &dyn StdError) -> String {
    let mut message = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = one_line(&inner.to_string());
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = inner.source();
    }
    message
}

/// What a server sent, fit for one line of a terminal.
fn one_line(text: &str) -> String {
    const MAX: usize = 200;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_before_statuses() {
        for (status, code, kind) in [
            (404, "NoSuchBucket", ErrorKind::NoStore),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "", ErrorKind::NotFound),
            (403, "SignatureDoesNotMatch", ErrorKind::Denied),
            (403, "InvalidObjectState", ErrorKind::Denied),
            (403, "QuotaExceeded", ErrorKind::NoSpace),
            (400, "RequestTimeout", ErrorKind::Timeout),
            (400, "BadDigest", ErrorKind::Corrupt),
            (400, "ExpiredToken", ErrorKind::Denied),
            (400, "InvalidStorageClass", ErrorKind::Unsupported),
            (503, "SlowDown", ErrorKind::Throttled),
            (503, "", ErrorKind::Throttled),
            (429, "", ErrorKind::Throttled),
            (500, "InternalError", ErrorKind::Other),
            (501, "NotImplemented", ErrorKind::Unsupported),
            (412, "PreconditionFailed", ErrorKind::AlreadyExists),
            (416, "InvalidRange", ErrorKind::Corrupt),
        ] {
            assert_eq!(kind_of(status, code), kind, "{status} {code}");
        }
    }

    #[test]
    fn messages_are_one_line_with_a_hint() {
        let message = describe(ErrorKind::Denied, 403, "InvalidObjectState", "not now");
        assert_eq!(message, "403 InvalidObjectState: not now (the object is in cold storage: have it restored first)");
        assert_eq!(describe(ErrorKind::Throttled, 503, "", ""), "503");
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a b [31m");
    }
}
