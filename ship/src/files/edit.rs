//! Replacing text within a file.

use std::sync::PoisonError;

use bay_ship_api::http::{EditFileRequest, EditFileResponse, MAX_FILE};
use rustix::fs::OFlags;
use serde_json::json;

use super::read::{open_regular, read_whole};
use super::resolve::{self, Parents};
use super::staging::Staged;
use super::write::{check_match, file_path, mode_for, writable_target};
use super::{Files, etag, size};
use crate::agent::error::{Code, Failure};

impl Files {
    /// `POST /fs/edit_file`. Ship's own writers wait; when user code changes the file between the reading and the
    /// end, that is a conflict and the change stays.
    pub(crate) fn edit_file(&self, request: &EditFileRequest) -> Result<EditFileResponse, Failure> {
        if request.old_string.is_empty() {
            return Err(Failure::field("old_string", "is empty"));
        }
        let path = file_path(&request.path)?;
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let (fd, before) = open_regular(&place, OFlags::RDONLY)?;
        check_match(request.if_match.as_deref(), Some(&before))?;
        let text = String::from_utf8(read_whole(fd, &before)?)
            .map_err(|_| Failure::field("path", "the file is not UTF-8"))?;
        let count = count(&text, &request.old_string, request.replace_all);
        if count == 0 || (count > 1 && !request.replace_all) {
            return Err(unfit(count));
        }
        // Checked before the text is made: a short text may be replaced very often by a long one.
        let removed = request.old_string.len().saturating_mul(count);
        let added = request.new_string.len().saturating_mul(count);
        if (text.len() - removed).saturating_add(added) as u64 > MAX_FILE {
            let message = format!("the file would have more than {MAX_FILE} bytes");
            return Err(Failure::new(Code::PayloadTooLarge, message));
        }
        let edited = text.replace(&request.old_string, &request.new_string);
        let mut staged = Staged::create(place)?;
        staged.write(edited.as_bytes())?;
        staged.settle(mode_for(None, Some(&before)))?;
        check_match(Some(&etag(&before)), writable_target(staged.place())?.as_ref())
            .map_err(|_| Failure::new(Code::Conflict, "something changed the file meanwhile"))?;
        let stat = staged.replace()?;
        Ok(EditFileResponse {
            status: "ok".to_owned(),
            path: request.path.clone(),
            replacements: count as u64,
            size: size(&stat),
            etag: etag(&stat),
        })
    }
}

/// How often `old` occurs without overlap; where it must be unique, an overlapping second time counts, too (`aa` is
/// twice in `aaa`).
fn count(text: &str, old: &str, all: bool) -> usize {
    let count = text.matches(old).count();
    if all || count != 1 {
        return count;
    }
    let first = text.find(old).unwrap_or(0);
    let next = text.ceil_char_boundary(first + 1);
    count + usize::from(text[next..].contains(old))
}

fn unfit(count: usize) -> Failure {
    let message = match count {
        0 => "old_string is not in the file".to_owned(),
        _ => {
            format!("old_string is in the file {count} times: give more of its surroundings, or replace_all")
        }
    };
    let mut failure = Failure::new(Code::Conflict, message);
    failure.details = json!({"field": "old_string", "count": count});
    failure
}
