//! One subscription to the daemon's events, shared by all who wait for a container to end, and what it tells of those
//! that somebody paused.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures::StreamExt as _;
use tokio::sync::broadcast;

use super::Inner;
use super::engine::Contact;
use super::names::own_filter;
use crate::driver::{ContainerRef, ContainerStatus, DriverError, end_words};

/// Most ends that a slow waiter may lag behind; past that it looks for itself.
const BACKLOG: usize = 1024;
/// What is listened for.
const EVENTS: [&str; 4] = ["die", "destroy", "pause", "unpause"];
/// How often the daemon is asked whether it still listens.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// How often a waiter looks for itself, whatever events say: after silence, and after a failed look.
const LOOK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));

/// What waiters are told.
#[derive(Debug, Clone)]
enum News {
    /// The container with this id ended or is gone.
    Ended(String),
    /// Something may have been missed.
    Unsure,
}

/// Tells of ends.
pub(super) struct Hub {
    instance: String,
    news: broadcast::Sender<News>,
    /// Ids of the containers that are paused now. They are all this instance's own, so no more than it runs.
    paused: Mutex<HashSet<String>>,
}

impl Hub {
    pub(super) fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), news: broadcast::channel(BACKLOG).0, paused: Mutex::default() }
    }

    /// Whether a container was last heard to be paused.
    pub(super) fn is_paused(&self, id: &str) -> bool {
        self.paused().contains(id)
    }

    fn paused(&self) -> MutexGuard<'_, HashSet<String>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which containers are paused: events tell only of changes.
    async fn find_paused(&self, contact: &Contact) -> Result<(), bollard::errors::Error> {
        let mut filters = own_filter(&self.instance);
        filters.insert("status".to_owned(), vec!["paused".to_owned()]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let found = contact.docker.list_containers(Some(options)).await?;
        *self.paused() = found.into_iter().filter_map(|container| container.id).collect();
        Ok(())
    }

    fn heard(&self, action: Option<&str>, id: String) {
        match action {
            Some("pause") => {
                self.paused().insert(id);
            }
            Some("unpause") => {
                self.paused().remove(&id);
            }
            // An end, whatever it is called.
            Some(_) | None => {
                self.paused().remove(&id);
                // Nobody may be waiting, which is no error.
                let _nobody = self.news.send(News::Ended(id));
            }
        }
    }

    /// Passes events on until the daemon is gone; says why it ended.
    pub(super) async fn follow(&self, contact: &Contact) -> String {
        let mut filters: HashMap<String, Vec<String>> = own_filter(&self.instance);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), EVENTS.map(str::to_owned).into());
        // From the daemon's own clock at the time it was probed: nothing falls between that look and this stream.
        let since = contact.facts.since.to_string();
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let mut events = Box::pin(contact.docker.events(Some(options)));
        // Nobody may be waiting, which is no error.
        let _nobody = self.news.send(News::Unsure);
        // What changes meanwhile is told by the events, which began before.
        match tokio::time::timeout(PING_LIMIT, self.find_paused(contact)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "no answer to a list".to_owned(),
        }
        loop {
            match tokio::time::timeout(HEARTBEAT, events.next()).await {
                Ok(Some(Ok(event))) => {
                    if let Some(id) = event.actor.and_then(|actor| actor.id) {
                        self.heard(event.action.as_deref(), id);
                    }
                }
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return "end of stream".to_owned(),
                Err(_) => match tokio::time::timeout(PING_LIMIT, contact.docker.ping()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "no answer to a ping".to_owned(),
                },
            }
        }
    }
}

impl Inner {
    /// Resolves when the container has ended. An absent or unwell daemon is not a death.
    pub(super) async fn until_ended(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        let mut news = self.hub.news.subscribe();
        loop {
            let (id, patience) = match self.look(container).await {
                Ok((ContainerStatus::Running, id)) => (id, LOOK.0),
                Ok((ended, _)) => return Ok(ended),
                Err(error) if error.is_away() => (None, LOOK.1),
                Err(error) => return Err(error),
            };
            let told = async {
                loop {
                    match news.recv().await {
                        Ok(News::Ended(which)) if id.as_ref().is_some_and(|id| *id != which) => {}
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                        // The hub lives as long as this driver.
                        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            // Either way it looks again: silence is bounded, so that one lost event does not last.
            let _silence = tokio::time::timeout(patience, told).await;
        }
    }

    /// How a container is now, and its id.
    pub(super) async fn look(
        &self,
        container: &ContainerRef,
    ) -> Result<(ContainerStatus, Option<String>), DriverError> {
        let contact = self.engine.contact().await?;
        let key = self.key(container)?;
        match self.engine.call(contact.docker.inspect_container(&key, None)).await {
            Ok(found) if self.owns(found.config.as_ref().and_then(|c| c.labels.as_ref())) => {
                Ok((status(found.state.as_ref()), found.id))
            }
            // Somebody else took the name.
            Ok(_) => Ok((ContainerStatus::Missing, None)),
            Err(failure) if failure.is(404) => Ok((ContainerStatus::Missing, None)),
            // Whatever else it answers is no death either.
            Err(failure) => Err(failure.into_unwell(&format!("look at {}", container.name))),
        }
    }
}

/// What the daemon says of a container's end, for a person.
fn status(state: Option<&bollard::models::ContainerState>) -> ContainerStatus {
    let Some(state) = state else { return ContainerStatus::Missing };
    if state.running == Some(true) {
        return ContainerStatus::Running;
    }
    let never = state.started_at.as_deref().is_none_or(|at| at.starts_with("0001-"));
    let reason = if never {
        state.error.clone().filter(|e| !e.is_empty()).unwrap_or_else(|| "not started".to_owned())
    } else if state.oom_killed == Some(true) {
        // Whatever the code: where the kernel ended the runtime's agent, its init ends in good order.
        "out of memory".to_owned()
    } else {
        end_words(state.exit_code)
    };
    ContainerStatus::Exited { reason }
}
