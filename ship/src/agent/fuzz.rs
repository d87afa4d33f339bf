//! What reads requests, as functions of text; see [`crate::fuzz`].

use super::http::Query;
use super::range::Range;
use super::routes;

/// One parameter of a query, where it is given; `None` when the query is refused.
pub fn query(text: &str, name: &str) -> Option<Option<String>> {
    let query = Query::parse(text).ok()?;
    // Whatever is asked of it must not harm either.
    let _ = (query.number::<u64>(name), query.flag(name), query.required(name));
    Some(query.text(name).map(str::to_owned))
}

/// Offset and length that a `Range` header asks of a file of this size; `None` for the whole file or no part of it.
pub fn range(text: &str, size: u64) -> Option<(u64, u64)> {
    match Range::parse(text, size) {
        Range::Part(offset, length) => Some((offset, length)),
        Range::Whole | Range::Outside => None,
    }
}

/// The pattern of the route that takes a request, and what its `{…}` stands for; `None` when there is none.
pub fn route(method: &str, path: &str) -> Option<(&'static str, String)> {
    routes::find(method, path).ok().map(|(route, part)| (route.path, part))
}
