//! Images: there, fetched, or an error that says what to do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::Inner;
use super::engine::{Contact, Failure};
use crate::driver::{DriverError, Progress, PullPolicy};
use crate::time::now_ms;

/// How often progress is logged.
const TELL: Duration = Duration::from_secs(1);

/// Most layers of which the sizes are kept: far more than an image can have.
const MAX_LAYERS: usize = 512;

/// The images that are being fetched.
#[derive(Default)]
pub(super) struct Pulls {
    all: Mutex<BTreeMap<String, Pull>>,
}

struct Pull {
    /// Starts that wait for it: the daemon fetches once for all of them.
    waiting: usize,
    since: i64,
    percent: Option<u64>,
}

impl Pulls {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Pull>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    pub(super) fn of(&self, image: &str) -> Option<Progress> {
        let all = self.all();
        let pull = all.get(image)?;
        let percent = pull.percent.map(|percent| format!(", {percent} %")).unwrap_or_default();
        Some(Progress { message: format!("fetching image {image}{percent}"), since: pull.since })
    }

    fn begin(&self, image: &str) -> Fetching<'_> {
        let mut all = self.all();
        let pull = all.entry(image.to_owned()).or_insert(Pull { waiting: 0, since: now_ms(), percent: None });
        pull.waiting += 1;
        Fetching { pulls: self, image: image.to_owned(), layers: HashMap::new() }
    }
}

/// One start that waits for an image.
struct Fetching<'a> {
    pulls: &'a Pulls,
    image: String,
    /// Of each layer what has come and what it has in all.
    layers: HashMap<String, (i64, i64)>,
}

impl Fetching<'_> {
    /// Takes what the daemon says of one layer; how much of all that is known has come.
    fn step(&mut self, step: &CreateImageInfo) -> Option<u64> {
        if step.status.as_deref() == Some("Downloading")
            && let (Some(layer), Some(detail)) = (&step.id, &step.progress_detail)
            && let (Some(current), Some(total)) = (detail.current, detail.total)
            && (self.layers.len() < MAX_LAYERS || self.layers.contains_key(layer))
        {
            self.layers.insert(layer.clone(), (current.max(0), total.max(0)));
        }
        let sum = |part: fn(&(i64, i64)) -> i64| {
            self.layers.values().fold(0_i64, |sum, layer| sum.saturating_add(part(layer)))
        };
        let (current, total) = (sum(|layer| layer.0), sum(|layer| layer.1));
        let percent = current.saturating_mul(100).checked_div(total)?;
        let percent = u64::try_from(percent.clamp(0, 100)).ok();
        if let Some(pull) = self.pulls.all().get_mut(&self.image) {
            pull.percent = percent;
        }
        percent
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        let mut all = self.pulls.all();
        if let Some(pull) = all.get_mut(&self.image) {
            pull.waiting -= 1;
            if pull.waiting == 0 {
                all.remove(&self.image);
            }
        }
    }
}

impl Inner {
    /// Sees to it that an image is there, and returns the names of the variables it sets.
    pub(super) async fn image(
        &self,
        contact: &Contact,
        image: &str,
        policy: PullPolicy,
    ) -> Result<Vec<String>, DriverError> {
        let error = |reason: String| DriverError::Image { image: image.to_owned(), reason };
        let mut there = self.image_variables(contact, image).await?;
        if there.is_none() && policy == PullPolicy::Never {
            let text = "it is not there, and image_pull_policy is \"never\": docker pull it, or build it";
            return Err(error(text.to_owned()));
        }
        if there.is_none() || policy == PullPolicy::Always {
            match self.pull(contact, image).await {
                Ok(()) => there = self.image_variables(contact, image).await?,
                Err(reason) if there.is_some() => {
                    tracing::warn!(image, reason, "could not fetch the image; taking what is there");
                }
                Err(reason) => {
                    // The words name registries, proxies and accounts: they are the operator's.
                    tracing::warn!(image, reason, "could not fetch the image");
                    return Err(error("it is not there and cannot be fetched; see Bay's log".to_owned()));
                }
            }
        }
        there.ok_or_else(|| error("it was fetched and is not there".to_owned()))
    }

    async fn image_variables(
        &self,
        contact: &Contact,
        image: &str,
    ) -> Result<Option<Vec<String>>, DriverError> {
        match self.engine.call(contact.docker.inspect_image(image)).await {
            Ok(found) => {
                let variables = found.config.and_then(|config| config.env).unwrap_or_default();
                let name = |v: String| v.split_once('=').map(|(name, _)| name.to_owned());
                Ok(Some(variables.into_iter().filter_map(name).collect()))
            }
            Err(failure) if failure.is(404) => Ok(None),
            Err(failure) => Err(failure.into_error(&format!("look for image {image}"))),
        }
    }

    /// Fetches it; the error is for the log.
    async fn pull(&self, contact: &Contact, image: &str) -> Result<(), String> {
        let (name, tag) = reference(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress = Box::pin(contact.docker.create_image(Some(options), None, None));
        let deadline = Instant::now() + self.pull_limit;
        let mut told: Option<Instant> = None;
        let mut fetching = self.pulls.begin(image);
        tracing::info!(image, "fetching an image");
        loop {
            let step = match tokio::time::timeout_at(deadline, progress.next()).await {
                Ok(None) => {
                    tracing::info!(image, "image fetched");
                    return Ok(());
                }
                Ok(Some(Ok(step))) => step,
                Ok(Some(Err(error))) => {
                    return Err(match Failure::of(error, self.pull_limit) {
                        Failure::Away(reason) => reason,
                        Failure::Slow(limit) => format!("no answer within {limit:?}"),
                        Failure::Refused { message, .. } => message,
                    });
                }
                Err(_) => {
                    return Err(format!("it took longer than docker.pull_timeout {:?}", self.pull_limit));
                }
            };
            if let Some(detail) = step.error_detail {
                return Err(detail.message.unwrap_or_else(|| "no reason given".to_owned()));
            }
            let percent = fetching.step(&step);
            if told.is_none_or(|at| at.elapsed() >= TELL) {
                told = Some(Instant::now());
                tracing::info!(image, layer = step.id, step = step.status, percent, "fetching an image");
            }
        }
    }
}

/// Name and tag: without a tag the daemon would fetch every one there is.
fn reference(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    let last = image.rfind('/').map_or(0, |at| at + 1);
    match image.get(last..).and_then(|name| name.find(':')) {
        Some(at) => (image.get(..last + at).unwrap_or(image), image.get(last + at + 1..).unwrap_or("latest")),
        None => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_of_all_layers_and_goes_with_the_last_who_waits() {
        let pulls = Pulls::default();
        let step = |layer: &str, current, total| CreateImageInfo {
            id: Some(layer.to_owned()),
            status: Some("Downloading".to_owned()),
            progress_detail: Some(bollard::models::ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut first = pulls.begin("a:1");
        let second = pulls.begin("a:1");
        assert_eq!(pulls.of("a:1").unwrap().message, "fetching image a:1");
        assert_eq!(first.step(&step("x", Some(50), Some(100))), Some(50));
        assert_eq!(first.step(&step("y", Some(0), Some(100))), Some(25));
        assert_eq!(first.step(&step("z", None, None)), Some(25));
        assert_eq!(pulls.of("a:1").unwrap().message, "fetching image a:1, 25 %");
        assert_eq!(pulls.of("b:1"), None);
        drop(first);
        assert!(pulls.of("a:1").is_some(), "somebody still waits");
        drop(second);
        assert_eq!(pulls.of("a:1"), None);
    }

    #[test]
    fn a_tag_is_what_follows_the_last_component() {
        assert_eq!(reference("node"), ("node", "latest"));
        assert_eq!(reference("node:22"), ("node", "22"));
        assert_eq!(reference("host:5000/a/b"), ("host:5000/a/b", "latest"));
        assert_eq!(reference("host:5000/a/b:c"), ("host:5000/a/b", "c"));
        assert_eq!(reference("a@sha256:00"), ("a@sha256:00", ""));
    }
}
