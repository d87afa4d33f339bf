//! The connection to the daemon: where it is, whether it is there, and what a failed request means.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::events::Hub;
use super::identity::Identity;
use super::probe::{self, Facts, Wanted};
use crate::driver::DriverError;

/// How long a daemon may take to say what it is.
const MEET_LIMIT: Duration = Duration::from_secs(3);
/// For how long nobody asks again after it did not.
const SULK: Duration = Duration::from_millis(500);
/// How often an absent daemon is looked for, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Between two contacts that broke at once.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest text of a daemon's error that is passed on.
const MAX_MESSAGE: usize = 600;

/// Where the daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A unix socket.
    Unix(String),
    /// TCP without encryption.
    Tcp(String),
    /// TCP with TLS, and the directory of `ca.pem`, `cert.pem` and `key.pem`.
    Tls(String, PathBuf),
}

impl Address {
    /// From the configuration, else from the standard variables, else the standard socket.
    pub(super) fn find(
        configured: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let host = configured.map(str::to_owned).or_else(|| variable("DOCKER_HOST"));
        let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        if let Some(path) = host.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.to_owned())),
                false => Err(format!("{host} is not an absolute path: write unix:///PATH")),
            };
        }
        let (tls, rest) = match (host.strip_prefix("tcp://"), host.strip_prefix("http://")) {
            (Some(rest), _) => (variable("DOCKER_TLS_VERIFY").is_some(), rest),
            (_, Some(rest)) => (false, rest),
            _ => match host.strip_prefix("https://") {
                Some(rest) => (true, rest),
                None => return Err(format!("{host} is no daemon: write unix:///PATH or tcp://HOST:PORT")),
            },
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest.contains(['/', '@', '?']) {
            return Err(format!("{host} is no daemon: write tcp://HOST:PORT"));
        }
        if !tls {
            return Ok(Self::Tcp(rest.to_owned()));
        }
        let certificates = variable("DOCKER_CERT_PATH")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")))
            .ok_or("DOCKER_TLS_VERIFY is set: set DOCKER_CERT_PATH too")?;
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            let path = certificates.join(name);
            std::fs::File::open(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        }
        Ok(Self::Tls(rest.to_owned(), certificates))
    }

    /// True when the daemon is on another machine, as far as its address tells.
    pub(super) fn is_remote(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp(host) | Self::Tls(host, _) => {
                let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
                let name = name.trim_start_matches('[').trim_end_matches(']');
                name != "localhost"
                    && !name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    fn client(&self, timeout: Duration) -> Result<Docker, Error> {
        let seconds = timeout.as_secs().max(1);
        match self {
            Self::Unix(path) => Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION),
            Self::Tcp(host) => Docker::connect_with_http(host, seconds, API_DEFAULT_VERSION),
            Self::Tls(host, dir) => {
                let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| dir.join(name));
                Docker::connect_with_ssl(host, &key, &cert, &ca, seconds, API_DEFAULT_VERSION)
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Tls(host, _) => write!(f, "tcp://{host} (TLS)"),
        }
    }
}

/// A daemon that answered, and what it said of itself.
pub(super) struct Contact {
    pub(super) docker: Docker,
    pub(super) facts: Facts,
    /// Told when a request found this daemon gone.
    lost: Notify,
}

/// Why a request did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon is not there, or went away in the middle.
    Away(String),
    /// It did not answer in time.
    Slow(Duration),
    /// It answered that it will not, or the request or its answer makes no sense: that has the code 0.
    Refused { code: u16, message: String },
}

impl Failure {
    pub(super) fn of(error: Error, limit: Duration) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { code: status_code, message: shortened(message) }
            }
            Error::RequestTimeoutError => Self::Slow(limit),
            Error::DockerStreamError { error } => Self::Refused { code: 0, message: shortened(error) },
            Error::JsonDataError { message, .. } => {
                Self::Refused { code: 0, message: format!("an answer that is no answer: {message}") }
            }
            // Of the request itself: it never left, which says nothing of the daemon.
            local @ (Error::JsonSerdeError { .. }
            | Error::StrParseError { .. }
            | Error::StrFmtError { .. }
            | Error::HttpClientError { .. }
            | Error::URLEncodedError { .. }
            | Error::URLParseError { .. }
            | Error::InvalidURIError { .. }
            | Error::InvalidURIPartsError { .. }) => Self::Refused { code: 0, message: chain(&local) },
            other => Self::Away(chain(&other)),
        }
    }

    /// Whether it answered with this code.
    pub(super) fn is(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }

    /// Whether it answered with words among which are these.
    pub(super) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains(words))
    }

    /// Where the daemon was only asked to look: then a refusal says that it is unwell, and nothing of what was asked
    /// about.
    pub(super) fn into_unwell(self, what: &str) -> DriverError {
        match self {
            Self::Refused { message, .. } => DriverError::Unavailable {
                message: format!("the Docker daemon is unwell: {what}: {message}"),
                remedy: "look into the daemon's log".to_owned(),
            },
            other => other.into_error(what),
        }
    }

    /// For everyone outside the driver.
    pub(super) fn into_error(self, what: &str) -> DriverError {
        match self {
            Self::Away(reason) => away(format!("the Docker daemon went away: {reason}")),
            Self::Slow(limit) => DriverError::Timeout { what: format!("{what} (Docker)"), limit },
            Self::Refused { message, .. } => {
                DriverError::Io { what: what.to_owned(), source: io::Error::other(message) }
            }
        }
    }
}

fn away(message: String) -> DriverError {
    let remedy = "start the daemon, or say where it is with docker.host or DOCKER_HOST".to_owned();
    DriverError::Unavailable { message, remedy }
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message.trim_end().to_owned()
}

/// An error with all that caused it: hyper's own says only `client error (Connect)`.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    shortened(text)
}

/// The daemon, there or not.
pub(super) struct Engine {
    pub(super) address: Address,
    /// How long one request may take.
    pub(super) limit: Duration,
    wanted: Wanted,
    contact: ArcSwapOption<Contact>,
    /// Held by whoever looks for the daemon; when and why that last failed.
    meeting: Mutex<Option<(Instant, String, String)>>,
    /// Which daemon has this Bay's lockers.
    identity: Identity,
}

impl Engine {
    pub(super) fn new(address: Address, limit: Duration, wanted: Wanted, identity: Identity) -> Self {
        Self { address, limit, wanted, contact: ArcSwapOption::empty(), meeting: Mutex::default(), identity }
    }

    /// What was last known, without asking.
    pub(super) fn known(&self) -> Option<Arc<Contact>> {
        self.contact.load_full()
    }

    /// The daemon; looks for it when it is not known to be there, for a few seconds at most.
    pub(super) async fn contact(&self) -> Result<Arc<Contact>, DriverError> {
        if let Some(contact) = self.known() {
            return Ok(contact);
        }
        let look = async {
            let mut last = self.meeting.lock().await;
            if let Some(contact) = self.known() {
                return Ok(contact);
            }
            if let Some((when, message, remedy)) = last.as_ref()
                && when.elapsed() < SULK
            {
                return Err(DriverError::Unavailable { message: message.clone(), remedy: remedy.clone() });
            }
            let met = self.meet().await;
            match &met {
                Ok(contact) => self.contact.store(Some(Arc::clone(contact))),
                Err(DriverError::Unavailable { message, remedy }) => {
                    *last = Some((Instant::now(), message.clone(), remedy.clone()));
                }
                Err(_) => {}
            }
            met
        };
        match tokio::time::timeout(2 * MEET_LIMIT, look).await {
            Ok(found) => found,
            Err(_) => Err(away(format!("the Docker daemon at {} does not answer", self.address))),
        }
    }

    async fn meet(&self) -> Result<Arc<Contact>, DriverError> {
        let meet = async {
            let docker = self.address.client(self.limit)?.negotiate_version().await?;
            let info = docker.info().await?;
            Ok::<_, Error>((docker, info))
        };
        let no_daemon =
            |reason: &str| away(format!("there is no Docker daemon at {}: {reason}", self.address));
        match tokio::time::timeout(MEET_LIMIT, meet).await {
            Ok(Ok((docker, info))) => {
                self.identity.check(&docker, &info, &self.address).await?;
                let facts = probe::facts(&docker, info, &self.address, &self.wanted).await?;
                Ok(Arc::new(Contact { docker, facts, lost: Notify::new() }))
            }
            Ok(Err(error)) => Err(no_daemon(&chain(&error))),
            Err(_) => Err(no_daemon("it does not answer")),
        }
    }

    /// One request, in bounded time. A daemon that went away is looked for from here on.
    pub(super) async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        self.call_for(self.limit, request).await
    }

    /// The same with a bound of its own.
    pub(super) async fn call_for<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let before = self.known();
        let failure = match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::of(error, limit),
            Err(_) => Failure::Slow(limit),
        };
        if matches!(failure, Failure::Away(_))
            && let Some(before) = before
        {
            self.lose(&before);
        }
        Err(failure)
    }

    /// Forgets the daemon until it answers again; one that was found since the request began is kept.
    fn lose(&self, contact: &Arc<Contact>) {
        self.contact.compare_and_swap(&Some(Arc::clone(contact)), None);
        contact.lost.notify_one();
    }

    /// Looks for the daemon for as long as the driver lives, tells of each change once, and follows its events.
    pub(super) async fn keep(self: Arc<Self>, hub: Arc<Hub>) {
        let mut there = None;
        let mut pause = RETRY.0;
        loop {
            match self.contact().await {
                Ok(contact) => {
                    if there != Some(true) {
                        let features = &contact.facts.features;
                        tracing::info!(
                            daemon = %self.address, version = %contact.facts.version,
                            api = %contact.docker.client_version(), connect = ?contact.facts.connect,
                            networks = ?features.networks, limits = %features.limits, "Docker daemon is there",
                        );
                        for note in &features.notes {
                            tracing::warn!("{note}");
                        }
                    }
                    (there, pause) = (Some(true), RETRY.0);
                    tokio::select! {
                        why = hub.follow(&contact) => tracing::debug!(why, "events of the Docker daemon ended"),
                        () = contact.lost.notified() => {}
                    }
                    self.lose(&contact);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    if there != Some(false) {
                        tracing::warn!(%error, "no Docker daemon; looking for it from time to time");
                    }
                    there = Some(false);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_the_variables_and_these_over_the_standard_socket() {
        let none = |_: &str| None;
        let host = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://10.0.0.9:2375".to_owned());
        assert_eq!(Address::find(None, none), Ok(Address::Unix("/var/run/docker.sock".to_owned())));
        assert_eq!(Address::find(None, host), Ok(Address::Tcp("10.0.0.9:2375".to_owned())));
        assert_eq!(Address::find(Some("unix:///x"), host), Ok(Address::Unix("/x".to_owned())));
        for bad in ["unix://x", "ssh://host", "tcp://", "tcp://a/b", "nonsense"] {
            assert!(Address::find(Some(bad), none).is_err(), "{bad}");
        }
    }

    #[test]
    fn tls_needs_its_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let variables = |name: &str| match name {
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "DOCKER_CERT_PATH" => Some(path.clone()),
            _ => None,
        };
        assert!(Address::find(Some("tcp://h:2376"), variables).unwrap_err().contains("ca.pem"));
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = Address::find(Some("tcp://h:2376"), variables).unwrap();
        assert_eq!(found, Address::Tls("h:2376".to_owned(), dir.path().to_owned()));
        assert!(found.is_remote());
        assert!(!Address::Tcp("127.0.0.1:2375".to_owned()).is_remote());
        assert!(!Address::Tcp("[::1]:2375".to_owned()).is_remote());
    }

    fn contact() -> Arc<Contact> {
        let facts = Facts {
            features: Arc::new(crate::driver::Features {
                isolation: bay_ship_api::init::Isolation::TwoUid,
                networks: Vec::new(),
                limits: String::new(),
                notes: Vec::new(),
            }),
            version: String::new(),
            connect: crate::config::Connect::Socket,
            own_container: None,
            root: None,
            runtimes: Vec::new(),
            cores: 1.0,
            enforces: true,
            own_addresses: Vec::new(),
            since: 0,
        };
        let docker = Docker::connect_with_http("127.0.0.1:9", 1, API_DEFAULT_VERSION).unwrap();
        Arc::new(Contact { docker, facts, lost: Notify::new() })
    }

    #[tokio::test]
    async fn only_the_daemon_that_a_request_began_with_is_lost_by_its_failure() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { connect: crate::config::Connect::Auto };
        let address = Address::Tcp("127.0.0.1:9".to_owned());
        let identity = Identity::open(dir.path()).unwrap();
        let engine = Engine::new(address, Duration::from_secs(5), wanted, identity);
        let broken = || Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let (old, new) = (contact(), contact());

        engine.contact.store(Some(Arc::clone(&old)));
        let found_meanwhile = async {
            engine.contact.store(Some(Arc::clone(&new)));
            Err::<(), _>(broken())
        };
        assert!(matches!(engine.call(found_meanwhile).await, Err(Failure::Away(_))));
        assert!(Arc::ptr_eq(&engine.known().unwrap(), &new));

        let local = async { Err::<(), _>(Error::StrFmtError { err: std::fmt::Error }) };
        assert!(engine.call(local).await.unwrap_err().is(0));
        assert!(engine.known().is_some());

        assert!(engine.call(async { Err::<(), _>(broken()) }).await.is_err());
        assert!(engine.known().is_none());
    }
}
