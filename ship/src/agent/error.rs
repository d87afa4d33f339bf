//! Errors as Ship answers them: a code of the REST contract, its status, and words for a person.

use std::io;

use bay_ship_api::http::{ErrorBody, ShipError};
use hyper::StatusCode;
use serde_json::{Value, json};

/// A call that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) details: Value,
}

/// The codes Ship uses, each with one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    ValidationError,
    InvalidPath,
    CapabilityNotSupported,
    IsADirectory,
    NotADirectory,
    PermissionDenied,
    NotFound,
    FileNotFound,
    MethodNotAllowed,
    Conflict,
    AlreadyExists,
    StateLost,
    PayloadTooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Busy,
    RuntimeError,
    StorageFull,
}

impl Code {
    /// The word in the answer, and its status.
    pub(crate) fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::ValidationError => ("validation_error", StatusCode::BAD_REQUEST),
            Self::InvalidPath => ("invalid_path", StatusCode::BAD_REQUEST),
            Self::CapabilityNotSupported => ("capability_not_supported", StatusCode::BAD_REQUEST),
            Self::IsADirectory => ("is_a_directory", StatusCode::BAD_REQUEST),
            Self::NotADirectory => ("not_a_directory", StatusCode::BAD_REQUEST),
            Self::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::FileNotFound => ("file_not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict => ("conflict", StatusCode::CONFLICT),
            Self::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
            Self::StateLost => ("state_lost", StatusCode::CONFLICT),
            Self::UnsupportedMediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::RangeNotSatisfiable => ("range_not_satisfiable", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::Busy => ("busy", StatusCode::TOO_MANY_REQUESTS),
            Self::RuntimeError => ("runtime_error", StatusCode::BAD_GATEWAY),
            Self::StorageFull => ("storage_full", StatusCode::INSUFFICIENT_STORAGE),
        }
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: json!({}) }
    }

    /// A field of the request that does not fit.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let details = json!({"errors": [{"field": field, "message": message}]});
        Self { code: Code::ValidationError, message: format!("{field}: {message}"), details }
    }

    /// A path that may not be used at all.
    pub(crate) fn path(field: &str, reason: &str, message: &str) -> Self {
        let details = json!({"field": field, "reason": reason});
        Self { code: Code::InvalidPath, message: message.to_owned(), details }
    }

    /// What the kernel said about a file.
    pub(crate) fn file(error: &io::Error) -> Self {
        let raw = error.raw_os_error();
        match raw {
            Some(libc::ENOENT) => Self::new(Code::FileNotFound, "there is no such file or directory"),
            Some(libc::EEXIST | libc::ENOTEMPTY) => {
                Self::new(Code::AlreadyExists, "there is something already")
            }
            Some(libc::EISDIR) => Self::new(Code::IsADirectory, "this is a directory"),
            Some(libc::ENOTDIR) => Self::new(Code::NotADirectory, "a part of the path is not a directory"),
            Some(libc::EACCES | libc::EPERM) => {
                Self::new(Code::PermissionDenied, "the sandbox's user may not do this here")
            }
            Some(libc::EROFS) => Self::new(Code::PermissionDenied, "this is read-only"),
            Some(libc::ENOSPC | libc::EDQUOT) => {
                Self::new(Code::StorageFull, "no space is left in the locker")
            }
            Some(libc::ENAMETOOLONG) => Self::field("path", "a name in it is too long"),
            Some(libc::ELOOP) => Self::field("path", "too many symbolic links"),
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                Self::new(Code::Busy, "too many files are open at once")
            }
            _ => Self::new(Code::RuntimeError, format!("the file system answered: {error}")),
        }
    }

    /// The body and its status.
    pub(crate) fn body(&self) -> (StatusCode, ErrorBody) {
        let (code, status) = self.code.parts();
        let error =
            ShipError { code: code.to_owned(), message: self.message.clone(), details: self.details.clone() };
        (status, ErrorBody { error })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::file(&error)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::file(&error.into())
    }
}
