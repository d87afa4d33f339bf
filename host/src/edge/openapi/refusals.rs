//! Error codes of a route, for its document.

use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::Example;
use utoipa::openapi::{RefOr, Response, ResponseBuilder};

use crate::error::Code;

/// Declares a type that stands in a handler's `responses(...)` for the codes it refuses with.
macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident: $($code:ident),+ $(,)?) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl ::utoipa::IntoResponses for $name {
            fn responses() -> ::std::collections::BTreeMap<String, ::utoipa::openapi::RefOr<::utoipa::openapi::Response>> {
                $crate::edge::openapi::responses(&[$($crate::error::Code::$code),+])
            }
        }
    };
}
pub(crate) use refusals;

/// One response for each status, with each code that it may have.
pub(crate) fn responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

/// The names of its codes alone; what else such an answer says `errors` writes once the document is put together.
fn response(codes: &[Code]) -> Response {
    let examples = codes.iter().map(|code| (code.as_str(), Example::default()));
    let content = ContentBuilder::new().examples_from_iter(examples).build();
    ResponseBuilder::new().content("application/json", content).build()
}
