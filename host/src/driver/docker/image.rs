//! Images: there, fetched, or an error that says what to do.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::Inner;
use super::engine::{Contact, Failure};
use crate::driver::{DriverError, PullPolicy};

/// How often progress is logged.
const TELL: Duration = Duration::from_secs(1);

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
                Err(reason) => return Err(error(format!("it is not there and cannot be fetched: {reason}"))),
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

    /// Fetches it. The image is the operator's choice, so what the registry says may be told.
    async fn pull(&self, contact: &Contact, image: &str) -> Result<(), String> {
        let (name, tag) = reference(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress = Box::pin(contact.docker.create_image(Some(options), None, None));
        let deadline = Instant::now() + self.pull_limit;
        let mut told: Option<Instant> = None;
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
            if told.is_none_or(|at| at.elapsed() >= TELL) {
                told = Some(Instant::now());
                let detail = step.progress_detail.unwrap_or_default();
                let percent = detail.current.zip(detail.total.filter(|t| *t > 0)).map(|(c, t)| c * 100 / t);
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
    fn a_tag_is_what_follows_the_last_component() {
        assert_eq!(reference("node"), ("node", "latest"));
        assert_eq!(reference("node:22"), ("node", "22"));
        assert_eq!(reference("host:5000/a/b"), ("host:5000/a/b", "latest"));
        assert_eq!(reference("host:5000/a/b:c"), ("host:5000/a/b", "c"));
        assert_eq!(reference("a@sha256:00"), ("a@sha256:00", ""));
    }
}
