//! What the host says to plugins and hears from them, free of any WIT version.
//!
//! `abi` converts between these and the types of one WIT folder, so that callers never see a version.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Pairs of names and values: facts that may be added without breaking a plugin.
pub type Pairs = Vec<(String, String)>;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The tenant.
    pub tenant: String,
    /// The API key's id; none for an anonymous caller or Bay itself.
    pub key_id: Option<String>,
    /// What the key may do.
    pub scopes: Vec<String>,
}

/// What is known of the sandbox an action is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFacts {
    /// `sbx_…`.
    pub id: String,
    /// The client's own name for it.
    pub name: Option<String>,
    /// Its profile's id.
    pub profile: String,
    /// The client's labels.
    pub labels: Pairs,
    /// Grows with each new session; 0 before the first.
    pub session_seq: u64,
}

/// What is known of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFacts {
    /// Its id.
    pub id: String,
    /// Capabilities it declares: the ceiling, whatever a plugin says.
    pub capabilities: Vec<String>,
}

/// What a chain of rules is asked. The host adds the plugin's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// Who asks.
    pub principal: Principal,
    /// The sandbox it is about; none where there is none yet.
    pub sandbox: Option<SandboxFacts>,
    /// The profile of that sandbox, or of the one to be made.
    pub profile: ProfileFacts,
    /// A namespaced string, for instance `sandbox.create` or `capability.python.exec`.
    pub action: String,
    /// The request's body, defaults filled in.
    pub input: Value,
    /// Anything else, by name.
    pub facts: Pairs,
}

/// What one rules plugin answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go on to the next one.
    Allow,
    /// Stop.
    Deny {
        /// For the client.
        reason: String,
    },
    /// Go on with a changed input.
    Amend(
        /// A JSON merge patch (RFC 7396) for the input; always an object.
        Value,
    ),
}

/// One running or startable container of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Its name in the profile.
    pub name: String,
    /// The adapter its profile entry declares.
    pub adapter: String,
    /// Capabilities its profile entry declares.
    pub capabilities: Vec<String>,
    /// Capabilities it is the first choice for.
    pub primary_for: Vec<String>,
    /// From the last probe; none where nothing is known.
    pub healthy: Option<bool>,
}

/// What a router is asked. The host adds the plugin's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRequest {
    /// For instance `python`.
    pub capability: String,
    /// For instance `exec`.
    pub operation: String,
    /// The session's containers.
    pub containers: Vec<ContainerFacts>,
    /// The session's profile.
    pub profile: ProfileFacts,
    /// Anything else, by name.
    pub facts: Pairs,
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// A container of the request that declares the capability.
    pub container: String,
    /// That container's adapter.
    pub adapter: String,
    /// A tighter bound than the call's own.
    pub timeout_ms: Option<u32>,
    /// How often to try again where the call never reached the runtime; at most [`crate::MAX_RETRIES`].
    pub retries: u32,
}

/// What a router answers; the host has checked it against the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAnswer {
    /// There.
    Route(Route),
    /// Nowhere.
    Unroutable {
        /// For the client.
        reason: String,
    },
}

/// Facts that travel with a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// Bay's id of the request.
    pub request_id: String,
    /// `exe_…`, where the operation is recorded.
    pub execution_id: Option<String>,
    /// `sbx_…`.
    pub sandbox_id: String,
    /// The session's number.
    pub session_seq: u64,
    /// How long the whole operation may take.
    pub deadline_ms: u32,
    /// Anything else, by name.
    pub facts: Pairs,
}

/// One operation for an adapter. The host adds the plugin's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// For instance `python`.
    pub capability: String,
    /// For instance `exec`.
    pub operation: String,
    /// Valid against the operation's input schema, defaults filled in.
    pub input: Value,
    /// Facts that travel with it.
    pub context: CallContext,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer; after a `forward` the body has gone to the client already.
    Reply(Value),
    /// With a fault that the client shall see.
    Fail(Fault),
}

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// The fixed list of what can be wrong with a call; the words are the REST contract's codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum FaultKind { $($(#[$doc])* #[serde(rename = $word)] $name,)* }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word plugins use for it.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

fault_kinds! {
    /// The input does not fit.
    Validation = "validation_error";
    /// A path that is not one, or leaves the workspace.
    InvalidPath = "invalid_path";
    /// Something other than a file is missing.
    NotFound = "not_found";
    /// A path is missing.
    FileNotFound = "file_not_found";
    /// A file was expected.
    IsADirectory = "is_a_directory";
    /// A directory was expected.
    NotADirectory = "not_a_directory";
    /// The sandbox's user may not.
    PermissionDenied = "permission_denied";
    /// The state is not what the caller thought.
    Conflict = "conflict";
    /// It exists already.
    AlreadyExists = "already_exists";
    /// Over a size bound.
    PayloadTooLarge = "payload_too_large";
    /// A range outside the file.
    RangeNotSatisfiable = "range_not_satisfiable";
    /// No space left.
    StorageFull = "storage_full";
    /// The runtime's queue is full.
    Busy = "busy";
    /// The session or kernel that was named is gone.
    StateLost = "state_lost";
    /// This runtime cannot do it.
    NotSupported = "capability_not_supported";
    /// The runtime did not answer in time.
    Timeout = "timeout";
    /// The runtime answered wrongly or went away.
    Runtime = "runtime_error";
}

impl FaultKind {
    /// The kind a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.word() == word)
    }
}

/// Why an operation failed, as its adapter says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// From the fixed list.
    pub kind: FaultKind,
    /// The runtime's own code, for `details`.
    pub code: Option<String>,
    /// For a person.
    pub message: String,
    /// For a program; an object.
    pub details: Value,
}

/// What an adapter can do, checked by the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its capabilities.
    pub capabilities: Vec<CapabilitySpec>,
    /// Grants it asks for, by name. Nothing is granted by asking.
    pub wants: Vec<GrantWanted>,
}

/// A grant that a plugin asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantWanted {
    /// The name its requests use.
    pub name: String,
    /// Why, for the operator who decides.
    pub reason: String,
}

/// One capability.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CapabilitySpec {
    /// `[a-z0-9_]`, at most 40 characters.
    pub name: String,
    /// One line for a person.
    pub summary: String,
    /// Its operations.
    pub operations: Vec<OperationSpec>,
}

/// One operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationSpec {
    /// `[a-z0-9_]`, at most 40 characters.
    pub name: String,
    /// One line for a person.
    pub summary: String,
    /// JSON Schema (2020-12) of the input: an object.
    pub input_schema: Value,
    /// JSON Schema (2020-12) of the answer.
    pub output_schema: Value,
    /// Each call is an execution resource.
    pub records: bool,
    /// The answer may be a `forward`: bytes between client and runtime, past the plugin.
    pub streams: bool,
    /// The client may ask for a WebSocket.
    pub upgrade: bool,
    /// Repeating a call does no harm.
    pub safe: bool,
}

impl Manifest {
    /// Looks an operation up.
    pub fn operation(&self, capability: &str, operation: &str) -> Option<&OperationSpec> {
        self.capabilities
            .iter()
            .find(|c| c.name == capability)?
            .operations
            .iter()
            .find(|o| o.name == operation)
    }
}

/// Where a planned request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The runtime in the container that the router chose.
    #[default]
    Runtime,
    /// A host that the operator granted under this name.
    Granted(String),
}

/// A request that a plugin planned and the host checked. It holds no URL: whoever performs it encodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRequest {
    /// Where to.
    pub target: Target,
    /// Upper case, from a fixed list.
    pub method: String,
    /// Segments, not encoded; none is empty, `.` or `..`, or holds a NUL.
    pub path: Vec<String>,
    /// Pairs, not encoded.
    pub query: Pairs,
    /// Names in lower case, none that is the host's to set; values without line breaks.
    pub headers: Pairs,
    /// The body; a `forward` without one sends the caller's.
    pub body: Option<Vec<u8>>,
    /// How long this one may take; the host has bounded it by the operation's deadline.
    pub timeout_ms: Option<u32>,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedResponse {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Pairs,
    /// At most [`crate::Limits::max_response_bytes`].
    pub body: Vec<u8>,
}

/// How a `forward` ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardEnd {
    /// The runtime's status.
    pub status: u16,
    /// Bytes sent to the client.
    pub bytes: u64,
    /// `complete`, `client_gone` or `runtime_gone`; `refused` where the runtime answered neither 2xx nor 304
    /// and the client has been sent nothing.
    pub end: String,
    /// Of a `refused` answer, the first 64 KiB: the plugin turns it into a fault.
    pub refusal: Option<Vec<u8>>,
}
