//! Error codes of a route, for its document.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
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

/// One response for each status, with an example for each code.
pub(crate) fn responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

fn response(codes: &[Code]) -> Response {
    let names: Vec<_> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let examples = codes.iter().map(|code| {
        let body = json!({ "error": {
            "code": code.as_str(), "message": "what happened and what to do", "retryable": false,
            "request_id": "019aa3c1-6f0e-7000-8000-000000000000", "details": {},
        } });
        let example = utoipa::openapi::example::ExampleBuilder::new().value(Some(body)).build();
        (code.as_str(), example)
    });
    let content = ContentBuilder::new().examples_from_iter(examples).build();
    ResponseBuilder::new().description(names.join(", ")).content("application/json", content).build()
}
