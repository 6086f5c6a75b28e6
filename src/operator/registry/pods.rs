//! Says in words why a registry's pod does not answer yet. Pure.
//! It must never repeat text that changes by itself, such as a counter or a back-off: a status that changes without cause
//! is written without end.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::api::reason;

/// The reason and message of the condition `Available`.
#[must_use]
pub fn diagnosis(pods: &[Pod]) -> (&'static str, String) {
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        if let Some(trouble) = unschedulable(pod).or_else(|| stuck_container(pod)) {
            return (reason::POD_FAILING, trouble);
        }
    }
    (reason::POD_STARTING, "The registry's pod is starting".to_owned())
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(format!("No node takes the registry's pod: {}", scheduled.message.as_deref().unwrap_or("no reason given")))
}

fn stuck_container(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let name = pod.name_any();
        let advice = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                format!("its image {} cannot be pulled", status.image)
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                format!("its container cannot be made: kubectl describe pod {name}")
            }
            "CrashLoopBackOff" => {
                format!("it ends again and again{}: kubectl logs {name} --previous", last_exit(status))
            }
            _ => return None,
        };
        Some(format!("The registry's pod does not run ({reason}): {advice}"))
    })
}

fn last_exit(status: &ContainerStatus) -> String {
    status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .map_or_else(String::new, |terminated| format!(" with exit code {}", terminated.exit_code))
}
