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

/// The pods of a Mirror.
pub fn kill_mirror(mirror: &str) -> bool {
    kill(
        &["-n", "wharf-system", "-l", &format!("app.kubernetes.io/name=mirror,app.kubernetes.io/instance={mirror}")],
        &["/usr/bin/wharf"],
    )
}

/// Stops what a node's agent does, but for what watches over it, as a deadlock would.
pub fn freeze_agent(node: u8) -> bool {
    let node = format!("--field-selector=spec.nodeName=node{node}");
    let pods = ["-n", "wharf-system", "-l", "app.kubernetes.io/component=agent", &node];
    signal("-STOP", &pods, |command| command.contains("\0--worker\0"))
}

/// Every process whose command begins in one of these ways, in the pods that are selected; `false` where none runs.
fn kill(pods: &[&str], commands: &[&str]) -> bool {
    signal("-9", pods, |command| commands.iter().any(|start| command.starts_with(start)))
}

fn signal(signal: &str, pods: &[&str], is_meant: impl Fn(&str) -> bool) -> bool {
    let Some(pods) = get(&[&["pods"], pods].concat()) else { return false };
    let mut reached = false;
    for pod in pods["items"].as_array().unwrap() {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name)).unwrap_or_default();
            if is_meant(&read("cmdline")) && read("cgroup").contains(uid) {
                let number = process.file_name().into_string().unwrap();
                reached |= attempt("kill", &[signal, &number], "").is_ok();
            }
        }
    }
    reached
}
