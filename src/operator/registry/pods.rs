//! Says in words why a registry's pod does not answer yet. Pure.
//! It must never repeat text that changes by itself, such as a counter or a back-off: a status that changes without cause
//! is written without end.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::api::reason;

/// The reason and message of the condition `Available`. `lost_nodes` are the nodes of these pods that do not answer; `whose`
/// they are stands in the message.
#[must_use]
pub fn diagnosis(whose: &str, pods: &[Pod], lost_nodes: &[String]) -> (&'static str, String) {
    // The pod on a lost node holds the volume, whatever the one that is to replace it says.
    if let Some(trouble) = pods.iter().find_map(|pod| stranded(pod, lost_nodes)) {
        return (reason::ATTACHED_ELSEWHERE, trouble);
    }
    let alive = || pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    if let Some(trouble) = alive().find_map(|pod| unschedulable(whose, pod).or_else(|| stuck_container(whose, pod))) {
        return (reason::POD_FAILING, trouble);
    }
    let message = alive()
        .find_map(|pod| waiting_for_mounts(whose, pod))
        .or_else(|| alive().find_map(|pod| running_without_answer(whose, pod)))
        .unwrap_or_else(|| format!("The {whose}'s pod is starting"));
    (reason::POD_STARTING, message)
}

fn stranded(pod: &Pod, lost_nodes: &[String]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.as_ref().filter(|node| lost_nodes.contains(node))?;
    let name = pod.name_any();
    let has_volume = spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some());
    Some(if has_volume {
        format!(
            "Node {node} does not answer, and pod {name} on it may still write to the volume, so no other pod may. It goes on \
             when the node comes back. If its machine is off for good, say so, and the volume becomes free: kubectl taint \
             nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
        )
    } else {
        format!("Node {node} with pod {name} does not answer; Kubernetes starts another pod after some minutes")
    })
}

fn unschedulable(whose: &str, pod: &Pod) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled", "False")?;
    Some(format!("No node takes the {whose}'s pod: {}", scheduled.as_deref().unwrap_or("no reason given")))
}

/// The message of a pod's condition, if it has that status.
#[allow(clippy::option_option, reason = "the condition may be absent, and its message too")]
fn condition(pod: &Pod, kind: &str, status: &str) -> Option<Option<String>> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == status)?;
    Some(found.message.clone())
}

/// A Secret, config map or volume that is missing keeps the pod here, and only the pod's events tell which.
fn waiting_for_mounts(whose: &str, pod: &Pod) -> Option<String> {
    condition(pod, "PodScheduled", "True")?;
    condition(pod, "PodReadyToStartContainers", "False")?;
    let name = pod.name_any();
    Some(format!(
        "The {whose}'s pod {name} waits for its volume, Secrets or network. If this stays: kubectl describe pod {name}"
    ))
}

fn running_without_answer(whose: &str, pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| !status.ready)?;
    status.state.as_ref()?.running.as_ref()?;
    let name = pod.name_any();
    Some(format!(
        "Container {} of the {whose}'s pod {name} runs and does not answer yet. If this stays: kubectl logs {name} -c {}",
        status.name, status.name
    ))
}

fn stuck_container(whose: &str, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    statuses.into_iter().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let name = pod.name_any();
        let advice = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                format!("its image {} cannot be pulled", status.image)
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                format!("its container {} cannot be made: kubectl describe pod {name}", status.name)
            }
            "CrashLoopBackOff" => {
                let container = &status.name;
                format!(
                    "its container {container} ends again and again{}: kubectl logs {name} -c {container} --previous",
                    last_exit(status)
                )
            }
            _ => return None,
        };
        Some(format!("The {whose}'s pod does not run ({reason}): {advice}"))
    })
}

fn last_exit(status: &ContainerStatus) -> String {
    status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .map_or_else(String::new, |terminated| format!(" with exit code {}", terminated.exit_code))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(node: &str, volume: bool, status: &Value) -> Pod {
        let volumes =
            if volume { json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"name": "team-1"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn every_cause_is_told_apart() {
        let conditions = |list: Value| json!({ "conditions": list });
        let container = |state: Value| {
            json!({"containerStatuses": [{"name": "registry", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": {"terminated": {"exitCode": 7}}}]})
        };
        let (lost, crashing) = (vec!["gone".to_owned()], json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        for (pod, reason, said) in vec![
            (pod("gone", true, &json!({})), reason::ATTACHED_ELSEWHERE, "kubectl taint nodes gone"),
            (pod("gone", false, &json!({})), reason::ATTACHED_ELSEWHERE, "starts another pod"),
            (pod("a", true, &json!({})), reason::POD_STARTING, "is starting"),
            (
                pod("", true, &conditions(json!([{"type": "PodScheduled", "status": "False", "message": "no room"}]))),
                reason::POD_FAILING,
                "No node takes the registry's pod: no room",
            ),
            (
                pod(
                    "a",
                    true,
                    &conditions(json!([
                        {"type": "PodScheduled", "status": "True"}, {"type": "PodReadyToStartContainers", "status": "False"},
                    ])),
                ),
                reason::POD_STARTING,
                "waits for its volume, Secrets or network",
            ),
            (
                pod("a", true, &container(json!({"running": {}}))),
                reason::POD_STARTING,
                "kubectl logs team-1 -c registry",
            ),
            (
                pod("a", true, &container(crashing.clone())),
                reason::POD_FAILING,
                "again and again with exit code 7: kubectl logs team-1 -c registry --previous",
            ),
            (
                pod("a", true, &json!({"initContainerStatuses": container(crashing)["containerStatuses"]})),
                reason::POD_FAILING,
                "its container registry ends again and again",
            ),
            (
                pod("a", true, &container(json!({"waiting": {"reason": "ImagePullBackOff"}}))),
                reason::POD_FAILING,
                "its image i cannot be pulled",
            ),
            (
                pod("a", true, &container(json!({"waiting": {"reason": "ContainerCreating"}}))),
                reason::POD_STARTING,
                "is starting",
            ),
        ] {
            let (found, message) = diagnosis("registry", &[pod], &lost);
            assert_eq!(found, reason, "{message}");
            assert!(message.contains(said), "expected {said:?} in {message:?}");
        }
    }
}
