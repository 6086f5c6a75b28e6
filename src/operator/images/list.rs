//! Lists the pods of all namespaces page by page, and of each no more than which images it runs where.
//! It must never keep pods, nor watch them: they are most of what a cluster has, and what they hold is nobody's business here.

use futures::AsyncReadExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as FullPod;
use kube::api::ListParams;
use kube::{Client, Resource};
use serde::Deserialize;

use super::reference::RunningImage;
use crate::operator::call::{Action, CallError, Target, call};
use crate::operator::metrics::Metrics;

/// How many pods are asked for at once.
pub const PAGE: u32 = 500;
/// The longest page that is read, in bytes.
const LONGEST_PAGE: u64 = 64 * 1024 * 1024;

/// A page of a list.
#[derive(Debug, Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Option<Vec<Pod>>,
}

#[derive(Debug, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// What is decoded of a pod.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    start_time: Option<Timestamp>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    image: String,
    #[serde(default, rename = "imageID")]
    image_id: String,
    #[serde(default)]
    state: State,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    running: Option<Started>,
    terminated: Option<Started>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    #[serde(default)]
    started_at: Option<Timestamp>,
}

/// A container as it was found.
pub(super) struct Container {
    /// What it runs.
    pub(super) image: RunningImage,
    /// When its image may have been fetched at the earliest, where that is known: a container that is started again in its
    /// pod has it already.
    pub(super) since: Option<Timestamp>,
}

impl Pod {
    /// The node that it is on; empty where it is on none.
    pub(super) fn node(&self) -> &str {
        &self.spec.node_name
    }

    /// Whether it runs, or is about to.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Its containers that have their images.
    pub(super) fn containers(&self) -> impl Iterator<Item = Container> {
        let Status { start_time, container_statuses, init_container_statuses, ephemeral_container_statuses, .. } =
            &self.status;
        let all = init_container_statuses.iter().chain(container_statuses);
        let of_pod = all.map(|status| (status, *start_time));
        // A container that is put into a running pod is younger than it.
        let later = ephemeral_container_statuses.iter().map(|status| (status, None));
        of_pod.chain(later).filter_map(|(status, start_time)| {
            let started = status.state.running.as_ref().or(status.state.terminated.as_ref());
            Some(Container {
                image: RunningImage::of(&status.image, &status.image_id)?,
                since: start_time.or_else(|| started?.started_at),
            })
        })
    }
}

/// Hands over every pod of the cluster, once.
///
/// # Errors
/// When a page could not be had; what came before it was handed over.
pub(super) async fn for_each(client: &Client, metrics: &Metrics, mut take: impl FnMut(&Pod)) -> Result<(), CallError> {
    let mut next = None;
    loop {
        let request = page(client, next.as_deref());
        let page = call(metrics, Action::List, Target::new("pods of all namespaces", "", ""), request).await?;
        page.items.iter().flatten().for_each(&mut take);
        next = page.metadata.next.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(());
        }
    }
}

/// One page. It is decoded here, because the client would log a page that it cannot decode, with all that pods hold.
async fn page(client: &Client, next: Option<&str>) -> kube::Result<Page> {
    let mut parameters = ListParams::default().limit(PAGE);
    parameters.continue_token = next.map(ToOwned::to_owned);
    let path = FullPod::url_path(&(), None);
    let request = kube::core::Request::new(path).list(&parameters).map_err(kube::Error::BuildRequest)?;
    let body = client.request_stream(request).await?;
    let mut bytes = Vec::new();
    body.take(LONGEST_PAGE).read_to_end(&mut bytes).await.map_err(kube::Error::ReadEvents)?;
    serde_json::from_slice(&bytes).map_err(kube::Error::SerdeError)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_tells_which_images_it_runs_and_since_when_it_may_have_fetched_them() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let status = |letter: &str, state: Value| json!({"name": letter, "image": format!("example.com/{letter}"), "imageID": format!("example.com/{letter}@{}", digest(letter)), "state": state, "ready": true});
        let running = |time: &str| json!({"running": {"startedAt": time}});
        let found = pod(json!({
            "metadata": {"name": "x", "managedFields": [{}]},
            "spec": {"nodeName": "a", "containers": [{"name": "a", "env": [{"name": "PASSWORD", "value": "secret"}]}]},
            "status": {
                "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                "initContainerStatuses": [status("a", json!({"terminated": {"startedAt": "2026-01-01T00:00:10Z", "exitCode": 0}}))],
                "containerStatuses": [status("b", running("2026-01-02T00:00:00Z")), {"name": "c", "image": "c", "imageID": "", "state": {"waiting": {}}}],
                "ephemeralContainerStatuses": [status("d", running("2026-01-03T00:00:00Z"))],
            },
        }));
        let containers: Vec<_> = found.containers().collect();
        let seen: Vec<_> = containers
            .iter()
            .map(|container| (container.image.digest.to_string(), container.since.unwrap().to_string()))
            .collect();
        let expected = [("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), ("d", "2026-01-03T00:00:00Z")];
        assert_eq!(seen, expected.map(|(letter, time)| (digest(letter), time.to_owned())));
        assert!(found.is_alive());
        assert_eq!(found.node(), "a");
    }

    #[test]
    fn a_pod_that_has_hardly_begun_or_has_ended_is_read_too() {
        let begun = pod(json!({"metadata": {}, "spec": {}, "status": {"phase": "Pending"}}));
        assert!(begun.is_alive() && begun.node().is_empty() && begun.containers().next().is_none());
        for phase in ["Succeeded", "Failed"] {
            assert!(!pod(json!({"status": {"phase": phase}})).is_alive());
        }
    }
}
