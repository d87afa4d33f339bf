//! Forms, whole and broken, however they are cut.

use axum::body::Body;
use futures::stream;
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const WANTED: &[&str] = &["path", "mode"];

fn incoming(bytes: &[u8], cut: usize) -> Incoming {
    let pieces: Vec<_> =
        bytes.chunks(cut.max(1)).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    Incoming::new(&HeaderMap::new(), Body::from_stream(stream::iter(pieces)), 1 << 20).unwrap()
}

fn headers(content_type: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())])
}

/// The fields of a form, and its file.
type Filled = (Vec<(&'static str, String)>, Vec<u8>);

fn read(bytes: &[u8], cut: usize) -> ApiResult<Filled> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let form = Form::new(&headers("multipart/form-data; boundary=\"b o\""), incoming(bytes, cut))?;
        let (fields, mut file) = form.fields(WANTED).await?;
        let mut content = Vec::new();
        while let Some(piece) = file.next_piece().await? {
            content.extend_from_slice(&piece);
        }
        Ok((fields, content))
    })
}

fn part(head: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--b o\r\nContent-Disposition: form-data; {head}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = parts.concat();
    whole.extend_from_slice(b"--b o--\r\n");
    whole
}

proptest! {
    #[test]
    fn a_form_is_read_however_it_is_cut(content: Vec<u8>, cut in 1usize..40) {
        let whole = form(&[
            part("name=\"path\"", "a/ü.bin".as_bytes()),
            part("name=other", b"ignored"),
            part("filename=\"x;name=\\\"path\\\"\"; name=\"file\"", &content),
            part("name=\"later\"", b"ignored"),
        ]);
        let (fields, read) = read(&whole, cut).unwrap();
        prop_assert_eq!(fields, [("path", "a/ü.bin".to_owned())]);
        prop_assert_eq!(read, content);
    }

    #[test]
    fn what_looks_like_a_boundary_is_content(cut in 1usize..40) {
        let content = b"\r\n--b\r\n--b \r\n-\r\n\r\n--B o--";
        let whole = form(&[part("name=\"file\"", content)]);
        prop_assert_eq!(read(&whole, cut).unwrap().1, content);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 1usize..40) {
        let _ = read(&bytes, cut);
        let _ = read(&[b"--b o\r\n", &bytes[..]].concat(), cut);
    }

    #[test]
    fn a_form_that_breaks_off_never_looks_whole(at in 0usize..100) {
        let whole = form(&[part("name=\"path\"", b"p"), part("name=\"file\"", b"content")]);
        let end = whole.len() - 4;
        prop_assert!(read(&whole[..at.min(end)], 7).is_err());
    }
}

#[test]
fn what_would_change_the_files_meaning_must_come_before_it() {
    let file = || part("name=\"file\"", b"x");
    let late = read(&form(&[file(), part("name=\"path\"", b"p")]), 9).unwrap_err();
    assert_eq!(late.details["errors"][0]["field"], "path");
    let twice = read(&form(&[file(), file()]), 9).unwrap_err();
    assert_eq!(twice.details["errors"][0]["field"], "file");
    let none = read(&form(&[part("name=\"path\"", b"p")]), 9).unwrap_err();
    assert_eq!(none.details["errors"][0]["field"], "file");
}

#[test]
fn every_bound_is_kept() {
    let long = "x".repeat(MAX_FIELD + 1);
    assert!(read(&form(&[part("name=\"path\"", long.as_bytes())]), 100).is_err());
    assert!(read(&form(&[part(&format!("name=\"{long}\""), b"")]), 100).is_err());
    let many: Vec<_> = (0..=MAX_PARTS).map(|_| part("name=a", b"")).collect();
    assert!(read(&form(&many), 100).is_err());
}

#[test]
fn only_forms_are_forms() {
    let refused = |kind| Form::new(&headers(kind), incoming(b"", 1)).err().unwrap().code;
    assert_eq!(refused("application/json"), Code::UnsupportedMediaType);
    assert_eq!(refused("multipart/mixed; boundary=x"), Code::UnsupportedMediaType);
    assert_eq!(refused("multipart/form-data"), Code::ValidationError);
    assert_eq!(refused(&format!("multipart/form-data; boundary={}", "x".repeat(71))), Code::ValidationError);
}
