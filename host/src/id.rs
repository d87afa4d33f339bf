//! Public ids: a prefix and a ULID in lower case, and the names drivers get from them.

use ulid::Ulid;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sbx_`
    Sandbox,
    /// `ses_`, never shown to clients
    Session,
    /// `lkr_`
    Locker,
    /// `exe_`
    Execution,
    /// `key_`
    Key,
    /// `fsb_`: the sandbox that serves a locker's files and nothing else; never shown to clients
    Files,
    /// `aud_`
    Audit,
}

impl Kind {
    /// The prefix with its underscore.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Sandbox => "sbx_",
            Self::Session => "ses_",
            Self::Locker => "lkr_",
            Self::Execution => "exe_",
            Self::Key => "key_",
            Self::Files => "fsb_",
            Self::Audit => "aud_",
        }
    }

    /// A fresh id.
    pub fn mint(self) -> String {
        format!("{}{}", self.prefix(), Ulid::generate().to_string().to_lowercase())
    }

    /// Whether `text` has the form of such an id. What has not is never looked up, logged or joined to a path.
    pub fn is(self, text: &str) -> bool {
        text.strip_prefix(self.prefix()).is_some_and(|ulid| {
            ulid.len() == 26 && ulid.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
    }
}

/// The driver's name of a session's container: ids have an underscore, which not every engine allows.
pub fn container_name(session: &str, generation: u64, role: &str) -> String {
    format!("bay-{}-{generation}-{role}", session.replace('_', "-"))
}

/// Bay's id of a request.
pub fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_id_has_its_own_form_and_no_other() {
        let id = Kind::Sandbox.mint();
        assert!(Kind::Sandbox.is(&id), "{id}");
        assert!(!Kind::Locker.is(&id));
        for bad in ["sbx_", "sbx_../../etc", "sbx_01ARZ3NDEKTSV4RRFFQ69G5FAV", ""] {
            assert!(!Kind::Sandbox.is(bad), "{bad}");
        }
    }
}
