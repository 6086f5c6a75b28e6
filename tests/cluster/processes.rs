//! Ends processes of pods without a word, as the kernel does when memory is short.
//! It must never end a process that is not of the pods that were named.

use crate::support::{attempt, get};

/// The operator's, in each of its pods; `false` where none runs.
pub fn kill_operator() -> bool {
    kill(&["-n", "wharf-system", "-l", "app.kubernetes.io/component=operator"], &["/usr/bin/wharf"])
}

/// A node's agent.
pub fn kill_agent(node: u8) -> bool {
    let node = format!("--field-selector=spec.nodeName=node{node}");
    kill(&["-n", "wharf-system", "-l", "app.kubernetes.io/component=agent", &node], &["/usr/bin/wharf"])
}

/// The program that serves a Registry's images, whichever it is.
pub fn kill_engine(namespace: &str, registry: &str) -> bool {
    let pods = ["-n", namespace, "-l", &format!("app.kubernetes.io/instance={registry}")];
    kill(&pods, &["/usr/bin/wharf\0serve", "registry\0serve"])
}

/// Every process whose command begins in one of these ways, in the pods that are selected; `false` where none runs.
fn kill(pods: &[&str], commands: &[&str]) -> bool {
    let Some(pods) = get(&[&["pods"], pods].concat()) else { return false };
    let mut killed = false;
    for pod in pods["items"].as_array().unwrap() {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name)).unwrap_or_default();
            let command = read("cmdline");
            if read("cgroup").contains(uid) && commands.iter().any(|start| command.starts_with(start)) {
                let number = process.file_name().into_string().unwrap();
                killed |= attempt("kill", &["-9", &number], "").is_ok();
            }
        }
    }
    killed
}
