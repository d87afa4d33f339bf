//! Compresses JSON that is worth it.
//!
//! Only whole JSON answers: a stream must not wait for a block to fill, and a download is what it is. Nothing that
//! says `Cache-Control: no-store`, which every answer with a secret does: the length of a compressed answer that holds
//! both a secret and what somebody else chose tells of the secret (the attack known as BREACH).

use http::{HeaderMap, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};

/// Below this the head and the work cost more than is saved.
const WORTH_IT: u16 = 1024;

/// The layer.
pub fn gzip() -> CompressionLayer<And<SizeAbove, Compressible>> {
    // Fast rather than small: it runs where requests are answered.
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(WORTH_IT.into()).and(Compressible))
}

/// Whether an answer may be compressed at all.
#[derive(Debug, Clone, Copy)]
pub struct Compressible;

impl Predicate for Compressible {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        let headers = response.headers();
        is_json(headers) && !is_secret(headers) && !headers.contains_key(header::CONTENT_DISPOSITION)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn is_secret(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(header::CACHE_CONTROL).iter();
    said.any(|said| said.to_str().is_ok_and(|said| said.contains("no-store")))
}
